// Package tablevault holds what configures the functions in both worlds, so that the
// command carries it along.
package tablevault

import (
	"embed"
	"io/fs"
)

// Deployment is s.yaml: what functions there are and how they run.
//
//go:embed s.yaml
var Deployment []byte

//go:embed docs/ram/*.json
var ramFiles embed.FS

// Policies returns the RAM policies of docs/ram by the names of their files: what each
// function's role may do.
func Policies() fs.FS {
	policies, err := fs.Sub(ramFiles, "docs/ram")
	if err != nil {
		panic("tablevault: " + err.Error()) // the path is a valid one
	}
	return policies
}

// Package tablevault holds the one file that configures the functions in both
// worlds, so that the command carries it along.
package tablevault

import _ "embed"

// Deployment is s.yaml: what functions there are and how they run.
//
//go:embed s.yaml
var Deployment []byte

// Package stack is the local stack: a Tablestore server, a vault in a directory or in a
// bucket of a local OSS, and a host for the functions, on this machine.
package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Info says how to reach a stack. It stands in local.json.
type Info struct {
	Tablestore      string `json:"tablestore"`
	Instance        string `json:"instance"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"access_key_secret"`
	Functions       string `json:"functions"`
	Vault           string `json:"vault"`
	OSSEndpoint     string `json:"oss_endpoint,omitempty"`
	Policy          string `json:"policy,omitempty"`
	PID             int    `json:"pid"`
}

// String says which stack it is, for people.
func (i *Info) String() string {
	if i.PID == 0 {
		return "another local stack"
	}
	return fmt.Sprintf("the local stack of process %d (%s)", i.PID, i.Tablestore)
}

// Instance is the name of the local instance.
const Instance = "local"

// infoName is the file in a stack's directory that says how to reach it.
const infoName = "local.json"

// Find reads how to reach the stack that keeps its state in dir.
func Find(dir string) (Info, error) {
	name := filepath.Join(dir, infoName)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, fmt.Errorf("no local stack in %s: start one with `tablevault local --dir %s`", dir, dir)
	}
	if err != nil {
		return Info{}, fmt.Errorf("find the local stack: %w", err)
	}
	var info Info
	if err := json.Unmarshal(data, &info); err != nil {
		return Info{}, fmt.Errorf("read %s: %w; stop the stack and start it again", name, err)
	}
	return info, nil
}

// Package stack is the local stack: a Tablestore server, a vault in a
// directory, and a host for the functions, on this machine.
package stack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tablevault/tablevault/local/fc"
	"github.com/tablevault/tablevault/local/fc/deployment"
	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/shared/object/address"
)

// Info says how to reach a stack. It stands in local.json.
type Info struct {
	Tablestore      string `json:"tablestore"`
	Instance        string `json:"instance"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"access_key_secret"`
	Functions       string `json:"functions"`
	Vault           string `json:"vault"`
	PID             int    `json:"pid"`
}

// Instance is the name of the local instance.
const Instance = "local"

// infoName is the file in a stack's directory that says how to reach it.
const infoName = "local.json"

// Config says what to start.
type Config struct {
	// Dir keeps the tables, the vault and local.json. What is in it from an
	// earlier stack goes on.
	Dir string
	// BinDir holds the functions' binaries.
	BinDir string
	// Deployment is an s.yaml.
	Deployment []byte
	// Memory keeps the tables and the queues in memory: faster, and gone
	// afterwards.
	Memory bool
	// Timers switches the timers of the s.yaml on.
	Timers bool
	// Log takes what the functions print.
	Log io.Writer
	// Host, if given, changes the host's configuration before it starts.
	Host func(*fc.Config)
	// Tablestore, if given, changes the server's.
	Tablestore func(*ots.Config)
}

// Stack is a running local stack.
type Stack struct {
	Info
	Host       *fc.Host
	Tablestore *ots.Server
	// Authority knows the functions' temporary keys, and enforces the policies of
	// their roles where it is given any.
	Authority *ram.Authority
	tasks     *fc.TaskFile
	dir       string
}

// Start starts a stack and writes its local.json. It runs until Close.
func Start(ctx context.Context, c Config) (s *Stack, err error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("start the local stack: %w", err)
	}
	vaultDir := filepath.Join(dir, "vault")
	if err := os.MkdirAll(vaultDir, 0o700); err != nil {
		return nil, fmt.Errorf("start the local stack: %w", err)
	}
	s = &Stack{dir: dir, Info: Info{Instance: Instance, Vault: address.File(vaultDir), PID: os.Getpid()}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.AccessKeyID, s.AccessKeySecret, err = key(dir); err != nil {
		return nil, fmt.Errorf("start the local stack: %w", err)
	}
	owner := fc.Key{ID: s.AccessKeyID, Secret: s.AccessKeySecret}
	s.Authority = ram.New(ram.Config{Owner: owner})
	tables := ots.Config{Instances: []string{Instance}, Keys: []ots.Key{{ID: owner.ID, Secret: owner.Secret}}, Authority: s.Authority}
	if !c.Memory {
		tables.Dir = filepath.Join(dir, "tablestore")
	}
	if c.Tablestore != nil {
		c.Tablestore(&tables)
	}
	if s.Tablestore, err = ots.Start(tables); err != nil {
		return nil, fmt.Errorf("start the local Tablestore: %w", err)
	}
	s.Info.Tablestore = s.Tablestore.URL()
	d, err := deployment.Parse("s.yaml", c.Deployment, map[string]string{
		"TABLEVAULT_VAULT":               s.Vault,
		"TABLEVAULT_TABLESTORE_ENDPOINT": s.Info.Tablestore,
	})
	if err != nil {
		return nil, fmt.Errorf("start the function host: %w", err)
	}
	host := fc.Config{
		Functions: d.Functions, BinDir: c.BinDir, Timers: c.Timers, Log: c.Log, Region: "local",
		Key: owner, Authority: s.Authority, TemporaryKeys: true, TempDir: dir, Buckets: map[string]string{},
	}
	// The vault's folder stands for every bucket that a trigger watches.
	for _, f := range d.Functions {
		for _, t := range f.Objects {
			host.Buckets[t.Bucket] = vaultDir
		}
	}
	if !c.Memory {
		if s.tasks, err = fc.OpenTasks(filepath.Join(dir, "tasks")); err != nil {
			return nil, fmt.Errorf("start the function host: %w", err)
		}
		host.Tasks = s.tasks
	}
	if c.Host != nil {
		c.Host(&host)
	}
	if s.Host, err = fc.Start(ctx, host); err != nil {
		return nil, fmt.Errorf("start the function host: %w", err)
	}
	s.Functions = s.Host.URL()
	return s, s.write()
}

// write replaces local.json, whole or not at all.
func (s *Stack) write() error {
	data, err := json.Marshal(s.Info)
	if err != nil {
		return err
	}
	name := filepath.Join(s.dir, infoName)
	if err := os.WriteFile(name+".new", append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(name+".new", name)
}

// Close stops the functions, then the server. The directory stays.
func (s *Stack) Close() error {
	var errs []error
	if s.Host != nil {
		errs = append(errs, s.Host.Close())
	}
	if s.tasks != nil {
		errs = append(errs, s.tasks.Close())
	}
	if s.Tablestore != nil {
		errs = append(errs, s.Tablestore.Close())
	}
	return errors.Join(errs...)
}

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

// key is the stack's key pair: that of the stack before it, or a new one.
func key(dir string) (id, secret string, err error) {
	if info, err := Find(dir); err == nil && info.AccessKeyID != "" && info.AccessKeySecret != "" {
		return info.AccessKeyID, info.AccessKeySecret, nil
	}
	var b [24]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", "", err
	}
	return "LOCAL" + hex.EncodeToString(b[:8]), hex.EncodeToString(b[8:]), nil
}

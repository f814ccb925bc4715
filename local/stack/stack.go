//go:build unix

package stack

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/tablevault/tablevault/local/fc"
	"github.com/tablevault/tablevault/local/fc/deployment"
	"github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/shared/object/address"
)

// Keeper is what keeps the vault.
type Keeper string

// The keepers. A bucket is reached as the service's are, through its SDK.
const (
	Directory Keeper = "dir"
	Bucket    Keeper = "oss"
)

// Config says what to start.
type Config struct {
	// Dir keeps the tables, the vault and local.json. What is in it from an earlier stack
	// goes on.
	Dir string
	// Vault says what keeps the vault; if it is empty, what kept it in an earlier stack,
	// or else a directory.
	Vault Keeper
	// BinDir holds the functions' binaries.
	BinDir string
	// Deployment is an s.yaml.
	Deployment []byte
	// Policies holds, by the names of roles' functions and by "trigger", what their roles
	// may do: plan.json and so on, with places to be filled in. Nil lets them do
	// everything.
	Policies fs.FS
	// Policy is the file that says what is backed up; empty for none.
	Policy string
	// Drills is what the names of tables begin with that drills make in the instance.
	// Where it is given, the planner may do there what drill-plan.json says.
	Drills []string
	// Memory keeps the tables and the queues in memory: faster, and gone afterwards.
	Memory bool
	// Timers switches the timers of the s.yaml on.
	Timers bool
	// Log takes what the functions print.
	Log io.Writer
	// Step, if given, is told what is being done while the stack starts.
	Step func(what string)
	// Host, if given, changes the host's configuration before it starts.
	Host func(*fc.Config)
	// Tablestore, if given, changes the server's.
	Tablestore func(*ots.Config)
	// OSS, if given, changes how the object store is set up, where the vault is in a
	// bucket.
	OSS func(*OSS)
}

// OSS is how the object store of a stack is set up.
type OSS struct {
	Server oss.Config
	// Bucket is how the vault's bucket is made, if there is none yet.
	Bucket oss.BucketConfig
	// Parameters are added to the vault's address.
	Parameters url.Values
}

// Stack is a running local stack.
type Stack struct {
	Info
	Host       *fc.Host
	Tablestore *ots.Server
	OSS        *oss.Server // nil if the vault is in a directory
	// Authority knows the functions' temporary keys, and enforces the policies of their
	// roles where it is given any.
	Authority *ram.Authority
	tasks     *fc.TaskFile
	lock      io.Closer
	dir       string
	host      atomic.Pointer[fc.Host] // Host, for the object store's goroutines
}

// Start starts a stack and writes its local.json. It runs until Close.
func Start(ctx context.Context, c Config) (*Stack, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("start the local stack: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start the local stack: %w", err)
	}
	before, err := Find(dir)
	if err != nil {
		before = Info{} // the first one here, or one that can't be read
	}
	s := &Stack{dir: dir, Info: Info{Instance: Instance, PID: os.Getpid(), Policy: c.Policy}}
	s.lock, err = fc.Lock(filepath.Join(dir, "lock"))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("start the local stack: %s is in use by %s: stop that stack, or name another directory", dir, &before)
	}
	if err != nil {
		return nil, fmt.Errorf("start the local stack: %w", err)
	}
	if err := s.start(ctx, c, before); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// start starts the stack's parts. Ports are those of the stack before, unless another
// process has them by now, so that programs that know them need not be told anew.
func (s *Stack) start(ctx context.Context, c Config, before Info) (err error) {
	step := c.Step
	if step == nil {
		step = func(string) {}
	}
	dir := s.dir
	if s.AccessKeyID, s.AccessKeySecret, err = key(before); err != nil {
		return fmt.Errorf("start the local stack: %w", err)
	}
	log := Shared(cmp.Or(c.Log, io.Discard))
	owner := fc.Key{ID: s.AccessKeyID, Secret: s.AccessKeySecret}
	refused := func(d *ram.Denied) { fmt.Fprintf(log, "permissions: %v\n", d) }
	s.Authority = ram.New(ram.Config{Owner: owner, Refused: refused})
	step("opening the vault in " + dir)
	if err := s.keep(c, before); err != nil {
		return fmt.Errorf("start the local vault: %w", err)
	}
	tables := ots.Config{Instances: []string{Instance}, Keys: []ots.Key{{ID: owner.ID, Secret: owner.Secret}}, Authority: s.Authority}
	if !c.Memory {
		tables.Dir = filepath.Join(dir, "tablestore")
	}
	if c.Tablestore != nil {
		c.Tablestore(&tables)
	}
	step("opening the tables in " + dir)
	s.Tablestore, err = onPort(tables.Addr, before.Tablestore, func(addr string) (*ots.Server, error) {
		tables.Addr = addr
		return ots.Start(tables)
	})
	if err != nil {
		return fmt.Errorf("start the local Tablestore: %w", err)
	}
	s.Info.Tablestore = s.Tablestore.URL()
	settings := map[string]string{"TABLEVAULT_VAULT": s.Vault, "TABLEVAULT_TABLESTORE_ENDPOINT": s.Info.Tablestore, "TABLEVAULT_POLICY": c.Policy}
	if s.OSS == nil {
		// The vault's folder stands for every bucket that a trigger watches, and has no
		// prefix within.
		settings["TABLEVAULT_REQUESTS"] = "requests/"
	}
	d, err := deployment.Parse("s.yaml", c.Deployment, settings)
	if err != nil {
		return fmt.Errorf("start the function host: %w", err)
	}
	if err := s.permit(c, d); err != nil {
		return fmt.Errorf("start the function host: %w", err)
	}
	host := fc.Config{
		Functions: d.Functions, BinDir: c.BinDir, Timers: c.Timers, Log: log, Region: "local",
		Key: owner, Authority: s.Authority, TemporaryKeys: true, TempDir: dir, Buckets: map[string]string{},
	}
	if s.OSS == nil {
		for _, f := range d.Functions {
			for _, t := range f.Objects {
				host.Buckets[t.Bucket] = filepath.Join(dir, vaultFolder)
			}
		}
	}
	if !c.Memory {
		if s.tasks, err = fc.OpenTasks(filepath.Join(dir, "tasks")); err != nil {
			return fmt.Errorf("start the function host: %w", err)
		}
		host.Tasks = s.tasks
	}
	if c.Host != nil {
		c.Host(&host)
	}
	step("starting the functions' host")
	s.Host, err = onPort(host.Listen, before.Functions, func(addr string) (*fc.Host, error) {
		host.Listen = addr
		return fc.Start(ctx, host)
	})
	if err != nil {
		return fmt.Errorf("start the function host: %w", err)
	}
	s.Functions = s.Host.URL()
	s.host.Store(s.Host)
	return s.write()
}

// onPort starts a server at the address that was asked for or, if none was, on the port
// that url names and, if that is taken by now, on any.
func onPort[Server any](asked, url string, start func(addr string) (Server, error)) (Server, error) {
	if addr, ok := strings.CutPrefix(url, "http://"); ok && asked == "" {
		s, err := start(addr)
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return s, err
		}
	}
	return start(asked)
}

// permit says what the functions' roles may do, and those of their triggers.
func (s *Stack) permit(c Config, d *deployment.Deployment) error {
	if c.Policies == nil {
		return nil
	}
	for _, f := range d.Functions {
		roles := map[string]string{f.RoleName(): path.Base(f.Handler)}
		for _, t := range f.Objects {
			if t.Role != "" {
				roles[t.RoleName()] = "trigger"
			}
		}
		for role, name := range roles {
			p, err := Policy(c.Policies, name)
			if err != nil {
				return err
			}
			all := []*ram.Policy{p}
			if name == "plan" && len(c.Drills) > 0 {
				if p, err = filled(c.Policies, "drill-plan", map[string][]string{"drill-instance": {Instance}, "drill-name": c.Drills}); err != nil {
					return err
				}
				all = append(all, p)
			}
			s.Authority.SetPolicies(role, all...)
		}
	}
	return nil
}

// Policy is the policy of a name, filled in for a stack.
func Policy(policies fs.FS, name string) (*ram.Policy, error) {
	return filled(policies, name, nil)
}

// filled is the policy of a name, with more places than those of every stack.
func filled(policies fs.FS, name string, more map[string][]string) (*ram.Policy, error) {
	places := map[string][]string{"bucket": {bucket}, "prefix": {prefix}, "instance": {Instance}, "functions": {"tablevault-"}}
	maps.Copy(places, more)
	open, err := fs.ReadFile(policies, name+".json")
	if err != nil {
		return nil, fmt.Errorf("policy of %s: %w", name, err)
	}
	text, err := ram.Fill(open, places)
	if err != nil {
		return nil, fmt.Errorf("policy of %s: %w", name, err)
	}
	p, err := ram.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("policy of %s: %w", name, err)
	}
	return p, nil
}

// vaultFolder is the vault in a stack's directory, where a directory keeps it.
const vaultFolder = "vault"

// The bucket and the prefix of a vault in a bucket: those of the s.yaml as it stands,
// whose triggers watch them.
const bucket, prefix = "tablevault", "vault"

// keep makes ready what keeps the vault.
func (s *Stack) keep(c Config, before Info) error {
	keeper := c.Vault
	if keeper == "" {
		keeper = Directory
		if before.OSSEndpoint != "" {
			keeper = Bucket
		}
	}
	switch keeper {
	case Directory:
		s.Vault = address.File(filepath.Join(s.dir, vaultFolder))
		return os.MkdirAll(filepath.Join(s.dir, vaultFolder), 0o700)
	case Bucket:
		return s.serveBucket(c, before)
	}
	return fmt.Errorf("a vault is kept in %q or in %q, not in %q", Directory, Bucket, keeper)
}

// serveBucket starts an object store, for the owner's key and the functions', and makes
// the vault's bucket if it is new.
func (s *Stack) serveBucket(c Config, before Info) (err error) {
	config := OSS{Server: oss.Config{Authority: s.Authority, Created: s.created}, Parameters: url.Values{}}
	if !c.Memory {
		config.Server.Dir = filepath.Join(s.dir, "oss")
	}
	if c.OSS != nil {
		c.OSS(&config)
	}
	s.OSS, err = onPort(config.Server.Addr, before.OSSEndpoint, func(addr string) (*oss.Server, error) {
		config.Server.Addr = addr
		return oss.Start(config.Server)
	})
	if err != nil {
		return err
	}
	s.OSSEndpoint, s.Vault = s.OSS.URL(), s.OSS.Address(bucket, prefix)
	if len(config.Parameters) > 0 {
		s.Vault += "&" + config.Parameters.Encode()
	}
	if found, err := s.OSS.HasBucket(bucket); err != nil || found {
		return err
	}
	return s.OSS.CreateBucket(bucket, config.Bucket)
}

// created fires the triggers of a new object.
func (s *Stack) created(o oss.Created) {
	host := s.host.Load()
	if host == nil {
		return // it is just starting
	}
	// An event that is lost is made up for: the planner looks for requests, too.
	_ = host.ObjectCreated(fc.Object{Event: o.Event, Bucket: o.Bucket, Key: o.Object, ETag: o.ETag, Size: o.Size, Created: o.At})
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

// Close stops the functions, then the servers. The directory stays.
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
	if s.OSS != nil {
		errs = append(errs, s.OSS.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// key is the stack's key pair: that of the stack before it, or a new one.
func key(before Info) (id, secret string, err error) {
	if before.AccessKeyID != "" && before.AccessKeySecret != "" {
		return before.AccessKeyID, before.AccessKeySecret, nil
	}
	var b [24]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", "", err
	}
	return "LOCAL" + hex.EncodeToString(b[:8]), hex.EncodeToString(b[8:]), nil
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/address"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
)

// site is where the tables, the functions and the vault are: a local stack, or what the
// environment says.
type site struct {
	env function.Env
	dir string // of the local stack, empty without
	// invoker is opened by the first call: whoever reads the vault alone needs no
	// functions.
	invoker func() (*function.Invoker, error)
	repo    *repository.Repository // nil until it was opened
}

// siteFlags are the flags of every command that works on a site.
func siteFlags(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "stack", "", "directory of a local stack (tablevault local); without it the environment says where (TABLEVAULT_VAULT, …), or tablevault.yaml which vault")
}

// openSite finds the site.
func openSite(dir string) (*site, error) {
	var environ []string
	if dir == "" {
		environ = operator()
	} else {
		info, err := stack.Find(dir)
		if err != nil {
			return nil, err
		}
		environ = []string{
			"TABLEVAULT_VAULT=" + info.Vault,
			"TABLEVAULT_TABLESTORE_ENDPOINT=" + info.Tablestore,
			"TABLEVAULT_FC_ENDPOINT=" + info.Functions,
			"ALIBABA_CLOUD_ACCESS_KEY_ID=" + info.AccessKeyID,
			"ALIBABA_CLOUD_ACCESS_KEY_SECRET=" + info.AccessKeySecret,
			"FC_REGION=local",
			"TABLEVAULT_POLICY=" + info.Policy,
		}
	}
	env, err := function.ReadEnv(environ, deployed()...)
	if err != nil {
		return nil, fmt.Errorf("%w; or name a local stack with --stack DIR", err)
	}
	return &site{env: env, dir: dir, invoker: sync.OnceValues(func() (*function.Invoker, error) { return newInvoker(env) })}, nil
}

// newInvoker returns what calls the functions. What it lacks is told by the names that a
// person sets.
func newInvoker(env function.Env) (*function.Invoker, error) {
	if env.FCEndpoint == "" && (env.Account == "" || env.Region == "") {
		return nil, errors.New("this command calls the functions, and where they are is not known: set TABLEVAULT_REGION and TABLEVAULT_ACCOUNT, or TABLEVAULT_FC_ENDPOINT; or name a local stack with --stack DIR")
	}
	return function.NewInvoker(function.InvokerConfig{
		Endpoint: env.FCEndpoint, Account: env.Account, Region: env.Region, Credentials: env.Credentials.Provider(),
	})
}

// vaultOfPolicy is the vault that the policy names, TABLEVAULT_POLICY, or tablevault.yaml
// in the working directory. One that can't be read is left to the commands that are about
// it.
func vaultOfPolicy() string {
	file := cmp.Or(os.Getenv("TABLEVAULT_POLICY"), policy.FileName)
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	p, err := policy.Decode(file, data)
	if err != nil {
		return ""
	}
	return p.Vault
}

var setting = regexp.MustCompile(`env\('(TABLEVAULT_[A-Z0-9_]+)'`)

// deployed are the names of the settings that s.yaml reads. Whoever deploys has them in
// the same environment, for other commands than this one.
func deployed() (names []string) {
	for _, m := range setting.FindAllSubmatch(tablevault.Deployment, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// operator is the environment of a person, in whose shell s.yaml's names say what the
// platform tells a function by names of its own.
func operator() []string {
	environ := os.Environ()
	for own, name := range map[string]string{"FC_REGION": "TABLEVAULT_REGION", "FC_ACCOUNT_ID": "TABLEVAULT_ACCOUNT"} {
		if v, set := os.LookupEnv(name); set {
			environ = append(environ, own+"="+v)
		}
	}
	if os.Getenv("TABLEVAULT_VAULT") == "" {
		environ = append(environ, "TABLEVAULT_VAULT="+vaultOfPolicy())
	}
	return environ
}

// replicaNames are the replicas that a person has named, by what commands call them. The
// functions go by the addresses in their own policy: here an address only stands for its
// key.
type replicaNames map[string]string

// name is what a command calls a replica: its name in the policy, or the key of its
// address.
func (f replicaNames) name(flag, given string) (string, error) {
	if !strings.Contains(given, "://") {
		return given, nil
	}
	at, err := place.Parse(given)
	if err != nil {
		return "", usage("--%s: %v", flag, err)
	}
	f[at.Key()] = at.String()
	return at.Key(), nil
}

// explain says in an error which address a key is that of.
func (f replicaNames) explain(err error) error {
	if err == nil {
		return nil
	}
	for key, address := range f {
		if strings.Contains(err.Error(), key) {
			err = fmt.Errorf("%w (%s is the key of %s)", err, key, address)
		}
	}
	return err
}

// call runs a command on its function and reads the reply.
func (s *site) call(ctx context.Context, cmd function.Command, reply any) error {
	err := s.invoke(ctx, s.env.Name(cmd.Function()), cmd, reply)
	if f, ok := err.(*function.Failure); ok {
		return told{f}
	}
	return s.stopped(err)
}

// told is what a function has failed for, as people are told: its message names what it
// is about, so that the function's own name for that would say it twice.
type told struct{ *function.Failure }

func (t told) Error() string {
	if t.Hint != "" {
		return t.Message + " (" + t.Hint + ")"
	}
	return t.Message
}

func (t told) Unwrap() error { return t.Failure }

// invoke runs a command on a function of that name and reads the reply.
func (s *site) invoke(ctx context.Context, name string, cmd function.Command, reply any) error {
	invoker, err := s.invoker()
	if err != nil {
		return err
	}
	body, err := invoker.Invoke(ctx, name, cmd)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, reply); err != nil {
		return fmt.Errorf("%s answered %.200q: %w", name, body, err)
	}
	return nil
}

// store opens what the vault is kept in.
func (s *site) store(ctx context.Context) (object.Store, error) {
	if err := s.runs(ctx); err != nil {
		return nil, err
	}
	return address.Open(ctx, s.env.Vault, address.Config{
		Credentials: s.env.Credentials.Provider(),
		S3:          s.env.S3.Provider(),
		Cold:        vault.IsShard,
	})
}

// repository opens the vault, to read. once.
func (s *site) repository(ctx context.Context) (*repository.Repository, error) {
	if s.repo != nil {
		return s.repo, nil
	}
	store, err := s.store(ctx)
	if err != nil {
		return nil, err
	}
	r, err := repository.Open(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", place.Plain(s.env.Vault), s.stopped(err))
	}
	s.repo = r
	return r, nil
}

// openVault opens the site and its vault.
func openVault(ctx context.Context, dir string) (*site, *repository.Repository, error) {
	s, err := openSite(dir)
	if err != nil {
		return nil, nil, err
	}
	repo, err := s.repository(ctx)
	return s, repo, err
}

// instance reaches a Tablestore instance.
func (s *site) instance(name string) (*tablestore.Client, error) {
	return tablestore.New(tablestore.Config{
		Endpoint: s.env.Tablestore(name, s.env.Region), Instance: name,
		Credentials: s.env.Credentials.Provider(),
	})
}

// readPolicy reads the policy in a file, or, if none is named, in that of the settings;
// it returns the file's name. The policy is nil if there is no such file and nobody has
// named one.
func (s *site) readPolicy(file string) (string, *policy.Policy, error) {
	named := file != ""
	if !named {
		file, named = s.env.Policy, s.env.PolicyNamed
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return file, nil, nil
	}
	if err != nil {
		return file, nil, fmt.Errorf("read the policy: %w; `tablevault init --file %s` writes a first one", err, file)
	}
	p, err := policy.Decode(file, data)
	return file, p, err
}

// cutPattern cuts instance/table, with wildcards in the table's name, in two.
func cutPattern(pattern string) (instance, glob string, err error) {
	id, err := vault.ParseTable("", pattern)
	if err != nil {
		return "", "", usage("%v, for example prod/orders or 'prod/*'", err)
	}
	if _, err := path.Match(id.Table, ""); err != nil {
		return "", "", usage("table %q: %v", pattern, err)
	}
	return id.Instance, id.Table, nil
}

// tables are the tables that a pattern instance/pattern names, in order.
func (s *site) tables(ctx context.Context, pattern string) ([]string, error) {
	instance, glob, err := cutPattern(pattern)
	if err != nil {
		return nil, err
	}
	if !strings.ContainsAny(glob, `*?[\`) {
		return []string{pattern}, nil
	}
	client, err := s.instance(instance)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdle()
	names, err := client.Tables(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		if match, _ := path.Match(glob, name); match {
			found = append(found, instance+"/"+name)
		}
	}
	if len(found) == 0 {
		if len(names) == 0 {
			return nil, fmt.Errorf("no table of instance %s matches %q: it has no table", instance, glob)
		}
		return nil, fmt.Errorf("no table of instance %s matches %q; it has %s", instance, glob, strings.Join(names, ", "))
	}
	return found, nil
}

// id is the table id of instance/table on this site.
func (s *site) id(name string) (vault.TableID, error) {
	id, err := vault.ParseTable(s.env.Region, name)
	if err != nil {
		return id, usage("%v, for example prod/orders", err)
	}
	return id, nil
}

// lookEvery is how often a command looks at what it waits for.
const lookEvery = 200 * time.Millisecond

// lookAgain has a function look once more, after a pause, at the backup or the restore
// that look names, which goes on also where nobody waits for it. since is when the
// functions took the command that began it, so that what had failed for good before is
// tried again.
func (s *site) lookAgain(ctx context.Context, look function.Command, since time.Time, reply any) error {
	if !since.IsZero() {
		look.Settings = dispatch.Settings(dispatch.Since{Since: since})
	}
	err := retry.Sleep(ctx, lookEvery)
	if err == nil {
		err = s.call(ctx, look, reply)
	}
	if err == nil || ctx.Err() == nil {
		return err
	}
	kind, id := "backup", look.Backup
	if look.Restore != "" {
		kind, id = "restore", look.Restore
	}
	return fmt.Errorf("interrupted; %s %s goes on by itself, by the functions and the planner's timer: `tablevault show %s --watch%s` says how far it is, and the same command given again waits for it anew; `tablevault cancel` gives it up",
		kind, id, id, s.stackFlag())
}

// stackFlag is how a further command names the same stack, empty where the environment
// does.
func (s *site) stackFlag() string {
	if s.dir == "" {
		return ""
	}
	return " --stack " + s.dir
}

// runs asks whether the local stack runs that keeps the vault, which no number of
// attempts brings back. A vault in a directory is read without it.
func (s *site) runs(ctx context.Context) error {
	u, err := url.Parse(s.env.FCEndpoint)
	if s.dir == "" || strings.HasPrefix(s.env.Vault, "file:") || err != nil {
		return nil
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err == nil {
		err = c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil // which is found out, and told, by what is asked next
	}
	return s.stopped(err)
}

// stopped says of an error that nobody answers at the addresses of a local stack what to
// do about that.
func (s *site) stopped(err error) error {
	if s.dir == "" || !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return fmt.Errorf("%w: the stack does not run: start `tablevault local --dir %s`", err, s.dir)
}

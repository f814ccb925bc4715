package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/oss"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
)

// level is how a check came out.
type level string

const (
	fine    level = "ok"
	warning level = "warning"
	failure level = "failure"
)

// finding is one line of `tablevault doctor`.
type finding struct {
	// Check is what was looked at: a word that stays the same. About is the one of
	// several.
	Check string `json:"check"`
	About string `json:"about,omitempty"`
	Level level  `json:"level"`
	Text  string `json:"text"`
	// Fix is what to do about it; empty if all is well.
	Fix string `json:"fix,omitempty"`
}

func doctorCommand(s *streams) *cobra.Command {
	var dir, file string
	var maxAge time.Duration
	c := &cobra.Command{
		Use:   "doctor [--max-age 26h]",
		Short: "Check vault, tables, functions and recovery points: a line each, with the fix",
		Long: "Check all that backups rest on. It leaves nothing changed: it writes an object and removes it, unless the bucket\n" +
			"keeps what is written; what it tries to overwrite, it overwrites with what is there, and only where the bucket says\n" +
			"that it refuses. With --max-age the newest recovery point of each table may be no\n" +
			"older, which shows from outside that the planner runs. The exit code is 1 if a check fails; warnings don't count.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if maxAge < 0 {
				return usage("--max-age %s: want how old a recovery point may be, such as 26h, or 0 for any age", maxAge)
			}
			findings := runDoctor(cmd.Context(), dir, file, maxAge)
			failed := 0
			for _, f := range findings {
				if f.Level == failure {
					failed++
				}
			}
			err := s.print(map[string]any{"ok": failed == 0, "checks": findings}, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				for _, f := range findings {
					fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, strings.TrimSpace(f.Check+" "+f.About), f.Text)
					if f.Fix != "" {
						fmt.Fprintf(t, "\t\t→ %s\n", f.Fix)
					}
				}
				t.Flush()
			})
			if err == nil && failed > 0 {
				err = &exit{exitFailed, fmt.Errorf("%d of %s failed", failed, counted(int64(len(findings)), "check"))}
			}
			return err
		},
	}
	siteFlags(c, &dir)
	c.Flags().StringVar(&file, "policy", "", "the policy that the functions go by; default TABLEVAULT_POLICY, or tablevault.yaml here if there is one")
	c.Flags().DurationVar(&maxAge, "max-age", 0, "how old the newest recovery point of a table may be, such as 26h; 0: any age")
	return c
}

// doctor is a round of checks.
type doctor struct {
	site   *site
	maxAge time.Duration
	found  []finding
	policy *policy.Policy      // nil without one
	store  object.Store        // nil if it can't be opened
	skew   time.Duration       // of this machine's clock behind the servers'
	names  map[string][]string // tables by instance, of those that could be listed
	// listed are the backups of each table that have a manifest, oldest first, and
	// unlisted is why they could not be listed.
	listed   map[vault.TableID][]vault.BackupID
	unlisted error
	lost     bool // vault.json is
	// repo is the vault in the store; nil if it could not be opened, for unopened.
	repo     *repository.Repository
	unopened error
}

// askFor bounds one check, so that one that hangs does not keep the others.
const askFor = 20 * time.Second

func runDoctor(ctx context.Context, dir, file string, maxAge time.Duration) []finding {
	d := &doctor{maxAge: maxAge, names: map[string][]string{}}
	var err error
	if d.site, err = openSite(dir); err != nil {
		d.add("settings", "", failure, err.Error(), "name a local stack with --stack, or set TABLEVAULT_VAULT, TABLEVAULT_REGION, TABLEVAULT_ACCOUNT and a key (docs/operations.md)")
		return d.found
	}
	for _, check := range []func(context.Context){d.settings, d.clocks, d.vault, d.writable, d.protection, d.uploads, d.catalog} {
		check(ctx)
	}
	d.readPolicy(dir, file)
	for _, check := range []func(context.Context){d.functions, d.tables, d.recoveryPoints, d.retention, d.drills} {
		check(ctx)
	}
	return d.found
}

func (d *doctor) add(check, about string, l level, text, fix string) {
	d.found = append(d.found, finding{check, about, l, text, fix})
}

func (d *doctor) settings(context.Context) {
	e := d.site.env
	switch {
	case e.Credentials.IsZero():
		d.add("settings", "", failure, "there is no access key", "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET")
	case d.site.region == "":
		d.add("settings", "", failure, "there is no region", "set TABLEVAULT_REGION, such as cn-hangzhou")
	case e.FCEndpoint == "" && e.Account == "":
		d.add("settings", "", failure, "there is no account id, which the functions' address begins with", "set TABLEVAULT_ACCOUNT")
	default:
		d.add("settings", "", fine, "vault "+place.Plain(e.Vault)+", region "+d.site.region, "")
	}
}

// clocks asks every server for its date, which none keeps from strangers.
func (d *doctor) clocks(ctx context.Context) {
	servers := map[string]string{"functions": d.site.env.FCEndpoint}
	if servers["functions"] == "" && d.site.env.Account != "" && d.site.region != "" {
		servers["functions"] = fmt.Sprintf("https://%s.%s.fc.aliyuncs.com", d.site.env.Account, d.site.region)
	}
	if c, err := oss.Parse(d.site.env.Vault); err == nil {
		servers["vault"] = c.Endpoint
		if c.Endpoint == "" {
			servers["vault"] = "https://oss-" + c.Region + ".aliyuncs.com"
		}
	}
	worst, about := time.Duration(0), ""
	for _, name := range []string{"vault", "functions"} {
		url := servers[name]
		if url == "" {
			continue
		}
		skew, err := skewOf(ctx, url)
		if err != nil {
			d.add("network", name, failure, err.Error(), d.fixStopped(err, "look at the address, at this machine's network, and at a proxy between them"))
			continue
		}
		if name == "vault" {
			d.skew = skew
		}
		if about == "" || skew.Abs() > worst.Abs() {
			worst, about = skew, url
		}
	}
	switch fix := "set this machine's clock, by NTP for example: requests are signed with its time, and refused beyond 15 minutes"; {
	case about == "":
	case worst.Abs() > 15*time.Minute:
		d.add("clock", "", failure, fmt.Sprintf("this machine's clock is %s off that of %s", worst.Abs().Round(time.Second), about), fix)
	case worst.Abs() > time.Minute:
		d.add("clock", "", warning, fmt.Sprintf("this machine's clock is %s off that of %s", worst.Abs().Round(time.Second), about), fix)
	default:
		d.add("clock", "", fine, "agrees with the servers", "")
	}
}

// skewOf is how far a server's clock is ahead of this machine's, to about a
// second.
func skewOf(ctx context.Context, url string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor/2)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	before := time.Now()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	answer.Body.Close()
	middle := before.Add(time.Since(before) / 2)
	date, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("%s answers without a date", url)
	}
	skew := date.Sub(middle)
	// A date is cut to the second.
	if skew < 0 && skew > -time.Second {
		skew = 0
	}
	return skew, nil
}

func (d *doctor) vault(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	at := place.Plain(d.site.env.Vault)
	store, err := d.site.store(ctx)
	if err != nil {
		d.add("vault", "", failure, err.Error(), d.fixStopped(err, fixAccess(err, "look at TABLEVAULT_VAULT")))
		return
	}
	d.store = store
	d.repo, err = repository.Open(ctx, store)
	d.unopened = err
	switch {
	case errors.Is(err, repository.ErrHeaderLost):
		d.lost = true
		d.add("vault", "", failure, err.Error(), d.lostHeader(ctx))
	case errors.Is(err, vault.ErrCorrupt):
		d.lost = true
		d.add("vault", "", failure, err.Error(), "take the damaged object away, and "+d.lostHeader(ctx))
	case errors.Is(err, fs.ErrNotExist):
		d.add("vault", "", warning, "there is nothing at "+at+" yet", "the first backup makes the vault")
	case err != nil:
		d.add("vault", "", failure, err.Error(), d.fixStopped(err, fixAccess(err, "restore "+vault.HeaderName+" from a copy of the vault")))
	default:
		d.add("vault", "", fine, "is read", "")
	}
}

// lostHeader says how to put vault.json back.
func (d *doctor) lostHeader(ctx context.Context) string {
	fix := "put back a former version of " + vault.HeaderName + ", or that of a further vault with copies of these backups, which is the same"
	h, err := repository.LostHeader(ctx, d.store)
	if err != nil {
		return fmt.Sprintf("%s (what it said can't be found out from the shards: %v)", fix, err)
	}
	content, err := vault.Encode(vault.HeaderName, h)
	if err != nil {
		return fix
	}
	return fmt.Sprintf("%s; where there is neither, create it with what the shards tell, this line and its end of line: %s", fix, strings.TrimSpace(string(content)))
}

const fixPermission = "give the key's user or role what docs/ram/operator.json allows"

// fixStopped is what to do about an error if it is that a local stack does not run.
func (d *doctor) fixStopped(err error, otherwise string) string {
	if d.site.dir == "" || !errors.Is(err, syscall.ECONNREFUSED) {
		return otherwise
	}
	return fmt.Sprintf("start `tablevault local --dir %s`", d.site.dir)
}

// fixAccess is what to do about an error of a service.
func fixAccess(err error, otherwise string) string {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, table.ErrPermission) {
		return fixPermission
	}
	return otherwise
}

// probe is how much doctor tries to write: what a full disk does not take.
const probe = 64 << 10

// writable tries to write what is removed at once.
func (d *doctor) writable(ctx context.Context) {
	if d.store == nil || d.lost {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if store, ok := d.store.(interface {
		Protection(context.Context) (bucket.Protection, error)
	}); ok {
		if p, err := store.Protection(ctx); err == nil && p.Keeps() {
			d.add("write", "", fine, "not tried, since what is written would stay: the bucket "+p.Deleting, "")
			return
		}
	}
	_, folder := strings.CutPrefix(d.site.env.Vault, "file://")
	name := vault.ClockPrefix + repository.RandomName() // where prune removes what is left behind
	_, err := d.store.Create(ctx, name, bytes.NewReader(make([]byte, probe)))
	switch {
	case errors.Is(err, fs.ErrPermission) && !folder:
		d.add("write", "", warning, "not tried: this key may not write there, which the functions have to: "+err.Error(), "none, if the functions' backups are sealed; or run doctor once with a key that may put and delete objects under clock/")
		return
	case err != nil && folder:
		d.add("write", "", failure, err.Error(), "make room on the disk of the vault, or look at who may write in its folder")
		return
	case err != nil:
		d.add("write", "", failure, err.Error(), "look at the bucket: its quota, whether the account is in arrears, and its rules")
		return
	}
	if err := d.store.Delete(ctx, name); err != nil {
		d.add("write", "", warning, fmt.Sprintf("it can be written; what was, %s of %s, could not be removed: %v", name, size(probe), err), "prune removes it, or delete it by hand")
		return
	}
	d.add("write", "", fine, "an object was written, and removed", "")
}

// protection looks at what keeps objects from being overwritten and deleted.
func (d *doctor) protection(ctx context.Context) {
	if d.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	header, err := object.ReadAll(ctx, d.store, vault.HeaderName, 1<<20)
	if err == nil {
		// The same content: should it be written after all, nothing is lost.
		_, err := d.store.Create(ctx, vault.HeaderName, bytes.NewReader(header))
		switch {
		case err == nil:
			d.add("create-only", "", failure, "the store has written over an object that it was told to create (with what was there)", "use a store that refuses existing names; this vault is not safe here")
		case errors.Is(err, fs.ErrExist):
			d.add("create-only", "", fine, "a name that is taken is refused", "")
		case errors.Is(err, fs.ErrPermission):
			d.add("create-only", "", warning, "not tried, this key may not write: "+err.Error(), "run doctor once with a key that may put objects there")
		default:
			d.add("create-only", "", failure, err.Error(), "make the bucket one in which names can be decided")
		}
	}
	store, ok := d.store.(interface {
		Protection(context.Context) (bucket.Protection, error)
	})
	if !ok {
		d.add("protection", "", warning, "a directory: whoever may write in it may delete backups", "keep production's backups in a bucket")
		return
	}
	p, err := store.Protection(ctx)
	if err != nil {
		d.add("protection", "", failure, err.Error(), fixAccess(err, "look at the bucket in the console"))
		return
	}
	if len(p.Unknown) > 0 {
		d.add("protection", "", warning, "not all can be told: this key may not "+strings.Join(p.Unknown, ", "),
			"allow it on the bucket: docs/ram/operator.json has it for OSS, docs/object-stores.md for S3")
	}
	for _, f := range p.Flaws {
		l := warning
		if f.Fatal {
			l = failure
		}
		d.add("protection", f.About, l, f.Text, f.Fix+"; see docs/operations.md, Protect the bucket")
	}
	if p.Overwriting != "" {
		d.overwriting(ctx, "the bucket "+p.Overwriting, header)
	}
	if p.Deleting != "" {
		d.add("protection", "deleting", fine, "the bucket "+p.Deleting, "")
	}
}

// overwriting tries to overwrite the vault's header with itself, where the bucket says what it does about that and the
// store refuses by itself.
func (d *doctor) overwriting(ctx context.Context, text string, header []byte) {
	store, ok := d.store.(interface {
		Overwrite(ctx context.Context, name string, content []byte) (kept bool, err error)
	})
	if !ok {
		d.add("protection", "overwriting", fine, text, "")
		return
	}
	if header == nil {
		d.add("protection", "overwriting", fine, text+"; not tried, since nothing is there yet", "")
		return
	}
	switch kept, err := store.Overwrite(ctx, vault.HeaderName, header); {
	case kept:
		d.add("protection", "overwriting", fine, text+", which was tried", "")
	case errors.Is(err, fs.ErrPermission):
		d.add("protection", "overwriting", fine, text+"; not tried: this key may not write", "")
	case err != nil:
		d.add("protection", "overwriting", warning, text+"; trying came to nothing: "+err.Error(), "run doctor again")
	default:
		d.add("protection", "overwriting", failure, text+", as it says, and has let itself be overwritten (with what was there)",
			"look at the rule's prefix and principals; see docs/operations.md, Protect the bucket")
	}
}

// uploads looks for uploads in parts that were left behind.
func (d *doctor) uploads(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	old, oldest := 0, time.Time{}
	// No function works for longer than a day.
	count := func(begun time.Time) {
		if time.Since(begun) > 24*time.Hour {
			old++
			if oldest.IsZero() || begun.Before(oldest) {
				oldest = begun
			}
		}
	}
	store, ok := d.store.(interface {
		Unfinished(context.Context) iter.Seq2[bucket.Upload, error]
	})
	if !ok {
		return
	}
	var err error
	for u, e := range store.Unfinished(ctx) {
		if err = e; err != nil {
			break
		}
		count(u.Begun)
	}
	switch {
	case err != nil:
		d.add("uploads", "", warning, err.Error(), fixAccess(err, "look at the bucket's fragments in the console"))
	case old > 0:
		d.add("uploads", "", warning, fmt.Sprintf("%s of workers that died, the oldest of %s: their parts are paid for", counted(int64(old), "upload"), oldest.UTC().Format(time.RFC3339)), "add a lifecycle rule to the bucket that aborts uploads after two days")
	default:
		d.add("uploads", "", fine, "none is left behind", "")
	}
}

// catalog lists which backups there are. What is wrong with that is told with the
// recovery points.
func (d *doctor) catalog(ctx context.Context) {
	if d.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*askFor)
	defer cancel()
	d.listed = map[vault.TableID][]vault.BackupID{}
	for info, err := range d.store.List(ctx, vault.ManifestPrefix, "") {
		if err != nil {
			d.unlisted = err
			return
		}
		if t, b, ok := vault.ParseManifestName(info.Name); ok {
			d.listed[t] = append(d.listed[t], b)
		}
	}
}

// readPolicy reads the policy that the functions are thought to go by.
func (d *doctor) readPolicy(dir, file string) {
	file, p, err := d.site.readPolicy(file)
	switch {
	case err != nil:
		fix := "mend " + file + "; `tablevault init --schema` has its form"
		if errors.Is(err, fs.ErrNotExist) {
			fix = "name the one that the functions were deployed with"
		}
		d.add("policy", "", failure, err.Error(), fix)
		return
	case p == nil && dir == "":
		d.add("policy", "", warning, "there is no "+file+" here, so that nothing is known to be due by itself", "write one with `tablevault init`, deploy it, and run doctor beside it")
		return
	case p == nil:
		return
	}
	d.policy = p
	if p := d.policy.Vault; p != "" && dir == "" && !place.Same(p, d.site.env.Vault) {
		d.add("policy", "", failure, fmt.Sprintf("it is for the vault %s, and TABLEVAULT_VAULT is %s", place.Plain(p), place.Plain(d.site.env.Vault)), "make the two the same, and deploy again")
		return
	}
	d.add("policy", "", fine, fmt.Sprintf("%s has %s", file, counted(int64(len(d.policy.Rules)), "rule")), "")
}

// functions asks each function to answer.
func (d *doctor) functions(ctx context.Context) {
	for _, n := range []function.Name{function.Plan, function.Export, function.Import, function.Verify} {
		name := d.site.env.Name(n)
		var pong function.Pong
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, askFor)
			defer cancel()
			return d.site.ping(ctx, name, &pong)
		}()
		var refused *function.CallError
		switch {
		case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
			d.add("function", name, failure, err.Error(), "deploy it (s deploy); or set TABLEVAULT_FUNCTION_PREFIX as it was deployed")
		case errors.As(err, &refused) && refused.Status == http.StatusForbidden:
			d.add("function", name, failure, err.Error(), fixPermission)
		case err != nil:
			d.add("function", name, failure, err.Error(), "look at the function's log; s.yaml has its settings")
		case !place.Same(pong.Vault, d.site.env.Vault):
			d.add("function", name, failure, fmt.Sprintf("it works on the vault %s, and TABLEVAULT_VAULT is %s", place.Plain(pong.Vault), place.Plain(d.site.env.Vault)), "make the two the same, and deploy again")
		case pong.Envelope < function.Version:
			d.add("function", name, failure, fmt.Sprintf("it reads commands up to version %d, this command gives version %d", pong.Envelope, function.Version), "deploy the functions of this version (s deploy)")
		case !pong.Temporary:
			d.add("function", name, warning, "it works with a key that does not expire", "give it a role (docs/ram) and no key in its environment")
		default:
			d.add("function", name, fine, "answers", "")
		}
	}
}

// instances are those that the policy and the vault know of.
func (d *doctor) instances() []string {
	var names []string
	if d.policy != nil {
		for i := range d.policy.Rules {
			names = append(names, d.policy.Rules[i].Instances()...)
			if drill := d.policy.Rules[i].Drill; drill != nil {
				instance, _ := drill.Place()
				names = append(names, instance)
			}
		}
	}
	for t := range d.listed {
		if t.Region == d.site.region {
			names = append(names, t.Instance)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// maxTables is how many tables an instance may have by default.
const maxTables = 64

// tables asks each instance for its tables, and each that is backed up for how.
func (d *doctor) tables(ctx context.Context) {
	for _, instance := range d.instances() {
		client, err := d.site.instance(instance)
		if err != nil {
			d.add("tablestore", instance, failure, err.Error(), "look at TABLEVAULT_TABLESTORE_ENDPOINT")
			continue
		}
		names, err := func() ([]string, error) {
			ctx, cancel := context.WithTimeout(ctx, askFor)
			defer cancel()
			return client.Tables(ctx)
		}()
		if err != nil {
			d.add("tablestore", instance, failure, err.Error(), fixAccess(err, "look at the instance's name, at its network settings, and at TABLEVAULT_TABLESTORE_ENDPOINT (vpc from inside, public from outside)"))
			client.CloseIdle()
			continue
		}
		d.names[instance] = names
		if len(names) >= maxTables-1 {
			d.add("tablestore", instance, warning, fmt.Sprintf("it has %d tables; by default an instance may have %d, and a restore needs one", len(names), maxTables), "have the instance's quota raised, or restore into another")
		} else {
			d.add("tablestore", instance, fine, "has "+counted(int64(len(names)), "table"), "")
		}
		d.patterns(instance, names)
		for _, name := range names {
			if d.wanted(instance, name) {
				d.table(ctx, client, instance, name)
			}
		}
		client.CloseIdle()
	}
}

// patterns looks for a table for each pattern of the policy.
func (d *doctor) patterns(instance string, names []string) {
	if d.policy == nil {
		return
	}
	for i := range d.policy.Rules {
		r := &d.policy.Rules[i]
		for _, p := range r.Tables {
			if p.Not || p.Instance != instance {
				continue
			}
			one := policy.Rule{Tables: []policy.Pattern{p}}
			n := 0
			for _, name := range names {
				if one.Match(instance, name) {
					n++
				}
			}
			l, fix := fine, ""
			if n == 0 {
				l, fix = warning, "look at the spelling; a table that is made later is picked up by itself"
				if p.Literal() {
					l, fix = failure, "look at the spelling, or take the table out of the policy"
				}
			}
			d.add("pattern", p.String(), l, "matches "+counted(int64(n), "table"), fix)
		}
	}
}

// wanted says whether a table is backed up by the policy; without one, all that
// the vault knows are.
func (d *doctor) wanted(instance, name string) bool {
	return d.policy != nil && slices.ContainsFunc(d.policy.Rules, func(r policy.Rule) bool { return r.Match(instance, name) })
}

func (d *doctor) table(ctx context.Context, client *tablestore.Client, instance, name string) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	about := instance + "/" + name
	// Nothing in this version reads a table's change stream, so that nothing is said
	// about it.
	if _, err := client.Describe(ctx, name); err != nil {
		d.add("table", about, failure, err.Error(), fixAccess(err, "look at the table in the console"))
		return
	}
	d.add("table", about, fine, "is there; a backup of it is read row by row, and says from when to when", "")
}

// recoveryPoints looks for the newest recovery point of each table. Where the
// policy and the instance's tables are known, those that it wants count; else all
// that the vault has.
func (d *doctor) recoveryPoints(ctx context.Context) {
	if d.store == nil || d.lost {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*askFor)
	defer cancel()
	if d.unlisted != nil {
		d.add("recovery", "", failure, d.unlisted.Error(), fixAccess(d.unlisted, "look at the vault"))
		return
	}
	tables := slices.Collect(maps.Keys(d.listed))
	if d.policy != nil {
		tables = slices.DeleteFunc(tables, func(t vault.TableID) bool {
			names, known := d.names[t.Instance]
			return t.Region == d.site.region && !(d.wanted(t.Instance, t.Table) && (!known || slices.Contains(names, t.Table)))
		})
		for instance, names := range d.names {
			for _, name := range names {
				if t := (vault.TableID{Region: d.site.region, Instance: instance, Table: name}); d.wanted(instance, name) && !slices.Contains(tables, t) {
					tables = append(tables, t)
				}
			}
		}
	}
	slices.SortFunc(tables, func(a, b vault.TableID) int { return strings.Compare(a.Path(), b.Path()) })
	if len(tables) == 0 {
		l := warning
		if d.maxAge > 0 {
			l = failure
		}
		d.add("recovery", "", l, "there is no recovery point at all", "make one: tablevault backup --table INSTANCE/TABLE")
		return
	}
	for _, t := range tables {
		d.recoveryPoint(ctx, t)
	}
}

func (d *doctor) recoveryPoint(ctx context.Context, t vault.TableID) {
	const late = "look at the planner: its timer, its log, and `tablevault list` for backups that can't go on"
	at, exact, err := d.newest(ctx, t)
	now := d.now()
	old := now.Sub(at).Round(time.Second)
	switch {
	case err != nil:
		d.add("recovery", t.String(), failure, err.Error(), fixAccess(err, "look at the vault"))
	case at.IsZero() && (d.maxAge > 0 || d.policy != nil):
		d.add("recovery", t.String(), failure, "there is no recovery point of it", late)
	case at.IsZero():
		d.add("recovery", t.String(), warning, "there is no recovery point of it", late)
	case tooOld(at, now, d.maxAge):
		d.add("recovery", t.String(), failure, fmt.Sprintf("the newest recovery point, %s, is %s old, more than %s", at.UTC().Format(time.RFC3339), old, d.maxAge), late)
	default:
		text := fmt.Sprintf("the newest recovery point, %s, is %s old", at.UTC().Format(time.RFC3339), old)
		if !exact {
			text += " by its name; this key may not read the manifest"
		}
		d.add("recovery", t.String(), fine, text, "")
	}
}

// tooOld tells whether something of the instant at is older than most, to the
// nanosecond: what is shown is rounded, what is compared is not. A most of 0 is any
// age.
func tooOld(at, now time.Time, most time.Duration) bool {
	return most > 0 && now.Sub(at) > most
}

// newest is the newest recovery point of a table, zero if there is none; a backup
// that is marked for deletion is none. Each one that is damaged, or named by an
// instant that is still to come, is a finding of its own. Who may list manifests and
// not read them is told the instant in the newest one's name, which is that of what
// asked for the backup.
func (d *doctor) newest(ctx context.Context, t vault.TableID) (at time.Time, exact bool, err error) {
	d.ahead(t)
	if err = d.unopened; err == nil {
		at, err = d.newestOf(ctx, t)
	}
	if !errors.Is(err, fs.ErrPermission) {
		return at, true, err
	}
	for _, id := range slices.Backward(d.listed[t]) {
		if !id.Ahead(d.now()) {
			return id.Time(), false, nil
		}
	}
	return time.Time{}, false, nil
}

func (d *doctor) newestOf(ctx context.Context, t vault.TableID) (at time.Time, err error) {
	var backups []vault.Backup
	for _, id := range d.listed[t] {
		backups = append(backups, vault.Backup{Table: t, ID: id})
	}
	var sealed []*vault.Manifest
	for m, err := range d.repo.ManifestsOf(ctx, backups) {
		var bad *repository.Damaged
		switch {
		case errors.As(err, &bad):
			if err := d.damaged(ctx, bad); err != nil {
				return at, err
			}
		case err != nil:
			return at, err
		case m.State == vault.Sealed:
			sealed = append(sealed, m)
		}
	}
	slices.SortFunc(sealed, func(a, b *vault.Manifest) int { return b.RecoveryPoint().Compare(a.RecoveryPoint()) })
	for _, m := range sealed {
		err := d.repo.Unmarked(ctx, vault.Backup{Table: t, ID: m.Backup})
		if err == nil {
			return m.RecoveryPoint(), nil
		}
		if !errors.Is(err, repository.ErrMarked) {
			return at, err
		}
	}
	return at, nil
}

// damaged tells of a backup whose manifest can't be read, unless it is being deleted.
func (d *doctor) damaged(ctx context.Context, bad *repository.Damaged) error {
	err := d.repo.Unmarked(ctx, bad.Backup)
	if errors.Is(err, repository.ErrMarked) {
		return nil
	}
	if err == nil {
		d.add("manifest", string(bad.Backup.ID), failure, fmt.Sprintf("the backup of %s can't be restored: %v", bad.Backup.Table, bad),
			fmt.Sprintf("put it back from a further vault (delete %s, then tablevault copy %s --from ADDRESS), or restore another one, which `tablevault list` names", bad.Backup.Manifest(), bad.Backup.ID))
	}
	return err
}

// now is the vault's.
func (d *doctor) now() time.Time { return time.Now().Add(d.skew) }

// ahead looks for backups that are named by an instant which is still to come.
func (d *doctor) ahead(t vault.TableID) {
	var names []string
	for _, id := range d.listed[t] {
		if id.Ahead(d.now()) {
			names = append(names, string(id))
		}
	}
	if len(names) > 0 {
		d.add("dated", t.String(), warning, fmt.Sprintf("named by an instant that is still to come: %s; neither the planner nor a restore goes by that", strings.Join(names, ", ")),
			"look at who sends the planner events, and at the clocks of this machine and of the functions")
	}
}

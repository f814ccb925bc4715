package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
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
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
)

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
				if f.Level == status.Failure {
					failed++
				}
			}
			err := s.print(status.Diagnosis{Checks: findings, OK: failed == 0}, func(w io.Writer) {
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
	c.Flags().StringVar(&file, "policy", "", "the policy that the functions go by; default that of the local stack, TABLEVAULT_POLICY, or tablevault.yaml here if there is one")
	c.Flags().DurationVar(&maxAge, "max-age", 0, "how old the newest recovery point of a table may be, such as 26h; 0: any age")
	return c
}

// doctor is a round of checks.
type doctor struct {
	site     *site
	maxAge   time.Duration
	found    []status.Finding
	store    object.Store  // nil if it can't be opened
	skew     time.Duration // of this machine's clock behind the servers'
	known    status.Known
	unlisted error // why the backups could not be listed
	lost     bool  // vault.json is
	// repo is the vault in the store; nil if it could not be opened, for unopened.
	repo     *repository.Repository
	unopened error
}

// askFor bounds most checks.
const askFor = 20 * time.Second

// within bounds a check, so that one that hangs does not keep the others.
func within(ctx context.Context, bound time.Duration, check func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	check(ctx)
}

func runDoctor(ctx context.Context, dir, file string, maxAge time.Duration) []status.Finding {
	d := &doctor{maxAge: maxAge}
	var err error
	if d.site, err = openSite(dir); err != nil {
		d.add("settings", "", status.Failure, err.Error(), "name a local stack with --stack, or set TABLEVAULT_VAULT, TABLEVAULT_REGION, TABLEVAULT_ACCOUNT and a key (docs/operations.md)")
		return d.found
	}
	d.known = status.Known{Region: d.site.env.Region, Tables: map[string][]string{}}
	d.settings()
	d.clocks(ctx)
	within(ctx, askFor, d.vault)
	if d.store != nil {
		within(ctx, askFor, d.writable)
		within(ctx, askFor, d.protection)
		within(ctx, askFor, d.uploads)
		// What is wrong with the list is told with the recovery points.
		within(ctx, 5*askFor, func(ctx context.Context) { d.known.Backups, d.unlisted = status.Ended(ctx, d.store) })
	}
	d.readPolicy(dir, file)
	d.functions(ctx)
	d.tables(ctx)
	if d.store != nil {
		within(ctx, 5*askFor, d.recoveryPoints)
		d.retention()
		within(ctx, 5*askFor, d.drills)
	}
	return d.found
}

func (d *doctor) add(check, about string, l status.Level, text, fix string) {
	d.found = append(d.found, status.Finding{Check: check, About: about, Level: l, Text: text, Fix: fix})
}

func (d *doctor) settings() {
	e := d.site.env
	switch {
	case e.Credentials.IsZero():
		d.add("settings", "", status.Failure, "there is no access key", "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET")
	case e.Region == "":
		d.add("settings", "", status.Failure, "there is no region", "set TABLEVAULT_REGION, such as cn-hangzhou")
	case e.FCEndpoint == "" && e.Account == "":
		d.add("settings", "", status.Failure, "there is no account id, which the functions' address begins with", "set TABLEVAULT_ACCOUNT")
	default:
		d.add("settings", "", status.Fine, "vault "+place.Plain(e.Vault)+", region "+e.Region, "")
	}
}

// clocks asks every server for its date, which none keeps from strangers.
func (d *doctor) clocks(ctx context.Context) {
	servers := map[string]string{"functions": d.site.env.FCEndpoint}
	if servers["functions"] == "" && d.site.env.Account != "" && d.site.env.Region != "" {
		servers["functions"] = fmt.Sprintf("https://%s.%s.fc.aliyuncs.com", d.site.env.Account, d.site.env.Region)
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
			d.add("network", name, status.Failure, err.Error(), d.fixStopped(err, "look at the address, at this machine's network, and at a proxy between them"))
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
		d.add("clock", "", status.Failure, fmt.Sprintf("this machine's clock is %s off that of %s", worst.Abs().Round(time.Second), about), fix)
	case worst.Abs() > time.Minute:
		d.add("clock", "", status.Warning, fmt.Sprintf("this machine's clock is %s off that of %s", worst.Abs().Round(time.Second), about), fix)
	default:
		d.add("clock", "", status.Fine, "agrees with the servers", "")
	}
}

// skewOf is how far a server's clock is ahead of this machine's, to about a second.
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
	at := place.Plain(d.site.env.Vault)
	store, err := d.site.store(ctx)
	if err != nil {
		d.add("vault", "", status.Failure, err.Error(), d.fixStopped(err, fixAccess(err, "look at TABLEVAULT_VAULT")))
		return
	}
	d.store = store
	d.repo, err = repository.Open(ctx, store)
	d.unopened = err
	switch {
	case errors.Is(err, repository.ErrHeaderLost):
		d.lost = true
		d.add("vault", "", status.Failure, err.Error(), d.lostHeader(ctx))
	case errors.Is(err, vault.ErrCorrupt):
		d.lost = true
		d.add("vault", "", status.Failure, err.Error(), "take the damaged object away, and "+d.lostHeader(ctx))
	case errors.Is(err, fs.ErrNotExist):
		d.add("vault", "", status.Warning, "there is nothing at "+at+" yet", "the first backup makes the vault")
	case err != nil:
		d.add("vault", "", status.Failure, err.Error(), d.fixStopped(err, fixAccess(err, "restore "+vault.HeaderName+" from a copy of the vault")))
	default:
		d.add("vault", "", status.Fine, "is read", "")
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
	if d.lost {
		return
	}
	if store, ok := d.store.(protected); ok {
		if p, err := store.Protection(ctx); err == nil && p.Keeps() {
			d.add("write", "", status.Fine, "not tried, since what is written would stay: the bucket "+p.Deleting, "")
			return
		}
	}
	_, folder := strings.CutPrefix(d.site.env.Vault, "file://")
	name := vault.ClockPrefix + repository.RandomName() // where prune removes what is left behind
	_, err := d.store.Create(ctx, name, bytes.NewReader(make([]byte, probe)))
	switch {
	case errors.Is(err, fs.ErrPermission) && !folder:
		d.add("write", "", status.Warning, "not tried: this key may not write there, which the functions have to: "+err.Error(), "none, if the functions' backups are sealed; or run doctor once with a key that may put and delete objects under clock/")
		return
	case err != nil && folder:
		d.add("write", "", status.Failure, err.Error(), "make room on the disk of the vault, or look at who may write in its folder")
		return
	case err != nil:
		d.add("write", "", status.Failure, err.Error(), "look at the bucket: its quota, whether the account is in arrears, and its rules")
		return
	}
	if err := d.store.Delete(ctx, name); err != nil {
		d.add("write", "", status.Warning, fmt.Sprintf("it can be written; what was, %s of %s, could not be removed: %v", name, size(probe), err), "prune removes it, or delete it by hand")
		return
	}
	d.add("write", "", status.Fine, "an object was written, and removed", "")
}

// protected is a store that says how it is.
type protected interface {
	Protection(context.Context) (bucket.Protection, error)
}

// protection looks at what keeps objects from being overwritten and deleted.
func (d *doctor) protection(ctx context.Context) {
	header, err := object.ReadAll(ctx, d.store, vault.HeaderName, 1<<20)
	if err == nil {
		// The same content: should it be written after all, nothing is lost.
		_, err := d.store.Create(ctx, vault.HeaderName, bytes.NewReader(header))
		switch {
		case err == nil:
			d.add("create-only", "", status.Failure, "the store has written over an object that it was told to create (with what was there)", "use a store that refuses existing names; this vault is not safe here")
		case errors.Is(err, fs.ErrExist):
			d.add("create-only", "", status.Fine, "a name that is taken is refused", "")
		case errors.Is(err, fs.ErrPermission):
			d.add("create-only", "", status.Warning, "not tried, this key may not write: "+err.Error(), "run doctor once with a key that may put objects there")
		default:
			d.add("create-only", "", status.Failure, err.Error(), "make the bucket one in which names can be decided")
		}
	}
	store, ok := d.store.(protected)
	if !ok {
		d.add("protection", "", status.Warning, "a directory: whoever may write in it may delete backups", "keep production's backups in a bucket")
		return
	}
	p, err := store.Protection(ctx)
	if err != nil {
		d.add("protection", "", status.Failure, err.Error(), fixAccess(err, "look at the bucket in the console"))
		return
	}
	if len(p.Unknown) > 0 {
		d.add("protection", "", status.Warning, "not all can be told: this key may not "+strings.Join(p.Unknown, ", "),
			"allow it on the bucket: docs/ram/operator.json has it for OSS, docs/object-stores.md for S3")
	}
	for _, f := range p.Flaws {
		l := status.Warning
		if f.Fatal {
			l = status.Failure
		}
		d.add("protection", f.About, l, f.Text, f.Fix+"; see docs/operations.md, Protect the bucket")
	}
	if p.Overwriting != "" {
		d.overwriting(ctx, "the bucket "+p.Overwriting, header)
	}
	if p.Deleting != "" {
		d.add("protection", "deleting", status.Fine, "the bucket "+p.Deleting, "")
	}
}

// overwriting tries to overwrite the vault's header with itself, where the bucket says
// what it does about that and the store refuses by itself.
func (d *doctor) overwriting(ctx context.Context, text string, header []byte) {
	store, ok := d.store.(interface {
		Overwrite(ctx context.Context, name string, content []byte) (kept bool, err error)
	})
	if !ok {
		d.add("protection", "overwriting", status.Fine, text, "")
		return
	}
	if header == nil {
		d.add("protection", "overwriting", status.Fine, text+"; not tried, since nothing is there yet", "")
		return
	}
	switch kept, err := store.Overwrite(ctx, vault.HeaderName, header); {
	case kept:
		d.add("protection", "overwriting", status.Fine, text+", which was tried", "")
	case errors.Is(err, fs.ErrPermission):
		d.add("protection", "overwriting", status.Fine, text+"; not tried: this key may not write", "")
	case err != nil:
		d.add("protection", "overwriting", status.Warning, text+"; trying came to nothing: "+err.Error(), "run doctor again")
	default:
		d.add("protection", "overwriting", status.Failure, text+", as it says, and has let itself be overwritten (with what was there)",
			"look at the rule's prefix and principals; see docs/operations.md, Protect the bucket")
	}
}

// uploads looks for uploads in parts that were left behind.
func (d *doctor) uploads(ctx context.Context) {
	store, ok := d.store.(interface {
		Unfinished(context.Context) iter.Seq2[bucket.Upload, error]
	})
	if !ok {
		return
	}
	old, oldest := 0, time.Time{}
	var err error
	for u, e := range store.Unfinished(ctx) {
		if err = e; err != nil {
			break
		}
		if time.Since(u.Begun) > 24*time.Hour { // no function works for longer
			old++
			if oldest.IsZero() || u.Begun.Before(oldest) {
				oldest = u.Begun
			}
		}
	}
	switch {
	case err != nil:
		d.add("uploads", "", status.Warning, err.Error(), fixAccess(err, "look at the bucket's fragments in the console"))
	case old > 0:
		d.add("uploads", "", status.Warning, fmt.Sprintf("%s of workers that died, the oldest of %s: their parts are paid for", counted(int64(old), "upload"), oldest.UTC().Format(time.RFC3339)), "add a lifecycle rule to the bucket that aborts uploads after two days")
	default:
		d.add("uploads", "", status.Fine, "none is left behind", "")
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
		d.add("policy", "", status.Failure, err.Error(), fix)
		return
	case p == nil && dir == "":
		d.add("policy", "", status.Warning, "there is no "+file+" here, so that nothing is known to be due by itself", "write one with `tablevault init`, deploy it, and run doctor beside it")
		return
	case p == nil:
		return
	}
	d.known.Policy = p
	if p := p.Vault; p != "" && dir == "" && !place.Same(p, d.site.env.Vault) {
		d.add("policy", "", status.Failure, fmt.Sprintf("it is for the vault %s, and TABLEVAULT_VAULT is %s", place.Plain(p), place.Plain(d.site.env.Vault)), "make the two the same, and deploy again")
		return
	}
	d.add("policy", "", status.Fine, fmt.Sprintf("%s has %s", file, counted(int64(len(p.Rules)), "rule")), "")
}

// functions asks each function to answer.
func (d *doctor) functions(ctx context.Context) {
	for _, n := range []function.Name{function.Plan, function.Export, function.Import, function.Verify} {
		name := d.site.env.Name(n)
		var pong function.Pong
		var err error
		within(ctx, askFor, func(ctx context.Context) {
			err = d.site.invoke(ctx, name, function.Command{Kind: function.KindPing}, &pong)
		})
		var refused *function.CallError
		switch {
		case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
			d.add("function", name, status.Failure, err.Error(), "deploy it (s deploy); or set TABLEVAULT_FUNCTION_PREFIX as it was deployed")
		case errors.As(err, &refused) && refused.Status == http.StatusForbidden:
			d.add("function", name, status.Failure, err.Error(), fixPermission)
		case err != nil:
			d.add("function", name, status.Failure, err.Error(), "look at the function's log; s.yaml has its settings")
		case !place.Same(pong.Vault, d.site.env.Vault):
			d.add("function", name, status.Failure, fmt.Sprintf("it works on the vault %s, and TABLEVAULT_VAULT is %s", place.Plain(pong.Vault), place.Plain(d.site.env.Vault)), "make the two the same, and deploy again")
		case pong.Envelope < function.Version:
			d.add("function", name, status.Failure, fmt.Sprintf("it reads commands up to version %d, this command gives version %d", pong.Envelope, function.Version), "deploy the functions of this version (s deploy)")
		case !pong.Temporary:
			d.add("function", name, status.Warning, "it works with a key that does not expire", "give it a role (docs/ram) and no key in its environment")
		default:
			d.add("function", name, status.Fine, "answers", "")
		}
	}
}

// maxTables is how many tables an instance may have by default.
const maxTables = 64

// tables asks each instance for its tables, and each that is backed up for how.
func (d *doctor) tables(ctx context.Context) {
	for _, instance := range d.known.Instances() {
		client, err := d.site.instance(instance)
		if err != nil {
			d.add("tablestore", instance, status.Failure, err.Error(), "look at TABLEVAULT_TABLESTORE_ENDPOINT")
			continue
		}
		var names []string
		within(ctx, askFor, func(ctx context.Context) { names, err = client.Tables(ctx) })
		if err != nil {
			d.add("tablestore", instance, status.Failure, err.Error(), fixAccess(err, "look at the instance's name, at its network settings, and at TABLEVAULT_TABLESTORE_ENDPOINT (vpc from inside, public from outside)"))
			client.CloseIdle()
			continue
		}
		d.known.Tables[instance] = names
		if len(names) >= maxTables-1 {
			d.add("tablestore", instance, status.Warning, fmt.Sprintf("it has %d tables; by default an instance may have %d, and a restore needs one", len(names), maxTables), "have the instance's quota raised, or restore into another")
		} else {
			d.add("tablestore", instance, status.Fine, "has "+counted(int64(len(names)), "table"), "")
		}
		d.patterns(instance, names)
		for _, name := range names {
			if d.known.Wanted(instance, name) {
				within(ctx, askFor, func(ctx context.Context) { d.table(ctx, client, instance, name) })
			}
		}
		client.CloseIdle()
	}
}

// patterns looks for a table for each pattern of the policy.
func (d *doctor) patterns(instance string, names []string) {
	for _, r := range d.known.Rules() {
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
			l, fix := status.Fine, ""
			if n == 0 {
				l, fix = status.Warning, "look at the spelling; a table that is made later is picked up by itself"
				if p.Literal() {
					l, fix = status.Failure, "look at the spelling, or take the table out of the policy"
				}
			}
			d.add("pattern", p.String(), l, "matches "+counted(int64(n), "table"), fix)
		}
	}
}

func (d *doctor) table(ctx context.Context, client *tablestore.Client, instance, name string) {
	about := instance + "/" + name
	// Nothing in this version reads a table's change stream, so that nothing is said
	// about it.
	if _, err := client.Describe(ctx, name); err != nil {
		d.add("table", about, status.Failure, err.Error(), fixAccess(err, "look at the table in the console"))
		return
	}
	d.add("table", about, status.Fine, "is there; a backup of it is read row by row, and says from when to when", "")
}

// recoveryPoints looks for the newest recovery point of each table.
func (d *doctor) recoveryPoints(ctx context.Context) {
	if d.lost {
		return
	}
	if d.unlisted != nil {
		d.add("recovery", "", status.Failure, d.unlisted.Error(), fixAccess(d.unlisted, "look at the vault"))
		return
	}
	tables := d.known.BackedUp()
	if len(tables) == 0 {
		l := status.Warning
		if d.maxAge > 0 {
			l = status.Failure
		}
		text := "there is no recovery point at all"
		if len(d.known.Backups) > 0 {
			text += " of a table that the policy wants"
		}
		d.add("recovery", "", l, text, "make one: tablevault backup --table INSTANCE/TABLE")
	}
	for _, t := range tables {
		d.recoveryPoint(ctx, t)
	}
	// Of what else is in the vault, damage is told.
	for _, t := range d.known.Others(tables) {
		if _, _, err := d.newest(ctx, t); err != nil {
			d.add("recovery", t.String(), status.Failure, err.Error(), fixAccess(err, "look at the vault"))
		}
	}
}

func (d *doctor) recoveryPoint(ctx context.Context, t vault.TableID) {
	const late = "look at the planner: its timer, its log, and `tablevault list` for backups that can't go on"
	at, exact, err := d.newest(ctx, t)
	now := d.now()
	old := now.Sub(at).Round(time.Second)
	switch {
	case err != nil:
		d.add("recovery", t.String(), status.Failure, err.Error(), fixAccess(err, "look at the vault"))
	case at.IsZero() && (d.maxAge > 0 || d.known.Policy != nil):
		d.add("recovery", t.String(), status.Failure, "there is no recovery point of it", late)
	case at.IsZero():
		d.add("recovery", t.String(), status.Warning, "there is no recovery point of it", late)
	case tooOld(at, now, d.maxAge):
		d.add("recovery", t.String(), status.Failure, fmt.Sprintf("the newest recovery point, %s, is %s old, more than %s", at.UTC().Format(time.RFC3339), old, d.maxAge), late)
	default:
		text := fmt.Sprintf("the newest recovery point, %s, is %s old", at.UTC().Format(time.RFC3339), old)
		if !exact {
			text += " by its name; this key may not read the manifest"
		}
		d.add("recovery", t.String(), status.Fine, text, "")
	}
}

// tooOld tells whether something of the instant at is older than most, to the nanosecond:
// what is shown is rounded, what is compared is not. A most of 0 is any age.
func tooOld(at, now time.Time, most time.Duration) bool {
	return most > 0 && now.Sub(at) > most
}

// newest is the newest recovery point of a table, zero if there is none. Each backup that
// is damaged, or named by an instant that is still to come, is a finding of its own. Who
// may list manifests and not read them is told the instant in the newest one's name.
func (d *doctor) newest(ctx context.Context, t vault.TableID) (at time.Time, exact bool, err error) {
	d.ahead(t)
	if err = d.unopened; err == nil {
		var damaged []*repository.Damaged
		at, damaged, err = d.known.RecoveryPoint(ctx, d.repo, t)
		for _, bad := range damaged {
			d.add("manifest", string(bad.Backup.ID), status.Failure, fmt.Sprintf("the backup of %s can't be restored: %v", bad.Backup.Table, bad),
				fmt.Sprintf("put it back from a further vault (delete %s, then tablevault copy %s --from ADDRESS), or restore another one, which `tablevault list` names", bad.Backup.Manifest(), bad.Backup.ID))
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return d.known.Named(t, d.now()), false, nil
	}
	return at, true, err
}

// now is the vault's.
func (d *doctor) now() time.Time { return time.Now().Add(d.skew) }

// ahead looks for backups that are named by an instant which is still to come.
func (d *doctor) ahead(t vault.TableID) {
	if ids := d.known.Ahead(t, d.now()); len(ids) > 0 {
		d.add("dated", t.String(), status.Warning, fmt.Sprintf("named by an instant that is still to come: %s; neither the planner nor a restore goes by that", strings.Join(ids, ", ")),
			"look at who sends the planner events, and at the clocks of this machine and of the functions")
	}
}

// retention looks by their names whether backups stand in the vault that the policy keeps
// no longer.
func (d *doctor) retention() {
	if d.known.Policy == nil || d.unlisted != nil {
		return
	}
	if n, oldest := d.known.Overdue(d.now()); n > 0 {
		d.add("retention", "", status.Warning, fmt.Sprintf("%s, the oldest of %s, older than the policy keeps them for more than two days", counted(int64(n), "backup"), oldest.UTC().Format(time.RFC3339)),
			"run tablevault prune --apply every day, with a key of its own (docs/operations.md); without --apply it says why what is old stays")
		return
	}
	d.add("retention", "", status.Fine, "nothing is there that the policy keeps no longer", "")
}

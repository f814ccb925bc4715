package stack_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/address"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/prune"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// pruneSite is a bucket of a local OSS with a vault of which the owner may do all, and
// who prunes what docs/ram/prune.json says.
type pruneSite struct {
	authority *ram.Authority
	owner     object.Store
	address   string
	policy    *ram.Policy
}

var owner = ram.Key{ID: "owner", Secret: "secret"}

func (p *pruneSite) open(k ram.Key) (object.Store, error) {
	return address.Open(context.Background(), p.address, address.Config{Credentials: access.Key{ID: k.ID, Secret: k.Secret, Token: k.Token}.Provider()})
}

func newPruneSite(t *testing.T, config oss.BucketConfig, parameters string) *pruneSite {
	t.Helper()
	p := &pruneSite{authority: ram.New(ram.Config{Owner: owner})}
	server, err := oss.Start(oss.Config{Authority: p.authority})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := server.CreateBucket("tablevault", config); err != nil {
		t.Fatal(err)
	}
	p.address = server.Address("tablevault", "vault") + parameters
	if p.policy, err = stack.Policy(tablevault.Policies(), "prune"); err != nil {
		t.Fatal(err)
	}
	if p.owner, err = p.open(owner); err != nil {
		t.Fatal(err)
	}
	if _, err := repository.Init(t.Context(), p.owner, time.Now()); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pruneSite) create(t *testing.T, name string, content string) {
	t.Helper()
	if _, err := p.owner.Create(t.Context(), name, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func encoded(t *testing.T, name string, d vault.Document) string {
	t.Helper()
	data, err := vault.Encode(name, d)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// replicaVault is where backups are copied to.
const replicaVault = "oss://elsewhere/vault?region=cn-hangzhou"

func pruneRules(t *testing.T) *policy.Policy {
	t.Helper()
	p, err := policy.Decode("test", []byte("tables: local/*\nevery: hourly\nkeep: 72 hours\ndestinations: '"+replicaVault+"'\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fill makes two backups, of which the older one has been copied in and out, one that is
// open, and a restore that has not ended. It returns the older one.
func (p *pruneSite) fill(t *testing.T) vault.Backup {
	t.Helper()
	rules := pruneRules(t)
	id := vault.TableID{Region: "local", Instance: "local", Table: "orders"}
	at := time.Now().Add(-500 * time.Hour).Truncate(time.Second)
	var all []vault.Backup
	for n := range 3 {
		b := rules.Rules[0].Backup(id, at.Add(time.Duration(n)*100*time.Hour))
		all = append(all, b)
		p.create(t, vault.Opened(id, b.ID), "")
		if n == 2 {
			continue
		}
		p.create(t, b.Plan(), "plan")
		p.create(t, b.Group(0), "group")
		p.create(t, b.Shard("000000", "aa"), "rows")
		manifest := encoded(t, b.Manifest(), vaulttest.SealedAt(b, b.ID.Time(), b.ID.Time()))
		p.create(t, b.Manifest(), manifest)
		if n == 0 {
			sum := sha256.Sum256([]byte(manifest))
			note := b.CopyNote(place.Key(replicaVault))
			p.create(t, note, encoded(t, note, &vault.CopyNote{Backup: b.ID, Table: id, Replica: replicaVault, At: b.ID.Time(), Manifest: hex.EncodeToString(sum[:])}))
		}
	}
	log, segment := all[0].Log(), vault.NewSegmentID(0)
	for _, name := range []string{log.Slot(segment, 0), log.Done(segment), log.Ask(segment), log.Start(segment, 0), log.Failure(segment, 0), vault.Told{Rows: 1}.Name(log.Progress(segment))} {
		p.create(t, name, "of the log")
	}
	p.create(t, all[0].Copied(0, 0), "record")
	p.create(t, all[0].Copying(place.Key(replicaVault)).Start("000000", 0), "start")
	r := vault.Restore{ID: vault.NewRestoreID(at, "restore")}
	schema := table.Schema{{Name: "id", Type: table.IntegerKey}}
	p.create(t, r.Plan(), encoded(t, r.Plan(), &vault.RestorePlan{Restore: r.ID, Created: at.UTC(), Backup: all[1].ID, Manifest: vaulttest.Named(all[1].Manifest()), Source: id, Target: id,
		Definition: table.Definition{Name: "orders", Schema: schema, Options: table.Options{TTL: table.NoTTL, MaxVersions: 1}}}))
	p.create(t, r.Restoring(), "")
	return all[0]
}

// run prunes several times, with no time between marking, deleting and forgetting. It
// returns the first thing that went wrong.
func (p *pruneSite) run(t *testing.T, role string, times int) error {
	store, err := p.open(p.authority.Assume(role, time.Hour))
	if err != nil {
		return err
	}
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		return err
	}
	pruner := &prune.Pruner{Repo: repo, Region: "local", Policy: pruneRules(t),
		Settle: time.Nanosecond, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	for n := range times {
		if n > 0 && times > 2 {
			time.Sleep(1100 * time.Millisecond) // dates are whole seconds, and what follows is to be later
		}
		r, err := pruner.Prune(t.Context(), true)
		if err != nil {
			return err
		}
		if len(r.Failures) > 0 {
			return errors.New(r.Failures[0])
		}
	}
	return nil
}

// left counts the objects that name a backup.
func (p *pruneSite) left(t *testing.T, b vault.Backup) (n int) {
	t.Helper()
	for info, err := range p.owner.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(info.Name, string(b.ID)) {
			n++
		}
	}
	return n
}

// TestPrune: docs/ram/prune.json is enough to prune, and each of its grants is needed:
// without it something is refused, and said. What whoever prunes can't harm stands in
// TestPrunerHarms.
func TestPrune(t *testing.T) {
	p := newPruneSite(t, oss.BucketConfig{RetentionDays: 1}, "&retention=1d")
	b := p.fill(t)
	p.authority.SetPolicies("prune", p.policy)
	p.authority.Record()
	// A bucket that keeps everything: it is marked, and nothing of it goes.
	err := p.run(t, "prune", 3)
	if err == nil || !strings.Contains(err.Error(), vault.Opened(b.Table, b.ID)) || !strings.Contains(err.Error(), "the bucket's retention policy keeps it") {
		t.Errorf("in a locked bucket: %v", err)
	}
	if n := p.left(t, b); n != 15 {
		t.Errorf("in a locked bucket %d objects are left of 14 and the mark", n)
	}
	calls, _ := p.authority.Calls()

	p = newPruneSite(t, oss.BucketConfig{}, "")
	b = p.fill(t)
	p.authority.SetPolicies("prune", p.policy)
	p.authority.Record()
	if err := p.run(t, "prune", 3); err != nil {
		t.Fatal(err)
	}
	if n := p.left(t, b); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	more, _ := p.authority.Calls()
	for _, c := range more {
		if !c.Allowed {
			t.Errorf("it may not %s on %s", c.Action, c.Resource)
		}
	}
	grants := p.policy.Grants()
	if u := used(p.policy, "prune", append(calls, more...)); len(u) != len(grants) {
		for _, g := range grants {
			if !covered(u, g) {
				t.Errorf("it need not be allowed to %s on %s", g.Action, g.Resource)
			}
		}
	}
	if len(grants) < 10 {
		t.Fatalf("only %d grants", len(grants))
	}
	for _, g := range grants {
		t.Run(strings.ReplaceAll(g.Action+" "+g.Resource, "/", "|"), func(t *testing.T) {
			parameters := ""
			if g.Action == "oss:GetBucketWorm" {
				parameters = "&retention=1d"
			}
			config := oss.BucketConfig{}
			if parameters != "" {
				config.RetentionDays = 1
			}
			p := newPruneSite(t, config, parameters)
			b := p.fill(t)
			p.authority.SetPolicies("prune", p.policy.Without(g))
			p.authority.Record()
			// What tells the store's date may stay behind, and so may the mark of what is
			// gone.
			lenient, times := g.Action == "oss:DeleteObject" && strings.HasSuffix(g.Resource, "/clock/*"), 2
			if g.Action == "oss:DeleteObject" && strings.HasSuffix(g.Resource, "/marks/*") {
				lenient, times = true, 3
			}
			// A note that can't be read is one that is not there: the backup stays, with
			// that as the reason.
			if strings.HasSuffix(g.Resource, "/copied/*") {
				lenient = true
			}
			err := p.run(t, "prune", times)
			if p.left(t, b) == 0 && !strings.HasSuffix(g.Resource, "/clock/*") {
				t.Error("all is done without it")
			}
			calls, _ := p.authority.Calls()
			for _, c := range calls {
				if !c.Allowed && g.Covers(c) {
					if err == nil && !lenient {
						t.Error("it was refused, and nothing is said")
					}
					return
				}
			}
			t.Errorf("nothing is refused without it: %v", err)
		})
	}
}

func covered(all []ram.Grant, g ram.Grant) bool {
	for _, o := range all {
		if o == g {
			return true
		}
	}
	return false
}

// TestPrunerHarms: who prunes marks and deletes backups, and neither reads rows, nor
// writes or deletes anything else.
func TestPrunerHarms(t *testing.T) {
	p := newPruneSite(t, oss.BucketConfig{}, "")
	p.authority.SetPolicies("prune", p.policy)
	pruner, err := p.open(p.authority.Assume("prune", time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, may := range map[string]struct{ read, write, remove bool }{
		"keys/a/b.age":                        {},
		"requests/a.json":                     {},
		"leases/targets/r/i/t/000000.json":    {},
		"restores/closed/a.json":              {},
		"restoring/a":                         {},
		"restored/a":                          {},
		"restores/plans/a.json":               {read: true},
		"marks/r/i/t/a.json":                  {read: true, write: true, remove: true},
		"opened/r/i/t/a":                      {read: true, remove: true},
		"manifests/r/i/t/a.json":              {read: true, remove: true},
		"plans/r/i/t/a.json":                  {read: true, remove: true},
		"shards/r/i/t/a/000000/a.shard":       {remove: true},
		"groups/r/i/t/a/000000.json":          {remove: true},
		"slots/r/i/t/a/000000/000000.json":    {remove: true},
		"done/r/i/t/a/000000/000000":          {remove: true},
		"asks/r/i/t/a/000000.json":            {remove: true},
		"progress/r/i/t/a/000000/000000-1-1":  {remove: true},
		"starts/r/i/t/a/000000/000000.json":   {remove: true},
		"failures/r/i/t/a/000000/000000.json": {remove: true},
		"clock/a":                             {write: true, remove: true, read: true},
		"answers/requests/a.json":             {},
		"accepted/requests/a.json":            {},
		"drill-requests/a.json":               {},
		"copies/r/i/t/a/000000/000000.json":   {remove: true},
	} {
		_, err := pruner.Create(t.Context(), name, strings.NewReader("x"))
		if (err == nil) != may.write {
			t.Errorf("create %s: %v", name, err)
		}
		if !may.write {
			p.create(t, name, "x")
		}
		if _, err := object.ReadAll(t.Context(), pruner, name, 10); (err == nil) != may.read {
			t.Errorf("read %s: %v", name, err)
		}
		if err := pruner.Delete(t.Context(), name); (err == nil) != may.remove {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	if _, err := object.ReadAll(t.Context(), pruner, vault.HeaderName, 1<<20); err != nil {
		t.Error(err)
	}
	if err := pruner.Delete(t.Context(), vault.HeaderName); err == nil {
		t.Error("vault.json is deleted")
	}
}

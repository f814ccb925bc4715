package drill_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// TestForeignRequest has another request lie where the drill's belongs: whatever it
// restores, nothing is proved by it, and its table stays.
func TestForeignRequest(t *testing.T) {
	w := newWorld(t, 4)
	w.make("other", 4)
	w.seal()
	w.ask(ordersDrill.Request(), "other")
	const only = "tables: prod/orders\nevery: hourly\ndrill: {every: daily, to: staging/drill}\n"
	w.settle(only)
	w.is("20T00:00 failed")
	w.failed("is not what the drill asks for")
	// Who put it there is served, and nothing of his is closed.
	if a := w.serve(ordersDrill.Request()); !a.OK {
		t.Errorf("%+v", a)
	}
	w.Advance(24 * time.Hour)
	w.settle(only)
	w.is("20T00:00 failed left, 21T00:00 proved dropped")
	w.left("theirs")
}

// forge writes an answer that says that all is well, under the name of the drill's.
func (w *world) forge(of vault.RestoreID, change func(*vault.Answer)) {
	w.T.Helper()
	m := w.latest("orders")
	a := &vault.Answer{
		Request: ordersDrill.Request(), At: w.Clock(), OK: true, Restore: of, Backup: m.Backup, Table: m.Table.String(), Target: "staging/" + ordersDrill.Target("drill"),
		Rows: m.Totals.Rows, Verdict: vault.OK, Proof: vault.Restore{ID: of}.Proof(),
	}
	change(a)
	w.put(vault.AnswerName(ordersDrill.Request()), a)
}

// begun begins today's drill, and returns the id of the restore that its request has.
func (w *world) begun() vault.RestoreID {
	w.T.Helper()
	w.tick(daily)
	info, err := object.Stat(w.T.Context(), w.Store, ordersDrill.Request())
	if err != nil {
		w.T.Fatal(err)
	}
	d := w.first()
	return vault.NewRestoreID(info.Modified, string(d.Drill.Backup), d.Drill.Target.Path())
}

// TestForgedAnswer has who may write requests, or answers, say that a drill's restore is
// proved: nothing is, unless the proof of that very restore says so.
func TestForgedAnswer(t *testing.T) {
	running := vault.NewRestoreID(day, "running")
	asIs := func(*vault.Answer) {}
	for _, test := range []struct {
		name  string
		forge func(w *world)
		says  string
	}{
		{"before the drill", func(w *world) { w.forge(vault.NewRestoreID(day, "x"), asIs) }, "and the drill's is"},
		{"of its restore", func(w *world) { w.forge(w.begun(), asIs) }, "that is not proved"},
		{"of another restore, which is proved", func(w *world) {
			w.ask("requests/theirs.json", "orders")
			theirs := w.serve("requests/theirs.json")
			if !theirs.OK {
				t.Fatal(theirs)
			}
			w.forge(theirs.Restore, asIs)
		}, "and the drill's is"},
		{"of a running restore, to have it closed", func(w *world) {
			w.begun()
			w.forge(running, func(a *vault.Answer) { a.OK, a.Error = false, "no" })
		}, "no"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := sealed(t, 100)
			test.forge(w)
			w.Drain()
			w.settle(daily)
			w.failed(test.says)
			if closed, err := w.Repo.Closed(t.Context(), running); closed != nil || err != nil {
				t.Errorf("the restore that the answer names was closed: %+v, %v", closed, err)
			}
		})
	}
}

// rehearsed is a world in which the restore of today's drill has ended, and no tick has
// seen it yet, with the restore and its proof.
func rehearsed(t *testing.T) (*world, vault.Restore, *vault.Proof) {
	t.Helper()
	w := sealed(t, 100)
	w.tick(daily)
	answer := w.serve(ordersDrill.Request())
	w.Drain()
	if !answer.OK {
		t.Fatal(answer)
	}
	proof, err := w.Repo.RestoreProof(t.Context(), answer.Restore)
	if err != nil {
		t.Fatal(err)
	}
	return w, vault.Restore{ID: answer.Restore}, proof
}

// TestForgedProof has a proof beside the answer that is not of this drill's restore, or
// does not say what it comes to.
func TestForgedProof(t *testing.T) {
	for name, change := range map[string]func(*vault.Proof){
		"":                 func(*vault.Proof) {},
		"of another":       func(p *vault.Proof) { p.Restore = vault.NewRestoreID(day, "x") },
		"another backup":   func(p *vault.Proof) { p.Backup = vault.NewBackupID(day, "x") },
		"another table":    func(p *vault.Proof) { p.Table.Table = "other" },
		"another target":   func(p *vault.Proof) { p.Target = "staging/other" },
		"another manifest": func(p *vault.Proof) { p.Manifest.SHA256 = strings.Repeat("0", 64) },
		"another depth":    func(p *vault.Proof) { p.Depth = verify.DepthRead },
		"an old one":       func(p *vault.Proof) { p.At = day.Add(-time.Hour) },
		"rows missing":     func(p *vault.Proof) { p.Check.Missing = 1 },
		"fewer in target":  func(p *vault.Proof) { p.Check.Target-- },
		"fewer rows":       func(p *vault.Proof) { p.Check.Rows--; p.Check.Target-- },
		"other rows":       func(p *vault.Proof) { p.Check.TargetDigest.Add(p.Check.TargetDigest) },
		"rows of another": func(p *vault.Proof) {
			p.Check.Digest.Add(p.Check.Digest)
			p.Check.TargetDigest.Add(p.Check.TargetDigest)
		},
		"corrupt objects":   func(p *vault.Proof) { p.Check.Corrupted = 1 },
		"refused rows":      func(p *vault.Proof) { p.Check.Missing, p.Check.Quarantined, p.Verdict = 1, 1, vault.Quarantined },
		"verdict of others": func(p *vault.Proof) { p.Verdict = vault.Differs },
	} {
		t.Run(name, func(t *testing.T) {
			w, r, p := rehearsed(t)
			change(p)
			w.put(r.Proof(), p)
			w.tick(daily)
			if e := w.first().End; e == nil || e.OK != (name == "") {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestForgedPlan has the plan of the drill's restore, and its proof, be about another
// table: that one is proved, and not the drill.
func TestForgedPlan(t *testing.T) {
	for name, change := range map[string]func(*vault.RestorePlan){
		"":               func(*vault.RestorePlan) {},
		"another target": func(p *vault.RestorePlan) { p.Target.Table = "theirs" },
		"another source": func(p *vault.RestorePlan) {
			p.Source.Table = "other"
			p.Manifest.Name = vault.Backup{Table: p.Source, ID: p.Backup}.Manifest()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, r, proof := rehearsed(t)
			was, err := w.Repo.RestorePlan(t.Context(), r.ID)
			if err != nil {
				t.Fatal(err)
			}
			plan := *was
			change(&plan)
			plan.Definition.Name = plan.Target.Table
			proof.Target, proof.Table, proof.Manifest = plan.Target.String(), plan.Source, plan.Manifest
			w.put(r.Plan(), &plan)
			w.put(r.Proof(), proof)
			if w.Repo, err = repository.Open(t.Context(), w.Store); err != nil {
				t.Fatal(err)
			}
			w.tick(daily)
			if e := w.first().End; e == nil || e.OK != (name == "") || name != "" && !strings.Contains(e.Error, "is of backup") {
				t.Errorf("%+v", e)
			}
		})
	}
}

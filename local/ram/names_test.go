package ram_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/shared/vault"
)

// exampleID is an id that backups and restores have in these tests.
const exampleID = "20261120T000000Z-00000000"

// objects are names of a vault by their kind, of a table and of a request that are called
// so.
func objects(called string) map[string]string {
	t := vault.TableID{Region: "cn-hangzhou", Instance: called, Table: called}
	b, r := vault.Backup{Table: t, ID: exampleID}, vault.Restore{ID: exampleID}
	drill := vault.NewDrillID(t, time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC))
	request := vault.RequestPrefix + called + "/" + called + ".json"
	return map[string]string{
		"header": vault.HeaderName, "manifest": b.Manifest(), "signature": vault.SignatureName(b.Manifest()), "opened": vault.Opened(t, b.ID),
		"plan": b.Plan(), "shard": b.Shard("000000", called), "index": vault.Index(b.Shard("000000", called)), "group": b.Group(0),
		"slot": b.Log().Slot("000000", 0), "done": b.Log().Done("000000"), "ask": b.Log().Ask("000000"), "start": b.Log().Start("000000", 0), "failure": b.Log().Failure("000000", 0),
		"restore plan": r.Plan(), "restore slot": r.Log().Slot("000000", 0), "restore done": r.Log().Done("000000"), "restore start": r.Log().Start("000000", 0),
		"restore failure": r.Log().Failure("000000", 0), "restore end": r.Log().End("000000", 0), "created": r.Created(), "quarantine": r.Quarantine("000000", called),
		"check": r.Check("000000"), "compared": r.Verify().Slot("000000", 0), "comparing": r.Verify().Start("000000", 0), "checked group": r.Group(0),
		"closed": r.Closed(), "proof": r.Proof(), "restoring": r.Restoring(), "restored": r.Restored(),
		"request": request, "accepted": vault.AcceptedName(request), "answer": vault.AnswerName(request),
		"drill request": drill.Request(), "drill accepted": vault.AcceptedName(drill.Request()), "drill answer": vault.AnswerName(drill.Request()),
		"drill": drill.Begun(), "drill end": drill.Ended(), "drill drop": drill.Dropped(), "claim": vault.ClaimName(t, 0),
		"copied": b.Copied(0, 0), "copy note": b.CopyNote(called), "copying": b.Copying(called).Start("000000", 0), "mark": b.Mark(), "gone": b.Gone(), "clock": vault.ClockPrefix + called, "probe": vault.ProbeName(called, called),
	}
}

// rolesIn are the policies of docs/ram, filled in.
func rolesIn(t *testing.T) map[string]*ram.Policy {
	t.Helper()
	files, err := filepath.Glob("../../docs/ram/*.json")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	policies := map[string]*ram.Policy{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data, err = ram.Fill(data, map[string][]string{"bucket": {"b"}, "prefix": {"v"}, "instance": {"prod"}, "functions": {"tablevault-"},
			"drill-instance": {"staging"}, "drill-name": {"drill"}, "further-bucket": {"b"}, "further-prefix": {"v"}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := ram.ParsePolicy(data)
		if err != nil {
			t.Fatal(err)
		}
		policies[strings.TrimSuffix(filepath.Base(file), ".json")] = p
	}
	return policies
}

var objectActions = []string{"oss:PutObject", "oss:GetObject", "oss:DeleteObject", "oss:AbortMultipartUpload", "oss:ListParts"}

// TestKindsStandFirst calls tables, instances, requests and all else that has a free name
// as the kinds of objects are called: what a role may do to an object depends on its kind
// alone.
func TestKindsStandFirst(t *testing.T) {
	plain := objects("orders")
	var names []string
	for _, name := range plain {
		names = append(names, strings.Split(name, "/")...)
	}
	slices.Sort(names)
	names = slices.Compact(append(names, "plan.json", "shards", "backups"))
	for role, p := range rolesIn(t) {
		a := ram.New(ram.Config{})
		a.SetPolicies(role, p)
		may := func(action, name string) bool {
			return a.AuthorizeRole(role, action, "acs:oss:oss-cn:1:b/v/"+name, nil) == nil
		}
		for _, called := range names {
			for kind, name := range objects(called) {
				for _, action := range objectActions {
					if may(action, name) != may(action, plain[kind]) {
						t.Errorf("%s may %s on the %s %s: %t, and on %s: %t", role, action, kind, name, may(action, name), plain[kind], may(action, plain[kind]))
					}
				}
			}
		}
	}
}

// TestWhoWritesWhat: what each role may create, in a table that has the name of a kind as
// in any other.
func TestWhoWritesWhat(t *testing.T) {
	want := map[string][]string{
		"plan":           {"header", "manifest", "signature", "opened", "plan", "group", "ask"},
		"export":         {"shard", "index", "slot", "done", "start", "failure"},
		"verify":         {"check", "compared", "comparing", "copying", "copy note", "probe"},
		"drill-plan":     {"drill", "drill end", "drill drop", "drill request", "closed"},
		"prune":          {"mark", "gone", "clock"},
		"further-verify": {"header", "manifest", "signature", "opened", "plan", "group", "shard", "index", "copied"},
		"mend-verify":    {"plan", "group", "shard", "index"},
		"import": {"restore plan", "restore slot", "restore done", "restore start", "restore failure", "restore end", "created", "quarantine", "check", "compared", "comparing",
			"checked group", "closed", "proof", "restoring", "restored", "accepted", "answer", "drill accepted", "drill answer", "claim"},
	}
	for role, p := range rolesIn(t) {
		a := ram.New(ram.Config{})
		a.SetPolicies(role, p)
		for _, called := range []string{"orders", "slots", "plans"} {
			for kind, name := range objects(called) {
				err := a.AuthorizeRole(role, "oss:PutObject", "acs:oss:oss-cn:1:b/v/"+name, nil)
				if may := err == nil; may != slices.Contains(want[role], kind) {
					t.Errorf("%s may write the %s %s: %t", role, kind, name, may)
				}
			}
		}
	}
}

// TestExportReadsNoRows: nothing that export may read has rows of a table in it.
func TestExportReadsNoRows(t *testing.T) {
	a := ram.New(ram.Config{})
	a.SetPolicies("export", rolesIn(t)["export"])
	for _, called := range []string{"orders", "slots", "shards"} {
		names := objects(called)
		for _, kind := range []string{"shard", "index", "quarantine", "proof", "group"} {
			if err := a.AuthorizeRole("export", "oss:GetObject", "acs:oss:oss-cn:1:b/v/"+names[kind], nil); err == nil {
				t.Errorf("export may read the %s %s", kind, names[kind])
			}
		}
		for _, kind := range []string{"plan", "slot", "start"} {
			if err := a.AuthorizeRole("export", "oss:GetObject", "acs:oss:oss-cn:1:b/v/"+names[kind], nil); err != nil {
				t.Errorf("export may not read the %s %s", kind, names[kind])
			}
		}
	}
}

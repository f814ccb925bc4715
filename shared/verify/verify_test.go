package verify_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

func TestVerifyOfASoundBackup(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 500)
	w.Tables.PageRows = 40
	m := w.Backup(vaulttest.Small)
	for _, depth := range []string{verify.DepthObjects, verify.DepthRead, verify.DepthRows} {
		proof := w.Verify(m, depth)
		if proof.Verdict != vault.OK {
			t.Fatalf("%s: %+v", depth, proof)
		}
		if want := m.Totals.Objects + 2 + int64(len(m.Groups)); proof.Check.Objects != want {
			t.Errorf("%s: %d objects, want %d", depth, proof.Check.Objects, want)
		}
		if depth != verify.DepthObjects && (proof.Check.Rows != m.Totals.Rows || proof.Check.Digest != m.Totals.Digest) {
			t.Errorf("%s: %d rows, the manifest says %d, or another digest", depth, proof.Check.Rows, m.Totals.Rows)
		}
	}
}

func TestVerifyFindsWhatTheStoreDoesNotShow(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	w.Tables.PageRows = 10
	m := w.Backup(vaulttest.Small)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	bends := map[string]func([]byte) []byte{
		"shortened": func(b []byte) []byte { return b[:random.IntN(len(b))] },
		"longer":    func(b []byte) []byte { return append(b, byte(random.IntN(256))) },
	}
	for i := range 40 {
		bends[fmt.Sprintf("flipped bit %d", i)] = func(b []byte) []byte {
			b[random.IntN(len(b))] ^= 1 << random.IntN(8)
			return b
		}
	}
	whole := w.Repo
	for _, o := range w.Parts(m) {
		for name, bend := range bends {
			repo, err := repository.Open(t.Context(), &vaulttest.Bent{Store: w.Store, Name: o.Name, Bend: bend})
			if err != nil {
				t.Fatal(err)
			}
			w.Repo = repo
			for _, depth := range []string{verify.DepthRead, verify.DepthRows} {
				proof := w.Verify(m, depth)
				if proof.Verdict != vault.Corrupt || !slices.ContainsFunc(proof.Check.Findings, func(f vault.Finding) bool { return f.Object == o.Name }) {
					t.Fatalf("%s %s, %s: verdict %s, %+v", o.Name, name, depth, proof.Verdict, proof.Check)
				}
				if proof.Check.Extra+proof.Check.Missing+proof.Check.Changed > 0 {
					t.Errorf("%s %s, %s: rows that could not be read count as differences: %+v", o.Name, name, depth, proof.Check)
				}
			}
		}
	}
	w.Repo = whole
}

func TestVerifyAsksTheStoreForEveryObject(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	m := w.Backup(vaulttest.Small)
	store := w.Store.(*mem.Store)
	for _, o := range w.Parts(m) {
		content, err := object.ReadAll(t.Context(), store, o.Name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		put := func(content []byte) {
			if err := store.Delete(t.Context(), o.Name); err != nil {
				t.Fatal(err)
			}
			if content == nil {
				return
			}
			if _, err := store.Create(t.Context(), o.Name, bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		other := bytes.Clone(content)
		other[len(other)/2] ^= 1
		for what, damaged := range map[string][]byte{"gone": nil, "short": content[:len(content)-1], "other bytes": other} {
			put(damaged)
			proof := w.Verify(m, verify.DepthObjects)
			if proof.Verdict != vault.Corrupt || proof.Check.Findings[0].Object != o.Name {
				t.Errorf("%s %s: %s, %+v", o.Name, what, proof.Verdict, proof.Check.Findings)
			}
		}
		put(content)
	}
	if proof := w.Verify(m, verify.DepthRead); proof.Verdict != vault.OK {
		t.Errorf("with everything put back: %+v", proof)
	}
}

func TestVerifyRefusesBadRequests(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 10)
	m := w.Backup(vault.Settings{})
	b := vault.Backup{Table: m.Table, ID: m.Backup}
	other := vaulttest.Definition()
	other.Name, other.Schema = "other", table.Schema{{Name: "k", Type: table.IntegerKey}}
	w.Tables.Make(other)
	for _, test := range []struct {
		name string
		req  verify.Request
		want string
	}{
		{"depth", verify.Request{Backup: b, Depth: "deep"}, "want objects, read or rows"},
		{"no such backup", verify.Request{Backup: vault.Backup{Table: m.Table, ID: "20261120T021400Z-00000000"}, Depth: "read"}, "tablevault list"},
		{"no such restore", verify.Request{Restore: "20261120T021400Z-00000000", Depth: "read"}, "no restore"},
		{"no such table", verify.Request{Backup: b, Depth: "rows", Against: &vaulttest.TargetID}, "does not exist"},
		{"another schema", verify.Request{Backup: b, Depth: "rows", Against: &vault.TableID{Region: "local", Instance: "prod", Table: "other"}}, "primary key"},
	} {
		_, err := w.Verifier().Verify(t.Context(), test.req)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// TestVerifyIsTheManifests verifies a backup whose manifest is of other rows than its
// shards hold, at each depth that reads them.
func TestVerifyIsTheManifests(t *testing.T) {
	for _, depth := range []string{verify.DepthRead, verify.DepthRows} {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 200)
		m := w.Backup(vaulttest.Small)
		proof := w.Verify(m, depth)
		if proof.Verdict != vault.OK || proof.Check.Rows != m.Totals.Rows || proof.Check.Digest != m.Totals.Digest {
			t.Errorf("%s: %s: %+v", depth, proof.Verdict, proof.Check)
		}
	}
}

// TestNoProofOfWhatIsNone: a backup that was given up is not verified, nor is a copy in a
// vault that is another one.
func TestNoProofOfWhatIsNone(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 10)
	p := w.Planner()
	b := w.Plan(p, vault.Settings{})
	if _, err := p.Void(t.Context(), b, "the wrong table"); err != nil {
		t.Fatal(err)
	}
	if proof, err := w.Verifier().Verify(t.Context(), verify.Request{Backup: b, Depth: verify.DepthObjects}); err == nil || !strings.Contains(err.Error(), "it was given up: the wrong table") {
		t.Errorf("%+v, %v", proof, err)
	}
	w.Queue = nil
	w.Advance(time.Hour)
	m := w.Backup(vault.Settings{})
	another := &mem.Store{}
	if _, err := repository.Init(t.Context(), another, vaulttest.Day); err != nil {
		t.Fatal(err)
	}
	if proof, err := w.Verifier().Compare(t.Context(), vaulttest.BackupOf(m), vaulttest.ReplicaAddress, another); err == nil || !strings.Contains(err.Error(), "that vault is another one") {
		t.Errorf("%+v, %v", proof, err)
	}
}

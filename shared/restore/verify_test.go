package restore_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

func TestVerifyOfASoundBackup(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 500)
	w.Tables.PageRows = 40
	m := w.Backup(vaulttest.Small)
	for _, depth := range []string{restore.DepthObjects, restore.DepthRead, restore.DepthRows} {
		proof := w.Verify(m, depth)
		if proof.Verdict != vault.OK {
			t.Fatalf("%s: %+v", depth, proof)
		}
		if want := m.Totals.Objects + 2 + int64(len(m.Groups)); proof.Check.Objects != want {
			t.Errorf("%s: %d objects, want %d", depth, proof.Check.Objects, want)
		}
		if depth != restore.DepthObjects && (proof.Check.Rows != m.Totals.Rows || proof.Check.Digest != m.Totals.Digest) {
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
			for _, depth := range []string{restore.DepthRead, restore.DepthRows} {
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
			proof := w.Verify(m, restore.DepthObjects)
			if proof.Verdict != vault.Corrupt || proof.Check.Findings[0].Object != o.Name {
				t.Errorf("%s %s: %s, %+v", o.Name, what, proof.Verdict, proof.Check.Findings)
			}
		}
		put(content)
	}
	if proof := w.Verify(m, restore.DepthRead); proof.Verdict != vault.OK {
		t.Errorf("with everything put back: %+v", proof)
	}
}

// model is a table as a map, to say what a comparison must find.
type model map[string]tabletest.Row

func modelOf(rows []tabletest.Row) model {
	m := model{}
	for _, r := range rows {
		m[r.Key.String()] = r
	}
	return m
}

func (m model) differences(live model) map[string]string {
	schema := vaulttest.Definition().Schema
	found := map[string]string{}
	for k, r := range m {
		l, ok := live[k]
		if !ok {
			found[k] = "missing"
		} else if !bytes.Equal(tabletest.Encode(schema, r), tabletest.Encode(schema, l)) {
			found[k] = "changed"
		}
	}
	for k := range live {
		if _, ok := m[k]; !ok {
			found[k] = "extra"
		}
	}
	return found
}

func TestVerifyListsEveryDifference(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 3))
	found := 0
	for range 8 {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 400)
		w.Tables.Put(vaulttest.SourceID.Table, vaulttest.WideRow())
		w.Tables.PageRows = 1 + random.IntN(60)
		settings := vaulttest.Small
		settings.Lanes = 1 + random.IntN(16)
		m := w.Backup(settings)
		before := w.Tables.Rows(vaulttest.SourceID.Table)
		for range random.IntN(30) {
			r := before[random.IntN(len(before))]
			switch random.IntN(6) {
			case 0:
				w.Tables.Delete(vaulttest.SourceID.Table, r.Key)
			case 1: // a new row
				if last := r.Key[2].Int; last < 1<<40 && last > -1<<40 {
					w.Tables.Put(vaulttest.SourceID.Table, tabletest.Row{Key: r.Key.Next(), Cells: r.Cells})
				}
			case 2: // one column more
				w.Tables.Put(vaulttest.SourceID.Table, tabletest.Row{Key: r.Key, Cells: append(slices.Clip(r.Cells), tabletest.Cell("zz", 1, 1))})
			case 3: // another timestamp
				if len(r.Cells) > 0 {
					cells := slices.Clone(r.Cells)
					cells[random.IntN(len(cells))].Timestamp += 1 << 50
					w.Tables.Put(vaulttest.SourceID.Table, tabletest.Row{Key: r.Key, Cells: cells})
				}
			case 4: // another type, the same bytes
				cells := slices.Clone(r.Cells)
				for i := range cells {
					if cells[i].Type == plainbuffer.String {
						cells[i].Type = plainbuffer.Blob
					}
				}
				w.Tables.Put(vaulttest.SourceID.Table, tabletest.Row{Key: r.Key, Cells: cells})
			case 5: // no cells
				w.Tables.Put(vaulttest.SourceID.Table, tabletest.Row{Key: r.Key})
			}
		}
		want := modelOf(before).differences(modelOf(w.Tables.Rows(vaulttest.SourceID.Table)))
		proof := w.Verify(m, restore.DepthRows)
		got := map[string]string{}
		for _, d := range proof.Check.Differences {
			got[d.Key.String()] = d.Kind
			if (d.Kind == "changed") != (len(d.Columns) > 0) {
				t.Errorf("%s row %v names the columns %q", d.Kind, d.Key, d.Columns)
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("found %v, want %v", got, want)
		}
		if int(proof.Check.Missing+proof.Check.Extra+proof.Check.Changed) != len(want) {
			t.Errorf("counts %+v, want %d in all", proof.Check, len(want))
		}
		found += len(want)
		verdict := vault.OK
		if len(want) > 0 {
			verdict = vault.Differs
		}
		if proof.Verdict != verdict {
			t.Errorf("verdict %s with %d differences", proof.Verdict, len(want))
		}
	}
	if found == 0 {
		t.Fatal("the tables never differed")
	}
}

func TestVerifyNamesTheColumnsOfAWideRow(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Tables.Make(vaulttest.Definition())
	r := vaulttest.WideRow()
	w.Tables.Put(vaulttest.SourceID.Table, r)
	m := w.Backup(vault.Settings{})
	r.Cells[1100] = tabletest.Cell("column1100", 7, "other")
	r.Cells = slices.Delete(r.Cells, 10, 11)
	w.Tables.Put(vaulttest.SourceID.Table, r)
	check := w.Verify(m, restore.DepthRows).Check
	if len(check.Differences) != 1 || !slices.Equal(check.Differences[0].Columns, []string{"column0010", "column1100"}) {
		t.Errorf("%+v", check.Differences)
	}
}

func TestVerifyLeavesOutWhatHasExpired(t *testing.T) {
	const ttl = 86400
	for _, hide := range []bool{false, true} {
		t.Run(fmt.Sprintf("hidden %t", hide), func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Tables.HideExpired = hide
			def := vaulttest.Definition()
			def.Options.TTL = ttl
			w.Tables.Make(def)
			now := vaulttest.Day.UnixMilli()
			// Cells that expire at every moment around the comparison, which is an
			// hour after the backup.
			ages := []time.Duration{0, time.Hour, 22 * time.Hour, 23*time.Hour - 11*time.Minute, 23*time.Hour - time.Minute, 23*time.Hour - time.Millisecond, 23 * time.Hour, 23*time.Hour + 30*time.Minute}
			for i := range 64 {
				r := tabletest.Row{Key: table.Key{table.String("k"), table.Binary(nil), table.Integer(int64(i))}}
				for bit, name := range []string{"a", "b"} {
					if age := i >> (3 * bit) & 7; age > 0 {
						r.Cells = append(r.Cells, tabletest.Cell(name, now-ages[age].Milliseconds(), i))
					}
				}
				w.Tables.Put(def.Name, r)
			}
			m := w.Backup(vault.Settings{})
			w.Advance(time.Hour)
			proof := w.Verify(m, restore.DepthRows)
			if proof.Verdict != vault.OK {
				t.Fatalf("%+v", proof.Check)
			}
			if proof.Check.Expired == 0 {
				t.Fatal("nothing has expired")
			}
			// What has not expired is still compared.
			w.Tables.Put(def.Name, tabletest.Row{Key: table.Key{table.String("k"), table.Binary(nil), table.Integer(1)},
				Cells: []plainbuffer.Cell{tabletest.Cell("a", now-ages[1].Milliseconds(), "changed")}})
			w.Tables.Delete(def.Name, table.Key{table.String("k"), table.Binary(nil), table.Integer(0)}) // a row that never had cells
			check := w.Verify(m, restore.DepthRows).Check
			if check.Changed != 1 || check.Missing != 1 || check.Extra != 0 {
				t.Errorf("%+v", check)
			}
			// All but the youngest cells are gone.
			w.Advance(22 * time.Hour)
			check = w.Verify(m, restore.DepthRows).Check
			if check.Extra != 0 || check.Changed > 1 || check.Missing > 1 {
				t.Errorf("later: %+v", check)
			}
		})
	}
}

func TestVerifyOfARestoreSeesWhatWasDoneToIt(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 100)
	m := w.Backup(vaulttest.Small)
	plan := w.Begin(m)
	stranger := tabletest.Row{Key: table.Key{table.String("stranger"), table.Binary(nil), table.Integer(1)}}
	w.Tables.Put(vaulttest.TargetID.Table, stranger)
	p := w.Finish(plan.Restore)
	if p.State != backup.StateFailed || !strings.Contains(p.LastError, "1 extra") {
		t.Fatalf("%+v", p)
	}
	w.Proved(p, vault.Differs)
	got, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table)
	if err != nil {
		t.Fatal(err)
	}
	if got.Options.Deviation != table.WidestDeviation {
		t.Error("a table that is not what the backup holds was handed over")
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
		req  restore.VerifyRequest
		want string
	}{
		{"depth", restore.VerifyRequest{Backup: b, Depth: "deep"}, "want objects, read or rows"},
		{"no such backup", restore.VerifyRequest{Backup: vault.Backup{Table: m.Table, ID: "20261120T021400Z-00000000"}, Depth: "read"}, "tablevault list"},
		{"no such restore", restore.VerifyRequest{Restore: "20261120T021400Z-00000000", Depth: "read"}, "no restore"},
		{"no such table", restore.VerifyRequest{Backup: b, Depth: "rows", Against: &vaulttest.TargetID}, "does not exist"},
		{"another schema", restore.VerifyRequest{Backup: b, Depth: "rows", Against: &vault.TableID{Region: "local", Instance: "prod", Table: "other"}}, "primary key"},
	} {
		_, err := w.Verifier().Verify(t.Context(), w.Run(), test.req)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

package compare_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

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
		proof := w.Verify(m, verify.DepthRows)
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
	check := w.Verify(m, verify.DepthRows).Check
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
			proof := w.Verify(m, verify.DepthRows)
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
			check := w.Verify(m, verify.DepthRows).Check
			if check.Changed != 1 || check.Missing != 1 || check.Extra != 0 {
				t.Errorf("%+v", check)
			}
			// All but the youngest cells are gone.
			w.Advance(22 * time.Hour)
			check = w.Verify(m, verify.DepthRows).Check
			if check.Extra != 0 || check.Changed > 1 || check.Missing > 1 {
				t.Errorf("later: %+v", check)
			}
		})
	}
}

// TestSumsWithATTL compares with a table whose cells expire in every possible way: the
// rows of the backup are counted, and summed up, with all of their cells nevertheless.
func TestSumsWithATTL(t *testing.T) {
	for _, hide := range []bool{false, true} {
		t.Run(fmt.Sprintf("expired rows are hidden: %t", hide), func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			def := vaulttest.Definition()
			w.Tables.Make(def)
			w.Tables.HideExpired = hide
			old, fresh := vaulttest.Day.Add(-100*time.Hour).UnixMilli(), vaulttest.Day.Add(-time.Hour).UnixMilli()
			for i := range 300 {
				r := tabletest.Row{Key: table.Key{table.String(fmt.Sprint(i)), table.Binary(nil), table.Integer(int64(i))}}
				for k := range bits.Len(uint(i)) {
					stamp := old
					if i>>k&1 == 1 {
						stamp = fresh
					}
					r.Cells = append(r.Cells, tabletest.Cell(fmt.Sprint("c", k), stamp, i))
				}
				w.Tables.Put(def.Name, r)
			}
			w.Tables.Put(def.Name, vaulttest.WideRow(), tabletest.Row{
				Key: table.Key{table.String("gone"), table.Binary(nil), table.Integer(0)}, Cells: []plainbuffer.Cell{tabletest.Cell("c", old, 1)},
			})
			m := w.Backup(vault.Settings{})
			w.Tables.Change(def.Name, func(d *table.Definition) { d.Options.TTL = 72 * 3600 })
			proof := w.Verify(m, verify.DepthRows)
			if c := proof.Check; proof.Verdict != vault.OK || c.Expired == 0 || c.Rows != m.Totals.Rows || c.Digest != m.Totals.Digest {
				t.Errorf("%s: %+v; the manifest has %+v; %v", proof.Verdict, c, m.Totals, proof.Check.Findings)
			}
		})
	}
}

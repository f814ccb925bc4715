package core_test

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

var makeGolden = flag.Bool("golden", false, "make the golden vault of today's format anew; never for one that was released")

// goldenVaults are whole vaults, one of each format that was ever released, and of
// today's. What was written once is read for good.
var goldenVaults = map[string]int{"testdata/vault2": 2}

// goldenRows are what stands in the table of the golden vaults.
func goldenRows(w *vaulttest.World) {
	w.Tables.Make(vaulttest.Definition())
	at := vaulttest.Day.UnixMilli()
	for i := range 120 {
		row := tabletest.Row{Key: table.Key{table.String(fmt.Sprintf("user%03d", i/4)), table.Binary([]byte{byte(i), 0xff}), table.Integer(int64(i) - 50)}}
		if i%10 != 9 { // some rows have a key alone
			row.Cells = append(row.Cells, tabletest.Cell("n", at-int64(i), int64(i)*1_000_003))
		}
		if i%3 == 0 {
			row.Cells = append(row.Cells, tabletest.Cell("text", at, strings.Repeat("täble ", i)))
		}
		if i%5 == 0 {
			row.Cells = append(row.Cells, tabletest.Cell("versions", at, int64(2)), tabletest.Cell("versions", at-1000, "a version of another type"))
		}
		if i%7 == 0 {
			row.Cells = append(row.Cells, tabletest.Cell("yes", at-5, i%2 == 0), tabletest.Cell("zero", at, 1/float64(i+1)))
		}
		w.Tables.Put("orders", row)
	}
}

// golden is the vault of today's format: a backup in two segments of several parts, one
// more that was given up, and a restore with its proof.
func golden(t *testing.T) *vaulttest.World {
	w := vaulttest.NewWorld(t)
	goldenRows(w)
	w.Tables.PageRows = 20
	p := w.Planner()
	m := w.Sealed(p, w.Plan(p, vault.Settings{Lanes: 1, PartBytes: 1}, table.Key{table.String("user015"), table.Min(), table.Min()}))
	w.Proved(w.Restore(m), vault.OK)
	w.Advance(time.Hour)
	if _, err := p.Void(t.Context(), w.Plan(p, vault.Settings{Lanes: 1}), "golden"); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestGoldenVaults opens each golden vault, reads every document and every shard in it,
// and restores the table.
func TestGoldenVaults(t *testing.T) {
	if *makeGolden {
		folder := fmt.Sprintf("testdata/vault%d", vault.Format)
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		for name, content := range vaulttest.ContentOf(t, golden(t).Store, "") {
			file := filepath.Join(folder, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, today := goldenVaults[fmt.Sprintf("testdata/vault%d", vault.Format)]; !today {
		t.Errorf("there is no golden vault of format %d", vault.Format)
	}
	for folder := range maps.Keys(goldenVaults) {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			goldenRows(w)
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(folder)); err != nil {
				t.Fatal(err)
			}
			files, err := dir.Open(t.Context(), copied)
			if err != nil {
				t.Fatal(err)
			}
			content := vaulttest.ContentOf(t, files, "")
			store := &mem.Store{Now: w.Clock}
			for name, c := range content {
				if _, err := store.Create(t.Context(), name, strings.NewReader(c)); err != nil {
					t.Fatal(err)
				}
			}
			w.Store = store
			if w.Repo, err = repository.Open(t.Context(), store); err != nil {
				t.Fatal(err)
			}
			if len(content) < 30 {
				t.Errorf("only %d objects", len(content))
			}
			var sealed *vault.Manifest
			void := 0
			for m, err := range w.Repo.Manifests(t.Context(), nil) {
				if err != nil {
					t.Fatal(err)
				}
				if m.State == vault.Void {
					void++
					continue
				}
				sealed = m
			}
			if sealed == nil || void != 1 || sealed.Totals.Rows != 120 || sealed.Segments != 2 || sealed.Totals.Parts < 2 {
				t.Fatalf("%+v, %d were given up", sealed, void)
			}
			for name := range content {
				id, ok := strings.CutPrefix(name, "restores/proofs/")
				if !ok {
					continue
				}
				if p, err := w.Repo.RestoreProof(t.Context(), vault.RestoreID(strings.TrimSuffix(id, ".json"))); err != nil || p.Verdict != vault.OK || p.Check.Rows != 120 {
					t.Errorf("%s: %+v, %v", name, p, err)
				}
			}
			if p := w.Verify(sealed, verify.DepthRead); p.Verdict != vault.OK || p.Check.Rows != 120 {
				t.Errorf("%+v", p)
			}
			w.Advance(24 * time.Hour)
			w.Proved(w.Restore(sealed), vault.OK)
			w.Same("orders", vaulttest.TargetID.Table)
		})
	}
}

// TestPythonDocuments: the reader in another language reads each document of the golden
// vault, and refuses one of which a bit was turned, and one under another name.
func TestPythonDocuments(t *testing.T) {
	python := os.Getenv("TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import hashlib").CombinedOutput(); err != nil {
		t.Skipf("no %s: %s", python, out)
	}
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS("testdata/vault2")); err != nil {
		t.Fatal(err)
	}
	var names []string
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".json") {
			name, rerr := filepath.Rel(folder, path)
			names, err = append(names, filepath.ToSlash(name)), rerr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	read := func(names ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), python, append([]string{"../../readers/python/read_document.py", folder}, names...)...).CombinedOutput()
		return string(out), err
	}
	out, err := read(names...)
	if err != nil || strings.Count(out, "\n") != len(names) || len(names) < 20 || !strings.Contains(out, `{"document":"manifest","body":{"backup":`) {
		t.Errorf("%d documents: %v: %.2000s", len(names), err, out)
	}
	first := filepath.Join(folder, filepath.FromSlash(names[0]))
	data, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "other.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := read("other.json"); err == nil || !strings.Contains(out, "it was written as "+names[0]) {
		t.Errorf("under another name: %s", out)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(first, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := read(names[0]); err == nil || !strings.Contains(out, "it was changed") {
		t.Errorf("with a bit turned: %s", out)
	}
}

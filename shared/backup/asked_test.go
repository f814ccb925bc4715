package backup_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestSealAsksForObjects takes an object away, cuts it, or puts another of its length
// there, once its part is in the log: no manifest is written, and the object is named.
func TestSealAsksForObjects(t *testing.T) {
	for what, change := range map[string]func([]byte) []byte{
		"as it was": func(b []byte) []byte { return b },
		"gone":      func([]byte) []byte { return nil },
		"cut":       func(b []byte) []byte { return b[:len(b)-1] },
		"another":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
	} {
		for _, suffix := range []string{".shard", ".index"} {
			t.Run(what+suffix, func(t *testing.T) {
				w := vaulttest.NewWorld(t)
				w.Quiet = true
				w.Fill(vaulttest.Definition(), 100)
				p := w.Planner()
				b := w.Plan(p, vault.Settings{Lanes: 1})
				if _, err := p.Tick(t.Context(), w.Run(), b); err != nil {
					t.Fatal(err)
				}
				w.Work()
				var name string
				for n, content := range vaulttest.ContentOf(t, w.Store, vault.ShardPrefix) {
					if strings.HasSuffix(n, suffix) {
						name = n
						w.Remove(n)
						if now := change([]byte(content)); now != nil {
							if _, err := w.Store.Create(t.Context(), n, bytes.NewReader(now)); err != nil {
								t.Fatal(err)
							}
						}
						break
					}
				}
				progress, err := p.Tick(t.Context(), w.Run(), b)
				if what == "as it was" {
					if err != nil || progress.Manifest == nil {
						t.Errorf("%+v, %v", progress, err)
					}
					return
				}
				if said := progress.LastError; err != nil {
					said = err.Error()
					if !strings.Contains(said, name) {
						t.Errorf("%s is not named: %s", name, said)
					}
				} else if !strings.Contains(said, name) {
					t.Errorf("%s is not named: %+v", name, progress)
				}
				if sealed, err := w.Repo.Exists(t.Context(), b.Manifest()); err != nil || sealed || progress.Manifest != nil {
					t.Errorf("it is sealed: %v", err)
				}
			})
		}
	}
}

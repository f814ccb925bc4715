package repository_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestLostHeader deletes vault.json: no vault is made over what is there, and what it
// said is found out from the shards, so that all is whole again.
func TestLostHeader(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	m := w.Backup(vaulttest.Small)
	before := w.Repo.Header
	if err := w.Store.Delete(t.Context(), vault.HeaderName); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() error{
		"Open": func() error { _, err := repository.Open(t.Context(), w.Store); return err },
		"Init": func() error { _, err := repository.Init(t.Context(), w.Store, w.Clock()); return err },
	} {
		if err := open(); !errors.Is(err, repository.ErrHeaderLost) || errors.Is(err, fs.ErrNotExist) || !errors.Is(err, vault.ErrCorrupt) ||
			!strings.Contains(err.Error(), "doctor") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if there, err := w.Repo.Exists(t.Context(), vault.HeaderName); there || err != nil {
		t.Errorf("a vault.json was made: %v", err)
	}
	h, err := repository.LostHeader(t.Context(), w.Store)
	if err != nil || h.ID != before.ID || h.Seed != before.Seed {
		t.Fatalf("%+v, %v; it was %+v", h, err, before)
	}
	if _, err := w.Repo.Create(t.Context(), vault.HeaderName, h); err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Init(t.Context(), w.Store, w.Clock())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := repo.Latest(t.Context(), vaulttest.SourceID, time.Time{}); err != nil || got.Backup != m.Backup {
		t.Errorf("%+v, %v", got, err)
	}
	w.Repo = repo
	w.Proved(w.Finish(w.Begin(m).Restore), vault.OK)
}

// TestInitBesideRequests makes a vault where others have put requests, and where
// something else lies, and none where any one thing of a vault stands.
func TestInitBesideRequests(t *testing.T) {
	for name, made := range map[string]bool{
		"requests/a.json": true, "readme.txt": true,
		"opened/local/prod/orders/20261120T021400Z-0a1b2c3d": false, "manifests/local/prod/orders/20261120T021400Z-0a1b2c3d.json": false,
		"marks/local/prod/orders/20261120T021400Z-0a1b2c3d.json": false, "restoring/20261120T021400Z-0a1b2c3d": false, "copied/x": false,
	} {
		store := &mem.Store{}
		if _, err := store.Create(t.Context(), name, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		_, err := repository.Init(t.Context(), store, vaulttest.Day)
		if (err == nil) != made || err != nil && (!errors.Is(err, repository.ErrHeaderLost) || !strings.Contains(err.Error(), name)) {
			t.Errorf("beside %s: %v", name, err)
		}
	}
}

// shardHead is the beginning of a shard of a vault.
func shardHead(t *testing.T, of string, seed uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	h := shard.Header{Vault: of, Backup: "20261120T021400Z-0a1b2c3d", Table: "local/prod/orders", Segment: "000000", Schema: vaulttest.Definition().Schema, Seed: seed}
	if _, err := shard.NewWriter(&b, h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestLostHeaderOfShards: what a vault.json said is what its shards agree on; those that
// can't be read say nothing, and no more of them are read than it takes.
func TestLostHeaderOfShards(t *testing.T) {
	id, other := strings.Repeat("0a", 16), strings.Repeat("0b", 16)
	one := shardHead(t, id, 7)
	for name, c := range map[string]struct {
		shards [][]byte
		want   error
	}{
		"of one vault":       {[][]byte{one, one}, nil},
		"with a broken one":  {[][]byte{one[:len(one)/2], one}, nil},
		"of two vaults":      {[][]byte{one, shardHead(t, other, 7)}, vault.ErrCorrupt},
		"with two seeds":     {[][]byte{one, shardHead(t, id, 8)}, vault.ErrCorrupt},
		"broken ones alone":  {[][]byte{one[:len(one)/2]}, fs.ErrNotExist},
		"none":               {nil, fs.ErrNotExist},
		"another, not read":  {append(slices.Repeat([][]byte{one}, repository.MaxHeaders), shardHead(t, other, 7)), nil},
		"another, just read": {append(slices.Repeat([][]byte{one}, repository.MaxHeaders-1), shardHead(t, other, 7)), vault.ErrCorrupt},
	} {
		store := &mem.Store{}
		for i, content := range c.shards {
			store.Replace(fmt.Sprintf("%slocal/prod/orders/20261120T021400Z-0a1b2c3d/000000/%02d.shard", vault.ShardPrefix, i), content)
		}
		store.Replace(vault.ShardPrefix+"readme.txt", nil)
		h, err := repository.LostHeader(t.Context(), store)
		if !errors.Is(err, c.want) || c.want == nil && (h.ID != id || h.Seed != 7) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}

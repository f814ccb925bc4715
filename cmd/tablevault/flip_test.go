package main

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/vault"
)

// TestDamageOnTheStack turns a bit of each object that a backup consists of, or cuts it,
// and verifies and restores: the exit code is that of corruption, and what is said has
// the object's name.
func TestDamageOnTheStack(t *testing.T) {
	_, dir, client := begin(t, nil)
	makeTable(t, client, "orders")
	for i := range int64(20) {
		putRow(t, client, "orders", "k", i, nil, 1)
	}
	id := string(backedUp(t, dir, "local/orders").ID)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	root := filepath.Join(dir, "vault")
	var objects []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		name = filepath.ToSlash(name)
		for _, kind := range []string{vault.HeaderName, vault.ManifestPrefix, vault.PlanPrefix, vault.GroupPrefix, vault.ShardPrefix} {
			if strings.HasPrefix(name, kind) {
				objects = append(objects, name)
			}
		}
		return err
	})
	if err != nil || len(objects) != 6 {
		t.Fatal(objects, err)
	}
	for n, name := range objects {
		file := filepath.Join(root, filepath.FromSlash(name))
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write := func(b []byte) {
			t.Helper()
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		bit := random.IntN(8 * len(content))
		flipped := append([]byte(nil), content...)
		flipped[bit/8] ^= 1 << (bit % 8)
		for what, bad := range map[string][]byte{"flipped": flipped, "cut": content[:random.IntN(len(content))]} {
			write(bad)
			code, out, errs := tablevaultRun(t, "verify", "--stack", dir, "--backup", id, "--depth", "read", "--json")
			if code != exitDiffers || !strings.Contains(out+errs, name) {
				t.Errorf("%s %s (bit %d): verify exits with %d: %s%s", name, what, bit, code, out, errs)
			}
		}
		to := "local/copy" + string(rune('a'+n))
		write(flipped)
		code, out, errs := tablevaultRun(t, "restore", "--stack", dir, "--backup", id, "--to", to)
		if code != exitDiffers || !strings.Contains(out+errs, name) {
			t.Errorf("%s (bit %d): restore exits with %d: %s%s", name, bit, code, out, errs)
		}
		if at := bytes.Index(content, []byte(`{"format":`)) + len(`{"format":`); strings.HasSuffix(name, ".shard") {
			// A number of a format that was never written is damage like any other.
			other := bytes.Clone(content)
			other[at] ^= 2
			write(other)
			code, out, errs := tablevaultRun(t, "restore", "--stack", dir, "--backup", id, "--to", to+"_format")
			if code != exitDiffers || !strings.Contains(out+errs, name) || !strings.Contains(out+errs, "--also") {
				t.Errorf("%s says that it is of format %q: restore exits with %d: %s%s", name, other[at], code, out, errs)
			}
		}
		if kind, _, _ := strings.Cut(name, "/"); kind+"/" != vault.ManifestPrefix && name != vault.HeaderName { // without which there is no backup
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			code, out, errs := tablevaultRun(t, "verify", "--stack", dir, "--backup", id, "--depth", "read")
			if code != exitDiffers || !strings.Contains(out, name) || !strings.Contains(out, "corrupt: 1 ") || strings.Contains(out, "of 0 objects") {
				t.Errorf("%s is gone: verify exits with %d: %s%s", name, code, out, errs)
			}
			code, out, errs = tablevaultRun(t, "restore", "--stack", dir, "--backup", id, "--to", to+"_gone")
			if code != exitDiffers || !strings.Contains(out+errs, name) || !strings.Contains(out+errs, "--also") {
				t.Errorf("%s is gone: restore exits with %d: %s%s", name, code, out, errs)
			}
		}
		write(content)
	}
	// Their records are as they were written.
	for _, args := range [][]string{{"list", "--stack", dir, "--restores"}, {"list", "--stack", dir, "--restores", "--json"}} {
		if code, out, errs := tablevaultRun(t, args...); code != 0 || !strings.Contains(out, "failed") {
			t.Errorf("%v exits with %d: %s%s", args, code, out, errs)
		}
	}
	var verified verifyResult
	if must(t, &verified, "verify", "--stack", dir, "--backup", id, "--depth", "read"); verified.Verdict != vault.OK {
		t.Errorf("with all as it was: %+v", verified)
	}
}

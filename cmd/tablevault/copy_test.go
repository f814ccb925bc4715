package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/fc"
	local "github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// keysOf are objects of a bucket whose names have a suffix, in order.
func keysOf(t *testing.T, b *oss.Bucket, suffix string) []string {
	t.Helper()
	page, err := b.ListObjectsV2(oss.MaxKeys(1000))
	if err != nil || page.IsTruncated {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range page.Objects {
		if strings.HasSuffix(o.Key, suffix) {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

// keysUnder are the keys that begin with one of prefixes.
func keysUnder(t *testing.T, b *oss.Bucket, prefixes ...string) []string {
	t.Helper()
	return slices.DeleteFunc(keysOf(t, b, ""), func(key string) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	})
}

func contentOf(t *testing.T, b *oss.Bucket, key string) []byte {
	t.Helper()
	body, err := b.GetObject(key)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestReplicaJob runs the whole job with its vault on OSS and a copy on S3, whose
// checksums are of another kind, and in another bucket of OSS. Then one object of the
// vault is deleted and one is flipped: the restore takes both from the copy, says so, and
// puts back what was deleted. The functions' roles have what docs/ram says and no more.
func TestReplicaJob(t *testing.T) {
	t.Run("S3", func(t *testing.T) {
		server := s3.RunT(t)
		if err := server.CreateBucket(t.Context(), "twin", s3.Plain); err != nil {
			t.Fatal(err)
		}
		replicaJob(t, map[string]string{"AWS_ACCESS_KEY_ID": server.KeyID, "AWS_SECRET_ACCESS_KEY": server.Secret}, func(*stack.Stack) string {
			return "s3://twin/prod?region=" + s3.Region + "&endpoint=" + server.URL
		})
	})
	t.Run("OSS", func(t *testing.T) {
		replicaJob(t, nil, func(s *stack.Stack) string {
			if err := s.OSS.CreateBucket("twin", local.BucketConfig{RetentionDays: 1}); err != nil {
				t.Fatal(err)
			}
			return s.OSS.Address("twin", "prod") + "&retention=1d"
		})
	})
}

// policyOf is a policy of docs/ram, filled in for the local stack, with the replica in a
// bucket named twin.
func policyOf(t *testing.T, name string) *ram.Policy {
	t.Helper()
	open, err := fs.ReadFile(tablevault.Policies(), name+".json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := ram.Fill(open, map[string][]string{"bucket": {"tablevault"}, "prefix": {"vault"}, "instance": {stack.Instance}, "functions": {"tablevault-"},
		"further-bucket": {"twin"}, "further-prefix": {"prod"}})
	if err != nil {
		t.Fatal(name, err)
	}
	p, err := ram.ParsePolicy(text)
	if err != nil {
		t.Fatal(name, err)
	}
	return p
}

// permitCopies gives the functions' roles what docs/ram says that copies take.
func permitCopies(t *testing.T, s *stack.Stack) {
	t.Helper()
	for function, names := range copying {
		policies := []*ram.Policy{policyOf(t, function)}
		for _, name := range names {
			policies = append(policies, policyOf(t, name))
		}
		s.Authority.SetPolicies("tablevault-"+function, policies...)
	}
}

// copying are the policies that functions need beside their own where there are copies.
var copying = map[string][]string{"plan": nil, "import": {"further-import"}, "verify": {"further-verify", "mend-verify"}}

func replicaJob(t *testing.T, keys map[string]string, target func(*stack.Stack) string) {
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	s, dir, client := begin(t, func(c *stack.Config) {
		c.Memory, c.Vault, c.Policy = true, stack.Bucket, file
		c.Host = func(h *fc.Config) {
			env := maps.Clone(h.Env)
			if env == nil {
				env = map[string]string{}
			}
			maps.Copy(env, keys)
			h.Env = env
		}
	})
	far := target(s)
	if err := os.WriteFile(file, fmt.Appendf(nil, "tables: local/none\nevery: daily\ndestinations: {name: dr, to: '%s'}\n", far), 0o600); err != nil {
		t.Fatal(err)
	}
	permitCopies(t, s)
	sdk, err := oss.New(s.OSSEndpoint, s.AccessKeyID, s.AccessKeySecret, oss.AuthVersion(oss.AuthV4), oss.Region(local.DefaultRegion), oss.ForcePathStyle(true))
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := sdk.Bucket("tablevault")
	if err != nil {
		t.Fatal(err)
	}
	extremes(t, client, "orders")
	putLarge(t, client, "orders")
	want := everything(t, client, "orders")
	var backups struct{ Backups []status.Backup }
	must(t, &backups, "backup", "--stack", dir, "--table", "local/orders")
	id := string(backups.Backups[0].ID)

	if code, _, errs := tablevaultRun(t, "verify", "--stack", dir, "--backup", id, "--twin", far); code != exitFailed || !strings.Contains(errs, "no vault here") {
		t.Errorf("before there is a copy: exit %d: %s", code, errs)
	}
	// Above, verify has asked in vain whether something is left of a vault there: it may
	// not list the place.
	s.Authority.Record()
	var copied copyResult
	must(t, &copied, "copy", "--stack", dir, id, "--to", "dr")
	if copied.Target != far {
		t.Errorf("dr is %s", copied.Target)
	}
	for _, other := range []string{"elsewhere", strings.Replace(far, "/prod", "/other", 1)} {
		for _, args := range [][]string{{"copy", id, "--to", other}, {"copy", id, "--from", other}, {"verify", "--backup", id, "--twin", other}, {"restore", "--backup", id, "--to", "local/x", "--also", other}} {
			if code, _, errs := tablevaultRun(t, append(args, "--stack", dir)...); code != exitFailed || !strings.Contains(errs, "it has dr (") || strings.Contains(other, "://") && !strings.Contains(errs, "/other") {
				t.Errorf("%q: exit %d: %s", args, code, errs)
			}
		}
	}
	if copied.Objects != backups.Backups[0].Objects || copied.Bytes != backups.Backups[0].Bytes || copied.Found != 0 {
		t.Fatalf("%+v, of %+v", copied, backups.Backups[0])
	}
	must(t, &copied, "copy", "--stack", dir, id, "--to", far)
	if copied.Objects != 0 || copied.Found != backups.Backups[0].Objects {
		t.Errorf("again: %+v", copied)
	}
	var shown status.Details
	must(t, &shown, "show", "--stack", dir, id)
	if len(shown.Copies) != 1 || shown.Copies[0].State != replica.StateCopied || shown.Copies[0].Replica != far {
		t.Errorf("show: %+v", shown.Copies)
	}
	identical := func() {
		t.Helper()
		var verified verifyResult
		must(t, &verified, "verify", "--stack", dir, "--backup", id, "--twin", far)
		if verified.Verdict != vault.OK || verified.Objects < copied.Found || strings.Contains(strings.Join(verified.Notes, "\n"), "only the size") {
			t.Errorf("the twin: %+v", verified)
		}
	}
	identical()

	shards, indexes := keysOf(t, bucket, ".shard"), keysOf(t, bucket, ".index")
	gone, flipped := shards[0], indexes[0]
	for _, shard := range shards {
		if len(contentOf(t, bucket, shard)) > len(contentOf(t, bucket, gone)) {
			gone = shard // one that is sent in parts
		}
	}
	good := contentOf(t, bucket, gone)
	if err := bucket.DeleteObject(gone); err != nil {
		t.Fatal(err)
	}
	bad := contentOf(t, bucket, flipped)
	bad[len(bad)/2] ^= 1
	if err := bucket.PutObject(flipped, bytes.NewReader(bad)); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := tablevaultRun(t, "verify", "--stack", dir, "--backup", id); code != exitDiffers || !strings.Contains(out, strings.TrimPrefix(gone, "vault/")) {
		t.Errorf("verify of what is damaged: exit %d\n%s", code, out)
	}
	identical()
	code, out, errs := tablevaultRun(t, "restore", "--stack", dir, "--backup", id, "--to", "local/orders_copy", "--also", "dr")
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	for _, key := range []string{gone, flipped} {
		if !strings.Contains(out, strings.TrimPrefix(key, "vault/")) {
			t.Errorf("the restore does not say that %s was damaged:\n%s", key, out)
		}
	}
	for _, said := range []string{"read from " + far, "made anew here", "stays damaged here"} {
		if !strings.Contains(out, said) {
			t.Errorf("the restore does not say %q:\n%s", said, out)
		}
	}
	if got := everything(t, client, "orders_copy"); !maps.Equal(got, want) {
		t.Errorf("%d rows come back, or others, of %d", len(got), len(want))
	}
	if now := contentOf(t, bucket, gone); !bytes.Equal(now, good) {
		t.Errorf("%s was made anew with %d other bytes", gone, len(now))
	}
	if now := contentOf(t, bucket, flipped); !bytes.Equal(now, bad) {
		t.Errorf("%s was changed", flipped)
	}

	// What is gone is put back by hand as well, beside what can't be.
	if err := bucket.DeleteObject(gone); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := tablevaultRun(t, "copy", "--stack", dir, id, "--from", far); code != exitDiffers || !strings.Contains(errs, strings.TrimPrefix(flipped, "vault/")) {
		t.Errorf("exit %d: %s", code, errs)
	}
	if now := contentOf(t, bucket, gone); !bytes.Equal(now, good) {
		t.Errorf("%s was put back with %d other bytes", gone, len(now))
	}

	// With what is damaged out of the way all is put back, also where the id of an upload
	// is lost.
	for _, key := range slices.Concat([]string{gone, flipped}, keysUnder(t, bucket, "vault/plans/", "vault/groups/")) {
		if err := bucket.DeleteObject(key); err != nil {
			t.Fatal(err)
		}
	}
	var lost atomic.Bool
	s.OSS.SetFault(func(r local.Request) *local.Fault {
		if r.Bucket == "tablevault" && r.Operation == "InitiateMultipartUpload" && lost.CompareAndSwap(false, true) {
			return &local.Fault{After: true, Cut: local.CutSilent}
		}
		return nil
	})
	must(t, &copied, "copy", "--stack", dir, id, "--from", far)
	s.OSS.SetFault(nil)
	if n, err := s.OSS.Uploads("tablevault"); err != nil || n != 0 || !lost.Load() {
		t.Errorf("%d uploads are left behind, %v; an id was lost: %t", n, err, lost.Load())
	}
	var verified verifyResult
	if must(t, &verified, "verify", "--stack", dir, "--backup", id, "--depth", "read"); verified.Verdict != vault.OK {
		t.Errorf("after all was put back: %+v", verified)
	}

	if strings.HasPrefix(far, "oss:") {
		// Where the vault does not know the backup any more, a restore finds it in the
		// replica.
		for _, key := range keysUnder(t, bucket, "vault/manifests/", "vault/opened/", "vault/plans/", "vault/groups/") {
			if err := bucket.DeleteObject(key); err != nil {
				t.Fatal(err)
			}
		}
		for to, from := range map[string][]string{"local/orders_by_id": {"--backup", id}, "local/orders_by_time": {"--table", "local/orders"}} {
			var restored restoreResult
			if must(t, &restored, append([]string{"restore", "--stack", dir, "--to", to, "--also", far}, from...)...); restored.Verdict != vault.OK || restored.Rows != int64(len(want)) {
				t.Errorf("from the twin alone: %+v", restored)
			}
		}
	}

	calls, _ := s.Authority.Calls()
	copier := false
	for _, c := range calls {
		if strings.HasPrefix(c.Action, "oss:") && !c.Allowed {
			t.Errorf("%s was refused %s on %s", c.Role, c.Action, c.Resource)
		}
		copier = copier || c.Role == "tablevault-verify" && c.Action == "oss:PutObject" && strings.Contains(c.Resource, "/copied/")
	}
	if !copier {
		t.Error("no copy was noted by the role of verify")
	}
	if !strings.HasPrefix(far, "oss:") {
		return
	}
	// Of further-verify, TestPermissions says this, with uploads there that break off.
	grants := 0
	for function, name := range map[string]string{"import": "further-import", "verify": "mend-verify"} {
		for _, g := range policyOf(t, name).Grants() {
			grants++
			if !slices.ContainsFunc(calls, func(c ram.Call) bool { return c.Role == "tablevault-"+function && c.Allowed && g.Covers(c) }) {
				t.Errorf("%s need not allow %s on %s", name, g.Action, g.Resource)
			}
		}
	}
	if grants == 0 {
		t.Error("no grant was looked at")
	}
}

// TestPolicyCopies fires the planner's timer under a policy with a replica: backups come
// to stand there by themselves, and a restore reads from there what is gone from the
// vault.
func TestPolicyCopies(t *testing.T) {
	far := filepath.Join(t.TempDir(), "twin")
	if err := os.Mkdir(far, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	text := fmt.Sprintf("tables: local/orders\nevery: hourly\ndestinations: {to: 'file://%s', bandwidth: 50 MiB/s}\n", far)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, dir, client := begin(t, func(c *stack.Config) { c.Policy = file })
	permitCopies(t, s)
	makeTable(t, client, "orders")
	for i := range int64(50) {
		putRow(t, client, "orders", "k", i, nil, 1)
	}
	var backups struct{ Backups []status.Backup }
	at := time.Now().Truncate(time.Hour)
	var state []replica.State
	for end := time.Now().Add(30 * time.Second); len(state) == 0 || state[0].State != replica.StateCopied; {
		if time.Now().After(end) {
			t.Fatalf("nothing is copied: %+v, %+v", backups, state)
		}
		at = at.Add(time.Second)
		if err := s.Host.Fire("tablevault-plan", "tick", at); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if _, err := os.Stat(filepath.Join(dir, "vault", "vault.json")); err != nil {
			continue
		}
		if must(t, &backups, "list", "--stack", dir); len(backups.Backups) == 1 {
			var shown status.Details
			must(t, &shown, "show", "--stack", dir, string(backups.Backups[0].ID))
			state = shown.Copies
		}
	}
	id := string(backups.Backups[0].ID)
	shards, err := filepath.Glob(filepath.Join(dir, "vault", "shards", "local", "local", "orders", id, "*", "*"))
	if err != nil || len(shards) < 2 {
		t.Fatal(shards, err)
	}
	for _, shard := range shards {
		if err := os.Remove(shard); err != nil {
			t.Fatal(err)
		}
	}
	var restored restoreResult
	must(t, &restored, "restore", "--stack", dir, "--backup", id, "--to", "local/copy")
	if restored.Verdict != vault.OK || restored.Rows != 50 || !slices.ContainsFunc(restored.Notes, func(n string) bool { return strings.Contains(n, "read from file://"+far) }) {
		t.Errorf("%+v", restored)
	}
	for _, shard := range shards {
		if _, err := os.Stat(shard); err != nil {
			t.Errorf("%s was not made anew", shard)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault"
	local "github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// beginOSS starts a stack whose vault is in a bucket, and in which the functions' roles
// may do no more than docs/ram gives them.
func beginOSS(t *testing.T, bucket local.BucketConfig, parameters url.Values, log io.Writer) (*stack.Stack, string, *tablestore.TableStoreClient) {
	t.Helper()
	s, dir, client := begin(t, func(c *stack.Config) {
		c.Memory, c.Vault, c.Log = true, stack.Bucket, io.MultiWriter(c.Log, log)
		c.OSS = func(o *stack.OSS) { o.Bucket, o.Parameters = bucket, parameters }
	})
	s.Authority.Record()
	return s, dir, client
}

var roles = []string{"tablevault-plan", "tablevault-export", "tablevault-import", "tablevault-verify"}

// TestOSSJob runs the whole job with its vault in a bucket of the local OSS, over the
// wire and through the SDK: a plain bucket, and one with a locked retention policy, in
// which no object can be changed or deleted by anyone, whose objects are encrypted with a
// key and whose rows are in a colder class.
func TestOSSJob(t *testing.T) {
	for _, c := range []struct {
		name       string
		bucket     local.BucketConfig
		parameters url.Values
	}{
		{"plain", local.BucketConfig{}, nil},
		{"locked", local.BucketConfig{RetentionDays: 30}, url.Values{"retention": {"30d"}, "kms_key": {"key-1"}, "storage_class": {"IA"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log lines
			s, dir, client := beginOSS(t, c.bucket, c.parameters, &log)
			extremes(t, client, "orders")
			putLarge(t, client, "orders")
			want := everything(t, client, "orders")
			var backups struct{ Backups []status.Backup }
			must(t, &backups, "backup", "--stack", dir, "--table", "local/orders")
			if len(backups.Backups) != 1 || backups.Backups[0].Rows != int64(len(want)) || backups.Backups[0].Bytes < 6<<20 {
				t.Fatalf("%d rows in the table: %+v", len(want), backups)
			}
			id, used := string(backups.Backups[0].ID), backups.Backups[0].Usage
			// In no record of the one segment's worker and of the planner: vault.json,
			// the mark that the backup was opened, the plan, the slot, the mark that the
			// segment has ended, and the manifest.
			if got := creating(s); used.Create != got-6 || used.Written < backups.Backups[0].Bytes {
				t.Errorf("the backup took %+v; the store got %d creating requests", used, got)
			}
			must(t, &backups, "list", "--stack", dir)
			if len(backups.Backups) != 1 || string(backups.Backups[0].ID) != id {
				t.Errorf("list: %+v", backups)
			}
			var shown status.Details
			must(t, &shown, "show", "--stack", dir, id)
			if shown.State != vault.Sealed || shown.Rows != int64(len(want)) || shown.Segments != 1 || shown.Usage != used {
				t.Errorf("show: %+v", shown)
			}
			_, out, _ := tablevaultRun(t, "show", "-v", "--stack", dir, id)
			if line := "requests        " + requests(used) + "\n"; !strings.Contains(out, line) {
				t.Errorf("show does not say %q:\n%s", line, out)
			}
			for _, depth := range []string{"objects", "read"} {
				var verified verifyResult
				must(t, &verified, "verify", "--stack", dir, "--backup", id, "--depth", depth)
				if verified.Verdict != "ok" || verified.Usage.Stat < verified.Objects-2 || depth == "read" && verified.Usage.Read < used.Written/2 {
					t.Errorf("verify to the depth of %s: %+v", depth, verified)
				}
			}
			var restored restoreResult
			must(t, &restored, "restore", "--stack", dir, "--table", "local/orders", "--to", "local/orders_copy")
			if restored.Verdict != "ok" || restored.Rows != int64(len(want)) || restored.Usage.Read < 2*backups.Backups[0].Bytes {
				t.Fatalf("restore: %+v", restored)
			}
			if got := everything(t, client, "orders_copy"); !maps.Equal(got, want) {
				t.Errorf("%d rows come back, or others, of %d", len(got), len(want))
			}
			wantCounted(t, s, &log, backups.Backups[0].Bytes)
			wantSignedByRoles(t, s)
			wantKept(t, s, c.bucket, c.parameters)
			if n, err := s.OSS.Uploads("tablevault"); err != nil || n != 0 {
				t.Errorf("%d uploads are left behind, %v", n, err)
			}
		})
	}
}

// lines collects what the functions log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// wantCounted fails unless the requests that the functions' logs tell of are those that
// the store got. The command, which logs nothing, writes nothing.
func wantCounted(t *testing.T, s *stack.Stack, log *lines, stored int64) {
	t.Helper()
	log.mu.Lock()
	defer log.mu.Unlock()
	ended, sum := 0, object.Usage{}
	for line := range strings.Lines(log.text.String()) {
		_, line, _ := strings.Cut(line, " | ")
		var l struct{ Store *object.Usage }
		if json.Unmarshal([]byte(line), &l) == nil && l.Store != nil {
			ended++
			sum.Add(*l.Store)
		}
	}
	got := creating(s)
	if sum.Create != got || got < 10 || sum.Written < stored || sum.Open == 0 {
		t.Errorf("%d lines of the log have %+v; the store got %d creating requests, and %d bytes are stored", ended, sum, got, stored)
	}
}

// creating is how many requests that create something the store has got.
func creating(s *stack.Stack) (n int64) {
	for _, operation := range []string{"PutObject", "InitiateMultipartUpload", "UploadPart", "CompleteMultipartUpload"} {
		n += int64(s.OSS.Calls(operation))
	}
	return n
}

// wantSignedByRoles fails unless each function asked the store for something, with a key
// of its own role, and was allowed, and the command, which has the owner's, read at most.
func wantSignedByRoles(t *testing.T, s *stack.Stack) {
	t.Helper()
	calls, _ := s.Authority.Calls()
	asked := map[string]bool{}
	for _, c := range calls {
		if !strings.HasPrefix(c.Action, "oss:") {
			continue
		}
		asked[c.Role] = true
		if !c.Allowed {
			t.Errorf("%s was refused %s on %s", c.Role, c.Action, c.Resource)
		}
		if c.Role == "" && !slices.Contains([]string{"oss:GetBucketVersioning", "oss:GetBucketWorm", "oss:GetObject", "oss:ListObjects"}, c.Action) {
			t.Errorf("the command does %s on %s with the owner's key", c.Action, c.Resource)
		}
	}
	for _, role := range roles {
		if !asked[role] {
			t.Errorf("%s asked the store for nothing", role)
		}
	}
}

// wantKept fails unless every object in the bucket is kept as the address and the bucket
// say.
func wantKept(t *testing.T, s *stack.Stack, config local.BucketConfig, parameters url.Values) {
	t.Helper()
	client, err := oss.New(s.OSSEndpoint, s.AccessKeyID, s.AccessKeySecret, oss.AuthVersion(oss.AuthV4), oss.Region(local.DefaultRegion), oss.ForcePathStyle(true))
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := client.Bucket("tablevault")
	if err != nil {
		t.Fatal(err)
	}
	page, err := bucket.ListObjectsV2(oss.MaxKeys(1000))
	if err != nil || len(page.Objects) < 10 || page.IsTruncated {
		t.Fatalf("%d objects, %v", len(page.Objects), err)
	}
	shards := 0
	for _, o := range page.Objects {
		if !strings.HasPrefix(o.Key, "vault/") {
			t.Errorf("%s is outside of the prefix", o.Key)
		}
		answer, err := bucket.GetObjectDetailedMeta(o.Key)
		if err != nil {
			t.Fatal(err)
		}
		class := ""
		if strings.Contains(o.Key, "/shards/") {
			shards++
			class = parameters.Get("storage_class")
		}
		key := parameters.Get("kms_key")
		if answer.Get(oss.HTTPHeaderOssServerSideEncryptionKeyID) != key || key != "" && answer.Get(oss.HTTPHeaderOssServerSideEncryption) != "KMS" {
			t.Errorf("%s is encrypted with %q", o.Key, answer.Get(oss.HTTPHeaderOssServerSideEncryptionKeyID))
		}
		if got := answer.Get(oss.HTTPHeaderOssStorageClass); got != class && class+got != "Standard" {
			t.Errorf("%s is in class %q, want %q", o.Key, got, class)
		}
		if config.RetentionDays > 0 {
			var refused oss.ServiceError
			if err := bucket.DeleteObject(o.Key); !errors.As(err, &refused) || refused.Code != "FileImmutable" || refused.StatusCode != http.StatusConflict {
				t.Errorf("delete %s: %v, want FileImmutable", o.Key, err)
			}
		}
	}
	if shards < 1 {
		t.Error("there is no shard")
	}
}

// TestRequestInABucket puts a request into the vault, whose creation wakes the function
// that plans the restore; the planner's ticks bring it to its end.
func TestRequestInABucket(t *testing.T) {
	s, dir, client := beginOSS(t, local.BucketConfig{}, nil, io.Discard)
	makeTable(t, client, "orders")
	for i := range int64(20) {
		putRow(t, client, "orders", "k", i, nil, 1)
	}
	backedUp(t, dir, "local/orders")
	_, repo, err := openVault(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	request := strings.NewReader(`{"kind":"restore","table":"local/orders","to":"local/copy"}`)
	if _, err := repo.Store().Create(t.Context(), "requests/copy.restore.json", request); err != nil {
		t.Fatal(err)
	}
	for begun, end := false, time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if !begun {
			for _, err := range repo.Store().List(t.Context(), "restores/", "") {
				begun = err == nil
				break
			}
			if !begun && time.Now().Before(end) {
				continue
			}
		}
		if err := s.Host.Fire("tablevault-plan", "tick", time.Now()); err != nil {
			t.Fatal(err)
		}
		data, err := object.ReadAll(t.Context(), repo.Store(), "answers/requests/copy.restore.json", 1<<20)
		if errors.Is(err, fs.ErrNotExist) && time.Now().Before(end) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		answer := new(vault.Answer)
		if err := vault.Decode("answers/requests/copy.restore.json", data, answer); err != nil || !answer.OK || answer.Rows != 20 {
			t.Errorf("%+v, %v", answer, err)
		}
		return
	}
}

// TestBucketSurvives ends a stack and starts another in its directory, which is not told
// what keeps the vault: the backup is there, at another port.
func TestBucketSurvives(t *testing.T) {
	dir := t.TempDir()
	start := func(keeper stack.Keeper) *stack.Stack {
		t.Helper()
		s, err := stack.Start(t.Context(), stack.Config{Dir: dir, BinDir: binDir, Deployment: tablevault.Deployment, Vault: keeper})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := start(stack.Bucket)
	client := tablestore.NewClient(s.Info.Tablestore, s.Instance, s.AccessKeyID, s.AccessKeySecret)
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "k", 1, nil, 1)
	made := backedUp(t, dir, "local/orders")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start("")
	var verified verifyResult
	must(t, &verified, "verify", "--stack", dir, "--backup", string(made.ID), "--against", "local/orders")
	if verified.Verdict != "ok" {
		t.Errorf("%+v", verified)
	}
	info, err := stack.Find(dir)
	if err != nil || info.OSSEndpoint != s.OSS.URL() || !strings.HasPrefix(info.Vault, "oss://tablevault/vault?") {
		t.Errorf("%+v, %v", info, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if code, _, errs := tablevaultRun(t, "local", "--dir", dir, "--vault", "s3"); code != exitUsage || !strings.Contains(errs, "want dir or oss") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

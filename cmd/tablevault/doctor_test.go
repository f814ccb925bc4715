package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/fc"
	local "github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// environment sets what the commands find a stack by without --stack, as a person does
// for the cloud.
func environment(t *testing.T, s *stack.Stack) {
	t.Helper()
	for name, value := range map[string]string{
		"TABLEVAULT_VAULT": s.Vault, "TABLEVAULT_REGION": "local", "TABLEVAULT_ACCOUNT": "0",
		"TABLEVAULT_TABLESTORE_ENDPOINT": s.Info.Tablestore, "TABLEVAULT_FC_ENDPOINT": s.Functions, "TABLEVAULT_POLICY": "",
		"ALIBABA_CLOUD_ACCESS_KEY_ID": s.AccessKeyID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": s.AccessKeySecret, "ALIBABA_CLOUD_SECURITY_TOKEN": "",
	} {
		t.Setenv(name, value)
	}
}

// signIn makes the commands use a temporary key.
func signIn(t *testing.T, k ram.Key) {
	t.Helper()
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", k.ID)
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", k.Secret)
	t.Setenv("ALIBABA_CLOUD_SECURITY_TOKEN", k.Token)
}

func grants(t *testing.T, text string) *ram.Policy {
	t.Helper()
	p, err := ram.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// diagnosis is what doctor told, with its lines as a text.
type diagnosis struct{ status.Diagnosis }

func doctorRun(t *testing.T, args ...string) (int, diagnosis) {
	t.Helper()
	code, out, errs := tablevaultRun(t, append([]string{"doctor", "--json"}, args...)...)
	var d diagnosis
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	for _, f := range d.Checks {
		if (f.Fix == "") != (f.Level == status.Fine) {
			t.Errorf("%+v: a fix stands where something is wrong, and only there", f)
		}
	}
	return code, d
}

func (d diagnosis) String() string {
	var b strings.Builder
	for _, f := range d.Checks {
		fmt.Fprintf(&b, "%s %s %s: %s\n", f.Level, f.Check, f.About, f.Text)
	}
	return b.String()
}

// streamed makes a table with a change stream.
func streamed(t *testing.T, c *tablestore.TableStoreClient, name string, hours int) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: name}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, ReservedThroughput: &tablestore.ReservedThroughput{}, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		StreamSpec: &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: int32(hours)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTooOld(t *testing.T) {
	now := time.Date(2026, 11, 20, 10, 14, 0, 0, time.UTC)
	const most = 26 * time.Hour
	for _, c := range []struct {
		age, most time.Duration
		want      bool
	}{{most, most, false}, {most + 1, most, true}, {most + 400*time.Millisecond, most, true}, {most - 1, most, false}, {1000 * most, 0, false}, {-time.Hour, most, false}} {
		if got := tooOld(now.Add(-c.age), now, c.most); got != c.want {
			t.Errorf("an age of %s, at most %s: %t", c.age, c.most, got)
		}
	}
}

// sealedAt puts the manifest of a backup of a local table into the vault of a stack.
func sealedAt(t *testing.T, s *stack.Stack, name string, at time.Time) {
	t.Helper()
	b := vault.Backup{Table: vault.TableID{Region: "local", Instance: "local", Table: name}, ID: vault.NewBackupID(at, "aged")}
	manifest, err := vault.Encode(b.Manifest(), vaulttest.SealedAt(b, at, at))
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := ossClient(t, s).Bucket("tablevault")
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.PutObject("vault/"+b.Manifest(), bytes.NewReader(manifest)); err != nil {
		t.Fatal(err)
	}
}

// TestDoctor runs doctor on a stack in which all is well, then on one thing after the
// other that is not. The commands find the stack by the environment alone.
func TestDoctor(t *testing.T) {
	s, _, client := begin(t, func(c *stack.Config) {
		c.Memory, c.Vault = true, stack.Bucket
		c.OSS = func(o *stack.OSS) {
			o.Bucket = local.BucketConfig{Overwrite: []local.OverwriteRule{{ID: "vault", Action: "forbid", Prefix: "vault/"}}}
		}
	})
	environment(t, s)
	folder := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	policy := func(tables string) string {
		return write(strings.NewReplacer("/", "_", "*", "_").Replace(tables)+".yaml", "tables: "+tables+"\nevery: hourly\nkeep: 72 hours\n")
	}
	good := policy("local/order*")
	t.Setenv("TABLEVAULT_POLICY", good)

	t.Run("nothing yet", func(t *testing.T) {
		code, d := doctorRun(t, "--max-age", "26h")
		if code != exitFailed || d.OK || !strings.Contains(d.String(), "warning vault : there is nothing at oss://tablevault/vault") {
			t.Errorf("exit %d\n%s", code, d)
		}
	})
	streamed(t, client, "orders", 168)
	change := &tablestore.PutRowChange{TableName: "orders", PrimaryKey: new(tablestore.PrimaryKey)}
	change.PrimaryKey.AddPrimaryKeyColumn("id", int64(1))
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	if _, err := client.PutRow(&tablestore.PutRowRequest{PutRowChange: change}); err != nil {
		t.Fatal(err)
	}
	var backups struct{ Backups []status.Backup }
	must(t, &backups, "backup", "--table", "local/orders")
	t.Run("all is well", func(t *testing.T) {
		code, d := doctorRun(t, "--max-age", "26h")
		seen := map[string]bool{}
		for _, f := range d.Checks {
			seen[f.Check] = true
			if f.Level != status.Fine {
				t.Errorf("%+v", f)
			}
		}
		for _, check := range []string{"settings", "clock", "vault", "create-only", "protection", "uploads", "policy", "function", "tablestore", "pattern", "table", "recovery"} {
			if !seen[check] {
				t.Errorf("no line is about %s", check)
			}
		}
		if code != 0 || !d.OK || !strings.Contains(d.String(), "forbids to overwrite, which was tried") || !strings.Contains(d.String(), "ok protection deleting: the bucket lets those delete who may") {
			t.Errorf("exit %d\n%s", code, d)
		}
		code, out, _ := tablevaultRun(t, "doctor")
		if code != 0 || strings.Count(out, "\n") != len(d.Checks) {
			t.Errorf("exit %d\n%s", code, out)
		}
	})
	t.Run("one list", func(t *testing.T) {
		// With a policy, what it keeps no longer is looked for as well.
		t.Setenv("TABLEVAULT_POLICY", "")
		before := s.OSS.Calls("ListObjectsV2")
		if _, d := doctorRun(t, "--max-age", "26h"); !strings.Contains(d.String(), "ok recovery local/orders: ") || !strings.Contains(d.String(), "ok tablestore local: ") {
			t.Error(d)
		}
		if n := s.OSS.Calls("ListObjectsV2") - before; n != 1 {
			t.Errorf("%d lists of the vault, want one, of the manifests", n)
		}
	})
	operator, err := stack.Policy(tablevault.Policies(), "operator")
	if err != nil {
		t.Fatal(err)
	}
	streamed(t, client, "short", 1)
	makeTable(t, client, "plain")
	streamed(t, client, "aged", 168)
	aged := time.Now().UTC().Add(-27 * time.Hour).Truncate(time.Second)
	sealedAt(t, s, "aged", aged)
	front := proxied(t, s.OSSEndpoint)
	for _, c := range []struct {
		name  string
		given func(t *testing.T)
		args  []string
		want  []string // lines
	}{
		{"no vault named", func(t *testing.T) { t.Setenv("TABLEVAULT_VAULT", "") }, nil, []string{"failure settings : TABLEVAULT_VAULT is not set"}},
		{"no key", func(t *testing.T) {
			t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "")
			t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "")
		}, nil,
			[]string{"failure settings : there is no access key"}},
		{"no region", func(t *testing.T) { t.Setenv("TABLEVAULT_REGION", ""); t.Setenv("FC_REGION", "") }, nil, []string{"failure settings : there is no region"}},
		{"unreachable", func(t *testing.T) { t.Setenv("TABLEVAULT_FC_ENDPOINT", "http://127.0.0.1:1") }, nil,
			[]string{"failure network functions: ", "failure function tablevault-plan: ", "ok recovery local/orders: "}},
		{"clock", func(t *testing.T) { t.Setenv("TABLEVAULT_FC_ENDPOINT", dated(t, 20*time.Minute)) }, nil, []string{"failure clock : this machine's clock is "}},
		{"clock a little", func(t *testing.T) { t.Setenv("TABLEVAULT_FC_ENDPOINT", dated(t, -2*time.Minute)) }, nil, []string{"warning clock : this machine's clock is "}},
		{"no such bucket", func(t *testing.T) { t.Setenv("TABLEVAULT_VAULT", s.OSS.Address("nothing", "vault")) }, nil,
			[]string{"failure vault : open oss://nothing/vault: there is no bucket nothing", "failure function tablevault-plan: it works on the vault oss://tablevault/vault"}},
		{"wrong secret", func(t *testing.T) { t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "wrong") }, nil,
			[]string{"failure vault : ", "failure function tablevault-plan: ", "failure tablestore local: "}},
		{"versions", func(t *testing.T) { t.Setenv("TABLEVAULT_VAULT", versioned(t, s)) }, nil,
			[]string{"failure protection versions: the bucket has versions (Enabled)"}},
		{"no protection", func(t *testing.T) { t.Setenv("TABLEVAULT_VAULT", bucketLike(t, s, "bare", local.BucketConfig{})) }, nil,
			[]string{"warning protection overwriting: only the writers' own promise"}},
		{"retention not locked", func(t *testing.T) {
			t.Setenv("TABLEVAULT_VAULT", bucketLike(t, s, "unlocked", local.BucketConfig{}))
			if _, err := ossClient(t, s).InitiateBucketWorm("unlocked", 3); err != nil {
				t.Fatal(err)
			}
		}, nil, []string{"warning protection retention: the retention policy of 3 days is not locked",
			"ok protection overwriting: the bucket keeps each object for 3 days as long as its policy is there, which was tried"}},
		{"retention", func(t *testing.T) {
			t.Setenv("TABLEVAULT_VAULT", bucketLike(t, s, "locked", local.BucketConfig{RetentionDays: 3}))
		}, nil, []string{"ok protection overwriting: the bucket keeps each object for 3 days, which was tried", "ok protection deleting: the bucket keeps each object for 3 days"}},
		{"a rule that is not kept", func(t *testing.T) {
			address := bucketLike(t, s, "liar", local.BucketConfig{})
			t.Setenv("TABLEVAULT_VAULT", strings.Replace(address, url.QueryEscape(s.OSSEndpoint), url.QueryEscape(front), 1))
		}, nil, []string{"failure protection overwriting: the bucket forbids to overwrite, as it says, and has let itself be overwritten"}},
		{"uploads", func(t *testing.T) {
			address := bucketLike(t, s, "fragments", local.BucketConfig{})
			t.Setenv("TABLEVAULT_VAULT", strings.Replace(address, url.QueryEscape(s.OSSEndpoint), url.QueryEscape(front), 1))
			b, err := ossClient(t, s).Bucket("fragments")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.InitiateMultipartUpload("vault/backups/x"); err != nil {
				t.Fatal(err)
			}
		}, nil, []string{"warning uploads : 1 upload of workers that died, the oldest of 2020-"}},
		{"an operator's key", func(t *testing.T) {
			s.Authority.SetPolicies("operator", operator)
			signIn(t, s.Authority.Assume("operator", time.Hour))
		}, []string{"--max-age", "26h"}, []string{"warning create-only : not tried, this key may not write", "ok protection overwriting: the bucket forbids to overwrite; not tried"}},
		{"a key that may list only", func(t *testing.T) {
			s.Authority.SetPolicies("watcher", grants(t, `{"Version":"1","Statement":[{"Effect":"Allow","Action":"oss:ListObjects","Resource":"acs:oss:*:*:tablevault",
				"Condition":{"StringLike":{"oss:Prefix":"vault/manifests/*"}}}]}`))
			signIn(t, s.Authority.Assume("watcher", time.Hour))
		}, []string{"--max-age", "26h"}, []string{"ok recovery local/orders: the newest recovery point, ", "by its name; this key may not read the manifest",
			"failure function tablevault-plan: ", "failure tablestore local: ", "warning protection : not all can be told: this key may not oss:GetBucketVersioning", "warning uploads : "}},
		{"no policy", func(t *testing.T) { t.Setenv("TABLEVAULT_POLICY", "") }, nil, []string{"warning policy : there is no tablevault.yaml here"}},
		{"a policy that is none", nil, []string{"--policy", write("wrong.yaml", "tabels: local/x\n")}, []string{"failure policy : "}},
		{"a policy that is not there", nil, []string{"--policy", filepath.Join(folder, "none.yaml")}, []string{"failure policy : "}},
		{"a policy for another vault", nil, []string{"--policy", write("other.yaml", "vault: oss://other/vault\ntables: local/x*\nevery: hourly\nkeep: 72 hours\n")},
			[]string{"failure policy : it is for the vault oss://other/vault"}},
		{"functions elsewhere", func(t *testing.T) { t.Setenv("TABLEVAULT_FUNCTION_PREFIX", "dr-") }, nil, []string{"failure function dr-plan: invoke dr-plan: 404 FunctionNotFound"}},
		{"an unknown instance", nil, []string{"--policy", policy("nowhere/orders")}, []string{"failure tablestore nowhere: "}},
		{"a pattern of nothing", nil, []string{"--policy", policy("local/x*")}, []string{"warning pattern local/x*: matches 0 tables"}},
		{"a table that is not there", nil, []string{"--policy", policy("local/gone")}, []string{"failure pattern local/gone: matches 0 tables", "warning recovery : there is no recovery point at all"}},
		{"no stream, no backup", nil, []string{"--policy", policy("local/plain")}, []string{"ok table local/plain: is there", "failure recovery local/plain: there is no recovery point of it"}},
		{"a stream is nobody's", nil, []string{"--policy", policy("local/short")}, []string{"ok table local/short: is there"}},
		{"too old", nil, []string{"--policy", policy("local/aged"), "--max-age", "26h"},
			[]string{"failure recovery local/aged: the newest recovery point, " + aged.Format(time.RFC3339) + ", is 27h0m", " old, more than 26h0m0s"}},
		{"not too old", nil, []string{"--policy", policy("local/aged"), "--max-age", "28h"},
			[]string{"ok recovery local/aged: the newest recovery point, " + aged.Format(time.RFC3339) + ", is 27h0m"}},
		{"a damaged manifest, and one of a day to come", func(t *testing.T) {
			b, err := ossClient(t, s).Bucket("tablevault")
			if err != nil {
				t.Fatal(err)
			}
			id := vault.TableID{Region: "local", Instance: "local", Table: "orders"}
			for _, name := range []string{vault.ManifestName(id, "20260101T000000Z-00000000"), vault.ManifestName(id, "20990101T000000Z-00000000")} {
				if err := b.PutObject("vault/"+name, strings.NewReader("{")); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { b.DeleteObject("vault/" + name) })
			}
		}, nil, []string{"failure manifest 20260101T000000Z-00000000: the backup of local/orders can't be restored: read manifests/", "failure manifest 20990101T000000Z-00000000: ",
			"warning dated local/orders: named by an instant that is still to come: 20990101T000000Z-00000000", "ok recovery local/orders: the newest recovery point, 20"}},
		{"vault.json is gone", func(t *testing.T) {
			b, err := ossClient(t, s).Bucket("tablevault")
			if err != nil {
				t.Fatal(err)
			}
			lost, err := b.GetObject("vault/" + vault.HeaderName)
			if err != nil {
				t.Fatal(err)
			}
			defer lost.Close()
			content, err := io.ReadAll(lost)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.DeleteObject("vault/" + vault.HeaderName); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := b.PutObject("vault/"+vault.HeaderName, bytes.NewReader(content)); err != nil {
					t.Error(err)
				}
			})
			// No backup makes a new one.
			if code, _, errs := tablevaultRun(t, "backup", "--table", "local/orders"); code == 0 || !strings.Contains(errs, "vault.json is gone") {
				t.Errorf("exit %d: %s", code, errs)
			}
			// What doctor says to put there is what was there, but for when it was made.
			_, d := doctorRun(t)
			var was, told vault.Header
			if err := vault.Decode(vault.HeaderName, content, &was); err != nil {
				t.Fatal(err)
			}
			for _, f := range d.Checks {
				if _, line, ok := strings.Cut(f.Fix, "its end of line: "); f.Check == "vault" && ok {
					if err := vault.Decode(vault.HeaderName, []byte(line+"\n"), &told); err != nil {
						t.Error(err)
					}
				}
			}
			if told.ID != was.ID || told.Seed != was.Seed {
				t.Errorf("%+v, it was %+v", told, was)
			}
		}, nil, []string{"failure vault : corrupt object: vault.json is gone, and there is opened/local/local/"}},
		{"vault.json is damaged", func(t *testing.T) {
			b, err := ossClient(t, s).Bucket("tablevault")
			if err != nil {
				t.Fatal(err)
			}
			was, err := b.GetObject("vault/" + vault.HeaderName)
			if err != nil {
				t.Fatal(err)
			}
			defer was.Close()
			content, err := io.ReadAll(was)
			if err != nil {
				t.Fatal(err)
			}
			put := func(content []byte) {
				t.Helper()
				if err := b.DeleteObject("vault/" + vault.HeaderName); err != nil {
					t.Fatal(err)
				}
				if err := b.PutObject("vault/"+vault.HeaderName, bytes.NewReader(content)); err != nil {
					t.Fatal(err)
				}
			}
			put(content[:len(content)/2])
			t.Cleanup(func() { put(content) })
			// It is one failure, with what the shards tell, and not one for each table.
			_, d := doctorRun(t)
			for _, f := range d.Checks {
				if f.Check == "recovery" || f.Check == "vault" && !strings.Contains(f.Fix, "its end of line: ") {
					t.Errorf("%+v", f)
				}
			}
		}, nil, []string{"failure vault : open the vault: read vault.json: corrupt object: "}},
		{"marked for deletion", func(t *testing.T) {
			b, err := ossClient(t, s).Bucket("tablevault")
			if err != nil {
				t.Fatal(err)
			}
			mark := vault.Backup{Table: vault.TableID{Region: "local", Instance: "local", Table: "orders"}, ID: backups.Backups[0].ID}.Mark()
			if err := b.PutObject("vault/"+mark, strings.NewReader("{}")); err != nil {
				t.Fatal(err)
			}
		}, nil, []string{"failure recovery local/orders: there is no recovery point of it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.given != nil {
				c.given(t)
			}
			code, d := doctorRun(t, c.args...)
			failed := false
			for _, want := range c.want {
				if !strings.Contains(d.String(), want) {
					t.Errorf("no line says %q", want)
				}
			}
			for _, f := range d.Checks {
				failed = failed || f.Level == status.Failure
			}
			if failed == d.OK || (code == exitFailed) != failed {
				t.Errorf("exit %d, ok is %t", code, d.OK)
			}
			if t.Failed() {
				t.Log(d)
			}
		})
	}
}

// TestDoctorOnKeys: functions that work with a key of somebody's are told of, and a vault
// in a directory.
func TestDoctorOnKeys(t *testing.T) {
	_, dir, client := begin(t, func(c *stack.Config) {
		c.Memory = true
		c.Host = func(h *fc.Config) { h.TemporaryKeys = false }
	})
	for i := range maxTables - 1 {
		makeTable(t, client, fmt.Sprint("t", i))
	}
	must(t, new(any), "backup", "--stack", dir, "--table", "local/t1")
	code, d := doctorRun(t, "--stack", dir)
	for _, want := range []string{"warning function tablevault-plan: it works with a key that does not expire", "warning protection : a directory", "warning tablestore local: it has 63 tables"} {
		if !strings.Contains(d.String(), want) {
			t.Errorf("no line says %q", want)
		}
	}
	if code != 0 || !d.OK {
		t.Errorf("exit %d\n%s", code, d)
	}
}

// TestDoctorOnS3: of a vault on S3, doctor tells what the bucket's versions and Object
// Lock do for it, and what is not told.
func TestDoctorOnS3(t *testing.T) {
	server, client := beginS3(t, s3.Plain, "")
	makeTable(t, client, "orders")
	t.Setenv("TABLEVAULT_POLICY", "")
	plain := os.Getenv("TABLEVAULT_VAULT")
	if err := server.CreateBucket(t.Context(), "locked", s3.Locked); err != nil {
		t.Fatal(err)
	}
	proxy := server.Proxy(t)
	locked := strings.NewReplacer("s3://vault/", "s3://locked/", server.URL, proxy.URL).Replace(plain)
	for _, c := range []struct {
		name, vault string
		denied      string // parameter of the questions that the key may not ask
		want        []string
		not         string
	}{
		{"plain", plain, "", []string{"warning protection overwriting: only the writers' own promise", "warning protection deleting: whoever has a key that may delete, deletes"}, "Object Lock"},
		{"a lock that is not there", plain + "&lock=compliance&retain=30d", "", []string{"failure protection deleting: the vault's address asks for locked objects"}, "ok protection deleting"},
		{"a lock that is not used", locked, "", []string{"warning protection deleting: the bucket has Object Lock, and new objects are not locked", "ok protection overwriting: the bucket keeps what is overwritten as an older version"}, "failure protection"},
		{"locked", locked + "&lock=compliance&retain=30d", "", []string{"ok protection overwriting: ", "ok protection deleting: the bucket locks each object for 30 days (compliance)"}, "warning protection"},
		{"not told", locked, "object-lock", []string{"warning protection : not all can be told: this key may not s3:GetBucketObjectLockConfiguration", "ok protection overwriting: "}, "protection deleting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy.Set(&s3.Fault{Kind: s3.Denied, Call: s3.Every, Match: func(r *http.Request) bool { return c.denied != "" && r.URL.Query().Has(c.denied) }})
			t.Setenv("TABLEVAULT_VAULT", c.vault)
			code, d := doctorRun(t)
			for _, want := range c.want {
				if !strings.Contains(d.String(), want) {
					t.Errorf("no line says %q", want)
				}
			}
			if strings.Contains(d.String(), c.not) || (code == exitFailed) == d.OK {
				t.Errorf("exit %d, and no line should say %q", code, c.not)
			}
			if t.Failed() {
				t.Log(d)
			}
		})
	}
}

func ossClient(t *testing.T, s *stack.Stack) *oss.Client {
	t.Helper()
	c, err := oss.New(s.OSSEndpoint, s.AccessKeyID, s.AccessKeySecret, oss.AuthVersion(oss.AuthV4), oss.Region(local.DefaultRegion))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bucketLike makes a bucket with the vault's header and returns the address of the vault
// in it.
func bucketLike(t *testing.T, s *stack.Stack, name string, config local.BucketConfig) string {
	t.Helper()
	if err := s.OSS.CreateBucket(name, config); err != nil {
		t.Fatal(err)
	}
	c := ossClient(t, s)
	from, err := c.Bucket("tablevault")
	if err != nil {
		t.Fatal(err)
	}
	r, err := from.GetObject("vault/vault.json")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	to, err := c.Bucket(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.PutObject("vault/vault.json", r); err != nil {
		t.Fatal(err)
	}
	return s.OSS.Address(name, "vault")
}

func versioned(t *testing.T, s *stack.Stack) string {
	t.Helper()
	address := bucketLike(t, s, "versions", local.BucketConfig{})
	if err := ossClient(t, s).SetBucketVersioning("versions", oss.VersioningConfig{Status: "Enabled"}); err != nil {
		t.Fatal(err)
	}
	return address
}

// dated is a server whose clock is ahead.
func dated(t *testing.T, ahead time.Duration) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// proxied is a front of the store that claims a rule against overwriting, and that all
// uploads are years old.
func proxied(t *testing.T, to string) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		if !r.Request.URL.Query().Has("uploads") {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		year := fmt.Sprint("<Initiated>", time.Now().UTC().Year())
		r.Body = io.NopCloser(strings.NewReader(strings.ReplaceAll(string(body), year, "<Initiated>2020")))
		return nil
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("overwriteConfig") {
			fmt.Fprint(w, "<OverwriteConfiguration><Rule><ID>a</ID><Action>forbid</Action></Rule></OverwriteConfiguration>")
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestDoctorOnRetention: what has been due for two days is told, and what stays at the
// window's beginning is not.
func TestDoctorOnRetention(t *testing.T) {
	p, err := policy.Decode("tablevault.yaml", []byte("tables: prod/*\nevery: hourly\nkeep: 72 hours\n"))
	if err != nil {
		t.Fatal(err)
	}
	id := vault.TableID{Region: "local", Instance: "prod", Table: "orders"}
	due := p.Rules[0].Every.Due(time.Now())
	for hours, want := range map[int]status.Level{10: status.Fine, 119: status.Fine, 121: status.Fine, 130: status.Warning} {
		d := &doctor{store: &mem.Store{}, known: status.Known{Region: "local", Policy: p, Backups: map[vault.TableID][]vault.BackupID{}}}
		for n := range hours {
			at := due.Add(time.Duration(n-hours) * time.Hour)
			d.known.Backups[id] = append(d.known.Backups[id], p.Rules[0].Backup(id, at).ID)
		}
		// Those that a person has made are no rule's.
		for n := range 10 {
			d.known.Backups[id] = slices.Insert(d.known.Backups[id], 0, vault.NewBackupID(due.Add(time.Duration(n-1000)*time.Hour), "manual"))
		}
		d.retention()
		if len(d.found) != 1 || d.found[0].Level != want || want == status.Warning && !strings.Contains(d.found[0].Text, "9 backups, the oldest of "+due.Add(-130*time.Hour).Format(time.RFC3339)) {
			t.Errorf("%d hours: %+v", hours, d.found)
		}
	}
}

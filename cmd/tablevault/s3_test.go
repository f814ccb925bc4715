package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/fc"
	"github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/object/objecttest"
	"github.com/tablevault/tablevault/shared/status"
)

// beginS3 starts a stack whose vault is in a bucket of a real S3 server. The commands
// find it by the environment.
func beginS3(t *testing.T, locking s3.Locking, parameters string) (*s3.Server, *tablestore.TableStoreClient) {
	t.Helper()
	server := s3.RunT(t)
	if err := server.CreateBucket(t.Context(), "vault", locking); err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{
		"TABLEVAULT_VAULT":  "s3://vault/prod?region=" + s3.Region + "&endpoint=" + server.URL + parameters,
		"AWS_ACCESS_KEY_ID": server.KeyID, "AWS_SECRET_ACCESS_KEY": server.Secret,
	}
	stack, _, client := begin(t, func(c *stack.Config) {
		c.Memory = true
		c.Host = func(h *fc.Config) {
			env := maps.Clone(h.Env)
			if env == nil {
				env = map[string]string{}
			}
			maps.Copy(env, keys)
			h.Env = env
		}
	})
	maps.Copy(keys, map[string]string{
		"TABLEVAULT_TABLESTORE_ENDPOINT": stack.Info.Tablestore, "TABLEVAULT_FC_ENDPOINT": stack.Functions,
		// The rest is what s.yaml reads, in the shell of whoever deploys.
		"TABLEVAULT_REGION": "local", "TABLEVAULT_ACCOUNT": "1", "TABLEVAULT_EXPORT_ROLE": "role",
		"ALIBABA_CLOUD_ACCESS_KEY_ID": stack.AccessKeyID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": stack.AccessKeySecret,
	})
	for name, value := range keys {
		t.Setenv(name, value)
	}
	return server, client
}

// putLarge puts rows of which a shard is longer than a part of an upload.
func putLarge(t *testing.T, c *tablestore.TableStoreClient, name string) {
	t.Helper()
	for i := range 100 {
		u := &tablestore.UpdateRowChange{TableName: name, PrimaryKey: key("large", int64(i), []byte{})}
		u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		u.PutColumnWithTimestamp("v", objecttest.Content(name+string(rune(i)), 100_000), 7)
		if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestS3Job runs the whole job with its vault in a bucket of S3: plain, and under Object
// Lock, where no object can be changed or deleted by anyone.
func TestS3Job(t *testing.T) {
	for _, c := range []struct {
		name       string
		locking    s3.Locking
		parameters string
	}{{"plain", s3.Plain, ""}, {"locked", s3.Locked, "&lock=governance&retain=1d"}} {
		t.Run(c.name, func(t *testing.T) {
			server, client := beginS3(t, c.locking, c.parameters)
			extremes(t, client, "orders")
			putLarge(t, client, "orders")
			want := everything(t, client, "orders")
			var backups struct{ Backups []status.Backup }
			must(t, &backups, "backup", "--table", "local/orders")
			if len(backups.Backups) != 1 || backups.Backups[0].Rows != int64(len(want)) || backups.Backups[0].Bytes < 6<<20 {
				t.Fatalf("%d rows in the table: %+v", len(want), backups)
			}
			id := string(backups.Backups[0].ID)
			for _, depth := range []string{"objects", "read"} {
				var verified verifyResult
				must(t, &verified, "verify", "--backup", id, "--depth", depth)
				if verified.Verdict != "ok" {
					t.Errorf("verify to the depth of %s: %+v", depth, verified)
				}
			}
			var restored restoreResult
			must(t, &restored, "restore", "--table", "local/orders", "--to", "local/orders_copy")
			if restored.Verdict != "ok" || restored.Rows != int64(len(want)) {
				t.Fatalf("restore: %+v", restored)
			}
			if got := everything(t, client, "orders_copy"); !maps.Equal(got, want) {
				t.Errorf("%d rows come back, or others, of %d", len(got), len(want))
			}
			code, out, errs := tablevaultRun(t, "list")
			if code != 0 || !strings.Contains(out, id) {
				t.Errorf("list: exit %d\n%s%s", code, out, errs)
			}
			if n, err := server.Uploads(t.Context(), "vault"); err != nil || n != 0 {
				t.Errorf("%d uploads are left behind, %v", n, err)
			}
		})
	}
}

package parts

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/functiontest"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestSetReplicas opens the replicas that the plan of a restore names by keys if the
// policy has them, and no others: of those it is told that they can't be read.
func TestSetReplicas(t *testing.T) {
	endpoint, came := functiontest.Store(t)
	address := "oss://acme-dr/vault?region=cn-x&" + endpoint
	for _, c := range []struct {
		address string
		comes   bool
	}{{"oss://acme-dr/vault?region=cn-x", false}, {address, true}} {
		policy := functiontest.Policy(t, "tables: prod/*\nevery: hourly\ndestinations: '"+c.address+"'\n")
		env, err := function.ReadEnv([]string{"TABLEVAULT_VAULT=oss://acme/vault", "FC_REGION=cn-x", "FC_ACCOUNT_ID=1", policy})
		if err != nil {
			t.Fatal(err)
		}
		inv := &function.Invocation{Env: env, Region: "cn-x", Log: slog.New(slog.DiscardHandler), Credentials: functiontest.Role}
		repo, err := repository.Init(t.Context(), &mem.Store{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		came.Store(0)
		repo.SetReplicas(ReplicasByKey(inv)([]string{place.Key(address)})...)
		if _, err := repo.FindBackup(t.Context(), vault.NewBackupID(time.Now(), "x")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		said := strings.Join(repo.ReplicaErrors(), "\n")
		if (came.Load() > 0) != c.comes || c.comes == strings.Contains(said, "has no further vault") {
			t.Errorf("with the destination %s %d requests came: %s", c.address, came.Load(), said)
		}
	}
}

// TestRowsAreCold: the storage class of the vault's address is that of shards and their
// indexes, and of no document.
func TestRowsAreCold(t *testing.T) {
	store, err := oss.Start(oss.Config{Region: "cn-x", Keys: []oss.Key{{ID: functiontest.Role.ID, Secret: functiontest.Role.Secret, Token: functiontest.Role.Token}}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.CreateBucket("acme", oss.BucketConfig{}); err != nil {
		t.Fatal(err)
	}
	classes := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			classes[strings.TrimPrefix(r.URL.Path, "/acme/vault/")] = r.Header.Get("X-Oss-Storage-Class")
		}
		store.ServeHTTP(w, r)
	}))
	defer server.Close()
	env, err := function.ReadEnv([]string{"TABLEVAULT_VAULT=oss://acme/vault?region=cn-x&storage_class=IA&endpoint=" + url.QueryEscape(server.URL), "FC_REGION=cn-x", "FC_ACCOUNT_ID=1"})
	if err != nil {
		t.Fatal(err)
	}
	inv := &function.Invocation{Env: env, Region: "cn-x", Log: slog.New(slog.DiscardHandler), Credentials: functiontest.Role}
	if _, err := NewRepository(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	repo, err := WriteOnly(t.Context(), inv)
	if err != nil {
		t.Fatal(err)
	}
	b := vault.Backup{Table: vault.TableID{Region: "cn-x", Instance: "prod", Table: "orders"}, ID: vault.NewBackupID(time.Now(), "x")}
	want := map[string]string{vault.HeaderName: "", b.Shard("000000", "r"): "IA", b.Plan(): ""}
	for name := range want {
		if name != vault.HeaderName {
			if _, err := repo.Store().Create(t.Context(), name, strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !maps.Equal(classes, want) {
		t.Errorf("classes %v, want %v", classes, want)
	}
}

// TestPolicyOfASecret says what is wrong with the setting, and not what it is.
func TestPolicyOfASecret(t *testing.T) {
	env, err := function.ReadEnv([]string{"TABLEVAULT_VAULT=oss://acme/vault", "TABLEVAULT_POLICY=/hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&function.Invocation{Env: env}).Policy(); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "TABLEVAULT_POLICY") {
		t.Errorf("%v", err)
	}
}

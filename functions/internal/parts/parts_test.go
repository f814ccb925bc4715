package parts

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestAlso opens the further vaults that the plan of a restore names by keys if the policy has them, and no others: of
// those it is told that they can't be read.
func TestAlso(t *testing.T) {
	var came atomic.Int32
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	defer front.Close()
	address := "oss://acme-dr/vault?region=cn-x&endpoint=" + url.QueryEscape(front.URL)
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	for _, c := range []struct {
		destination string
		comes       bool
	}{{"oss://acme-dr/vault?region=cn-x", false}, {address, true}} {
		if err := os.WriteFile(file, []byte("tables: prod/*\nevery: hourly\ndestinations: '"+c.destination+"'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		env, err := function.ReadEnv([]string{"TABLEVAULT_VAULT=oss://acme/vault", "FC_REGION=cn-x", "FC_ACCOUNT_ID=1", "TABLEVAULT_POLICY=" + file})
		if err != nil {
			t.Fatal(err)
		}
		inv := &function.Invocation{Env: env, Region: "cn-x", Log: slog.New(slog.DiscardHandler), Credentials: function.Credentials{ID: "STS.role", Secret: "secret-of-the-role", Token: "token-of-the-role"}}
		repo, err := repository.Init(t.Context(), &mem.Store{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		came.Store(0)
		Also(inv, repo, []string{place.Key(address)})
		if _, err := repo.FindBackup(t.Context(), vault.NewBackupID(time.Now(), "x")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		said := strings.Join(repo.TwinErrors(), "\n")
		if (came.Load() > 0) != c.comes || c.comes == strings.Contains(said, "has no further vault") {
			t.Errorf("with the destination %s %d requests came: %s", c.destination, came.Load(), said)
		}
	}
}

// TestPolicyOfASecret says what is wrong with the setting, and not what it is.
func TestPolicyOfASecret(t *testing.T) {
	env, err := function.ReadEnv([]string{"TABLEVAULT_VAULT=oss://acme/vault", "TABLEVAULT_POLICY=/hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Policy(&function.Invocation{Env: env}); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "TABLEVAULT_POLICY") {
		t.Errorf("%v", err)
	}
}

package parts

import (
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/functiontest"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestAlso opens the further vaults that the plan of a restore names by keys if the policy has them, and no others: of
// those it is told that they can't be read.
func TestAlso(t *testing.T) {
	endpoint, came := functiontest.Store(t)
	address := "oss://acme-dr/vault?region=cn-x&" + endpoint
	for _, c := range []struct {
		destination string
		comes       bool
	}{{"oss://acme-dr/vault?region=cn-x", false}, {address, true}} {
		policy := functiontest.Policy(t, "tables: prod/*\nevery: hourly\ndestinations: '"+c.destination+"'\n")
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

package main

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/functiontest"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// elsewhere is a server that nobody who deploys has named, and counts who comes.
func elsewhere(t *testing.T) (address string, came *atomic.Int32) {
	endpoint, came := functiontest.Store(t)
	// The bucket is called like one of the policy's: what is signed for it would be good
	// at the real place.
	return "oss://acme-backups/vault?region=cn-x&path_style=true&" + endpoint, came
}

// folderVault makes a vault in a folder.
func folderVault(t *testing.T) (folder string, store object.Store) {
	t.Helper()
	folder = t.TempDir()
	store, err := dir.Open(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repository.Init(t.Context(), store, time.Now()); err != nil {
		t.Fatal(err)
	}
	return folder, store
}

// serve makes the function with a vault in a folder and a policy, if one is given.
func serve(t *testing.T, folder, text string) func(event string) (answer string, said string) {
	t.Helper()
	environ := []string{"TABLEVAULT_VAULT=file://" + folder, "FC_REGION=cn-x", "FC_ACCOUNT_ID=1"}
	if text != "" {
		environ = append(environ, functiontest.Policy(t, "tables: prod/*\nevery: hourly\n"+text))
	}
	return func(event string) (string, string) {
		t.Helper()
		answer, log, err := functiontest.Call{
			Verbs: function.Verbs{function.KindRestore: bringBack, function.KindImport: load}, Environ: environ, Key: functiontest.Role, Request: "r", Event: event,
		}.Do(t)
		return fmt.Sprintf("%s %v", answer, err), log
	}
}

// TestNoAddressOfASenders has an event, and a plan that lies in the vault, name a replica
// that is not of the policy: nothing goes there, and what is said has the next step and
// no secret.
func TestNoAddressOfASenders(t *testing.T) {
	folder, store := folderVault(t)
	address, came := elsewhere(t)
	const backup = "20260101T000000Z-00000000"
	plan := &vault.RestorePlan{
		Restore: vault.NewRestoreID(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), "x"), Backup: backup, Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Source: vault.TableID{Region: "cn-x", Instance: "prod", Table: "orders"}, Target: vault.TableID{Region: "cn-x", Instance: "prod", Table: "copy"},
		Definition: table.Definition{Name: "copy", Schema: table.Schema{{Name: "id", Type: table.IntegerKey}}, Options: table.Options{TTL: -1, MaxVersions: 1, Deviation: 86400}},
		Manifest:   vault.Object{Name: "manifests/cn-x/prod/orders/" + backup + ".json", SHA256: strings.Repeat("0", 64)},
		Segments:   []vault.RestoreSegment{{ID: vault.NewSegmentID(0), Rows: 1}}, Replicas: []string{place.Key(address)},
	}
	put := func(p *vault.RestorePlan) {
		t.Helper()
		data, err := vault.Encode(vault.Restore{ID: p.Restore}.Plan(), p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Create(t.Context(), vault.Restore{ID: p.Restore}.Plan(), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	put(plan)
	// An instance whose name would make another host of the endpoint.
	other := *plan
	u, _ := url.Parse(address[strings.Index(address, "endpoint=")+len("endpoint="):])
	host, _ := url.QueryUnescape(u.String())
	other.Restore, other.Target.Instance = vault.NewRestoreID(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), "x"), strings.TrimPrefix(host, "http://")+"#"
	put(&other)

	for _, policy := range []string{"", "destinations: {name: dr, to: 'oss://acme-backups/vault?region=cn-x'}\n"} {
		invoke := serve(t, folder, policy)
		for name, c := range map[string]struct{ event, want string }{
			"an address":           {fmt.Sprintf(`{"kind":"restore","backup":%q,"to":"prod/x","also":[%q]}`, backup, address), "name of a destination of the functions' policy"},
			"the key of it":        {fmt.Sprintf(`{"kind":"restore","backup":%q,"to":"prod/x","also":[%q]}`, backup, place.Key(address)), "has no further vault"},
			"a name that is none":  {fmt.Sprintf(`{"kind":"restore","backup":%q,"to":"prod/x","also":["evil"]}`, backup), "has no further vault"},
			"a key in the vault":   {fmt.Sprintf(`{"kind":"import","restore":%q,"segment":"000000"}`, plan.Restore), "has not made the table yet"},
			"a host in the vault":  {fmt.Sprintf(`{"kind":"import","restore":%q,"segment":"000000"}`, other.Restore), "is no name of an instance"},
			"a host in an event":   {fmt.Sprintf(`{"kind":"restore","backup":%q,"to":"evil.example#/x"}`, backup), "is not instance/table"},
			"a key in its address": {fmt.Sprintf(`{"kind":"restore","backup":%q,"to":"prod/x","also":["s3://AKIA:hunter2@b"]}`, backup), "name of a destination of the functions' policy"},
		} {
			answer, log := invoke(c.event)
			if strings.Contains(answer, `"ok":true`) || !strings.Contains(answer, c.want) {
				t.Errorf("%s: %.600s, want %q", name, answer, c.want)
			}
			for _, secret := range []string{"hunter2", "secret-of-the-role", "token-of-the-role"} {
				if strings.Contains(answer+log, secret) {
					t.Errorf("%s: %q is told: %s\n%s", name, secret, answer, log)
				}
			}
		}
	}
	if n := came.Load(); n > 0 {
		t.Errorf("%d requests came to an address that no policy has", n)
	}
}

// TestAddressOfThePolicy reads from a replica that the policy has, by its name.
func TestAddressOfThePolicy(t *testing.T) {
	folder, _ := folderVault(t)
	address, came := elsewhere(t)
	invoke := serve(t, folder, "destinations: {name: dr, to: '"+address+"'}\n")
	for _, name := range []string{"dr", place.Key(address)} {
		before := came.Load()
		if answer, _ := invoke(fmt.Sprintf(`{"kind":"restore","backup":"20260101T000000Z-00000000","to":"prod/x","also":[%q]}`, name)); came.Load() == before || strings.Contains(answer, `"ok":true`) {
			t.Errorf("%s is not looked at: %s", name, answer)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/functiontest"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
)

// serve makes the function with a vault in a folder, an instance with the table orders,
// and functions beside it that take whatever they are given and do nothing.
func serve(t *testing.T) (folder string, invoke func(event string) (answer, log string)) {
	t.Helper()
	tables := otstest.Run(t, ots.Config{})
	client, err := tablestore.New(tablestore.Config{Endpoint: tables.URL(), Instance: "prod", Credentials: access.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret}.Provider()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	if err := client.Create(t.Context(), table.Definition{
		Name: "orders", Schema: table.Schema{{Name: "id", Type: table.IntegerKey}}, Options: table.Options{TTL: -1, MaxVersions: 1, Deviation: 86400, AllowUpdate: true},
	}); err != nil {
		t.Fatal(err)
	}
	beside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	t.Cleanup(beside.Close)
	folder = t.TempDir()
	environ := []string{
		"TABLEVAULT_VAULT=file://" + folder, functiontest.Policy(t, "tables: prod/orders\nevery: hourly\n"), "TABLEVAULT_TABLESTORE_ENDPOINT=" + tables.URL(), "TABLEVAULT_FC_ENDPOINT=" + beside.URL,
		"FC_REGION=local", "FC_ACCOUNT_ID=1",
	}
	requests := 0
	return folder, func(event string) (string, string) {
		t.Helper()
		requests++
		answer, log, err := functiontest.Call{
			Verbs: function.Verbs{function.KindBackup: begin, function.KindTick: tick}, Environ: environ,
			Key: access.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret}, Request: fmt.Sprint("request-", requests), Event: event,
		}.Do(t)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		return string(answer), log
	}
}

// begunIn are the ids of the backups that were begun in a vault, in order.
func begunIn(t *testing.T, folder string) (ids []vault.BackupID) {
	t.Helper()
	store, err := dir.Open(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range repo.Begun(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.ID)
	}
	return ids
}

// TestEventsOfNoInstant sends the function what asks for a backup, with no instant or
// with one that is still to come: what it begins is named by now, each event begins one
// backup, and the rule's go on.
func TestEventsOfNoInstant(t *testing.T) {
	folder, invoke := serve(t)
	began := time.Now()
	event := func(id, when string) string {
		return `{"specversion":"1.0","id":"` + id + `","source":"bus"` + when + `,"data":{"kind":"backup","table":"prod/orders","new":true}}`
	}
	asked := map[string]vault.BackupID{}
	for _, e := range []struct{ id, when string }{
		{"a", ``}, {"b", `,"time":"2099-01-01T00:00:00Z"`}, {"a", ``}, {"b", `,"time":"2099-01-01T00:00:00Z"`},
	} {
		answer, log := invoke(event(e.id, e.when))
		var a struct {
			OK    bool
			Reply backup.Reply
		}
		if err := json.Unmarshal([]byte(answer), &a); err != nil || !a.OK {
			t.Fatalf("%s %v\n%s", answer, err, log)
		}
		if was, again := asked[e.id]; again && was != a.Reply.Backup {
			t.Errorf("event %s begins %s and %s", e.id, was, a.Reply.Backup)
		}
		asked[e.id] = a.Reply.Backup
	}
	for id, b := range asked {
		if at := b.Time(); !at.Equal(at.Truncate(time.Minute)) {
			t.Errorf("event %s is of %s, which it has not told", id, at)
		}
	}
	if asked["a"] == asked["b"] {
		t.Error("two events begin one backup")
	}
	// A timer that is of the far future, and one that is of now.
	for _, at := range []string{"2099-01-01T00:00:00Z", time.Now().UTC().Format(time.RFC3339)} {
		if answer, log := invoke(`{"triggerTime":"` + at + `","triggerName":"tick","payload":""}`); !bytes.Contains([]byte(answer), []byte(`"ok":true`)) {
			t.Errorf("%s\n%s", answer, log)
		}
	}
	ids := begunIn(t, folder)
	// On both sides of a full hour the rule has made two.
	if len(ids) < 3 || len(ids) > 4 || !slices.Contains(ids, asked["a"]) || !slices.Contains(ids, asked["b"]) {
		t.Errorf("%v were begun, %v were asked for", ids, asked)
	}
	for _, id := range ids {
		if at := id.Time(); at.Before(began.Add(-time.Hour-time.Minute)) || at.After(time.Now()) {
			t.Errorf("%s is named by %s", id, at)
		}
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/functiontest"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

type queue []fanout.Work

func (q *queue) Submit(_ context.Context, w fanout.Work) error { *q = append(*q, w); return nil }

// sealed makes a vault with a backup of a hundred rows.
func sealed(t *testing.T) (folder string, b vault.Backup) {
	t.Helper()
	folder = t.TempDir()
	store, err := dir.Open(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Init(t.Context(), store, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tables := tabletest.New()
	tables.Make(table.Definition{Name: "orders", Schema: table.Schema{{Name: "id", Type: table.IntegerKey}}, Options: table.Options{TTL: -1, MaxVersions: 1, Deviation: 86400, AllowUpdate: true}})
	for i := range 100 {
		tables.Put("orders", tabletest.Row{Key: table.Key{table.Integer(int64(i))}, Cells: []plainbuffer.Cell{tabletest.Cell("n", 1, i)}})
	}
	id := vault.TableID{Region: "cn-x", Instance: "prod", Table: "orders"}
	quiet := slog.New(slog.DiscardHandler)
	var q queue
	p := &backup.Planner{Repo: repo, Tables: tables, Work: &q, Log: quiet, Now: time.Now}
	plan, err := p.Plan(t.Context(), backup.PlanRequest{Table: id, Kind: vault.Full, At: time.Now(), Trigger: "t", New: true})
	if err != nil {
		t.Fatal(err)
	}
	b = vault.Backup{Table: id, ID: plan.Backup}
	run := fanout.Run{Now: time.Now}
	for range 10 {
		if _, err := p.Tick(t.Context(), run, b); err != nil {
			t.Fatal(err)
		}
		for _, w := range q {
			if _, err := (&backup.Exporter{Repo: repo, Tables: tables, Work: &q, Log: quiet}).Export(t.Context(), run, w); err != nil {
				t.Fatal(err)
			}
		}
		q = nil
	}
	if m, _, err := repo.Manifest(t.Context(), b); err != nil || m.Totals.Rows != 100 {
		t.Fatal(m, err)
	}
	return folder, b
}

// server is one that speaks OSS and tells who comes, with which token, and what is put
// there.
type server struct {
	address string
	mu      sync.Mutex
	tokens  map[string]bool
	puts    []string
}

func serveOSS(t *testing.T) *server {
	t.Helper()
	inner, err := oss.Start(oss.Config{Keys: []oss.Key{{ID: functiontest.Role.ID, Secret: functiontest.Role.Secret, Token: functiontest.Role.Token}}, Region: "cn-x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inner.Close() })
	if err := inner.CreateBucket("acme-dr", oss.BucketConfig{}); err != nil {
		t.Fatal(err)
	}
	s := &server{tokens: map[string]bool{}}
	target, _ := url.Parse(inner.URL())
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.tokens[r.Header.Get("X-Oss-Security-Token")] = true
		if r.Method == http.MethodPut || r.Method == http.MethodPost {
			s.puts = append(s.puts, r.URL.Path)
		}
		s.mu.Unlock()
		r.URL.Scheme, r.URL.Host, r.RequestURI = target.Scheme, target.Host, ""
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		for k, v := range res.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	}))
	t.Cleanup(front.Close)
	s.address = "oss://acme-dr/vault?region=cn-x&endpoint=" + url.QueryEscape(front.URL)
	return s
}

// invoke runs the function with a policy that has a replica.
func invoke(t *testing.T, folder, replica, event string) (answer, log string) {
	t.Helper()
	return invokeAt(t, "file://"+folder, replica, event)
}

// invokeAt is invoke with a vault at an address.
func invokeAt(t *testing.T, address, replica, event string) (answer, log string) {
	t.Helper()
	policy := functiontest.Policy(t, "tables: prod/*\nevery: hourly\ndestinations: {name: dr, to: '"+replica+"'}\n")
	text, log, err := functiontest.Call{
		Verbs:   function.Verbs{function.KindVerify: prove, function.KindCopy: copyBackup},
		Environ: []string{"TABLEVAULT_VAULT=" + address, "FC_REGION=cn-x", "FC_ACCOUNT_ID=1", policy},
		Key:     functiontest.Role, Request: "r", Event: event,
	}.Do(t)
	return fmt.Sprintf("%s %v", text, err), log
}

// notes are the notes about copies in a vault, by their names.
func notes(t *testing.T, folder string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "copied", "*", "*", "*", "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestCopyToNoAddressOfASenders has commands name a server of the sender's, whose bucket
// is called like the policy's: no request goes there, neither rows nor the token, and the
// vault notes no copy.
func TestCopyToNoAddressOfASenders(t *testing.T) {
	folder, b := sealed(t)
	theirs := serveOSS(t)
	for _, event := range []string{
		fmt.Sprintf(`{"kind":"copy","backup":%q,"target":%q}`, b.ID, theirs.address),
		fmt.Sprintf(`{"kind":"copy","backup":%q,"target":%q}`, b.ID, place.Key(theirs.address)),
		fmt.Sprintf(`{"kind":"copy","backup":%q,"target":%q,"settings":{"back":true}}`, b.ID, theirs.address),
		fmt.Sprintf(`{"kind":"copy","backup":%q,"target":%q,"segment":"000000"}`, b.ID, place.Key(theirs.address)),
		fmt.Sprintf(`{"kind":"verify","backup":%q,"target":%q}`, b.ID, theirs.address),
		fmt.Sprintf(`{"kind":"verify","backup":%q,"target":%q}`, b.ID, place.Key(theirs.address)),
	} {
		answer, _ := invoke(t, folder, "oss://acme-dr/vault?region=cn-x", event)
		if strings.Contains(answer, `"ok":true`) || !strings.Contains(answer, "under destinations of") {
			t.Errorf("%s: %s", event, answer)
		}
	}
	if len(theirs.tokens)+len(theirs.puts) > 0 {
		t.Errorf("requests with the tokens %v came, and put %v", theirs.tokens, theirs.puts)
	}
	if found := notes(t, folder); len(found) > 0 {
		t.Errorf("copies are noted: %v", found)
	}
}

// TestCopyOntoItself has the policy name the vault itself by another name as its replica:
// through a symbolic link, and by another name of the store's host. Nothing is copied,
// and no copy is noted.
func TestCopyOntoItself(t *testing.T) {
	folder, b := sealed(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	for _, spelt := range []string{"file://" + link, "file://" + filepath.Dir(folder) + "//./" + filepath.Base(folder) + "/", "file://localhost" + folder, "file://" + folder + "/twin"} {
		for _, event := range []string{`{"kind":"copy","backup":%q,"target":"dr"}`, `{"kind":"copy","backup":%q,"target":"dr","segment":"000000"}`, `{"kind":"verify","backup":%q,"target":"dr"}`} {
			answer, _ := invoke(t, folder, spelt, fmt.Sprintf(event, b.ID))
			if strings.Contains(answer, `"ok":true`) || !strings.Contains(answer, "is the vault itself") && !strings.Contains(answer, "one inside the other") {
				t.Errorf("%s: %s", spelt, answer)
			}
		}
	}
	if found := notes(t, folder); len(found) > 0 {
		t.Errorf("copies are noted: %v", found)
	}

	// A bucket whose store has two names: the copy of before is a vault of its own.
	dr := serveOSS(t)
	if answer, _ := invoke(t, folder, dr.address, fmt.Sprintf(`{"kind":"copy","backup":%q,"target":"dr"}`, b.ID)); !strings.Contains(answer, `"done":true`) {
		t.Fatal(answer)
	}
	other := strings.Replace(dr.address, "127.0.0.1", "localhost", 1)
	if place.Key(other) == place.Key(dr.address) {
		t.Fatal("both names are one")
	}
	answer, _ := invokeAt(t, dr.address, other, fmt.Sprintf(`{"kind":"copy","backup":%q,"target":"dr"}`, b.ID))
	if strings.Contains(answer, `"ok":true`) || !strings.Contains(answer, "is the vault itself") {
		t.Errorf("%s as %s: %s", dr.address, other, answer)
	}
}

// TestCopyToThePolicys copies to a replica by its name, and notes it under a key that the
// same bucket elsewhere does not have.
func TestCopyToThePolicys(t *testing.T) {
	folder, b := sealed(t)
	dr := serveOSS(t)
	answer, log := invoke(t, folder, dr.address, fmt.Sprintf(`{"kind":"copy","backup":%q,"target":"dr"}`, b.ID))
	if !strings.Contains(answer, `"done":true`) || len(dr.puts) == 0 || !dr.tokens["token-of-the-role"] {
		t.Fatalf("%s; %d objects were put", answer, len(dr.puts))
	}
	found := notes(t, folder)
	if len(found) != 1 || filepath.Base(found[0]) != place.Key(dr.address)+".json" || place.Key(dr.address) == place.Key("oss://acme-dr/vault?region=cn-x") {
		t.Errorf("the copy is noted as %v", found)
	}
	if strings.Contains(answer+log, "token-of-the-role") {
		t.Errorf("the token is told: %s%s", answer, log)
	}
}

// TestNothingIsTold has a store give back in its errors what it was sent, signature,
// token and all: neither the answer nor the log, nor a note in the vault, has a secret.
func TestNothingIsTold(t *testing.T) {
	folder, b := sealed(t)
	came := 0
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came++
		if r.URL.Query().Has("versioning") {
			fmt.Fprint(w, "<VersioningConfiguration></VersioningConfiguration>")
			return
		}
		if r.Method == http.MethodHead { // whose answer has no text
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<Error><Code>SignatureDoesNotMatch</Code><Message>you sent %s with secret-of-the-role</Message><RequestId>1</RequestId></Error>", r.Header.Get("X-Oss-Security-Token"))
	}))
	defer echo.Close()
	replica := "oss://acme-dr/vault?region=cn-x&endpoint=" + url.QueryEscape(echo.URL)
	said := ""
	for _, event := range []string{
		fmt.Sprintf(`{"kind":"copy","backup":%q,"target":"dr"}`, b.ID),
		fmt.Sprintf(`{"kind":"copy","backup":%q,"target":"dr","segment":"000000"}`, b.ID),
		fmt.Sprintf(`{"kind":"verify","backup":%q,"target":"dr"}`, b.ID),
		`{"kind":"ping"}`,
	} {
		answer, log := invoke(t, folder, replica, event)
		said += answer + log
	}
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		said += string(content)
		return err
	})
	failures, globErr := filepath.Glob(filepath.Join(folder, "copying", "*", "*", "*", "*", "*", "failures", "*", "*.json"))
	if len(failures) == 0 || globErr != nil {
		t.Errorf("no failure was noted: %v", globErr)
	}
	if err != nil || came == 0 || !strings.Contains(said, "SignatureDoesNotMatch") {
		t.Fatalf("%d requests, %v: %s", came, err, said)
	}
	for _, secret := range []string{"token-of-the-role", "secret-of-the-role"} {
		if i := strings.Index(said, secret); i >= 0 {
			t.Errorf("%s is told: …%.300s", secret, said[max(0, i-200):])
		}
	}
}

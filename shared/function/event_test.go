package function

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

const fixtures = "../../functions/*/testdata/events/*.json"

// TestDecodeFixtures decodes every sample event that stands beside a function, and fails
// for one that it does not know.
func TestDecodeFixtures(t *testing.T) {
	at := func(text string) time.Time {
		t.Helper()
		v, err := ParseInstant(text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	object := &Object{Bucket: "tablevault", Key: "requests/orders.restore.json", ETag: "7D73E1052AF595535DE90994F4C3E6D5", Size: 112}
	multipart := &Object{Bucket: "tablevault", Key: "requests/orders.restore.json", ETag: "7D73E1052AF595535DE90994F4C3E6D5-2", Size: 112}
	request := Command{Kind: KindRestore, Request: "oss://tablevault/requests/orders.restore.json"}
	want := map[string][]Event{
		"plan/timer-tick.json": {{Command{Kind: KindTick},
			Origin{Source: SourceTimer, Trigger: "tick", Time: at("2026-11-20T02:15:00Z")}}},
		"plan/timer-backup.json": {{Command{Kind: KindBackup, Table: "prod/orders", Type: "full"},
			Origin{Source: SourceTimer, Trigger: "nightly", Time: at("2026-11-20T18:00:00Z")}}},
		"plan/console-backup.json": {{Command{Kind: KindBackup, Table: "prod/orders", Type: "full"}, Origin{Source: SourceDirect}}},
		"plan/console-void.json":   {{Command{Kind: KindVoid, Table: "prod/orders", Backup: "20261120T021500Z-5c1f0a1b"}, Origin{Source: SourceDirect}}},
		"plan/eventbridge-message.json": {{Command{Kind: KindBackup, Table: "prod/orders", Type: "incremental"},
			Origin{Source: SourceCloudEvent, ID: "MNS-Function-backups/c2g71017-6f65-fhcf-a814-a396fc8d0001", Time: at("2026-11-20T02:16:17.093Z")}}},
		"plan/eventbridge-batch.json": {
			{Command{Kind: KindBackup, Table: "prod/orders"}, Origin{Source: SourceCloudEvent, ID: "acme.jobs/e-1", Time: at("2026-11-20T02:16:17Z")}},
			{Command{Kind: KindBackup, Table: "prod/customers"}, Origin{Source: SourceCloudEvent, ID: "acme.jobs/e-2", Time: at("2026-11-20T02:16:18Z")}}},
		"plan/destination-failure.json": {{Command{Kind: KindTick},
			Origin{Source: SourceDestination, ID: "1-6920a1b2-0001", Time: time.UnixMilli(1795140980123).UTC(), Outcome: &Outcome{
				RequestID: "1-6920a1b2-0001",
				Function:  "acs:fc:cn-hangzhou:1000000000000001:functions/tablevault-export",
				Condition: "UnhandledInvocationError", Status: 200, Error: "UnhandledInvocationError",
				Request:  json.RawMessage(`{"v":1,"kind":"export","backup":"20261120T021500Z-5c1f0a1b","segment":"000007","start":2}`),
				Response: json.RawMessage(`{"errorMessage":"Process exited unexpectedly"}`)}}}},
		"export/segment.json": {{Command{Kind: KindExport, Table: "prod/orders", Backup: "20261120T021500Z-5c1f0a1b", Segment: "000007", Slot: 3, Start: 1,
			Settings: json.RawMessage(`{"read_units":250}`)}, Origin{Source: SourceDirect}}},
		"import/console-restore.json": {{Command{Kind: KindRestore, Table: "prod/orders", At: at("2026-11-20T02:14:00Z"), To: "prod/orders_copy"},
			Origin{Source: SourceDirect}}},
		"import/segment.json": {{Command{Kind: KindImport, Restore: "20261120T031500Z-77aa0a1b", Segment: "000002", Slot: 1, Start: 1,
			Settings: json.RawMessage(`{"write_units":125}`)}, Origin{Source: SourceDirect}}},
		"import/console-restore-paced.json": {{Command{Kind: KindRestore, Table: "prod/orders", To: "prod/orders_copy",
			Settings: json.RawMessage(`{"write_units":2000,"read_units":4000}`)}, Origin{Source: SourceDirect}}},
		"import/oss-request.json":         {{request, Origin{Source: SourceObject, Object: object, Time: at("2026-11-20T02:21:35Z")}}},
		"import/oss-request-encoded.json": {{request, Origin{Source: SourceObject, Object: multipart, Time: at("2026-11-20T02:21:35Z")}}},
		"import/eventbridge-oss.json":     {{request, Origin{Source: SourceObject, Object: object, Time: at("2026-11-20T02:21:35Z")}}},
		"verify/console-verify.json":      {{Command{Kind: KindVerify, Backup: "20261120T021500Z-5c1f0a1b", Depth: "read"}, Origin{Source: SourceDirect}}},
		"verify/restore-rows.json": {{Command{Kind: KindVerify, Restore: "20261120T031500Z-77aa0a1b", Against: "prod/orders_copy", Depth: "rows"},
			Origin{Source: SourceDirect}}},
	}
	paths, err := filepath.Glob(fixtures)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures at %s: %v", fixtures, err)
	}
	for _, path := range paths {
		function := filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(path))))
		name := function + "/" + filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			expected, ok := want[name]
			if !ok {
				t.Fatal("this fixture is not in the test's table")
			}
			delete(want, name)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			for i := range expected {
				expected[i].Command.Version = Version
			}
			if dump(t, got) != dump(t, expected) {
				t.Errorf("got\n%s\nwant\n%s", dump(t, got), dump(t, expected))
			}
			for _, e := range got {
				if served := e.Command.Kind.Function(); string(served) != function {
					t.Errorf("kind %s is served by %s, the fixture stands beside %s", e.Command.Kind, served, function)
				}
			}
		})
	}
	for name := range want {
		t.Errorf("fixture %s is missing", name)
	}
}

func TestDecodeVariants(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want Kind
	}{
		"a string of JSON":           {`"{\"kind\":\"ping\"}"`, KindPing},
		"timer without payload":      {`{"triggerTime":"2026-01-01T00:00:00Z","triggerName":"t"}`, KindTick},
		"timer with null":            {`{"triggerTime":"2026-01-01T00:00:00Z","triggerName":"t","payload":null}`, KindTick},
		"timer with blanks":          {`{"triggerTime":"2026-01-01T00:00:00Z","triggerName":"t","payload":" \n"}`, KindTick},
		"timer with an object":       {`{"triggerTime":"2026-01-01T00:00:00Z","triggerName":"t","payload":{"kind":"ping"}}`, KindPing},
		"CloudEvent with a string":   {`{"specversion":"1.0","id":"1","source":"s","data":"{\"kind\":\"ping\"}"}`, KindPing},
		"CloudEvent with base64":     {`{"specversion":"1.0","id":"1","source":"s","data_base64":"eyJraW5kIjoicGluZyJ9"}`, KindPing},
		"array of CloudEvents":       {`[{"specversion":"1.0","id":"1","source":"s","data":{"kind":"ping"}}]`, KindPing},
		"message with an object":     {`{"specversion":"1.0","id":"1","source":"s","data":{"messageId":"m","messageBody":{"kind":"ping"}}}`, KindPing},
		"configuration's event name": {`{"events":[{"eventName":"oss:ObjectCreated:PutObject","oss":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}`, KindRestore},
	} {
		t.Run(name, func(t *testing.T) {
			events, err := Decode([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if len(events) != 1 || events[0].Command.Kind != test.want {
				t.Errorf("got %s, want one %s", dump(t, events), test.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"nothing":                {``, "empty"},
		"blanks":                 {" \n\t", "empty"},
		"unknown shape":          {`{"TopicName":"t","Message":"m"}`, "[Message TopicName]"},
		"no keys":                {`{}`, "[]"},
		"null":                   {`null`, "null"},
		"number":                 {`42`, "42"},
		"text":                   {`hello`, "not JSON"},
		"array of nothing":       {`[]`, "without elements"},
		"array of numbers":       {`[1]`, "element 0"},
		"one bad element":        {`["{\"kind\":\"ping\"}", {"x":1}]`, "element 1 of 2"},
		"string in a string":     {`"hello"`, "not JSON"},
		"timer's payload":        {`{"triggerTime":"2026-01-01T00:00:00Z","triggerName":"nightly","payload":"run"}`, `"nightly"`},
		"timer's time":           {`{"triggerTime":"noon","triggerName":"t"}`, "noon"},
		"OSS without records":    {`{"events":[]}`, "without records"},
		"OSS record of another":  {`{"events":[{"eventName":"x"}]}`, "oss"},
		"deleted object":         {`{"events":[{"eventName":"ObjectRemoved:DeleteObject","oss":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}`, "ObjectRemoved"},
		"object with a blank":    {`{"events":[{"eventName":"ObjectCreated:PutObject","oss":{"bucket":{"name":"b"},"object":{"key":"a%20b"}}}]}`, "letters"},
		"object badly encoded":   {`{"events":[{"eventName":"ObjectCreated:PutObject","oss":{"bucket":{"name":"b"},"object":{"key":"a%zz"}}}]}`, "a%zz"},
		"object without a key":   {`{"events":[{"eventName":"ObjectCreated:PutObject","oss":{"bucket":{"name":"b"}}}]}`, "oss://"},
		"CloudEvent without id":  {`{"specversion":"1.0","source":"s","data":{}}`, "without an id"},
		"CloudEvent of nothing":  {`{"specversion":"1.0","id":"1","source":"s"}`, "s/1"},
		"CloudEvent of another":  {`{"specversion":"1.0","id":"1","source":"s","type":"acme","data":{"acme":1}}`, "[acme]"},
		"destination of nothing": {`{"requestContext":{},"responseContext":{}}`, "request id"},
		"strings in strings":     {nest(`{"kind":"ping"}`, maxNesting+1), "wrapped"},
		"too long":               {`"` + strings.Repeat("x", maxEvent) + `"`, "exceeds"},
	} {
		t.Run(name, func(t *testing.T) {
			events, err := Decode([]byte(test.in))
			if err == nil {
				t.Fatalf("accepted as %s", dump(t, events))
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not mention %q", err, test.want)
			}
		})
	}
}

func nest(text string, n int) string {
	for range n {
		quoted, _ := json.Marshal(text)
		text = string(quoted)
	}
	return text
}

// TestOriginKeys: two deliveries of one trigger agree, other triggers differ.
func TestOriginKeys(t *testing.T) {
	keys := map[string]string{}
	paths, _ := filepath.Glob(fixtures)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		first, err1 := Decode(data)
		second, err2 := Decode(data)
		if err1 != nil || err2 != nil {
			t.Fatal(path, err1, err2)
		}
		for i := range first {
			key := first[i].Origin.Key()
			if key != second[i].Origin.Key() {
				t.Errorf("%s: keys %q and %q", path, key, second[i].Origin.Key())
			}
			if (key == "") != (first[i].Origin.Source == SourceDirect) {
				t.Errorf("%s: key %q of source %s", path, key, first[i].Origin.Source)
			}
			keys[key] = path
		}
	}
	// Two timers, three EventBridge events, a destination, two uploads of one
	// name (one of them also told by EventBridge), and all direct ones.
	if len(keys) != 9 {
		t.Errorf("%d keys: %v", len(keys), keys)
	}
}

// FuzzDecode: no panic; what decodes is at least one valid command, which encodes and
// parses to itself.
func FuzzDecode(f *testing.F) {
	paths, _ := filepath.Glob(fixtures)
	if len(paths) == 0 {
		f.Fatal("no fixtures")
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(nest(`{"kind":"ping","at":"2026-11-20T10:14:00.000000001-23:59"}`, 2)))
	for _, segment := range []string{"-1", "+00000", "000000.00", "000000.-1", "0", "00000٣", "000000/../x"} {
		f.Add(fmt.Appendf(nil, `{"kind":"export","backup":"20261120T021400Z-0a1b2c3d","segment":%q,"start":500}`, segment))
	}
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","data_base64":"eyJraW5kIjoicGluZyJ9"}`))
	f.Add([]byte(`{"kind":"verify","table":"a/b","type":"incremental","to":"c/d","depth":"rows","new":true,"settings":{"a":1e400}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := Decode(data)
		if err != nil {
			if len(err.Error()) > 16<<10 {
				t.Errorf("error of %d bytes for %d bytes of input", len(err.Error()), len(data))
			}
			return
		}
		if len(events) == 0 {
			t.Fatal("neither an event nor an error")
		}
		for _, e := range events {
			e.Command.Kind.Function()
			e.Origin.Key()
			reaches(t, e.Command)
			encoded, err := e.Command.Encode()
			if err != nil {
				t.Fatalf("decoded command does not encode: %v", err)
			}
			again, err := ParseCommand(encoded)
			if err != nil {
				t.Fatalf("encoded command %s does not parse: %v", encoded, err)
			}
			if text(t, again) != text(t, e.Command) {
				t.Fatalf("%s became %s", text(t, e.Command), text(t, again))
			}
		}
	})
}

// reaches fails unless all that a command names can be names of the vault: nothing that
// decodes leads anywhere else.
func reaches(t *testing.T, c Command) {
	t.Helper()
	instance, name, _ := strings.Cut(cmp.Or(c.Table, "i/t"), "/")
	b := vault.Backup{Table: vault.TableID{Region: "r", Instance: instance, Table: name}, ID: vault.BackupID(cmp.Or(c.Backup, "20261120T021400Z-0a1b2c3d"))}
	s := vault.SegmentID(cmp.Or(c.Segment, "000000"))
	restore := vault.Restore{ID: vault.RestoreID(cmp.Or(c.Restore, "20261120T021400Z-0a1b2c3d"))}
	if s.Group() < 0 || s.Group() > 1_000_000/vault.GroupSize {
		t.Fatalf("segment %q is in group %d", s, s.Group())
	}
	for _, name := range []string{b.Manifest(), b.Plan(), b.Log().Slot(s, c.Slot), b.Log().Start(s, c.Start), restore.Plan(), restore.Log().Start(s, c.Start)} {
		if err := object.ValidName(name); err != nil || len(name) > 1<<10 {
			t.Fatalf("%+v leads to %q: %v", c, name, err)
		}
	}
}

func dump(t *testing.T, events []Event) string {
	t.Helper()
	data, err := json.MarshalIndent(events, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestInstant takes events without an instant, which is optional in CloudEvents, and with
// one that nobody can have been triggered at.
func TestInstant(t *testing.T) {
	now := time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
	for text, want := range map[string]struct {
		at   time.Time
		told bool
	}{
		``:                                    {now, false},
		`,"time":"2099-01-01T00:00:00Z"`:      {now, false},
		`,"time":"9999-12-31T23:59:59Z"`:      {now, false},
		`,"time":"2026-11-20T02:20:00Z"`:      {now, false},
		`,"time":"2026-11-20T02:14:02Z"`:      {now.Add(2 * time.Second), true},
		`,"time":"2026-11-20T10:13:00+08:00"`: {now.Add(-time.Minute), true},
		`,"time":"2026-11-19T02:14:00Z"`:      {now.Add(-24 * time.Hour), true},
	} {
		events, err := Decode([]byte(`{"specversion":"1.0","id":"1","source":"s"` + text + `,"data":{"kind":"backup","table":"prod/orders"}}`))
		if err != nil {
			t.Fatal(err)
		}
		at, told := events[0].Origin.Instant(now)
		if !at.Equal(want.at) || told != want.told || events[0].Origin.Key() != "cloudevent/s/1" {
			t.Errorf("%s: %s, %t", text, at, told)
		}
	}
}

package function

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestParseCommand(t *testing.T) {
	at := time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		in   string
		want Command
	}{
		"as typed":     {`{"kind":"backup","table":"prod/orders","type":"full"}`, Command{Kind: KindBackup, Table: "prod/orders", Type: "full"}},
		"offset":       {`{"kind":"restore","table":"p/o","at":"2026-11-20T10:14:00+08:00","to":"p/c"}`, Command{Kind: KindRestore, Table: "p/o", At: at, To: "p/c"}},
		"version":      {`{"v":1,"kind":"ping"}`, Command{Kind: KindPing}},
		"version zero": {`{"v":0,"kind":"ping"}`, Command{Kind: KindPing}},
		"settings":     {` { "kind":"tick", "settings": { "a" : [1, 2] } } ` + "\n", Command{Kind: KindTick, Settings: json.RawMessage(`{"a":[1,2]}`)}},
		"everything": {`{"v":1,"kind":"verify","table":"a/b","type":"incremental","at":"2026-11-20T02:14:00Z","to":"c/d","backup":"20261120T021400Z-0a1b2c3d","restore":"20261120T021500Z-0a1b2c3d","segment":"000001.02","slot":3,"start":2,"depth":"rows","against":"e/f","new":true,"also":["dr","0123456789abcdef"],"target":"dr","request":"oss://b/k","settings":{}}`,
			Command{Kind: KindVerify, Table: "a/b", Type: "incremental", At: at, To: "c/d", Backup: "20261120T021400Z-0a1b2c3d", Restore: "20261120T021500Z-0a1b2c3d", Segment: "000001.02", Slot: 3, Start: 2, Depth: "rows", Against: "e/f", New: true, Replicas: []string{"dr", "0123456789abcdef"}, Replica: "dr", Request: "oss://b/k", Settings: json.RawMessage(`{}`)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCommand([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			test.want.Version = Version
			if text(t, got) != text(t, test.want) {
				t.Errorf("got  %s\nwant %s", text(t, got), text(t, test.want))
			}
			data, err := got.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseCommand(data)
			if err != nil || text(t, again) != text(t, got) {
				t.Errorf("second reading of %s: %s, %v", data, text(t, again), err)
			}
		})
	}
}

func TestParseCommandRefuses(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"unknown key":          {`{"kind":"tick","tabel":"a/b"}`, `"tabel"`},
		"other case":           {`{"Kind":"tick"}`, `"Kind"`},
		"repeated key":         {`{"kind":"tick","kind":"ping"}`, "twice"},
		"unknown kind":         {`{"kind":"destroy"}`, `"destroy"`},
		"no kind":              {`{"table":"a/b"}`, "no kind"},
		"newer version":        {`{"v":2,"kind":"ping"}`, "version 2"},
		"negative version":     {`{"v":-1,"kind":"ping"}`, "version -1"},
		"no offset":            {`{"kind":"restore","table":"a/b","to":"a/c","at":"2026-11-20T10:14:00"}`, "offset"},
		"instant and backup":   {`{"kind":"restore","table":"a/b","backup":"20261120T021400Z-0a1b2c3d","to":"a/c","at":"2026-11-20T10:14:00Z"}`, "either a backup"},
		"instant of no table":  {`{"kind":"restore","backup":"20261120T021400Z-0a1b2c3d","to":"a/c","at":"2026-11-20T10:14:00Z"}`, "a table whose backups"},
		"no instant":           {`{"kind":"restore","table":"a/b","to":"a/c","at":"yesterday"}`, "yesterday"},
		"table":                {`{"kind":"backup","table":"orders"}`, "instance/table"},
		"table too deep":       {`{"kind":"backup","table":"a/b/c"}`, "instance/table"},
		"type":                 {`{"kind":"backup","table":"a/b","type":"differential"}`, "differential"},
		"depth":                {`{"kind":"verify","backup":"20261120T021400Z-0a1b2c3d","depth":"deep"}`, "deep"},
		"number for text":      {`{"kind":"backup","table":7}`, `"table"`},
		"text for number":      {`{"kind":"export","backup":"20261120T021400Z-0a1b2c3d","segment":"000001","slot":"1"}`, `"slot"`},
		"fraction":             {`{"kind":"export","backup":"20261120T021400Z-0a1b2c3d","segment":"000001","slot":1.5}`, `"slot"`},
		"negative slot":        {`{"kind":"export","backup":"20261120T021400Z-0a1b2c3d","segment":"000001","slot":-1}`, "slot -1"},
		"great start":          {`{"kind":"export","backup":"20261120T021400Z-0a1b2c3d","segment":"000001","start":1000000}`, "start 1000000"},
		"backup id":            {`{"kind":"export","backup":"../20261120T021400Z-0a1b2c3d","segment":"000001"}`, `"backup"`},
		"long backup id":       {`{"kind":"tick","backup":"` + strings.Repeat("x", 100_000) + `"}`, `"backup"`},
		"restore id":           {`{"kind":"verify","restore":"r"}`, `"restore"`},
		"negative segment":     {`{"kind":"export","backup":"20261120T021400Z-0a1b2c3d","segment":"-1"}`, `"-1"`},
		"signed segment":       {`{"kind":"import","restore":"20261120T021400Z-0a1b2c3d","segment":"+00000"}`, `"+00000"`},
		"segment of segments":  {`{"kind":"import","restore":"20261120T021400Z-0a1b2c3d","segment":"000000/000001"}`, `"segment"`},
		"dots for a table":     {`{"kind":"backup","table":"prod/.."}`, "instance/table"},
		"dots for an instance": {`{"kind":"restore","backup":"20261120T021400Z-0a1b2c3d","to":"../x"}`, `"to"`},
		"space in a table":     {`{"kind":"verify","backup":"20261120T021400Z-0a1b2c3d","against":"prod/or ders"}`, `"against"`},
		"null":                 {`{"kind":"backup","table":null}`, "null"},
		"settings":             {`{"kind":"tick","settings":[1]}`, "settings"},
		"request":              {`{"kind":"restore","request":"/etc/passwd"}`, "oss://"},
		"more data":            {`{"kind":"tick"} {"kind":"tick"}`, "more data"},
		"not JSON":             {`backup prod/orders`, "not JSON"},
		"cut short":            {`{"kind":"tick"`, "not JSON"},
		"array":                {`[1]`, "object"},
		"too long":             {`{"kind":"tick","settings":{"x":"` + strings.Repeat("x", MaxCommand) + `"}}`, "references"},
		"backup of what":       {`{"kind":"backup"}`, "table"},
		"export of what":       {`{"kind":"export","backup":"20261120T021400Z-0a1b2c3d"}`, "segment"},
		"restore to what":      {`{"kind":"restore","table":"a/b"}`, "target"},
		"import of what":       {`{"kind":"import","segment":"000001"}`, "restore"},
		"void of what":         {`{"kind":"void"}`, "backup"},
		"copy of what":         {`{"kind":"copy","target":"dr"}`, "backup"},
		"copy to what":         {`{"kind":"copy","backup":"20261120T021400Z-0a1b2c3d"}`, "target"},
		"also where":           {`{"kind":"restore","backup":"20261120T021400Z-0a1b2c3d","to":"a/b","also":["s3://AKIA:hunter2@bucket"]}`, "name of a destination"},
		"also everywhere":      {`{"kind":"restore","backup":"20261120T021400Z-0a1b2c3d","to":"a/b","also":[` + strings.Repeat(`"b",`, 16) + `"b"]}`, "at most"},
		"also nothing":         {`{"kind":"restore","backup":"20261120T021400Z-0a1b2c3d","to":"a/b","also":null}`, "null"},
		"target is no address": {`{"kind":"copy","backup":"20261120T021400Z-0a1b2c3d","target":"oss://b/c"}`, "name of a destination"},
		"target with a key":    {`{"kind":"copy","backup":"20260101T000000Z-00000000","target":"s3://AKIA:hunter2@bucket"}`, "under destinations of the policy"},
		"verify what":          {`{"kind":"verify"}`, "backup"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, err := ParseCommand([]byte(test.in))
			if err == nil {
				t.Fatalf("accepted as %s", text(t, cmd))
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not mention %q", err, test.want)
			}
		})
	}
}

func TestEncodeRefusesLongCommands(t *testing.T) {
	long := Command{Kind: KindTick, Settings: json.RawMessage(`{"x":"` + strings.Repeat("x", MaxCommand) + `"}`)}
	if _, err := long.Encode(); err == nil || !strings.Contains(err.Error(), "references") {
		t.Errorf("got %v", err)
	}
}

func TestEveryKindHasAFunction(t *testing.T) {
	for _, k := range Kinds() {
		if name := k.Function(); (name == "") != (k == KindPing) {
			t.Errorf("%s is served by %q", k, name)
		}
	}
}

func text(t *testing.T, c Command) string {
	t.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

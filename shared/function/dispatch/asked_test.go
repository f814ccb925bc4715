package dispatch

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/functiontest"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

const (
	backupID     = "20261120T021400Z-0a1b2c3d"
	restoreID    = "20261120T021500Z-0a1b2c3d"
	verification = "20261120T021600Z-0a1b2c3d"
)

// at is an instant that commands name.
var at = time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)

// invocation is one of a function whose policy has a replica.
func invocation(t *testing.T) *function.Invocation {
	t.Helper()
	env, err := function.ReadEnv([]string{"TABLEVAULT_VAULT=file://" + filepath.Join(t.TempDir(), "vault"), "TABLEVAULT_LANES=3", "FC_REGION=cn-x",
		functiontest.Policy(t, "tables: prod/*\nevery: hourly\ndestinations: {name: dr, to: 's3://dr/vault?region=x'}\n")})
	if err != nil {
		t.Fatal(err)
	}
	return &function.Invocation{Env: env, Region: env.Region, RequestID: "request", Log: slog.New(slog.DiscardHandler)}
}

func tableID(name string) vault.TableID {
	return vault.TableID{Region: "cn-x", Instance: "prod", Table: name}
}

// TestAsked reads what commands ask for.
func TestAsked(t *testing.T) {
	inv := invocation(t)
	against := tableID("copy")
	key := place.Key("s3://dr/vault?region=x")
	for name, c := range map[string]struct {
		command string
		read    func(function.Command) (any, error)
		want    any
	}{
		"a look at a backup": {`{"kind":"tick","backup":"` + backupID + `","settings":{"since":"2026-11-20T02:14:00Z"}}`, asked(inv),
			reconcile.Asked{Backup: backupID, Since: at}},
		"the end of a backup": {`{"kind":"void","backup":"` + backupID + `","table":"prod/orders","settings":{"reason":"wrong"}}`, asked(inv),
			reconcile.Asked{Backup: backupID, Table: tableID("orders"), GiveUp: true, Reason: "wrong"}},
		"a request": {`{"kind":"restore","request":"requests/a.json"}`, restored(inv), restore.Asked{Request: "requests/a.json"}},
		"a look at a restore": {`{"kind":"restore","restore":"` + restoreID + `","settings":{"since":"2026-11-20T02:14:00Z"}}`, restored(inv),
			restore.Asked{Restore: restoreID, Since: at}},
		"the end of a restore": {`{"kind":"void","restore":"` + restoreID + `","settings":{"reason":"wrong"}}`, restored(inv),
			restore.Asked{Restore: restoreID, Reason: "wrong"}},
		"a restore": {`{"kind":"restore","table":"prod/orders","at":"2026-11-20T02:14:00Z","to":"prod/copy","new":true,"also":["dr"],"settings":{"read_units":20,"write_units":50,"local_transactions":true}}`, restored(inv),
			restore.Asked{Ask: restore.Ask{
				Table: tableID("orders"), At: at, Target: tableID("copy"), New: true, Replicas: []string{key}, Budget: vault.Budget{ReadUnits: 20, WriteUnits: 50}, LocalTransactions: true,
			}}},
		"a verification": {`{"kind":"verify","table":"prod/orders","at":"2026-11-20T02:14:00Z","against":"prod/copy","depth":"rows","target":"dr","settings":{"read_units":20,"verification":"` + verification + `"}}`,
			func(c function.Command) (any, error) { return Verify(inv, c) },
			verify.Asked{Request: verify.Request{Backup: vault.Backup{Table: tableID("orders")}, Against: &against, Depth: "rows", ReadUnits: 20}, At: at, Replica: "dr", ID: verification}},
		"a copy": {`{"kind":"copy","backup":"` + backupID + `","table":"prod/orders","target":"dr","settings":{"bytes_per_second":7,"next":{"group":1,"object":2},"back":true}}`,
			func(c function.Command) (any, error) { return Copy(inv, c) },
			replica.Asked{
				Work:     fanout.Work{Verb: fanout.VerbCopy, Backup: backupID, Table: tableID("orders"), Replica: "dr", Rate: 7},
				Settings: replica.Settings{BytesPerSecond: 7, Next: replica.Point{Group: 1, Object: 2}, Back: true},
			}},
		"a backup": {`{"kind":"backup","table":"prod/orders","new":true}`, func(c function.Command) (any, error) {
			req, err := Backup(inv, c)
			req.At = time.Time{}
			return req, err
		}, backup.PlanRequest{Table: tableID("orders"), Kind: vault.Full, Trigger: "request", New: true, Settings: vault.Settings{Lanes: 3}}},
	} {
		cmd, err := function.ParseCommand([]byte(c.command))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := c.read(cmd); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%+v, want\n%+v (%v)", name, got, c.want, err)
		}
	}
}

func asked(inv *function.Invocation) func(function.Command) (any, error) {
	return func(c function.Command) (any, error) { return Asked(inv, c) }
}

// restored leaves out when a restore was asked for, which is now.
func restored(inv *function.Invocation) func(function.Command) (any, error) {
	return func(c function.Command) (any, error) {
		a, err := Restore(inv, c)
		a.At = time.Time{}
		return a, err
	}
}

// TestAskedRefuses names what is wrong with a command's settings, and what no command
// asks for.
func TestAskedRefuses(t *testing.T) {
	inv := invocation(t)
	for command, want := range map[string]string{
		`{"kind":"void","restore":"` + restoreID + `"}`:                                                "given up for a reason",
		`{"kind":"restore","backup":"` + backupID + `","to":"prod/copy","settings":{"read_units":-1}}`: "a budget of -1 read units",
		`{"kind":"restore","backup":"` + backupID + `","to":"prod/copy","also":["elsewhere"]}`:         "elsewhere",
		`{"kind":"restore","restore":"` + restoreID + `","settings":{"read_units":1}}`:                 "unknown field",
		`{"kind":"verify","backup":"` + backupID + `","settings":{"verification":"../x"}}`:             "../x",
		`{"kind":"copy","backup":"` + backupID + `","target":"dr","settings":{"bytes_per_second":-1}}`: "bytes_per_second is -1",
		`{"kind":"tick","backup":"` + backupID + `","settings":{"reason":"x"}}`:                        "unknown field",
		`{"kind":"void","backup":"` + backupID + `","settings":{"since":"2026-11-20T02:14:00Z"}}`:      "unknown field",
		`{"kind":"backup","table":"prod/orders","settings":{"lane":1}}`:                                "unknown field",
	} {
		cmd, err := function.ParseCommand([]byte(command))
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		switch {
		case cmd.Kind == function.KindBackup:
			_, err = Backup(inv, cmd)
		case cmd.Kind == function.KindVerify:
			_, err = Verify(inv, cmd)
		case cmd.Kind == function.KindCopy:
			_, err = Copy(inv, cmd)
		case cmd.Function() == function.Import:
			_, err = Restore(inv, cmd)
		default:
			_, err = Asked(inv, cmd)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !function.IsPermanent(err) {
			t.Errorf("%s: %v, want %s", command, err, want)
		}
	}
}

// TestAsks reads a request as what its command asks for, and takes none that is not one
// of a new restore; and a drill's request is one.
func TestAsks(t *testing.T) {
	read := Asks(invocation(t))
	content, err := Request(backupID, tableID("copy"))
	if err != nil {
		t.Fatal(err)
	}
	want := restore.Ask{Backup: backupID, Target: tableID("copy"), Replicas: []string{}}
	if a, err := read(content); err != nil || !reflect.DeepEqual(a, want) {
		t.Errorf("%s is read as %+v, %v", content, a, err)
	}
	for _, more := range []string{`"new":true`, `"also":["dr"]`, `"restore":"` + restoreID + `"`, `"request":"requests/a.json"`} {
		if a, err := read(bytes.Replace(content, []byte("{"), []byte("{"+more+","), 1)); err == nil || !strings.Contains(err.Error(), "asks for a new restore") {
			t.Errorf("with %s it is read as %+v, %v", more, a, err)
		}
	}
}

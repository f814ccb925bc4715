package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// fillSlow makes a table of a few pages.
func fillSlow(t *testing.T, c *tablestore.TableStoreClient, name string) {
	t.Helper()
	makeTable(t, c, name)
	for i := range int64(6) {
		u := &tablestore.UpdateRowChange{TableName: name, PrimaryKey: key("k", i, []byte{})}
		u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		u.PutColumn("v", objecttest.Content(name, 1_900_000))
		if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u}); err != nil {
			t.Fatal(err)
		}
	}
}

// slowly begins a backup of which every page takes its time, or fails.
func slowly(t *testing.T, s *stack.Stack, dir, name string, fault ots.Fault) vault.BackupID {
	t.Helper()
	site, err := openSite(dir)
	if err != nil {
		t.Fatal(err)
	}
	var r backup.Reply
	// A part ends with each page.
	settings := json.RawMessage(`{"lanes":1,"part_bytes":1}`)
	if err := site.call(t.Context(), function.Command{Kind: function.KindBackup, Table: "local/" + name, Settings: settings}, &r); err != nil {
		t.Fatal(err)
	}
	s.Tablestore.SetFault(func(op, table string, _ int) *ots.Fault {
		if op == "GetRange" && table == name {
			return &fault
		}
		return nil
	})
	t.Cleanup(func() { s.Tablestore.SetFault(nil) })
	return r.Backup
}

// TestWatch watches backups while they run: rows come in, look by look, and the command
// ends when they have.
func TestWatch(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory, c.Timers = true, false })
	fillSlow(t, client, "orders")
	id := slowly(t, s, dir, "orders", ots.Fault{Delay: 300 * time.Millisecond})
	var list struct {
		Backups []status.Backup
		Running []backup.Watched
	}
	must(t, &list, "list", "--stack", dir)
	if len(list.Backups) != 0 || len(list.Running) != 1 || list.Running[0].Backup != id || list.Running[0].State != backup.StateRunning {
		t.Errorf("%+v", list)
	}
	if _, out, _ := tablevaultRun(t, "list", "--stack", dir); !strings.Contains(out, "not yet: 0 of 1 segment") {
		t.Error(out)
	}
	// Somebody has to seal it: a tick, as the planner's timer gives.
	go func() {
		for range 100 {
			_ = s.Host.Fire("tablevault-plan", "tick", time.Now())
			time.Sleep(100 * time.Millisecond)
		}
	}()
	code, out, errs := tablevaultRun(t, "show", "--watch", "--stack", dir, "--every", "100ms", "--json")
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	var looks []status.Look
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var l status.Look
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		looks = append(looks, l)
	}
	grew, lived, paced := 0, false, false
	for i, l := range looks {
		if len(l.Backups) != 1 || l.Backups[0].Backup != id || l.Total.Rows != l.Backups[0].Totals.Rows {
			t.Fatalf("%+v", l)
		}
		b := l.Backups[0]
		lived = lived || b.Live > 0
		paced = paced || b.RowsPerSecond > 0 && b.BytesPerSecond > 1e5
		if i > 0 && b.Totals.Rows > looks[i-1].Backups[0].Totals.Rows {
			grew++
		}
	}
	last := looks[len(looks)-1].Backups[0]
	if grew < 2 || !lived || !paced || last.State != backup.StateSealed || last.Totals.Rows != 6 || last.Done != last.Segments ||
		last.Usage.Create < 3*last.Totals.Parts || looks[len(looks)-1].Total.Usage != last.Usage {
		t.Errorf("%d looks, rows grew %d times, alive %t, with a rate %t, in the end %+v", len(looks), grew, lived, paced, last)
	}
	if code, out, _ := tablevaultRun(t, "show", "--watch", string(id), "--stack", dir); code != 0 || !strings.Contains(out, "sealed  1 of 1 segment  6 rows") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, _, errs := tablevaultRun(t, "show", "--watch", "--stack", dir); code != exitFailed || !strings.Contains(errs, "no backup is running") {
		t.Errorf("exit %d\n%s", code, errs)
	}
	if code, _, errs := tablevaultRun(t, "show", "--stack", dir); code != exitUsage || !strings.Contains(errs, "--watch") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}

// TestWatchFailed: a backup that can't go on ends the watch, and says why; by its id
// alone, once it has failed.
func TestWatchFailed(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	fillSlow(t, client, "orders")
	id := slowly(t, s, dir, "orders", *ots.Refuse("OTSNoPermissionAccess", ""))
	code, out, errs := tablevaultRun(t, "show", "--watch", string(id), "--stack", dir, "--every", "50ms")
	if code != exitFailed || !strings.Contains(errs, "is failed: ") || !strings.Contains(errs, "OTSNoPermissionAccess") || !strings.Contains(out, "last error: ") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	// It is told once: all that run are others.
	if code, out, errs := tablevaultRun(t, "show", "--watch", "--stack", dir); code != exitFailed || !strings.Contains(errs, "no backup is running") || out != "" {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// TestScreen: on a terminal rows take the place of those before, and none is wider than
// it.
func TestScreen(t *testing.T) {
	var out bytes.Buffer
	c := &screen{s: &streams{out: &out}, width: func() int { return 40 }}
	left := 90.4
	w := backup.Watched{Backup: "b", Table: "i/t", Left: &left, RowsPerSecond: 1234, BytesPerSecond: 5e6,
		Progress: backup.Progress{State: backup.StateRunning, Segments: 4, Done: 1, Live: 2, LastError: "why"}}
	l := status.Look{Backups: []backup.Watched{w, w}}
	for range 2 {
		if err := c.show(&l); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "\x1b[3A\x1b[J"); n != 1 {
		t.Errorf("%q", out.String())
	}
	for row := range strings.SplitSeq(strings.ReplaceAll(out.String(), "\x1b[3A\x1b[J", ""), "\n") {
		if n := len([]rune(row)); n >= 40 {
			t.Errorf("%d wide: %q", n, row)
		}
	}
	out.Reset()
	c = &screen{s: &streams{out: &out}}
	w.Pace = &fanout.Pace{Reason: vault.PacedByService, Workers: 2, ReadUnits: 100}
	w.Usage = object.Usage{Create: 1000, List: 7}
	if err := c.show(&status.Look{Backups: []backup.Watched{w}}); err != nil {
		t.Fatal(err)
	}
	want := "i/t b  running  1 of 4 segments, 2 at work  0 rows, 0 B stored by 1,007 requests  1,234 rows/s, 5.0 MB/s  about 1 min 30 s left; " +
		"2 workers are held to 100 read units/s by the service's throttling; last error: why\n"
	if out.String() != want {
		t.Errorf("%q", out.String())
	}
}

// TestWaitingIsTold: what a restore waits for is told in the list's line, off a terminal
// in the row of `show --watch`, and on a narrow terminal in rows of its own.
func TestWaitingIsTold(t *testing.T) {
	r := restore.Watched{Restore: "r", Target: "local/copy", State: restore.StateVerifying, Rows: 5,
		Waiting: "it waits: start 0 of segment 000000 (request 1-2) may write, until 2026-11-20T10:14:00Z; after that the planner's timer goes on with it"}
	if line := restoreLine(&r, ""); !strings.Contains(line, r.Waiting) {
		t.Error(line)
	}
	for _, width := range []func() int{nil, func() int { return 40 }} {
		var out bytes.Buffer
		c := &screen{s: &streams{out: &out}, width: width}
		if err := c.show(&status.Look{Restores: []restore.Watched{r}}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(got, r.Waiting) {
			t.Errorf("%s", out.String())
		}
		for _, row := range strings.Split(out.String(), "\n") {
			if width != nil && len([]rune(row)) >= width() {
				t.Errorf("%q wraps", row)
			}
		}
	}
}

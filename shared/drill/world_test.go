package drill_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/prune"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// day is the hour at which every test begins, today the instant at which the first drill
// is due, and ordersDrill that drill.
var (
	day         = vaulttest.Day
	today       = day.Truncate(24 * time.Hour)
	ordersDrill = vault.NewDrillID(id("orders"), today)
)

// daily backs prod up by the hour, and rehearses a restore of each table by the day;
// seldom backs it up by the day.
const daily = "tables: prod/*\nevery: hourly\nkeep: 72 hours\nlanes: 1\ndrill: {every: daily, to: staging/drill}\n"

var seldom = strings.Replace(daily, "hourly", "daily", 1)

// world is a world with a second instance, to which drills restore.
type world struct {
	*vaulttest.World
	// blind drops the looks that workers ask for who find nothing left to do, ticks
	// counts those at everything.
	blind bool
	ticks int
}

// newWorld is a world with a table "orders" of some rows.
func newWorld(t testing.TB, rows int) *world {
	t.Helper()
	w := &world{World: vaulttest.NewWorld(t)}
	w.Pokes, w.Staging = true, tabletest.New()
	w.Staging.Now = w.Clock
	w.make("orders", rows)
	return w
}

// sealed is a world whose table "orders" is backed up.
func sealed(t testing.TB, rows int) *world {
	t.Helper()
	w := newWorld(t, rows)
	w.seal()
	return w
}

func id(name string) vault.TableID {
	return vault.TableID{Region: "local", Instance: "prod", Table: name}
}

func staging(name string) vault.TableID {
	return vault.TableID{Region: "local", Instance: "staging", Table: name}
}

// make makes a table of prod with some rows.
func (w *world) make(name string, rows int) {
	w.Tables.Make(table.Definition{
		Name: name, Schema: table.Schema{{Name: "id", Type: table.IntegerKey}},
		DefinedColumns: []table.DefinedColumn{{Name: "n", Type: "integer"}},
		Indexes:        []table.Index{{Name: name + "_by_n", Key: []string{"n", "id"}, Type: "global", Ready: true}},
		Options:        table.Options{TTL: table.NoTTL, MaxVersions: 1, Deviation: 86400, AllowUpdate: true},
	})
	for i := range rows {
		w.Tables.Put(name, tabletest.Row{Key: table.Key{table.Integer(int64(i))}, Cells: []plainbuffer.Cell{tabletest.Cell("n", day.UnixMilli(), i)}})
	}
}

// inTheWay makes a table of staging in the way of today's drill.
func (w *world) inTheWay(name string) string {
	target := vault.NewDrillID(id(name), today).Target("drill")
	w.Staging.Make(table.Definition{Name: target, Schema: table.Schema{{Name: "other", Type: table.StringKey}},
		Options: table.Options{TTL: table.NoTTL, MaxVersions: 1, AllowUpdate: true}})
	return target
}

// refuse has staging refuse each row.
func (w *world) refuse() {
	w.Staging.Refuse = func(string, *plainbuffer.Row, table.WriteOp) (string, string) { return "OTSParameterInvalid", "no" }
}

// deny has calls of a name fail in staging.
func (w *world) deny(name string, err error) {
	w.Staging.Fault = func(c tabletest.Call) error {
		if c.Name == name && !c.After {
			return err
		}
		return nil
	}
}

// mend has nothing fail any more.
func (w *world) mend() {
	w.Tables.Fault, w.Staging.Fault, w.Staging.Refuse = nil, nil, nil
}

func (w *world) instance(name string) (*tabletest.Tables, error) {
	switch name {
	case "prod":
		return w.Tables, nil
	case "staging":
		return w.Staging, nil
	}
	return nil, fmt.Errorf("no instance %s", name)
}

// request is the content of a request, as the world's requests are read.
func request(b vault.BackupID, to vault.TableID) ([]byte, error) {
	return json.Marshal(map[string]any{"backup": b, "to": to.String()})
}

func (w *world) rehearser(text string) *drill.Rehearser {
	return &drill.Rehearser{
		Repo: w.Repo, Policy: w.policy(text), Region: "local", Request: request, Work: w, Log: w.Log(),
		Open: func(instance string) (table.Catalog, error) { return w.instance(instance) },
	}
}

func (w *world) policy(text string) *policy.Policy { return w.Reconciler(text).Policy }

// tick is one tick of the planner: backups first, then drills.
func (w *world) tick(text string) *drill.Tick {
	w.T.Helper()
	w.Tick(text)
	s, err := w.rehearser(text).Tick(w.T.Context(), w.Run(), w.Clock())
	if err != nil {
		w.T.Fatal(err)
	}
	return s
}

// work carries out what is queued, and what that queues, a second each.
func (w *world) work() {
	w.T.Helper()
	for work, ok := w.Take(); ok; work, ok = w.Take() {
		w.Advance(time.Second)
		switch {
		case work.Verb == fanout.VerbTick:
			w.ticks++
		case work.Verb == fanout.VerbRestore && work.After != "" && w.blind:
		default:
			if err := w.Do(work); err != nil {
				w.T.Logf("%s %s%s: %v", work.Verb, work.Segment, work.Request, err)
			}
		}
	}
}

// settle ticks and works, a minute apart, until no drill is open and nothing is done
// about any.
func (w *world) settle(text string) {
	w.T.Helper()
	for n := range 100 {
		s := w.tick(text)
		w.work()
		if n > 2 && s.Open+s.Begun+s.Proved+s.Failed+s.Dropped == 0 {
			return
		}
		w.Advance(time.Minute)
	}
	w.T.Fatal("the drills do not end")
}

// seal backs everything up that is due.
func (w *world) seal() {
	w.T.Helper()
	text := strings.Split(daily, "drill:")[0]
	for range 5 {
		w.Tick(text)
		w.work()
	}
}

// serve looks at a request until it is answered.
func (w *world) serve(name string) *vault.Answer {
	w.T.Helper()
	for range 20 {
		p, err := w.Requests().Serve(w.T.Context(), w.Run(), name)
		if err != nil {
			w.T.Fatal(err)
		}
		if p.Answer != nil {
			return p.Answer
		}
		w.work()
	}
	w.T.Fatalf("%s is not answered", name)
	return nil
}

// ask puts a request under a name that restores the newest backup of a table to the table
// "theirs".
func (w *world) ask(name, table string) {
	w.T.Helper()
	content, err := request(w.latest(table).Backup, staging("theirs"))
	if err == nil {
		_, err = w.Store.Create(w.T.Context(), name, bytes.NewReader(content))
	}
	if err != nil {
		w.T.Fatal(err)
	}
}

// latest is the newest backup of a table.
func (w *world) latest(name string) *vault.Manifest {
	w.T.Helper()
	m, err := w.Repo.Latest(w.T.Context(), id(name), time.Time{})
	if err != nil {
		w.T.Fatal(err)
	}
	return m
}

// prune deletes the backups that are two hours old.
func (w *world) prune() {
	w.T.Helper()
	p := &prune.Pruner{Repo: w.Repo, Policy: w.policy(strings.Replace(daily, "72", "2", 1)), Region: "local", Now: w.Clock, Log: w.Log(), Grace: time.Hour}
	for range 3 {
		r, err := p.Prune(w.T.Context(), true)
		if err != nil || len(r.Failures) > 0 {
			w.T.Fatalf("%+v, %v", r, err)
		}
		w.Advance(90 * time.Minute)
	}
}

// put writes a document under a name, whether it can be or not, and whatever stands
// there.
func (w *world) put(name string, d vault.Document) {
	w.T.Helper()
	if w.Exists(name) {
		w.Remove(name)
	}
	if _, err := w.Store.Create(w.T.Context(), name, bytes.NewReader(vaulttest.Forge(name, d))); err != nil {
		w.T.Fatal(err)
	}
}

// drills are those of a table, oldest first.
func (w *world) drills(name string) []drill.State {
	w.T.Helper()
	all, err := drill.Of(w.T.Context(), w.Repo, id(name), 100, w.Clock())
	if err != nil {
		w.T.Fatal(err)
	}
	slices.Reverse(all)
	return all
}

// first is the first drill of orders.
func (w *world) first() drill.State {
	w.T.Helper()
	return w.drills("orders")[0]
}

// said is what the drills of a table have come to, a word each.
func (w *world) said(name string) string {
	w.T.Helper()
	var words []string
	for _, d := range w.drills(name) {
		word := d.Drill.Due.Format("02T15:04") + " "
		switch {
		case d.End == nil:
			word += "open"
		case d.End.OK:
			word += "proved"
		default:
			word += "failed"
		}
		if d.Drop != nil && d.Drop.Left == "" {
			word += " dropped"
		} else if d.Drop != nil {
			word += " left"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// is checks what the drills of orders have come to.
func (w *world) is(want string) {
	w.T.Helper()
	if got := w.said("orders"); got != want {
		w.T.Errorf("the drills of orders: %q, want %q", got, want)
	}
}

// failed checks that the first drill of orders has failed, and says why.
func (w *world) failed(says string) *vault.DrillEnd {
	w.T.Helper()
	e := w.first().End
	if e == nil || e.OK || !strings.Contains(e.Error, says) {
		w.T.Fatalf("%+v, want an error that says %q", e, says)
	}
	return e
}

// left checks which tables staging has.
func (w *world) left(want ...string) {
	w.T.Helper()
	names, err := w.Staging.Tables(w.T.Context())
	if err != nil || !slices.Equal(names, want) && len(names)+len(want) > 0 {
		w.T.Errorf("staging has %q, %v, want %q", names, err, want)
	}
}

// tomorrow checks what the drills of orders have come to a day later, and what they have
// left.
func (w *world) tomorrow(want string, left ...string) {
	w.T.Helper()
	w.Advance(24 * time.Hour)
	w.settle(daily)
	w.is(want)
	w.left(left...)
}

func reports(s *drill.Tick, text string) bool {
	return slices.ContainsFunc(s.Reports, func(r policy.Report) bool { return strings.Contains(r.Text, text) })
}

package restore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

func TestRestoreBringsEveryRowBack(t *testing.T) {
	for _, test := range []struct {
		name     string
		rows     int
		wide     bool
		hop      int
		pageRows int
		settings vault.Settings
	}{
		{"many segments", 2000, false, 0, 100, vaulttest.Small},
		{"one segment", 300, false, 0, 0, vault.Settings{}},
		{"a block per invocation", 800, false, 1, 50, vaulttest.Small},
		{"a wide row", 50, true, 0, 7, vault.Settings{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Fill(vaulttest.Definition(), test.rows)
			if test.wide {
				w.Tables.Put(vaulttest.SourceID.Table, vaulttest.WideRow())
			}
			w.Tables.PageRows, w.Hop = test.pageRows, test.hop
			m := w.Backup(test.settings)
			p := w.Restore(m)
			w.Proved(p, vault.OK)
			w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
			if c := p.Proof.Check; c.Rows != m.Totals.Rows || c.Target != m.Totals.Rows || c.Digest != m.Totals.Digest || c.TargetDigest != m.Totals.Digest {
				t.Errorf("the proof counts %d and %d rows, digests %s and %s; the manifest %d, %s", c.Rows, c.Target, c.Digest, c.TargetDigest, m.Totals.Rows, m.Totals.Digest)
			}
		})
	}
}

func TestRestoreOfATableWithoutRows(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Tables.Make(vaulttest.Definition())
	p := w.Restore(w.Backup(vault.Settings{}))
	w.Proved(p, vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

func TestRestoreGivesTheTableItsSettings(t *testing.T) {
	def := vaulttest.Definition()
	def.Schema[2].AutoIncrement = true
	def.DefinedColumns = []table.DefinedColumn{{Name: "name", Type: "string"}, {Name: "count", Type: "integer"}}
	def.Indexes = []table.Index{{Name: "by_name", Key: []string{"name", "user", "blob", "id"}, Columns: []string{"count"}, Type: "global", Ready: true}}
	def.SearchIndexes = []table.SearchIndex{{Name: "search", Schema: []byte{1, 2, 3}}}
	def.Stream = &table.Stream{ID: "s", ExpirationHours: 48}
	def.Throughput = table.Throughput{Read: 100, Write: 20}
	def.Options = table.Options{TTL: 86400 * 365, MaxVersions: 1, Deviation: 3600, AllowUpdate: false}
	w := vaulttest.NewWorld(t)
	w.Tables.Make(def)
	for i := range 100 {
		w.Tables.Put(def.Name, tabletest.Row{
			Key:   table.Key{table.String("u"), table.Binary(nil), table.Integer(int64(i))},
			Cells: []plainbuffer.Cell{tabletest.Cell("name", vaulttest.Day.UnixMilli()-int64(i), "n"), tabletest.Cell("count", vaulttest.Day.UnixMilli(), i)},
		})
	}
	p := w.Restore(w.Backup(vault.Settings{}))
	w.Proved(p, vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
	got, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table)
	if err != nil {
		t.Fatal(err)
	}
	if got.Options != def.Options {
		t.Errorf("options %+v, want %+v", got.Options, def.Options)
	}
	if got.Schema[2].AutoIncrement {
		t.Error("the copy's key column is auto-increment: its rows could not have kept their keys")
	}
	if !slices.Equal(got.DefinedColumns, def.DefinedColumns) || len(got.Indexes) != 1 || len(got.SearchIndexes) != 1 || got.Stream == nil || got.Stream.ExpirationHours != 48 {
		t.Errorf("the copy is %+v", got)
	}
	if got.Throughput != (table.Throughput{}) {
		t.Errorf("%+v is reserved for the copy, which costs by the hour", got.Throughput)
	}
	notes := strings.Join(p.Proof.Notes, "\n")
	for _, want := range []string{"had reserved 100 read and 20 write units", `key column "id" was auto-increment`, `index "by_name" is "orders_copy_by_name" here`,
		"does not tell whether a table takes local transactions", "each index has an entry for every row"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes do not say %q:\n%s", want, notes)
		}
	}
}

func TestRestoreRefusesWhatIsNotItsOwn(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	m := w.Backup(vault.Settings{})
	check := func(what string, want error, texts ...string) {
		t.Helper()
		_, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(m))
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
		if want == table.ErrExist && !fanout.Permanent(err) {
			t.Errorf("%s: trying again is said to help", what)
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: the error does not say %q: %v", what, text, err)
			}
		}
	}
	def := vaulttest.Definition()
	def.Name = vaulttest.TargetID.Table
	w.Tables.Make(def)
	check("a target that exists", table.ErrExist, "prod/orders_copy", "another name")
	w.Tables.Drop(vaulttest.TargetID.Table)

	// A target that comes to exist between the look and the making.
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Create" && !c.After {
			w.Tables.Make(def)
		}
		return nil
	}
	check("a target that another made meanwhile", table.ErrExist, "not by this restore")
	w.Tables.Fault = nil
	w.Tables.Drop(vaulttest.TargetID.Table)

	m.Backup = vault.NewBackupID(vaulttest.Day, "no such")
	check("a backup that is not there", fs.ErrNotExist, "tablevault list")
}

func TestRestoreAdoptsTheTableWhoseAnswerWasLost(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	m := w.Backup(vault.Settings{})
	lost := errors.New("connection reset")
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Create" && c.After {
			return lost
		}
		return nil
	}
	if _, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(m)); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	w.Tables.Fault = nil
	w.Advance(time.Hour) // a manual command that is given again has another time
	w.Proved(w.Restore(m), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

func TestOneRestorePerTarget(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	m := w.Backup(vault.Settings{})
	w.Advance(time.Hour)
	other := w.Backup(vault.Settings{})
	first := w.Begin(m)
	w.Advance(time.Minute)
	if again := w.Begin(m); again.Restore != first.Restore {
		t.Errorf("the same command began %s beside %s", again.Restore, first.Restore)
	}
	if _, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(other)); err == nil || !strings.Contains(err.Error(), string(first.Restore)) {
		t.Errorf("another backup into a table that is being restored: %v", err)
	}
	fresh := w.Request(m)
	fresh.New = true
	if _, err := w.Restorer().Begin(t.Context(), w.Run(), fresh); !errors.Is(err, table.ErrExist) {
		t.Errorf("a new restore into a table that is being restored: %v", err)
	}
	w.Tables.Drop(vaulttest.TargetID.Table)
	second, err := w.Restorer().Begin(t.Context(), w.Run(), fresh)
	if err != nil || second.Restore == first.Restore {
		t.Fatalf("a new restore after the table was dropped: %+v, %v", second, err)
	}
	if p := w.Finish(first.Restore); p.State != backup.StateFailed || !strings.Contains(p.LastError, "new restore") {
		t.Errorf("the first restore: %+v", p)
	}
	w.Proved(w.Finish(second.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestClaimOfAnother has a claim on a table name a restore of the same backup that is to
// another table: nobody goes on with that one, nor is told that it restores here.
func TestClaimOfAnother(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	m := w.Backup(vault.Settings{})
	first := w.Begin(m)
	req := w.Request(m)
	req.Target.Table = "elsewhere"
	claim := &vault.Claim{Restore: first.Restore, Backup: m.Backup, At: w.Clock()}
	if _, err := w.Repo.Create(t.Context(), vault.ClaimName(req.Target, 0), claim); err != nil {
		t.Fatal(err)
	}
	if p, err := w.Restorer().Begin(t.Context(), w.Run(), req); err == nil || !strings.Contains(err.Error(), "is of backup") {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestRequestGoesOnByItself looks at a request once: its restore comes to its end, and
// the request to its answer, without a tick, however many invocations that takes.
func TestRequestGoesOnByItself(t *testing.T) {
	for _, c := range []struct {
		name         string
		rows, hop    int
		workers      int
		twice, blind bool
		once         bool // tasks of one id are one task
	}{
		{name: "at once", rows: 400},
		{name: "by three workers", rows: 400, workers: 3},
		{name: "in many invocations", rows: 400, hop: 1, workers: 2},
		{name: "each delivery twice", rows: 400, workers: 2, twice: true},
		{name: "one segment, and tasks by their ids", rows: 3, once: true},
		{name: "tasks by their ids", rows: 400, workers: 2, hop: 5, once: true},
		{name: "without a row"},
		{name: "where nobody may look", rows: 400, blind: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			def := vaulttest.Definition()
			if w.Tables.Make(def); c.rows > 0 {
				w.Fill(def, c.rows)
			}
			w.Tables.PageRows = 50
			m := w.Backup(vaulttest.Small)
			const name = "requests/a.json"
			if _, err := w.Store.Create(t.Context(), name, strings.NewReader(`{"table":"prod/orders","to":"prod/copy"}`)); err != nil {
				t.Fatal(err)
			}
			w.Hop, w.Workers, w.Once = c.hop, c.workers, c.once
			progress, err := w.Requests().Serve(t.Context(), w.Run(), name)
			if err != nil {
				t.Fatal(err)
			}
			do := func(work fanout.Work) error {
				if work.Verb != fanout.VerbVerify {
					return w.Do(work)
				}
				c := w.Checker()
				c.Work = w
				_, err := c.Check(t.Context(), w.Run(), work)
				return err
			}
			for n := 0; ; n++ {
				work, ok := w.Take()
				if !ok {
					break
				}
				if c.blind && work.Verb == fanout.VerbRestore {
					continue
				}
				err := do(work)
				if err == nil && c.twice {
					err = do(work)
				}
				if err != nil || n > 10_000 {
					t.Fatal(err, n)
				}
			}
			var answer vault.Answer
			_, err = w.Repo.Read(t.Context(), vault.AnswerName(name), &answer)
			if c.blind {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("answered without a look: %+v, %v", answer, err)
				}
				return
			}
			if err != nil || !answer.OK || answer.Rows != m.Totals.Rows {
				t.Fatalf("%+v, %v; %+v", answer, err, progress.Restore)
			}
			w.Same("orders", "copy")
		})
	}
}

// TestForgedProof takes no proof for a restore's that is another's, or that says what it
// does not come to.
func TestForgedProof(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	p := w.Restore(w.Backup(vault.Settings{}))
	w.Proved(p, vault.OK)
	name := vault.Restore{ID: p.Restore}.Proof()
	for forged, change := range map[string]func(*vault.Proof){
		"of another restore": func(p *vault.Proof) { p.Restore = vault.NewRestoreID(time.Unix(0, 0), "x") },
		"of another target":  func(p *vault.Proof) { p.Target = "prod/other" },
		"of another backup":  func(p *vault.Proof) { p.Manifest.SHA256 = strings.Repeat("0", 64) },
		"with rows missing":  func(p *vault.Proof) { p.Check.Missing = 3 },
		"with other rows":    func(p *vault.Proof) { p.Check.TargetDigest.Add(p.Check.TargetDigest) },
	} {
		proof := *p.Proof
		change(&proof)
		data := vaulttest.Forge(name, &proof)
		if err := w.Store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Store.Create(t.Context(), name, strings.NewReader(string(data))); err != nil {
			t.Fatal(err)
		}
		if again, err := w.Restorer().Tick(t.Context(), w.Run(), p.Restore); !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s: %+v, %v", forged, again.State, err)
		}
	}
}

// TestRestoreGoesOnByItself looks at a restore once that a person has asked for, and who
// is gone: it comes to its end.
func TestRestoreGoesOnByItself(t *testing.T) {
	for _, rows := range []int{0, 3, 400} {
		t.Run(fmt.Sprint(rows, " rows"), func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			def := vaulttest.Definition()
			if w.Tables.Make(def); rows > 0 {
				w.Fill(def, rows)
			}
			w.Tables.PageRows = 50
			plan := w.Begin(w.Backup(vaulttest.Small))
			w.Once, w.Pokes = true, true
			w.Look(plan.Restore)
			w.Work()
			proof, err := w.Repo.RestoreProof(t.Context(), plan.Restore)
			if err != nil || proof.Verdict != vault.OK {
				t.Fatalf("%+v, %v", proof, err)
			}
			w.Same("orders", "orders_copy")
		})
	}
}

// TestWordsOfOthers takes no answer, and no acceptance, for a request's that is about
// another.
func TestWordsOfOthers(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 10)
	m := w.Backup(vault.Settings{})
	put := func(name, own string, d vault.Document) {
		t.Helper()
		data, err := vault.Encode(own, d)
		if err == nil {
			_, err = w.Store.Create(t.Context(), name, strings.NewReader(string(data)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(vault.AnswerName("requests/a.json"), vault.AnswerName("requests/b.json"), &vault.Answer{Request: "requests/b.json", At: w.Clock(), Error: "no"})
	put(vault.AcceptedName("requests/c.json"), vault.AcceptedName("requests/b.json"), &vault.Accepted{Request: "requests/b.json", Restore: vault.NewRestoreID(w.Clock(), "x"), Backup: m.Backup, Table: m.Table, Target: vaulttest.TargetID, At: w.Clock()})
	for _, name := range []string{"requests/a.json", "requests/c.json"} {
		if _, err := w.Store.Create(t.Context(), name, strings.NewReader(`{"Table":"prod/orders","To":"prod/orders_copy"}`)); err != nil {
			t.Fatal(err)
		}
		p, err := w.Requests().Serve(t.Context(), w.Run(), name)
		if p.Restore != nil || err == nil && (p.Answer == nil || !strings.Contains(p.Answer.Error, "written under another name")) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// TestIndexesWithLongNames restores a table whose indexes have names that can only be
// told apart at their ends, or are those that a copy's would get: none is lost, and none
// is taken for another.
func TestIndexesWithLongNames(t *testing.T) {
	long := strings.Repeat("i", 254)
	w := vaulttest.NewWorld(t)
	def := vaulttest.Definition()
	def.Options.MaxVersions = 1
	columns := map[string]string{long + "a": "a", long + "b": "b", "x": "c", "orders_copy_x": "d", "by": "e"}
	for name, column := range columns {
		def.DefinedColumns = append(def.DefinedColumns, table.DefinedColumn{Name: column, Type: "string"})
		def.Indexes = append(def.Indexes, table.Index{Name: name, Key: []string{column, "user", "blob", "id"}, Type: "global", Ready: true})
	}
	w.Tables.Make(def)
	p := w.Restore(w.Backup(vault.Settings{}))
	w.Proved(p, vault.OK)
	got, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table)
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for _, x := range got.Indexes {
		if len(x.Name) > 255 || made[x.Key[0]] {
			t.Errorf("the copy has an index %q of %d bytes on %v", x.Name, len(x.Name), x.Key)
		}
		made[x.Key[0]] = true
	}
	if len(made) != len(columns) {
		t.Errorf("the copy has indexes on %v, the source on %v", made, columns)
	}
	for _, note := range p.Proof.Notes {
		if strings.Contains(note, "missing") || strings.Contains(note, "refused") || strings.Contains(note, "at the source it was") {
			t.Errorf("note %q", note)
		}
	}
}

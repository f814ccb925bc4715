package dispatch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/vault"
)

// whole is work of a verb in which everything is set.
func whole(verb fanout.Verb) fanout.Work {
	return fanout.Work{
		Verb: verb, Table: vault.TableID{Region: "cn-x", Instance: "prod", Table: "orders"}, Backup: "20261120T021400Z-0a1b2c3d", Restore: "20261120T021500Z-0a1b2c3d",
		Segment: "000001.02", Replica: "0123456789abcdef", Rate: 7, Request: "requests/a.json", ReadUnits: 2.5, WriteUnits: 50, Start: 3, After: fanout.Loading,
	}
}

// declared are the verbs that package fanout declares.
func declared(t *testing.T) (names []fanout.Verb) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../fanout/work.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := v.Type.(*ast.Ident); ok && of.Name == "Verb" {
			name, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, fanout.Verb(name))
		}
		return true
	})
	return names
}

// thereAndBack has work become a command, which is sent, and that become work again.
func thereAndBack(t *testing.T, w fanout.Work) (fanout.Work, function.Command) {
	t.Helper()
	c, err := Command(w)
	if err != nil {
		t.Fatal(err)
	}
	event, err := c.Encode()
	if err != nil {
		t.Fatalf("%s: %v", w.Verb, err)
	}
	heard, err := function.ParseCommand(event)
	if err != nil {
		t.Fatalf("%s: %v", event, err)
	}
	got, err := Work(heard, w.Table.Region)
	if err != nil {
		t.Fatalf("%s: %v", event, err)
	}
	return got, c
}

// TestEveryVerb sends work of every verb that there is, with everything set, and with any
// part of it: the worker hears what its verb carries, and nothing else.
func TestEveryVerb(t *testing.T) {
	names := declared(t)
	if len(names) != len(verbs) {
		t.Fatalf("there are the verbs %v, and %d in the table", names, len(verbs))
	}
	want := map[fanout.Verb]string{
		fanout.VerbExport:  `{"v":1,"kind":"export","table":"prod/orders","backup":"20261120T021400Z-0a1b2c3d","segment":"000001.02","start":3,"settings":{"read_units":2.5,"write_units":50}}`,
		fanout.VerbImport:  `{"v":1,"kind":"import","backup":"20261120T021400Z-0a1b2c3d","restore":"20261120T021500Z-0a1b2c3d","segment":"000001.02","start":3,"request":"requests/a.json","settings":{"read_units":2.5,"write_units":50}}`,
		fanout.VerbVerify:  `{"v":1,"kind":"verify","backup":"20261120T021400Z-0a1b2c3d","restore":"20261120T021500Z-0a1b2c3d","segment":"000001.02","start":3,"request":"requests/a.json","settings":{"read_units":2.5,"write_units":50}}`,
		fanout.VerbCopy:    `{"v":1,"kind":"copy","backup":"20261120T021400Z-0a1b2c3d","segment":"000001.02","start":3,"target":"0123456789abcdef","settings":{"bytes_per_second":7}}`,
		fanout.VerbRestore: `{"v":1,"kind":"restore","restore":"20261120T021500Z-0a1b2c3d","request":"requests/a.json"}`,
		fanout.VerbSeal:    `{"v":1,"kind":"tick","backup":"20261120T021400Z-0a1b2c3d"}`,
		fanout.VerbTick:    `{"v":1,"kind":"tick"}`,
	}
	for _, v := range verbs {
		w := whole(v.name)
		got, c := thereAndBack(t, w)
		expect := v.carries(w)
		expect.Verb = v.name
		if got != expect {
			t.Errorf("%s comes as %+v, want %+v", v.name, got, expect)
		}
		if event, err := c.Encode(); err != nil || string(event) != want[v.name] {
			t.Errorf("%s is sent as\n%s, want\n%s (%v)", v.name, event, want[v.name], err)
		}
		// What a verb carries says whom it is for, and no share: those may be absent.
		for range 100 {
			some := w
			for _, name := range []string{"Start", "Rate", "ReadUnits", "WriteUnits", "Request", "After"} {
				if f := reflect.ValueOf(&some).Elem().FieldByName(name); rand.IntN(2) == 0 && !(v.name == fanout.VerbRestore && name == "Request") {
					f.SetZero()
				}
			}
			got, c := thereAndBack(t, some)
			expect := v.carries(some)
			expect.Verb = v.name
			if got != expect {
				t.Errorf("%s comes as %+v, want %+v", v.name, got, expect)
			}
			if share := some.Rate != 0 || some.ReadUnits != 0 || some.WriteUnits != 0; !share && c.Settings != nil {
				t.Errorf("%s has the settings %s", v.name, c.Settings)
			}
		}
	}
}

// TestEveryField holds that each field of work travels with some verb, but the one that
// only tells tasks apart: a field that is added has to be thought of in the table.
func TestEveryField(t *testing.T) {
	travels := map[string]bool{"Verb": true}
	for _, v := range verbs {
		got, _ := thereAndBack(t, whole(v.name))
		fields := reflect.ValueOf(got)
		for i := range fields.NumField() {
			if !fields.Field(i).IsZero() {
				travels[fields.Type().Field(i).Name] = true
			}
		}
	}
	fields := reflect.TypeFor[fanout.Work]()
	for i := range fields.NumField() {
		if name := fields.Field(i).Name; travels[name] != (name != "After") {
			t.Errorf("does %s reach a worker? %t", name, travels[name])
		}
	}
}

// TestNoWork names what there is no translation of.
func TestNoWork(t *testing.T) {
	if _, err := Command(fanout.Work{Verb: "destroy"}); err == nil || !strings.Contains(err.Error(), `"destroy"`) {
		t.Errorf("work of another verb: %v", err)
	}
	for _, k := range append(function.Kinds(), "destroy") {
		_, err := Work(function.Command{Kind: k, Table: "prod/orders"}, "cn-x")
		served := false
		for _, v := range verbs {
			served = served || v.kind == k
		}
		if served != (err == nil) || err != nil && !strings.Contains(err.Error(), strconv.Quote(string(k))) {
			t.Errorf("a command of kind %s: %v", k, err)
		}
	}
	for _, c := range []struct {
		cmd  function.Command
		want string
	}{
		{function.Command{Kind: function.KindExport}, `table "": want instance/table`},
		{function.Command{Kind: function.KindExport, Table: "p/o", Settings: []byte(`{"bytes_per_second":1}`)}, `settings of a command of kind export: json: unknown field "bytes_per_second"`},
		{function.Command{Kind: function.KindImport, Settings: []byte(`{"verification":"v"}`)}, `settings of a command of kind import`},
		{function.Command{Kind: function.KindCopy, Settings: []byte(`{"read_units":1}`)}, `settings of a command of kind copy`},
	} {
		if _, err := Work(c.cmd, "cn-x"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

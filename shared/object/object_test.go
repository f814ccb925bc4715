package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
)

func Example() {
	ctx := context.Background()
	var store object.Store = &mem.Store{}

	// Two workers decide the same slot; both go on from what stands there.
	for _, worker := range []string{"first", "second"} {
		standing, mine, err := object.Decide(ctx, store, "slots/0007/3", []byte("part by the "+worker), 1<<20)
		fmt.Printf("%s: %s, mine: %v, %v\n", worker, standing, mine, err)
	}
	for info, err := range store.List(ctx, "slots/", "") {
		fmt.Println(info.Name, info.Size, err)
	}
	// Output:
	// first: part by the first, mine: true, <nil>
	// second: part by the first, mine: false, <nil>
	// slots/0007/3 17 <nil>
}

func TestValidName(t *testing.T) {
	long := strings.Repeat("n", object.MaxName)
	for _, c := range []struct {
		name          string
		asName, start string // what is wrong with it as a name, and as the beginning of one
	}{
		{"a", "", ""},
		{"plans/cn-hangzhou/prod/orders/20261120T101400Z-ab12.json", "", ""},
		{"a b/%/+/~/日本語/🗝/...", "", ""},
		{`a\b`, "", ""},
		{"\uFFFD", "", ""},
		{long, "", ""},
		{"", "is empty", ""},
		{"a/", "slash", ""},
		{"a/.", `element "."`, ""},
		{"a/..", `element ".."`, ""},
		{".", `element "."`, ""},
		{"..", `element ".."`, ""},
		{"a/../", `element ".."`, `element ".."`},
		{"./a", `element "."`, `element "."`},
		{"a//", "slash", "slash"},
		{"a//b", "slash", "slash"},
		{"/", "slash", "slash"},
		{"/a", "slash", "slash"},
		{long + "n", "has 769 bytes", "has 769 bytes"},
		{"a\x00", "U+0000 at byte 1", "U+0000 at byte 1"},
		{"é\n", "U+000A at byte 2", "U+000A at byte 2"},
		{"\u0085", "U+0085", "U+0085"},
		{"\uFFFE", "U+FFFE", "U+FFFE"},
		{"a\xff", "UTF-8", "UTF-8"},
		{"\xed\xa0\x80", "UTF-8", "UTF-8"},
		{`\a`, "backslash", "backslash"},
	} {
		for _, check := range []struct {
			what string
			err  error
			want string
		}{{"ValidName", object.ValidName(c.name), c.asName}, {"ValidPrefix", object.ValidPrefix(c.name), c.start}} {
			switch {
			case check.want == "" && check.err != nil:
				t.Errorf("%s(%.50q): %v", check.what, c.name, check.err)
			case check.want != "" && (!errors.Is(check.err, fs.ErrInvalid) || !strings.Contains(check.err.Error(), check.want)):
				t.Errorf("%s(%.50q): %v, want fs.ErrInvalid that says %q", check.what, c.name, check.err, check.want)
			}
		}
	}
}

// A valid name is what the rules say, and begins with valid prefixes only; an invalid
// prefix begins no name.
func FuzzValidName(f *testing.F) {
	for _, name := range []string{"a/b", "", "/", "a//b", "..", "a/./b", "é\u0085", "\xff", `\`, strings.Repeat("x", object.MaxName+1)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		want := name != "" && len(name) <= object.MaxName && utf8.ValidString(name) && name[0] != '\\' && !strings.ContainsFunc(name, func(r rune) bool {
			return unicode.Is(unicode.Cc, r) || r == 0xFFFE || r == 0xFFFF
		})
		for _, element := range strings.Split(name, "/") {
			if element == "" || element == "." || element == ".." {
				want = false
			}
		}
		err := object.ValidName(name)
		if (err == nil) != want || err != nil && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("ValidName(%q): %v, want it valid: %v", name, err, want)
		}
		if err != nil {
			// What can't begin a name makes any longer one invalid, too.
			if object.ValidPrefix(name) != nil && object.ValidName(name+"x") == nil && utf8.ValidString(name) {
				t.Errorf("%q begins a valid name, and is no valid prefix", name)
			}
			return
		}
		for i := range name {
			if err := object.ValidPrefix(name[:i]); err != nil {
				t.Errorf("ValidPrefix(%q): %v", name[:i], err)
			}
		}
	})
}

// lying is a store whose objects are longer or shorter than their Info says, or fail to
// close.
type lying struct {
	object.Store
	size  int64
	close error
}

func (l lying) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	r, info, err := l.Store.Open(ctx, name, off, n)
	info.Size = l.size
	return struct {
		io.Reader
		io.Closer
	}{r, closer{l.close}}, info, err
}

type closer struct{ error }

func (c closer) Close() error { return c.error }

func TestReadAll(t *testing.T) {
	s := &mem.Store{}
	s.Replace("nine", []byte("123456789"))
	s.Replace("none", nil)
	for _, c := range []struct {
		store object.Store
		name  string
		limit int64
		want  string
		err   error
	}{
		{s, "nine", 9, "123456789", nil},
		{s, "nine", 1 << 62, "123456789", nil},
		{s, "nine", 8, "", object.ErrTooLong},
		{s, "nine", 0, "", object.ErrTooLong},
		{s, "none", 0, "", nil},
		{s, "missing", 9, "", fs.ErrNotExist},
		{s, "a//b", 9, "", fs.ErrInvalid},
		{lying{Store: s, size: 10}, "nine", 10, "", io.ErrUnexpectedEOF},
		{lying{Store: s, size: 1}, "none", 10, "", io.ErrUnexpectedEOF},
		{objectfault.New(s, &objectfault.Fault{Op: objectfault.Open, When: objectfault.Midway, At: 4}), "nine", 9, "", objectfault.ErrInjected},
		{objectfault.New(s, &objectfault.Fault{Op: objectfault.Open, When: objectfault.After}), "nine", 9, "", objectfault.ErrInjected},
		{objectfault.New(s, &objectfault.Fault{Op: objectfault.Open, When: objectfault.After}), "none", 9, "", objectfault.ErrInjected},
	} {
		got, err := object.ReadAll(t.Context(), c.store, c.name, c.limit)
		if !errors.Is(err, c.err) || string(got) != c.want {
			t.Errorf("ReadAll(%s) of at most %d: %q, %v, want %q, %v", c.name, c.limit, got, err, c.want, c.err)
		}
	}
	if got, err := object.ReadAll(t.Context(), lying{Store: s, size: 8}, "nine", 9); err == nil || !strings.Contains(err.Error(), "more than the 8 bytes") {
		t.Errorf("ReadAll of more than was announced: %q, %v", got, err)
	}
	if _, err := object.Stat(t.Context(), lying{Store: s, close: io.ErrClosedPipe}, "nine"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Stat whose Close fails: %v", err)
	}
}

// Whatever becomes of the two calls that Decide makes, it tells what stands there or that
// it does not know, and deciding again tells; what was decided before never changes.
func TestDecide(t *testing.T) {
	mine, other := []byte("mine"), []byte("another's")
	create := func(when objectfault.When) *objectfault.Fault {
		return &objectfault.Fault{Op: objectfault.Create, When: when, At: 1}
	}
	open := func(when objectfault.When) *objectfault.Fault {
		return &objectfault.Fault{Op: objectfault.Open, When: when, At: 1}
	}
	for _, c := range []struct {
		name   string
		before []byte // what stands there at first
		faults []*objectfault.Fault
		want   []byte // nil for an error
		mine   bool
	}{
		{"nothing there", nil, nil, mine, true},
		{"another's there", other, nil, other, false},
		{"mine there", mine, nil, mine, true},
		{"not created", nil, []*objectfault.Fault{create(objectfault.Before)}, nil, false},
		{"not created whole", nil, []*objectfault.Fault{create(objectfault.Midway)}, nil, false},
		{"answer lost", nil, []*objectfault.Fault{create(objectfault.After)}, mine, true},
		{"call lost, another's there", other, []*objectfault.Fault{create(objectfault.Before)}, other, false},
		{"call lost, mine there", mine, []*objectfault.Fault{create(objectfault.Before)}, mine, true},
		{"answer lost, not readable", nil, []*objectfault.Fault{create(objectfault.After), open(objectfault.Before)}, nil, false},
		{"answer lost, readable in part", nil, []*objectfault.Fault{create(objectfault.After), open(objectfault.Midway)}, nil, false},
		{"another's there, not readable", other, []*objectfault.Fault{open(objectfault.Before)}, nil, false},
		{"another's there, readable in part", other, []*objectfault.Fault{open(objectfault.Midway)}, nil, false},
		{"another's there, end not seen", other, []*objectfault.Fault{open(objectfault.After)}, nil, false},
		{"another's there, too long", bytes.Repeat(other, 100), nil, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := &mem.Store{}
			if c.before != nil {
				inner.Replace("slot", c.before)
			}
			got, isMine, err := object.Decide(t.Context(), objectfault.New(inner, c.faults...), "slot", mine, 100)
			if !bytes.Equal(got, c.want) || isMine != c.mine || (err == nil) != (c.want != nil) {
				t.Errorf("Decide: %q, mine: %v, %v, want %q, mine: %v", got, isMine, err, c.want, c.mine)
			}
			if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the error %v looks like an answer", err)
			}
			if err != nil && !strings.Contains(err.Error(), "slot") {
				t.Errorf("the error %q does not name the object", err)
			}
			if len(c.faults) > 0 && err != nil && !errors.Is(err, objectfault.ErrInjected) {
				t.Errorf("the error %v is not the fault", err)
			}
			for _, f := range c.faults {
				if !f.Fired() {
					t.Errorf("%v did not fire", f)
				}
			}
			if len(c.before) > 100 {
				return
			}
			again, _, err := object.Decide(t.Context(), inner, "slot", []byte("a third's"), 100)
			switch {
			case err != nil:
				t.Error(err)
			case c.want != nil && !bytes.Equal(again, c.want):
				t.Errorf("decided was %q, and now it is %q", c.want, again)
			case c.before != nil && !bytes.Equal(again, c.before):
				t.Errorf("there was %q, and now it is %q", c.before, again)
			}
		})
	}
}

// fickle is a store in which a name is taken when created and missing when read.
type fickle struct{ object.Store }

func (f fickle) Create(_ context.Context, name string, _ io.Reader) (object.Info, error) {
	return object.Info{}, fmt.Errorf("create %s: %w", name, fs.ErrExist)
}

func TestDecideRefuses(t *testing.T) {
	s := &mem.Store{}
	if _, _, err := object.Decide(t.Context(), s, "slot", []byte("four"), 3); !errors.Is(err, object.ErrTooLong) {
		t.Errorf("content that nobody would read: %v", err)
	}
	if _, err := object.Stat(t.Context(), s, "slot"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was created: %v", err)
	}
	if _, _, err := object.Decide(t.Context(), fickle{s}, "slot", nil, 3); err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name taken and missing: %v", err)
	}
	// The context ends while the answer is awaited: what stands there is not known.
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := objectfault.New(s, &objectfault.Fault{
		Op: objectfault.Create, When: objectfault.After, Hang: true,
		Match: func(string) bool { cancel(); return true },
	})
	_, _, err := object.Decide(ctx, cancelled, "slot", nil, 3)
	if !errors.Is(err, context.Canceled) || errors.Is(err, fs.ErrExist) {
		t.Errorf("the context ended: %v", err)
	}
}

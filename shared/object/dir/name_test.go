package dir

import (
	"slices"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/object"
)

func TestPath(t *testing.T) {
	x := strings.Repeat("x", longestElement)
	for _, c := range []struct{ name, plain, folded string }{
		{"vault.json", "vault.json", "vault.json"},
		{"manifests/cn-hangzhou/prod/orders/1.json", "manifests/cn-hangzhou/prod/orders/1.json", "manifests/cn-hangzhou/prod/orders/1.json"},
		{"Orders/20261120T101400Z", "Orders/20261120T101400Z", "%4frders/20261120%54101400%5a"},
		{"100%/%25", "100%25/%2525", "100%25/%2525"},
		{"%tmp/%folded", "%25tmp/%25folded", "%25tmp/%25folded"},
		{"a b.c./d", "a b.c./d", "a%20b.c%2e/d"},
		{"é", "é", "%c3%a9"},
		{x, x, x},
		{x + "y/z", x + "%+/y/z", x + "%+/y/z"},
		{x + x + "/" + x, x + "%+/" + x + "/" + x, x + "%+/" + x + "/" + x},
		{x[1:] + "é", x[1:] + "%+/é", x[1:] + "%+/%c3%a9"},
		{x[1:] + "%", x[1:] + "%+/%25", x[1:] + "%+/%25"},
	} {
		if got := (names{}).path(c.name); got != c.plain {
			t.Errorf("path of %q is %q, want %q", c.name, got, c.plain)
		}
		if got := (names{folded: true}).path(c.name); got != c.folded {
			t.Errorf("folded path of %q is %q, want %q", c.name, got, c.folded)
		}
	}
}

// A file name that path never writes is told from one that it does.
func TestPieceRefuses(t *testing.T) {
	for _, file := range []string{tmp, folded, "%", "a%", "a%2", "%2F", "%zz", "a%2+", "%+", "%%", "%+%+"} {
		if text, more, ok := piece(file); ok {
			t.Errorf("piece(%q) = %q, %v, want it refused", file, text, more)
		}
	}
}

// Every valid name has a path that file systems can hold, from which it comes back; with
// folding, also one that no file system takes for another's.
func FuzzPath(f *testing.F) {
	for _, name := range []string{
		"a", "a/b", "%", "%25", "%tmp", "%folded", "%+", "a%+/b", "Ab", "x.", ".x", "é", "e\u0301", "🗝/%2f", "a b",
		strings.Repeat("n", object.MaxName), strings.Repeat("%", 300), strings.Repeat("é", 200) + "/x", strings.Repeat("n", 240) + "/" + strings.Repeat("n", 241),
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if object.ValidName(name) != nil {
			return
		}
		for _, n := range []names{{}, {folded: true}} {
			path := n.path(name)
			files := strings.Split(path, "/")
			for _, file := range files {
				if file == "" || file == "." || file == ".." || len(file) > 255 {
					t.Errorf("path %q has the file name %q", path, file)
				}
				if n.folded && (strings.ToLower(file) != file || strings.HasSuffix(file, ".") || strings.IndexFunc(file, func(r rune) bool { return r >= 0x80 }) >= 0) {
					t.Errorf("folded path %q has the file name %q", path, file)
				}
			}
			if files[0] == tmp || files[0] == folded {
				t.Errorf("the path of %q is in %s, which is the store's own", name, files[0])
			}
			var back strings.Builder
			for i, file := range files {
				text, more, ok := piece(file)
				if !ok || more && i == len(files)-1 {
					t.Fatalf("piece(%q) of %q: %q, %v, %v", file, path, text, more, ok)
				}
				back.WriteString(text)
				if !more && i < len(files)-1 {
					back.WriteByte('/')
				}
			}
			if back.String() != name {
				t.Errorf("%q became %q and came back as %q", name, path, back.String())
			}
		}
	})
}

// A file name stands for one piece of an element at most: what piece accepts, path writes
// back or the listing refuses.
func FuzzPiece(f *testing.F) {
	for _, file := range []string{"a", "%25", "%41", "a%+", "%c3%a9", "é", "%2e", "..", "%00", "%", "%ff"} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file string) {
		text, more, ok := piece(file)
		if !ok {
			return
		}
		if text == "" {
			t.Errorf("piece(%q) is empty", file)
		}
		if len(text) > len(file) {
			t.Errorf("piece(%q) has %d bytes", file, len(text))
		}
		// Of all files that are read as one text, one at most is the path of that name.
		if more || object.ValidName(text) != nil || strings.Contains(text, "/") {
			return
		}
		others := []string{text, escape(text), strings.ReplaceAll(text, "%", "%25"), file}
		for _, n := range []names{{}, {folded: true}} {
			written := n.path(text)
			matching := slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(others))), func(s string) bool { return s != written })
			if len(matching) > 1 {
				t.Errorf("%q is written as each of %q", text, matching)
			}
		}
	})
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
)

// TestGoPrograms compiles and runs the Go code of the document: the first program, and
// the test that has the server in its hand.
func TestGoPrograms(t *testing.T) {
	document, root, err := readDocument(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := otstest.Run(t, ots.Config{})
	found := programs(document, "go")
	if len(found) != 2 {
		t.Fatalf("the document has %d blocks of Go, want a program and a test", len(found))
	}
	for i, test := range []struct{ file, prints, run string }{
		{"main.go", "hello from Go\n", "run"},
		{"orders_test.go", "ok ", "test"},
	} {
		t.Run(test.file, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), test.file)
			if err := os.WriteFile(file, []byte(found[i]), 0o600); err != nil {
				t.Fatal(err)
			}
			if text, err := exec.CommandContext(t.Context(), "gofmt", "-l", file).CombinedOutput(); err != nil || len(text) > 0 {
				t.Errorf("not formatted: %v %s", err, text)
			}
			cmd := exec.CommandContext(t.Context(), "go", test.run, file)
			cmd.Dir, cmd.Env = root, environment(server)
			text, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(text), test.prints) {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}

// TestPrograms proves that each client's program is in the document.
func TestPrograms(t *testing.T) {
	document, _, err := readDocument(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		found := programs(document, c.language)
		if len(found) != 1 || !strings.Contains(found[0], "hello_"+c.Name) {
			t.Errorf("%s: %d programs", c.Name, len(found))
		}
	}
}

// TestSwitchesAreDocumented proves that the document names every switch.
func TestSwitchesAreDocumented(t *testing.T) {
	document, _, err := readDocument(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for group := range reflect.TypeFor[engine.Behavior]().Fields() {
		for f := range group.Type.Fields() {
			if name := group.Name + "." + f.Name; !strings.Contains(document, "`"+name+"`") {
				t.Errorf("%s is not in the document", name)
			}
		}
	}
}

package vault

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestFormatIsDocumented looks for each document, and for each field that one has in the
// golden files, in docs/format.md.
func TestFormatIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	look := func(document, what string) {
		known[what] = true
		if !strings.Contains(string(text), "`"+what+"`") && !strings.Contains(string(text), `"`+what+`"`) {
			t.Errorf("docs/format.md does not tell of %q in a %s", what, document)
		}
	}
	var fields func(document string, value any)
	fields = func(document string, value any) {
		switch v := value.(type) {
		case map[string]any:
			for name, value := range v {
				look(document, name)
				fields(document, value)
			}
		case []any:
			for _, value := range v {
				fields(document, value)
			}
		}
	}
	for _, d := range examples() {
		look("vault", d.kind().name)
		data, err := Encode(placeOf(d), d)
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(data, &value); err != nil {
			t.Fatal(err)
		}
		fields(d.kind().name, value)
	}
	if len(known) < 80 {
		t.Errorf("only %d names were looked for", len(known))
	}
}

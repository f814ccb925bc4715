package vault_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestDenseDocuments: a document of many values that say nothing, which take a hundred
// times the memory of their text, is refused before anything of it is decoded.
func TestDenseDocuments(t *testing.T) {
	const size = 2 << 20
	for _, c := range []struct {
		document     vault.Document
		before, each string
	}{
		{new(vault.Slot), `{"part":{"lanes":[`, `{}`},
		{new(vault.Slot), `{"split":{"closed":[`, `[]`},
		{new(vault.Slot), `{"split":{"children":[`, `{}`},
		{new(vault.Slot), `{"split":{"closed":[[`, `{"integer":1}`},
		{new(vault.Manifest), `{"groups":[`, `{}`},
		{new(vault.Copied), `{"objects":[`, `{}`},
		{new(vault.SegmentCheck), `{"check":{"differences":[`, `{}`},
		{new(vault.SegmentCheck), `{"check":{"differences":[{"columns":["\\","\"",`, `"x"`},
		{new(vault.Compared), `{"check":{"findings":[`, `{}`},
		{new(vault.Compared), `{"compared":[`, `1`},
		{new(vault.CheckedGroup), `{"unsettled":[`, `""`},
		{new(vault.Proof), `{"check":{"replaced":[`, `{}`},
	} {
		const name = "some/name.json"
		body := c.before + strings.Repeat(c.each+",", size/(len(c.each)+1)) + c.each
		for i := len(c.before) - 1; i >= 0; i-- {
			switch c.before[i] {
			case '{':
				body += "}"
			case '[':
				body += "]"
			}
		}
		data := vaulttest.Resealed(fmt.Appendf(nil, `{"document":%q,"format":%d,"name":%q,"body":%s`, vault.KindOf(c.document), vault.Format, name, body))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := vault.Decode(name, data, c.document)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), "values, where there can be") {
			t.Errorf("%s %s: %.200v", vault.KindOf(c.document), c.before, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > size {
			t.Errorf("%s %s: %d bytes took %d", vault.KindOf(c.document), c.before, len(data), took)
		}
	}
}

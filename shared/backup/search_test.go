package backup

import (
	"context"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tablevault/tablevault/shared/table"
)

// TestCutsKeepTheLimit: no place that a search looks at, and no cut that it finds, has a
// value that is longer than the service allows, however long those of the rows are.
func TestCutsKeepTheLimit(t *testing.T) {
	for name, test := range map[string]struct {
		kind        table.KeyType
		first, last string
	}{
		"text":          {table.StringKey, strings.Repeat("p", 1018) + "000001", strings.Repeat("p", 1018) + "900000"},
		"letters":       {table.StringKey, strings.Repeat("p", 1020) + "abc!", strings.Repeat("p", 1020) + "xyz!"},
		"beyond ASCII":  {table.StringKey, strings.Repeat("é", 510) + "éa", strings.Repeat("é", 510) + "üz"},
		"binary":        {table.BinaryKey, strings.Repeat("\xff", 1021) + "a", strings.Repeat("\xff", 1021) + "\xf0"},
		"digits":        {table.BinaryKey, strings.Repeat("\xff", 1018) + "000001", strings.Repeat("\xff", 1018) + "900000"},
		"one beginning": {table.StringKey, strings.Repeat("p", 1024), strings.Repeat("p", 1024)},
		"short":         {table.StringKey, "a", "z"},
	} {
		t.Run(name, func(t *testing.T) {
			value := func(s string) table.Value {
				if test.kind == table.BinaryKey {
					return table.Binary([]byte(s))
				}
				return table.String(s)
			}
			looks := 0
			check := func(v table.Value) {
				if len(v.Bytes) > table.MaxKeyBytes || test.kind == table.StringKey && !utf8.Valid(v.Bytes) {
					t.Errorf("%d bytes, …%.40q", len(v.Bytes), v.Bytes[max(0, len(v.Bytes)-12):])
				}
				looks++
			}
			s := &search{
				scale: scale{kind: test.kind}, from: value(test.first), n: 8, wave: 4,
				key: func(v table.Value) table.Key { return table.Key{v} },
				row: func(_ context.Context, from table.Key) (*table.Value, error) {
					if len(from[0].Bytes) > table.MaxKeyBytes {
						t.Errorf("a look from %d bytes", len(from[0].Bytes))
					}
					if last := value(test.last); from[0].Compare(last) <= 0 {
						return &last, nil
					}
					return nil, nil
				},
			}
			for {
				if err := s.greatest(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, at := range []uint64{0, 1, s.least, s.most, math.MaxUint64} {
					check(s.scale.value(at))
				}
				if !s.refine() {
					break
				}
			}
			for _, k := range s.cuts() {
				check(k[0])
			}
			if looks < 5 {
				t.Errorf("only %d values were looked at", looks)
			}
		})
	}
}

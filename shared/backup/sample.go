package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// sample cuts a table into about n ranges by the values of its first key column alone: it
// looks up the least and, by halving, the greatest value that the table holds, and cuts
// evenly between them. It reads a row per step, some seventy in all, and makes no claim
// that the ranges hold equally many rows. Tables of which everything lies under one value
// are not cut.
func (p *Planner) sample(ctx context.Context, def table.Definition, n int) ([]table.Key, error) {
	if n < 2 {
		return nil, nil
	}
	buf := make([]byte, 4<<20)
	// from returns the first column's value of the first row whose first column
	// is at least v, as a number that orders as the values do.
	from := func(v table.Value) (uint64, bool, error) {
		r := def.Schema.Whole()
		r.Start = def.Schema.Pad(table.Key{v})
		scan := p.Tables.Scan(def.Name, def.Schema, r)
		for {
			page, err := scan.Next(ctx, buf)
			if errors.Is(err, io.EOF) {
				return 0, false, nil
			}
			if err != nil {
				return 0, false, err
			}
			var row plainbuffer.Row
			s := plainbuffer.NewScanner(page.Block)
			if err := s.Next(&row); err == nil {
				return ordinal(table.KeyOf(row.Key[:1])[0]), true, nil
			} else if err != io.EOF {
				return 0, false, err
			}
			if page.Next == nil {
				return 0, false, nil
			}
		}
	}
	least, any, err := from(table.Min())
	if err != nil || !any {
		return nil, err
	}
	// The greatest: no row lies at or beyond above.
	greatest, above := least, uint64(math.MaxUint64)
	for greatest < above && above-greatest > max(1, (greatest-least)/uint64(4*n)) {
		mid := greatest + (above-greatest)/2 + 1
		found, any, err := from(valueAt(def.Schema[0].Type, mid))
		if err != nil {
			return nil, err
		}
		if any {
			greatest = max(found, mid)
		} else {
			above = mid - 1
		}
	}
	if greatest == least {
		return nil, nil
	}
	var points []table.Key
	for i := 1; i < n; i++ {
		at := least + uint64(float64(greatest-least)/float64(n)*float64(i))
		if at > least && at <= greatest {
			points = append(points, def.Schema.Pad(table.Key{valueAt(def.Schema[0].Type, at)}))
		}
	}
	return points, nil
}

// ordinal maps a value to a number that orders as the values do: an integer with its sign
// turned, of strings and blobs the first eight bytes.
func ordinal(v table.Value) uint64 {
	if v.Type == plainbuffer.Integer {
		return uint64(v.Int) ^ 1<<63
	}
	var b [8]byte
	copy(b[:], v.Bytes)
	return binary.BigEndian.Uint64(b[:])
}

// valueAt is ordinal's inverse. Strings may come out as bytes that are no UTF-8; as
// bounds of ranges they order all the same, but services may refuse them, so their bytes
// are kept below 0x80.
func valueAt(t table.KeyType, at uint64) table.Value {
	b := binary.BigEndian.AppendUint64(nil, at)
	switch t {
	case table.IntegerKey:
		return table.Integer(int64(at ^ 1<<63))
	case table.StringKey:
		for i, c := range b {
			if c >= 0x80 {
				// The greatest ASCII text below this value.
				b = append(b[:i], 0x7f)
				break
			}
		}
		return table.String(string(b))
	}
	return table.Binary(b)
}

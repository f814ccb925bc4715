package ots

import (
	"encoding/binary"
	"regexp"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// maxFilterDepth bounds the nesting of filters, which are more than 32 long before they
// are so deep.
const maxFilterDepth = engine.MaxFilters + 1

// parseFilter reads a serialized filter; no bytes are none.
func parseFilter(b []byte) (*engine.Filter, *engine.Error) {
	if len(b) == 0 {
		return nil, nil
	}
	var m otsprotocol.Filter
	if err := unmarshal(b, &m); err != nil {
		return nil, invalid("Deserialize filter failed.")
	}
	f, err := filterOf(&m, 0)
	if err != nil {
		return nil, err
	}
	return f, f.Check()
}

func filterOf(m *otsprotocol.Filter, depth int) (*engine.Filter, *engine.Error) {
	if depth > maxFilterDepth {
		return nil, invalid("The count of filter exceeds the max: %d.", engine.MaxFilters)
	}
	switch m.GetType() {
	case otsprotocol.FilterType_FT_SINGLE_COLUMN_VALUE:
		var s otsprotocol.SingleColumnValueFilter
		if err := unmarshal(m.Filter, &s); err != nil {
			return nil, invalid("Deserialize relation filter failed.")
		}
		f := &engine.Filter{
			Compare:     engine.Comparison(s.GetComparator()),
			Column:      s.GetColumnName(),
			DropMissing: s.GetFilterIfMissing(),
			LatestOnly:  s.GetLatestVersionOnly(),
		}
		var ok bool
		if f.Value, ok = parseVariant(s.ColumnValue); !ok {
			return nil, invalid("Invalid column value of filter on column: '%s'.", f.Column)
		}
		if rule := s.ValueTransRule; rule != nil {
			pattern, err := regexp.Compile(rule.GetRegex())
			if err != nil {
				return nil, invalid("Invalid regex of filter on column: '%s': %v.", f.Column, err)
			}
			f.Pattern, f.Cast = pattern, plainbuffer.String
			if rule.CastType != nil {
				f.Cast = plainbuffer.Type(rule.GetCastType())
			}
		}
		return f, nil
	case otsprotocol.FilterType_FT_COMPOSITE_COLUMN_VALUE:
		var s otsprotocol.CompositeColumnValueFilter
		if err := unmarshal(m.Filter, &s); err != nil {
			return nil, invalid("Deserialize composite filter failed.")
		}
		f := &engine.Filter{Logic: engine.Logic(s.GetCombinator())}
		for _, sub := range s.SubFilters {
			p, err := filterOf(sub, depth+1)
			if err != nil {
				return nil, err
			}
			f.Parts = append(f.Parts, p)
		}
		return f, nil
	case otsprotocol.FilterType_FT_COLUMN_PAGINATION:
		var s otsprotocol.ColumnPaginationFilter
		if err := unmarshal(m.Filter, &s); err != nil {
			return nil, invalid("Deserialize column pagination filter failed.")
		}
		return &engine.Filter{Page: true, Offset: int(s.GetOffset()), Limit: int(s.GetLimit())}, nil
	}
	return nil, invalid("Invalid type of filter: %d.", m.GetType())
}

// parseVariant reads a value as filters carry it: a cell's without its outer length.
func parseVariant(b []byte) (plainbuffer.Cell, bool) {
	if len(b) == 0 {
		return plainbuffer.Cell{}, false
	}
	c := plainbuffer.Cell{Type: plainbuffer.Type(b[0]), Data: b[1:], HasValue: true}
	switch c.Type {
	case plainbuffer.Integer, plainbuffer.Double:
		return c, len(c.Data) == 8
	case plainbuffer.Boolean:
		return c, len(c.Data) == 1
	case plainbuffer.String, plainbuffer.Blob:
		if len(c.Data) < 4 || uint64(binary.LittleEndian.Uint32(c.Data)) != uint64(len(c.Data)-4) {
			return c, false
		}
		c.Data = c.Data[4:]
		return c, true
	}
	return c, false
}

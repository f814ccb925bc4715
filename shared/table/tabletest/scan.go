package tabletest

import (
	"context"
	"fmt"
	"io"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// pageLimit is what the service puts into a page at most.
const (
	pageRows  = 5000
	pageBytes = 4 << 20
)

// Scan reads a range as the table is at each page.
func (t *Tables) Scan(name string, schema table.Schema, r table.Range) table.Scan {
	return &scan{tables: t, name: name, at: r.Start, end: r.End}
}

type scan struct {
	tables *Tables
	name   string
	at     table.Key
	end    table.Key
	cell   int // of the row at at, when it is being read in pieces
	piece  bool
	done   bool
	aim    int // bytes of a page, 0 for as many as there is room for
}

func (s *scan) Aim(bytes int) { s.aim = bytes }

func (s *scan) Next(ctx context.Context, buf []byte) (page table.Page, err error) {
	if s.done {
		return table.Page{}, io.EOF
	}
	err = s.tables.on(ctx, "Scan", s.name, func(c *content) error {
		page, err = s.page(c, buf[:0:cap(buf)])
		return err
	})
	if err != nil {
		return table.Page{}, err
	}
	s.at, s.done = page.Next, page.Next == nil
	return page, nil
}

func (s *scan) page(c *content, buf []byte) (table.Page, error) {
	if err := (table.Range{Start: s.at, End: s.end}).Validate(c.def.Schema); err != nil {
		return table.Page{}, fmt.Errorf("OTSParameterInvalid: %w: %w", err, table.ErrInvalid)
	}
	limit := s.tables.PageRows
	if limit == 0 {
		limit = pageRows
	}
	most := pageBytes
	if s.aim > 0 {
		most = min(most, s.aim)
	}
	now := s.tables.Now()
	page := table.Page{ServerTime: now}
	b := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(buf)}
	rows, size := 0, 0
	var fault error
	c.rows.Ascend(&Row{Key: s.at}, func(r *Row) bool {
		if r.Key.Compare(s.end) >= 0 {
			return false
		}
		cells, ok := s.tables.served(c, r, now.UnixMilli())
		if !ok {
			return true
		}
		if rows == limit {
			page.Next = r.Key.Clone()
			return false
		}
		if !s.piece {
			mark := len(b.Buf)
			appendRow(&b, c.def.Schema, r.Key, cells)
			rowSize := len(b.Buf) - mark
			if len(b.Buf) <= cap(buf) && (rows == 0 || size+rowSize <= most) {
				rows, size = rows+1, size+rowSize
				return true
			}
			b.Buf = b.Buf[:mark]
			if rows > 0 {
				page.Next = r.Key.Clone()
				return false
			}
			s.piece, s.cell = true, 0
		}
		fault = s.takePiece(c, r, cells, &b, cap(buf), &page)
		return false
	})
	if fault != nil {
		return table.Page{}, fault
	}
	if rows > 0 || page.Piece {
		page.Block = b.Buf
	}
	page.ReadUnits = int64(len(page.Block)+4095) / 4096
	return page, nil
}

// takePiece puts the next cells of one row into the page.
func (s *scan) takePiece(c *content, r *Row, cells []plainbuffer.Cell, b *plainbuffer.Builder, limit int, page *table.Page) error {
	page.Piece, page.First = true, s.cell == 0
	start, mark := min(s.cell, len(cells)), len(b.Buf)
	n := start
	for size := len(b.Buf) + keySize(c.def.Schema, r.Key); n < len(cells); n++ {
		size += cellSize(&cells[n])
		if size > limit {
			break
		}
	}
	if n == start && n < len(cells) {
		return fmt.Errorf("a page buffer of %d bytes cannot hold one cell of row %v", limit, r.Key)
	}
	b.Buf = b.Buf[:mark]
	appendRow(b, c.def.Schema, r.Key, cells[start:n])
	s.cell = n
	if n < len(cells) {
		page.Next = r.Key.Clone()
		return nil
	}
	s.piece, page.Last = false, true
	c.rows.Ascend(r, func(after *Row) bool {
		if after.Key.Equal(r.Key) {
			return true
		}
		if after.Key.Compare(s.end) < 0 {
			page.Next = after.Key.Clone()
		}
		return false
	})
	return nil
}

func keySize(schema table.Schema, key table.Key) int {
	n := 4 // the row's tags and its checksum
	for i, v := range key {
		n += len(schema[i].Name) + len(v.Bytes) + 8 + 24
	}
	return n
}

func cellSize(c *plainbuffer.Cell) int { return len(c.Name) + len(c.Data) + 29 }

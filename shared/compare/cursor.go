package compare

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// block is rows of one lane, or of one page of a table, in the order of their keys.
type block struct {
	rows []byte
	bare bool // rows stand without a block's header
	// piece says that the block is a single piece of one row, first and last whether it
	// is the row's first or last.
	piece, first, last bool
	served             time.Time // the date of a page
}

func blockOf(rows *shard.Rows) *block {
	return &block{rows: rows.Buf, bare: true, piece: rows.Continues || rows.Unfinished, first: !rows.Continues, last: !rows.Unfinished}
}

func (b *block) scan(s *plainbuffer.Scanner) {
	if b.bare {
		s.ResetRows(b.rows)
	} else {
		s.Reset(b.rows)
	}
}

// blocks yields blocks of rows in the order of their keys, then io.EOF. A block is valid
// until the next call.
type blocks func(ctx context.Context) (*block, error)

// laneBlocks are the blocks of a lane of the backup.
func laneBlocks(lane *sealed.Lane) blocks {
	return func(ctx context.Context) (*block, error) {
		rows, err := lane.Next(ctx)
		if err != nil {
			return nil, err
		}
		return blockOf(rows), nil
	}
}

// cursor reads the rows of one side, one by one, and the cells of each, one by one: a row
// that comes in pieces is never held as a whole.
type cursor struct {
	blocks  blocks
	block   *block
	scanner *plainbuffer.Scanner
	row     plainbuffer.Row
	at      int // of the row's cells
	// any says that there is a row; key is its key, valid until next is called.
	any bool
	key table.Key
	// open says that more pieces of the row will come.
	open   bool
	served time.Time // date of the newest page
	before table.Key
}

func newCursor(b blocks) *cursor { return &cursor{blocks: b, scanner: plainbuffer.NewScanner(nil)} }

// next goes to the next row.
func (c *cursor) next(ctx context.Context) error {
	for c.open {
		if err := c.piece(ctx); err != nil {
			return err
		}
	}
	c.key, c.before = c.before, c.key
	had := c.any
	err := c.read(ctx)
	if err == io.EOF {
		c.any = false
		return nil
	}
	if err != nil {
		return err
	}
	if c.block.piece && !c.block.first {
		return fmt.Errorf("%w: row %v begins in its middle", vault.ErrCorrupt, table.KeyOf(c.row.Key))
	}
	c.any, c.at, c.open = true, 0, c.block.piece && !c.block.last
	c.key = copyKey(c.key, c.row.Key)
	if had && c.before.Compare(c.key) >= 0 {
		return fmt.Errorf("%w: row %v stands after %v", vault.ErrCorrupt, c.key, c.before)
	}
	return nil
}

// read reads the next row of the block, or the first of the next block.
func (c *cursor) read(ctx context.Context) error {
	for {
		if c.block != nil {
			if err := c.scanner.Next(&c.row); err != io.EOF {
				return err
			}
		}
		b, err := c.blocks(ctx)
		if err != nil {
			return err
		}
		if c.block = b; !b.served.IsZero() {
			c.served = b.served
		}
		b.scan(c.scanner)
	}
}

// piece reads the next piece of the row.
func (c *cursor) piece(ctx context.Context) error {
	err := c.read(ctx)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("in row %v: %w", c.key, err)
	}
	if !c.block.piece || c.block.first || c.key.CompareCells(c.row.Key) != 0 {
		return fmt.Errorf("%w: row %v does not end", vault.ErrCorrupt, c.key)
	}
	c.at, c.open = 0, !c.block.last
	return nil
}

// cell returns the next cell of the row, nil after the last. It is valid until the next
// call.
func (c *cursor) cell(ctx context.Context) (*plainbuffer.Cell, error) {
	for c.at == len(c.row.Cells) {
		if !c.open {
			return nil, nil
		}
		if err := c.piece(ctx); err != nil {
			return nil, err
		}
	}
	c.at++
	return &c.row.Cells[c.at-1], nil
}

// copyKey copies the key of a scanned row into dst's memory.
func copyKey(dst table.Key, cells []plainbuffer.Cell) table.Key {
	for len(dst) < len(cells) {
		dst = append(dst, table.Value{})
	}
	dst = dst[:len(cells)]
	for i := range cells {
		dst[i].Type, dst[i].Int = cells[i].Type, cells[i].Int()
		dst[i].Bytes = append(dst[i].Bytes[:0], cells[i].Data...)
		if cells[i].Type == plainbuffer.Integer {
			dst[i].Bytes = dst[i].Bytes[:0]
		}
	}
	return dst
}

package shard

import (
	"errors"
	"fmt"

	"github.com/tablevault/tablevault/shared/table"
)

// ErrReadBack matches errors about blocks, and other parts of a shard, that a reader does
// not take, or not for what was written. Nothing that has one may be kept.
var ErrReadBack = errors.New("what was encoded does not read back")

// A proof reads an encoder's blocks back as a reader will.
type proof struct {
	decoder *decoder
	rows    Rows
	sent    [][]byte // the rows of the block, as they were added
}

func newProof(o Options) *proof { return &proof{decoder: newDecoder(o.Schema, o.Seed)} }

// reset begins another lane.
func (p *proof) reset() { clear(p.decoder.pieces) }

// clear lets go of the rows, and of memory that ordinary blocks do not need.
func (p *proof) clear() {
	clear(p.sent) // they would keep a page from being freed
	p.sent = p.sent[:0]
	p.decoder.shrink(&p.rows)
}

// read decodes a block and holds it against what was added. The decoder is a reader's,
// with its own account of the pieces of rows, and it sums up what it has decoded.
func (p *proof) read(b *Block) error {
	p.decoder.sent = p.sent
	rows := &p.rows
	if err := p.decoder.decode(b.data, rows); err != nil {
		return fmt.Errorf("%w: %v", ErrReadBack, err)
	}
	wrong := func(what string, got, want any) error {
		return fmt.Errorf("%w: it has %s %v, want %v", ErrReadBack, what, got, want)
	}
	as := b.account()
	switch {
	case rows.end != nil:
		return wrong("the kind", kindEnd, kindRows)
	case rows.Lane != b.Lane:
		return wrong("the lane", rows.Lane, b.Lane)
	case rows.Continues != as.continues || rows.Unfinished != as.unfinished || rows.Canonical != (b.flags&flagCanonical != 0):
		return wrong("flags unlike", rows.Canonical, b.flags)
	case rows.Len() != len(p.sent):
		return wrong("a number of rows", rows.Len(), len(p.sent))
	case rows.account().rows != b.Rows:
		return wrong("a number of rows that end", rows.account().rows, b.Rows)
	case rows.Digest != b.Digest:
		return wrong("the digest", rows.Digest, b.Digest)
	case !rows.First.Equal(b.First) || !rows.Last.Equal(b.Last):
		return wrong("rows from and to", table.Range{Start: rows.First, End: rows.Last}, table.Range{Start: b.First, End: b.Last})
	}
	return nil
}

// readBackEnd decodes the record of an end mark and holds it against what it is to tell.
func (w *Writer) readBackEnd(data []byte, want *Summary) error {
	var rows Rows
	if err := newDecoder(w.schema, w.seed).decode(data, &rows); err != nil {
		return fmt.Errorf("%w: the end mark: %v", ErrReadBack, err)
	}
	if rows.end == nil || !rows.end.equal(want) {
		return fmt.Errorf("%w: the end mark tells of %+v, want %+v", ErrReadBack, rows.end, want)
	}
	return nil
}

package restore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// writersInFlight is how many batches of a segment are on their way at a time, if memory
// allows: one waits for the network while others are encoded.
const writersInFlight = 16

// blockCopies is how many times a block's rows are in memory on their way from the shard
// to the service: decoded, and encoded into a request.
const blockCopies = 2

// pool is the memory of an invocation, which is kept from segment to segment.
type pool struct {
	memory  int64
	writers []*writer
	free    chan *shard.Rows // as many as there are writers, and one that is being read
}

func newPool(memory int64, to *target) *pool {
	p := &pool{memory: cmp.Or(memory, fanout.DefaultMemory)}
	n := int(min(max(p.memory/(blockCopies*shard.BlockBytes), 1), writersInFlight))
	p.free = make(chan *shard.Rows, n+1)
	for range n {
		p.writers = append(p.writers, &writer{target: to, batch: to.tables.NewBatch()})
	}
	return p
}

// fill has as many blocks free as there may be: none were so far, or a part broke off.
func (p *pool) fill() {
	for len(p.free) < cap(p.free) {
		p.free <- new(shard.Rows)
	}
}

// release takes back the memory of a block.
func (p *pool) release(rows *shard.Rows) {
	if cap(rows.Buf) > 2*shard.BlockBytes {
		rows = new(shard.Rows) // it held an uncommonly wide row
	}
	p.free <- rows
}

// cost is how much memory a block takes on its way, in bytes.
func (p *pool) cost(rows *shard.Rows) int64 {
	return min(blockCopies*int64(len(rows.Buf)), p.memory)
}

// partLoad is the making of one entry of a segment's log: some blocks of one part, read
// in their order and written side by side.
type partLoad struct {
	run     fanout.Run
	pool    *pool
	from    int64 // the first block that is to be written
	account *account
	// whole says that nothing of the part is left, and that the stored bytes were the
	// recorded ones.
	whole bool
}

// numbered is a block on its way to a writer.
type numbered struct {
	n    int64
	rows *shard.Rows
}

// load writes the blocks of a part, and leaves in the account how far it came.
func (p *partLoad) load(ctx context.Context, source *sealed.Segment, part *vault.Part) error {
	// A batch that does not get through must not take the time that is needed
	// to save what did.
	writing, cancel := p.run.InTime(ctx)
	defer cancel()
	err := p.blocks(writing, source, part)
	if err == nil {
		return nil
	}
	p.whole = false
	if p.account.next > p.from && writing.Err() != nil && ctx.Err() == nil {
		return nil // time ran out, and there is something to save
	}
	return err
}

// blocks reads and decodes the blocks here, in their order; they are written on the side.
// What is being written is bounded in bytes, whatever the size of a block; one more block
// is being read.
func (p *partLoad) blocks(ctx context.Context, source *sealed.Segment, part *vault.Part) error {
	stream, err := source.Open(ctx, part)
	if err != nil {
		return err
	}
	defer stream.Close()
	p.pool.fill()
	budget := semaphore.NewWeighted(p.pool.memory)
	blocks := make(chan numbered)
	group, ctx := guard.WithContext(ctx)
	for _, w := range p.pool.writers {
		group.Go(func() error {
			for b := range blocks {
				held := p.pool.cost(b.rows)
				if err := w.block(ctx, p.account, b); err != nil {
					return err
				}
				p.pool.release(b.rows)
				budget.Release(held)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(blocks)
		return p.read(ctx, stream, budget, blocks)
	})
	return group.Wait()
}

// read hands blocks to the writers, until the part ends, or time is up, or so much was
// refused that it should be written down.
func (p *partLoad) read(ctx context.Context, stream *sealed.Shard, budget *semaphore.Weighted, blocks chan<- numbered) error {
	for n := int64(0); ; n++ {
		if n > p.from && (p.run.Stopping() || p.account.full()) {
			return nil
		}
		b := numbered{n: n}
		select {
		case b.rows = <-p.pool.free:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := stream.Next(b.rows)
		if err == io.EOF {
			p.pool.release(b.rows)
			p.whole = true
			return nil
		}
		if err != nil {
			return err
		}
		if n < p.from {
			p.pool.release(b.rows) // loaded before; read again for the hash
			continue
		}
		if err := budget.Acquire(ctx, p.pool.cost(b.rows)); err != nil {
			return err
		}
		select {
		case blocks <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// The bounds of quarantine. A restore of which more is refused has another cause than
// single bad rows, and stops.
const (
	// firstRefusals is how many rows must be refused with one code, and none accepted,
	// for that to be the fate of all.
	firstRefusals = 20
	// maxQuarantined and one row in maxQuarantinedShare, whichever is more, may be
	// refused in a segment.
	maxQuarantined      = 1000
	maxQuarantinedShare = 100
	// quarantineBytes is the size of refused rows at which they are written down, so that
	// they need not be kept.
	quarantineBytes = 4 << 20
)

// account is what became of the blocks of an entry.
type account struct {
	before *position // where the log stands

	mu sync.Mutex // guards what follows
	// next is the first block that is not written, sum is about those before it that this
	// entry wrote. Blocks after it wait in written: only what has no gap can stand in the
	// log.
	next    int64
	sum     blockLoad
	written map[int64]*blockLoad
	// What the service took and refused so far, in whatever block.
	took  int64           // rows and pieces of rows
	size  int             // of the refused, in bytes
	keys  map[string]bool // of the refused
	codes map[string]int  // how often each was given
}

// blockLoad is what became of a block.
type blockLoad struct {
	rows    int64 // that end in it, refused ones among them
	bytes   int64
	units   int64
	digest  table.Digest
	refused []vault.Refused
}

func newAccount(before *position) *account {
	return &account{before: before, next: before.block, written: map[int64]*blockLoad{}, keys: map[string]bool{}, codes: map[string]int{}}
}

// full says that the refused rows should be written down before more come.
func (a *account) full() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.size >= quarantineBytes
}

// finish takes account of a block that is written.
func (a *account) finish(n int64, b *blockLoad) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.written[n] = b
	for b := a.written[a.next]; b != nil; b = a.written[a.next] {
		delete(a.written, a.next)
		a.next++
		a.sum.rows += b.rows
		a.sum.bytes += b.bytes
		a.sum.units += b.units
		a.sum.digest.Add(b.digest)
		a.sum.refused = append(a.sum.refused, b.refused...)
	}
}

// wrote takes account of a batch of a block, of which so many rows were taken or refused,
// and stops the restore if too much was refused.
func (a *account) wrote(b *blockLoad, result *table.WriteResult, rows []pendingRow, decided int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	b.units += result.WriteUnits
	a.took += int64(decided - len(result.Refused))
	for _, f := range result.Refused {
		if f.Index < 0 || f.Index >= len(rows) {
			return fmt.Errorf("the service refused row %d of a batch of %d", f.Index, len(rows))
		}
		var row plainbuffer.Row
		raw := bytes.Clone(rows[f.Index].raw)
		if _, err := plainbuffer.Scan(raw, &row); err != nil {
			return err
		}
		key := table.KeyOf(row.Key)
		b.refused = append(b.refused, vault.Refused{Key: key, Row: raw, Code: f.Code, Reason: f.Message})
		a.size += len(raw) + len(f.Message)
		a.keys[key.String()] = true
		a.codes[f.Code]++
	}
	if len(result.Refused) == 0 {
		return nil
	}
	last := b.refused[len(b.refused)-1]
	count := a.before.quarantined + int64(len(a.keys))
	if a.before.accepted+a.took == 0 && len(a.codes) == 1 && count >= firstRefusals {
		return table.Invalidf("the service refused the first %d rows and took none, for one reason: %s: %s (row %v)",
			count, last.Code, last.Reason, last.Key)
	}
	if most := max(maxQuarantined, a.before.total/maxQuarantinedShare); count > most {
		return table.Invalidf("the service refused %d rows of this segment, more than %d; the last one %v for %s: %s",
			count, most, last.Key, last.Code, last.Reason)
	}
	return nil
}

package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// part reads the lanes from where the log stands into one shard, until the shard is large
// enough, run says stop, or the lanes have ended. It returns nil and an error if nothing
// could be kept; a part and an error if reading broke off and what was read before can be
// kept.
func (r *segmentRun) part(ctx context.Context) (*vault.Part, error) {
	x, log := r.export, r.log
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name := x.backup.Shard(log.Segment.ID, repository.RandomName())
	up, err := x.exporter.Repo.CreateData(ctx, name, x.plan.Encryption)
	if err != nil {
		return nil, err
	}
	w, err := shard.NewWriter(up, shard.Header{
		Vault: x.exporter.Repo.Header.ID, Backup: string(x.backup.ID), Table: x.backup.Table.Path(), Segment: string(log.Segment.ID),
		Schema: x.plan.Definition.Schema, Seed: uint64(x.exporter.Repo.Header.Seed),
	})
	if err != nil {
		return nil, up.Abort(err)
	}
	p := &partRun{export: x, writer: w, limit: x.plan.Settings.PartBytes}
	p.lanes = make([]laneRun, len(log.Next))
	for i, lane := range log.Segment.Lanes() {
		p.lanes[i] = laneRun{at: i, from: log.Next[i], next: log.Next[i], end: lane.End}
	}
	watched := r.watchAsk(ctx, p.stop)
	readErr := p.read(ctx)
	read := time.Now()
	watched()
	if p.broken != nil || readErr != nil && (p.pages == 0 || ctx.Err() != nil) {
		return nil, up.Abort(cmp.Or(p.broken, readErr))
	}
	if !p.further() {
		return nil, up.Abort(cmp.Or(readErr, errNoFurther))
	}
	part := p.record()
	sum, err := w.Finish(p.ends())
	if err != nil {
		return nil, up.Abort(err)
	}
	if part.Shard, err = up.Finish(); err != nil {
		return nil, err
	}
	if sum.Rows != part.Walked {
		return nil, fmt.Errorf("%w: the shard has %d rows, %d were walked", shard.ErrReadBack, sum.Rows, part.Walked)
	}
	part.Rows, part.Digest = sum.Rows, sum.Digest
	index, err := x.exporter.Repo.CreateData(ctx, vault.Index(name), x.plan.Encryption)
	if err != nil {
		return nil, err
	}
	if err := w.WriteIndex(index); err != nil {
		return nil, index.Abort(err)
	}
	if part.Index, err = index.Finish(); err != nil {
		return nil, err
	}
	part.ClosingMS, part.Pace = time.Since(read).Milliseconds(), x.throttle.Take()
	return part, readErr
}

// partRun is one shard in the making.
type partRun struct {
	export *export
	limit  int64
	lanes  []laneRun

	mu      sync.Mutex // guards what follows
	writer  *shard.Writer
	closing bool
	broken  error // the shard can't be finished
	pages   int
	walked  int64
	raw     int64
	units   int64
	first   time.Time
	latest  time.Time
}

// laneRun is one lane of the part: what was read and what is next.
type laneRun struct {
	at              int
	from, next, end table.Key
	rows            int64
	encoder         *shard.Encoder // while the lane encodes
}

// release gives the lane's encoder back.
func (p *partRun) release(l *laneRun) {
	if l.encoder != nil {
		p.export.encoders <- l.encoder
		l.encoder = nil
	}
}

// read runs the lanes side by side. The error is the first that a lane met; all other
// lanes stop at their next page.
func (p *partRun) read(ctx context.Context) error {
	e := p.export.exporter
	// A page that does not come must not take the time that is needed to save
	// those that came.
	pages := ctx
	if !p.export.run.Stop.IsZero() {
		late := p.export.run.Until.Sub(p.export.run.Stop) / 2
		var cancel context.CancelFunc
		pages, cancel = context.WithTimeout(ctx, p.export.run.Stop.Sub(p.export.run.Now())+late)
		defer cancel()
	}
	open := 0
	for i := range p.lanes {
		if !p.lanes[i].next.Equal(p.lanes[i].end) {
			open++
		}
	}
	p.export.open = max(open, 1)
	size := p.export.pageSize()
	var lanes guard.Group
	// With little memory fewer lanes read at a time.
	lanes.SetLimit(max(1, int(e.memory()/table.MinPage)))
	for i := range p.lanes {
		l := &p.lanes[i]
		if l.next.Equal(l.end) {
			continue
		}
		lanes.Go(func() error {
			buf := e.pages.Get(size)
			defer e.pages.Put(buf)
			err := p.lane(pages, l, buf)
			if err != nil {
				p.stop()
			}
			return err
		})
	}
	err := lanes.Wait()
	if err != nil && p.pages > 0 && pages.Err() != nil && ctx.Err() == nil {
		return nil // time ran out, and there is something to save
	}
	return err
}

func (p *partRun) stop() {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
}

// stopping says whether a lane that stands between two rows should end its share of the
// part here.
func (p *partRun) stopping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing || p.writer.Bytes() >= p.limit || p.writer.Full() || p.export.run.Stopping()
}

func (p *partRun) lane(ctx context.Context, l *laneRun, buf []byte) error {
	schema := p.export.plan.Definition.Schema
	scan := p.export.exporter.Tables.Scan(p.export.plan.Definition.Name, schema, table.Range{Start: l.next, End: l.end})
	scanner := plainbuffer.NewScanner(nil)
	var row plainbuffer.Row
	inRow := false
	defer p.release(l)
	for {
		page, err := p.next(ctx, l, scan, buf, inRow)
		switch {
		case err == errStopping:
			return nil
		case err == io.EOF:
			return fmt.Errorf("read %v: the scan ended without saying that the range is done", table.Range{Start: l.next, End: l.end})
		case err != nil && inRow:
			return p.breakOff(err) // the shard holds a row that does not end
		case err != nil:
			return err
		}
		next := page.Next
		if next == nil {
			next = l.end
		}
		if !page.Piece && next.Compare(l.next) <= 0 || next.Compare(l.end) > 0 {
			return fmt.Errorf("read from %v to %v: the service says that %v is next", l.next, l.end, next)
		}
		rows := l.rows
		if err := p.page(l, &page, next, scanner, &row); err != nil {
			return p.breakOff(err) // the shard may hold a part of the page
		}
		fanout.Come(ctx, l.rows-rows, int64(max(0, len(page.Block)-plainbuffer.HeaderSize)))
		if inRow = page.Piece && !page.Last; inRow {
			continue
		}
		p.release(l)
		l.next = next
		if l.next.Equal(l.end) || p.stopping() {
			return nil
		}
	}
}

// errStopping says that a lane ends its share of the part.
var errStopping = errors.New("the part ends here")

// next reads the next page of a lane when its turn comes. Inside of a row there is no end
// but the row's; between two it may return errStopping. It returns io.EOF as the scan
// does.
func (p *partRun) next(ctx context.Context, l *laneRun, scan table.Scan, buf []byte, inRow bool) (page table.Page, err error) {
	q := throttle.Request{What: fmt.Sprintf("read from %v", l.next)}
	if !inRow {
		q.Until = p.export.run.Stop
		q.Ready = func(context.Context) error {
			if l.next.Compare(l.from) > 0 && p.stopping() {
				return errStopping
			}
			return nil
		}
	}
	err = p.export.throttle.Do(ctx, q, func(ctx context.Context, aim int) (int64, error) {
		scan.Aim(aim * table.UnitBytes)
		var err error
		if page, err = scan.Next(ctx, buf); err != nil && err != io.EOF {
			err = fmt.Errorf("%s: %w", q.What, err)
		}
		return page.ReadUnits, err
	})
	return page, err
}

// page walks a page, encodes its rows and appends them to the shard. The rows lie between
// where the lane stands and next.
func (p *partRun) page(l *laneRun, page *table.Page, next table.Key, scanner *plainbuffer.Scanner, row *plainbuffer.Row) error {
	// The encoder that has begun a row ends it.
	if l.encoder == nil {
		l.encoder = <-p.export.encoders
		l.encoder.Reset(l.at)
	}
	scanner.Reset(page.Block)
	walked, left, err := p.encode(l, page, scanner, row)
	if err == nil {
		err = endsBefore(next, l.next, page, walked, row)
	}
	if err == nil {
		err = p.append(l.encoder, page, left)
	}
	if err == nil {
		p.count(l, page, ending(page, walked))
	}
	return err
}

// encode encodes the rows of a page in blocks of equal size, and appends all but the last
// block. It returns how many rows were walked, and how many of them are left for the
// last; row is the last of all.
func (p *partRun) encode(l *laneRun, page *table.Page, scanner *plainbuffer.Scanner, row *plainbuffer.Row) (walked, left int64, err error) {
	schema := p.export.plan.Definition.Schema
	blocks := max(1, (len(page.Block)+shard.BlockBytes-1)/shard.BlockBytes)
	target := len(page.Block) / blocks // none is much below it
	for {
		err := scanner.Next(row)
		if err == io.EOF {
			return walked, left, nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("the page from %v: %w", l.next, err)
		}
		if err := schema.CheckKey(row.Key); err != nil {
			return 0, 0, table.Invalidf("the table's schema is not the planned one: %w", err)
		}
		if walked == 0 && l.next.CompareCells(row.Key) > 0 {
			return 0, 0, fmt.Errorf("the page from %v begins with the row %v", l.next, table.KeyOf(row.Key))
		}
		walked, left = walked+1, left+1
		full := false
		if page.Piece {
			full, err = l.encoder.AddPiece(row, page.First, page.Last)
		} else {
			full, err = l.encoder.Add(row)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("the page from %v: %w", l.next, err)
		}
		if full || l.encoder.RawBytes() >= target {
			if err := p.append(l.encoder, page, left); err != nil {
				return 0, 0, err
			}
			left = 0
		}
	}
}

// endsBefore proves that a page from a key on, of so many rows, the last of which is row,
// ends before next, or holds one piece of the row that is next.
func endsBefore(next, from table.Key, page *table.Page, walked int64, row *plainbuffer.Row) error {
	switch {
	case walked > 0 && (!page.Piece || page.Last) && next.CompareCells(row.Key) <= 0:
		return fmt.Errorf("the page from %v to %v holds the row %v", from, next, table.KeyOf(row.Key))
	case page.Piece && walked != 1:
		return fmt.Errorf("the page from %v: %d pieces of a row, want one", from, walked)
	case page.Piece && !page.Last && next.CompareCells(row.Key) != 0:
		return fmt.Errorf("the page from %v: a piece of the row %v, after which the service goes on at %v", from, table.KeyOf(row.Key), next)
	}
	return nil
}

// count takes account of a page that is in the shard, in which so many rows end.
func (p *partRun) count(l *laneRun, page *table.Page, rows int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.rows += rows
	p.walked += rows
	p.raw += int64(max(0, len(page.Block)-plainbuffer.HeaderSize))
	p.units += page.ReadUnits
	p.pages++
	if p.first.IsZero() || page.ServerTime.Before(p.first) {
		p.first = page.ServerTime
	}
	if page.ServerTime.After(p.latest) {
		p.latest = page.ServerTime
	}
}

// ending is how many of the rows that were walked in a page end in it.
func ending(page *table.Page, walked int64) int64 {
	if page.Piece && !page.Last {
		return 0
	}
	return walked
}

// append moves what the encoder holds into the shard: so many rows as were walked since
// it did last, read back.
func (p *partRun) append(encoder *shard.Encoder, page *table.Page, walked int64) error {
	flush := p.export.exporter.flush
	if flush == nil {
		flush = (*shard.Encoder).Flush
	}
	block, err := flush(encoder)
	if err == nil && block != nil && int64(block.Rows) != ending(page, walked) {
		err = fmt.Errorf("%w: a block of %d rows, %d were walked", shard.ErrReadBack, block.Rows, ending(page, walked))
	}
	if err == nil && block == nil && walked > 0 {
		err = fmt.Errorf("%w: no block of %d rows that were walked", shard.ErrReadBack, walked)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("block %d of the shard: %w", p.writer.Blocks(), err)
	}
	if block == nil {
		return nil
	}
	if err := p.writer.Append(block); err != nil {
		return fmt.Errorf("write the shard: %w", err)
	}
	return nil
}

// breakOff records that the shard can't be finished.
func (p *partRun) breakOff(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = err
	}
	return err
}

// errNoFurther is about pages that have brought no lane further: a part of them would
// hold nothing, and stand in the way of the next.
var errNoFurther = errors.New("no lane has come further before the time was up")

// further says whether a lane has come further.
func (p *partRun) further() bool {
	for _, l := range p.lanes {
		if l.next.Compare(l.from) > 0 {
			return true
		}
	}
	return false
}

func (p *partRun) ends() []shard.Lane {
	lanes := make([]shard.Lane, len(p.lanes))
	for i, l := range p.lanes {
		lanes[i] = shard.Lane{From: l.from, Next: l.next, Rows: l.rows}
	}
	return lanes
}

func (p *partRun) record() *vault.Part {
	part := &vault.Part{
		Walked: p.walked, RawBytes: p.raw, ReadUnits: p.units, First: p.first.UTC(), Latest: p.latest.UTC(), Last: true,
	}
	for _, l := range p.lanes {
		part.Lanes = append(part.Lanes, vault.Lane{From: l.from, Next: l.next, Rows: l.rows})
		part.Last = part.Last && l.next.Equal(l.end)
	}
	return part
}

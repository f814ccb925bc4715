package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/pace"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// comparer compares segments of a backup with a table, in both directions.
//
// First each lane is summed up on both sides, as a count and a digest, in one
// pass over the shards and one scan of the table. Lanes whose sums differ are
// read again, in the order of their keys, and compared row by row.
type comparer struct {
	repo   *repository.Repository
	source *restoreSource
	tables table.Instance
	// def is the table compared with, as it is now.
	def table.Definition
	// ttl is the one that the table is to get after it is compared, in seconds; 0 for none.
	ttl    int32
	memory int64
	pages  table.Pages
	pace   *pace.Pacer // of the reads of the table
}

// Cells past their TTL are served or not as the service comes around to it, so
// both sides leave them out.
const (
	// serverMargin is by how much the date of an answer may differ from the
	// clock that the cells of its page were held against: dates have a
	// resolution of a second.
	serverMargin = 2 * time.Second
	// sumHorizon is how long a lane's scan may take for its sums to be compared.
	// The sums leave out what expires within it, since both must leave out the
	// same; rows that are compared one by one need no such allowance.
	sumHorizon = 10 * time.Minute
)

// newComparer compares a backup with the table that def describes, which is read at a
// pace. It must have the backup's key columns.
func newComparer(r *repository.Repository, source *restoreSource, tables table.Instance, def table.Definition, memory int64, pace *pace.Pacer) (*comparer, error) {
	name := def.Name
	want := source.plan.Definition.Schema
	if len(def.Schema) != len(want) {
		return nil, table.Invalidf("compare with %s: its primary key has %s, the backup's has %d", name, many(int64(len(def.Schema)), "column"), len(want))
	}
	for i := range want {
		if def.Schema[i].Name != want[i].Name || def.Schema[i].Type != want[i].Type {
			return nil, table.Invalidf("compare with %s: key column %d is %s %q, the backup's is %s %q",
				name, i+1, def.Schema[i].Type, def.Schema[i].Name, want[i].Type, want[i].Name)
		}
	}
	if memory == 0 {
		memory = fanout.DefaultMemory
	}
	return &comparer{repo: r, source: source, tables: tables, def: def, memory: memory, pace: pace}, nil
}

// comparison is the comparison of one segment, or of what is left of it.
type comparison struct {
	log *fanout.SegmentLog
	// quarantined are the keys, as Key.String gives them, of rows that the service
	// refused.
	quarantined map[string]bool
	// run says when to stop; never, if it is zero. The first lane that is left is not
	// stopped, so that each start comes further.
	run   fanout.Run
	first int
	// before are the lanes that were compared before, done those that are by now, and
	// rows what was found in these; cut says that more are left.
	before map[int]bool
	done   []int
	rows   vault.Check
	cut    bool
}

// errCut says that time ran out before a lane was compared.
var errCut = errors.New("time is up")

// segment compares the rows of one segment, lane by lane. Where there is a rate to
// keep, earlier lanes go first, so that some are done when time is up: then it ends
// between two pages of a lane, and leaves that to another.
func (c *comparer) segment(ctx context.Context, x *comparison, check *vault.Check) error {
	ctx = table.OnThrottled(ctx, c.pace.Refused)
	lanes := covered(x.log)
	x.done, x.rows, x.cut = nil, vault.Check{}, false
	for x.first = 0; x.before[x.first]; x.first++ {
	}
	cutoff, err := c.cutoff(ctx, x)
	if err != nil {
		return err
	}
	ours, theirs := make([]*tally, len(lanes)), make([]*tally, len(lanes))
	for i := range lanes {
		ours[i] = newTally(c.repo, c.def.Options, cutoff)
		theirs[i] = newTally(c.repo, c.def.Options, cutoff)
		theirs[i].lapses.ttl = int64(c.ttl) * 1000
	}
	corrupted := check.Corrupted
	summed := make([]bool, len(lanes)) // theirs, and not settled
	found := make([]*vault.Check, len(lanes))
	read := make(chan struct{}) // closed when ours are
	var one sync.Mutex          // lanes are compared row by row one at a time
	group, gctx := guard.WithContext(ctx)
	group.Go(func() error {
		_, err := readSegment(gctx, c.repo, c.source, x.log, check, func(lane int, b *block, row *plainbuffer.Row) { ours[lane].add(b, row) })
		if err == nil {
			close(read)
		}
		return err
	})
	settle := func(ctx context.Context, i int) error {
		one.Lock()
		defer one.Unlock()
		summed[i] = false
		check, err := c.settle(ctx, x, i, lanes, ours[i], theirs[i], cutoff)
		if errors.Is(err, errCut) {
			return nil
		}
		found[i] = check
		return err
	}
	group.Go(func() error {
		scans, sctx := guard.WithContext(gctx)
		scans.SetLimit(c.pagesInFlight(len(lanes)))
		for i, lane := range lanes {
			if x.before[i] {
				continue
			}
			scans.Go(func() error {
				if !lane.Empty() {
					if err := c.scan(sctx, x, i, lane, len(lanes), theirs[i]); errors.Is(err, errCut) {
						return nil
					} else if err != nil {
						return err
					}
				}
				summed[i] = true
				select {
				case <-read:
					if check.Corrupted == corrupted {
						return settle(sctx, i)
					}
				default:
				}
				return nil
			})
		}
		return scans.Wait()
	})
	err = group.Wait()
	// Corruption is a finding, and then there is nothing to compare: what the
	// shards do not tell would look like rows too many.
	if err == nil && check.Corrupted > corrupted {
		return nil
	}
	for i := range lanes {
		if err == nil && summed[i] {
			err = settle(ctx, i)
		}
	}
	for i := range lanes {
		if found[i] != nil {
			x.done = append(x.done, i)
			x.rows.Add(*found[i])
		}
	}
	// A page that does not come in time is as good as one that was not asked for.
	if late := ctx.Err() != nil && len(x.done) > 0; err != nil && !late {
		return err
	}
	x.cut = len(x.before)+len(x.done) < len(lanes)
	check.Add(x.rows)
	return nil
}

// settle compares a lane of which both sides are summed up.
func (c *comparer) settle(ctx context.Context, x *comparison, i int, lanes []table.Range, ours, theirs *tally, cutoff int64) (*vault.Check, error) {
	found := &vault.Check{
		Digest: ours.whole.digest, TargetDigest: theirs.sum(), Rows: ours.whole.n, Target: theirs.whole.n,
		Lapsed: theirs.lapses.past, Lapsing: theirs.lapses.soon,
	}
	if lanes[i].Empty() || ours.equals(theirs, cutoff) {
		found.Expired = ours.expired
		return found, nil
	}
	if err := c.lane(ctx, x, i, lanes, found); err != nil || cutoff != 0 {
		return found, err
	}
	// The table was read once more, and counts as it was then.
	found.Target = found.Rows - found.Missing + found.Extra
	if found.Missing+found.Extra+found.Changed == 0 {
		found.TargetDigest = found.Digest
	}
	return found, nil
}

// covered are the ranges that a segment's own parts hold: its lanes, as far as
// it came before it was split.
func covered(log *fanout.SegmentLog) []table.Range {
	lanes := log.Segment.Lanes()
	for i := range lanes {
		lanes[i].End = log.Next[i]
	}
	return lanes
}

// cutoff is the instant, in milliseconds, before which a cell must not expire
// to be summed up; 0 if nothing expires.
func (c *comparer) cutoff(ctx context.Context, x *comparison) (int64, error) {
	if c.def.Options.TTL <= 0 {
		return 0, nil
	}
	buf := c.pages.Get(table.MaxPage)
	defer c.pages.Put(buf)
	page, err := c.next(ctx, x, x.first, c.tables.Scan(c.def.Name, c.def.Schema, x.log.Segment.Range()), buf)
	if err != nil {
		return 0, err
	}
	return page.ServerTime.Add(sumHorizon).UnixMilli(), nil
}

// scan sums up a lane of the table.
func (c *comparer) scan(ctx context.Context, x *comparison, lane int, r table.Range, lanes int, sum *tally) error {
	buf := c.page(lanes)
	defer c.pages.Put(buf)
	rows := c.live(x, lane, r, buf)
	var row plainbuffer.Row
	scanner := plainbuffer.NewScanner(nil)
	for {
		b, err := rows(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		sum.at(b.served)
		b.scan(scanner)
		before := sum.whole.n
		for {
			if err := scanner.Next(&row); err == io.EOF {
				break
			} else if err != nil {
				return fmt.Errorf("read %s: %w", c.def.Name, err)
			}
			sum.add(b, &row)
		}
		fanout.Come(ctx, sum.whole.n-before, int64(len(b.rows)))
	}
}

// pagesInFlight is how many of a segment's lanes are scanned at a time: with
// little memory not all, since a page must hold the largest cell.
func (c *comparer) pagesInFlight(lanes int) int {
	return max(1, min(lanes, int(c.memory/table.MinPage)))
}

// page is a buffer for the pages of one of a segment's lanes.
func (c *comparer) page(lanes int) []byte {
	return c.pages.Get(int(min(max(c.memory/int64(c.pagesInFlight(lanes)), table.MinPage), table.MaxPage)))
}

// live reads a lane of the table into buf, page by page. The error matches errCut
// when time is up.
func (c *comparer) live(x *comparison, lane int, r table.Range, buf []byte) blocks {
	scan := c.tables.Scan(c.def.Name, c.def.Schema, r)
	over := false
	return func(ctx context.Context) (*block, error) {
		if over {
			return nil, io.EOF
		}
		page, err := c.next(ctx, x, lane, scan, buf)
		if err != nil {
			return nil, err
		}
		over = page.Next == nil
		return &block{rows: page.Block, piece: page.Piece, first: page.First, last: page.Last, served: page.ServerTime}, nil
	}
}

// next reads the next page of a scan of a lane of the table, which is not over, when
// its turn comes. The error matches errCut when time is up.
func (c *comparer) next(ctx context.Context, x *comparison, lane int, scan table.Scan, buf []byte) (table.Page, error) {
	until := x.run.Stop
	if lane == x.first {
		until = time.Time{}
	}
	aside, err := c.pace.Wait(ctx, until, int64(lane), 0)
	if err != nil {
		return table.Page{}, fmt.Errorf("wait to read %s: %w", c.def.Name, err)
	}
	if lane != x.first && x.run.Stopping() {
		c.pace.Failed()
		return table.Page{}, fmt.Errorf("read %s: %w", c.def.Name, errCut)
	}
	scan.Aim(c.pace.Aim() * table.UnitBytes)
	asked := time.Now()
	page, err := scan.Next(ctx, buf)
	if err != nil {
		c.pace.Failed()
		return page, fmt.Errorf("read %s: %w", c.def.Name, err)
	}
	c.pace.Took(aside, page.ReadUnits, time.Since(asked))
	return page, nil
}

// blocks yields blocks of rows in the order of their keys, then io.EOF. A block
// is valid until the next call.
type blocks func(ctx context.Context) (*block, error)

// set is a number of rows and their digest.
type set struct {
	n      int64
	digest table.Digest
}

func (s *set) add(d table.Digest) {
	s.n++
	s.digest.Add(d)
}

func (s set) plus(o set) set {
	s.n += o.n
	s.digest.Add(o.digest)
	return s
}

// tally sums up the rows of one range on one side.
type tally struct {
	options table.Options
	cutoff  int64
	hasher  *table.Hasher
	long    *table.Hasher // of the row that comes in pieces
	all     *table.Hasher // of the same with all of its cells, where some expire
	kept    []plainbuffer.Cell
	// full are the rows that have a cell, hollow those without any, ghosts
	// those that had some, all of them expired; whole are all, with all of their cells.
	full, hollow, ghosts, whole set
	expired                     int64
	latest                      time.Time // of the pages
	cells, left                 int64     // of the row in pieces: all, and not expired
	seed                        uint64
	lapses                      lapses
}

func newTally(r *repository.Repository, o table.Options, cutoff int64) *tally {
	seed := uint64(r.Header.Seed)
	return &tally{options: o, cutoff: cutoff, hasher: table.NewHasher(seed), seed: seed}
}

func (t *tally) at(served time.Time) {
	if served.After(t.latest) {
		t.latest = served
	}
}

func (t *tally) add(b *block, row *plainbuffer.Row) {
	if t.lapses.ttl > 0 {
		t.lapses.add(b, row.Cells)
	}
	cells := t.keep(row.Cells)
	if !b.piece {
		kept := *row
		kept.Cells = cells
		d := t.hasher.Row(&kept)
		t.count(d, len(row.Cells) == 0, len(cells) == 0)
		if len(cells) < len(row.Cells) {
			d = t.hasher.Row(row)
		}
		t.whole.add(d)
		return
	}
	if b.first {
		if t.long == nil {
			t.long, t.all = table.NewHasher(t.seed), table.NewHasher(t.seed)
		}
		t.long.Begin(row.Key)
		if t.cutoff != 0 {
			t.all.Begin(row.Key)
		}
		t.cells, t.left = 0, 0
	}
	t.long.Cells(cells)
	if t.cutoff != 0 {
		t.all.Cells(row.Cells)
	}
	t.cells += int64(len(row.Cells))
	t.left += int64(len(cells))
	if b.last {
		d := t.long.End()
		t.count(d, t.cells == 0, t.left == 0)
		if t.cutoff != 0 {
			d = t.all.End()
		}
		t.whole.add(d)
	}
}

func (t *tally) count(d table.Digest, hollow, empty bool) {
	switch {
	case hollow:
		t.hollow.add(d)
	case empty:
		t.ghosts.add(d)
	default:
		t.full.add(d)
	}
}

// keep returns the cells that do not expire before the cutoff.
func (t *tally) keep(cells []plainbuffer.Cell) []plainbuffer.Cell {
	if t.cutoff == 0 {
		return cells
	}
	for i := range cells {
		if !t.options.Expired(cells[i].Timestamp, t.cutoff) {
			continue
		}
		t.kept = append(t.kept[:0], cells[:i]...)
		for _, c := range cells[i:] {
			if !t.options.Expired(c.Timestamp, t.cutoff) {
				t.kept = append(t.kept, c)
			}
		}
		t.expired += int64(len(cells) - len(t.kept))
		return t.kept
	}
	return cells
}

// lapses counts what a table loses by the TTL that it is to get, at the date of each page.
type lapses struct {
	ttl        int64 // in milliseconds, 0 for none
	past, soon vault.Lapse
	// Of the row at hand, of whose cells that many are past, or will be soon.
	cells, lapsed, lapsing int64
}

// lapsesSoon is how far ahead is looked.
const lapsesSoon = 24 * time.Hour

func (l *lapses) add(b *block, cells []plainbuffer.Cell) {
	if !b.piece || b.first {
		l.cells, l.lapsed, l.lapsing = 0, 0, 0
	}
	oldest := b.served.UnixMilli() - l.ttl
	for i := range cells {
		switch at := cells[i].Timestamp; {
		case at < oldest:
			l.lapsed++
		case at < oldest+lapsesSoon.Milliseconds():
			l.lapsing++
		}
	}
	if l.cells += int64(len(cells)); b.piece && !b.last {
		return
	}
	l.past.Cells, l.soon.Cells = l.past.Cells+l.lapsed, l.soon.Cells+l.lapsing
	switch {
	case l.cells == 0:
	case l.lapsed == l.cells:
		l.past.Rows++
	case l.lapsed+l.lapsing == l.cells:
		l.soon.Rows++
	}
}

func (t *tally) sum() table.Digest { return t.full.plus(t.hollow).digest }

// equals says whether the table's sums are the backup's. Rows all of whose
// cells have expired may be served as rows without cells, or not at all.
func (t *tally) equals(live *tally, cutoff int64) bool {
	if cutoff != 0 && live.latest.Add(serverMargin).UnixMilli() >= cutoff {
		return false
	}
	bare := live.hollow.plus(live.ghosts)
	return t.full == live.full && (bare == t.hollow || bare == t.hollow.plus(t.ghosts))
}

// lane compares the rows of one lane, one by one.
func (c *comparer) lane(ctx context.Context, x *comparison, lane int, lanes []table.Range, check *vault.Check) error {
	ours := newCursor(laneBlocks(c.repo, c.source, x.log, lane))
	buf := c.page(len(lanes))
	defer c.pages.Put(buf)
	theirs := newCursor(c.live(x, lane, lanes[lane], buf))
	if err := ours.next(ctx); err != nil {
		return err
	}
	if err := theirs.next(ctx); err != nil {
		return err
	}
	d := differ{comparer: c, check: check, quarantined: x.quarantined}
	for ours.any || theirs.any {
		order := 0
		switch {
		case !theirs.any:
			order = -1
		case !ours.any:
			order = 1
		default:
			order = ours.key.Compare(theirs.key)
		}
		var err error
		switch {
		case order < 0:
			err = d.alone(ctx, ours, theirs.served, "missing")
		case order > 0:
			err = d.alone(ctx, theirs, theirs.served, "extra")
		default:
			err = d.both(ctx, ours, theirs)
		}
		if err == nil && order <= 0 {
			err = ours.next(ctx)
		}
		if err == nil && order >= 0 {
			err = theirs.next(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// differ takes account of rows that are compared one by one.
type differ struct {
	*comparer
	check       *vault.Check
	quarantined map[string]bool
}

func (d *differ) expired(cell *plainbuffer.Cell, served time.Time) bool {
	return d.def.Options.Expired(cell.Timestamp, served.Add(serverMargin).UnixMilli())
}

// alone takes a row that only one side has. A row that has lost its last cell
// to its TTL may well be gone from the other side.
func (d *differ) alone(ctx context.Context, rows *cursor, served time.Time, kind string) error {
	key := rows.key.Clone()
	var cells, expired int64
	for {
		cell, err := rows.cell(ctx)
		if err != nil {
			return err
		}
		if cell == nil {
			break
		}
		cells++
		if d.expired(cell, served) {
			expired++
		}
	}
	if kind == "missing" {
		d.check.Expired += expired
	}
	if cells > 0 && expired == cells {
		return nil
	}
	d.add(vault.Difference{Kind: kind, Key: key})
	return nil
}

// both takes a row that both sides have.
func (d *differ) both(ctx context.Context, ours, theirs *cursor) error {
	served := theirs.served
	// live is a side's next cell that has not expired.
	live := func(rows *cursor, count *int64) (*plainbuffer.Cell, error) {
		for {
			cell, err := rows.cell(ctx)
			if err != nil || cell == nil || !d.expired(cell, served) {
				return cell, err
			}
			*count++
		}
	}
	key := ours.key
	var columns []string
	changed, ignored := false, int64(0)
	name := func(cell *plainbuffer.Cell) {
		changed = true
		if n := string(cell.Name); len(columns) < maxColumns && (len(columns) == 0 || columns[len(columns)-1] != n) {
			columns = append(columns, n)
		}
	}
	a, err := live(ours, &d.check.Expired)
	if err != nil {
		return err
	}
	b, err := live(theirs, &ignored)
	if err != nil {
		return err
	}
	for a != nil || b != nil {
		order := 0
		switch {
		case b == nil:
			order = -1
		case a == nil:
			order = 1
		default:
			order = table.CompareCells(a, b)
		}
		switch {
		case order < 0:
			name(a)
		case order > 0:
			name(b)
		case a.Type != b.Type || !bytes.Equal(a.Data, b.Data):
			name(a)
		}
		if order <= 0 {
			if a, err = live(ours, &d.check.Expired); err != nil {
				return err
			}
		}
		if order >= 0 {
			if b, err = live(theirs, &ignored); err != nil {
				return err
			}
		}
	}
	if changed {
		d.add(vault.Difference{Kind: "changed", Key: key.Clone(), Columns: columns})
	}
	return nil
}

// maxColumns is how many columns of a changed row are named.
const maxColumns = 16

func (d *differ) add(difference vault.Difference) {
	switch difference.Kind {
	case "missing":
		d.check.Missing++
	case "extra":
		d.check.Extra++
	case "changed":
		d.check.Changed++
	}
	if difference.Kind != "extra" && d.quarantined[difference.Key.String()] {
		d.check.Quarantined++
	}
	if len(d.check.Differences) < vault.MaxListed {
		d.check.Differences = append(d.check.Differences, difference)
	}
}

// cursor reads the rows of one side, one by one, and the cells of each, one by
// one: a row that comes in pieces is never held as a whole.
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

// cell returns the next cell of the row, nil after the last. It is valid until
// the next call.
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

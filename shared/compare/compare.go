// Package compare compares the rows of a sealed backup with those of a table, in both
// directions, and says what the two differ in.
package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// Comparer compares segments of a backup with a table, in both directions.
//
// First each lane is summed up on both sides, as a count and a digest, in one pass over
// the shards and one scan of the table. Lanes whose sums differ are read again, in the
// order of their keys, and compared row by row.
type Comparer struct {
	// TTL is the one that the table is to get after it is compared, in seconds; 0 for
	// none.
	TTL    int32
	tables table.Instance
	// def is the table compared with, as it is now.
	def    table.Definition
	memory int64
	pages  table.Pages
	reads  *throttle.Throttle // of the table
}

// Cells past their TTL are served or not as the service comes around to it, so both sides
// leave them out.
const (
	// serverMargin is by how much the date of an answer may differ from the clock that
	// the cells of its page were held against: dates have a resolution of a second.
	serverMargin = 2 * time.Second
	// sumHorizon is how long a lane's scan may take for its sums to be compared. The sums
	// leave out what expires within it, since both must leave out the same; rows that are
	// compared one by one need no such allowance.
	sumHorizon = 10 * time.Minute
)

// New compares a backup of a table with the schema want with the table that def
// describes, which is read through a throttle. That must have the same key columns.
func New(want table.Schema, tables table.Instance, def table.Definition, memory int64, reads *throttle.Throttle) (*Comparer, error) {
	name := def.Name
	if len(def.Schema) != len(want) {
		columns := "columns"
		if len(def.Schema) == 1 {
			columns = "column"
		}
		return nil, table.Invalidf("compare with %s: its primary key has %d %s, the backup's has %d", name, len(def.Schema), columns, len(want))
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
	return &Comparer{tables: tables, def: def, memory: memory, reads: reads}, nil
}

// Comparison says what is to be compared.
type Comparison struct {
	Segment *sealed.Segment
	// Sink takes the differences.
	Sink Sink
	// Run says when to stop; never, if it is zero. The first lane that is left is not
	// stopped, so that each start comes further.
	Run fanout.Run
	// Before are the lanes that were compared before.
	Before map[int]bool
}

// Sink takes a row in which the sides differ, of a lane of which found tells what was
// found so far: a proof counts it there.
type Sink func(found *vault.Check, d vault.Difference)

// Found is what was found in the lanes that a comparison came to the end of. Cut says
// that more are left.
type Found struct {
	Lanes []int
	Check vault.Check
	Cut   bool
}

// errCut says that time ran out before a lane was compared.
var errCut = errors.New("time is up")

// Segment compares the rows of one segment, lane by lane, and adds to check what it
// finds. Where there is a rate to keep, earlier lanes go first, so that some are done
// when time is up: then it ends between two pages of a lane, and leaves that to another.
func (c *Comparer) Segment(ctx context.Context, x *Comparison, check *vault.Check) (Found, error) {
	s, err := c.segment(ctx, x)
	if err != nil {
		return Found{}, err
	}
	corrupted := check.Corrupted
	err = s.sum(ctx, check)
	// Corruption is a finding, and then there is nothing to compare: what the
	// shards do not tell would look like rows too many.
	if err == nil && check.Corrupted > corrupted {
		return Found{}, nil
	}
	for _, l := range s.lanes {
		if err == nil && l.summed {
			err = s.settle(ctx, l)
		}
	}
	found := Found{}
	for _, l := range s.lanes {
		if l.found != nil {
			found.Lanes = append(found.Lanes, l.number)
			found.Check.Add(*l.found)
		}
	}
	// A page that does not come in time is as good as one that was not asked for.
	if late := ctx.Err() != nil && len(found.Lanes) > 0; err != nil && !late {
		return Found{}, err
	}
	found.Cut = len(x.Before)+len(found.Lanes) < len(s.lanes)
	check.Add(found.Check)
	return found, nil
}

// segment is the comparison of one segment, under way.
type segment struct {
	comparer *Comparer
	of       *Comparison
	lanes    []*lane
	first    int        // of the lanes that are left
	cutoff   int64      // see readCutoff
	one      sync.Mutex // lanes are compared row by row one at a time
}

// lane is a lane of it.
type lane struct {
	number int
	keys   table.Range
	// ours are the rows of the backup, theirs those of the table.
	ours, theirs *tally
	summed       bool         // theirs are, and the lane is not settled
	found        *vault.Check // nil until it is compared
}

// segment makes ready to compare a segment.
func (c *Comparer) segment(ctx context.Context, x *Comparison) (s *segment, err error) {
	s = &segment{comparer: c, of: x}
	for x.Before[s.first] {
		s.first++
	}
	if s.cutoff, err = s.readCutoff(ctx); err != nil {
		return nil, err
	}
	seed := uint64(x.Segment.Backup.Repo.Header.Seed)
	for i, keys := range x.Segment.Lanes() {
		l := &lane{number: i, keys: keys, ours: newTally(seed, c.def.Options, s.cutoff), theirs: newTally(seed, c.def.Options, s.cutoff)}
		l.theirs.lapses.ttl = int64(c.TTL) * 1000
		s.lanes = append(s.lanes, l)
	}
	return s, nil
}

// sum sums up both sides of the lanes that are left, and settles those of which both are
// summed up meanwhile.
func (s *segment) sum(ctx context.Context, check *vault.Check) error {
	corrupted := check.Corrupted
	read := make(chan struct{}) // closed when ours are
	group, gctx := guard.WithContext(ctx)
	group.Go(func() error {
		scanner, row := plainbuffer.NewScanner(nil), new(plainbuffer.Row)
		_, err := s.of.Segment.Read(gctx, check, func(rows *shard.Rows) error { return s.lanes[rows.Lane].ours.block(blockOf(rows), scanner, row) })
		if err == nil {
			close(read)
		}
		return err
	})
	group.Go(func() error {
		scans, sctx := guard.WithContext(gctx)
		scans.SetLimit(s.comparer.pagesInFlight(len(s.lanes)))
		for _, l := range s.lanes {
			if s.of.Before[l.number] {
				continue
			}
			scans.Go(func() error {
				if err := s.scan(sctx, l); errors.Is(err, errCut) {
					return nil
				} else if err != nil {
					return err
				}
				l.summed = true
				select {
				case <-read:
					if check.Corrupted == corrupted {
						return s.settle(sctx, l)
					}
				default:
				}
				return nil
			})
		}
		return scans.Wait()
	})
	return group.Wait()
}

// settle compares a lane of which both sides are summed up, unless time is up.
func (s *segment) settle(ctx context.Context, l *lane) error {
	s.one.Lock()
	defer s.one.Unlock()
	l.summed = false
	found, err := s.compare(ctx, l)
	if errors.Is(err, errCut) {
		return nil
	}
	l.found = found
	return err
}

// compare compares a lane by its sums, and row by row where they differ.
func (s *segment) compare(ctx context.Context, l *lane) (*vault.Check, error) {
	found := &vault.Check{
		Digest: l.ours.whole.digest, TargetDigest: l.theirs.sum(), Rows: l.ours.whole.n, Target: l.theirs.whole.n,
		Lapsed: l.theirs.lapses.past, Lapsing: l.theirs.lapses.soon,
	}
	if l.keys.Empty() || l.ours.equals(l.theirs, s.cutoff) {
		found.Expired = l.ours.expired
		return found, nil
	}
	buf := s.comparer.page(len(s.lanes))
	defer s.comparer.pages.Put(buf)
	p := &pair{
		ours: newCursor(laneBlocks(s.of.Segment.Lane(l.number))), theirs: newCursor(s.live(l, buf)),
		options: s.comparer.def.Options, found: found, sink: s.of.Sink,
	}
	if err := p.compare(ctx); err != nil || s.cutoff != 0 {
		return found, err
	}
	// The table was read once more, and counts as it was then.
	found.Target = found.Rows - found.Missing + found.Extra
	if found.Missing+found.Extra+found.Changed == 0 {
		found.TargetDigest = found.Digest
	}
	return found, nil
}

// readCutoff reads the instant, in milliseconds, before which a cell must not expire to
// be summed up; 0 if nothing expires.
func (s *segment) readCutoff(ctx context.Context) (int64, error) {
	c := s.comparer
	if c.def.Options.TTL <= 0 {
		return 0, nil
	}
	buf := c.pages.Get(table.MaxPage)
	defer c.pages.Put(buf)
	page, err := s.next(ctx, s.first, c.tables.Scan(c.def.Name, c.def.Schema, s.of.Segment.Log.Segment.Range()), buf)
	if err != nil {
		return 0, err
	}
	return page.ServerTime.Add(sumHorizon).UnixMilli(), nil
}

// scan sums up a lane of the table.
func (s *segment) scan(ctx context.Context, l *lane) error {
	if l.keys.Empty() {
		return nil
	}
	buf, sum := s.comparer.page(len(s.lanes)), l.theirs
	defer s.comparer.pages.Put(buf)
	rows := s.live(l, buf)
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
		before := sum.whole.n
		if err := sum.block(b, scanner, &row); err != nil {
			return fmt.Errorf("read %s: %w", s.comparer.def.Name, err)
		}
		fanout.Come(ctx, sum.whole.n-before, int64(len(b.rows)))
	}
}

// pagesInFlight is how many of a segment's lanes are scanned at a time: with little
// memory not all, since a page must hold the largest cell.
func (c *Comparer) pagesInFlight(lanes int) int {
	return max(1, min(lanes, int(c.memory/table.MinPage)))
}

// page is a buffer for the pages of one of a segment's lanes.
func (c *Comparer) page(lanes int) []byte {
	return c.pages.Get(int(min(max(c.memory/int64(c.pagesInFlight(lanes)), table.MinPage), table.MaxPage)))
}

// live reads a lane of the table into buf, page by page. The error matches errCut when
// time is up.
func (s *segment) live(l *lane, buf []byte) blocks {
	c := s.comparer
	scan := c.tables.Scan(c.def.Name, c.def.Schema, l.keys)
	over := false
	return func(ctx context.Context) (*block, error) {
		if over {
			return nil, io.EOF
		}
		page, err := s.next(ctx, l.number, scan, buf)
		if err != nil {
			return nil, err
		}
		over = page.Next == nil
		return &block{rows: page.Block, piece: page.Piece, first: page.First, last: page.Last, served: page.ServerTime}, nil
	}
}

// next reads the next page of a scan of a lane of the table, which is not over, when its
// turn comes. The error matches errCut when time is up.
func (s *segment) next(ctx context.Context, lane int, scan table.Scan, buf []byte) (page table.Page, err error) {
	q := throttle.Request{What: "read " + s.comparer.def.Name, Turn: int64(lane)}
	if lane != s.first {
		q.Until = s.of.Run.Stop
		q.Ready = func(context.Context) error {
			if s.of.Run.Stopping() {
				return fmt.Errorf("%s: %w", q.What, errCut)
			}
			return nil
		}
	}
	err = s.comparer.reads.Do(ctx, q, func(ctx context.Context, aim int) (int64, error) {
		scan.Aim(aim * table.UnitBytes)
		var err error
		if page, err = scan.Next(ctx, buf); err != nil {
			err = fmt.Errorf("%s: %w", q.What, err)
		}
		return page.ReadUnits, err
	})
	return page, err
}

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
// First each lane is summed up on both sides, as a count and a digest, in one
// pass over the shards and one scan of the table. Lanes whose sums differ are
// read again, in the order of their keys, and compared row by row.
type Comparer struct {
	// TTL is the one that the table is to get after it is compared, in seconds; 0 for none.
	TTL    int32
	tables table.Instance
	// def is the table compared with, as it is now.
	def    table.Definition
	memory int64
	pages  table.Pages
	reads  *throttle.Throttle // of the table
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

// Comparison is the comparison of one segment, or of what is left of it.
type Comparison struct {
	Segment *sealed.Segment
	// Quarantined are the keys, as Key.String gives them, of rows that the service
	// refused.
	Quarantined map[string]bool
	// Run says when to stop; never, if it is zero. The first lane that is left is not
	// stopped, so that each start comes further.
	Run   fanout.Run
	first int
	// Before are the lanes that were compared before, Done those that are by now, and
	// Rows what was found in these; Cut says that more are left.
	Before map[int]bool
	Done   []int
	Rows   vault.Check
	Cut    bool
}

// errCut says that time ran out before a lane was compared.
var errCut = errors.New("time is up")

// Segment compares the rows of one segment, lane by lane. Where there is a rate to
// keep, earlier lanes go first, so that some are done when time is up: then it ends
// between two pages of a lane, and leaves that to another.
func (c *Comparer) Segment(ctx context.Context, x *Comparison, check *vault.Check) error {
	lanes := x.Segment.Lanes()
	x.Done, x.Rows, x.Cut = nil, vault.Check{}, false
	for x.first = 0; x.Before[x.first]; x.first++ {
	}
	cutoff, err := c.cutoff(ctx, x)
	if err != nil {
		return err
	}
	seed := uint64(x.Segment.Backup.Repo.Header.Seed)
	ours, theirs := make([]*tally, len(lanes)), make([]*tally, len(lanes))
	for i := range lanes {
		ours[i] = newTally(seed, c.def.Options, cutoff)
		theirs[i] = newTally(seed, c.def.Options, cutoff)
		theirs[i].lapses.ttl = int64(c.TTL) * 1000
	}
	corrupted := check.Corrupted
	summed := make([]bool, len(lanes)) // theirs, and not settled
	found := make([]*vault.Check, len(lanes))
	read := make(chan struct{}) // closed when ours are
	var one sync.Mutex          // lanes are compared row by row one at a time
	group, gctx := guard.WithContext(ctx)
	group.Go(func() error {
		scanner, row := plainbuffer.NewScanner(nil), new(plainbuffer.Row)
		_, err := x.Segment.Read(gctx, check, func(rows *shard.Rows) error { return ours[rows.Lane].block(blockOf(rows), scanner, row) })
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
			if x.Before[i] {
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
			x.Done = append(x.Done, i)
			x.Rows.Add(*found[i])
		}
	}
	// A page that does not come in time is as good as one that was not asked for.
	if late := ctx.Err() != nil && len(x.Done) > 0; err != nil && !late {
		return err
	}
	x.Cut = len(x.Before)+len(x.Done) < len(lanes)
	check.Add(x.Rows)
	return nil
}

// settle compares a lane of which both sides are summed up.
func (c *Comparer) settle(ctx context.Context, x *Comparison, i int, lanes []table.Range, ours, theirs *tally, cutoff int64) (*vault.Check, error) {
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

// cutoff is the instant, in milliseconds, before which a cell must not expire
// to be summed up; 0 if nothing expires.
func (c *Comparer) cutoff(ctx context.Context, x *Comparison) (int64, error) {
	if c.def.Options.TTL <= 0 {
		return 0, nil
	}
	buf := c.pages.Get(table.MaxPage)
	defer c.pages.Put(buf)
	page, err := c.next(ctx, x, x.first, c.tables.Scan(c.def.Name, c.def.Schema, x.Segment.Log.Segment.Range()), buf)
	if err != nil {
		return 0, err
	}
	return page.ServerTime.Add(sumHorizon).UnixMilli(), nil
}

// scan sums up a lane of the table.
func (c *Comparer) scan(ctx context.Context, x *Comparison, lane int, r table.Range, lanes int, sum *tally) error {
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
		before := sum.whole.n
		if err := sum.block(b, scanner, &row); err != nil {
			return fmt.Errorf("read %s: %w", c.def.Name, err)
		}
		fanout.Come(ctx, sum.whole.n-before, int64(len(b.rows)))
	}
}

// pagesInFlight is how many of a segment's lanes are scanned at a time: with
// little memory not all, since a page must hold the largest cell.
func (c *Comparer) pagesInFlight(lanes int) int {
	return max(1, min(lanes, int(c.memory/table.MinPage)))
}

// page is a buffer for the pages of one of a segment's lanes.
func (c *Comparer) page(lanes int) []byte {
	return c.pages.Get(int(min(max(c.memory/int64(c.pagesInFlight(lanes)), table.MinPage), table.MaxPage)))
}

// live reads a lane of the table into buf, page by page. The error matches errCut
// when time is up.
func (c *Comparer) live(x *Comparison, lane int, r table.Range, buf []byte) blocks {
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
func (c *Comparer) next(ctx context.Context, x *Comparison, lane int, scan table.Scan, buf []byte) (page table.Page, err error) {
	q := throttle.Request{What: "read " + c.def.Name, Turn: int64(lane)}
	if lane != x.first {
		q.Until = x.Run.Stop
		q.Ready = func(context.Context) error {
			if x.Run.Stopping() {
				return fmt.Errorf("%s: %w", q.What, errCut)
			}
			return nil
		}
	}
	err = c.reads.Do(ctx, q, func(ctx context.Context, aim int) (int64, error) {
		scan.Aim(aim * table.UnitBytes)
		var err error
		if page, err = scan.Next(ctx, buf); err != nil {
			err = fmt.Errorf("%s: %w", q.What, err)
		}
		return page.ReadUnits, err
	})
	return page, err
}

// lane compares the rows of one lane, one by one.
func (c *Comparer) lane(ctx context.Context, x *Comparison, lane int, lanes []table.Range, check *vault.Check) error {
	ours := newCursor(laneBlocks(x.Segment.Lane(lane)))
	buf := c.page(len(lanes))
	defer c.pages.Put(buf)
	theirs := newCursor(c.live(x, lane, lanes[lane], buf))
	if err := ours.next(ctx); err != nil {
		return err
	}
	if err := theirs.next(ctx); err != nil {
		return err
	}
	d := differ{Comparer: c, check: check, quarantined: x.Quarantined}
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

package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// asking is a worker's look out for the planner's request to split its segment.
type asking struct {
	tried bool        // to split; it was done, or could not be
	found atomic.Bool // the request
	next  time.Time   // when to look again
	pause time.Duration
}

// A worker looks out after a second, and then at growing intervals: a short segment costs
// nothing, a long one little.
const (
	askFirst = time.Second
	askMost  = 15 * time.Second
)

// reset begins with another segment, or another start of it; now looks at once.
func (a *asking) reset(now bool) {
	a.tried = false
	a.found.Store(false)
	a.pause, a.next = askFirst, time.Now()
	if !now {
		a.next = a.next.Add(askFirst)
	}
}

// splitIfAsked is what is left of the segment, as children, if a split was asked for and
// has not been tried; nil where it stays whole.
func (r *segmentRun) splitIfAsked(ctx context.Context) (*vault.Split, error) {
	a := &r.ask
	if !a.tried && !a.found.Load() && !time.Now().Before(a.next) {
		if err := r.lookForAsk(ctx); err != nil {
			return nil, err
		}
	}
	if a.tried || !a.found.Load() {
		return nil, nil
	}
	return r.split(ctx)
}

func (r *segmentRun) lookForAsk(ctx context.Context) error {
	a := &r.ask
	found, err := r.export.exporter.Repo.Exists(ctx, r.export.backup.Log().Ask(r.log.Segment.ID))
	if ctx.Err() == nil {
		a.pause, a.next = min(2*a.pause, askMost), time.Now().Add(a.pause)
	}
	if err != nil {
		return fmt.Errorf("look for a request to split: %w", err)
	}
	a.found.Store(found)
	return nil
}

// watchAsk looks out for the request while a part is read, and calls stop when it is
// there. The function that it returns ends the watch.
func (r *segmentRun) watchAsk(ctx context.Context, stop func()) (end func()) {
	if r.ask.tried {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	guard.Go(func() error {
		for !r.ask.found.Load() {
			if retry.Sleep(ctx, time.Until(r.ask.next)) != nil {
				return nil
			}
			// What can't be looked at now is looked at later; reading goes on.
			_ = r.lookForAsk(ctx)
		}
		stop()
		return nil
	}, func(err error) {
		if err != nil {
			r.export.exporter.Log.Error("look for a request to split", "segment", r.log.Segment.ID, "error", err)
		}
		close(over)
	})
	return func() { cancel(); <-over }
}

// split closes the segment's log where it stands and divides what is left among children;
// it is nil if that can't be cut, or not in time.
func (r *segmentRun) split(ctx context.Context) (*vault.Split, error) {
	r.ask.tried = true
	x, id := r.export, r.log.Segment.ID
	var a vault.Ask
	if _, err := x.exporter.Repo.Read(ctx, x.backup.Log().Ask(id), &a); err != nil {
		return nil, err
	}
	// Reading stands still meanwhile, and must be handed over in time.
	cutting, cancel := ctx, context.CancelFunc(func() {})
	if !x.run.Stop.IsZero() {
		cutting, cancel = context.WithTimeout(ctx, x.run.Stop.Sub(x.run.Now()))
	}
	defer cancel()
	log := x.exporter.Log.With("backup", x.backup.ID, "segment", id)
	children, err := x.cut(cutting, r.log, a.Children)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("split: %w", err)
	case err != nil && cutting.Err() != nil:
		log.Info("there is no time to split")
		return nil, nil
	case err != nil:
		// The segment can be read without: what is wrong with the table, reading tells.
		log.Warn("where to split can't be found", "error", err)
		return nil, nil
	case len(children) < 2:
		log.Info("what is left can't be split")
		return nil, nil
	}
	return &vault.Split{Closed: r.log.Next, Children: children}, nil
}

// cut divides what is left of the segment's lanes into about n segments of as many lanes
// as the plan allows. A segment holds what is left of one lane, or a part of that, since
// its own lanes must adjoin.
func (x *export) cut(ctx context.Context, log *coverage.SegmentLog, n int) ([]vault.Segment, error) {
	var open []table.Range
	for i, lane := range log.Segment.Lanes() {
		if lane.Start = log.Next[i]; !lane.Empty() {
			open = append(open, lane)
		}
	}
	lanes := max(x.plan.Settings.Lanes, 1)
	var children []vault.Segment
	for i, lane := range open {
		// As many segments for each lane, and at least one.
		parts := max(1, (n-len(children))/(len(open)-i))
		points, err := x.points(ctx, lane, parts*lanes)
		if err != nil {
			return nil, err
		}
		bounds := append(append([]table.Key{lane.Start}, points...), lane.End)
		ranges := len(bounds) - 1
		parts = min(ranges, max(parts, (ranges+lanes-1)/lanes))
		for k := range parts {
			from, to := k*ranges/parts, (k+1)*ranges/parts
			children = append(children, vault.Segment{ID: log.Segment.ID.Child(len(children)), Bounds: bounds[from : to+1]})
		}
	}
	return children, nil
}

// points are at most n-1 keys that cut a range of the table into ranges with about as
// many rows, as far as values that lie evenly tell. Nothing is known of the rows but what
// a few looks bring: the first row that is left, and for each column of the key how far
// the rows go that agree with it in the columns before. Most cuts go where reading
// stands, among the rows that share the most with the first, since that is what takes so
// long.
func (x *export) points(ctx context.Context, r table.Range, n int) ([]table.Key, error) {
	schema := x.plan.Definition.Schema
	first, err := x.rowFrom(ctx, r)
	if err != nil || first == nil || n < 2 {
		return nil, err
	}
	var levels [][]table.Key
	for column := len(schema) - 1; column >= 0; column-- {
		at := schema.Pad(first[:column+1])
		within := table.Range{Start: at, End: r.End}
		if column > 0 {
			if last := schema.Pad(append(slices.Clone(first[:column]), table.Max())); last.Compare(r.End) < 0 {
				within.End = last
			}
		}
		of := n
		if len(levels) > 0 {
			of = n / 4
		}
		keys, err := x.spread(ctx, schema, within, first, column, max(2, of))
		if err != nil {
			return nil, err
		}
		if len(keys) > 0 {
			levels = append(levels, keys)
		}
	}
	var points []table.Key
	for _, keys := range levels {
		for _, k := range keys {
			last := r.Start
			if len(points) > 0 {
				last = points[len(points)-1]
			}
			if k.Compare(last) > 0 && k.Compare(r.End) < 0 {
				points = append(points, k)
			}
		}
	}
	return points, nil
}

// spread returns keys that cut the rows of a range evenly by the values of one column,
// all columns before which are as in first.
func (x *export) spread(ctx context.Context, schema table.Schema, within table.Range, first table.Key, column, n int) ([]table.Key, error) {
	search := &search{
		scale: scale{kind: schema[column].Type}, from: first[column], n: n, wave: x.readers(),
		key: func(v table.Value) table.Key { return schema.Pad(append(slices.Clone(first[:column]), v)) },
		row: func(ctx context.Context, from table.Key) (*table.Value, error) {
			r := table.Range{Start: from, End: within.End}
			if r.Empty() {
				return nil, nil
			}
			row, err := x.rowFrom(ctx, r)
			if err != nil || row == nil || !slices.EqualFunc(row[:column], first[:column], func(a, b table.Value) bool { return a.Compare(b) == 0 }) {
				return nil, err
			}
			return &row[column], nil
		},
	}
	for {
		if err := search.greatest(ctx); err != nil {
			return nil, err
		}
		if !search.refine() {
			return search.cuts(), nil
		}
	}
}

// rowFrom is the key of the first row of a range, nil if there is none.
func (x *export) rowFrom(ctx context.Context, r table.Range) (table.Key, error) {
	buf := x.exporter.pages.Get(x.pageSize())
	defer x.exporter.pages.Put(buf)
	scan := x.exporter.Tables.Scan(x.plan.Definition.Name, x.plan.Definition.Schema, r)
	for {
		page, err := scan.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for a row from %v: %w", r.Start, err)
		}
		var row plainbuffer.Row
		switch err := plainbuffer.NewScanner(page.Block).Next(&row); {
		case err == nil:
			return table.KeyOf(row.Key), nil
		case err != io.EOF:
			return nil, fmt.Errorf("look for a row from %v: %w", r.Start, err)
		}
		if page.Next == nil {
			return nil, nil
		}
	}
}

package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// Exporter reads the segments of backups into shards.
type Exporter struct {
	Repo   *repository.Repository
	Tables table.Instance
	Work   fanout.Dispatcher
	Log    *slog.Logger
	// Memory bounds the pages in flight, in bytes; 0 means DefaultMemory.
	Memory int64
	// Encoders is how many pages are encoded at a time, 0 for one per
	// processor.
	Encoders int
	// MaxStarts bounds the starts of a segment, 0 for MaxStarts.
	MaxStarts int
	// Unproved leaves out reading back what was encoded. It is for measuring what that
	// costs.
	Unproved bool
	// pages are the buffers of lanes, kept from one part to the next.
	pages table.Pages
	// flush is (*shard.Encoder).Flush, if it is nil.
	flush func(*shard.Encoder) (*shard.Block, error)
}

// ExportReply is what one invocation came to.
type ExportReply struct {
	// Segment is the one that was worked on last, Start the number of its start.
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	// Ended counts the segments that the invocation brought to their ends, Split
	// those that it split.
	Ended int   `json:"ended"`
	Split int   `json:"split,omitempty"`
	Parts int   `json:"parts"`
	Rows  int64 `json:"rows"`
	// RawBytes is the size of the rows as PlainBuffer, StoredBytes of the
	// shards.
	RawBytes    int64 `json:"raw_bytes"`
	StoredBytes int64 `json:"stored_bytes"`
	// MarginMS is what was kept for closing in the end, in milliseconds.
	MarginMS int64 `json:"margin_ms,omitempty"`
	// Pace is what held the last part back.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Done says that the last segment has ended, Continued that another
	// invocation goes on, Superseded that another one already does.
	Done       bool `json:"done"`
	Continued  bool `json:"continued,omitempty"`
	Superseded bool `json:"superseded,omitempty"`
}

// Export works on one segment: part by part until its lanes have come to their
// ends, or until run says stop; then it hands over to the next start. A part
// exists when its slot does. If another execution wins a slot, this one's shard
// is an orphan and the other goes on.
//
// A worker that is done with its segment goes on with others of its group, and of
// the groups after it, that nobody has begun, for as long as there is time: so as
// many work as were dispatched, until nothing is left.
func (e *Exporter) Export(ctx context.Context, run fanout.Run, w fanout.Work) (ExportReply, error) {
	b := vault.Backup{Table: w.Table, ID: w.Backup}
	x := &export{Exporter: e, run: run, backup: b, work: w, margin: fanout.NewMargin(run), throttle: throttle.ForReads(w.ReadUnits)}
	x.reply = ExportReply{Segment: w.Segment, Start: w.Start}
	err := x.all(ctx)
	if !x.run.Stop.IsZero() {
		x.reply.MarginMS = x.run.Until.Sub(x.run.Stop).Milliseconds()
	}
	return x.reply, err
}

// export is an invocation of an exporter.
type export struct {
	*Exporter
	run      fanout.Run
	backup   vault.Backup
	work     fanout.Work
	plan     *vault.Plan
	encoders chan *shard.Encoder
	margin   fanout.Margin
	throttle *throttle.Throttle
	ask      asking
	worker   fanout.Worker
	// children are the segments that this invocation has split off.
	children map[vault.SegmentID]vault.Segment
	open     int // lanes of the part that was read last
	reply    ExportReply
}

func (x *export) what(s vault.SegmentID) string {
	return fmt.Sprintf("export segment %s of backup %s of %s", s, x.backup.ID, x.backup.Table)
}

// all works on the segment of the command, and on what it finds after it.
func (x *export) all(ctx context.Context) error {
	what, log := x.what(x.work.Segment), x.backup.Log()
	over, err := x.Repo.Exists(ctx, x.backup.Manifest())
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if over {
		x.reply.Superseded = true
		return nil
	}
	if x.plan, _, err = x.Repo.Plan(ctx, x.backup); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	x.encoders = x.newEncoders(x.plan)
	s, err := coverage.FindSegment(ctx, x.Repo, x.plan, log, x.work.Segment)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	x.worker = fanout.Worker{
		Log: fanout.NewLog(x.Repo, log), Run: &x.run, Groups: x.plan.Groups(), Planned: x.planned, Submit: x.submit, What: x.what, Most: x.MaxStarts,
	}
	if err := x.one(ctx, s, x.work.Start, false); err != nil {
		return err
	}
	if x.reply.Superseded && x.work.ReadUnits > 0 {
		return nil // one worker more would read beyond the table's budget
	}
	err = x.worker.GoOn(ctx, x.work, func(ctx context.Context, id vault.SegmentID, start int, claimed bool) error {
		s, split := x.children[id]
		if !split {
			var err error
			if s, err = coverage.FindSegment(ctx, x.Repo, x.plan, log, id); err != nil {
				return fmt.Errorf("%s: %w", x.what(id), err)
			}
		}
		return x.one(ctx, s, start, claimed)
	})
	x.reply.Continued = x.worker.Over
	if err == nil && !x.worker.Over {
		x.poke(ctx)
	}
	return err
}

// poke has the planner look at the backup, if all of its segments have ended as far as
// a list shows. Several workers may find that at the same time, and each look has a
// task of its own, since that of one might come before another has ended. What goes
// wrong costs time only: the planner's next tick looks, too.
func (x *export) poke(ctx context.Context) {
	over, err := x.over(ctx)
	if err == nil && over {
		err = x.Work.Submit(ctx, fanout.Work{
			Verb: fanout.VerbSeal, Table: x.backup.Table, Backup: x.backup.ID, Segment: x.reply.Segment, Start: x.reply.Start, After: fanout.Exporting,
		})
	}
	if err != nil {
		x.Log.Warn("the backup is sealed by the next tick only", "backup", x.backup.ID, "error", err)
	}
}

// over says whether each of the plan's segments has ended, and all that those were
// split into.
func (x *export) over(ctx context.Context) (bool, error) {
	ends, err := endMarks(ctx, x.Repo, x.backup.Log(), x.backup.Log().AllDone())
	if err != nil {
		return false, err
	}
	var ended func(vault.SegmentID) bool
	ended = func(id vault.SegmentID) bool {
		end, ok := ends[id]
		for i := 0; i < end.children && ok; i++ {
			ok = ended(id.Child(i))
		}
		return ok
	}
	for _, s := range x.plan.Segments {
		if !ended(s.ID) {
			return false, nil
		}
	}
	return true, nil
}

// planned are the segments of a group as they were planned.
func (x *export) planned(group int) []vault.SegmentID {
	all := x.plan.Segments[group*vault.GroupSize : min((group+1)*vault.GroupSize, len(x.plan.Segments))]
	ids := make([]vault.SegmentID, len(all))
	for i := range all {
		ids[i] = all[i].ID
	}
	return ids
}

func (x *export) submit(ctx context.Context, s vault.SegmentID, start int) error {
	next := x.work
	next.Segment, next.Start = s, start
	return x.Work.Submit(ctx, next)
}

// one works on a segment, whose start may be claimed already, and notes what goes
// wrong.
func (x *export) one(ctx context.Context, s vault.Segment, start int, claimed bool) error {
	x.reply.Segment, x.reply.Start = s.ID, start
	x.reply.Done, x.reply.Superseded = false, false
	err := x.segment(ctx, s, start, claimed)
	if err != nil {
		permanent := fanout.Permanent(err) || errors.Is(err, shard.ErrReadBack)
		err = fanout.NewLog(x.Repo, x.backup.Log()).Fail(ctx, fanout.Start{Segment: s.ID, Number: x.reply.Start}, x.run, permanent, fmt.Errorf("%s: %w", x.what(s.ID), err))
	}
	return err
}

func (x *export) segment(ctx context.Context, s vault.Segment, start int, claimed bool) error {
	names := x.backup.Log()
	log, err := coverage.ReadLog(ctx, x.Repo, names, s)
	if err != nil {
		return err
	}
	if log.Ended {
		x.reply.Done = true
		return x.end(ctx, log)
	}
	idle := 0
	if !claimed {
		b, err := x.worker.Begin(ctx, s.ID, start, len(log.Slots))
		x.reply.Start, x.reply.Superseded, idle = b.Start, b.Superseded, b.Idle
		if err != nil || b.Superseded {
			return err
		}
	}
	last := log.LastPart()
	if last != nil {
		x.throttle.Resume(last.Pace)
	}
	if idle > 0 {
		x.margin.Widen()
	} else if last != nil {
		x.margin.Closed(time.Duration(last.ClosingMS) * time.Millisecond)
	}
	x.ask.reset(x.reply.Start > 0)
	rows, raw := int64(0), int64(0)
	for i := range log.Slots {
		if p := log.Slots[i].Part; p != nil {
			rows, raw = rows+p.Rows, raw+p.RawBytes
		}
	}
	tell := fanout.NewTeller(ctx, x.Repo, x.run, names.Progress(s.ID), x.reply.Start, rows, raw)
	defer tell.End()
	ctx = tell.With(ctx)
	for parts := 0; !log.Ended; parts++ {
		x.run.Stop = x.margin.Stop()
		// An invocation that has stored something has come further, whatever
		// becomes of the split.
		if parts > 0 {
			if x.run.Stopping() {
				return x.worker.HandOver(ctx, s.ID, x.reply.Start)
			}
			split, err := x.splitIfAsked(ctx, log)
			if err != nil || split {
				return err
			}
			if x.run.Stopping() {
				return x.worker.HandOver(ctx, s.ID, x.reply.Start)
			}
		}
		part, readErr := x.part(ctx, log)
		if part == nil {
			return readErr
		}
		// What was read before an error is as good as any: keep it, then report.
		slot := &vault.Slot{Segment: s.ID, Slot: len(log.Slots), Start: x.reply.Start, Part: part}
		mine, err := x.Repo.Tell(ctx, names.Slot(s.ID, slot.Slot), slot, &slot.Usage)
		if err != nil {
			return errors.Join(err, readErr)
		}
		if !mine {
			x.reply.Superseded = true
			return nil
		}
		if err := log.Add(slot); err != nil {
			return err
		}
		x.margin.Closed(time.Duration(part.ClosingMS) * time.Millisecond)
		x.reply.Parts++
		x.reply.Rows += part.Rows
		x.reply.RawBytes += part.RawBytes
		x.reply.StoredBytes += part.Shard.Bytes
		x.reply.Pace = part.Pace
		if readErr != nil {
			return readErr
		}
	}
	x.reply.Done = true
	x.reply.Ended++
	return x.end(ctx, log)
}

// end marks a segment as ended, and has what it was split into worked on.
func (x *export) end(ctx context.Context, log *coverage.SegmentLog) error {
	if log.Split == nil {
		return x.Repo.Mark(ctx, x.backup.Log().Done(log.Segment.ID))
	}
	children := log.Split.Children
	if err := x.Repo.Mark(ctx, x.backup.Log().Split(log.Segment.ID, len(children))); err != nil {
		return err
	}
	// This worker goes on with the first, unless somebody has it. Those for which no
	// worker is planned wait for one that is done, or for the planner.
	ids := make([]vault.SegmentID, len(children))
	x.children = make(map[vault.SegmentID]vault.Segment, len(children))
	for i, c := range children {
		ids[i], x.children[c.ID] = c.ID, c
	}
	mine, err := fanout.NewLog(x.Repo, x.backup.Log()).Claim(ctx, vault.Note{Segment: ids[0]}, x.run)
	if err != nil {
		return err
	}
	next := vault.SegmentID("")
	if mine {
		next = ids[0]
	}
	x.worker.Split(ids, next)
	var a vault.Ask
	if _, err := x.Repo.Read(ctx, x.backup.Log().Ask(log.Segment.ID), &a); err != nil {
		return err
	}
	for _, c := range children[1:min(len(children), a.Children)] {
		if err := x.submit(ctx, c.ID, 0); err != nil {
			return fmt.Errorf("dispatch segment %s: %w", c.ID, err)
		}
	}
	return nil
}

// part reads the lanes from where the log stands into one shard, until the
// shard is large enough, run says stop, or the lanes have ended. It returns
// nil and an error if nothing could be kept; a part and an error if reading
// broke off and what was read before can be kept.
func (x *export) part(ctx context.Context, log *coverage.SegmentLog) (*vault.Part, error) {
	e, b, plan := x.Exporter, x.backup, x.plan
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name := b.Shard(log.Segment.ID, repository.RandomName())
	up, err := e.Repo.CreateData(ctx, name, plan.Encryption)
	if err != nil {
		return nil, err
	}
	w, err := shard.NewWriter(up, shard.Header{
		Vault: e.Repo.Header.ID, Backup: string(b.ID), Table: b.Table.Path(), Segment: string(log.Segment.ID),
		Schema: plan.Definition.Schema, Seed: uint64(e.Repo.Header.Seed),
	})
	if err != nil {
		return nil, up.Abort(err)
	}
	p := &partRun{export: x, writer: w, limit: plan.Settings.PartBytes}
	p.lanes = make([]laneRun, len(log.Next))
	for i, lane := range log.Segment.Lanes() {
		p.lanes[i] = laneRun{at: i, from: log.Next[i], next: log.Next[i], end: lane.End}
	}
	watched := x.watchAsk(ctx, log.Segment.ID, p.stop)
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
	index, err := e.Repo.CreateData(ctx, vault.Index(name), plan.Encryption)
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

func (e *Exporter) memory() int64 { return cmp.Or(e.Memory, fanout.DefaultMemory) }

// pageSize is the room for a page of each of the lanes that are open.
func (x *export) pageSize() int {
	return int(min(max(x.memory()/int64(max(x.open, 1)), table.MinPage), table.MaxPage))
}

// readers is for how many pages at a time there is memory.
func (x *export) readers() int { return max(1, int(x.memory()/int64(x.pageSize()))) }

// partRun is one shard in the making.
type partRun struct {
	*export
	limit int64
	lanes []laneRun

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
		p.encoders <- l.encoder
		l.encoder = nil
	}
}

// newEncoders makes what turns pages into blocks: as many as work at a time.
func (e *Exporter) newEncoders(plan *vault.Plan) chan *shard.Encoder {
	n := e.Encoders
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	encoders := make(chan *shard.Encoder, n)
	for range n {
		encoders <- shard.NewEncoder(shard.Options{Schema: plan.Definition.Schema, Seed: uint64(e.Repo.Header.Seed), Unproved: e.Unproved})
	}
	return encoders
}

// read runs the lanes side by side. The error is the first that a lane met; all
// other lanes stop at their next page.
func (p *partRun) read(ctx context.Context) error {
	e := p.Exporter
	// A page that does not come must not take the time that is needed to save
	// those that came.
	pages := ctx
	if !p.run.Stop.IsZero() {
		late := p.run.Until.Sub(p.run.Stop) / 2
		var cancel context.CancelFunc
		pages, cancel = context.WithTimeout(ctx, p.run.Stop.Sub(p.run.Now())+late)
		defer cancel()
	}
	open := 0
	for i := range p.lanes {
		if !p.lanes[i].next.Equal(p.lanes[i].end) {
			open++
		}
	}
	p.open = max(open, 1)
	size := p.pageSize()
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

// stopping says whether a lane that stands between two rows should end its
// share of the part here.
func (p *partRun) stopping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing || p.writer.Bytes() >= p.limit || p.writer.Full() || p.run.Stopping()
}

func (p *partRun) lane(ctx context.Context, l *laneRun, buf []byte) error {
	schema := p.plan.Definition.Schema
	scan := p.Tables.Scan(p.plan.Definition.Name, schema, table.Range{Start: l.next, End: l.end})
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

// next reads the next page of a lane when its turn comes. Inside of a row there is no
// end but the row's; between two it may return errStopping. It returns io.EOF as the
// scan does.
func (p *partRun) next(ctx context.Context, l *laneRun, scan table.Scan, buf []byte, inRow bool) (page table.Page, err error) {
	q := throttle.Request{What: fmt.Sprintf("read from %v", l.next)}
	if !inRow {
		q.Until = p.run.Stop
		q.Ready = func(context.Context) error {
			if l.next.Compare(l.from) > 0 && p.stopping() {
				return errStopping
			}
			return nil
		}
	}
	err = p.throttle.Do(ctx, q, func(ctx context.Context, aim int) (int64, error) {
		scan.Aim(aim * table.UnitBytes)
		var err error
		if page, err = scan.Next(ctx, buf); err != nil && err != io.EOF {
			err = fmt.Errorf("%s: %w", q.What, err)
		}
		return page.ReadUnits, err
	})
	return page, err
}

// page walks a page, encodes its rows and appends them to the shard. The rows
// lie between where the lane stands and next.
func (p *partRun) page(l *laneRun, page *table.Page, next table.Key, scanner *plainbuffer.Scanner, row *plainbuffer.Row) error {
	schema := p.plan.Definition.Schema
	// The encoder that has begun a row ends it.
	if l.encoder == nil {
		l.encoder = <-p.encoders
		l.encoder.Reset(l.at)
	}
	encoder := l.encoder
	scanner.Reset(page.Block)
	// Blocks of equal size, none much below the target.
	blocks := max(1, (len(page.Block)+shard.BlockBytes-1)/shard.BlockBytes)
	target := len(page.Block) / blocks
	var walked, flushed int64
	for {
		err := scanner.Next(row)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("the page from %v: %w", l.next, err)
		}
		if err := schema.CheckKey(row.Key); err != nil {
			return fmt.Errorf("%w: %w", fanout.ErrSchema, err)
		}
		if walked == 0 && l.next.CompareCells(row.Key) > 0 {
			return fmt.Errorf("the page from %v begins with the row %v", l.next, table.KeyOf(row.Key))
		}
		walked++
		full := false
		if page.Piece {
			full, err = encoder.AddPiece(row, page.First, page.Last)
		} else {
			full, err = encoder.Add(row)
		}
		if err != nil {
			return fmt.Errorf("the page from %v: %w", l.next, err)
		}
		if full || encoder.RawBytes() >= target {
			if err := p.append(encoder, page, walked-flushed); err != nil {
				return err
			}
			flushed = walked
		}
	}
	if walked > 0 && (!page.Piece || page.Last) && next.CompareCells(row.Key) <= 0 {
		return fmt.Errorf("the page from %v to %v holds the row %v", l.next, next, table.KeyOf(row.Key))
	}
	if page.Piece && walked != 1 {
		return fmt.Errorf("the page from %v: %d pieces of a row, want one", l.next, walked)
	}
	if page.Piece && !page.Last && next.CompareCells(row.Key) != 0 {
		return fmt.Errorf("the page from %v: a piece of the row %v, after which the service goes on at %v", l.next, table.KeyOf(row.Key), next)
	}
	if err := p.append(encoder, page, walked-flushed); err != nil {
		return err
	}
	rows := ending(page, walked)
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
	return nil
}

// ending is how many of the rows that were walked in a page end in it.
func ending(page *table.Page, walked int64) int64 {
	if page.Piece && !page.Last {
		return 0
	}
	return walked
}

// append moves what the encoder holds into the shard: so many rows as were walked
// since it did last, read back.
func (p *partRun) append(encoder *shard.Encoder, page *table.Page, walked int64) error {
	flush := p.flush
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

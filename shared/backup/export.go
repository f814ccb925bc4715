package backup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// Exporter reads the segments of backups into shards.
type Exporter struct {
	Repo   *Repository
	Tables Tables
	Work   Dispatcher
	Log    *slog.Logger
	// Memory bounds the pages in flight, in bytes; 0 means DefaultMemory.
	Memory int64
	// Encoders is how many pages are encoded at a time, 0 for one per
	// processor.
	Encoders int
	// pages are the buffers of lanes, kept from one part to the next.
	pages pool
}

// DefaultMemory is the share of pages in flight of an export, and of rows in
// flight of an import: with the encoders and the runtime beside it, a function
// stays below 64 MiB.
const DefaultMemory = 24 << 20

// The bounds of a page's buffer. The service sends at most 4 MB of values and
// names in a page, and the scan asks for fewer rows if they do not fit. A single
// cell must: the largest is 2 MiB, beside its name and its row's key.
const (
	minPage = 2<<20 + 64<<10
	maxPage = 4 << 20
)

// maxStarts bounds the hops of a segment: an export that needs more commits
// too little in each.
const maxStarts = 10_000

// ExportReply is what one invocation came to.
type ExportReply struct {
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	Parts   int             `json:"parts"`
	Rows    int64           `json:"rows"`
	// RawBytes is the size of the rows as PlainBuffer, StoredBytes of the
	// shards.
	RawBytes    int64 `json:"raw_bytes"`
	StoredBytes int64 `json:"stored_bytes"`
	// Done says that the segment has ended, Continued that another invocation
	// goes on, Superseded that another one already does.
	Done       bool `json:"done"`
	Continued  bool `json:"continued,omitempty"`
	Superseded bool `json:"superseded,omitempty"`
}

// Export works on one segment: part by part until its lanes have come to their
// ends, or until run says stop; then it hands over to the next start. A part
// exists when its slot does. If another execution wins a slot, this one's shard
// is an orphan and the other goes on.
func (e *Exporter) Export(ctx context.Context, run Run, w Work) (ExportReply, error) {
	reply := ExportReply{Segment: w.Segment, Start: w.Start}
	b := vault.Backup{Table: w.Table, ID: w.Backup}
	what := fmt.Sprintf("export segment %s of backup %s of %s", w.Segment, b.ID, b.Table)
	if over, err := e.Repo.exists(ctx, b.Manifest()); err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	} else if over {
		reply.Superseded = true
		return reply, nil
	}
	plan, _, err := e.Repo.Plan(ctx, b)
	if err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	s, err := e.Repo.findSegment(ctx, plan, b.Log(), w.Segment)
	if err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	if reply.Start, err = e.Repo.begin(ctx, b.Log(), s.ID, w.Start, run); err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	err = e.segment(ctx, run, b, plan, s, &reply)
	if err != nil {
		err = e.Repo.fail(ctx, b.Log(), s.ID, reply.Start, run, permanent(err), fmt.Errorf("%s: %w", what, err))
	}
	return reply, err
}

// permanent says whether a second try would fail the same way.
func permanent(err error) bool {
	for _, mark := range []error{
		table.ErrNotExist, table.ErrExist, table.ErrPermission, table.ErrInvalid, fs.ErrPermission, vault.ErrVersion, vault.ErrCorrupt, errSchema, errHops,
	} {
		if errors.Is(err, mark) {
			return true
		}
	}
	return false
}

// Permanent says whether trying the same again can't help: the function then
// reports the error as handled, since the platform would bill three retries.
func Permanent(err error) bool { return permanent(err) }

var (
	errSchema = errors.New("the table's schema is not the planned one")
	errHops   = errors.New("too many starts")
)

func (e *Exporter) segment(ctx context.Context, run Run, b vault.Backup, plan *vault.Plan, s vault.Segment, reply *ExportReply) error {
	log, err := e.Repo.readLog(ctx, b.Log(), s)
	if err != nil {
		return err
	}
	encoders := e.encoders(plan)
	for !log.ended {
		if reply.Parts > 0 && run.stopping() {
			if reply.Start+1 >= maxStarts {
				return fmt.Errorf("%w: %d, and the segment has not ended; give the function more time or plan smaller segments", errHops, maxStarts)
			}
			next := Work{Verb: VerbExport, Table: b.Table, Backup: b.ID, Segment: s.ID, Start: reply.Start + 1}
			if err := e.Work.Submit(ctx, next); err != nil {
				return fmt.Errorf("continue: %w", err)
			}
			reply.Continued = true
			return nil
		}
		part, readErr := e.part(ctx, run, b, plan, log, encoders)
		if part == nil {
			return readErr
		}
		// What was read before an error is as good as any: keep it, then report.
		slot := &vault.Slot{Segment: s.ID, Slot: len(log.slots), Start: reply.Start, Part: part}
		mine, err := e.Repo.decide(ctx, b.Log().Slot(s.ID, slot.Slot), slot)
		if err != nil {
			return errors.Join(err, readErr)
		}
		if !mine {
			reply.Superseded = true
			return nil
		}
		if err := log.add(slot); err != nil {
			return err
		}
		reply.Parts++
		reply.Rows += part.Rows
		reply.RawBytes += part.RawBytes
		reply.StoredBytes += part.Shard.Bytes
		if readErr != nil {
			return readErr
		}
	}
	if err := e.Repo.mark(ctx, b.Log().Done(s.ID)); err != nil {
		return err
	}
	reply.Done = true
	return nil
}

// part reads the lanes from where the log stands into one shard, until the
// shard is large enough, run says stop, or the lanes have ended. It returns
// nil and an error if nothing could be kept; a part and an error if reading
// broke off and what was read before can be kept.
func (e *Exporter) part(ctx context.Context, run Run, b vault.Backup, plan *vault.Plan, log *segmentLog,
	encoders chan *shard.Encoder) (*vault.Part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name := b.Shard(log.segment.ID, randomName())
	up := e.upload(ctx, name, plan.Encryption)
	w, err := shard.NewWriter(up, shard.Header{
		Vault: e.Repo.Header.ID, Backup: string(b.ID), Table: b.Table.Path(), Segment: string(log.segment.ID),
		Schema: plan.Definition.Schema, Seed: uint64(e.Repo.Header.Seed),
	})
	if err != nil {
		return nil, errors.Join(err, up.abort(err))
	}
	p := &partRun{exporter: e, run: run, plan: plan, writer: w, encoders: encoders, limit: plan.Settings.PartBytes}
	p.lanes = make([]laneRun, len(log.next))
	for i, lane := range log.segment.Lanes() {
		p.lanes[i] = laneRun{at: i, from: log.next[i], next: log.next[i], end: lane.End}
	}
	readErr := p.read(ctx)
	if p.broken != nil || readErr != nil && (p.pages == 0 || ctx.Err() != nil) {
		err := cmp.Or(p.broken, readErr)
		return nil, errors.Join(err, up.abort(err))
	}
	part := p.record()
	sum, err := w.Finish(p.ends())
	if err != nil {
		return nil, errors.Join(err, up.abort(err))
	}
	if part.Shard, err = up.finish(); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	part.Rows, part.Digest = sum.Rows, sum.Digest
	index := e.upload(ctx, vault.Index(name), plan.Encryption)
	if err := w.WriteIndex(index); err != nil {
		return nil, errors.Join(err, index.abort(err))
	}
	if part.Index, err = index.finish(); err != nil {
		return nil, fmt.Errorf("write %s: %w", vault.Index(name), err)
	}
	return part, readErr
}

// partRun is one shard in the making.
type partRun struct {
	exporter *Exporter
	run      Run
	plan     *vault.Plan
	limit    int64

	lanes    []laneRun
	encoders chan *shard.Encoder

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

// encoders makes what turns pages into blocks: as many as work at a time.
func (e *Exporter) encoders(plan *vault.Plan) chan *shard.Encoder {
	n := e.Encoders
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	encoders := make(chan *shard.Encoder, n)
	for range n {
		encoders <- shard.NewEncoder(shard.Options{Schema: plan.Definition.Schema, Seed: uint64(e.Repo.Header.Seed)})
	}
	return encoders
}

// read runs the lanes side by side. The error is the first that a lane met; all
// other lanes stop at their next page.
func (p *partRun) read(ctx context.Context) error {
	e := p.exporter
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
	memory := e.Memory
	if memory == 0 {
		memory = DefaultMemory
	}
	size := int(min(max(memory/int64(max(open, 1)), minPage), maxPage))
	var lanes errgroup.Group
	// With little memory fewer lanes read at a time.
	lanes.SetLimit(max(1, int(memory/minPage)))
	for i := range p.lanes {
		l := &p.lanes[i]
		if l.next.Equal(l.end) {
			continue
		}
		lanes.Go(func() error {
			buf := e.pages.get(size)
			defer e.pages.put(buf)
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
	return p.closing || p.writer.Bytes() >= p.limit || p.run.stopping()
}

func (p *partRun) lane(ctx context.Context, l *laneRun, buf []byte) error {
	schema := p.plan.Definition.Schema
	scan := p.exporter.Tables.Scan(p.plan.Definition.Name, schema, table.Range{Start: l.next, End: l.end})
	scanner := plainbuffer.NewScanner(nil)
	var row plainbuffer.Row
	inRow := false
	defer p.release(l)
	for {
		page, err := scan.Next(ctx, buf)
		if err == io.EOF {
			return fmt.Errorf("read %v: the scan ended without saying that the range is done", table.Range{Start: l.next, End: l.end})
		}
		if err != nil {
			err = fmt.Errorf("read from %v: %w", l.next, err)
			if inRow {
				return p.breakOff(err) // the shard holds a row that does not end
			}
			return err
		}
		next := page.Next
		if next == nil {
			next = l.end
		}
		if !page.Piece && next.Compare(l.next) <= 0 || next.Compare(l.end) > 0 {
			return fmt.Errorf("read from %v to %v: the service says that %v is next", l.next, l.end, next)
		}
		if err := p.page(l, &page, next, scanner, &row); err != nil {
			return p.breakOff(err) // the shard may hold a part of the page
		}
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
	var rows, walked int64
	for {
		err := scanner.Next(row)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("the page from %v: %w", l.next, err)
		}
		if err := schema.CheckKey(row.Key); err != nil {
			return fmt.Errorf("%w: %w", errSchema, err)
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
			if err := p.append(encoder); err != nil {
				return err
			}
		}
	}
	if walked > 0 && !page.Piece && next.CompareCells(row.Key) <= 0 {
		return fmt.Errorf("the page from %v to %v holds the row %v", l.next, next, table.KeyOf(row.Key))
	}
	if page.Piece && walked != 1 {
		return fmt.Errorf("the page from %v: %d pieces of a row, want one", l.next, walked)
	}
	if err := p.append(encoder); err != nil {
		return err
	}
	rows = walked
	if page.Piece && !page.Last {
		rows = 0
	}
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

// append moves what the encoder holds into the shard.
func (p *partRun) append(encoder *shard.Encoder) error {
	block, err := encoder.Flush()
	if err != nil {
		return err
	}
	if block == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
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

// upload is one data object on its way to the store: sealed, hashed and
// counted while it is written.
type upload struct {
	io.Writer
	name   string
	seal   io.WriteCloser
	pipe   *io.PipeWriter
	sum    hash.Hash
	bytes  int64
	stored chan stored
}

type stored struct {
	size     int64
	checksum string
	err      error
}

func (e *Exporter) upload(ctx context.Context, name string, encryption vault.Encryption) *upload {
	r, pipe := io.Pipe()
	u := &upload{name: name, pipe: pipe, sum: sha256.New(), stored: make(chan stored, 1)}
	go func() {
		info, err := e.Repo.store.Create(ctx, name, r)
		r.CloseWithError(err)
		u.stored <- stored{info.Size, info.Checksum, err}
	}()
	seal, err := encryption.Seal(vault.Data, sealedWriter{u})
	if err != nil {
		u.Writer = failedWriter{err}
		return u
	}
	u.seal, u.Writer = seal, seal
	return u
}

// sealedWriter takes what is stored.
type sealedWriter struct{ u *upload }

func (w sealedWriter) Write(b []byte) (int, error) {
	w.u.sum.Write(b)
	w.u.bytes += int64(len(b))
	return w.u.pipe.Write(b)
}

type failedWriter struct{ err error }

func (w failedWriter) Write([]byte) (int, error) { return 0, w.err }

// finish ends the object and returns it as the store has it.
func (u *upload) finish() (vault.Object, error) {
	if err := u.seal.Close(); err != nil {
		return vault.Object{}, u.abort(err)
	}
	u.pipe.Close()
	s := <-u.stored
	if s.err != nil {
		return vault.Object{}, s.err
	}
	if s.size != u.bytes {
		return vault.Object{}, fmt.Errorf("%d bytes were sent, the store has %d", u.bytes, s.size)
	}
	return vault.Object{Name: u.name, Bytes: u.bytes, SHA256: hex.EncodeToString(u.sum.Sum(nil)), Checksum: s.checksum}, nil
}

// abort breaks the object off, so that nothing of it is stored, and returns
// what the store had to say, if it was the first to fail.
func (u *upload) abort(cause error) error {
	u.pipe.CloseWithError(cause)
	s := <-u.stored
	if s.err != nil && !errors.Is(s.err, cause) {
		return s.err
	}
	return nil
}

// pool keeps the buffers of pages. A sync.Pool would free them at each garbage
// collection, and new ones would have to be cleared.
type pool struct {
	mu   sync.Mutex
	free [][]byte
}

// get returns a buffer of at most size bytes, and at least minPage: the memory
// for pages is shared anew by those who read at a time, and what they had before
// serves as well as long as it does not exceed a share. Buffers that do are
// dropped.
func (p *pool) get(size int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.free) > 0 {
		last := len(p.free) - 1
		b := p.free[last]
		p.free[last], p.free = nil, p.free[:last]
		if cap(b) <= size {
			return b
		}
	}
	return make([]byte, 0, size)
}

func (p *pool) put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b[:0])
}

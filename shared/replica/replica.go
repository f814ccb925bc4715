// Package replica brings sealed backups into replicas, and tells how far they
// have come there.
package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Replicator copies sealed backups into a replica: another vault, which is then one like this,
// with the same id, and can be read without it.
//
// A backup is copied group by group. The shards of a group go first, each
// compared with its sha256 on the way, so that bytes which are not as they were
// written never arrive under its name. Records in the replica say what its store
// answered; they are what an interrupted copy goes on from. When every group is
// whole, the plan and the roll-ups follow, then the manifest: until then there
// is no backup in the replica.
//
// Nothing that stands in the replica is changed, and any number of copiers may
// work on one backup, also on one group, at the same time.
type Replicator struct {
	// Repo is the vault that is copied from.
	Repo *repository.Repository
	// Target is the address of the other vault, To the store that it is in.
	Address string
	Store   object.Store
	Work    fanout.Dispatcher
	Log     *slog.Logger
	// Back says that the backup goes back to the vault that it was copied from, to
	// make anew what is gone there. Then nothing is noted in Repo, which may be
	// there to be read only, and no record of what the replica's store answered is
	// needed but where it is not what the backup's own records say.
	Back bool
}

// Reply is what one invocation came to.
type Reply struct {
	Backup  vault.BackupID `json:"backup"`
	Replica string         `json:"target"`
	Start   int            `json:"start"`
	// Objects were copied by this invocation, and Found were there before.
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Found   int64 `json:"found"`
	// Groups is how many groups the backup has, Copied how many are known to be
	// whole in the replica.
	Groups int `json:"groups"`
	Copied int `json:"copied"`
	// Done says that the whole backup is in the replica, Continued that another
	// invocation goes on. Next is where CopyAll is to go on if it is not done.
	Done      bool  `json:"done"`
	Continued bool  `json:"continued,omitempty"`
	Next      Point `json:"next,omitzero"`
	// Replaced are the objects that were damaged or gone here, and were copied
	// from another replica.
	Replaced []vault.Finding `json:"replaced,omitempty"`
}

// Point is a place in a backup: one of the objects of a group, in the order
// of their names.
type Point struct {
	Group  int `json:"group"`
	Object int `json:"object"`
}

// Settings are the settings of a command to copy.
type Settings struct {
	// BytesPerSecond bounds what is sent, 0 for any number.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	// Next is where a copy of a whole backup goes on.
	Next Point `json:"next,omitzero"`
	// Back copies from the replica to the vault, what is gone there.
	Back bool `json:"back,omitempty"`
}

// The bounds of copying.
const (
	// copiesInFlight is how many objects are on their way at a time: each takes
	// the memory of a part of an upload. With a budget it is one for each copyRate
	// of it: what is begun should be whole before time is up.
	copiesInFlight = 4
	copyRate       = 8 << 20
	// A record is written when the objects without one are so many, or so large.
	recordObjects = 256
	recordBytes   = 256 << 20
	// copyChunk is what passes at a time where there is a budget.
	copyChunk = 64 << 10
)

// Copy copies the group of a backup whose first segment the work names, or what
// of it can be copied before run says stop, and completes the copy if no other
// group is missing. Then, without a budget, it hands over to the next start; with
// one, the planner does, which divides the budget anew. What was copied before
// an error stays.
func (c *Replicator) Copy(ctx context.Context, run fanout.Run, w fanout.Work) (Reply, error) {
	b := vault.Backup{Table: w.Table, ID: w.Backup}
	reply := Reply{Backup: b.ID, Replica: c.Address, Start: w.Start}
	what := fmt.Sprintf("copy group %d of backup %s of %s to %s", w.Segment.Group(), b.ID, b.Table, c.Address)
	log := b.Copying(place.Key(c.Address))
	if w.Segment != vault.GroupID(w.Segment.Group()) {
		return reply, fmt.Errorf("%s: %w: %q is not the first segment of a group", what, table.ErrInvalid, w.Segment)
	}
	var err error
	if reply.Start, err = fanout.NewLog(c.Repo, log).Begin(ctx, vault.Note{Segment: w.Segment, Start: w.Start, Replica: c.Address, Rate: w.Rate}, run); err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	err = c.part(ctx, run, w, log, &reply)
	if err != nil {
		err = fanout.NewLog(c.Repo, log).Fail(ctx, fanout.Start{Segment: w.Segment, Number: reply.Start}, run, fanout.Permanent(err), fmt.Errorf("%s: %w", what, err))
	}
	return reply, err
}

func (c *Replicator) part(ctx context.Context, run fanout.Run, w fanout.Work, log vault.Log, reply *Reply) error {
	b := vault.Backup{Table: w.Table, ID: w.Backup}
	s, err := c.begin(ctx, run, b, w.Rate, reply)
	if err != nil {
		return err
	}
	through, err := s.group(ctx, w.Segment.Group(), 0)
	if err == nil {
		err = s.damage()
	}
	if err != nil {
		return err
	}
	if !through {
		if w.Rate > 0 {
			return nil
		}
		if reply.Start+1 >= fanout.MaxStarts {
			return fmt.Errorf("%w: %d, and the group is not copied; give the function more time", fanout.ErrStarts, fanout.MaxStarts)
		}
		next := w
		next.Start = reply.Start + 1
		if err := c.Work.Submit(ctx, next); err != nil {
			return fmt.Errorf("continue: %w", err)
		}
		reply.Continued = true
		return nil
	}
	if err := c.Repo.Mark(ctx, log.Done(w.Segment)); err != nil {
		return err
	}
	done, err := copiedGroups(ctx, c.Repo, log)
	if err != nil {
		return err
	}
	reply.Copied = len(done)
	if len(done) < len(s.manifest.Groups) {
		return nil
	}
	// The marks say that it is worth a look; the records in the replica decide.
	for g := range s.manifest.Groups {
		there, err := s.replica.Copied(ctx, b, g)
		if err != nil {
			return fmt.Errorf("in the target: %w", err)
		}
		if !there.Whole {
			return fmt.Errorf("the records in the target do not say that group %d is whole, as %s does: give `tablevault copy %s --to %s`",
				g, log.Done(vault.GroupID(g)), b.ID, c.Address)
		}
	}
	return s.finish(ctx)
}

// CopyAll copies a whole backup in this process, from a point on, or what of it
// can be copied before run says stop. It asks the replica's store for each object,
// whatever the records say, so that what is gone from a complete copy is made
// anew. An interrupted call is gone on with from the reply's Next.
func (c *Replicator) CopyAll(ctx context.Context, run fanout.Run, b vault.Backup, from Point, bytesPerSecond int64) (Reply, error) {
	reply := Reply{Backup: b.ID, Replica: c.Address}
	if err := c.all(ctx, run, b, from, bytesPerSecond, &reply); err != nil {
		return reply, fmt.Errorf("copy backup %s of %s to %s: %w", b.ID, b.Table, c.Address, err)
	}
	return reply, nil
}

func (c *Replicator) all(ctx context.Context, run fanout.Run, b vault.Backup, from Point, bytesPerSecond int64, reply *Reply) error {
	s, err := c.begin(ctx, run, b, bytesPerSecond, reply)
	if err != nil {
		return err
	}
	if from.Group < 0 || from.Group > len(s.manifest.Groups) || from.Object < 0 {
		return fmt.Errorf("object %d of group %d: the backup has %d groups", from.Object, from.Group, len(s.manifest.Groups))
	}
	s.check = true
	log := b.Copying(place.Key(c.Address))
	for g := from.Group; g < len(s.manifest.Groups); g++ {
		through, err := s.group(ctx, g, from.Object)
		if err != nil {
			return err
		}
		if !through {
			return s.damage()
		}
		from.Object = 0
		if s.damaged > 0 {
			continue // what can be copied is
		}
		reply.Copied = g + 1
		if !c.Back {
			if err := c.Repo.Mark(ctx, log.Done(vault.GroupID(g))); err != nil {
				return err
			}
		}
	}
	if err := s.damage(); err != nil {
		return err
	}
	return s.finish(ctx)
}

// copiedGroups are the groups that the marks say are whole in a replica.
func copiedGroups(ctx context.Context, r *repository.Repository, log vault.Log) (map[int]bool, error) {
	done := map[int]bool{}
	prefix := log.AllDone()
	for info, err := range r.Store().List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if s, err := vault.ParseSegmentID(info.Name[strings.LastIndexByte(info.Name, '/')+1:]); err == nil {
			done[s.Group()] = true
		}
	}
	return done, nil
}

// copying is one invocation's work on one backup.
type copying struct {
	*Replicator
	run      fanout.Run
	backup   vault.Backup
	manifest *vault.Manifest
	named    vault.Object // the manifest's
	replica  *repository.Repository
	rate     int64
	limit    *rate.Limiter // nil without a budget
	reply    *Reply
	// check says that objects are asked for even if records tell of them.
	check   bool
	begun   int // objects, in this invocation
	streams *semaphore.Weighted

	// damaged counts the objects that are damaged here, in every vault, or of which
	// the replica has others; why says it of the first.
	mu      sync.Mutex
	damaged int
	why     error
}

// damage is the error about what could not be copied, nil if everything could.
func (s *copying) damage() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.damaged > 1 {
		return fmt.Errorf("%w; and so it is with %d more objects", s.why, s.damaged-1)
	}
	return s.why
}

// begin reads what is to be copied and makes the replica a replica of this vault.
func (c *Replicator) begin(ctx context.Context, run fanout.Run, b vault.Backup, bytesPerSecond int64, reply *Reply) (*copying, error) {
	m, named, err := c.Repo.Manifest(ctx, b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is not sealed, or not in this vault: `tablevault list` shows those that are", err)
	}
	if err != nil {
		return nil, err
	}
	if m.State != vault.Sealed {
		return nil, fmt.Errorf("%w: it was given up: %s", vault.ErrCorrupt, m.Reason)
	}
	if err := c.Repo.CheckNotMarked(ctx, b); err != nil {
		return nil, err
	}
	reply.Groups = len(m.Groups)
	s := &copying{Replicator: c, run: run, backup: b, manifest: m, named: named, reply: reply, rate: bytesPerSecond, replica: c.Repo.In(c.Store)}
	s.streams = semaphore.NewWeighted(s.inFlight())
	// The target may delete by a retention of its own.
	if err := s.replica.CheckNotMarked(ctx, b); err != nil {
		return nil, fmt.Errorf("in the target: %w", err)
	}
	if bytesPerSecond > 0 {
		s.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), copyChunk)
	}
	// The notes about copies stand where the backup was made.
	home, far := c.Repo, s.replica
	if c.Back {
		home, far = far, home
	}
	if err := repository.Apart(ctx, home.Store(), far.Store(), place.Key(c.Address)); err != nil {
		return nil, err
	}
	if err := home.AsCopied(ctx, b, named); err != nil {
		return nil, err
	}
	var header vault.Header
	_, err = s.replica.Read(ctx, vault.HeaderName, &header)
	if errors.Is(err, fs.ErrNotExist) {
		header = c.Repo.Header
		_, err = s.replica.Win(ctx, vault.HeaderName, &header)
	}
	if err != nil {
		return nil, fmt.Errorf("in the target: %w", err)
	}
	if header.ID != c.Repo.Header.ID || header.Seed != c.Repo.Header.Seed {
		return nil, fmt.Errorf("%w: the vault in the target is another one, %s and not %s: name an empty place", errTaken, header.ID, c.Repo.Header.ID)
	}
	return s, nil
}

// errTaken says that something else stands under a name in the replica. It
// matches vault.ErrCorrupt: trying again does not help.
var errTaken = fmt.Errorf("%w in the target", vault.ErrCorrupt)

// group copies the shards and indexes of a group, from the from-th on, and says
// whether it came through; if not, time is up. What is damaged it leaves out.
func (s *copying) group(ctx context.Context, g, from int) (through bool, err error) {
	if g >= len(s.manifest.Groups) {
		return false, fmt.Errorf("backup %s has no group %d: it has %d", s.backup.ID, g, len(s.manifest.Groups))
	}
	var rolled vault.Group
	if err := s.Repo.ReadExact(ctx, s.manifest.Groups[g], &rolled); err != nil {
		return false, err
	}
	records, err := s.replica.Copied(ctx, s.backup, g)
	if err != nil {
		return false, fmt.Errorf("in the target: %w", err)
	}
	if records.Whole && !s.check {
		return true, nil
	}
	var objects []vault.Object
	for _, l := range rolled.Segments {
		for _, slot := range l.Slots {
			if slot.Part != nil {
				objects = append(objects, slot.Part.Shard, slot.Part.Index)
			}
		}
	}
	slices.SortFunc(objects, func(a, b vault.Object) int { return strings.Compare(a.Name, b.Name) })
	w := &copiedObjects{copying: s, group: g, known: records.Checksums, records: records, brought: make([]bool, len(objects))}
	// An object that is on its way when run says stop has half of the margin.
	inTime, cancel := s.run.InTime(ctx)
	defer cancel()
	work, wctx := guard.WithContext(inTime)
	slots := semaphore.NewWeighted(s.inFlight())
	if s.rate == 0 {
		slots = semaphore.NewWeighted(repository.StatsInFlight) // most of them may be there
	}
	next := min(from, len(objects))
	var misfit error
	for ; next < len(objects); next++ {
		i, o := next, objects[next]
		if !s.check && records.Checksums[repository.Identity(o)] != "" {
			w.brought[i] = true
			continue
		}
		if slots.Acquire(wctx, 1) != nil {
			break // Wait says why
		}
		var fits bool
		if fits, misfit = s.fits(o); !fits {
			break
		}
		s.begun++
		work.Go(func() error {
			defer slots.Release(1)
			return w.object(wctx, ctx, i, o)
		})
	}
	err = errors.Join(misfit, work.Wait())
	ranOut := errors.Is(err, repository.ErrTime) || err != nil && inTime.Err() != nil && ctx.Err() == nil
	if ranOut {
		err = nil
	}
	through = err == nil && !ranOut && next == len(objects)
	// What was copied before an error is as good as any.
	if rerr := w.record(ctx, through && !records.Whole); rerr != nil {
		return false, errors.Join(err, rerr)
	}
	if ranOut && !w.any {
		return false, errors.New("no object could be copied in the function's time: give it a longer timeout")
	}
	if !through {
		for next = min(from, len(objects)); next < len(objects) && w.brought[next]; next++ {
		}
		s.reply.Next = Point{Group: g, Object: next}
	}
	s.reply.Replaced = s.Repo.Replaced()
	return through, err
}

// inFlight is how many objects are on their way at a time.
func (s *copying) inFlight() int64 {
	if s.rate == 0 {
		return copiesInFlight
	}
	return min(max(s.rate/copyRate, 1), copiesInFlight)
}

// fits says whether an object can be whole before time is up. At least one is
// tried in each invocation, unless it is known that its budget is too little for
// that, which is an error.
func (s *copying) fits(o vault.Object) (bool, error) {
	if s.run.Stop.IsZero() {
		return true, nil
	}
	if s.rate == 0 {
		return s.begun == 0 || !s.run.Stopping(), nil
	}
	takes := time.Duration(float64(o.Bytes) / float64(s.rate) * float64(s.inFlight()) * float64(time.Second))
	left := s.run.Stop.Sub(s.run.Now())
	if takes <= left {
		return true, nil
	}
	if s.begun == 0 {
		return false, fmt.Errorf("%s has %d bytes, which take %s with %d bytes per second for this copy, and the function has %s: raise the bandwidth, or the function's timeout",
			o.Name, o.Bytes, takes.Round(time.Second), s.rate, left.Round(time.Second))
	}
	return false, nil
}

// copiedObjects are the objects of a group as they come into the replica.
type copiedObjects struct {
	*copying
	group int
	known map[string]string // checksums in the replica, by identity

	records repository.CopiedGroup
	pending []vault.Object // without a record
	size    int64          // of those
	brought []bool         // by place in the group
	any     bool           // was brought by this invocation
	missing int            // damaged, and left out
}

// object brings one object into the replica, under ctx, and notes it, under
// saving.
func (w *copiedObjects) object(ctx, saving context.Context, i int, o vault.Object) error {
	checksum, copied, err := w.bring(ctx, o)
	w.mu.Lock()
	defer w.mu.Unlock()
	var bad *repository.BadObject
	switch {
	case errors.As(err, &bad), errors.Is(err, errTaken):
		// The others are worth as much as before.
		if w.damaged++; w.damaged == 1 {
			w.why = err
		}
		w.missing++
		w.brought[i] = true
		return nil
	case err != nil:
		return err
	case copied:
		w.reply.Objects++
		w.reply.Bytes += o.Bytes
	default:
		w.reply.Found++
	}
	w.brought[i], w.any = true, true
	if w.known[repository.Identity(o)] == checksum || w.Back && o.Checksum == checksum {
		return nil
	}
	o.Checksum = checksum
	w.pending = append(w.pending, o)
	w.size += o.Bytes
	if len(w.pending) < recordObjects && w.size < recordBytes {
		return nil
	}
	return w.write(saving, false)
}

// record writes down what has no record yet, and that it is the last unless
// something is missing.
func (w *copiedObjects) record(ctx context.Context, last bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	last = last && w.missing == 0 && !w.Back
	if len(w.pending) == 0 && !last {
		return nil
	}
	return w.write(ctx, last)
}

// write writes a record; the caller holds mu.
func (w *copiedObjects) write(ctx context.Context, last bool) error {
	slices.SortFunc(w.pending, func(a, b vault.Object) int { return strings.Compare(a.Name, b.Name) })
	for {
		c := &vault.Copied{
			Backup: w.backup.ID, Table: w.backup.Table, Group: w.group, Record: w.records.Records,
			Manifest: w.named.SHA256, Objects: w.pending, Last: last,
		}
		mine, err := w.replica.Win(ctx, w.backup.Copied(w.group, c.Record), c)
		if err != nil {
			return fmt.Errorf("in the target: %w", err)
		}
		w.records.Records++
		if mine {
			w.pending, w.size = nil, 0
			return nil
		}
		// Another copier's: go on behind it.
	}
}

// bring makes sure that an object stands in the replica as it was written, and
// returns the checksum that it has there.
func (w *copiedObjects) bring(ctx context.Context, o vault.Object) (checksum string, copied bool, err error) {
	info, err := object.Stat(ctx, w.Store, o.Name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := w.streams.Acquire(ctx, 1); err != nil {
			return "", false, err
		}
		info, err = w.Repo.Replicate(ctx, o, w.Store, w.limit)
		w.streams.Release(1)
		if err == nil {
			return info.Checksum, true, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", false, err
		}
		// Another copier was faster, or an answer was lost.
		info, err = object.Stat(ctx, w.Store, o.Name)
	}
	if err != nil {
		return "", false, fmt.Errorf("ask the target for %s: %w", o.Name, err)
	}
	other := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s there is not what was written here: %s; nothing is written over: delete it there, and copy again",
			errTaken, o.Name, fmt.Sprintf(format, args...))
	}
	known := w.known[repository.Identity(o)]
	switch {
	case info.Size != o.Bytes:
		return "", false, other("%d bytes, not %d", info.Size, o.Bytes)
	case repository.SameKind(info.Checksum, o.Checksum) && info.Checksum != o.Checksum:
		return "", false, other("the checksum %s, not %s", info.Checksum, o.Checksum)
	case repository.SameKind(info.Checksum, o.Checksum), known == info.Checksum:
		return info.Checksum, false, nil
	}
	// It came without a record of it, and nothing but its bytes tells what it is.
	if err := w.streams.Acquire(ctx, 1); err != nil {
		return "", false, err
	}
	defer w.streams.Release(1)
	if err := w.replica.Check(ctx, o, w.limit); err != nil {
		var bad *repository.BadObject
		if errors.As(err, &bad) {
			return "", false, other("%v", bad.Err)
		}
		return "", false, fmt.Errorf("in the target: %w", err)
	}
	return info.Checksum, false, nil
}

// finish copies the documents, the manifest last, and notes in this vault that
// the copy is complete.
func (s *copying) finish(ctx context.Context) error {
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(copiesInFlight)
	work.Go(func() error {
		_, err := s.document(wctx, *s.manifest.Plan)
		return err
	})
	totals := make([]vault.Totals, len(s.manifest.Groups))
	for g, o := range s.manifest.Groups {
		work.Go(func() error {
			data, err := s.document(wctx, o)
			if err != nil {
				return err
			}
			var rolled vault.Group
			err = s.Repo.Decode(o.Name, data, &rolled)
			totals[g] = rolled.Totals
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	var sum vault.Totals
	for _, t := range totals {
		sum.Add(t)
	}
	if sum != s.manifest.Totals {
		return fmt.Errorf("%w: %s says %d rows in %d objects, its groups have %d in %d, or other sums", vault.ErrCorrupt, s.named.Name,
			s.manifest.Totals.Rows, s.manifest.Totals.Objects, sum.Rows, sum.Objects)
	}
	// What was there when the copy began may go meanwhile.
	if err := s.replica.CheckNotMarked(ctx, s.backup); err != nil {
		return fmt.Errorf("in the target: %w", err)
	}
	if _, err := s.document(ctx, s.named); err != nil {
		return err
	}
	// After the manifest: a backup that is marked and has none would be gone on
	// with by whoever plans in the replica.
	marked, err := s.replica.Exists(ctx, vault.Opened(s.backup.Table, s.backup.ID))
	if err == nil && !marked {
		err = s.replica.Mark(ctx, vault.Opened(s.backup.Table, s.backup.ID))
	}
	if err != nil {
		return fmt.Errorf("in the target: %w", err)
	}
	note := &vault.CopyNote{
		Backup: s.backup.ID, Table: s.backup.Table, Replica: s.Address, At: s.run.Now().UTC(),
		Objects: s.manifest.Totals.Objects + 2 + int64(len(s.manifest.Groups)), Bytes: s.manifest.Totals.StoredBytes, Manifest: s.named.SHA256,
	}
	s.reply.Done, s.reply.Copied = true, len(s.manifest.Groups)
	if s.Back {
		return nil
	}
	mine, err := s.Repo.Win(ctx, s.backup.CopyNote(place.Key(s.Address)), note)
	if err != nil {
		return err
	}
	if mine {
		s.Log.Info("copied", "backup", s.backup.ID, "table", s.backup.Table.String(), "target", s.Address, "stored_bytes", note.Bytes)
	}
	return nil
}

// document copies a document byte for byte, and returns it.
func (s *copying) document(ctx context.Context, o vault.Object) ([]byte, error) {
	data, err := s.Repo.ReadBytes(ctx, o)
	if err != nil {
		return nil, err
	}
	// Looked at first: whoever puts back what is gone need not be allowed to write
	// what is there.
	there, err := object.ReadAll(ctx, s.Store, o.Name, vault.MaxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		there, _, err = object.Decide(ctx, s.Store, o.Name, data, vault.MaxDocument)
	}
	if err != nil && !errors.Is(err, object.ErrTooLong) {
		return nil, fmt.Errorf("in the target: %w", err)
	}
	if !bytes.Equal(there, data) {
		return nil, fmt.Errorf("%w: %s there is not what was written here; nothing is written over: delete it there, and copy again", errTaken, o.Name)
	}
	return data, nil
}

package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/tablevault/tablevault/shared/vault"
)

// copying is one invocation's work on one backup.
type copying struct {
	*Replicator
	run      fanout.Run
	backup   vault.Backup
	manifest *vault.Manifest
	named    vault.Object // the manifest's
	to       *repository.Repository
	rate     int64
	limit    *rate.Limiter // nil without a budget
	reply    *Reply
	// check says that objects are asked for even if records tell of them.
	check   bool
	begun   int // objects, in this invocation
	streams *semaphore.Weighted

	// damaged counts the objects that are bad in the vault and in all of its replicas,
	// and those whose names are taken in this replica; why is the error about the first.
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

// begin reads what is to be copied, and makes sure that the place that it goes to is
// another one, and the same vault or none: then it makes the vault there.
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
	s := &copying{Replicator: c, run: run, backup: b, manifest: m, named: named, reply: reply, rate: bytesPerSecond, to: c.Repo.In(c.Store)}
	s.streams = semaphore.NewWeighted(s.inFlight())
	// The replica may delete by a retention of its own.
	if err := s.to.CheckNotMarked(ctx, b); err != nil {
		return nil, fmt.Errorf("in the target: %w", err)
	}
	if bytesPerSecond > 0 {
		s.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), copyChunk)
	}
	// The notes about copies stand where the backup was made.
	home, far := c.Repo, s.to
	if c.Back {
		home, far = far, home
	}
	if err := repository.CheckApart(ctx, home.Store(), far.Store(), place.Key(c.Address)); err != nil {
		return nil, err
	}
	if err := home.CheckAsCopied(ctx, b, named); err != nil {
		return nil, err
	}
	var header vault.Header
	_, err = s.to.Read(ctx, vault.HeaderName, &header)
	if errors.Is(err, fs.ErrNotExist) {
		header = c.Repo.Header
		_, err = s.to.Win(ctx, vault.HeaderName, &header)
	}
	if err != nil {
		return nil, fmt.Errorf("in the target: %w", err)
	}
	if header.ID != c.Repo.Header.ID || header.Seed != c.Repo.Header.Seed {
		return nil, fmt.Errorf("%w: the vault in the target is another one, %s and not %s: name an empty place", errTaken, header.ID, c.Repo.Header.ID)
	}
	return s, nil
}

// errTaken says that something else stands under a name in the replica. It matches
// vault.ErrCorrupt: trying again does not help.
var errTaken = fmt.Errorf("%w in the target", vault.ErrCorrupt)

// group copies the shards and indexes of a group, from the from-th on, but for those that
// are damaged. It says whether it came through, or time was up before.
func (s *copying) group(ctx context.Context, g, from int) (through bool, err error) {
	if g >= len(s.manifest.Groups) {
		return false, fmt.Errorf("backup %s has no group %d: it has %d", s.backup.ID, g, len(s.manifest.Groups))
	}
	var rolled vault.Group
	if err := s.Repo.ReadExact(ctx, s.manifest.Groups[g], &rolled); err != nil {
		return false, err
	}
	records, err := s.to.Copied(ctx, s.backup, g)
	if err != nil {
		return false, fmt.Errorf("in the target: %w", err)
	}
	if records.Whole && !s.check {
		return true, nil
	}
	objects := dataOf(&rolled)
	w := &copiedObjects{s: s, group: g, records: records, brought: make([]bool, len(objects))}
	// Objects that are on their way when run says stop have half of the margin to arrive.
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

// dataOf are the shards and indexes of a group, by their names.
func dataOf(g *vault.Group) (objects []vault.Object) {
	for _, l := range g.Segments {
		for _, slot := range l.Slots {
			if slot.Part != nil {
				objects = append(objects, slot.Part.Shard, slot.Part.Index)
			}
		}
	}
	slices.SortFunc(objects, func(a, b vault.Object) int { return strings.Compare(a.Name, b.Name) })
	return objects
}

// inFlight is how many objects are on their way at a time.
func (s *copying) inFlight() int64 {
	if s.rate == 0 {
		return copiesInFlight
	}
	return min(max(s.rate/copyRate, 1), copiesInFlight)
}

// fits says whether an object can be whole before time is up. The first of an invocation
// is tried in any case, unless the budget is too small for it: that is an error.
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

// finish copies the documents, the manifest last, and notes in this vault that the copy
// is complete.
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
	if err := s.to.CheckNotMarked(ctx, s.backup); err != nil {
		return fmt.Errorf("in the target: %w", err)
	}
	if _, err := s.document(ctx, s.named); err != nil {
		return err
	}
	// After the manifest: a planner of the replica would go on with a backup that was
	// opened and has none.
	marked, err := s.to.Exists(ctx, vault.Opened(s.backup.Table, s.backup.ID))
	if err == nil && !marked {
		err = s.to.Mark(ctx, vault.Opened(s.backup.Table, s.backup.ID))
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
	won, err := s.Repo.Win(ctx, s.backup.CopyNote(place.Key(s.Address)), note)
	if err != nil {
		return err
	}
	if won {
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
	// Read first: to put back what is gone takes no right to write what is there.
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

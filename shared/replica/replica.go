// Package replica brings sealed backups into replicas, and tells how far they have come
// there.
package replica

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Replicator copies sealed backups into a replica: another vault with the same id, which
// can be read without this one.
//
// A backup is copied group by group. The shards of a group go first, each compared with
// its sha256 on the way, so that bytes which are not as they were written never arrive
// under its name. Records in the replica say what its store answered; they are what an
// interrupted copy goes on from. When every group is whole, the plan and the roll-ups
// follow, then the manifest: until then there is no backup in the replica.
//
// Nothing that stands in the replica is changed, and any number of replicators may work
// on one backup, also on one group, at the same time.
type Replicator struct {
	// Repo is the vault that is copied from.
	Repo *repository.Repository
	// Address is that of the replica, Store the store that it is in.
	Address string
	Store   object.Store
	Work    fanout.Dispatcher
	Log     *slog.Logger
	// Back says that Repo is the replica, and that what is gone from the vault is made
	// anew there: Address and Store are the vault's. Then nothing is noted in Repo, which
	// it may not be allowed to write to; and an object's checksum is recorded only where
	// the backup's own record has another.
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
	// Groups is how many groups the backup has, Copied how many are known to be whole in
	// the replica.
	Groups int `json:"groups"`
	Copied int `json:"copied"`
	// Done says that the whole backup is in the replica, Continued that another
	// invocation goes on. Next is where CopyAll is to go on if it is not done.
	Done      bool  `json:"done"`
	Continued bool  `json:"continued,omitempty"`
	Next      Point `json:"next,omitzero"`
	// Replaced are the objects that were damaged or gone here, and were copied from
	// another replica.
	Replaced []vault.Finding `json:"replaced,omitempty"`
}

// Point is a place in a backup: one of the objects of a group, in the order of their
// names.
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
	// copiesInFlight bounds how many objects are on their way at a time, since each takes
	// the memory of a part of an upload. With a budget there is one for each copyRate of
	// it, so that what is begun is whole before time is up.
	copiesInFlight = 4
	copyRate       = 8 << 20
	// A record is written for that many objects, or that many bytes.
	recordObjects = 256
	recordBytes   = 256 << 20
	// copyChunk is how many bytes a budget lets pass at a time.
	copyChunk = 64 << 10
)

// Copy copies the group of a backup whose first segment the work names, and completes the
// copy of the backup if no other group is missing. When run says stop before the group is
// whole, it hands over to the next start; with a budget it leaves that to the planner,
// which divides the budget anew. What was copied before an error stays.
func (c *Replicator) Copy(ctx context.Context, run fanout.Run, w fanout.Work) (Reply, error) {
	b := vault.Backup{Table: w.Table, ID: w.Backup}
	reply := Reply{Backup: b.ID, Replica: c.Address, Start: w.Start}
	what := fmt.Sprintf("copy group %d of backup %s of %s to %s", w.Segment.Group(), b.ID, b.Table, c.Address)
	names := b.Copying(place.Key(c.Address))
	log := fanout.NewLog(c.Repo, names)
	if w.Segment != vault.GroupID(w.Segment.Group()) {
		return reply, fmt.Errorf("%s: %w: %q is not the first segment of a group", what, table.ErrInvalid, w.Segment)
	}
	var err error
	if reply.Start, err = log.Begin(ctx, vault.Note{Segment: w.Segment, Start: w.Start, Replica: c.Address, Rate: w.Rate}, run); err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	err = c.part(ctx, run, w, names, &reply)
	if err != nil {
		err = log.Fail(ctx, fanout.Start{Segment: w.Segment, Number: reply.Start}, run, fanout.Permanent(err), fmt.Errorf("%s: %w", what, err))
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
		there, err := s.to.Copied(ctx, b, g)
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

// CopyAll copies a whole backup in this process, from a point on, until run says stop:
// the next call goes on from the reply's Next. It asks the replica's store for each
// object, whatever the records say, so that what is gone from a complete copy is made
// anew.
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

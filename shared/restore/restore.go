// Package restore brings backups back into tables, and proves them: rows are
// loaded, compared in both directions, and only then is the table handed over.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// Importer restores backups into tables.
type Importer struct {
	Repo *repository.Repository
	// Tables is the instance that the target is in, Endpoint its address.
	Tables   table.Instance
	Endpoint string
	Work     fanout.Dispatcher
	Log      *slog.Logger
	// Memory bounds the rows in flight, in bytes; 0 means DefaultMemory.
	Memory int64
	// Stale is the age at which a start without a result counts as dead even
	// though the platform might let it run on; zero leaves it to the platform's
	// time limit.
	Stale time.Duration
	// Since is when a person gave the command anew: segments that failed for good
	// before it are tried again.
	Since time.Time
	// Workers is how many segments may be worked on at a time, 0 for any number.
	Workers int
	// Request is the name of the request that has asked for the restore, empty if a
	// person has, who watches it. The last of the workers on a phase of it has the
	// request looked at, so that the next phase need not wait for the planner's tick.
	Request string
	// Known are further vaults that backups are copied to, named by their addresses. A restore reads from
	// those that hold a copy of its backup what is damaged or gone here, without
	// being asked to.
	Known []repository.Replica
}

// Request says what is to be restored, and where.
type Request struct {
	Backup vault.Backup
	Target vault.TableID
	// At is when the restore was asked for; with the backup and the target it
	// makes the restore's id, so that two deliveries of one request make one
	// restore.
	At time.Time
	// Instant is what was asked for, of which Backup is the newest; zero where the backup
	// was named, or the newest of all.
	Instant time.Time
	// New begins a restore even if one of the same backup into the same table
	// is open, whose table must be gone.
	New bool
	// Own refuses to go on with a restore that something else asked for.
	Own bool
	// Also are the keys of further vaults that hold copies of the backup.
	Also []string
	// Budget bounds what is asked of the target. A restore that is gone on with keeps
	// its own; another one here is refused.
	Budget vault.Budget
	// LocalTransactions has the table take local transactions. Whether the source does, the
	// service does not tell.
	LocalTransactions bool
}

// The states of a restore.
const (
	StateLoading   = "loading"
	StateVerifying = "verifying"
	StateClosing   = "closing"
	StateDone      = "done"
	StateFailed    = "failed"
)

// Progress is how far a restore has come.
type Progress struct {
	Restore vault.RestoreID `json:"restore"`
	// Backup is what it brings back, to RecoveryPoint.
	Backup        vault.BackupID `json:"backup,omitempty"`
	RecoveryPoint time.Time      `json:"recovery_point,omitzero"`
	// State is "loading", "verifying", "closing", "done" or "failed".
	State    string `json:"state"`
	Segments int    `json:"segments"`
	Loaded   int    `json:"loaded"`
	Checked  int    `json:"checked"`
	// Rows is the number of rows in the backup, LoadedRows of those in the
	// segments that are loaded.
	Rows       int64 `json:"rows"`
	LoadedRows int64 `json:"loaded_rows"`
	// Live counts the segments that are being worked on, Dispatched those that
	// this tick started.
	Live       int `json:"live"`
	Dispatched int `json:"dispatched"`
	// Pace says what holds the live workers back, nil if nothing does.
	Pace *fanout.Pace `json:"pace,omitempty"`
	// Waiting says what the restore waits for, if it is not its segments, and Silent
	// which of the live workers nothing was heard of for a while.
	Waiting   string       `json:"waiting,omitempty"`
	Silent    string       `json:"silent,omitempty"`
	Proof     *vault.Proof `json:"proof,omitempty"`
	LastError string       `json:"last_error,omitempty"`
	// Corrupt says that the last error is about an object of the vault that is not as it
	// was written.
	Corrupt bool `json:"corrupt,omitempty"`
	// Notes say, from the beginning, where the table is not to be as the source was.
	Notes []string `json:"notes,omitempty"`
	// Since is the importer's, for the ticks that follow a person's command.
	Since time.Time `json:"since,omitzero"`
	// over says that nothing comes after this, whatever is mended.
	over bool
}

// segmentsOf reads the segments of the backup that a restore's plan pins.
func segmentsOf(r *repository.Repository, p *vault.RestorePlan) sealed.Segments {
	return sealed.Segments{Repo: r, ID: vault.Backup{Table: p.Source, ID: p.Backup}, Manifest: p.Manifest}
}

// planned refuses a segment that a restore does not have, before anything is noted
// of it.
func planned(p *vault.RestorePlan, id vault.SegmentID) error {
	if !slices.ContainsFunc(p.Segments, func(s vault.RestoreSegment) bool { return s.ID == id }) {
		return table.Invalidf("backup %s has no segment %q: restore %s has %d segments", p.Backup, id, p.Restore, len(p.Segments))
	}
	return nil
}

// Tick looks at a restore and does what is due: it dispatches the segments that
// nobody works on, first to load them, then to verify them; writes the closing
// record; gives the table its indexes and settings; and writes the proof. It
// may run at any time, twice, and beside itself.
func (i *Importer) Tick(ctx context.Context, run fanout.Run, id vault.RestoreID) (Progress, error) {
	progress, err := i.tick(ctx, run, id)
	if err == nil && progress.over {
		err = i.Repo.Mark(ctx, vault.Restore{ID: id}.Restored())
	}
	if err != nil {
		return progress, fmt.Errorf("restore %s: %w", id, err)
	}
	return progress, nil
}

func (i *Importer) tick(ctx context.Context, run fanout.Run, id vault.RestoreID) (Progress, error) {
	progress := Progress{Restore: id, Since: i.Since}
	p, err := i.Repo.RestorePlan(ctx, id)
	if err != nil {
		return progress, err
	}
	r := vault.Restore{ID: id}
	progress.Backup, progress.RecoveryPoint, progress.Segments, progress.Notes = p.Backup, p.RecoveryPoint, len(p.Segments), p.Notes
	for _, s := range p.Segments {
		progress.Rows += s.Rows
	}
	proof, err := i.Repo.RestoreProof(ctx, id)
	if err == nil {
		err = proof.Of(p, nil, vault.Object{})
	}
	if err == nil {
		return progress.ended(proof), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return progress, err
	}
	closed, err := i.Repo.Closed(ctx, id)
	if err != nil {
		return progress, err
	}
	if closed != nil && closed.Reason != "" {
		progress.State, progress.LastError, progress.over = StateFailed, closed.Reason, true
		return progress, nil
	}
	made, err := i.ours(ctx, run, p, closed != nil)
	var found *another
	if errors.As(err, &found) {
		progress.State, progress.LastError, progress.over = StateFailed, found.reason, true
		return progress, nil
	}
	if err != nil {
		return progress, err
	}
	if closed == nil {
		if done, err := i.load(ctx, run, r, p, &progress); err != nil || !done {
			return progress, err
		}
	}
	checked, err := i.verify(ctx, run, r, p, &progress)
	if err != nil || checked == nil {
		return progress, err
	}
	if err := i.hold(ctx, p, &checked.Check); err != nil {
		return progress, err
	}
	verdict := checked.Check.Verdict()
	if verdict != vault.OK && verdict != vault.Quarantined {
		// The table is not handed over; its proof says why.
		proof, err := i.prove(ctx, run, r, p, checked, time.Time{}, p.Notes)
		if err != nil {
			return progress, err
		}
		if _, err := i.GiveUp(ctx, run, id, "the restored rows are not the backup's: verdict "+string(verdict)); err != nil {
			return progress, err
		}
		return progress.ended(proof), nil
	}
	progress.State = StateClosing
	if closed == nil {
		closed = &vault.Closed{Restore: id, At: run.Now().UTC()}
		if _, err := i.Repo.Win(ctx, r.Closed(), closed); err != nil {
			return progress, err
		}
		if closed.Reason != "" {
			progress.State, progress.LastError, progress.over = StateFailed, closed.Reason, true
			return progress, nil
		}
	}
	if progress.Waiting, err = i.working(ctx, run, r, checked.Unsettled); err != nil || progress.Waiting != "" {
		return progress, err
	}
	if note := lapseNote(p.Definition.Options.TTL, &checked.Check); note != "" {
		p.Notes = append(slices.Clip(p.Notes), note)
	}
	notes, waiting, err := i.finish(ctx, p, made)
	if progress.Waiting = waiting; err != nil || waiting != "" {
		return progress, err
	}
	if proof, err = i.prove(ctx, run, r, p, checked, closed.At, append(slices.Clip(p.Notes), notes...)); err != nil {
		return progress, err
	}
	return progress.ended(proof), nil
}

func (p Progress) ended(proof *vault.Proof) Progress {
	p.Proof, p.Loaded, p.LoadedRows, p.Checked, p.State, p.over = proof, p.Segments, p.Rows, p.Segments, StateDone, true
	if proof.Verdict != vault.OK && proof.Verdict != vault.Quarantined {
		p.State = StateFailed
		p.LastError = fmt.Sprintf("verdict %s: %d missing, %d extra, %d changed, %d corrupt; drop the table and restore again, or another backup",
			proof.Verdict, proof.Check.Missing, proof.Check.Extra, proof.Check.Changed, proof.Check.Corrupted)
	}
	return p
}

// hold compares the sums of a restore's checks with the manifest that its plan pins, and
// those of both sides with each other: what is not so is a finding.
func (i *Importer) hold(ctx context.Context, p *vault.RestorePlan, check *vault.Check) error {
	m, err := sealed.Pinned(ctx, i.Repo, p.Manifest)
	if repository.Corrupt(err) {
		check.Find(p.Manifest.Name, err)
		return nil
	}
	if err != nil {
		return err
	}
	if check.Corrupted > 0 {
		return nil // what could not be read is missing from the sums
	}
	if err := check.Holds(&m.Totals); err != nil {
		check.Find(p.Manifest.Name, err)
	} else if err := check.Agrees(); err != nil {
		check.Find(vault.Restore{ID: p.Restore}.Checks(), err)
	}
	return nil
}

func (i *Importer) prove(ctx context.Context, run fanout.Run, r vault.Restore, p *vault.RestorePlan, found *vault.CheckedGroup, closed time.Time, notes []string) (*vault.Proof, error) {
	notes = append(slices.Clip(notes), repository.ReplacedNotes(found.Check.Replaced, i.Repo.Replaced())...)
	notes = append(notes, i.Repo.ReplicaErrors()...)
	proof := &vault.Proof{
		Backup: p.Backup, Table: p.Source, Restore: p.Restore, Target: p.Target.String(), Depth: verify.DepthRows,
		At: run.Now().UTC(), Verdict: found.Check.Verdict(), Manifest: p.Manifest, Check: found.Check, Notes: notes,
		Usage: found.Usage, Compared: found.Latest, Closed: closed,
	}
	_, err := i.Repo.Win(ctx, r.Proof(), proof)
	if err == nil {
		i.Log.Info("restore proved", "restore", p.Restore, "verdict", proof.Verdict, "rows", proof.Check.Rows, "quarantined", proof.Check.Quarantined)
	}
	return proof, err
}

// load dispatches the segments that are not loaded and that nobody works on.
func (i *Importer) load(ctx context.Context, run fanout.Run, r vault.Restore, p *vault.RestorePlan, progress *Progress) (bool, error) {
	progress.State = StateLoading
	var open [][]vault.SegmentID
	var err error
	if open, progress.Loaded, progress.LoadedRows, err = i.toLoad(ctx, r, p); err != nil {
		return false, err
	}
	return len(open) == 0, i.dispatch(ctx, run, r.Log(), open, p.Loaders, loadingPace(i.Repo), func(s vault.SegmentID, start int) fanout.Work {
		return fanout.Work{Verb: fanout.VerbImport, Table: p.Source, Backup: p.Backup, Restore: p.Restore, Segment: s, Start: start, WriteUnits: p.LoadShare(), Request: i.Request}
	}, progress)
}

// toLoad are the segments that are not loaded, and of the others how many there are and
// how many rows they have.
func (i *Importer) toLoad(ctx context.Context, r vault.Restore, p *vault.RestorePlan) (open [][]vault.SegmentID, loaded int, rows int64, err error) {
	done, err := i.reported(ctx, r.Log().AllDone())
	if err != nil {
		return nil, 0, 0, err
	}
	open, loaded, rows = splitEnded(p, func(s vault.RestoreSegment) bool {
		_, ended := done[s.ID]
		return ended || s.Rows == 0
	})
	return open, loaded, rows, nil
}

// loadingPace reads what held back who wrote a slot of the log of loading.
func loadingPace(repo *repository.Repository) func(context.Context, string) (*vault.Pace, error) {
	return func(ctx context.Context, slot string) (*vault.Pace, error) {
		var entry vault.Loaded
		_, err := repo.Read(ctx, slot, &entry)
		return entry.Pace, err
	}
}

// comparingPace reads what held back who wrote a slot of the log of comparing.
func comparingPace(repo *repository.Repository) func(context.Context, string) (*vault.Pace, error) {
	return func(ctx context.Context, slot string) (*vault.Pace, error) {
		var entry vault.Compared
		_, err := repo.Read(ctx, slot, &entry)
		return entry.Pace, err
	}
}

// goesOn has a restore looked at, by its request if one has asked for it, when all
// segments with rows, or all, have their object under prefix: a phase is over.
// Several workers may find that at the same time; the number of each one's task is its
// own, since the look of one of them might come before another has ended. What goes
// wrong costs time only: the planner's next tick has the restore looked at too.
func goesOn(ctx context.Context, repo *repository.Repository, work fanout.Dispatcher, log *slog.Logger, of fanout.Work, after fanout.Phase, prefix string, segments int) {
	if work == nil {
		return
	}
	n := 0
	var err error
	for _, lerr := range repo.Store().List(ctx, prefix, "") {
		if err = lerr; err != nil {
			break
		}
		n++
	}
	if err == nil && n >= segments {
		look := fanout.Work{Verb: fanout.VerbRestore, Restore: of.Restore, Segment: of.Segment, Start: of.Start, After: after}
		if of.Request != "" {
			look.Request, look.Restore = of.Request, ""
		}
		err = work.Submit(ctx, look)
	}
	if err != nil {
		log.Warn("the restore is looked at by the next tick only", "restore", of.Restore, "request", of.Request, "error", err)
	}
}

// reported are the segments that have an object under prefix, with the store's date
// of it.
func (i *Importer) reported(ctx context.Context, prefix string) (map[vault.SegmentID]time.Time, error) {
	done := map[vault.SegmentID]time.Time{}
	for info, err := range i.Repo.Store().List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		done[vault.SegmentID(strings.TrimSuffix(path.Base(info.Name), ".json"))] = info.Modified
	}
	return done, nil
}

// byGroup are the plan's segments for which open says yes, those of one group
// together, in order.
func byGroup(p *vault.RestorePlan, open func(vault.RestoreSegment) bool) [][]vault.SegmentID {
	var groups [][]vault.SegmentID
	last := -1
	for _, s := range p.Segments {
		if !open(s) {
			continue
		}
		if s.Group != last {
			groups, last = append(groups, nil), s.Group
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], s.ID)
	}
	return groups
}

// splitEnded are the plan's segments that have not ended, by their groups, and of the
// others how many there are and how many rows they have.
func splitEnded(p *vault.RestorePlan, ended func(vault.RestoreSegment) bool) (open [][]vault.SegmentID, segments int, rows int64) {
	open = byGroup(p, func(s vault.RestoreSegment) bool {
		if !ended(s) {
			return true
		}
		segments++
		rows += s.Rows
		return false
	})
	return open, segments, rows
}

// plannedGroups are the plan's segments for which holds says yes, by their groups,
// and how many groups there are.
func plannedGroups(p *vault.RestorePlan, holds func(vault.RestoreSegment) bool) (planned func(group int) []vault.SegmentID, groups int) {
	all := map[int][]vault.SegmentID{}
	for _, group := range byGroup(p, holds) {
		all[group[0].Group()] = group
		groups = group[0].Group() + 1
	}
	return func(group int) []vault.SegmentID { return all[group] }, groups
}

// dispatch starts those of the open segments that nobody works on, so that no more
// than most are worked on at a time, if that is not zero. pace reads what held back
// who wrote a slot of the log.
func (i *Importer) dispatch(ctx context.Context, run fanout.Run, log vault.Log, open [][]vault.SegmentID, most int,
	pace func(context.Context, string) (*vault.Pace, error), work func(vault.SegmentID, int) fanout.Work, progress *Progress) error {
	if most == 0 || i.Workers > 0 && i.Workers < most {
		most = i.Workers
	}
	d := fanout.Dispatch{Log: fanout.NewLog(i.Repo, log), Stale: i.Stale, Since: i.Since, Most: most}
	for _, segments := range open {
		group := segments[0].Group()
		if err := d.Look(ctx, run, group, segments); err != nil {
			return err
		}
		if err := d.Paces(ctx, group, pace); err != nil {
			return err
		}
	}
	if progress.LastError, progress.Corrupt = d.Failure, d.Corrupt; d.Over {
		progress.State = StateFailed
	}
	room := math.MaxInt
	if most > 0 {
		room = max(0, most-d.Live)
	}
	err := d.Submit(ctx, i.Work, room, work)
	progress.Live, progress.Dispatched, progress.Pace, progress.Silent = d.Live, d.Submitted, d.Pace, d.Silent
	return err
}

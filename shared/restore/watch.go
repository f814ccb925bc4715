package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Watcher tells again and again how far a restore has come, from the vault's records
// alone and without writing any. A look costs a planner's, and of the segments that are
// being loaded a read for each entry that is new.
type Watcher struct {
	repo *repository.Repository
	id   vault.RestoreID
	now  func() time.Time

	entries map[vault.SegmentID]*loadedSoFar
	speed   fanout.Speed
	state   string
}

// loadedSoFar sums up the entries of a segment's log that were read so far.
type loadedSoFar struct {
	entries int
	rows    int64
}

// Watched is how far a restore has come.
type Watched struct {
	Restore vault.RestoreID `json:"restore"`
	Backup  vault.BackupID  `json:"backup"`
	// Source is what was backed up, Target what is made, which is the restore's table;
	// all are instance/table.
	Source string    `json:"source"`
	Table  string    `json:"table"`
	Target string    `json:"target"`
	Begun  time.Time `json:"begun"`
	Ended  time.Time `json:"ended,omitzero"`
	// State is "loading", "verifying", "closing", "done" or "failed".
	State    string `json:"state"`
	Segments int    `json:"segments"`
	Loaded   int    `json:"loaded"`
	Checked  int    `json:"checked"`
	Live     int    `json:"live"`
	// Rows are in the backup. Of them LoadedRows were written so far, and CheckedRows
	// compared.
	Rows        int64 `json:"rows"`
	LoadedRows  int64 `json:"loaded_rows"`
	CheckedRows int64 `json:"checked_rows"`
	// RowsPerSecond were loaded, or compared, in the last half minute or since the
	// restore was begun; Left is for how many seconds that goes on, nil if that can't be
	// told.
	RowsPerSecond float64      `json:"rows_per_second"`
	Left          *float64     `json:"seconds_left,omitempty"`
	Pace          *fanout.Pace `json:"pace,omitempty"`
	// Waiting says what the restore waits for, if it is not its segments, and what then
	// happens.
	Waiting string `json:"waiting,omitempty"`
	// Silent says which of the live workers nothing was heard of for a while.
	Silent    string `json:"silent,omitempty"`
	LastError string `json:"last_error,omitempty"`
	// Corrupt says that the last error is about an object of the vault that is not as it
	// was written.
	Corrupt bool `json:"corrupt,omitempty"`
	// Of one that has ended.
	Quarantined int64         `json:"quarantined"`
	Verdict     vault.Verdict `json:"verdict,omitempty"`
	Notes       []string      `json:"notes,omitempty"`
	Proof       string        `json:"proof,omitempty"`
	Usage       object.Usage  `json:"usage,omitzero"`
}

// Watch returns a watcher of a restore.
func Watch(r *repository.Repository, id vault.RestoreID, now func() time.Time) *Watcher {
	return &Watcher{repo: r, id: id, now: now, entries: map[vault.SegmentID]*loadedSoFar{}}
}

// Look looks how far the restore has come.
func (w *Watcher) Look(ctx context.Context) (Watched, error) {
	out, err := w.look(ctx)
	if err != nil {
		return out, fmt.Errorf("restore %s: %w", w.id, err)
	}
	return out, nil
}

func (w *Watcher) look(ctx context.Context) (Watched, error) {
	out := Watched{Restore: w.id}
	p, err := w.repo.RestorePlan(ctx, w.id)
	if err != nil {
		return out, err
	}
	out.Backup, out.Source, out.Target, out.Begun, out.Segments = p.Backup, p.Source.String(), p.Target.String(), p.Created, len(p.Segments)
	out.Table = out.Target
	for _, s := range p.Segments {
		out.Rows += s.Rows
	}
	proof, err := w.repo.RestoreProof(ctx, w.id)
	if err == nil {
		out.ended(proof)
		return out, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	closed, err := w.repo.Closed(ctx, w.id)
	if err != nil {
		return out, err
	}
	known := records{repo: w.repo, plan: p}
	whole, err := w.loading(ctx, known, &out)
	if err != nil {
		return out, err
	}
	if closed != nil {
		if out.State = StateClosing; closed.Reason != "" {
			out.State, out.LastError, out.Corrupt, out.Ended = StateFailed, closed.Reason, false, closed.At
			return out, nil
		}
		unsettled, err := known.unsettled(ctx)
		if err != nil {
			return out, err
		}
		out.Waiting, err = known.working(ctx, fanout.Run{Now: w.now}, unsettled)
		return out, err
	}
	if whole {
		if err := w.comparing(ctx, known, &out); err != nil {
			return out, err
		}
	}
	done := out.LoadedRows
	if whole {
		done = out.CheckedRows
	}
	began := out.Begun
	if out.State != w.state {
		// Loading and comparing are not equally fast.
		if w.speed = (fanout.Speed{}); w.state != "" {
			began = w.now()
		}
		w.state = out.State
	}
	out.RowsPerSecond, _ = w.speed.Look(began, w.now(), done, 0)
	out.Left = fanout.Left(out.Rows, done, out.RowsPerSecond)
	return out, nil
}

func (w *Watched) ended(proof *vault.Proof) {
	var p Progress
	p.ended(proof)
	w.State, w.LastError, w.Ended = p.State, p.LastError, proof.At
	w.Loaded, w.Checked, w.LoadedRows, w.CheckedRows = w.Segments, w.Segments, w.Rows, w.Rows
	w.Quarantined, w.Verdict, w.Notes, w.Usage = proof.Check.Quarantined, proof.Verdict, proof.Notes, proof.Usage
	w.Proof = vault.Restore{ID: w.Restore}.Proof()
}

// dispatched takes over what looks at open segments have found.
func (w *Watched) dispatched(d *fanout.Dispatch) {
	w.Live, w.Pace, w.LastError, w.Corrupt, w.Silent = d.Live, d.Pace, d.Failure, d.Corrupt, d.Silent
	if d.Over {
		w.State = StateFailed
	}
}

// loading looks at the segments that are not loaded, and says whether there is none.
func (w *Watcher) loading(ctx context.Context, known records, out *Watched) (whole bool, err error) {
	out.State = StateLoading
	var open [][]vault.SegmentID
	if open, out.Loaded, out.LoadedRows, err = known.toLoad(ctx); err != nil {
		return false, err
	}
	d := fanout.Dispatch{Log: fanout.NewLog(w.repo, known.id().Log())}
	for _, segments := range open {
		told, err := w.group(ctx, &d, segments, loadingPace(w.repo))
		if err != nil {
			return false, err
		}
		for _, s := range segments {
			so := w.entries[s]
			if so == nil {
				so = new(loadedSoFar)
				w.entries[s] = so
			}
			for entry, err := range w.repo.Loading(ctx, known.id(), s, so.entries) {
				if err != nil {
					return false, err
				}
				so.entries++
				if so.rows += entry.Rows + entry.Quarantined; entry.Last {
					break
				}
			}
			out.LoadedRows += max(so.rows, told[s].Rows)
		}
	}
	out.dispatched(&d)
	out.LoadedRows = min(out.LoadedRows, out.Rows)
	return len(open) == 0, nil
}

// comparing looks at the segments that are not compared.
func (w *Watcher) comparing(ctx context.Context, known records, out *Watched) error {
	out.State = StateVerifying
	done, err := known.reported(ctx, known.id().Checks())
	if err != nil {
		return err
	}
	if len(done) == 0 { // as the planner does, which compares nothing before
		if out.Waiting, err = known.loadingAtWork(ctx, fanout.Run{Now: w.now}); err != nil {
			return err
		}
	}
	var open [][]vault.SegmentID
	open, out.Checked, out.CheckedRows = splitEnded(known.plan, func(s vault.RestoreSegment) bool {
		_, compared := done[s.ID]
		return compared
	})
	d := fanout.Dispatch{Log: fanout.NewLog(w.repo, known.id().Verify())}
	for _, segments := range open {
		told, err := w.group(ctx, &d, segments, comparingPace(w.repo))
		if err != nil {
			return err
		}
		for _, s := range segments {
			out.CheckedRows += told[s].Rows
		}
	}
	out.dispatched(&d)
	out.CheckedRows = min(out.CheckedRows, out.Rows)
	return nil
}

// group looks at the open segments of a group.
func (w *Watcher) group(ctx context.Context, d *fanout.Dispatch, segments []vault.SegmentID, pace func(context.Context, string) (*vault.Pace, error)) (map[vault.SegmentID]vault.Told, error) {
	group := segments[0].Group()
	if err := d.Look(ctx, fanout.Run{Now: w.now}, group, segments); err != nil {
		return nil, err
	}
	if err := d.Paces(ctx, group, pace); err != nil {
		return nil, err
	}
	return d.Log.ToldIn(ctx, group)
}

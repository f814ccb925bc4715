package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Importer restores backups into tables.
type Importer struct {
	Repo *Repository
	// Tables is the instance that the target is in, Endpoint its address.
	Tables   Tables
	Endpoint string
	Work     Dispatcher
	Log      *slog.Logger
	// Memory bounds the rows in flight, in bytes; 0 means DefaultMemory.
	Memory int64
	// Stale is the age at which a start without a result counts as dead even
	// though the platform might let it run on; zero leaves it to the platform's
	// time limit.
	Stale time.Duration
	// Workers is how many segments may be worked on at a time, 0 for any number.
	Workers int
}

// RestoreRequest says what is to be restored, and where.
type RestoreRequest struct {
	Backup vault.Backup
	Target vault.TableID
	// At is when the restore was asked for; with the backup and the target it
	// makes the restore's id, so that two deliveries of one request make one
	// restore.
	At time.Time
	// New begins a restore even if one of the same backup into the same table
	// is open, whose table must be gone.
	New bool
	// Own refuses to go on with a restore that something else asked for.
	Own bool
	// Also are the addresses of further vaults that hold copies of the backup.
	Also []string
}

// The states of a restore, besides StateFailed.
const (
	StateLoading   = "loading"
	StateVerifying = "verifying"
	StateClosing   = "closing"
	StateDone      = "done"
)

// RestoreProgress is how far a restore has come.
type RestoreProgress struct {
	Restore vault.RestoreID `json:"restore"`
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
	// Waiting says what the restore waits for, if it is not its segments.
	Waiting   string       `json:"waiting,omitempty"`
	Proof     *vault.Proof `json:"proof,omitempty"`
	LastError string       `json:"last_error,omitempty"`
	// over says that nothing comes after this, whatever is mended.
	over bool
}

// RestorePlan reads the plan of a restore.
func (r *Repository) RestorePlan(ctx context.Context, id vault.RestoreID) (*vault.RestorePlan, error) {
	var p vault.RestorePlan
	_, err := r.read(ctx, vault.Restore{ID: id}.Plan(), &p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no restore %s in this vault: %w", id, err)
	}
	if err != nil {
		return nil, err
	}
	if p.Restore != id {
		return nil, fmt.Errorf("read %s: %w: it is the plan of %s", vault.Restore{ID: id}.Plan(), vault.ErrCorrupt, p.Restore)
	}
	return &p, nil
}

// RestoreProof reads the proof of a restore. The error matches fs.ErrNotExist
// while there is none.
func (r *Repository) RestoreProof(ctx context.Context, id vault.RestoreID) (*vault.Proof, error) {
	var p vault.Proof
	_, err := r.read(ctx, vault.Restore{ID: id}.Proof(), &p)
	return &p, err
}

// closed reads a restore's closing record; nil if there is none.
func (r *Repository) closed(ctx context.Context, id vault.RestoreID) (*vault.Closed, error) {
	var c vault.Closed
	_, err := r.read(ctx, vault.Restore{ID: id}.Closed(), &c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &c, err
}

// restoreSource is what a restore reads: the manifest that its plan pins by
// hash, and the backup's plan.
type restoreSource struct {
	backup   vault.Backup
	manifest *vault.Manifest
	plan     *vault.Plan
}

func (r *Repository) restoreSource(ctx context.Context, p *vault.RestorePlan) (*restoreSource, error) {
	src := &restoreSource{backup: vault.Backup{Table: p.Source, ID: p.Backup}, manifest: new(vault.Manifest)}
	if err := r.readExact(ctx, p.Manifest, src.manifest); err != nil {
		return nil, err
	}
	if src.manifest.State != vault.Sealed || src.manifest.Backup != p.Backup {
		return nil, fmt.Errorf("read %s: %w: it is the manifest of %s backup %s", p.Manifest.Name, vault.ErrCorrupt, src.manifest.State, src.manifest.Backup)
	}
	var err error
	src.plan, err = r.PlanOf(ctx, src.manifest)
	return src, err
}

// segment reads the log of one segment from the roll-up of its group, and
// proves that it covers what it says.
func (r *Repository) sealedLog(ctx context.Context, m *vault.Manifest, id vault.SegmentID) (*segmentLog, error) {
	g := id.Group()
	if g >= len(m.Groups) {
		return nil, fmt.Errorf("backup %s has no segment %s: it has %d groups", m.Backup, id, len(m.Groups))
	}
	var group vault.Group
	if err := r.readExact(ctx, m.Groups[g], &group); err != nil {
		return nil, err
	}
	for i := range group.Segments {
		if group.Segments[i].Segment.ID == id {
			return replay(&group.Segments[i])
		}
	}
	return nil, fmt.Errorf("backup %s has no segment %s", m.Backup, id)
}

// replay proves a log as it stands in a roll-up.
func replay(s *vault.SegmentLog) (*segmentLog, error) {
	l := newSegmentLog(s.Segment)
	for i := range s.Slots {
		if err := l.add(&s.Slots[i]); err != nil {
			return nil, err
		}
	}
	if !l.ended {
		return nil, fmt.Errorf("%w: the log of segment %s does not end", vault.ErrCorrupt, s.Segment.ID)
	}
	return l, nil
}

// Begin makes a restore's plan and its target table, or finds those of the
// open restore of the same backup into the same table. It dispatches nothing.
// A target that exists and is not this restore's own is refused.
func (i *Importer) Begin(ctx context.Context, run Run, req RestoreRequest) (*vault.RestorePlan, error) {
	plan, err := i.begin(ctx, run, req)
	if err != nil {
		return nil, fmt.Errorf("restore backup %s of %s to %s: %w", req.Backup.ID, req.Backup.Table, req.Target, err)
	}
	return plan, nil
}

func (i *Importer) begin(ctx context.Context, run Run, req RestoreRequest) (*vault.RestorePlan, error) {
	manifest, object, err := i.Repo.Manifest(ctx, req.Backup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the backup is not sealed, or not in this vault: `tablevault list` shows those that are: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if manifest.State != vault.Sealed {
		return nil, fmt.Errorf("the backup was given up (%s): `tablevault list` shows those that can be restored", manifest.Reason)
	}
	id, err := i.claim(ctx, run, req)
	if err != nil {
		return nil, err
	}
	plan, err := i.Repo.RestorePlan(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		if plan, err = i.plan(ctx, run, req, id, manifest, object); err != nil {
			return nil, err
		}
		mine, err := i.Repo.decide(ctx, vault.Restore{ID: id}.Plan(), plan)
		if err != nil {
			return nil, err
		}
		if mine {
			i.Log.Info("restore planned", "restore", id, "backup", plan.Backup, "target", plan.Target.String(), "segments", len(plan.Segments))
		}
	} else if err != nil {
		return nil, err
	}
	if plan.Backup != req.Backup.ID || plan.Target != req.Target {
		return nil, fmt.Errorf("restore %s is of backup %s to %s: ask again, for a new id", id, plan.Backup, plan.Target)
	}
	over, err := i.Repo.closed(ctx, id)
	if err != nil {
		return nil, err
	}
	if over != nil {
		return plan, nil // Tick goes on, or says how it ended
	}
	// The planner finds it by this mark, and has it gone on with.
	if err := i.Repo.mark(ctx, vault.Restore{ID: id}.Restoring()); err != nil {
		return nil, err
	}
	return plan, i.make(ctx, plan)
}

// claim wins the target's name for a restore, or finds the restore that is to
// be gone on with, and returns its id.
func (i *Importer) claim(ctx context.Context, run Run, req RestoreRequest) (vault.RestoreID, error) {
	id := vault.NewRestoreID(req.At, string(req.Backup.ID), req.Target.Path())
	for {
		n, last, err := i.lastClaim(ctx, req.Target)
		if err != nil {
			return "", err
		}
		if last != nil {
			if last.Restore == id {
				return id, nil
			}
			goOn, err := i.after(ctx, run, req, last)
			if err != nil || goOn {
				return last.Restore, err
			}
		}
		if err := i.absent(ctx, req.Target); err != nil {
			return "", err
		}
		c := vault.Claim{Restore: id, Backup: req.Backup.ID, At: run.Now().UTC()}
		mine, err := i.Repo.decide(ctx, vault.ClaimName(req.Target, n), &c)
		if err != nil {
			return "", err
		}
		if mine {
			return id, nil
		}
		// Someone else was faster: look again whose it is.
	}
}

// lastClaim returns the newest claim on a target, nil if there is none, and
// the number of the next.
func (i *Importer) lastClaim(ctx context.Context, t vault.TableID) (next int, last *vault.Claim, err error) {
	prefix := vault.ClaimsOn(t)
	for info, err := range i.Repo.store.List(ctx, prefix, "") {
		if err != nil {
			return 0, nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(path.Base(info.Name), ".json")); err == nil {
			next = max(next, n+1)
		}
	}
	for { // a list may be stale, a read by name is not
		var c vault.Claim
		_, err := i.Repo.read(ctx, vault.ClaimName(t, next), &c)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return 0, nil, err
		}
		next++
	}
	if next == 0 {
		return 0, nil, nil
	}
	last = new(vault.Claim)
	_, err = i.Repo.read(ctx, vault.ClaimName(t, next-1), last)
	return next, last, err
}

// after says what becomes of a request when the target has a claim already:
// true goes on with the claim's restore, false lets a new claim follow.
func (i *Importer) after(ctx context.Context, run Run, req RestoreRequest, last *vault.Claim) (goOn bool, err error) {
	_, err = i.Repo.RestoreProof(ctx, last.Restore)
	proved := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	closed, err := i.Repo.closed(ctx, last.Restore)
	if err != nil {
		return false, err
	}
	switch {
	case proved, closed != nil && closed.Reason != "":
		// It has ended; its late starts obey its closing record.
	case !req.New && !req.Own && last.Backup == req.Backup.ID:
		return true, nil
	case !req.New:
		return false, fmt.Errorf("restore %s is loading backup %s into that table: wait for it, or name another table", last.Restore, last.Backup)
	default:
		// Only a restore whose table is gone is given up for a new one.
		if err := i.absent(ctx, req.Target); err != nil {
			return false, err
		}
		if closed == nil {
			if _, err := i.GiveUp(ctx, run, last.Restore, "a new restore into "+req.Target.String()+" was asked for"); err != nil {
				return false, err
			}
		}
	}
	plan, err := i.Repo.RestorePlan(ctx, last.Restore)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if waiting, err := i.working(ctx, run, plan); err != nil || waiting != "" {
		if err == nil {
			err = fmt.Errorf("restore %s into that table has ended, and still %s: try again after that", last.Restore, waiting)
		}
		return false, err
	}
	return false, nil
}

// GiveUp ends a restore: after it, none of its workers writes a row. It
// returns the closing record that stands, which may be that of a restore that
// was completed.
func (i *Importer) GiveUp(ctx context.Context, run Run, id vault.RestoreID, reason string) (*vault.Closed, error) {
	c := &vault.Closed{Restore: id, At: run.Now().UTC(), Reason: reason}
	if _, err := i.Repo.decide(ctx, vault.Restore{ID: id}.Closed(), c); err != nil {
		return nil, fmt.Errorf("give up restore %s: %w", id, err)
	}
	return c, nil
}

func (i *Importer) absent(ctx context.Context, t vault.TableID) error {
	_, err := i.Tables.Describe(ctx, t.Table)
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s; restore to another name, or drop it first", table.ErrExist, t)
	case errors.Is(err, table.ErrNotExist):
		return nil
	}
	return fmt.Errorf("look for %s: %w", t, err)
}

// plan makes a restore's plan.
func (i *Importer) plan(ctx context.Context, run Run, req RestoreRequest, id vault.RestoreID, m *vault.Manifest, manifest vault.Object) (*vault.RestorePlan, error) {
	source, err := i.Repo.PlanOf(ctx, m)
	if err != nil {
		return nil, err
	}
	p := &vault.RestorePlan{
		Restore: id, Created: run.Now().UTC(), Command: Version, Backup: m.Backup, Manifest: manifest,
		Source: m.Table, Target: req.Target, Endpoint: i.Endpoint, Definition: source.Definition,
		Also: req.Also,
	}
	p.Definition.Name = req.Target.Table
	p.Definition.Raw = nil
	p.Definition.Schema = slices.Clone(p.Definition.Schema)
	for k := range p.Definition.Schema {
		if c := &p.Definition.Schema[k]; c.AutoIncrement {
			// The service makes the values of such a column and takes none, so
			// rows would change their identity.
			c.AutoIncrement = false
			p.Notes = append(p.Notes, fmt.Sprintf("key column %q was auto-increment and is a plain integer here, so that rows keep their keys", c.Name))
		}
	}
	if t := p.Definition.Throughput; t != (table.Throughput{}) {
		// It is paid by the hour from the moment that the table exists.
		p.Definition.Throughput = table.Throughput{}
		p.Notes = append(p.Notes, fmt.Sprintf("nothing is reserved here; the source had reserved %d read and %d write units", t.Read, t.Write))
	}
	if m.Fuzzy {
		p.Notes = append(p.Notes, fmt.Sprintf("the backup was read row by row from %s to %s and is no single instant's image",
			m.Totals.First.UTC().Format(time.RFC3339), m.Totals.Latest.UTC().Format(time.RFC3339)))
	}
	for g, err := range i.Repo.Groups(ctx, m) {
		if err != nil {
			return nil, err
		}
		for s := range g.Segments {
			log := &g.Segments[s]
			rows := int64(0)
			for _, slot := range log.Slots {
				if slot.Part != nil {
					rows += slot.Part.Rows
				}
			}
			p.Segments = append(p.Segments, vault.RestoreSegment{ID: log.Segment.ID, Group: g.Group, Rows: rows})
		}
	}
	return p, nil
}

// loading is the table as it is while rows are written: it takes every
// timestamp, expires nothing, takes updates, and has no index beside which
// timestamps would be refused.
func loading(def table.Definition) table.Definition {
	def.DefinedColumns, def.Indexes, def.SearchIndexes, def.Stream = nil, nil, nil, nil
	def.Options.TTL = table.NoTTL
	def.Options.Deviation = table.WidestDeviation
	def.Options.AllowUpdate = true
	return def
}

// make makes the target, unless this restore has made it.
func (i *Importer) make(ctx context.Context, p *vault.RestorePlan) error {
	mark := vault.Restore{ID: p.Restore}.Created()
	if made, err := i.Repo.exists(ctx, mark); err != nil || made {
		return err
	}
	want := loading(p.Definition)
	err := i.Tables.Create(ctx, want)
	if errors.Is(err, table.ErrExist) {
		// Its answer may have been lost: then the table is as it was asked for,
		// and nothing has been written. A table of anyone else is refused.
		err = i.adopt(ctx, p.Target, want)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", p.Target, err)
	}
	return i.Repo.mark(ctx, mark)
}

func (i *Importer) adopt(ctx context.Context, t vault.TableID, want table.Definition) error {
	got, err := i.Tables.Describe(ctx, t.Table)
	if err != nil {
		return err
	}
	refuse := fmt.Errorf("%w: %s, and not by this restore; restore to another name, or drop it first", table.ErrExist, t)
	if !slices.Equal(got.Schema, want.Schema) || got.Options != want.Options ||
		len(got.DefinedColumns)+len(got.Indexes)+len(got.SearchIndexes) > 0 || got.Stream != nil {
		return refuse
	}
	scan := i.Tables.Scan(t.Table, want.Schema, want.Schema.Whole())
	buf := make([]byte, minPage)
	for {
		page, err := scan.Next(ctx, buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(page.Block) > 0 {
			return refuse
		}
	}
}

// startMargin is how long after an invocation's end a request that it had sent
// may still be carried out.
const startMargin = 10 * time.Second

// working says which start of the restore's segments may still write, empty if
// none. It reads the starts by their names, one after the other, since a list
// might not show the last of them.
func (i *Importer) working(ctx context.Context, run Run, p *vault.RestorePlan) (string, error) {
	log := vault.Restore{ID: p.Restore}.Log()
	found := make([]string, len(p.Segments))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(statsInFlight)
	for k, s := range p.Segments {
		if s.Rows == 0 {
			continue
		}
		group.Go(func() (err error) {
			found[k], err = i.workingOn(gctx, run, log, s.ID)
			return err
		})
	}
	err := group.Wait()
	for _, f := range found {
		if f != "" {
			return f, err
		}
	}
	return "", err
}

func (i *Importer) workingOn(ctx context.Context, run Run, log vault.Log, s vault.SegmentID) (string, error) {
	for n := 0; ; n++ {
		var note vault.Note
		_, err := i.Repo.read(ctx, log.Start(s, n), &note)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if !note.Until.IsZero() && run.Now().After(note.Until.Add(startMargin)) || i.Stale > 0 && run.Now().Sub(note.Began) > i.Stale {
			continue
		}
		over, err := i.Repo.exists(ctx, log.End(s, n))
		if err == nil && !over {
			over, err = i.Repo.exists(ctx, log.Failure(s, n))
		}
		if err != nil {
			return "", err
		}
		if !over {
			until := "until it ends"
			if !note.Until.IsZero() {
				until = "until " + note.Until.UTC().Format(time.RFC3339)
			}
			return fmt.Sprintf("start %d of segment %s may write, %s", n, s, until), nil
		}
	}
}

// Tick looks at a restore and does what is due: it dispatches the segments that
// nobody works on, first to load them, then to verify them; writes the closing
// record; gives the table its indexes and settings; and writes the proof. It
// may run at any time, twice, and beside itself.
func (i *Importer) Tick(ctx context.Context, run Run, id vault.RestoreID) (RestoreProgress, error) {
	progress, err := i.tick(ctx, run, id)
	if err == nil && progress.over {
		err = i.Repo.mark(ctx, vault.Restore{ID: id}.Restored())
	}
	if err != nil {
		return progress, fmt.Errorf("restore %s: %w", id, err)
	}
	return progress, nil
}

func (i *Importer) tick(ctx context.Context, run Run, id vault.RestoreID) (RestoreProgress, error) {
	progress := RestoreProgress{Restore: id}
	p, err := i.Repo.RestorePlan(ctx, id)
	if err != nil {
		return progress, err
	}
	r := vault.Restore{ID: id}
	progress.Segments = len(p.Segments)
	for _, s := range p.Segments {
		progress.Rows += s.Rows
	}
	proof, err := i.Repo.RestoreProof(ctx, id)
	if err == nil {
		return progress.ended(proof), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return progress, err
	}
	closed, err := i.Repo.closed(ctx, id)
	if err != nil {
		return progress, err
	}
	if closed != nil && closed.Reason != "" {
		progress.State, progress.LastError, progress.over = StateFailed, closed.Reason, true
		return progress, nil
	}
	var check vault.Check
	if closed == nil {
		if done, err := i.load(ctx, run, r, p, &progress); err != nil || !done {
			return progress, err
		}
		progress.State = StateVerifying
		if progress.Waiting, err = i.working(ctx, run, p); err != nil || progress.Waiting != "" {
			return progress, err
		}
	}
	done, err := i.verify(ctx, run, r, p, &progress, &check)
	if err != nil || !done {
		return progress, err
	}
	verdict := check.Verdict()
	if verdict != vault.OK && verdict != vault.Quarantined {
		// The table is not handed over; its proof says why.
		proof, err := i.prove(ctx, run, r, p, check, p.Notes)
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
		if _, err := i.Repo.decide(ctx, r.Closed(), closed); err != nil {
			return progress, err
		}
		if closed.Reason != "" {
			progress.State, progress.LastError, progress.over = StateFailed, closed.Reason, true
			return progress, nil
		}
	}
	// A start that noted itself before the closing record stood may not have
	// seen it. One that comes later notes itself first, then looks, and sees it.
	if progress.Waiting, err = i.working(ctx, run, p); err != nil || progress.Waiting != "" {
		return progress, err
	}
	notes, waiting, err := i.finish(ctx, p)
	if progress.Waiting = waiting; err != nil || waiting != "" {
		return progress, err
	}
	if proof, err = i.prove(ctx, run, r, p, check, append(slices.Clip(p.Notes), notes...)); err != nil {
		return progress, err
	}
	return progress.ended(proof), nil
}

func (p RestoreProgress) ended(proof *vault.Proof) RestoreProgress {
	p.Proof, p.Loaded, p.LoadedRows, p.Checked, p.State, p.over = proof, p.Segments, p.Rows, p.Segments, StateDone, true
	if proof.Verdict != vault.OK && proof.Verdict != vault.Quarantined {
		p.State = StateFailed
		p.LastError = fmt.Sprintf("verdict %s: %d missing, %d extra, %d changed, %d corrupt; drop the table and restore again, or another backup",
			proof.Verdict, proof.Check.Missing, proof.Check.Extra, proof.Check.Changed, proof.Check.Corrupted)
	}
	return p
}

func (i *Importer) prove(ctx context.Context, run Run, r vault.Restore, p *vault.RestorePlan, check vault.Check, notes []string) (*vault.Proof, error) {
	notes = append(slices.Clip(notes), replacedNotes(check.Replaced, i.Repo.replaced())...)
	proof := &vault.Proof{
		Backup: p.Backup, Table: p.Source, Restore: p.Restore, Target: p.Target.String(), Depth: DepthRows,
		At: run.Now().UTC(), Verdict: check.Verdict(), Manifest: p.Manifest, Check: check, Notes: notes,
	}
	_, err := i.Repo.decide(ctx, r.Proof(), proof)
	if err == nil {
		i.Log.Info("restore proved", "restore", p.Restore, "verdict", proof.Verdict, "rows", proof.Check.Rows, "quarantined", proof.Check.Quarantined)
	}
	return proof, err
}

// load dispatches the segments that are not loaded and that nobody works on.
func (i *Importer) load(ctx context.Context, run Run, r vault.Restore, p *vault.RestorePlan, progress *RestoreProgress) (bool, error) {
	progress.State = StateLoading
	done, err := i.reported(ctx, r.Dir()+"done/")
	if err != nil {
		return false, err
	}
	open := byGroup(p, func(s vault.RestoreSegment) bool {
		if s.Rows > 0 && !done[s.ID] {
			return true
		}
		progress.LoadedRows += s.Rows
		return false
	})
	progress.Loaded = len(p.Segments)
	for _, segments := range open {
		progress.Loaded -= len(segments)
	}
	return len(open) == 0, i.dispatch(ctx, run, r.Log(), open, func(s vault.SegmentID, start int) Work {
		return Work{Verb: VerbImport, Table: p.Source, Backup: p.Backup, Restore: p.Restore, Segment: s, Start: start}
	}, progress)
}

// verify dispatches the segments that are not compared and that nobody works
// on; when all are, it adds up what was found.
func (i *Importer) verify(ctx context.Context, run Run, r vault.Restore, p *vault.RestorePlan, progress *RestoreProgress, check *vault.Check) (bool, error) {
	progress.State, progress.Loaded, progress.LoadedRows = StateVerifying, len(p.Segments), progress.Rows
	done, err := i.reported(ctx, r.Dir()+"checks/")
	if err != nil {
		return false, err
	}
	open := byGroup(p, func(s vault.RestoreSegment) bool { return !done[s.ID] })
	progress.Checked = len(p.Segments)
	for _, segments := range open {
		progress.Checked -= len(segments)
	}
	if len(open) > 0 {
		return false, i.dispatch(ctx, run, r.Verify(), open, func(s vault.SegmentID, start int) Work {
			return Work{Verb: VerbVerify, Table: p.Source, Backup: p.Backup, Restore: p.Restore, Segment: s, Start: start}
		}, progress)
	}
	checks := make([]vault.SegmentCheck, len(p.Segments))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(statsInFlight)
	for k, s := range p.Segments {
		group.Go(func() error {
			_, err := i.Repo.read(gctx, r.Check(s.ID), &checks[k])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	for _, c := range checks {
		check.Add(c.Check)
	}
	return true, nil
}

// reported are the segments that have an object under prefix.
func (i *Importer) reported(ctx context.Context, prefix string) (map[vault.SegmentID]bool, error) {
	done := map[vault.SegmentID]bool{}
	for info, err := range i.Repo.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		done[vault.SegmentID(strings.TrimSuffix(path.Base(info.Name), ".json"))] = true
	}
	return done, nil
}

// byGroup are the plan's segments for which open says yes, those of one group
// together, in order.
func byGroup(p *vault.RestorePlan, open func(vault.RestoreSegment) bool) [][]vault.Segment {
	var groups [][]vault.Segment
	last := -1
	for _, s := range p.Segments {
		if !open(s) {
			continue
		}
		if s.Group != last {
			groups, last = append(groups, nil), s.Group
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], vault.Segment{ID: s.ID})
	}
	return groups
}

func (i *Importer) dispatch(ctx context.Context, run Run, log vault.Log, open [][]vault.Segment,
	work func(vault.SegmentID, int) Work, progress *RestoreProgress) error {
	d := dispatch{Repo: i.Repo, Log: log, Stale: i.Stale, Most: i.Workers, failed: func(reason string, permanent bool) {
		progress.LastError = reason
		if permanent {
			progress.State = StateFailed
		}
	}}
	for _, segments := range open {
		if err := d.look(ctx, run, segments[0].ID.Group(), segments); err != nil {
			return err
		}
	}
	room := math.MaxInt
	if i.Workers > 0 {
		room = max(0, i.Workers-d.live)
	}
	err := d.submit(ctx, i.Work, room, work)
	progress.Live, progress.Dispatched = d.live, d.submitted
	return err
}

// finish gives the loaded table what it had at the source: defined columns,
// indexes, search indexes, then the options and the stream; each unless it is
// there. The notes say what is not as it was; waiting, what the service is not
// done with.
func (i *Importer) finish(ctx context.Context, p *vault.RestorePlan) (notes []string, waiting string, err error) {
	name, want := p.Target.Table, p.Definition
	got, err := i.Tables.Describe(ctx, name)
	if err != nil {
		return nil, "", err
	}
	// step carries out one change. What the service refuses for good becomes a
	// note: the rows are there, and people decide.
	step := func(what string, done func() bool, do func() error) error {
		if done() {
			return nil
		}
		doErr := do()
		if got, err = i.Tables.Describe(ctx, name); err != nil {
			return err
		}
		switch {
		case done(), doErr == nil:
			return nil
		case errors.Is(doErr, table.ErrInvalid), errors.Is(doErr, table.ErrExist):
			notes = append(notes, fmt.Sprintf("%s was refused: %v", what, doErr))
			return nil
		}
		return fmt.Errorf("%s: %w", what, doErr)
	}
	err = step("adding defined columns", func() bool { return len(missingColumns(want, got)) == 0 }, func() error {
		return i.Tables.AddDefinedColumns(ctx, name, missingColumns(want, got))
	})
	if err != nil {
		return nil, "", err
	}
	for _, index := range want.Indexes {
		// The names of indexes are names of tables: beside its source, a copy
		// cannot have them.
		other := index
		other.Name = indexName(name, index.Name)
		there := func(n string) *table.Index {
			return find(got.Indexes, func(x *table.Index) bool { return x.Name == n })
		}
		done := func() bool { return there(index.Name) != nil || there(other.Name) != nil }
		err := step(fmt.Sprintf("creating index %q", index.Name), done, func() error {
			err := i.Tables.CreateIndex(ctx, got, index)
			if errors.Is(err, table.ErrExist) {
				err = i.Tables.CreateIndex(ctx, got, other)
			}
			return err
		})
		if err != nil {
			return nil, "", err
		}
		if there(index.Name) == nil && there(other.Name) != nil {
			notes = append(notes, fmt.Sprintf("index %q is %q here, since the instance has something of its name", index.Name, other.Name))
		}
	}
	for _, x := range got.Indexes {
		if !x.Ready {
			return nil, fmt.Sprintf("index %q is being built", x.Name), nil
		}
	}
	for _, index := range want.SearchIndexes {
		err := step(fmt.Sprintf("creating search index %q", index.Name), func() bool {
			return find(got.SearchIndexes, func(x *table.SearchIndex) bool { return x.Name == index.Name }) != nil
		}, func() error { return i.Tables.CreateSearchIndex(ctx, name, index) })
		if err != nil {
			return nil, "", err
		}
	}
	options := func() error {
		return step("setting the options", func() bool { return sameOptions(want.Options, got.Options) }, func() error {
			return i.Tables.SetOptions(ctx, name, want.Options)
		})
	}
	stream := func() error {
		if want.Stream == nil {
			return nil
		}
		return step("enabling the stream", func() bool { return got.Stream != nil && sameStream(*want.Stream, *got.Stream) }, func() error {
			return i.Tables.SetStream(ctx, name, *want.Stream)
		})
	}
	// allow_update comes last. Where it ends as false, TTL and deviation come
	// with it in one change: a table with an index takes a TTL only together
	// with it.
	order := []func() error{options, stream}
	if !want.Options.AllowUpdate {
		order = []func() error{stream, options}
	}
	for _, do := range order {
		if err := do(); err != nil {
			return nil, "", err
		}
	}
	return append(notes, settingsDiffer(want, got)...), "", nil
}

// indexName is the name of a copy's index where the index's own is taken.
func indexName(table, index string) string {
	n := table + "_" + index
	return n[:min(len(n), 255)]
}

func find[T any](list []T, is func(*T) bool) *T {
	for i := range list {
		if is(&list[i]) {
			return &list[i]
		}
	}
	return nil
}

func missingColumns(want, got table.Definition) []table.DefinedColumn {
	var missing []table.DefinedColumn
	for _, c := range want.DefinedColumns {
		if find(got.DefinedColumns, func(g *table.DefinedColumn) bool { return g.Name == c.Name }) == nil {
			missing = append(missing, c)
		}
	}
	return missing
}

func sameOptions(a, b table.Options) bool {
	a.UpdateFullRow = b.UpdateFullRow // set when the table is made, never after
	return a == b
}

func sameStream(a, b table.Stream) bool {
	return a.ExpirationHours == b.ExpirationHours && slices.Equal(slices.Sorted(slices.Values(a.OriginColumns)), slices.Sorted(slices.Values(b.OriginColumns)))
}

// settingsDiffer says in which settings a table is not as it should be.
func settingsDiffer(want, got table.Definition) (notes []string) {
	differ := func(what string, want, got any) {
		notes = append(notes, fmt.Sprintf("%s is %v, at the source it was %v", what, got, want))
	}
	if !slices.Equal(want.Schema, got.Schema) {
		differ("the primary key", want.Schema, got.Schema)
	}
	if want.Options.TTL != got.Options.TTL {
		differ("ttl_seconds", want.Options.TTL, got.Options.TTL)
	}
	if want.Options.MaxVersions != got.Options.MaxVersions {
		differ("max_versions", want.Options.MaxVersions, got.Options.MaxVersions)
	}
	if want.Options.Deviation != got.Options.Deviation {
		differ("deviation_seconds", want.Options.Deviation, got.Options.Deviation)
	}
	if want.Options.AllowUpdate != got.Options.AllowUpdate {
		differ("allow_update", want.Options.AllowUpdate, got.Options.AllowUpdate)
	}
	if want.Options.UpdateFullRow != got.Options.UpdateFullRow {
		differ("update_full_row", want.Options.UpdateFullRow, got.Options.UpdateFullRow)
	}
	if want.Throughput != got.Throughput {
		differ("reserved throughput", want.Throughput, got.Throughput)
	}
	for _, w := range want.DefinedColumns {
		g := find(got.DefinedColumns, func(g *table.DefinedColumn) bool { return g.Name == w.Name })
		if g == nil {
			notes = append(notes, fmt.Sprintf("defined column %q is missing", w.Name))
		} else if g.Type != w.Type {
			differ(fmt.Sprintf("defined column %q", w.Name), w.Type, g.Type)
		}
	}
	for _, w := range want.Indexes {
		g := find(got.Indexes, func(g *table.Index) bool { return g.Name == w.Name || g.Name == indexName(got.Name, w.Name) })
		if g == nil {
			notes = append(notes, fmt.Sprintf("index %q is missing", w.Name))
		} else if g.Type != w.Type || g.Sync != w.Sync || !slices.Equal(g.Key, w.Key) ||
			!slices.Equal(slices.Sorted(slices.Values(g.Columns)), slices.Sorted(slices.Values(w.Columns))) {
			differ(fmt.Sprintf("index %q", w.Name), fmt.Sprintf("%s %v carrying %v", w.Type, w.Key, w.Columns), fmt.Sprintf("%s %v carrying %v", g.Type, g.Key, g.Columns))
		}
	}
	for _, w := range want.SearchIndexes {
		if find(got.SearchIndexes, func(g *table.SearchIndex) bool { return g.Name == w.Name }) == nil {
			notes = append(notes, fmt.Sprintf("search index %q is missing", w.Name))
		}
	}
	switch {
	case want.Stream == nil && got.Stream != nil:
		notes = append(notes, "the stream is on, at the source it was off")
	case want.Stream != nil && got.Stream == nil:
		notes = append(notes, "the stream is off, at the source it was on")
	case want.Stream != nil && !sameStream(*want.Stream, *got.Stream):
		differ("the stream", fmt.Sprintf("%d h, former values of %v", want.Stream.ExpirationHours, want.Stream.OriginColumns),
			fmt.Sprintf("%d h, former values of %v", got.Stream.ExpirationHours, got.Stream.OriginColumns))
	}
	if (want.Encryption == nil) != (got.Encryption == nil) {
		notes = append(notes, fmt.Sprintf("encryption at rest is on: %t, at the source: %t", got.Encryption != nil, want.Encryption != nil))
	}
	return notes
}

package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Begin makes a restore's plan and its target table, or finds those of the
// open restore of the same backup into the same table. It dispatches nothing.
// A target that exists and is not this restore's own is refused.
func (i *Importer) Begin(ctx context.Context, run fanout.Run, req Request) (*vault.RestorePlan, error) {
	plan, err := i.begin(ctx, run, req)
	if err != nil {
		return nil, fmt.Errorf("restore backup %s of %s to %s: %w", req.Backup.ID, req.Backup.Table, req.Target, err)
	}
	return plan, nil
}

// clocksApart is by how much the clocks may differ of those who ask for what was there
// just now, and of those who do it.
const clocksApart = time.Minute

// NotAhead refuses an instant, if there is one, that is still to come: nobody has
// backed up what will be there by then.
func NotAhead(instant, now time.Time) error {
	if !instant.After(now.Add(clocksApart)) {
		return nil
	}
	return table.Invalidf("the instant %s is still to come, in %s: name one that is past, or none for the newest backup",
		instant.UTC().Format(time.RFC3339), instant.Sub(now).Round(time.Second))
}

func (i *Importer) begin(ctx context.Context, run fanout.Run, req Request) (*vault.RestorePlan, error) {
	if err := req.Budget.Validate(); err != nil {
		return nil, table.Invalidf("%w", err)
	}
	if !req.Instant.IsZero() {
		if err := NotAhead(req.Instant, run.Now()); err != nil {
			return nil, err
		}
	}
	asked := req.Also
	for _, t := range i.Known {
		key := place.Key(t.Name)
		copied, err := i.Repo.Exists(ctx, req.Backup.CopyNote(key))
		if errors.Is(err, fs.ErrPermission) {
			i.Log.Warn("without the policy's further vaults", "error", err)
			break
		}
		if err != nil {
			return nil, err
		}
		if copied && !slices.Contains(req.Also, key) {
			req.Also = append(slices.Clip(req.Also), key)
			i.Repo.AddReplica(t)
		}
	}
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
	id, err := i.claim(ctx, run, req, manifest)
	if err != nil {
		return nil, err
	}
	plan, err := i.Repo.RestorePlan(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		if plan, err = i.plan(ctx, run, req, id, manifest, object); errors.Is(err, table.ErrInvalid) {
			// Nobody goes on with it: the target is free for another.
			_, gerr := i.GiveUp(ctx, run, id, err.Error())
			err = errors.Join(err, gerr)
		}
		if err != nil {
			return nil, err
		}
		mine, err := i.Repo.Win(ctx, vault.Restore{ID: id}.Plan(), plan)
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
	over, err := i.Repo.Closed(ctx, id)
	if err != nil {
		return nil, err
	}
	if over != nil {
		return plan, nil // Tick goes on, or says how it ended
	}
	if err := fixed(req, asked, plan); err != nil {
		return nil, err
	}
	// The planner finds it by this mark, and has it gone on with.
	if err := i.Repo.Mark(ctx, vault.Restore{ID: id}.Restoring()); err != nil {
		return nil, err
	}
	_, err = i.ready(ctx, run, plan)
	return plan, err
}

// ready makes the target, unless the restore has, and says what it has noted about it.
func (i *Importer) ready(ctx context.Context, run fanout.Run, p *vault.RestorePlan) (*vault.Made, error) {
	made, err := i.Repo.Made(ctx, p.Restore)
	if err != nil || made != nil {
		return made, err
	}
	if err := i.unmarked(ctx, run, p); err != nil {
		return nil, err
	}
	return i.make(ctx, p)
}

// unmarked refuses a restore whose backup is marked for deletion, and gives it up.
// The restore's own mark stands before it looks: prune, which marks before it
// looks for restores, then leaves the backup alone, or is seen here. A restore that
// has made its table has passed this.
func (i *Importer) unmarked(ctx context.Context, run fanout.Run, p *vault.RestorePlan) error {
	err := i.Repo.CheckNotMarked(ctx, vault.Backup{Table: p.Source, ID: p.Backup})
	if !errors.Is(err, repository.ErrMarked) {
		return err
	}
	if _, cerr := i.GiveUp(ctx, run, p.Restore, err.Error()); cerr != nil {
		return errors.Join(err, cerr)
	}
	if merr := i.Repo.Mark(ctx, vault.Restore{ID: p.Restore}.Restored()); merr != nil {
		return errors.Join(err, merr)
	}
	return err
}

// claim wins the target's name for a restore, or finds the restore that is to
// be gone on with, and returns its id.
func (i *Importer) claim(ctx context.Context, run fanout.Run, req Request, m *vault.Manifest) (vault.RestoreID, error) {
	id := vault.RestoreAsked(req.At, req.Backup.ID, req.Target, req.LocalTransactions)
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
		// A mark that stands already costs no claim on the target.
		if err := i.Repo.CheckNotMarked(ctx, req.Backup); err != nil {
			return "", err
		}
		// Neither does what is seen to be damaged before anything is made.
		if err := i.readable(ctx, req, m); err != nil {
			return "", err
		}
		c := vault.Claim{Restore: id, Backup: req.Backup.ID, At: run.Now().UTC()}
		mine, err := i.Repo.Win(ctx, vault.ClaimName(req.Target, n), &c)
		if errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("a restore writes down in the vault what it does, and this vault may not be written: give import's role the rights of docs/ram/import.json, "+
				"or copy the vault's objects, vault.json with them, to a place that may be written, and restore from there: %w", err)
		}
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
	for info, err := range i.Repo.Store().List(ctx, prefix, "") {
		if err != nil {
			return 0, nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(path.Base(info.Name), ".json")); err == nil {
			next = max(next, n+1)
		}
	}
	for { // a list may be stale, a read by name is not
		var c vault.Claim
		_, err := i.Repo.Read(ctx, vault.ClaimName(t, next), &c)
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
	_, err = i.Repo.Read(ctx, vault.ClaimName(t, next-1), last)
	return next, last, err
}

// after says what becomes of a request when the target has a claim already:
// true goes on with the claim's restore, false lets a new claim follow.
func (i *Importer) after(ctx context.Context, run fanout.Run, req Request, last *vault.Claim) (goOn bool, err error) {
	proof, err := i.Repo.RestoreProof(ctx, last.Restore)
	if errors.Is(err, fs.ErrNotExist) {
		proof = nil
	} else if err != nil {
		return false, err
	}
	closed, err := i.Repo.Closed(ctx, last.Restore)
	if err != nil {
		return false, err
	}
	switch {
	case proof != nil, closed != nil && closed.Reason != "":
		// It has ended; its late starts obey its closing record.
		if goOn, err := i.ended(ctx, req, last, proof, closed); err != nil || goOn {
			return goOn, err
		}
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
	segments, err := i.unsettled(ctx, plan)
	if err != nil {
		return false, err
	}
	if waiting, err := i.working(ctx, run, vault.Restore{ID: plan.Restore}, segments); err != nil || waiting != "" {
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
func (i *Importer) GiveUp(ctx context.Context, run fanout.Run, id vault.RestoreID, reason string) (*vault.Closed, error) {
	c := &vault.Closed{Restore: id, At: run.Now().UTC(), Reason: reason}
	if _, err := i.Repo.Win(ctx, vault.Restore{ID: id}.Closed(), c); err != nil {
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
func (i *Importer) plan(ctx context.Context, run fanout.Run, req Request, id vault.RestoreID, m *vault.Manifest, manifest vault.Object) (*vault.RestorePlan, error) {
	source, err := i.Repo.PlanOf(ctx, m)
	if err != nil {
		return nil, err
	}
	p := &vault.RestorePlan{
		Restore: id, Created: run.Now().UTC(), Command: vault.Program, Backup: m.Backup, Manifest: manifest,
		Source: m.Table, Target: req.Target, Endpoint: i.Endpoint, Definition: source.Definition,
		Also: req.Also, Budget: req.Budget,
		RecoveryPoint: m.RecoveryPoint().UTC(), Instant: req.Instant.UTC(),
	}
	if !p.Instant.IsZero() {
		p.Notes = append(p.Notes, fmt.Sprintf("what was there at %s was asked for: backup %s is the newest whose recovery point is not later, %s, which is %s earlier; what was written between the two is not in it",
			p.Instant.Format(time.RFC3339), p.Backup, p.RecoveryPoint.Format(time.RFC3339), p.Instant.Sub(p.RecoveryPoint).Round(time.Second)))
	}
	p.Definition.Name = req.Target.Table
	p.Definition.Raw, p.Definition.Identity, p.Definition.LocalTransactions = nil, table.Identity{}, req.LocalTransactions
	p.Definition.Schema = slices.Clone(p.Definition.Schema)
	for k := range p.Definition.Schema {
		if c := &p.Definition.Schema[k]; c.AutoIncrement {
			// The service makes the values of such a column and takes none, so
			// rows would change their identity.
			c.AutoIncrement = false
			p.Notes = append(p.Notes, fmt.Sprintf("key column %q was auto-increment and is a plain integer here, so that rows keep their keys", c.Name))
		}
	}
	p.Notes = append(p.Notes, untold(&p.Definition)...)
	if t := p.Definition.Throughput; t != (table.Throughput{}) {
		// It is paid by the hour from the moment that the table exists.
		p.Definition.Throughput = table.Throughput{}
		p.Notes = append(p.Notes, fmt.Sprintf("nothing is reserved here; the source had reserved %d read and %d write units", t.Read, t.Write))
	}
	if ttl := p.Definition.Options.TTL; ttl > 0 {
		p.Notes = append(p.Notes, ttlNote(time.Duration(ttl)*time.Second, m.RecoveryPoint(), p.Created))
	}
	if m.Fuzzy {
		p.Notes = append(p.Notes, fmt.Sprintf("the backup was read row by row from %s to %s and is no single instant's image",
			m.Totals.First.UTC().Format(time.RFC3339), m.Totals.Latest.UTC().Format(time.RFC3339)))
	}
	// How many segments hold rows, and about what the reading of the largest lane cost.
	hold, largest := 0, int64(0)
	for g, err := range i.Repo.Groups(ctx, m) {
		if err != nil {
			return nil, err
		}
		for s := range g.Segments {
			log := &g.Segments[s]
			rows, units := int64(0), [vault.MaxLanes]int64{}
			for _, slot := range log.Slots {
				if slot.Part == nil {
					continue
				}
				rows += slot.Part.Rows
				for i, lane := range slot.Part.Lanes {
					units[i] += slot.Part.ReadUnits * lane.Rows / max(slot.Part.Rows, 1)
				}
			}
			if largest = max(largest, slices.Max(units[:])); rows > 0 {
				hold++
			}
			p.Segments = append(p.Segments, vault.RestoreSegment{ID: log.Segment.ID, Group: g.Group, Rows: rows})
		}
	}
	return p, i.divide(p, hold, largest)
}

// untold says what of a table its description does not tell, so that no copy can be
// known to have it.
func untold(def *table.Definition) (notes []string) {
	if !def.LocalTransactions {
		notes = append(notes, "the service does not tell whether a table takes local transactions, which is set when it is made: this one does not; if the source does, restore with --local-transactions")
	}
	if len(def.Indexes) > 0 {
		notes = append(notes, "each index has an entry for every row, and is made on the fewest columns that give it its key: the service does not tell whether one was made without the rows of before, or on columns that it would have added")
	}
	return notes
}

// The bounds of what a worker is given of a budget.
const (
	// leastShare is in write units per second: a worker has to write a block of a
	// mebibyte, up to twenty thousand rows, in its function's time.
	leastShare = 50
	// A lane is compared in one invocation: in fastComparison by as few workers as that
	// takes, and in slowComparison at least.
	fastComparison, slowComparison = 3 * time.Minute, 10 * time.Minute
)

// divide fixes over how many workers the budget of a restore is divided: all that
// there may be, or fewer, where each would be given too little to come to an end.
// hold is the number of segments that hold rows, largest what the reading of one of
// their lanes has cost at most, in read units.
func (i *Importer) divide(p *vault.RestorePlan, hold int, largest int64) error {
	over := func(segments int, workers float64) int {
		if i.Workers > 0 {
			segments = min(segments, i.Workers)
		}
		return max(1, int(min(float64(segments), workers)))
	}
	if units := p.Budget.WriteUnits; units > 0 {
		p.Loaders = over(hold, units/leastShare)
	}
	if units := p.Budget.ReadUnits; units > 0 {
		least := float64(largest) / slowComparison.Seconds()
		if units < least {
			return table.Invalidf("a budget of %g read units per second: the largest range of the backup takes %d, and is compared in one invocation: want at least %.0f",
				units, largest, math.Ceil(least))
		}
		p.Comparers = over(len(p.Segments), units*fastComparison.Seconds()/float64(max(largest, 1)))
	}
	return nil
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

// make makes the target, which this restore has not made yet, and notes by what it is
// told from any other table.
func (i *Importer) make(ctx context.Context, p *vault.RestorePlan) (*vault.Made, error) {
	got, err := i.create(ctx, p)
	if errors.Is(err, table.ErrExist) {
		// Another delivery of this restore may have noted it meanwhile, and others may
		// write rows by now.
		if made, merr := i.Repo.Made(ctx, p.Restore); merr != nil || made != nil {
			return made, merr
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", p.Target, err)
	}
	made := &vault.Made{Restore: p.Restore, Target: p.Target, Identity: got.Identity, Options: got.Options}
	_, err = i.Repo.Win(ctx, vault.Restore{ID: p.Restore}.Created(), made)
	return made, err
}

// create creates the target and describes it.
func (i *Importer) create(ctx context.Context, p *vault.RestorePlan) (got table.Definition, err error) {
	want := loading(p.Definition)
	err = i.Tables.Create(ctx, want)
	switch {
	case err == nil:
		if got, err = i.Tables.Describe(ctx, p.Target.Table); err == nil && !slices.Equal(got.Schema, want.Schema) {
			err = notMine(p.Target) // it has come in the place of the restore's by now
		}
	case errors.Is(err, table.ErrExist):
		// The answer of an earlier try may have been lost: then the table is as it was
		// asked for, and nothing has been written. A table of anyone else is refused.
		got, err = i.adopt(ctx, p.Target, want)
	}
	if errors.Is(err, table.ErrNotExist) {
		// It was just made, by another delivery of this very restore perhaps, and
		// can't be used yet.
		err = fmt.Errorf("%w: it is being loaded, look again later", table.ErrUnavailable)
	}
	return got, err
}

func notMine(t vault.TableID) error {
	return fmt.Errorf("%w: %s, and not by this restore; restore to another name, or drop it first", table.ErrExist, t)
}

// adopt takes a table that stands under the name of the target for the restore's own,
// and describes it: it is as restores make them, and empty.
func (i *Importer) adopt(ctx context.Context, t vault.TableID, want table.Definition) (table.Definition, error) {
	got, err := i.Tables.Describe(ctx, t.Table)
	if err != nil {
		return got, err
	}
	if !slices.Equal(got.Schema, want.Schema) || got.Options != want.Options ||
		len(got.DefinedColumns)+len(got.Indexes)+len(got.SearchIndexes) > 0 || got.Stream != nil {
		return got, notMine(t)
	}
	scan := i.Tables.Scan(t.Table, want.Schema, want.Schema.Whole())
	buf := make([]byte, table.MinPage)
	for {
		page, err := scan.Next(ctx, buf)
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		if len(page.Block) > 0 {
			return got, notMine(t)
		}
	}
}

package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/pace"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Verifier proves backups and restores.
type Verifier struct {
	Repo *repository.Repository
	// Tables is the instance of the table that is compared with; nil where
	// nothing is compared.
	Tables table.Instance
	// Work goes on with the segments of a restore when time is up; nil leaves them to
	// the next look at the restore.
	Work fanout.Dispatcher
	Log  *slog.Logger
	// Memory bounds the pages in flight, in bytes; 0 means DefaultMemory.
	Memory int64
	Now    func() time.Time
}

// How deep a verification goes; each does what the one before it does.
const (
	// DepthObjects asks the store for each object, its size and its checksum.
	DepthObjects = "objects"
	// DepthRead reads every object, and proves of every shard that its
	// checksums, order, counts and digests are as recorded.
	DepthRead = "read"
	// DepthRows compares with the rows of a table, in both directions.
	DepthRows = "rows"
)

// VerifyRequest says what is to be verified.
type VerifyRequest struct {
	Backup vault.Backup
	// Restore, if there is one, says which backup and which table are compared,
	// and which rows the service refused.
	Restore vault.RestoreID
	// Against is the table that is compared with, at DepthRows; nil means the
	// restore's target, or the table that was backed up.
	Against *vault.TableID
	Depth   string
	// ReadUnits is what may be read of that table per second, in read units; 0 for as
	// much as there is.
	ReadUnits float64
	// Progress is told now and then what was found so far. It is called by one
	// goroutine at a time.
	Progress func(vault.Check)
}

// VerifyReply is what one invocation came to.
type VerifyReply struct {
	Restore vault.RestoreID `json:"restore"`
	// Segment is the one that was compared last, Start the number of its start,
	// Ended counts those that the invocation compared.
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	Ended   int             `json:"ended"`
	// Verdict and Check are of all of them together, and of the command's segment if
	// that was compared before.
	Verdict vault.Verdict `json:"verdict"`
	Check   vault.Check   `json:"check"`
	// Pace is what held the last comparison back.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Superseded says that another invocation compares the command's segment, Closed
	// that the restore was over before, and nothing was done.
	Superseded bool `json:"superseded,omitempty"`
	Closed     bool `json:"closed,omitempty"`
	// Continued says that time was up in the middle of the segment, and another
	// invocation goes on.
	Continued bool `json:"continued,omitempty"`
}

// segmentsInFlight is how many segments one process verifies at a time.
const segmentsInFlight = 4

// Verify verifies a whole backup in this process. What is wrong with the backup
// is in the proof; the error is about what kept it from being verified.
func (v *Verifier) Verify(ctx context.Context, run fanout.Run, req VerifyRequest) (*vault.Proof, error) {
	switch req.Depth {
	case DepthObjects, DepthRead, DepthRows:
	default:
		return nil, fmt.Errorf("verify: depth %q: want objects, read or rows", req.Depth)
	}
	if err := (vault.Budget{ReadUnits: req.ReadUnits}).Validate(); err != nil {
		return nil, table.Invalidf("verify: %w", err)
	}
	proof, err := v.verify(ctx, run, req)
	if err != nil && req.Restore != "" {
		return nil, fmt.Errorf("verify restore %s: %w", req.Restore, err)
	}
	if err != nil {
		return nil, fmt.Errorf("verify backup %s of %s: %w", req.Backup.ID, req.Backup.Table, err)
	}
	proof.Usage = v.Repo.TakeUsage()
	return proof, nil
}

func (v *Verifier) verify(ctx context.Context, run fanout.Run, req VerifyRequest) (*vault.Proof, error) {
	var restore *vault.RestorePlan
	if req.Restore != "" {
		var err error
		if restore, err = v.Repo.RestorePlan(ctx, req.Restore); err != nil {
			return nil, err
		}
		req.Backup = vault.Backup{Table: restore.Source, ID: restore.Backup}
	}
	// A restore that has not ended holds its backup.
	held := restore != nil
	if held {
		if _, err := v.Repo.RestoreProof(ctx, req.Restore); err == nil {
			held = false
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if !held {
		if err := v.Repo.Unmarked(ctx, req.Backup); err != nil {
			return nil, err
		}
	}
	manifest, o, err := v.Repo.Manifest(ctx, req.Backup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is not sealed, or not in this vault: `tablevault list` shows those that are: %w", err)
	}
	if errors.Is(err, vault.ErrCorrupt) {
		proof := &vault.Proof{
			Backup: req.Backup.ID, Table: req.Backup.Table, Restore: req.Restore, Depth: req.Depth, At: v.Now().UTC(),
			Manifest: vault.Object{Name: req.Backup.Manifest()}, Verdict: vault.Corrupt,
		}
		proof.Check.Find(proof.Manifest.Name, err)
		return proof, nil
	}
	if err != nil {
		return nil, err
	}
	if manifest.State != vault.Sealed {
		return nil, fmt.Errorf("it was given up: %s", manifest.Reason)
	}
	proof := &vault.Proof{
		Backup: manifest.Backup, Table: manifest.Table, Restore: req.Restore, Depth: req.Depth, At: v.Now().UTC(), Manifest: o,
	}
	if restore != nil && restore.Manifest.SHA256 != o.SHA256 {
		proof.Check.Find(o.Name, fmt.Errorf("its sha256 is %s, the restore was planned from one of %s", o.SHA256, restore.Manifest.SHA256))
	}
	w := &verification{Verifier: v, req: req, restore: restore, check: &proof.Check}
	if err := w.run(ctx, manifest); err != nil {
		return nil, err
	}
	if req.Depth == DepthRows {
		proof.Target = w.target.String()
		proof.Notes = append(proof.Notes, w.notes...)
		if w.comparer != nil { // nil if the backup's plan can't be read
			proof.Pace = w.comparer.pace.Take()
		}
		if restore == nil {
			proof.Notes = append(proof.Notes, "rows that were written after the backup are differences too: without the table's change stream they can't be told apart")
		}
	}
	if manifest.Fuzzy {
		proof.Notes = append(proof.Notes, fmt.Sprintf("the backup was read row by row from %s to %s and is no single instant's image",
			manifest.Totals.First.UTC().Format(time.RFC3339), manifest.Totals.Latest.UTC().Format(time.RFC3339)))
	}
	proof.Notes = append(proof.Notes, repository.ReplacedNotes(proof.Check.Replaced, v.Repo.Replaced())...)
	proof.Notes = append(proof.Notes, v.Repo.TwinErrors()...)
	if n := proof.Check.SizeOnly; n > 0 {
		proof.Notes = append(proof.Notes, fmt.Sprintf("of %d objects only the size was compared with the store: it keeps checksums of another kind than the recorded ones, and no record of a copy", n))
	}
	if req.Depth != DepthObjects && proof.Check.Corrupted == 0 {
		if err := proof.Check.Holds(&manifest.Totals); err != nil {
			proof.Check.Find(o.Name, err)
		}
	}
	proof.Verdict = proof.Check.Verdict()
	v.Log.Info("verified", "backup", proof.Backup, "restore", proof.Restore, "depth", proof.Depth, "verdict", proof.Verdict, "rows", proof.Check.Rows)
	return proof, nil
}

// Compare says whether a backup's copy in another vault, at address, is the same
// as the backup here. The documents are read there and compared by hash; of
// shards and indexes the other store is asked for the size and the checksum, and
// none is read.
func (v *Verifier) Compare(ctx context.Context, run fanout.Run, b vault.Backup, address string, store object.Store) (*vault.Proof, error) {
	err := repository.Apart(ctx, v.Repo.Store(), store, place.Key(address))
	var proof *vault.Proof
	if err == nil {
		proof, err = v.compare(ctx, run, b, store)
	}
	if err != nil {
		return nil, fmt.Errorf("compare backup %s of %s with its copy in %s: %w", b.ID, b.Table, address, err)
	}
	proof.Verdict = proof.Check.Verdict()
	proof.Notes = append(proof.Notes, fmt.Sprintf("of the copy in %s; its shards were not read", address))
	return proof, nil
}

func (v *Verifier) compare(ctx context.Context, run fanout.Run, b vault.Backup, store object.Store) (*vault.Proof, error) {
	_, here, err := v.Repo.Manifest(ctx, b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is not sealed, or not in this vault: `tablevault list` shows those that are: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if err := v.Repo.Unmarked(ctx, b); err != nil {
		return nil, err
	}
	other, err := repository.Open(ctx, store)
	if err != nil {
		return nil, err
	}
	if other.Header.ID != v.Repo.Header.ID {
		return nil, fmt.Errorf("that vault is another one, %s and not %s", other.Header.ID, v.Repo.Header.ID)
	}
	there := *v
	there.Repo = other
	proof, err := there.verify(ctx, run, VerifyRequest{Backup: b, Depth: DepthObjects})
	if errors.Is(err, fs.ErrNotExist) {
		proof = &vault.Proof{Backup: b.ID, Table: b.Table, Depth: DepthObjects, At: v.Now().UTC(), Manifest: here}
		proof.Check.Find(here.Name, errors.New("it is not there: the copy is not complete"))
		return proof, nil
	}
	if err != nil {
		return nil, err
	}
	if proof.Manifest.SHA256 != "" && proof.Manifest.SHA256 != here.SHA256 {
		proof.Check.Find(here.Name, fmt.Errorf("its sha256 is %s there, %s here", proof.Manifest.SHA256, here.SHA256))
	}
	return proof, nil
}

// verification is one run over a whole backup.
type verification struct {
	*Verifier
	req      VerifyRequest
	restore  *vault.RestorePlan
	target   vault.TableID
	source   restoreSource
	comparer *comparer
	notes    []string

	mu    sync.Mutex
	check *vault.Check
}

func (w *verification) run(ctx context.Context, m *vault.Manifest) error {
	plan, err := w.Repo.PlanOf(ctx, m)
	if repository.Corrupt(err) {
		// Without the plan's schema, no shard can be read.
		w.check.Find(m.Plan.Name, err)
		return nil
	}
	if err != nil {
		return err
	}
	w.check.Objects += 2 // the manifest and the plan
	w.check.Bytes += m.Plan.Bytes
	w.source = restoreSource{backup: w.req.Backup, manifest: m, plan: plan}
	if w.req.Depth == DepthRows {
		if err := w.against(ctx); err != nil {
			return err
		}
	}
	// Roll-ups are read one by one; each can name tens of thousands of objects.
	groups := make([]*vault.Group, 0, len(m.Groups))
	for _, o := range m.Groups {
		var g vault.Group
		if err := w.Repo.ReadExact(ctx, o, &g); repository.Corrupt(err) {
			w.check.Find(o.Name, err)
			continue
		} else if err != nil {
			return err
		}
		w.check.Objects++
		w.check.Bytes += o.Bytes
		groups = append(groups, &g)
	}
	if len(groups) == len(m.Groups) {
		// That the ranges meet and cover the key space.
		totals, segments, err := fanout.Prove(plan, groups)
		if err == nil && (totals != m.Totals || segments != m.Segments) {
			err = fmt.Errorf("it says %d rows in %d segments, its parts have %d in %d, or other sums", m.Totals.Rows, m.Segments, totals.Rows, segments)
		}
		if err != nil {
			w.check.Find(w.req.Backup.Manifest(), err)
		}
	}
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(segmentsInFlight)
	for _, g := range groups {
		for s := range g.Segments {
			log := &g.Segments[s]
			work.Go(func() error { return w.segment(wctx, log) })
		}
	}
	return work.Wait()
}

// against finds the table that is compared with.
func (w *verification) against(ctx context.Context) error {
	w.target = w.req.Backup.Table
	if w.restore != nil {
		w.target = w.restore.Target
	}
	if w.req.Against != nil {
		w.target = *w.req.Against
	}
	if w.Tables == nil {
		return fmt.Errorf("comparing with %s needs the instance's endpoint and credentials", w.target)
	}
	memory := w.Memory
	if memory == 0 {
		memory = fanout.DefaultMemory
	}
	def, err := w.Tables.Describe(ctx, w.target.Table)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", w.target, err)
	}
	if w.restore != nil && w.target == w.restore.Target {
		made, err := w.Repo.Made(ctx, w.restore.Restore)
		if err != nil {
			return err
		}
		if made != nil && def.Identity.Other(made.Identity) {
			w.notes = append(w.notes, fmt.Sprintf("%s is another table than the one that the restore has made: this one is %s, that one was %s", w.target, def.Identity, made.Identity))
		}
	}
	w.comparer, err = newComparer(w.Repo, &w.source, w.Tables, def, memory/segmentsInFlight, pace.New(w.req.ReadUnits))
	return err
}

func (w *verification) segment(ctx context.Context, s *vault.SegmentLog) error {
	var check vault.Check
	log, err := replay(s)
	if err != nil {
		return w.found(vault.Check{Corrupted: 1, Findings: []vault.Finding{{Object: w.req.Backup.Group(s.Segment.ID.Group()), Reason: err.Error()}}})
	}
	var loaded loadedSegment
	if w.restore != nil && w.comparer != nil {
		if loaded, err = readLoading(ctx, w.Repo, vault.Restore{ID: w.restore.Restore}, log.Segment.ID, &check); err != nil {
			return err
		}
	}
	if err := checkSegment(ctx, w.Repo, &w.source, w.req.Depth, w.comparer, &comparison{log: log, quarantined: loaded.quarantined}, &check); err != nil {
		return fmt.Errorf("segment %s: %w", log.Segment.ID, err)
	}
	return w.found(check)
}

func (w *verification) found(check vault.Check) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check.Add(check)
	if w.req.Progress != nil {
		w.req.Progress(*w.check)
	}
	return nil
}

// VerifySegment compares one segment of a restore with the target, and writes
// down what it found. A worker that has time left for more goes on with others
// that nobody has begun.
func (v *Verifier) VerifySegment(ctx context.Context, run fanout.Run, w fanout.Work) (VerifyReply, error) {
	x := &verifying{
		Verifier: v, run: run, again: run, restore: vault.Restore{ID: w.Restore}, pace: pace.New(w.ReadUnits), told: map[string]bool{},
	}
	x.reply = VerifyReply{Restore: w.Restore, Segment: w.Segment, Start: w.Start}
	err := x.all(ctx, w)
	return x.reply, err
}

// verifying is an invocation that compares segments of a restore.
type verifying struct {
	*Verifier
	run fanout.Run
	// again is run with an earlier stop: a comparison that is begun late is cut short,
	// and the lanes that it has not come to the end of are read again.
	again    fanout.Run
	longest  time.Duration // that a segment took
	restore  vault.Restore
	plan     *vault.RestorePlan
	worker   fanout.Worker
	logs     sealedLogs
	pace     *pace.Pacer
	comparer *comparer
	// told are the objects that were read elsewhere and stand in a check.
	told  map[string]bool
	reply VerifyReply
}

// errNoLane says that an invocation has come no further.
var errNoLane = errors.New("none of its ranges was read to its end")

func (x *verifying) what(s vault.SegmentID) string {
	return fmt.Sprintf("verify segment %s of restore %s", s, x.restore.ID)
}

// all compares the segment of the command, and what it finds after it.
func (x *verifying) all(ctx context.Context, w fanout.Work) (err error) {
	if x.plan, err = x.Repo.RestorePlan(ctx, w.Restore); err != nil {
		return fmt.Errorf("%s: %w", x.what(w.Segment), err)
	}
	if err := planned(x.plan, w.Segment); err != nil {
		return fmt.Errorf("%s: %w", x.what(w.Segment), err)
	}
	x.logs = sealedLogs{repo: x.Repo, plan: x.plan}
	x.worker = fanout.Worker{Vault: x.Repo, Starts: x.restore.Verify(), Run: &x.again, What: x.what}
	x.worker.Planned, x.worker.Groups = plannedGroups(x.plan, func(vault.RestoreSegment) bool { return true })
	if x.Work != nil {
		x.worker.Submit = func(ctx context.Context, s vault.SegmentID, start int) error {
			next := w
			next.Segment, next.Start = s, start
			return x.Work.Submit(ctx, next)
		}
	}
	if err := x.one(ctx, w.Segment, w.Start, false); err != nil {
		return err
	}
	if x.reply.Superseded && w.ReadUnits > 0 {
		return nil // one worker more would read beyond the restore's budget
	}
	err = x.worker.GoOn(ctx, w, x.one)
	if err == nil && !x.worker.Over {
		goesOn(ctx, x.Repo, x.Work, x.Log, w, fanout.Comparing, x.restore.Checks(), len(x.plan.Segments))
	}
	return err
}

// one compares a segment, whose start may be claimed already, and notes what goes
// wrong.
func (x *verifying) one(ctx context.Context, s vault.SegmentID, start int, claimed bool) error {
	x.reply.Segment, x.reply.Start = s, start
	began := x.run.Now()
	comparing, cancel := x.run.InTime(ctx)
	defer cancel()
	if err := x.segment(ctx, comparing, s, start, claimed); err != nil {
		if errors.Is(err, errNoLane) || comparing.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("the segment can't be compared in the function's time; give verify a longer timeout, or the restore a larger budget of read units: %w", err)
		}
		return fanout.Fail(ctx, x.Repo, x.restore.Verify(), s, x.reply.Start, x.run, fanout.Permanent(err), fmt.Errorf("%s: %w", x.what(s), err))
	}
	x.longest = max(x.longest, x.run.Now().Sub(began))
	if !x.run.Stop.IsZero() {
		x.again.Stop = x.run.Stop.Add(-2 * x.longest)
	}
	return nil
}

// segment compares a segment, or as many of its lanes as comparing, which ends before
// ctx, has time for.
func (x *verifying) segment(ctx, comparing context.Context, s vault.SegmentID, start int, claimed bool) error {
	found := vault.SegmentCheck{Segment: s}
	_, err := x.Repo.Read(ctx, x.restore.Check(s), &found)
	if err == nil {
		x.add(found.Check)
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var before vault.Compared
	slots := 0
	if !claimed {
		if before, slots, err = x.before(ctx, s); err != nil {
			return err
		}
		b, err := x.worker.Begin(ctx, s, start, slots)
		x.reply.Start, x.reply.Superseded = b.Start, b.Superseded
		if err != nil || b.Superseded {
			return err
		}
	}
	closed, err := x.Repo.Closed(ctx, x.plan.Restore)
	if err != nil || closed != nil {
		x.reply.Closed, x.worker.Over = closed != nil, closed != nil
		return err
	}
	log, err := x.logs.of(ctx, s)
	if err != nil {
		return err
	}
	source := x.logs.source
	found = vault.SegmentCheck{Segment: s}
	loaded, err := readLoading(ctx, x.Repo, x.restore, s, &found.Check)
	if err != nil {
		return err
	}
	found.Usage = loaded.usage
	if found.Settled, err = x.settled(ctx, log, loaded); err != nil {
		return err
	}
	if x.comparer == nil {
		if x.comparer, err = x.newComparer(ctx, source); err != nil {
			return err
		}
	}
	c := &comparison{log: log, quarantined: loaded.quarantined, run: x.run, before: map[int]bool{}}
	for _, lane := range before.Compared {
		if lanes := len(log.Segment.Lanes()); lane >= lanes {
			return fmt.Errorf("%s: %w: lane %d is compared, and there are %d", x.restore.Verify().Slots(s), vault.ErrCorrupt, lane, lanes)
		}
		c.before[lane] = true
	}
	tell := fanout.NewTeller(ctx, x.Repo, x.run, x.restore.Verify().Progress(s), x.reply.Start, before.Check.Target, 0)
	defer tell.End()
	if err := checkSegment(tell.With(comparing), x.Repo, source, DepthRows, x.comparer, c, &found.Check); err != nil {
		return err
	}
	if c.cut {
		return x.handOver(ctx, s, slots, c)
	}
	found.Check.Add(before.Check)
	found.Usage.Add(before.Usage)
	// Among what was read elsewhere are documents too. The comparison has proved
	// what was read: where it is gone from here, it is put back.
	x.Repo.Heal(ctx, source.backup)
	found.Check.Replaced = nil
	found.Check.Replace(x.untold())
	found.Pace = x.pace.Take()
	x.reply.Pace = found.Pace
	found.At = x.run.Now().UTC()
	if _, err := x.Repo.Tell(ctx, x.restore.Check(s), &found, &found.Usage); err != nil {
		return err
	}
	x.add(found.Check)
	x.reply.Ended++
	return nil
}

// newComparer compares with the restore's target, which has to be the table that the
// restore has made.
func (x *verifying) newComparer(ctx context.Context, source *restoreSource) (*comparer, error) {
	made, err := x.Repo.Made(ctx, x.restore.ID)
	if err != nil {
		return nil, err
	}
	def, err := x.Tables.Describe(ctx, x.plan.Target.Table)
	if err != nil {
		return nil, fmt.Errorf("compare with %s: %w", x.plan.Target, err)
	}
	if made == nil {
		return nil, table.Invalidf("compare with %s: restore %s has not made it", x.plan.Target, x.restore.ID)
	}
	if err := stands(x.plan, made, def, true); err != nil {
		return nil, err
	}
	c, err := newComparer(x.Repo, source, x.Tables, def, x.Memory, x.pace)
	if err == nil {
		c.ttl = max(0, x.plan.Definition.Options.TTL)
	}
	return c, err
}

// before sums up what earlier starts have compared of a segment, and counts the entries
// of its log.
func (x *verifying) before(ctx context.Context, s vault.SegmentID) (sum vault.Compared, slots int, err error) {
	for ; ; slots++ {
		var entry vault.Compared
		_, err := x.Repo.Read(ctx, x.restore.Verify().Slot(s, slots), &entry)
		if errors.Is(err, fs.ErrNotExist) {
			return sum, slots, nil
		}
		if err != nil {
			return sum, slots, err
		}
		if len(entry.Compared) == 0 || slices.ContainsFunc(entry.Compared, func(lane int) bool { return slices.Contains(sum.Compared, lane) }) {
			return sum, slots, fmt.Errorf("read %s: %w: it compares lanes %v, compared before it are %v", x.restore.Verify().Slot(s, slots), vault.ErrCorrupt, entry.Compared, sum.Compared)
		}
		sum.Compared = append(sum.Compared, entry.Compared...)
		sum.Check.Add(entry.Check)
		sum.Usage.Add(entry.Usage)
	}
}

// handOver writes down what was compared of a segment before time was up, and lets
// another invocation go on, or the next look at the restore where none can be called.
// If another start was faster, its word stands.
func (x *verifying) handOver(ctx context.Context, s vault.SegmentID, slot int, c *comparison) error {
	x.worker.Over = true
	if len(c.done) == 0 {
		return errNoLane
	}
	entry := &vault.Compared{Segment: s, Slot: slot, Start: x.reply.Start, Compared: c.done, Check: c.rows, Pace: x.pace.Take()}
	x.reply.Pace = entry.Pace
	x.add(entry.Check)
	if _, err := x.Repo.Tell(ctx, x.restore.Verify().Slot(s, slot), entry, &entry.Usage); err != nil {
		return err
	}
	if x.worker.Submit == nil {
		return nil
	}
	x.reply.Continued = true
	return x.worker.HandOver(ctx, s, x.reply.Start)
}

func (x *verifying) add(check vault.Check) {
	x.reply.Check.Add(check)
	x.reply.Verdict = x.reply.Check.Verdict()
}

// untold are the objects that were read elsewhere and stand in no check of this
// invocation's.
func (x *verifying) untold() (found []vault.Finding) {
	for _, f := range x.Repo.Replaced() {
		if !x.told[f.Object] {
			x.told[f.Object] = true
			found = append(found, f)
		}
	}
	return found
}

// settled says whether nobody writes the rows of a segment any more, the log of whose
// loading was read: see Importer.working. It is looked at before the rows are compared.
func (x *verifying) settled(ctx context.Context, log *fanout.SegmentLog, loaded loadedSegment) (bool, error) {
	if !loaded.ended {
		// Of a segment without rows, nothing is loaded.
		return !slices.ContainsFunc(log.Slots, func(s vault.Slot) bool { return s.Part != nil && s.Part.Rows > 0 }), nil
	}
	working, err := fanout.MayWork(ctx, x.Repo, x.restore.Log(), log.Segment.ID, x.run, 0)
	return working == "", err
}

// loadedSegment is what the log of a segment's loading tells.
type loadedSegment struct {
	ended bool
	// quarantined are the keys, as Key.String gives them, of the rows that the service
	// refused.
	quarantined map[string]bool
	// usage is what the loading asked of the store.
	usage object.Usage
}

// readLoading reads the log of a segment's loading. Rows in quarantine that can't be
// read are left out.
func readLoading(ctx context.Context, r *repository.Repository, restore vault.Restore, s vault.SegmentID, check *vault.Check) (loadedSegment, error) {
	loaded := loadedSegment{quarantined: map[string]bool{}}
	for entry, err := range r.Loading(ctx, restore, s, 0) {
		if err != nil {
			return loaded, err
		}
		loaded.usage.Add(entry.Usage)
		if entry.Quarantine != nil {
			var q vault.Quarantine
			err := r.ReadExact(ctx, *entry.Quarantine, &q)
			switch {
			case repository.Corrupt(err):
				check.Find(entry.Quarantine.Name, err)
			case err != nil:
				return loaded, err
			default:
				for _, row := range q.Rows {
					loaded.quarantined[row.Key.String()] = true
				}
			}
		}
		if loaded.ended = entry.Last; loaded.ended {
			break
		}
	}
	return loaded, nil
}

// checkSegment verifies one segment at a depth. What is damaged here and not in
// a twin is verified there.
func checkSegment(ctx context.Context, r *repository.Repository, source *restoreSource, depth string,
	compare *comparer, x *comparison, check *vault.Check) error {
	corrupted := check.Corrupted
	var names []string
	objects := map[string]vault.Object{}
	for _, s := range x.log.Slots {
		if s.Part == nil {
			continue
		}
		for _, o := range []vault.Object{s.Part.Shard, s.Part.Index} {
			names = append(names, o.Name)
			objects[o.Name] = o
			check.Objects++
			check.Bytes += o.Bytes
			sizeOnly, err := r.StandingSomewhere(ctx, o)
			switch {
			case repository.Corrupt(err):
				check.Find(o.Name, err)
			case err != nil:
				return err
			case sizeOnly:
				check.SizeOnly++
			}
		}
	}
	if check.Corrupted > corrupted && depth == DepthRows {
		// A table is not compared with what is not all there, but whatever can
		// still be read is.
		depth = DepthRead
	}
	for {
		since, found := r.Turns(), *check
		if err := readAt(ctx, r, source, depth, compare, x, &found); err != nil {
			return err
		}
		again := false
		for _, f := range found.Findings[min(len(check.Findings), len(found.Findings)):] {
			if o, ok := objects[f.Object]; ok {
				again = r.Turn(ctx, o, since, errors.New(f.Reason)) || again
			}
		}
		if again {
			continue
		}
		found.Replace(r.Replaced(names...))
		*check = found
		return nil
	}
}

// readAt reads a segment, or compares it, as far as depth asks for that.
func readAt(ctx context.Context, r *repository.Repository, source *restoreSource, depth string,
	compare *comparer, x *comparison, check *vault.Check) error {
	switch depth {
	case DepthRead:
		sum, err := readSegment(ctx, r, source, x.log, check, nil)
		check.Rows += sum.n
		check.Digest.Add(sum.digest)
		return err
	case DepthRows:
		err := compare.segment(ctx, x, check)
		var bad *repository.BadObject
		if errors.As(err, &bad) {
			check.Find(bad.Object.Name, bad.Err)
			return nil
		}
		return err
	}
	return nil
}

package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/vault"
)

// Pruner deletes backups whose time is over, in two steps that lie a grace apart:
// a run marks what is due, and a later one deletes what has been marked for as
// long as the grace, is still due, and is not claimed.
//
// A marked backup is no recovery point. So whoever begins to read one stops, and
// whoever has begun before is done when the grace is over, or holds a claim: a
// restore creates its own mark and then looks for prune's; prune creates its mark
// and then, in another run, looks for restores. One of the two sees the other.
//
// Runs may die at any point, overlap, and be repeated; each goes by what stands in
// the vault.
type Pruner struct {
	Repo *Repository
	// Policy says how long backups are kept; nil for none.
	Policy *policy.Policy
	// Region is where the tables of the policy's rules are, and those of Tables.
	Region string
	// Tables are those that are looked at; none for all.
	Tables []policy.Pattern
	// Keep is for how long backups are kept, instead of what the policy says; 0
	// leaves it to the policy.
	Keep time.Duration
	// Grace is how long a backup is marked before it goes.
	Grace time.Duration
	// Settle outlives every delivery that might still write under a backup's name,
	// 0 for DefaultSettle.
	Settle time.Duration
	Now    func() time.Time
	Log    *slog.Logger
}

const (
	// DefaultGrace outlives every reader that holds no claim: verifications and
	// copies, which end with their function, in a day at most.
	DefaultGrace = 24 * time.Hour
	// MinGrace is the least grace that a person may ask for.
	MinGrace = time.Hour
	// DefaultSettle is a function's longest time, a day, and the longest time that
	// an event waits to be delivered, another.
	DefaultSettle = 48 * time.Hour
	// maxSkew is how far the clock here may be from the store's.
	maxSkew = 5 * time.Minute
	// maxPrune bounds a run, whose view of the vault is that of its beginning.
	maxPrune = 6 * time.Hour
	// deletesInFlight is how many objects are deleted at a time.
	deletesInFlight = 16
)

// Action is what prune does with a backup.
type Action string

// The actions.
const (
	// PruneKeep leaves a backup as it is.
	PruneKeep Action = "keep"
	// PruneMark marks a backup.
	PruneMark Action = "mark"
	// PruneWait leaves a marked backup until its time comes.
	PruneWait Action = "wait"
	// PruneDelete deletes a backup, or what is left of one.
	PruneDelete Action = "delete"
	// PruneForget removes the mark of a backup of which nothing has been left for
	// long.
	PruneForget Action = "forget"
)

// Pruned is what a run of prune did, or would do.
type Pruned struct {
	// Apply says that it was done.
	Apply  bool          `json:"apply"`
	At     time.Time     `json:"at"`
	Grace  string        `json:"grace"`
	Tables []PrunedTable `json:"tables"`
	// Marked and Deleted sum up what was, or would be, marked and deleted.
	Marked  PruneSum `json:"marked"`
	Deleted PruneSum `json:"deleted"`
	// Failures say what went wrong, and with what.
	Failures []string `json:"failures,omitempty"`
}

// PruneSum counts backups and what they hold.
type PruneSum struct {
	Backups int   `json:"backups"`
	Bytes   int64 `json:"bytes"`
}

// PrunedTable is a table in a run of prune.
type PrunedTable struct {
	Table string `json:"table"` // region/instance/table
	// Keep is for how long its backups are kept; where several rules are about it,
	// one after the other.
	Keep string `json:"keep,omitempty"`
	// Untouched says why nothing of the table goes, if that is so.
	Untouched string `json:"untouched,omitempty"`
	// Backups are all backups of the table, oldest first.
	Backups []PrunedBackup `json:"backups"`
}

// PrunedBackup is a backup in a run of prune.
type PrunedBackup struct {
	Backup vault.BackupID `json:"backup"`
	// State is "sealed", "void", "open", or "gone" if it has no manifest any more.
	State string `json:"state"`
	// RecoveryPoint is that of a sealed backup.
	RecoveryPoint time.Time `json:"recovery_point,omitzero"`
	Action        Action    `json:"action"`
	// Done says that the action was carried out.
	Done   bool   `json:"done,omitempty"`
	Reason string `json:"reason"`
	// Marked is when it was marked, by the store's clock.
	Marked time.Time `json:"marked,omitzero"`
	// Objects and Bytes are what it holds, and, of one that is deleted, what was
	// deleted now.
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	Error   string `json:"error,omitempty"`
}

// candidate is a backup with all that is known of it.
type candidate struct {
	vault.Backup
	opened   *object.Info
	ended    *object.Info    // the manifest as an object; nil without one
	manifest *vault.Manifest // nil unless it was read
	parent   *vault.Parent   // of a sealed or of an open backup
	mark     *object.Info
	gone     *object.Info // what says that nothing is left
	stale    bool         // there is one of those that belongs to an earlier mark
	rule     *policy.Rule // the rule that has made it, if one has
	keep     policy.Keep
	last     bool // it is the newest that its rule has begun

	why     string // why it stays; empty if it may go
	reason  string
	action  Action
	done    bool
	objects int64
	bytes   int64
	err     error
}

func (c *candidate) sealed() bool { return c.manifest != nil && c.manifest.State == vault.Sealed }

func (c *candidate) state() string {
	switch {
	case c.ended != nil && c.manifest != nil:
		return string(c.manifest.State)
	case c.ended != nil:
		return "ended"
	case c.opened != nil && c.mark == nil:
		return "open"
	}
	return "gone"
}

// point is a sealed backup's recovery point.
func (c *candidate) point() time.Time {
	if at := c.manifest.RecoveryPoint(); !at.IsZero() {
		return at
	}
	return c.manifest.Sealed
}

// newest is the latest instant that is recorded of a sealed backup, from which its
// age counts.
func (c *candidate) newest() time.Time {
	at := c.point()
	for _, t := range []time.Time{c.manifest.Sealed, c.ID.Time()} {
		if t.After(at) {
			at = t
		}
	}
	return at
}

// keeping stays for a reason, unless it does for another already.
func (c *candidate) keeping(format string, args ...any) {
	if c.why == "" {
		c.why = fmt.Sprintf(format, args...)
	}
}

// prunedLine is a table with its backups, oldest first.
type prunedLine struct {
	table     vault.TableID
	rules     []*policy.Rule
	untouched string
	backups   []*candidate
}

// pruning is a run of prune.
type pruning struct {
	*Pruner
	apply bool
	// at is when the run began, by the clock here, store the same instant by the
	// store's clock; the clock here stands in for it until the store was asked.
	at, store time.Time
	lines     []*prunedLine
	leases    map[vault.Backup]vault.RestoreID
	noted     map[string]bool                       // copies that are complete, by the names of their notes
	copying   map[vault.Backup]map[string]time.Time // newest word about a copy, by target
	clocks    []object.Info                         // left behind
	failures  []string
}

// Prune looks at the backups of all tables, or of those that were asked for, and
// with apply does what is due. What goes wrong with one backup is told in the
// reply and keeps no other from being looked at; the error is about what stopped
// the run itself.
func (p *Pruner) Prune(ctx context.Context, apply bool) (*Pruned, error) {
	s := &pruning{Pruner: p, apply: apply, at: p.Now()}
	s.store = s.at
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	s.judge()
	if apply && s.due() {
		err := s.clock(ctx)
		if err == nil {
			s.judge()
			err = s.carryOut(ctx)
		}
		if err != nil {
			return s.reply(), fmt.Errorf("prune: %w", err)
		}
	} else if !apply {
		if err := s.measure(ctx); err != nil {
			return nil, fmt.Errorf("prune: %w", err)
		}
	}
	return s.reply(), nil
}

func (p *Pruner) settle() time.Duration { return cmp.Or(p.Settle, DefaultSettle) }

// load reads the vault. Marks come first: whatever claims a backup that has one is
// found after it.
func (s *pruning) load(ctx context.Context) error {
	all := map[vault.Backup]*candidate{}
	of := func(b vault.Backup) *candidate {
		if all[b] == nil {
			all[b] = &candidate{Backup: b}
		}
		return all[b]
	}
	for info, err := range s.Repo.store.List(ctx, vault.MarkPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.MarkPrefix, err)
		}
		b, gone, ok := vault.ParseMark(info.Name)
		switch {
		case ok && gone:
			of(b).gone = &info
		case ok:
			of(b).mark = &info
		case strings.HasPrefix(info.Name, vault.ClockPrefix):
			s.clocks = append(s.clocks, info)
		}
	}
	for info, err := range s.Repo.store.List(ctx, vault.OpenedPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.OpenedPrefix, err)
		}
		if t, id, ok := vault.ParseOpened(info.Name); ok {
			of(vault.Backup{Table: t, ID: id}).opened = &info
		}
	}
	for info, err := range s.Repo.store.List(ctx, vault.ManifestPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.ManifestPrefix, err)
		}
		if t, id, ok := vault.ParseManifestName(info.Name); ok {
			of(vault.Backup{Table: t, ID: id}).ended = &info
		}
	}
	for b, c := range all {
		// Without the mark that it belongs to, or from before it, it says nothing.
		if c.gone != nil && (c.mark == nil || !c.gone.Modified.After(c.mark.Modified)) {
			c.gone, c.stale = nil, true
		}
		if c.mark == nil && c.opened == nil && c.ended == nil {
			delete(all, b)
		}
	}
	s.sort(all)
	if err := s.loadLeases(ctx); err != nil {
		return err
	}
	if err := s.loadCopies(ctx); err != nil {
		return err
	}
	for _, l := range s.lines {
		if l.untouched == "" {
			if err := s.loadLine(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// sort makes lines of the backups, and finds out which rules they are under.
func (s *pruning) sort(all map[vault.Backup]*candidate) {
	lines := map[vault.TableID]*prunedLine{}
	for _, b := range slices.SortedFunc(maps.Keys(all), func(a, b vault.Backup) int {
		return cmp.Or(strings.Compare(a.Table.Path(), b.Table.Path()), strings.Compare(string(a.ID), string(b.ID)))
	}) {
		// Another region may have an instance of the same name.
		if len(s.Tables) > 0 && (b.Table.Region != s.Region || !(&policy.Rule{Tables: s.Tables}).Match(b.Table.Instance, b.Table.Table)) {
			continue
		}
		l := lines[b.Table]
		if l == nil {
			l = s.line(b.Table)
			lines[b.Table] = l
			s.lines = append(s.lines, l)
		}
		c := all[b]
		c.rule, c.keep = s.keepOf(l, b)
		l.backups = append(l.backups, c)
	}
}

// line is a table, with the rules that are about it.
func (s *pruning) line(t vault.TableID) *prunedLine {
	l := &prunedLine{table: t}
	keeps := s.Keep > 0
	if s.Policy != nil && t.Region == s.Region {
		for i := range s.Policy.Rules {
			if r := &s.Policy.Rules[i]; r.Match(t.Instance, t.Table) {
				l.rules = append(l.rules, r)
				keeps = keeps || r.Keep.For > 0
			}
		}
	}
	switch {
	case keeps:
	case len(l.rules) == 0:
		l.untouched = "no rule of the policy is about this table: all of its backups are kept"
	default:
		l.untouched = "the policy keeps all of its backups for ever"
	}
	return l
}

// keepOf is the rule that has made a backup, nil if none has, and for how long it
// is kept: as that rule says, or, without one, as the most generous of the rules
// about its table does.
func (s *pruning) keepOf(l *prunedLine, b vault.Backup) (made *policy.Rule, keep policy.Keep) {
	for _, r := range l.rules {
		if r.Made(s.Region, b) {
			made, keep = r, r.Keep
			break
		}
	}
	if made == nil {
		for i, r := range l.rules {
			keep.AtLeast = max(keep.AtLeast, r.Keep.AtLeast)
			if i == 0 || r.Keep.For == 0 {
				keep.For = r.Keep.For
			} else if keep.For > 0 {
				keep.For = max(keep.For, r.Keep.For)
			}
		}
	}
	if s.Keep > 0 {
		keep.For = s.Keep
	}
	return made, keep
}

// loadLeases finds out which backups open restores use.
func (s *pruning) loadLeases(ctx context.Context) error {
	s.leases = map[vault.Backup]vault.RestoreID{}
	for id, err := range s.Repo.Restoring(ctx) {
		if err != nil {
			return err
		}
		p, err := s.Repo.RestorePlan(ctx, id)
		if err != nil {
			return fmt.Errorf("find out which backup restore %s uses, which has not ended: %w; nothing is deleted before that is known", id, err)
		}
		s.leases[vault.Backup{Table: p.Source, ID: p.Backup}] = id
	}
	return nil
}

// loadCopies finds out which copies are complete, and which are being made.
func (s *pruning) loadCopies(ctx context.Context) error {
	s.noted, s.copying = map[string]bool{}, map[vault.Backup]map[string]time.Time{}
	for info, err := range s.Repo.store.List(ctx, vault.CopyNotesPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.CopyNotesPrefix, err)
		}
		s.noted[info.Name] = true
	}
	for info, err := range s.Repo.store.List(ctx, vault.CopyingPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.CopyingPrefix, err)
		}
		b, target, ok := vault.ParseCopying(info.Name)
		if !ok {
			continue
		}
		if s.copying[b] == nil {
			s.copying[b] = map[string]time.Time{}
		}
		if info.Modified.After(s.copying[b][target]) {
			s.copying[b][target] = info.Modified
		}
	}
	return nil
}

// loadLine reads the manifests of a table, and of what is open the plans. If one
// can't be read, nothing of the table goes: it might say that another is needed.
func (s *pruning) loadLine(ctx context.Context, l *prunedLine) error {
	work, wctx := errgroup.WithContext(ctx)
	work.SetLimit(statsInFlight)
	for _, c := range l.backups {
		work.Go(func() error {
			switch {
			case c.ended != nil:
				c.manifest, _, c.err = s.Repo.Manifest(wctx, c.Backup)
				if c.err == nil {
					c.parent = c.manifest.Parent
				}
				if errors.Is(c.err, fs.ErrNotExist) && c.mark != nil {
					// Another run was faster.
					c.err, c.ended = nil, nil
				}
			case c.opened != nil && c.mark == nil:
				var p *vault.Plan
				p, _, c.err = s.Repo.Plan(wctx, c.Backup)
				switch {
				case c.err == nil:
					c.parent = p.Parent
				case errors.Is(c.err, fs.ErrNotExist):
					c.err = nil // whoever marked it died before it planned
				}
			}
			return wctx.Err()
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for _, c := range l.backups {
		if c.err != nil {
			l.untouched = fmt.Sprintf("backup %s can't be read, so that what it needs is not known: nothing of the table goes", c.ID)
			s.failures = append(s.failures, fmt.Sprintf("%s: %v; nothing of the table goes before that is mended", l.table, c.err))
		}
	}
	return nil
}

// judge finds out for each backup what is to be done.
func (s *pruning) judge() {
	for _, l := range s.lines {
		for _, c := range l.backups {
			c.why, c.reason = "", ""
		}
		s.hold(l)
		for _, c := range l.backups {
			c.action, c.reason = s.action(c)
		}
	}
}

// hold says of each backup of a table why it stays, if it does.
func (s *pruning) hold(l *prunedLine) {
	if l.untouched != "" {
		for _, c := range l.backups {
			c.keeping("%s", l.untouched)
		}
		return
	}
	newestOf := map[*policy.Rule]vault.BackupID{}
	for _, c := range l.backups {
		if c.rule != nil {
			newestOf[c.rule] = max(newestOf[c.rule], c.ID)
		}
	}
	// The newest, and the newest where what is kept begins, so that each instant
	// from there on can be restored.
	hold(l, time.Time{}, "the newest recovery point of the table")
	cutoffs := map[time.Duration]bool{}
	for _, c := range l.backups {
		if d := c.keep.For; d > 0 && !cutoffs[d] {
			cutoffs[d] = true
			hold(l, s.at.Add(-d), fmt.Sprintf("the newest where the last %s begin", policy.Keep{For: d}))
		}
	}
	ranks := map[*policy.Rule]int{}
	for _, c := range slices.Backward(l.backups) {
		if c.sealed() && c.mark == nil {
			// Those of a rule count among themselves, others among all.
			if ranks[c.rule] < c.keep.AtLeast {
				c.keeping("one of the newest %d, which stay in any case", c.keep.AtLeast)
			}
			ranks[nil]++
			if c.rule != nil {
				ranks[c.rule]++
			}
		}
		c.last = c.rule != nil && newestOf[c.rule] == c.ID
		s.holdOne(c)
	}
	// What is kept needs its parent, and so on.
	for more := true; more; {
		more = false
		for _, c := range l.backups {
			if c.why == "" || c.parent == nil {
				continue
			}
			for _, o := range l.backups {
				if o.ID == c.parent.Backup && o.why == "" {
					o.keeping("the parent of %s, which is kept", c.ID)
					more = true
				}
			}
		}
	}
}

// hold keeps, of the sealed backups of a table whose recovery point is not after
// at, the one with the newest name, which a restore takes, and the one with the
// newest recovery point. Those that are marked count only where there is no other.
func hold(l *prunedLine, at time.Time, why string) {
	for _, marked := range []bool{false, true} {
		var byName, byPoint *candidate
		for _, c := range l.backups {
			if !c.sealed() || (c.mark != nil) != marked || c.gone != nil || !at.IsZero() && c.point().After(at) {
				continue
			}
			byName = c // in the order of their names the last is the newest
			if byPoint == nil || !c.point().Before(byPoint.point()) {
				byPoint = c
			}
		}
		if byName != nil {
			byName.keeping("%s", why)
			byPoint.keeping("%s", why)
			return
		}
	}
}

// holdOne says why a backup stays for a reason of its own.
func (s *pruning) holdOne(c *candidate) {
	if c.ended == nil && c.mark == nil {
		c.keeping("it has not ended")
		return
	}
	switch {
	case c.keep.For == 0:
		c.keeping("kept for ever")
	case c.sealed() && !c.newest().Before(s.at.Add(-c.keep.For)):
		c.keeping("not older than %s", policy.Keep{For: c.keep.For})
	case c.manifest != nil && c.manifest.State == vault.Void && s.store.Sub(c.ended.Modified) < s.settle():
		c.keeping("given up, and what was under way may still write")
	}
	if id, ok := s.leases[c.Backup]; ok {
		c.keeping("restore %s, which has not ended, uses it", id)
	}
	// The planner finds in the names of backups how far a rule has come.
	if c.last {
		c.keeping("the newest that the rule %s has begun: without it the planner would begin it again", c.rule.Name)
	}
	if c.sealed() {
		s.holdCopied(c)
	}
}

// holdCopied keeps a backup that is being copied, or is still to be.
func (s *pruning) holdCopied(c *candidate) {
	wanted := map[string]string{}
	if s.Policy != nil {
		for _, d := range s.Policy.Destinations() {
			wanted[policy.TargetKey(d.To)] = d.To
		}
	}
	if c.rule != nil {
		for _, d := range c.rule.Destinations {
			if !s.noted[c.CopyNote(policy.TargetKey(d.To))] {
				c.keeping("not copied to %s yet: `tablevault copy %s --to %s` copies it", d.To, c.ID, d.To)
			}
		}
	}
	for key, newest := range s.copying[c.Backup] {
		if to, ours := wanted[key]; !s.noted[c.CopyNote(key)] && (ours || s.store.Sub(newest) < s.settle()) {
			c.keeping("being copied to %s", cmp.Or(to, key))
		}
	}
}

// action is what is to be done with a backup, and why.
func (s *pruning) action(c *candidate) (Action, string) {
	due := "older than " + policy.Keep{For: c.keep.For}.String()
	if c.manifest != nil && c.manifest.State == vault.Void {
		due = "given up"
	}
	if c.mark == nil {
		if c.why != "" {
			return PruneKeep, c.why
		}
		return PruneMark, due
	}
	whole := c.ended != nil && c.gone == nil
	if !whole {
		due = "its deletion was begun"
	}
	_, leased := s.leases[c.Backup]
	switch {
	case whole && c.why != "":
		return PruneKeep, c.why + "; it is marked, and no recovery point"
	case leased:
		return PruneWait, c.why
	case s.store.Sub(c.mark.Modified) < s.Grace:
		return PruneWait, due + "; it goes from " + c.mark.Modified.Add(s.Grace).UTC().Format(time.RFC3339) + " on"
	case c.gone == nil || c.ended != nil || c.opened != nil:
		return PruneDelete, due
	case c.last:
		return PruneWait, c.why
	case s.store.Sub(c.gone.Modified) < s.settle():
		return PruneWait, "nothing of it is left; its mark stays until " + c.gone.Modified.Add(s.settle()).UTC().Format(time.RFC3339)
	}
	return PruneForget, "nothing of it has been left for long"
}

// due says whether there is anything to be done.
func (s *pruning) due() bool {
	for _, l := range s.lines {
		for _, c := range l.backups {
			if c.action == PruneMark || c.action == PruneDelete || c.action == PruneForget || c.gone != nil {
				return true
			}
		}
	}
	return false
}

// clock asks the store for its date, by an object of its own, and compares it with
// the clock here.
func (s *pruning) clock(ctx context.Context) error {
	name := vault.ClockPrefix + randomName()
	before := s.Now()
	if _, err := s.Repo.store.Create(ctx, name, strings.NewReader("")); err != nil {
		return fmt.Errorf("ask the store for its date: %w", refusal(err))
	}
	info, err := object.Stat(ctx, s.Repo.store, name)
	if err != nil {
		return fmt.Errorf("ask the store for its date: %w", err)
	}
	after := s.Now()
	s.sweepClocks(ctx, info)
	if at := info.Modified; at.Before(before.Add(-maxSkew)) || at.After(after.Add(maxSkew)) {
		return fmt.Errorf("the clock of this machine says %s, and the store's says %s: set this machine's clock; nothing is marked or deleted while they are more than %s apart",
			after.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339), maxSkew)
	}
	s.store = info.Modified
	return nil
}

// sweepClocks removes the object that told the date, and those of runs that are
// over. Where the bucket keeps them for a time, a later run does.
func (s *pruning) sweepClocks(ctx context.Context, mine object.Info) {
	for _, info := range append(s.clocks, mine) {
		if info.Name != mine.Name && mine.Modified.Sub(info.Modified) < maxPrune {
			continue
		}
		if err := s.Repo.store.Delete(ctx, info.Name); err != nil {
			s.Log.Warn("leave what told the store's date", "object", info.Name, "error", err)
		}
	}
}

// carryOut does what is to be done: it marks, deletes, and forgets.
func (s *pruning) carryOut(ctx context.Context) error {
	for _, action := range []Action{PruneMark, PruneDelete, PruneForget} {
		for _, l := range s.lines {
			for _, c := range l.backups {
				if c.action != action && !(action == PruneForget && s.late(c)) {
					continue
				}
				if err := s.over(); err != nil {
					return err
				}
				var err error
				switch action {
				case PruneMark:
					err = s.mark(ctx, c)
				case PruneDelete:
					err = s.delete(ctx, c)
				case PruneForget:
					err = s.forget(ctx, c)
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					c.err = err
					s.failures = append(s.failures, fmt.Sprintf("%s backup %s of %s: %v", action, c.ID, c.Table, err))
					continue
				}
				c.done = c.action != PruneWait && c.action != PruneKeep
			}
		}
	}
	return nil
}

// late says whether it is to be looked what has come since all of a backup was gone.
func (s *pruning) late(c *candidate) bool {
	_, leased := s.leases[c.Backup]
	return c.action == PruneWait && c.gone != nil && !leased
}

// over is an error when the run has lasted too long.
func (s *pruning) over() error {
	if s.Now().Sub(s.at) > maxPrune {
		return fmt.Errorf("the run has lasted for more than %s, and what it knows of the vault is too old: run prune again, it goes on", maxPrune)
	}
	return nil
}

func (s *pruning) mark(ctx context.Context, c *candidate) error {
	m := &vault.Mark{Backup: c.ID, Table: c.Table, At: s.Now().UTC(), Command: Version, Reason: c.reason}
	if _, err := s.Repo.decide(ctx, c.Mark(), m); err != nil {
		return refusal(err)
	}
	s.Log.Info("marked", "backup", c.ID, "table", c.Table.String(), "reason", c.reason)
	return nil
}

// delete deletes a backup: its mark that it was begun, so that no planner goes on
// with it; the manifest; the records of a copy, which vouch for objects; the plan,
// without which nothing can be sealed; then everything else. A failure ends it
// there, so that nothing goes before what has to go first.
func (s *pruning) delete(ctx context.Context, c *candidate) error {
	var m vault.Mark
	_, err := s.Repo.read(ctx, c.Mark(), &m)
	if errors.Is(err, fs.ErrNotExist) {
		c.action, c.reason = PruneKeep, "its mark is gone: it was taken back, or another run has come to the end"
		return nil
	}
	if err != nil {
		return err
	}
	if m.Backup != c.ID || m.Table != c.Table {
		return fmt.Errorf("%w: %s is the mark of %s of %s", vault.ErrCorrupt, c.Mark(), m.Backup, m.Table.Path())
	}
	c.objects, c.bytes = 0, 0
	if c.stale {
		if err := s.Repo.store.Delete(ctx, c.Gone()); err != nil {
			return fmt.Errorf("delete %s: %w", c.Gone(), refusal(err))
		}
	}
	for _, name := range []string{vault.Opened(c.Table, c.ID), c.Manifest(), vault.SignatureName(c.Manifest())} {
		if err := s.remove(ctx, c, name); err != nil {
			return err
		}
	}
	if err := s.removeAll(ctx, c, c.Copies()); err != nil {
		return err
	}
	if err := s.remove(ctx, c, c.Plan()); err != nil {
		return err
	}
	for _, prefix := range []string{c.Dir(), c.CopyNotes(), c.Copyings()} {
		if err := s.removeAll(ctx, c, prefix); err != nil {
			return err
		}
	}
	left, err := s.left(ctx, c)
	if err != nil {
		return err
	}
	if left != "" {
		return fmt.Errorf("%s has come meanwhile: the next run deletes it", left)
	}
	s.Log.Info("deleted", "backup", c.ID, "table", c.Table.String(), "objects", c.objects, "bytes", c.bytes)
	return s.Repo.mark(ctx, c.Gone())
}

// remove deletes an object of a backup, if there is one.
func (s *pruning) remove(ctx context.Context, c *candidate, name string) error {
	info, err := object.Stat(ctx, s.Repo.store, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = s.Repo.store.Delete(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, refusal(err))
	}
	c.objects++
	c.bytes += info.Size
	return nil
}

// removeAll deletes the objects of a backup under a prefix.
func (s *pruning) removeAll(ctx context.Context, c *candidate, prefix string) error {
	work, wctx := errgroup.WithContext(ctx)
	work.SetLimit(deletesInFlight)
	deleted := make(chan object.Info)
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		for info := range deleted {
			c.objects++
			c.bytes += info.Size
		}
	}()
	listed := func() error {
		for info, err := range s.Repo.store.List(wctx, prefix, "") {
			if err != nil {
				return fmt.Errorf("list %s: %w", prefix, err)
			}
			if err := s.over(); err != nil {
				return err
			}
			work.Go(func() error {
				if err := s.Repo.store.Delete(wctx, info.Name); err != nil {
					return fmt.Errorf("delete %s: %w", info.Name, refusal(err))
				}
				deleted <- info
				return nil
			})
		}
		return nil
	}()
	err := work.Wait()
	close(deleted)
	<-counted
	return cmp.Or(err, listed)
}

// left names an object of a backup that is there, if one is.
func (s *pruning) left(ctx context.Context, c *candidate) (string, error) {
	for _, prefix := range []string{c.Dir(), c.Copies(), c.CopyNotes(), c.Copyings()} {
		for info, err := range s.Repo.store.List(ctx, prefix, "") {
			if err != nil {
				return "", fmt.Errorf("list %s: %w", prefix, err)
			}
			return info.Name, nil
		}
	}
	return "", nil
}

// forget deletes what has come since all of a backup was gone, and where nothing
// has, and cannot any more, the mark. What says since when nothing is left goes
// first, so that it never stands without the mark.
func (s *pruning) forget(ctx context.Context, c *candidate) error {
	left, err := s.left(ctx, c)
	if err != nil {
		return err
	}
	if left != "" {
		c.action, c.reason = PruneDelete, "something was written since it was deleted"
		return s.delete(ctx, c)
	}
	if c.action != PruneForget {
		return nil
	}
	for _, name := range []string{c.Gone(), c.Mark()} {
		err := s.Repo.store.Delete(ctx, name)
		if errors.Is(err, fs.ErrPermission) {
			// In a bucket that keeps all objects for a time, it keeps marks for longer
			// than what they were about.
			c.action, c.reason = PruneWait, fmt.Sprintf("nothing of it is left, and the store keeps its mark: %v", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	s.Log.Info("forgotten", "backup", c.ID, "table", c.Table.String())
	return nil
}

// refusal adds to a store's refusal what to do about it.
func refusal(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; if the bucket keeps it for a time (retention policy, Object Lock), run prune again after that, and else give this key what docs/ram/prune.json allows", err)
	}
	return err
}

// measure counts what those that would be deleted hold.
func (s *pruning) measure(ctx context.Context) error {
	for _, l := range s.lines {
		for _, c := range l.backups {
			if c.action != PruneDelete {
				continue
			}
			for _, prefix := range []string{c.Dir(), c.Copies(), c.CopyNotes(), c.Copyings()} {
				for info, err := range s.Repo.store.List(ctx, prefix, "") {
					if err != nil {
						return fmt.Errorf("list %s: %w", prefix, err)
					}
					c.objects++
					c.bytes += info.Size
				}
			}
			for _, info := range []*object.Info{c.opened, c.ended} {
				if info != nil {
					c.objects++
					c.bytes += info.Size
				}
			}
		}
	}
	return nil
}

// reply tells what was found and done.
func (s *pruning) reply() *Pruned {
	r := &Pruned{Apply: s.apply, At: s.at.UTC(), Grace: s.Grace.String(), Tables: []PrunedTable{}, Failures: s.failures}
	for _, l := range s.lines {
		t := PrunedTable{Table: l.table.Path(), Untouched: l.untouched, Backups: []PrunedBackup{}}
		if s.Keep > 0 {
			t.Keep = policy.Keep{For: s.Keep}.String()
		} else {
			var keeps []string
			for _, rule := range l.rules {
				if k := rule.Keep.String(); !slices.Contains(keeps, k) {
					keeps = append(keeps, k)
				}
			}
			t.Keep = strings.Join(keeps, "; ")
		}
		for _, c := range l.backups {
			b := PrunedBackup{Backup: c.ID, State: c.state(), Action: c.action, Done: c.done, Reason: c.reason, Objects: c.objects, Bytes: c.bytes}
			if c.sealed() {
				b.RecoveryPoint = c.point().UTC()
			}
			if c.sealed() && c.action != PruneDelete {
				b.Objects, b.Bytes = c.manifest.Totals.Objects, c.manifest.Totals.StoredBytes
			}
			if c.mark != nil {
				b.Marked = c.mark.Modified.UTC()
			}
			if c.err != nil {
				b.Error = c.err.Error()
			}
			switch did := !s.apply || c.done; {
			case c.action == PruneMark && did:
				r.Marked.add(b.Bytes)
			case c.action == PruneDelete && did:
				r.Deleted.add(b.Bytes)
			}
			t.Backups = append(t.Backups, b)
		}
		r.Tables = append(r.Tables, t)
	}
	return r
}

func (s *PruneSum) add(bytes int64) {
	s.Backups++
	s.Bytes += bytes
}

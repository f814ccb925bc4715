package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// candidate is a backup with all that is known of it.
type candidate struct {
	vault.Backup
	opened   *object.Info
	ended    *object.Info    // the manifest as an object; nil without one
	manifest *vault.Manifest // nil unless it was read
	copied   map[string]bool // whether notes say so that are about it, by the keys of destinations
	unnoted  error           // what is wrong with a note
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

// prefixes begin the names of all that belongs to a backup but the manifest and the
// mark that it was begun.
func (c *candidate) prefixes() []string {
	return slices.Concat([]string{c.Plan(), c.Copies()}, c.folders())
}

// folders are those of them that go last, and in no order.
func (c *candidate) folders() []string {
	return append(c.Folders(), c.CopyNotes(), c.Copyings())
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
func (c *candidate) point() time.Time { return c.manifest.RecoveryPoint() }

// newest is the latest instant that is recorded of a sealed backup, from which its
// age counts. A name that tells an instant which is still to come does not.
func (c *candidate) newest(now time.Time) time.Time {
	at := c.point()
	for _, t := range []time.Time{c.manifest.Sealed, c.ID.Time()} {
		if t.After(at) && !t.After(now.Add(vault.MaxAhead)) {
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
	for info, err := range s.Repo.Store().List(ctx, vault.MarkPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.MarkPrefix, err)
		}
		b, gone, ok := vault.ParseMark(info.Name)
		switch {
		case ok && gone:
			of(b).gone = &info
		case ok:
			of(b).mark = &info
		}
	}
	for info, err := range s.Repo.Store().List(ctx, vault.OpenedPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.OpenedPrefix, err)
		}
		if t, id, ok := vault.ParseOpened(info.Name); ok {
			of(vault.Backup{Table: t, ID: id}).opened = &info
		}
	}
	for info, err := range s.Repo.Store().List(ctx, vault.ManifestPrefix, "") {
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
	s.wanted, s.noted, s.copying = map[string]string{}, map[string]bool{}, map[vault.Backup]map[string]time.Time{}
	if s.Policy != nil {
		for _, d := range s.Policy.Destinations() {
			s.wanted[d.Key()] = place.Plain(d.To)
		}
	}
	for info, err := range s.Repo.Store().List(ctx, vault.CopyNotesPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.CopyNotesPrefix, err)
		}
		s.noted[info.Name] = true
	}
	for info, err := range s.Repo.Store().List(ctx, vault.CopyingPrefix, "") {
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
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(repository.StatsInFlight)
	for _, c := range l.backups {
		work.Go(func() error {
			switch {
			case c.ended != nil:
				var named vault.Object
				c.manifest, named, c.err = s.Repo.Manifest(wctx, c.Backup)
				if c.err == nil {
					c.parent = c.manifest.Parent
					s.readNotes(wctx, c, named)
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

// young says whether a sealed backup is not older than what is kept.
func (s *pruning) young(c *candidate) bool { return !c.newest(s.at).Before(s.at.Add(-c.keep.For)) }

// readNotes reads the notes that stand between a backup whose time is over and its
// deletion, and believes those that are about it and about the policy's address. What
// can't be read is as if it were not there.
func (s *pruning) readNotes(ctx context.Context, c *candidate, named vault.Object) {
	c.copied = map[string]bool{}
	if c.rule == nil || !c.sealed() || c.keep.For == 0 || s.young(c) {
		return // it stays in any case
	}
	for _, d := range c.rule.Destinations {
		key := d.Key()
		if !s.noted[c.CopyNote(key)] {
			continue
		}
		var n vault.CopyNote
		_, err := s.Repo.Read(ctx, c.CopyNote(key), &n)
		if err == nil && n.Manifest != named.SHA256 {
			err = fmt.Errorf("%w: %s is about another manifest, with the sha256 %s", vault.ErrCorrupt, c.CopyNote(key), n.Manifest)
		}
		if err != nil {
			c.unnoted = err
			continue
		}
		c.copied[key] = true
	}
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
		if c.rule != nil && !c.ID.Ahead(s.at) {
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
	for _, c := range newestFirst(l.backups) {
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
// at, the one with the newest, which a restore takes. Those that are marked count
// only where there is no other.
func hold(l *prunedLine, at time.Time, why string) {
	for _, marked := range []bool{false, true} {
		var newest *candidate
		for _, c := range l.backups {
			if !c.sealed() || (c.mark != nil) != marked || c.gone != nil || !at.IsZero() && c.point().After(at) {
				continue
			}
			// Of those of one instant the last by name is taken.
			if newest == nil || !c.point().Before(newest.point()) {
				newest = c
			}
		}
		if newest != nil {
			newest.keeping("%s", why)
			return
		}
	}
}

// newestFirst are backups in the order of their recovery points, or of their names
// where there is none.
func newestFirst(all []*candidate) []*candidate {
	instant := func(c *candidate) time.Time {
		if c.sealed() {
			return c.point()
		}
		return c.ID.Time()
	}
	return slices.SortedStableFunc(slices.Values(all), func(a, b *candidate) int {
		return cmp.Or(instant(b).Compare(instant(a)), strings.Compare(string(b.ID), string(a.ID)))
	})
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
	case c.sealed() && s.young(c):
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
	if c.rule != nil {
		for _, d := range c.rule.Destinations {
			switch to := place.Plain(d.To); {
			case c.copied[d.Key()]:
			case c.unnoted != nil:
				c.keeping("not known to be copied to %s: %v; look who wrote that, delete it, and `tablevault copy %s --to %s` compares and notes the copy", to, c.unnoted, c.ID, d.Name)
			default:
				c.keeping("not copied to %s yet: `tablevault copy %s --to %s` copies it", to, c.ID, d.Name)
			}
		}
	}
	for key, newest := range s.copying[c.Backup] {
		if to, ours := s.wanted[key]; !s.noted[c.CopyNote(key)] && (ours || s.store.Sub(newest) < s.settle()) {
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
			return Keep, c.why
		}
		return Mark, due
	}
	whole := c.ended != nil && c.gone == nil
	if !whole {
		due = "its deletion was begun"
	}
	_, leased := s.leases[c.Backup]
	switch {
	case whole && c.why != "":
		return Keep, c.why + "; it is marked, and no recovery point"
	case leased:
		return Wait, c.why
	case s.store.Sub(c.mark.Modified) < s.Grace:
		return Wait, due + "; it goes from " + c.mark.Modified.Add(s.Grace).UTC().Format(time.RFC3339) + " on"
	case c.gone == nil || c.ended != nil || c.opened != nil:
		return Delete, due
	case c.last:
		return Wait, c.why
	case s.store.Sub(c.gone.Modified) < s.settle():
		return Wait, "nothing of it is left; its mark stays until " + c.gone.Modified.Add(s.settle()).UTC().Format(time.RFC3339)
	}
	return Forget, "nothing of it has been left for long"
}

// due says whether there is anything to be done.
func (s *pruning) due() bool {
	for _, l := range s.lines {
		for _, c := range l.backups {
			if c.action == Mark || c.action == Delete || c.action == Forget || c.gone != nil {
				return true
			}
		}
	}
	return false
}

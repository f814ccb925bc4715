package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
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

// findings are what a run has found in the vault. Nothing changes them once they are
// whole.
type findings struct {
	at       time.Time // when the run began to look, by the clock here
	tables   []*foundTable
	leases   map[vault.Backup]vault.RestoreID      // the restores that have not ended, by the backups that they use
	wanted   map[string]string                     // the policy's replicas, by their keys
	noted    map[string]bool                       // copies that are complete, by the names of their notes
	copying  map[vault.Backup]map[string]time.Time // newest word about a copy, by replica
	failures []string                              // what could not be read
}

// foundTable is a table with the rules that are about it and its backups, oldest first.
type foundTable struct {
	id        vault.TableID
	rules     []*policy.Rule
	untouched string // why nothing of it goes; empty if something may
	backups   []*found
}

// found is what the vault has of a backup.
type found struct {
	vault.Backup
	opened   *object.Info
	ended    *object.Info // the manifest as an object; nil without one
	mark     *object.Info
	gone     *object.Info // what says that nothing is left
	stale    bool         // there is one of those that belongs to an earlier mark
	rule     *policy.Rule // the rule that has made it, if one has
	keep     policy.Keep
	manifest *vault.Manifest // nil unless it was read
	parent   *vault.Parent   // of a sealed or of an open backup
	copied   map[string]bool // whether notes say so that are about it, by the keys of replicas
	unnoted  error           // what is wrong with a note
	unread   error           // why it is not known what it needs
}

// prefixes begin the names of all that belongs to a backup but the manifest and the mark
// that it was begun.
func (b *found) prefixes() []string {
	return slices.Concat([]string{b.Plan(), b.Copies()}, b.folders())
}

// folders are those of them that go last, and in no order.
func (b *found) folders() []string {
	return append(b.Folders(), b.CopyNotes(), b.Copyings())
}

func (b *found) sealed() bool { return b.manifest != nil && b.manifest.State == vault.Sealed }

func (b *found) void() bool { return b.manifest != nil && b.manifest.State == vault.Void }

func (b *found) state() string {
	switch {
	case b.ended != nil && b.manifest != nil:
		return string(b.manifest.State)
	case b.ended != nil:
		return "ended"
	case b.opened != nil && b.mark == nil:
		return "open"
	}
	return "gone"
}

// point is a sealed backup's recovery point.
func (b *found) point() time.Time { return b.manifest.RecoveryPoint() }

// newest is the latest instant that is recorded of a sealed backup, from which its age
// counts. A name that tells an instant which is still to come does not.
func (b *found) newest(now time.Time) time.Time {
	at := b.point()
	for _, t := range []time.Time{b.manifest.Sealed, b.ID.Time()} {
		if t.After(at) && !t.After(now.Add(vault.MaxAhead)) {
			at = t
		}
	}
	return at
}

// young says whether a sealed backup is not older than what is kept.
func (b *found) young(now time.Time) bool { return !b.newest(now).Before(now.Add(-b.keep.For)) }

// backups yields all that were found, by their tables, oldest first.
func (f *findings) backups() iter.Seq[*found] {
	return func(yield func(*found) bool) {
		for _, t := range f.tables {
			for _, b := range t.backups {
				if !yield(b) {
					return
				}
			}
		}
	}
}

// leased says whether a restore uses a backup that has not ended.
func (f *findings) leased(b *found) bool {
	_, leased := f.leases[b.Backup]
	return leased
}

// find reads the vault. Marks come first: whatever claims a backup that has one is found
// after it.
func (p *Pruner) find(ctx context.Context) (*findings, error) {
	f := &findings{at: p.Now()}
	all, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	f.tables = p.sort(all)
	if f.leases, err = p.findLeases(ctx); err != nil {
		return nil, err
	}
	if err := p.findCopies(ctx, f); err != nil {
		return nil, err
	}
	for _, t := range f.tables {
		if t.untouched == "" {
			if err := p.readTable(ctx, f, t); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

// list finds the backups by the names of what stands for them.
func (p *Pruner) list(ctx context.Context) (map[vault.Backup]*found, error) {
	all := map[vault.Backup]*found{}
	of := func(b vault.Backup) *found {
		if all[b] == nil {
			all[b] = &found{Backup: b}
		}
		return all[b]
	}
	for _, kind := range []struct {
		prefix string
		put    func(object.Info)
	}{
		{vault.MarkPrefix, func(info object.Info) {
			switch b, gone, ok := vault.ParseMark(info.Name); {
			case ok && gone:
				of(b).gone = &info
			case ok:
				of(b).mark = &info
			}
		}},
		{vault.OpenedPrefix, func(info object.Info) {
			if b, ok := vault.ParseOpened(info.Name); ok {
				of(b).opened = &info
			}
		}},
		{vault.ManifestPrefix, func(info object.Info) {
			if b, ok := vault.ParseManifestName(info.Name); ok {
				of(b).ended = &info
			}
		}},
	} {
		if err := p.each(ctx, kind.prefix, kind.put); err != nil {
			return nil, err
		}
	}
	for id, b := range all {
		// Without the mark that it belongs to, or from before it, it says nothing.
		if b.gone != nil && (b.mark == nil || !b.gone.Modified.After(b.mark.Modified)) {
			b.gone, b.stale = nil, true
		}
		if b.mark == nil && b.opened == nil && b.ended == nil {
			delete(all, id)
		}
	}
	return all, nil
}

// each lists the objects under a prefix.
func (p *Pruner) each(ctx context.Context, prefix string, do func(object.Info)) error {
	for info, err := range p.Repo.Store().List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		do(info)
	}
	return nil
}

// sort puts backups together by their tables, and finds out which rules they are under.
func (p *Pruner) sort(all map[vault.Backup]*found) (tables []*foundTable) {
	for _, id := range slices.SortedFunc(maps.Keys(all), func(a, b vault.Backup) int {
		return cmp.Or(strings.Compare(a.Table.Path(), b.Table.Path()), strings.Compare(string(a.ID), string(b.ID)))
	}) {
		// Another region may have an instance of the same name.
		if len(p.Tables) > 0 && (id.Table.Region != p.Region || !(&policy.Rule{Tables: p.Tables}).Match(id.Table.Instance, id.Table.Table)) {
			continue
		}
		if len(tables) == 0 || tables[len(tables)-1].id != id.Table {
			tables = append(tables, p.tableOf(id.Table))
		}
		t, b := tables[len(tables)-1], all[id]
		b.rule, b.keep = p.keepOf(t, id)
		t.backups = append(t.backups, b)
	}
	return tables
}

// tableOf is a table, with the rules that are about it.
func (p *Pruner) tableOf(id vault.TableID) *foundTable {
	t := &foundTable{id: id}
	keeps := p.Keep > 0
	if p.Policy != nil && id.Region == p.Region {
		for _, r := range p.Policy.Rules {
			if r.Match(id.Instance, id.Table) {
				t.rules = append(t.rules, r)
				keeps = keeps || r.Keep.For > 0
			}
		}
	}
	switch {
	case keeps:
	case len(t.rules) == 0:
		t.untouched = "no rule of the policy is about this table: all of its backups are kept"
	default:
		t.untouched = "the policy keeps all of its backups for ever"
	}
	return t
}

// keepOf is the rule that has made a backup, nil if none has, and for how long it is
// kept: as that rule says, or, without one, as the most generous of the rules about its
// table does.
func (p *Pruner) keepOf(t *foundTable, b vault.Backup) (made *policy.Rule, keep policy.Keep) {
	for _, r := range t.rules {
		if r.Made(p.Region, b) {
			made, keep = r, r.Keep
			break
		}
	}
	if made == nil {
		for i, r := range t.rules {
			keep.AtLeast = max(keep.AtLeast, r.Keep.AtLeast)
			if i == 0 || r.Keep.For == 0 {
				keep.For = r.Keep.For
			} else if keep.For > 0 {
				keep.For = max(keep.For, r.Keep.For)
			}
		}
	}
	if p.Keep > 0 {
		keep.For = p.Keep
	}
	return made, keep
}

// findLeases finds out which backups open restores use.
func (p *Pruner) findLeases(ctx context.Context) (map[vault.Backup]vault.RestoreID, error) {
	leases := map[vault.Backup]vault.RestoreID{}
	for id, err := range p.Repo.Restoring(ctx) {
		if err != nil {
			return nil, err
		}
		plan, err := p.Repo.RestorePlan(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("find out which backup restore %s uses, which has not ended: %w; nothing is deleted before that is known", id, err)
		}
		leases[vault.Backup{Table: plan.Source, ID: plan.Backup}] = id
	}
	return leases, nil
}

// findCopies finds out which copies are complete, and which are being made.
func (p *Pruner) findCopies(ctx context.Context, f *findings) error {
	f.wanted, f.noted, f.copying = map[string]string{}, map[string]bool{}, map[vault.Backup]map[string]time.Time{}
	if p.Policy != nil {
		for _, d := range p.Policy.Replicas() {
			f.wanted[d.Key()] = place.Plain(d.To)
		}
	}
	if err := p.each(ctx, vault.CopyNotesPrefix, func(info object.Info) { f.noted[info.Name] = true }); err != nil {
		return err
	}
	return p.each(ctx, vault.CopyingPrefix, func(info object.Info) {
		b, key, ok := vault.ParseCopying(info.Name)
		if !ok {
			return
		}
		if f.copying[b] == nil {
			f.copying[b] = map[string]time.Time{}
		}
		if info.Modified.After(f.copying[b][key]) {
			f.copying[b][key] = info.Modified
		}
	})
}

// readTable reads the manifests of a table, and of what is open the plans. If one can't
// be read, nothing of the table goes: it might say that another is needed.
func (p *Pruner) readTable(ctx context.Context, f *findings, t *foundTable) error {
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(repository.StatsInFlight)
	for _, b := range t.backups {
		work.Go(func() error {
			p.read(wctx, f, b)
			return wctx.Err()
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for _, b := range t.backups {
		if b.unread != nil {
			t.untouched = fmt.Sprintf("backup %s can't be read, so that what it needs is not known: nothing of the table goes", b.ID)
			f.failures = append(f.failures, fmt.Sprintf("%s: %v; nothing of the table goes before that is mended", t.id, b.unread))
		}
	}
	return nil
}

// read reads what says which backup another one needs: the manifest, or the plan of one
// that is open.
func (p *Pruner) read(ctx context.Context, f *findings, b *found) {
	switch {
	case b.ended != nil:
		m, named, err := p.Repo.Manifest(ctx, b.Backup)
		if errors.Is(err, fs.ErrNotExist) && b.mark != nil {
			b.ended = nil // another run was faster
			return
		}
		if b.manifest, b.unread = m, err; err == nil {
			b.parent = m.Parent
			p.readNotes(ctx, f, b, named)
		}
	case b.opened != nil && b.mark == nil:
		plan, _, err := p.Repo.Plan(ctx, b.Backup)
		switch {
		case err == nil:
			b.parent = plan.Parent
		case !errors.Is(err, fs.ErrNotExist): // else whoever marked it died before it planned
			b.unread = err
		}
	}
}

// readNotes reads the notes that stand between a backup whose time is over and its
// deletion, and believes those that are about it and about the policy's address. What
// can't be read is as if it were not there.
func (p *Pruner) readNotes(ctx context.Context, f *findings, b *found, named vault.Object) {
	b.copied = map[string]bool{}
	if b.rule == nil || !b.sealed() || b.keep.For == 0 || b.young(f.at) {
		return // it stays in any case
	}
	for _, d := range b.rule.Replicas {
		key := d.Key()
		if !f.noted[b.CopyNote(key)] {
			continue
		}
		var n vault.CopyNote
		_, err := p.Repo.Read(ctx, b.CopyNote(key), &n)
		if err == nil && n.Manifest != named.SHA256 {
			err = fmt.Errorf("%w: %s is about another manifest, with the sha256 %s", vault.ErrCorrupt, b.CopyNote(key), n.Manifest)
		}
		if err != nil {
			b.unnoted = err
			continue
		}
		b.copied[key] = true
	}
}

package prune

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/vault"
)

// verdict is what is to be done with a backup, and why.
type verdict struct {
	action Action
	reason string
}

// judge finds out for each backup what is to be done, at an instant of the store's clock.
func (p *Pruner) judge(f *findings, store time.Time) map[vault.Backup]verdict {
	verdicts := map[vault.Backup]verdict{}
	for _, t := range f.tables {
		j := &judging{p: p, f: f, store: store, table: t, why: map[vault.BackupID]string{}, last: map[vault.BackupID]bool{}}
		j.hold()
		for _, b := range t.backups {
			verdicts[b.Backup] = j.verdict(b)
		}
	}
	return verdicts
}

// judging is what is known of a table's backups while they are judged.
type judging struct {
	p     *Pruner
	f     *findings
	store time.Time // the instant, by the store's clock
	table *foundTable
	why   map[vault.BackupID]string // why those stay that do
	last  map[vault.BackupID]bool   // those that are the newest that a rule has begun
}

// keeping says why a backup stays, unless it does for another reason already.
func (j *judging) keeping(b *found, format string, args ...any) {
	if j.why[b.ID] == "" {
		j.why[b.ID] = fmt.Sprintf(format, args...)
	}
}

// hold says of each backup of the table why it stays, if it does.
func (j *judging) hold() {
	if j.table.untouched != "" {
		for _, b := range j.table.backups {
			j.keeping(b, "%s", j.table.untouched)
		}
		return
	}
	newestOf := map[*policy.Rule]vault.BackupID{}
	for _, b := range j.table.backups {
		if b.rule != nil && !b.ID.Ahead(j.f.at) {
			newestOf[b.rule] = max(newestOf[b.rule], b.ID)
		}
	}
	for _, id := range newestOf {
		j.last[id] = true
	}
	// The newest, and the newest where what is kept begins, so that each instant
	// from there on can be restored.
	j.holdNewest(time.Time{}, "the newest recovery point of the table")
	cutoffs := map[time.Duration]bool{}
	for _, b := range j.table.backups {
		if d := b.keep.For; d > 0 && !cutoffs[d] {
			cutoffs[d] = true
			j.holdNewest(j.f.at.Add(-d), fmt.Sprintf("the newest where the last %s begin", policy.Keep{For: d}))
		}
	}
	ranks := map[*policy.Rule]int{}
	for _, b := range newestFirst(j.table.backups) {
		if b.sealed() && b.mark == nil {
			// Those of a rule count among themselves, others among all.
			if ranks[b.rule] < b.keep.AtLeast {
				j.keeping(b, "one of the newest %d, which stay in any case", b.keep.AtLeast)
			}
			ranks[nil]++
			if b.rule != nil {
				ranks[b.rule]++
			}
		}
		j.holdOne(b)
	}
	j.holdParents()
}

// holdNewest keeps, of the sealed backups of the table whose recovery point is not after
// at, the one with the newest, which a restore takes. Those that are marked count only
// where there is no other.
func (j *judging) holdNewest(at time.Time, why string) {
	for _, marked := range []bool{false, true} {
		var newest *found
		for _, b := range j.table.backups {
			if !b.sealed() || (b.mark != nil) != marked || b.gone != nil || !at.IsZero() && b.point().After(at) {
				continue
			}
			// Of those of one instant the last by name is taken.
			if newest == nil || !b.point().Before(newest.point()) {
				newest = b
			}
		}
		if newest != nil {
			j.keeping(newest, "%s", why)
			return
		}
	}
}

// newestFirst are backups in the order of their recovery points, or of their names where
// there is none.
func newestFirst(all []*found) []*found {
	instant := func(b *found) time.Time {
		if b.sealed() {
			return b.point()
		}
		return b.ID.Time()
	}
	return slices.SortedStableFunc(slices.Values(all), func(a, b *found) int {
		return cmp.Or(instant(b).Compare(instant(a)), strings.Compare(string(b.ID), string(a.ID)))
	})
}

// holdOne says why a backup stays for a reason of its own.
func (j *judging) holdOne(b *found) {
	if b.ended == nil && b.mark == nil {
		j.keeping(b, "it has not ended")
		return
	}
	switch {
	case b.keep.For == 0:
		j.keeping(b, "kept for ever")
	case b.sealed() && b.young(j.f.at):
		j.keeping(b, "not older than %s", policy.Keep{For: b.keep.For})
	case b.void() && j.store.Sub(b.ended.Modified) < j.p.settle():
		j.keeping(b, "given up, and what was under way may still write")
	}
	if id, ok := j.f.leases[b.Backup]; ok {
		j.keeping(b, "restore %s, which has not ended, uses it", id)
	}
	// The planner finds in the names of backups how far a rule has come.
	if j.last[b.ID] {
		j.keeping(b, "the newest that the rule %s has begun: without it the planner would begin it again", b.rule.Name)
	}
	if b.sealed() {
		j.holdCopied(b)
	}
}

// holdCopied keeps a backup that is being copied, or is still to be.
func (j *judging) holdCopied(b *found) {
	if b.rule != nil {
		for _, d := range b.rule.Replicas {
			switch to := place.Plain(d.To); {
			case b.copied[d.Key()]:
			case b.unnoted != nil:
				j.keeping(b, "not known to be copied to %s: %v; look who wrote that, delete it, and `tablevault copy %s --to %s` compares and notes the copy", to, b.unnoted, b.ID, d.Name)
			default:
				j.keeping(b, "not copied to %s yet: `tablevault copy %s --to %s` copies it", to, b.ID, d.Name)
			}
		}
	}
	for key, newest := range j.f.copying[b.Backup] {
		if to, ours := j.f.wanted[key]; !j.f.noted[b.CopyNote(key)] && (ours || j.store.Sub(newest) < j.p.settle()) {
			j.keeping(b, "being copied to %s", cmp.Or(to, key))
		}
	}
}

// holdParents keeps what those need that are kept: the parent, and that one's, and so on.
func (j *judging) holdParents() {
	for more := true; more; {
		more = false
		for _, b := range j.table.backups {
			if j.why[b.ID] == "" || b.parent == nil {
				continue
			}
			for _, o := range j.table.backups {
				if o.ID == b.parent.Backup && j.why[o.ID] == "" {
					j.keeping(o, "the parent of %s, which is kept", b.ID)
					more = true
				}
			}
		}
	}
}

// verdict is what is to be done with a backup.
func (j *judging) verdict(b *found) verdict {
	due, why := "older than "+policy.Keep{For: b.keep.For}.String(), j.why[b.ID]
	if b.void() {
		due = "given up"
	}
	if b.mark == nil {
		if why != "" {
			return verdict{Keep, why}
		}
		return verdict{Mark, due}
	}
	whole := b.ended != nil && b.gone == nil
	if !whole {
		due = "its deletion was begun"
	}
	switch {
	case whole && why != "":
		return verdict{Keep, why + "; it is marked, and no recovery point"}
	case j.f.leased(b):
		return verdict{Wait, why}
	case j.store.Sub(b.mark.Modified) < j.p.Grace:
		return verdict{Wait, due + "; it goes from " + b.mark.Modified.Add(j.p.Grace).UTC().Format(time.RFC3339) + " on"}
	case b.gone == nil || b.ended != nil || b.opened != nil:
		return verdict{Delete, due}
	case j.last[b.ID]:
		return verdict{Wait, why}
	case j.store.Sub(b.gone.Modified) < j.p.settle():
		return verdict{Wait, "nothing of it is left; its mark stays until " + b.gone.Modified.Add(j.p.settle()).UTC().Format(time.RFC3339)}
	}
	return verdict{Forget, "nothing of it has been left for long"}
}

// due says whether there is anything to be done.
func due(f *findings, verdicts map[vault.Backup]verdict) bool {
	for b := range f.backups() {
		if a := verdicts[b.Backup].action; a == Mark || a == Delete || a == Forget || b.gone != nil {
			return true
		}
	}
	return false
}

package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// clock asks the store for its date, by an object of its own, and compares it with the
// clock here.
func (p *Pruner) clock(ctx context.Context) (time.Time, error) {
	name := vault.ClockPrefix + repository.RandomName()
	before := p.Now()
	if _, err := p.Repo.Store().Create(ctx, name, strings.NewReader("")); err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its date: %w", refusal(err))
	}
	info, err := object.Stat(ctx, p.Repo.Store(), name)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its date: %w", err)
	}
	after := p.Now()
	if err := p.removeClocks(ctx, info); err != nil {
		return time.Time{}, err
	}
	if at := info.Modified; at.Before(before.Add(-maxSkew)) || at.After(after.Add(maxSkew)) {
		return time.Time{}, fmt.Errorf("the clock of this machine says %s, and the store's says %s: set this machine's clock; nothing is marked or deleted while they are more than %s apart",
			after.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339), maxSkew)
	}
	return info.Modified, nil
}

// removeClocks removes the object that told the date, and those of runs that are over.
// Where the bucket keeps them for a time, a later run does.
func (p *Pruner) removeClocks(ctx context.Context, mine object.Info) error {
	return p.each(ctx, vault.ClockPrefix, func(info object.Info) {
		if info.Name != mine.Name && mine.Modified.Sub(info.Modified) < maxPrune {
			return
		}
		if err := p.Repo.Store().Delete(ctx, info.Name); err != nil {
			p.Log.Warn("leave what told the store's date", "object", info.Name, "error", err)
		}
	})
}

// outcome is what has become of a backup.
type outcome struct {
	verdict              // what it came to, which may be another than was thought
	done           bool  // it was carried out
	objects, bytes int64 // what was deleted, or would be
	err            error
}

func (o *outcome) count(info object.Info) {
	o.objects++
	o.bytes += info.Size
}

// execution carries verdicts out.
type execution struct {
	p        *Pruner
	f        *findings
	verdicts map[vault.Backup]verdict
	outcomes map[vault.Backup]outcome // of those with which anything was done
	failures []string
}

// outcome is what has become of a backup: nothing, where nothing was done with it.
func (x *execution) outcome(b *found) outcome {
	if o, ok := x.outcomes[b.Backup]; ok {
		return o
	}
	return outcome{verdict: x.verdicts[b.Backup]}
}

// measure counts what those hold that would be deleted.
func (x *execution) measure(ctx context.Context) error {
	for b := range x.f.backups() {
		o := x.outcome(b)
		if o.action != Delete {
			continue
		}
		for _, prefix := range b.prefixes() {
			if err := x.p.each(ctx, prefix, o.count); err != nil {
				return err
			}
		}
		for _, info := range []*object.Info{b.opened, b.ended} {
			if info != nil {
				o.count(*info)
			}
		}
		x.outcomes[b.Backup] = o
	}
	return nil
}

// carryOut does what is to be done: it marks, deletes, and forgets.
func (x *execution) carryOut(ctx context.Context) error {
	for _, step := range []struct {
		action Action
		carry  func(context.Context, *found, verdict) (outcome, error)
	}{{Mark, x.mark}, {Delete, x.delete}, {Forget, x.forget}} {
		for b := range x.f.backups() {
			v := x.verdicts[b.Backup]
			if v.action != step.action && !(step.action == Forget && x.late(b, v)) {
				continue
			}
			if err := x.over(); err != nil {
				return err
			}
			o, err := step.carry(ctx, b, v)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				o.err = err
				x.failures = append(x.failures, fmt.Sprintf("%s backup %s of %s: %v", step.action, b.ID, b.Table, err))
			default:
				o.done = o.action != Wait && o.action != Keep
			}
			x.outcomes[b.Backup] = o
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// late says whether it is to be looked what has come since all of a backup was gone.
func (x *execution) late(b *found, v verdict) bool {
	return v.action == Wait && b.gone != nil && !x.f.leased(b)
}

// over is an error when the run has lasted too long.
func (x *execution) over() error {
	if x.p.Now().Sub(x.f.at) > maxPrune {
		return fmt.Errorf("the run has lasted for more than %s, and what it knows of the vault is too old: run prune again, it goes on", maxPrune)
	}
	return nil
}

// mark marks a backup, which ends its being a recovery point.
func (x *execution) mark(ctx context.Context, b *found, v verdict) (outcome, error) {
	o := outcome{verdict: v}
	m := &vault.Mark{Backup: b.ID, Table: b.Table, At: x.p.Now().UTC(), Command: vault.Program, Reason: v.reason}
	if _, err := x.p.Repo.Win(ctx, b.Mark(), m); err != nil {
		return o, refusal(err)
	}
	x.p.Log.Info("marked", "backup", b.ID, "table", b.Table.String(), "reason", v.reason)
	return o, nil
}

// delete deletes a backup: its mark that it was begun, so that no planner goes on with
// it; the manifest; the records of a copy, which vouch for objects; the plan, without
// which nothing can be sealed; then everything else. A failure ends it there, so that
// nothing goes before what has to go first.
func (x *execution) delete(ctx context.Context, b *found, v verdict) (outcome, error) {
	o := outcome{verdict: v}
	var m vault.Mark
	_, err := x.p.Repo.Read(ctx, b.Mark(), &m)
	if errors.Is(err, fs.ErrNotExist) {
		return outcome{verdict: verdict{Keep, "its mark is gone: it was taken back, or another run has come to the end"}}, nil
	}
	if err != nil {
		return o, err
	}
	if m.Backup != b.ID || m.Table != b.Table {
		return o, fmt.Errorf("%w: %s is the mark of %s of %s", vault.ErrCorrupt, b.Mark(), m.Backup, m.Table.Path())
	}
	if b.stale {
		if err := x.p.Repo.Store().Delete(ctx, b.Gone()); err != nil {
			return o, fmt.Errorf("delete %s: %w", b.Gone(), refusal(err))
		}
	}
	for _, name := range []string{vault.Opened(b.Table, b.ID), b.Manifest(), vault.SignatureName(b.Manifest())} {
		if err := x.remove(ctx, name, &o); err != nil {
			return o, err
		}
	}
	if err := x.removeAll(ctx, b.Copies(), &o); err != nil {
		return o, err
	}
	if err := x.remove(ctx, b.Plan(), &o); err != nil {
		return o, err
	}
	for _, prefix := range b.folders() {
		if err := x.removeAll(ctx, prefix, &o); err != nil {
			return o, err
		}
	}
	left, err := x.left(ctx, b)
	if err != nil {
		return o, err
	}
	if left != "" {
		return o, fmt.Errorf("%s has come meanwhile: the next run deletes it", left)
	}
	x.p.Log.Info("deleted", "backup", b.ID, "table", b.Table.String(), "objects", o.objects, "bytes", o.bytes)
	return o, x.p.Repo.Mark(ctx, b.Gone())
}

// remove deletes an object of a backup, if there is one, and counts it.
func (x *execution) remove(ctx context.Context, name string, o *outcome) error {
	info, err := object.Stat(ctx, x.p.Repo.Store(), name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = x.p.Repo.Store().Delete(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, refusal(err))
	}
	o.count(info)
	return nil
}

// removeAll deletes the objects of a backup under a prefix, and counts them.
func (x *execution) removeAll(ctx context.Context, prefix string, o *outcome) error {
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(deletesInFlight)
	var counting sync.Mutex
	listed := func() error {
		for info, err := range x.p.Repo.Store().List(wctx, prefix, "") {
			if err != nil {
				return fmt.Errorf("list %s: %w", prefix, err)
			}
			if err := x.over(); err != nil {
				return err
			}
			work.Go(func() error {
				if err := x.p.Repo.Store().Delete(wctx, info.Name); err != nil {
					return fmt.Errorf("delete %s: %w", info.Name, refusal(err))
				}
				counting.Lock()
				defer counting.Unlock()
				o.count(info)
				return nil
			})
		}
		return nil
	}()
	return cmp.Or(work.Wait(), listed)
}

// left names an object of a backup that is there, if one is.
func (x *execution) left(ctx context.Context, b *found) (string, error) {
	for _, prefix := range b.prefixes() {
		for info, err := range x.p.Repo.Store().List(ctx, prefix, "") {
			if err != nil {
				return "", fmt.Errorf("list %s: %w", prefix, err)
			}
			return info.Name, nil
		}
	}
	return "", nil
}

// forget deletes what has come since all of a backup was gone, and where nothing has, and
// cannot any more, the mark. What says since when nothing is left goes first, so that it
// never stands without the mark.
func (x *execution) forget(ctx context.Context, b *found, v verdict) (outcome, error) {
	o := outcome{verdict: v}
	left, err := x.left(ctx, b)
	if err != nil {
		return o, err
	}
	if left != "" {
		return x.delete(ctx, b, verdict{Delete, "something was written since it was deleted"})
	}
	if v.action != Forget {
		return o, nil
	}
	for _, name := range []string{b.Gone(), b.Mark()} {
		err := x.p.Repo.Store().Delete(ctx, name)
		if errors.Is(err, fs.ErrPermission) {
			// In a bucket that keeps all objects for a time, it keeps marks for longer
			// than what they were about.
			return outcome{verdict: verdict{Wait, fmt.Sprintf("nothing of it is left, and the store keeps its mark: %v", err)}}, nil
		}
		if err != nil {
			return o, fmt.Errorf("delete %s: %w", name, err)
		}
	}
	x.p.Log.Info("forgotten", "backup", b.ID, "table", b.Table.String())
	return o, nil
}

// refusal adds to a store's refusal what to do about it.
func refusal(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; if the bucket keeps it for a time (retention policy, Object Lock), run prune again after that, and else give this key what docs/ram/prune.json allows", err)
	}
	return err
}

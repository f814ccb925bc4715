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

// clock asks the store for its date, by an object of its own, and compares it with
// the clock here.
func (s *pruning) clock(ctx context.Context) error {
	name := vault.ClockPrefix + repository.RandomName()
	before := s.Now()
	if _, err := s.Repo.Store().Create(ctx, name, strings.NewReader("")); err != nil {
		return fmt.Errorf("ask the store for its date: %w", refusal(err))
	}
	info, err := object.Stat(ctx, s.Repo.Store(), name)
	if err != nil {
		return fmt.Errorf("ask the store for its date: %w", err)
	}
	after := s.Now()
	if err := s.sweepClocks(ctx, info); err != nil {
		return err
	}
	if at := info.Modified; at.Before(before.Add(-maxSkew)) || at.After(after.Add(maxSkew)) {
		return fmt.Errorf("the clock of this machine says %s, and the store's says %s: set this machine's clock; nothing is marked or deleted while they are more than %s apart",
			after.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339), maxSkew)
	}
	s.store = info.Modified
	return nil
}

// sweepClocks removes the object that told the date, and those of runs that are
// over. Where the bucket keeps them for a time, a later run does.
func (s *pruning) sweepClocks(ctx context.Context, mine object.Info) error {
	for info, err := range s.Repo.Store().List(ctx, vault.ClockPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.ClockPrefix, err)
		}
		if info.Name != mine.Name && mine.Modified.Sub(info.Modified) < maxPrune {
			continue
		}
		if err := s.Repo.Store().Delete(ctx, info.Name); err != nil {
			s.Log.Warn("leave what told the store's date", "object", info.Name, "error", err)
		}
	}
	return nil
}

// carryOut does what is to be done: it marks, deletes, and forgets.
func (s *pruning) carryOut(ctx context.Context) error {
	for _, action := range []Action{Mark, Delete, Forget} {
		for _, l := range s.lines {
			for _, c := range l.backups {
				if c.action != action && !(action == Forget && s.late(c)) {
					continue
				}
				if err := s.over(); err != nil {
					return err
				}
				var err error
				switch action {
				case Mark:
					err = s.mark(ctx, c)
				case Delete:
					err = s.delete(ctx, c)
				case Forget:
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
				c.done = c.action != Wait && c.action != Keep
			}
		}
	}
	return nil
}

// late says whether it is to be looked what has come since all of a backup was gone.
func (s *pruning) late(c *candidate) bool {
	_, leased := s.leases[c.Backup]
	return c.action == Wait && c.gone != nil && !leased
}

// over is an error when the run has lasted too long.
func (s *pruning) over() error {
	if s.Now().Sub(s.at) > maxPrune {
		return fmt.Errorf("the run has lasted for more than %s, and what it knows of the vault is too old: run prune again, it goes on", maxPrune)
	}
	return nil
}

func (s *pruning) mark(ctx context.Context, c *candidate) error {
	m := &vault.Mark{Backup: c.ID, Table: c.Table, At: s.Now().UTC(), Command: vault.Program, Reason: c.reason}
	if _, err := s.Repo.Decide(ctx, c.Mark(), m); err != nil {
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
	_, err := s.Repo.Read(ctx, c.Mark(), &m)
	if errors.Is(err, fs.ErrNotExist) {
		c.action, c.reason = Keep, "its mark is gone: it was taken back, or another run has come to the end"
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
		if err := s.Repo.Store().Delete(ctx, c.Gone()); err != nil {
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
	for _, prefix := range c.folders() {
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
	return s.Repo.Mark(ctx, c.Gone())
}

// remove deletes an object of a backup, if there is one.
func (s *pruning) remove(ctx context.Context, c *candidate, name string) error {
	info, err := object.Stat(ctx, s.Repo.Store(), name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = s.Repo.Store().Delete(ctx, name)
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
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(deletesInFlight)
	var counting sync.Mutex
	listed := func() error {
		for info, err := range s.Repo.Store().List(wctx, prefix, "") {
			if err != nil {
				return fmt.Errorf("list %s: %w", prefix, err)
			}
			if err := s.over(); err != nil {
				return err
			}
			work.Go(func() error {
				if err := s.Repo.Store().Delete(wctx, info.Name); err != nil {
					return fmt.Errorf("delete %s: %w", info.Name, refusal(err))
				}
				counting.Lock()
				defer counting.Unlock()
				c.objects++
				c.bytes += info.Size
				return nil
			})
		}
		return nil
	}()
	return cmp.Or(work.Wait(), listed)
}

// left names an object of a backup that is there, if one is.
func (s *pruning) left(ctx context.Context, c *candidate) (string, error) {
	for _, prefix := range c.prefixes() {
		for info, err := range s.Repo.Store().List(ctx, prefix, "") {
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
		c.action, c.reason = Delete, "something was written since it was deleted"
		return s.delete(ctx, c)
	}
	if c.action != Forget {
		return nil
	}
	for _, name := range []string{c.Gone(), c.Mark()} {
		err := s.Repo.Store().Delete(ctx, name)
		if errors.Is(err, fs.ErrPermission) {
			// In a bucket that keeps all objects for a time, it keeps marks for longer
			// than what they were about.
			c.action, c.reason = Wait, fmt.Sprintf("nothing of it is left, and the store keeps its mark: %v", err)
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

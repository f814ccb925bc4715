package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/tablevault/tablevault/shared/vault"
)

// RestorePlan reads the plan of a restore, once for all calls. Callers share it, and do
// not change it.
func (r *Repository) RestorePlan(ctx context.Context, id vault.RestoreID) (*vault.RestorePlan, error) {
	if p := r.restore.Load(); p != nil && p.Restore == id {
		return p, nil
	}
	var p vault.RestorePlan
	_, err := r.Read(ctx, vault.Restore{ID: id}.Plan(), &p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no restore %s in this vault: %w", id, err)
	}
	if err != nil {
		return nil, err
	}
	r.restore.Store(&p)
	return &p, nil
}

// RestoreProof reads the proof of a restore. The error matches fs.ErrNotExist while there
// is none.
func (r *Repository) RestoreProof(ctx context.Context, id vault.RestoreID) (*vault.Proof, error) {
	var p vault.Proof
	_, err := r.Read(ctx, vault.Restore{ID: id}.Proof(), &p)
	return &p, err
}

// Closed reads a restore's closing record; nil if there is none.
func (r *Repository) Closed(ctx context.Context, id vault.RestoreID) (*vault.Closed, error) {
	var c vault.Closed
	_, err := r.Read(ctx, vault.Restore{ID: id}.Closed(), &c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &c, err
}

// Made reads what a restore has noted about its target; nil if it has not made it.
func (r *Repository) Made(ctx context.Context, id vault.RestoreID) (*vault.Made, error) {
	var m vault.Made
	_, err := r.Read(ctx, vault.Restore{ID: id}.Created(), &m)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &m, err
}

// Loading yields the entries of the log of a segment's loading, from number n on. An
// entry that comes no further than the one before it is corrupt: so a log can't be longer
// than what it loads.
func (r *Repository) Loading(ctx context.Context, restore vault.Restore, s vault.SegmentID, n int) iter.Seq2[vault.Loaded, error] {
	return func(yield func(vault.Loaded, error) bool) {
		var before *vault.Loaded
		for ; ; n++ {
			var entry vault.Loaded
			_, err := r.Read(ctx, restore.Log().Slot(s, n), &entry)
			if errors.Is(err, fs.ErrNotExist) {
				return
			}
			if err == nil && before != nil && !entry.Last && cmp.Or(cmp.Compare(entry.Part, before.Part), cmp.Compare(entry.Block, before.Block)) <= 0 {
				err = fmt.Errorf("read %s: %w: block %d of part %d, after block %d of part %d", restore.Log().Slot(s, n), vault.ErrCorrupt,
					entry.Block, entry.Part, before.Block, before.Part)
			}
			if !yield(entry, err) || err != nil || entry.Last {
				return
			}
			before = &entry
		}
	}
}

// Restoring yields the restores that were begun and that no list shows as ended, in the
// order of their ids.
func (r *Repository) Restoring(ctx context.Context) iter.Seq2[vault.RestoreID, error] {
	return func(yield func(vault.RestoreID, error) bool) {
		ended := map[string]bool{}
		for info, err := range r.store.List(ctx, vault.RestoredPrefix, "") {
			if err != nil {
				yield("", fmt.Errorf("list %s: %w", vault.RestoredPrefix, err))
				return
			}
			ended[strings.TrimPrefix(info.Name, vault.RestoredPrefix)] = true
		}
		for info, err := range r.store.List(ctx, vault.RestoringPrefix, "") {
			if err != nil {
				yield("", fmt.Errorf("list %s: %w", vault.RestoringPrefix, err))
				return
			}
			name := strings.TrimPrefix(info.Name, vault.RestoringPrefix)
			id, err := vault.ParseRestoreID(name)
			if err != nil || ended[name] {
				continue
			}
			if !yield(id, nil) {
				return
			}
		}
	}
}

// RestoreOf is the restore that a request has led to, empty before it is accepted.
func (r *Repository) RestoreOf(ctx context.Context, request string) (vault.RestoreID, error) {
	var a vault.Accepted
	_, err := r.Read(ctx, vault.AcceptedName(request), &a)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return a.Restore, err
}

// Unanswered are the names of the requests that have no answer. It lists the requests,
// and then the answers, so that an answer that comes meanwhile is seen.
func (r *Repository) Unanswered(ctx context.Context) ([]string, error) {
	var open []string
	for _, prefix := range []string{vault.RequestPrefix, vault.DrillRequests} {
		for info, err := range r.store.List(ctx, prefix, "") {
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", prefix, err)
			}
			if vault.ParseRequestName(info.Name) == nil {
				open = append(open, info.Name)
			}
		}
	}
	answered := map[string]bool{}
	for info, err := range r.store.List(ctx, vault.AnswerPrefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", vault.AnswerPrefix, err)
		}
		answered[info.Name] = true
	}
	return slices.DeleteFunc(open, func(n string) bool { return answered[vault.AnswerName(n)] }), nil
}

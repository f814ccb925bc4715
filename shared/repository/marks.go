package repository

import (
	"context"
	"errors"
	"fmt"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// ErrMarked matches errors about backups that are to be deleted.
var ErrMarked = errors.New("the backup is marked for deletion, and no recovery point any more")

// CheckNotMarked returns an error matching ErrMarked if a backup is marked for deletion.
// It asks for the mark by its name, since a list may be late.
func (r *Repository) CheckNotMarked(ctx context.Context, b vault.Backup) error {
	marked, err := r.Exists(ctx, b.Mark())
	if err != nil {
		return fmt.Errorf("look whether backup %s is marked for deletion: %w", b.ID, err)
	}
	if marked {
		return fmt.Errorf("%w: %s; `tablevault list` shows those that can be restored", ErrMarked, b.ID)
	}
	return nil
}

// Marks lists the marks of a table's backups, or of all backups if t is nil.
func (r *Repository) Marks(ctx context.Context, t *vault.TableID) (map[vault.Backup]object.Info, error) {
	prefix := vault.MarkPrefix
	if t != nil {
		prefix += t.Path() + "/"
	}
	marks := map[vault.Backup]object.Info{}
	for info, err := range r.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if b, gone, ok := vault.ParseMark(info.Name); ok && !gone {
			marks[b] = info
		}
	}
	return marks, nil
}

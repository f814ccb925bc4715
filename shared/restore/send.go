package restore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
)

// target is the table that rows are written to.
type target struct {
	tables   table.Instance
	table    vault.TableID
	run      fanout.Run
	throttle *throttle.Throttle
	lease    *lease
	// updates is set when the service has refused to put several versions of a column:
	// from then on, such rows are updated at once.
	updates atomic.Bool
	// doubt is set when a batch of the start at hand may be carried out though nobody
	// waits for its answer.
	doubt atomic.Bool
}

// send sends a batch when its turn comes, and returns what the service answers, as a
// result or an error. err says why it was not sent.
func (t *target) send(ctx context.Context, batch table.Batch, turn int64, cost int) (result table.WriteResult, answer, err error) {
	// What comes first goes first: only blocks without a gap can stand in the log.
	q := throttle.Request{What: "write to " + t.table.String(), Turn: turn, Cost: cost, Ready: t.ready}
	err = t.throttle.Do(ctx, q, func(ctx context.Context, _ int) (int64, error) {
		result, answer = t.tables.Write(ctx, t.table.Table, batch)
		if result.InDoubt || answer != nil && !decided(answer) {
			t.doubt.Store(true)
		}
		return result.WriteUnits, answer
	})
	if answer != nil {
		err = nil
	}
	return result, answer, err
}

// ready says whether rows may still be written.
func (t *target) ready(ctx context.Context) error {
	if err := t.lease.pass(ctx); err != nil {
		return err
	}
	if !t.run.Until.IsZero() && t.run.Now().After(t.run.Until) {
		// Whoever closes the restore does not wait any more.
		return fmt.Errorf("write to %s: the invocation's time was over at %s", t.table, t.run.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// decided says whether a batch that failed is known to come to nothing more: the service
// refuses it, or wants fewer requests. What a result says beside that holds nevertheless.
func decided(err error) bool {
	for _, condition := range []error{table.ErrInvalid, table.ErrNotExist, table.ErrPermission, table.ErrAuth, table.ErrThrottled} {
		if errors.Is(err, condition) {
			return true
		}
	}
	return false
}

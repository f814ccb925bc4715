package restore

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
)

// How long writers go by what was seen last.
const (
	// lookAgain is for how long a restore that was seen to be open, and a slot that was
	// seen to be free, are taken to be so.
	lookAgain = time.Second
	// ownAgain is the same of the table.
	ownAgain = 10 * time.Second
)

// errObey says that another start has won the slot that this one was working for.
var errObey = errors.New("another start has won the slot")

// lease lets writers pass while the rows that they hold may be written. They go by a look
// that began not longer ago than lookAgain, and all that come when that is over wait for
// one.
type lease struct {
	repo *repository.Repository
	// closed and slot are the names of the restore's closing record, and of the slot that
	// is being worked for.
	closed, slot string
	// own says whether the table is the restore's own.
	own  func(ctx context.Context) error
	now  func() time.Time
	turn sync.Mutex // held while looking
	// owned is when the table was last seen to be the restore's own.
	owned instant

	mu   sync.Mutex
	open instant // when the last look began that found nothing in the way
}

// workFor says for which slot rows are written from now on. The next writer looks.
func (l *lease) workFor(slot string) {
	l.slot = slot
	l.shut()
}

// pass says whether rows may be written.
func (l *lease) pass(ctx context.Context) error {
	if l.isOpen() {
		return nil
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	if l.isOpen() {
		return nil // somebody else has looked meanwhile
	}
	began := at(l.now())
	if err := l.look(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = began
	return nil
}

// again says whether a batch that has failed may be sent again: not before another look,
// since it may be long ago that it could be sent, nor if another table may have come in
// the place of the restore's, of which such an answer could be the first sign.
func (l *lease) again(ctx context.Context) error {
	l.turn.Lock()
	if !l.owned.within(l.now(), lookAgain) {
		l.owned = instant{}
		l.shut()
	}
	l.turn.Unlock()
	return l.pass(ctx)
}

// look says whether rows may be written, for the slot that is being worked for, until
// lookAgain has passed since it began.
//
// It asks for the closing record: whoever gives a restore up writes nothing else that
// this worker could see. No list answers for it, since lists may be late. That it is seen
// a little late hurts nobody: the table, or its name, goes to somebody else only when
// each start that was noted before the record has come to its end, or its time has passed
// (see closing.go), and one that is noted later looks when it begins.
//
// The slot has to be asked for before the first batch for it, so that a start which was
// noted after the log's end writes nothing; then now and then, since what is written for
// a slot that another has won is the same rows once more, in vain. The table is asked for
// less often.
func (l *lease) look(ctx context.Context) error {
	for _, of := range []struct {
		name  string
		taken error
	}{{l.closed, fanout.ErrClosed}, {l.slot, errObey}} {
		if there, err := l.repo.Exists(ctx, of.name); err != nil || there {
			return cmp.Or(err, of.taken)
		}
	}
	return l.check(ctx)
}

// check compares the table with the one that the restore has made, unless that was done
// not long ago. Another one ends the restore.
func (l *lease) check(ctx context.Context) error {
	now := l.now()
	if l.owned.within(now, ownAgain) {
		return nil
	}
	if err := l.own(ctx); err != nil {
		return err
	}
	l.owned = at(now)
	return nil
}

func (l *lease) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open.within(l.now(), lookAgain)
}

// shut has the next writer look.
func (l *lease) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = instant{}
}

// instant is when something was seen. Time passes by the clock that people read as well
// as by the one that never goes back, which may stand still while a machine does.
type instant struct{ seen time.Time }

func at(t time.Time) instant { return instant{t} }

// within says whether less than d has passed since the instant, by both clocks.
func (i instant) within(now time.Time, d time.Duration) bool {
	if i.seen.IsZero() {
		return false
	}
	passed, read := now.Sub(i.seen), now.Round(0).Sub(i.seen.Round(0))
	return passed >= 0 && read >= 0 && passed < d && read < d
}

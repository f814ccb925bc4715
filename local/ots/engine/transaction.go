package engine

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// The service's limits of local transactions. The longest pause between two requests is
// as long as the longest life, which therefore ends first.
const (
	MaxTransactionLife = time.Minute
	MaxTransactionSize = 4 << 20
)

var (
	errTransactionID  = &Error{CodeParameterInvalid, "TransactionID is invalid."}
	errNoSession      = &Error{CodeSessionNotExist, "Session not exist or may be timeout."}
	errSessionBusy    = &Error{CodeSessionBusy, "Session is busy."}
	errNoTransactions = &Error{CodeParameterInvalid, "Try to call method using explicit transaction on explicit-transaction-disabled table."}
	errConflict       = &Error{CodeRowConflict, "Data is being modified by the other request."}
)

// A transaction is a local transaction that is open: the changes of one partition key
// that are not in the table yet, and the lock that keeps others from that key. It lives
// in memory alone, and ends with the engine.
type transaction struct {
	id        string
	table     *Table
	key       plainbuffer.Cell // the partition key
	partition string           // the key as it is stored
	started   time.Time
	// committing, under the lock of sessions, is true from when it is decided that the
	// transaction takes effect: from then on it can't expire.
	committing bool

	// busy is held by the request that uses the transaction. What follows is that
	// request's.
	busy  sync.Mutex
	draft draft // the rows as the transaction sees them
	steps []step
	size  int
}

// A step is one change of a transaction as it was made. To commit it is to go from the
// row that is there to next.
type step struct {
	change *Change
	next   record // nil if the row is no more
	// added are the cells that the change set, with the results of increments.
	added []plainbuffer.Cell
}

// sessions are the transactions that are open.
type sessions struct {
	// n is how many there are: as long as there are none, nobody locks mu.
	n    atomic.Int64
	mu   sync.Mutex
	byID map[string]*transaction
	held map[*Table]map[string]*transaction // by partition
}

func (s *sessions) add(tx *transaction) {
	if s.byID == nil {
		s.byID, s.held = map[string]*transaction{}, map[*Table]map[string]*transaction{}
	}
	if s.held[tx.table] == nil {
		s.held[tx.table] = map[string]*transaction{}
	}
	s.byID[tx.id], s.held[tx.table][tx.partition] = tx, tx
	s.n.Add(1)
}

func (s *sessions) remove(tx *transaction) {
	if s.byID[tx.id] != tx {
		return
	}
	delete(s.byID, tx.id)
	delete(s.held[tx.table], tx.partition)
	if len(s.held[tx.table]) == 0 {
		delete(s.held, tx.table)
	}
	s.n.Add(-1)
}

// living is tx unless it is none or has expired.
func (e *Engine) living(tx *transaction) *transaction {
	if tx == nil || tx.committing {
		return tx
	}
	life := e.behavior().Transactions.Life
	if life <= 0 {
		life = MaxTransactionLife
	}
	if e.now().Before(tx.started.Add(life)) {
		return tx
	}
	e.sessions.remove(tx)
	return nil
}

// holder is the transaction that holds a partition of a table.
func (e *Engine) holder(t *Table, partition string) *transaction {
	s := &e.sessions
	if s.n.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.living(s.held[t][partition])
}

// forget ends the transactions of a table that is gone.
func (e *Engine) forget(t *Table) {
	s := &e.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tx := range s.held[t] {
		s.remove(tx)
	}
}

// newTransactionID is 32 hexadecimal digits, which is how ids are recognized.
func newTransactionID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func isTransactionID(id string) bool {
	return len(id) == 32 && !slices.ContainsFunc([]byte(id), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'f')
	})
}

// StartTransaction begins a transaction on one partition key of a table and returns its
// id. Until it ends nobody else can write to that key.
func (e *Engine) StartTransaction(table string, key []plainbuffer.Cell) (string, *Error) {
	if err := CheckTableName(table); err != nil {
		return "", err
	}
	if len(key) != 1 {
		return "", invalid("StartLocalTransaction support only one primary key.")
	}
	if err := checkKeyValues(key, 1, false); err != nil {
		return "", err
	}
	t, err := e.ready(table)
	if err != nil {
		return "", err
	}
	// Alone on the table: no write that has seen the key unlocked is under way
	// when the transaction begins to read.
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone.Load() {
		return "", errNoTable
	}
	d := t.definition()
	if !d.LocalTxn {
		return "", errNoTransactions
	}
	first := &Definition{Key: d.Key[:1]}
	if err := first.checkKey(key, false); err != nil {
		return "", err
	}
	now := e.now()
	if err := t.allowWrite(now); err != nil {
		return "", err
	}
	tx := &transaction{
		id: newTransactionID(), table: t, started: now,
		key:       plainbuffer.Cell{Type: key[0].Type, Data: bytes.Clone(key[0].Data)},
		partition: string(appendKeyValue(nil, &key[0])),
	}
	s := &e.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	// Nobody may ever ask for those that ran out.
	for _, open := range s.byID {
		e.living(open)
	}
	if s.held[t][tx.partition] != nil {
		return "", errConflict
	}
	s.add(tx)
	t.spend(0, 1)
	return tx.id, nil
}

// use returns the open transaction of an id, for one request, which calls release when it
// is done. It is nil for "".
func (e *Engine) use(id string) (*transaction, *Error) {
	if id == "" {
		return nil, nil
	}
	if !isTransactionID(id) {
		return nil, errTransactionID
	}
	s := &e.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := e.living(s.byID[id])
	if tx == nil {
		return nil, errNoSession
	}
	if !tx.busy.TryLock() {
		return nil, errSessionBusy
	}
	return tx, nil
}

func (tx *transaction) release() {
	if tx != nil {
		tx.busy.Unlock()
	}
}

// on refuses reads and writes of other tables than the transaction's, and of keys, or
// bounds of ranges, beyond its partition key.
func (tx *transaction) on(t *Table, keys ...[]plainbuffer.Cell) *Error {
	if tx == nil {
		return nil
	}
	if tx.table != t {
		return errTransactionID
	}
	for _, key := range keys {
		if k := &key[0]; k.Type != tx.key.Type || !bytes.Equal(k.Data, tx.key.Data) {
			return refuse(CodeOutOfRange, "Data out of scope of transaction. Transaction PartKey:%s. Data PartKey:%s", display(&tx.key), display(k))
		}
	}
	return nil
}

// see is the space as the transaction sees it.
func (tx *transaction) see(r kv.Reader) kv.Reader {
	if tx == nil {
		return r
	}
	return layer{below: r, draft: &tx.draft}
}

// admit refuses changes that would make the transaction too large.
func (tx *transaction) admit(changes []*Change) *Error {
	if size := tx.size + sizeOf(changes); size > MaxTransactionSize {
		return refuse(CodeTransactionTooLarge, "The total data size of transaction exceeds the limit, limit size: %d, data size: %d.", MaxTransactionSize, size)
	}
	return nil
}

// count adds what was done to the transaction's size.
func (tx *transaction) count(changes []*Change) { tx.size += sizeOf(changes) }

// sizeOf is the size of the changes that are not refused.
func sizeOf(changes []*Change) int {
	size := 0
	for _, c := range changes {
		if c.Outcome.Err == nil {
			size += c.size
		}
	}
	return size
}

// done is the number of steps, to which undo goes back.
func (tx *transaction) done() int {
	if tx == nil {
		return 0
	}
	return len(tx.steps)
}

func (tx *transaction) undo(steps int) {
	if tx != nil {
		clear(tx.steps[steps:])
		tx.steps = tx.steps[:steps]
	}
}

// note keeps a change that w has made out, and returns its next with memory of its own.
func (tx *transaction) note(w *writer, c *Change, next record) record {
	kept := *c
	kept.Row = plainbuffer.Row{Key: cloneCells(c.Row.Key), Cells: cloneCells(c.Row.Cells)}
	kept.given, kept.evicted = cloneCells(c.given), cloneCells(c.evicted)
	kept.key, kept.record, kept.Outcome = bytes.Clone(c.key), nil, Outcome{}
	made := step{change: &kept, next: bytes.Clone(next)}
	if c.Op == Update {
		made.added = cloneCells(w.added)
	}
	tx.steps = append(tx.steps, made)
	return made.next
}

func cloneCells(cells []plainbuffer.Cell) []plainbuffer.Cell {
	cells = slices.Clone(cells)
	for i := range cells {
		cells[i].Name, cells[i].Data = bytes.Clone(cells[i].Name), bytes.Clone(cells[i].Data)
	}
	return cells
}

// commitSteps makes a transaction's changes in its table, one by one as they were made,
// so that indexes and the stream follow each.
func (t *Table) commitSteps(tx *transaction) *Error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.gone.Load() {
		return errNoTable
	}
	def, now := t.definition(), t.engine.now()
	w := t.writer(def, now)
	defer w.release()
	var refused *Error
	err := t.engine.store.Update(def.Space, func(s kv.Writer) error {
		w.at(t.engine.now())
		var held draft
		l := layer{below: s, draft: &held}
		if made := tx.draft.values[string(counterKey)]; bytes.Compare(made, s.Get(counterKey)) > 0 {
			l.Put(counterKey, made)
		}
		for i := range tx.steps {
			c, next := tx.steps[i].change, tx.steps[i].next
			w.added = append(w.added[:0], tx.steps[i].added...)
			old := record(l.Get(c.key))
			if next == nil && c.Op == Update {
				refused = w.nothing(l, c)
			} else {
				refused = w.commit(l, c, old, next)
			}
			if refused != nil {
				return nil
			}
		}
		held.write(s)
		return nil
	})
	t.expireStream(def, now)
	if refused != nil {
		return refused
	}
	return AsError(err)
}

// checkSessions refuses, row by row, changes of keys that are another transaction's, and
// those beyond the transaction's own. It returns how many.
func (t *Table) checkSessions(changes []*Change, tx *transaction) int {
	e := t.engine
	if tx == nil && e.sessions.n.Load() == 0 {
		return 0
	}
	failed := 0
	var partition []byte
	for _, c := range changes {
		if c.Outcome.Err != nil {
			continue
		}
		err := tx.on(t, c.Row.Key)
		partition = appendKeyValue(partition[:0], &c.Row.Key[0])
		if tx == nil && e.holder(t, string(partition)) != nil {
			err = errConflict
		}
		if err != nil {
			c.Outcome = Outcome{Err: err}
			failed++
		}
	}
	return failed
}

// CommitTransaction makes all changes of a transaction take effect at once.
func (e *Engine) CommitTransaction(id string) *Error { return e.end(id, (*Table).commitSteps) }

// AbortTransaction ends a transaction without a trace.
func (e *Engine) AbortTransaction(id string) *Error {
	return e.end(id, func(*Table, *transaction) *Error { return nil })
}

// end does what ends a transaction. It is over then whatever came of it, unless the
// table's capacity was used up before.
func (e *Engine) end(id string, how func(*Table, *transaction) *Error) *Error {
	if id == "" {
		return errTransactionID
	}
	tx, err := e.use(id)
	if err != nil {
		return err
	}
	defer tx.release()
	if err := tx.table.allowWrite(e.now()); err != nil {
		return err
	}
	s := &e.sessions
	s.mu.Lock()
	if s.byID[id] != tx {
		s.mu.Unlock()
		return errNoSession
	}
	tx.committing = true
	s.mu.Unlock()
	failed := how(tx.table, tx)
	s.mu.Lock()
	s.remove(tx)
	s.mu.Unlock()
	tx.table.spend(0, 1)
	return failed
}

// TransactionTable is the table of an open transaction, "" if there is none of the id.
func (e *Engine) TransactionTable(id string) string {
	s := &e.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if tx := s.byID[id]; tx != nil {
		return tx.table.definition().Name
	}
	return ""
}

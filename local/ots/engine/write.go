package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// Write makes one change.
func (e *Engine) Write(table string, c *Change) *Error { return e.WriteIn("", table, c) }

// WriteIn is Write in the local transaction of an id, unless that is "".
func (e *Engine) WriteIn(transaction, table string, c *Change) *Error {
	if err := CheckTableName(table); err != nil {
		return err
	}
	if err := e.checkChange(c); err != nil {
		return err
	}
	t, err := e.ready(table)
	if err != nil {
		return err
	}
	tx, err := e.use(transaction)
	if err != nil {
		return err
	}
	defer tx.release()
	group := []*Change{c}
	if err := t.write(group, false, tx); err != nil {
		return err
	}
	return c.Outcome.Err
}

// BatchWrite makes the changes of several tables. An error refuses all of them; what
// became of each stands in its outcome otherwise.
func (e *Engine) BatchWrite(groups []Group, atomic bool) *Error {
	return e.BatchWriteIn("", groups, atomic)
}

// BatchWriteIn is BatchWrite in the local transaction of an id, unless that is "". Rows
// of other tables than the transaction's are refused.
func (e *Engine) BatchWriteIn(transaction string, groups []Group, atomic bool) *Error {
	rows := 0
	for i := range groups {
		g := &groups[i]
		if err := CheckTableName(g.Table); err != nil {
			return err
		}
		if len(g.Changes) == 0 {
			return invalid("No operation is specified for table: '%s'.", g.Table)
		}
		for j := range i {
			if groups[j].Table == g.Table {
				return invalid("Duplicated table name: '%s'.", g.Table)
			}
		}
		rows += len(g.Changes)
	}
	if rows == 0 {
		return invalid("No row is specified in BatchWriteRow.")
	}
	if rows > MaxBatchRows {
		return invalid("Rows count exceeds the upper limit: %d.", MaxBatchRows)
	}
	size := 0
	for i := range groups {
		for j := range groups[i].Changes {
			c := &groups[i].Changes[j]
			if err := e.checkChange(c); err != nil {
				return err
			}
			size += c.size
		}
	}
	if size > MaxBatchSize {
		return invalid("The total data size of BatchWriteRow request exceeds the limit, limit size: %d, data size: %d.", MaxBatchSize, size)
	}
	tx, err := e.use(transaction)
	if err != nil {
		return err
	}
	defer tx.release()
	for i := range groups {
		g := &groups[i]
		changes := make([]*Change, len(g.Changes))
		for j := range g.Changes {
			changes[j] = &g.Changes[j]
		}
		t, err := e.ready(g.Table)
		if err == nil {
			err = t.write(changes, atomic, tx)
		}
		if err != nil {
			for _, c := range changes {
				c.Outcome = Outcome{Err: err}
			}
		}
	}
	return nil
}

// A writer holds what one request's changes of one table need.
//
// What hangs on the request alone is done before its turn at the table comes: checks, and
// the records of puts that bring their timestamps along. What hangs on the row is done in
// its turn, and the clock is looked at then: conditions, results and stamps are in the
// order in which the changes take effect.
type writer struct {
	def     *Definition
	options Options
	hide    bool   // rows whose cells have all expired are not there
	lenient bool   // a table with indexes takes timestamps and repeated rows
	seconds bool   // windows are of whole seconds
	keep    bool   // cells that no read shows stay in their rows
	refusal string // the code of updates of a table that allows none
	now     int64  // milliseconds
	micros  int64  // the same in microseconds
	expiry  int64
	arena   []byte // keys and records, alive until the store has them
	old     plainbuffer.Row
	kept    []plainbuffer.Cell
	added   []plainbuffer.Cell
	merged  []plainbuffer.Cell
	dead    []bool
	log     changeLog
	tx      *transaction // that the changes are of, or nil
	table   *Table
	lag     time.Duration // of the table's indexes, if there are some that are behind
}

// writers keeps the memory of requests for later ones.
var writers = sync.Pool{New: func() any { return new(writer) }}

// maxArena is the most memory that is kept of a request.
const maxArena = 8 << 20

func (w *writer) release() {
	w.log.end()
	if cap(w.arena) <= maxArena {
		w.arena, w.def, w.tx, w.table = w.arena[:0], nil, nil, nil
		writers.Put(w)
	}
}

// writer returns a writer for changes at a time. The caller releases it.
func (t *Table) writer(def *Definition, now time.Time) *writer {
	b := t.engine.behavior()
	w := writers.Get().(*writer)
	w.def, w.options = def, t.options(def, now)
	w.hide, w.keep, w.lenient, w.seconds = b.Reads.HideExpiredRows, b.Writes.KeepVersions, b.Writes.IndexedTimestamps, b.Writes.SecondsWindow
	w.refusal, w.table, w.lag = b.Writes.RefusedUpdate, t, 0
	if b.Indexes.Lag > 0 && def.behind() {
		w.lag = b.Indexes.Lag
	}
	w.at(now)
	w.log.begin(t, def, now)
	return w
}

// at sets the writer's clock.
func (w *writer) at(now time.Time) {
	w.now, w.micros = now.UnixMilli(), now.UnixMicro()
	w.expiry = w.options.expiry(w.now)
}

// write makes changes whose form is right, in the table or in a transaction. An error
// refuses all of them, or is the store's.
func (t *Table) write(changes []*Change, atomic bool, tx *transaction) *Error {
	e := t.engine
	// The definition stays in force until the changes are stored.
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.gone.Load() {
		return errNoTable
	}
	def := t.definition()
	now := e.now()
	if err := t.allowWrite(now); err != nil {
		failAll(changes, err)
		return nil
	}
	w := t.writer(def, now)
	defer w.release()
	w.tx = tx

	failed := 0
	for _, c := range changes {
		if err := w.prepare(c); err != nil {
			c.Outcome = Outcome{Err: err}
			failed++
		}
	}
	failed += w.checkRepeated(changes)
	failed += t.checkSessions(changes, tx)
	if atomic {
		if err := samePartition(changes); err != nil {
			failAll(changes, err)
			return nil
		}
		if failed > 0 {
			failAll(changes, firstError(changes))
			return nil
		}
	}
	if failed == len(changes) {
		return nil
	}
	var err error
	if tx == nil {
		err = e.store.Update(def.Space, func(s kv.Writer) error {
			w.at(e.now())
			w.applyAll(s, changes, atomic)
			return nil
		})
	} else {
		if err := tx.admit(changes); err != nil {
			return err
		}
		err = e.store.View(def.Space, func(s kv.Reader) error {
			w.at(e.now())
			w.applyAll(layer{below: s, draft: &tx.draft}, changes, atomic)
			return nil
		})
		tx.count(changes)
	}
	read, written, size := 0, 0, 0
	for _, c := range changes {
		read += c.Outcome.Read
		written += c.Outcome.Write
		if c.Outcome.Err != nil {
			// What is refused costs a unit.
			written++
		}
		size += c.size
	}
	t.spend(read, written)
	t.grown(size)
	t.expireStream(def, now)
	return AsError(err)
}

func failAll(changes []*Change, err *Error) {
	for _, c := range changes {
		c.Outcome = Outcome{Err: err}
	}
}

func firstError(changes []*Change) *Error {
	for _, c := range changes {
		if c.Outcome.Err != nil {
			return c.Outcome.Err
		}
	}
	return nil
}

// samePartition refuses changes of an atomic batch that touch several partition keys.
func samePartition(changes []*Change) *Error {
	first := &changes[0].Row.Key[0]
	for _, c := range changes[1:] {
		k := &c.Row.Key[0]
		if k.Type != first.Type || !bytes.Equal(k.Data, first.Data) {
			return refuse(CodeOutOfRange, "Data out of scope of atomic. Atomic PartKey:%s. Data PartKey:%s", display(first), display(k))
		}
	}
	return nil
}

// checkRepeated refuses changes of rows that stand more than once in the request, where
// they carry conditions or increments, or the table has an index.
func (w *writer) checkRepeated(changes []*Change) int {
	if len(changes) < 2 {
		return 0
	}
	indexed := len(w.def.Indexes) > 0 && !w.lenient
	if !indexed && !slices.ContainsFunc(changes, func(c *Change) bool { return c.once() != nil }) {
		return 0
	}
	count := make(map[string]int, len(changes))
	why := make(map[string]*Error, len(changes))
	for _, c := range changes {
		if c.auto || c.Outcome.Err != nil {
			continue
		}
		count[string(c.key)]++
		switch err := c.once(); {
		case indexed:
			why[string(c.key)] = errRepeatedIndexed
		case err != nil && why[string(c.key)] != errRepeatedExpectation:
			why[string(c.key)] = err
		}
	}
	failed := 0
	for _, c := range changes {
		if c.auto || c.Outcome.Err != nil || count[string(c.key)] < 2 || why[string(c.key)] == nil {
			continue
		}
		c.Outcome = Outcome{Err: why[string(c.key)]}
		failed++
	}
	return failed
}

var (
	errRepeatedExpectation = &Error{CodeParameterInvalid, "Repeated rows do not support row exist expectation check in BatchModify."}
	errRepeatedCondition   = &Error{CodeParameterInvalid, "Repeated rows do not support row condition check in BatchModify."}
	errRepeatedIncrement   = &Error{CodeParameterInvalid, "Repeated rows do not support atomic increment in BatchModify."}
	errRepeatedIndexed     = &Error{CodeParameterInvalid, "Repeated rows are not supported in BatchModify on a table with index."}
)

// once says why the change's row may stand only once in a request, nil if it may stand
// more often.
func (c *Change) once() *Error {
	switch {
	case c.Existence != Ignore:
		return errRepeatedExpectation
	case c.Filter != nil:
		return errRepeatedCondition
	case c.Op == Update && slices.ContainsFunc(c.Row.Cells, func(x plainbuffer.Cell) bool { return x.Op == plainbuffer.Increment }):
		return errRepeatedIncrement
	}
	return nil
}

// prepare checks c against the table and does all that needs no look at the stored row.
func (w *writer) prepare(c *Change) *Error {
	def := w.def
	if def.Base != "" {
		return invalid("Can't write index table directly.")
	}
	if err := def.checkKey(c.Row.Key, true); err != nil {
		return err
	}
	if err := w.checkAutoIncrement(c); err != nil {
		return err
	}
	if c.Op == Update && !w.options.AllowUpdate {
		code := cmp.Or(w.refusal, CodeParameterInvalid)
		return refuse(code, "UpdateRow is not allowed on a table whose allow_update is false.")
	}
	if c.usual {
		low, high := w.options.window(w.now, w.seconds)
		c.usual = c.summary.oldest >= low && c.summary.newest < high && len(w.def.Defined)+len(w.def.Indexes) == 0 &&
			(c.summary.versions <= int(w.options.MaxVersions) || w.keep)
		if !c.usual || w.log.on || w.tx != nil {
			if err := c.scan(); err != nil {
				return err
			}
		}
	}
	if err := w.checkStamps(c); err != nil {
		return err
	}
	if c.auto {
		return nil
	}
	start := len(w.arena)
	w.arena = append(w.arena, def.Prefix...)
	w.arena = appendKey(w.arena, c.Row.Key)
	c.key = w.arena[start:len(w.arena):len(w.arena)]
	if c.Op == Put && !c.unstamped {
		c.record = w.buildPut(c)
	}
	return nil
}

// checkStamps holds given timestamps against the window, and notes whether the change has
// cells without.
func (w *writer) checkStamps(c *Change) *Error {
	c.unstamped = false
	if c.usual {
		return nil
	}
	low, high := w.options.window(w.now, w.seconds)
	for i := range c.Row.Cells {
		cell := &c.Row.Cells[i]
		if d, ok := w.definedType(cell.Name); ok && cell.HasValue && cell.Type != d {
			return invalid("Invalid column type for column %s expect %s actual %s", cell.Name, wireType(d), wireType(cell.Type))
		}
		if cell.Op == plainbuffer.DeleteAll || cell.Op == plainbuffer.DeleteOne {
			continue
		}
		if len(cell.Data) > MaxKeyLength && w.def.indexes(cell.Name) {
			return invalid("The length of primary key column: '%s' exceeds the MaxLength:%d with CurrentLength:%d.", cell.Name, MaxKeyLength, len(cell.Data))
		}
		if !cell.HasTimestamp {
			c.unstamped = true
			continue
		}
		if len(w.def.Indexes) > 0 && !w.lenient {
			return invalid("Timestamp is not allowed on a table with index. Cell:%s. Timestamp:%d.", cell.Name, cell.Timestamp)
		}
		if cell.Timestamp < low || cell.Timestamp >= high {
			return invalid("Invalid timestamp. Cell:%s. Timestamp:%d. MinTimestamp:%d. MaxTimestamp:%d.", cell.Name, cell.Timestamp, low, high)
		}
	}
	return nil
}

// stamp gives the cells that have no timestamp the present one.
func (w *writer) stamp(c *Change) {
	if !c.unstamped {
		return
	}
	for i := range c.Row.Cells {
		if cell := &c.Row.Cells[i]; !cell.HasTimestamp {
			cell.Timestamp = w.now
		}
	}
}

func (w *writer) definedType(name []byte) (plainbuffer.Type, bool) {
	for i := range w.def.Defined {
		if w.def.Defined[i].Name == string(name) {
			return w.def.Defined[i].Type, true
		}
	}
	return 0, false
}

// checkAutoIncrement holds c against the rules of tables whose keys the service makes,
// and notes whether it is to make this one.
func (w *writer) checkAutoIncrement(c *Change) *Error {
	c.auto = false
	at := w.def.autoIncrement()
	if at < 0 {
		return nil
	}
	if c.Row.Key[at].Type != plainbuffer.AutoIncrement {
		if c.Op != Delete && c.Existence == ExpectNotExist {
			return invalid("Invalid expect: %s when modify a specific row for table with pk auto increment.", c.Existence)
		}
		return nil
	}
	switch {
	case c.Op == Delete:
		return invalid("Invalid row to delete which with pk auto increment.")
	case c.Existence != Ignore:
		return invalid("Invalid expect:%s when modify row with pk auto increment.", c.Existence)
	case c.Filter != nil:
		return invalid("Can't set condition when modify row with pk auto increment.")
	}
	c.auto = true
	return nil
}

// buildPut returns the record of a put. Cells that come in order, with timestamps, stay
// the bytes that they are.
func (w *writer) buildPut(c *Change) []byte {
	row := &c.Row
	cells := row.Cells
	if c.usual {
		return w.record(row, &c.summary)
	}
	asIs := !row.Irregular && !row.Delete && !row.HasExtension && !c.auto
	ordered := true
	s := newSummary()
	var previous *plainbuffer.Cell
	for i := range cells {
		cell := &cells[i]
		asIs = asIs && cell.HasTimestamp
		if previous != nil && compareCells(previous, cell) >= 0 {
			ordered = false
			break
		}
		s.add(cell, previous)
		previous = cell
	}
	if !ordered {
		slices.SortStableFunc(cells, func(a, b plainbuffer.Cell) int { return compareCells(&a, &b) })
		cells = lastOfEqual(cells)
		s.versions = math.MaxInt
	}
	if s.versions > int(w.options.MaxVersions) && !w.keep {
		if w.log.on {
			c.given, c.evicted = slices.Clone(cells), w.evictions(cells)
		}
		cells = w.trim(cells)
		asIs = false
	}
	row.Cells = cells
	if asIs && ordered {
		return w.record(row, &s)
	}
	for i := range cells {
		cells[i].HasTimestamp = true
	}
	start := len(w.arena)
	w.arena = appendRecord(w.arena, row.Key, cells)
	return w.arena[start:len(w.arena):len(w.arena)]
}

// record is the record of a row that stays the bytes that it is.
func (w *writer) record(row *plainbuffer.Row, s *summary) []byte {
	start := len(w.arena)
	var zero [recordHeader]byte
	w.arena = append(w.arena, zero[:]...)
	w.arena = append(w.arena, row.Raw...)
	s.put(w.arena[start:], keySize(row.Key))
	return w.arena[start:len(w.arena):len(w.arena)]
}

// lastOfEqual keeps, of sorted cells with the same name and timestamp, the one that came
// last.
func lastOfEqual(cells []plainbuffer.Cell) []plainbuffer.Cell {
	n := 0
	for i := range cells {
		if i+1 < len(cells) && compareCells(&cells[i], &cells[i+1]) == 0 {
			continue
		}
		cells[n] = cells[i]
		n++
	}
	return cells[:n]
}

// trim drops, from sorted cells, those beyond the table's versions and those that have
// expired.
func (w *writer) trim(cells []plainbuffer.Cell) []plainbuffer.Cell {
	n, named := 0, 0
	for i := range cells {
		if i > 0 && bytes.Equal(cells[i].Name, cells[i-1].Name) {
			named++
		} else {
			named = 1
		}
		if named > int(w.options.MaxVersions) || cells[i].Timestamp < w.expiry {
			continue
		}
		// A cell that is moved is not looked at again: n never passes i.
		if n != i {
			cells[n], cells[i] = cells[i], plainbuffer.Cell{Name: cells[i].Name}
		}
		n++
	}
	return cells[:n]
}

// applyAll makes the changes that are not refused yet; if atomic, all or none.
func (w *writer) applyAll(s kv.Writer, changes []*Change, atomic bool) {
	if !atomic {
		for _, c := range changes {
			if c.Outcome.Err == nil {
				w.apply(s, c)
			}
		}
		return
	}
	var held draft
	steps := w.tx.done()
	for _, c := range changes {
		if w.apply(layer{below: s, draft: &held}, c); c.Outcome.Err != nil {
			failAll(changes, c.Outcome.Err)
			w.tx.undo(steps)
			return
		}
	}
	held.write(s)
}

// apply makes one change in the store and fills in its outcome.
func (w *writer) apply(s kv.Writer, c *Change) {
	w.stamp(c)
	if c.auto {
		w.applyAuto(s, c)
		return
	}
	var old record
	conditional := c.Existence != Ignore || c.Filter != nil
	specific := w.def.autoIncrement() >= 0 && c.Op != Delete
	watched := w.def.watched()
	if conditional || specific || watched || c.Op == Update || w.log.wantsOld(c) {
		old = record(s.Get(c.key))
	}
	exists := old != nil && !(w.hide && old.gone(w.expiry))
	if conditional {
		c.Outcome.Read = 1
		if exists && c.Filter != nil {
			c.Outcome.Read = units(old.stored(&w.options))
		}
	}
	if !w.meets(c, old, exists) || specific && !exists {
		c.Outcome.Err = errCondition
		return
	}
	switch c.Op {
	case Put:
		if c.unstamped {
			c.record = w.buildPut(c)
		}
		c.Outcome.Err = w.commit(s, c, old, c.record)
		c.Outcome.Write = units(record(c.record).stored(&w.options))
	case Delete:
		c.Outcome.Write = units(c.size)
		c.Outcome.Err = w.commit(s, c, old, nil)
	case Update:
		next, err := w.update(c, old, exists)
		if err != nil {
			c.Outcome.Err = err
			return
		}
		c.Outcome.Write = units(c.stored(&w.options))
		if next == nil {
			c.Outcome.Err = w.nothing(s, c)
			break
		}
		c.Outcome.Err = w.commit(s, c, old, next)
		c.record = next
	}
	w.answer(c)
}

// nothing is commit where a change leaves no row.
func (w *writer) nothing(s kv.Writer, c *Change) *Error {
	if w.tx != nil {
		w.tx.note(w, c, nil)
		return nil
	}
	err := w.stage(s, c, nil, nil)
	w.log.flush(s)
	return AsError(err)
}

// commit writes the row's next state, nil for none, and what follows from it. In a
// transaction, that is what the transaction's end brings.
func (w *writer) commit(s kv.Writer, c *Change, old, next record) *Error {
	if w.tx != nil {
		next = w.tx.note(w, c, next)
		if next == nil {
			s.Delete(c.key)
		} else {
			s.Put(c.key, next)
		}
		return nil
	}
	if err := w.stage(s, c, old, next); err != nil {
		return AsError(err)
	}
	return w.follow(s, c, old, next)
}

// follow is commit where the stream's records are staged.
func (w *writer) follow(s kv.Writer, c *Change, old, next record) *Error {
	plain := s
	if w.lag > 0 {
		s = noting{s, &w.table.past, w.micros, w.lag}
	}
	if w.def.watched() {
		if err := w.def.changed(s, old, next); err != nil {
			return AsError(err)
		}
	}
	if next == nil {
		s.Delete(c.key)
	} else {
		s.Put(c.key, next)
	}
	w.log.flush(plain)
	return nil
}

func (w *writer) meets(c *Change, old record, exists bool) bool {
	switch c.Existence {
	case ExpectExist:
		if !exists {
			return false
		}
	case ExpectNotExist:
		if exists {
			return false
		}
	}
	if c.Filter == nil {
		return true
	}
	var key, cells []plainbuffer.Cell
	if exists {
		if err := w.scanOld(old); err != nil {
			return false
		}
		key, cells = w.old.Key, w.kept
	}
	return c.Filter.Match(key, cells)
}

// scanOld reads the stored row: its living cells stand in w.kept.
func (w *writer) scanOld(old record) error {
	if _, err := plainbuffer.Scan(old.row(), &w.old); err != nil {
		return err
	}
	w.kept = append(w.kept[:0], w.old.Cells...)
	w.kept = w.trim(w.kept)
	return nil
}

// update applies c's cells to the stored row and returns the record that comes out, or
// nil where none does: a row that is not there and nothing to set.
func (w *writer) update(c *Change, old record, exists bool) (record, *Error) {
	w.kept = w.kept[:0]
	if exists {
		if err := w.scanOld(old); err != nil {
			return nil, AsError(err)
		}
	}
	if w.keep && exists {
		w.kept = append(w.kept[:0], w.old.Cells...)
	}
	w.dead = slices.Grow(w.dead[:0], len(w.kept))[:len(w.kept)]
	clear(w.dead)
	w.added = w.added[:0]
	sets := false
	for i := range c.Row.Cells {
		cell := c.Row.Cells[i]
		switch cell.Op {
		case plainbuffer.DeleteAll:
			lo, hi := w.versions(cell.Name)
			for ; lo < hi; lo++ {
				w.dead[lo] = true
			}
			w.added = slices.DeleteFunc(w.added, func(a plainbuffer.Cell) bool { return bytes.Equal(a.Name, cell.Name) })
			continue
		case plainbuffer.DeleteOne:
			lo, hi := w.versions(cell.Name)
			for ; lo < hi; lo++ {
				w.dead[lo] = w.dead[lo] || w.kept[lo].Timestamp == cell.Timestamp
			}
			w.added = slices.DeleteFunc(w.added, func(a plainbuffer.Cell) bool {
				return bytes.Equal(a.Name, cell.Name) && a.Timestamp == cell.Timestamp
			})
			continue
		case plainbuffer.Increment:
			for j := range c.Row.Cells {
				if j != i && bytes.Equal(c.Row.Cells[j].Name, cell.Name) {
					return nil, invalid("Increment of column '%s' can't stand with another operation on it.", cell.Name)
				}
			}
			sum, err := w.increment(&cell)
			if err != nil {
				return nil, err
			}
			// The change, which the stream tells, has the sum's timestamp.
			c.Row.Cells[i].Timestamp = cell.Timestamp
			cell.Op, cell.Data = plainbuffer.NoOp, sum
		}
		cell.HasTimestamp = true
		sets = true
		w.added = append(w.added, cell)
	}
	if !exists && !sets {
		return nil, nil
	}
	slices.SortStableFunc(w.added, func(a, b plainbuffer.Cell) int { return compareCells(&a, &b) })
	w.added = lastOfEqual(w.added)
	w.merge()
	key := c.Row.Key
	if !w.keep {
		if exists {
			// What goes of the row as it was, unless the change writes it anew.
			c.evicted = slices.DeleteFunc(w.evictions(w.old.Cells), func(gone plainbuffer.Cell) bool {
				_, found := slices.BinarySearchFunc(w.merged, gone, func(a, b plainbuffer.Cell) int { return compareCells(&a, &b) })
				return found
			})
		}
		c.evicted = append(c.evicted, w.evictions(w.merged)...)
		w.merged = w.trim(w.merged)
	}
	start := len(w.arena)
	w.arena = appendRecord(w.arena, key, w.merged)
	return record(w.arena[start:len(w.arena):len(w.arena)]), nil
}

// versions is the range of w.kept that holds the column.
func (w *writer) versions(name []byte) (lo, hi int) {
	lo, _ = slices.BinarySearchFunc(w.kept, name, func(c plainbuffer.Cell, n []byte) int { return bytes.Compare(c.Name, n) })
	for hi = lo; hi < len(w.kept) && bytes.Equal(w.kept[hi].Name, name); hi++ {
	}
	return lo, hi
}

// increment returns the sum of the column's newest version and c. One that gets its
// timestamp here is no older than that version, which may be ahead of the clock: the sum
// would be lost behind it.
func (w *writer) increment(c *plainbuffer.Cell) ([]byte, *Error) {
	var base int64
	if lo, hi := w.versions(c.Name); lo < hi && w.kept[lo].Timestamp >= w.expiry {
		if w.kept[lo].Type != plainbuffer.Integer {
			return nil, invalid("Increment of column '%s' whose type is %s.", c.Name, wireType(w.kept[lo].Type))
		}
		base = w.kept[lo].Int()
		if !c.HasTimestamp {
			c.Timestamp = max(c.Timestamp, w.kept[lo].Timestamp)
		}
	}
	by := c.Int()
	sum := base + by
	if by > 0 && sum < base || by < 0 && sum > base {
		return nil, invalid("Increment of column '%s' overflows.", c.Name)
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(sum)), nil
}

// merge joins w.kept, but the dead, and w.added into w.merged, in order.
func (w *writer) merge() {
	w.merged = w.merged[:0]
	i, j := 0, 0
	for i < len(w.kept) || j < len(w.added) {
		if i < len(w.kept) && w.dead[i] {
			i++
			continue
		}
		c := -1
		if i == len(w.kept) {
			c = 1
		} else if j < len(w.added) {
			c = compareCells(&w.kept[i], &w.added[j])
		}
		switch {
		case c < 0:
			w.merged = append(w.merged, w.kept[i])
			i++
		case c == 0:
			i++
		default:
			w.merged = append(w.merged, w.added[j])
			j++
		}
	}
}

// answer builds the row that c asked for.
func (w *writer) answer(c *Change) {
	switch c.Return {
	case ReturnKey:
		c.Outcome.Row = KeyBlock(c.Row.Key)
	case ReturnAfter:
		var row plainbuffer.Row
		if c.Op == Delete || c.record == nil {
			return
		}
		if _, err := plainbuffer.Scan(record(c.record).row(), &row); err != nil {
			return
		}
		c.Outcome.Row = newest(&row, c.ReturnColumns, math.MinInt64)
	}
}

// counterKey is where a space keeps the last key it made.
var counterKey = []byte{prefixCounter}

// applyAuto makes the key and inserts the row.
func (w *writer) applyAuto(s kv.Writer, c *Change) {
	// Keys grow in the whole table, beginning at the time in microseconds: they
	// are unique and increasing in each partition, and not contiguous.
	next := w.now * 1000
	if last := s.Get(counterKey); len(last) == 8 {
		next = max(next, int64(binary.BigEndian.Uint64(last))+1)
	}
	s.Put(counterKey, binary.BigEndian.AppendUint64(nil, uint64(next)))

	cell := &c.Row.Key[w.def.autoIncrement()]
	cell.Type = plainbuffer.Integer
	cell.Data = binary.LittleEndian.AppendUint64(nil, uint64(next))
	start := len(w.arena)
	w.arena = append(w.arena, w.def.Prefix...)
	w.arena = appendKey(w.arena, c.Row.Key)
	c.key = w.arena[start:len(w.arena):len(w.arena)]
	if c.Op == Update {
		rec, err := w.update(c, nil, false)
		if err != nil {
			c.Outcome.Err = err
			return
		}
		if rec == nil {
			rec = appendRecord(nil, c.Row.Key, nil)
		}
		c.record = rec
	} else {
		c.record = w.buildPut(c)
	}
	c.Outcome.Err = w.commit(s, c, nil, c.record)
	c.Outcome.Write = units(record(c.record).stored(&w.options))
	w.answer(c)
}

// units is the capacity that bytes cost.
func units(n int) int { return max(1, (n+4095)/4096) }

package ots_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A wire speaks the protocol itself, past an SDK that hides part of it.
type wire struct {
	t         testing.TB
	url       string
	transport http.RoundTripper
}

func wireTo(t testing.TB, s *ots.Server) *wire {
	return &wire{t: t, url: "http://in-process", transport: s}
}

// ask returns the service's refusal, or fails.
func (w *wire) ask(op string, m, answer proto.Message) *otsprotocol.Error {
	w.t.Helper()
	refused, err := w.try(op, m, answer)
	if err != nil {
		w.t.Fatalf("%s: %v", op, err)
	}
	return refused
}

func (w *wire) try(op string, m, answer proto.Message) (*otsprotocol.Error, error) {
	res, err := w.transport.RoundTrip(request(w.t, w.url, op, m))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		refused := new(otsprotocol.Error)
		return refused, proto.Unmarshal(body, refused)
	}
	return nil, proto.Unmarshal(body, answer)
}

// must is ask for what is answered.
func (w *wire) must(op string, m, answer proto.Message) {
	w.t.Helper()
	if refused := w.ask(op, m, answer); refused != nil {
		w.t.Fatalf("%s is refused: %s %s", op, refused.GetCode(), refused.GetMessage())
	}
}

// stream is the id of a table's stream.
func (w *wire) stream(table string) string {
	w.t.Helper()
	var res otsprotocol.ListStreamResponse
	w.must("ListStream", &otsprotocol.ListStreamRequest{TableName: &table}, &res)
	if len(res.Streams) != 1 {
		w.t.Fatalf("table %s has %d streams", table, len(res.Streams))
	}
	return res.Streams[0].GetStreamId()
}

// shards lists the shards of a stream, page after page.
func (w *wire) shards(stream string) []*otsprotocol.StreamShard {
	w.t.Helper()
	var all []*otsprotocol.StreamShard
	req := &otsprotocol.DescribeStreamRequest{StreamId: &stream}
	for {
		var res otsprotocol.DescribeStreamResponse
		w.must("DescribeStream", req, &res)
		all = append(all, res.Shards...)
		if res.NextShardId == nil {
			return all
		}
		req.InclusiveStartShardId = res.NextShardId
	}
}

// iterator asks for one at a time, or at the oldest record below 0, until there is no
// token.
func (w *wire) iterator(stream, shard string, at int64) string {
	w.t.Helper()
	req := &otsprotocol.GetShardIteratorRequest{StreamId: &stream, ShardId: &shard}
	if at >= 0 {
		req.Timestamp = &at
	}
	for {
		var res otsprotocol.GetShardIteratorResponse
		w.must("GetShardIterator", req, &res)
		if res.NextToken == nil {
			return res.GetShardIterator()
		}
		req.Token = res.NextToken
	}
}

// page reads records; the next iterator is "" at the end of a shard.
func (w *wire) page(iterator string, limit int32) ([]*change, string) {
	w.t.Helper()
	records, next, _ := w.pageAndMore(iterator, limit)
	return records, next
}

// pageAndMore is page with what is said of more records, nil if nothing is.
func (w *wire) pageAndMore(iterator string, limit int32) ([]*change, string, *bool) {
	w.t.Helper()
	req := &otsprotocol.GetStreamRecordRequest{ShardIterator: &iterator}
	if limit > 0 {
		req.Limit = &limit
	}
	var res otsprotocol.GetStreamRecordResponse
	w.must("GetStreamRecord", req, &res)
	var out []*change
	for _, r := range res.StreamRecords {
		out = append(out, parseChange(w.t, r))
	}
	return out, res.GetNextShardIterator(), res.MayMoreRecord
}

// A change is a record of a stream, read.
type change struct {
	action otsprotocol.ActionType
	row    plainbuffer.Row
	origin *plainbuffer.Row
}

func parseChange(t testing.TB, r *otsprotocol.GetStreamRecordResponse_StreamRecord) *change {
	t.Helper()
	c := &change{action: r.GetActionType(), row: onlyRow(t, r.Record)}
	if !c.row.HasExtension {
		t.Fatal("a record has no extension")
	}
	if r.OriginRecord != nil {
		row := onlyRow(t, r.OriginRecord)
		c.origin = &row
	}
	return c
}

func onlyRow(t testing.TB, block []byte) (row plainbuffer.Row) {
	t.Helper()
	s := plainbuffer.NewScanner(block)
	if err := s.Next(&row); err != nil {
		t.Fatal(err)
	}
	var none plainbuffer.Row
	if err := s.Next(&none); !errors.Is(err, io.EOF) {
		t.Fatalf("a record has more than a row: %v", err)
	}
	return row
}

func (c *change) key() string { return cellsText(c.row.Key) }

func (c *change) String() string {
	return fmt.Sprintf("%v %s: %s", c.action, c.key(), cellsText(c.row.Cells))
}

// cellsText shows cells with all that they have.
func cellsText(cells []plainbuffer.Cell) string {
	var parts []string
	for i := range cells {
		c := &cells[i]
		s := string(c.Name)
		switch c.Op {
		case plainbuffer.DeleteAll:
			s += " all gone"
		case plainbuffer.DeleteOne:
			s += " gone"
		case plainbuffer.Increment:
			s += " plus"
		}
		if c.HasTimestamp {
			s += fmt.Sprintf("@%d", c.Timestamp)
		}
		if c.HasValue {
			s += "=" + valueText(c)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

func valueText(c *plainbuffer.Cell) string {
	switch c.Type {
	case plainbuffer.Integer:
		return fmt.Sprint(c.Int())
	case plainbuffer.String:
		return string(c.Data)
	}
	return fmt.Sprintf("%s:%x", c.Type, c.Data)
}

// A follower reads all shards of a stream, each after its parents, and replays what it
// reads.
type follower struct {
	wire    *wire
	stream  string
	from    int64 // microseconds, or -1 for the oldest
	limit   int32
	moves   bool // iterators that are caught up do
	shards  map[string]*followed
	replica *replica
	// seen is what was replayed, in order.
	seen []*change
	ends int // shards that were read to their end
}

type followed struct {
	iterator string
	caughtUp bool // the last page was empty
	done     bool
	last     plainbuffer.Extension
	records  int
}

func follow(w *wire, stream string, r *replica) *follower {
	return &follower{wire: w, stream: stream, from: -1, shards: map[string]*followed{}, replica: r}
}

// drain reads until every shard is caught up. Nobody may write meanwhile, who has no end.
func (f *follower) drain() {
	f.wire.t.Helper()
	for f.look(func(s *followed) bool { return s.caughtUp }) {
	}
}

// read reads a page of each shard that it can come to, once.
func (f *follower) read() {
	f.wire.t.Helper()
	f.look(func(*followed) bool { return true })
}

// look reads each shard that is listed and whose parents have ended, page after page
// until it is enough of it. It says whether one has ended.
func (f *follower) look(enough func(*followed) bool) (ended bool) {
	f.wire.t.Helper()
	listed := f.wire.shards(f.stream)
	byID := map[string]bool{}
	for _, s := range listed {
		byID[s.GetShardId()] = true
	}
	for _, s := range listed {
		ready := true
		for _, parent := range []string{s.GetParentId(), s.GetParentSiblingId()} {
			p := f.shards[parent]
			// One that is no longer listed has nothing to give.
			ready = ready && (parent == "" || !byID[parent] || p != nil && p.done)
		}
		state := f.shards[s.GetShardId()]
		if !ready || state != nil && state.done {
			continue
		}
		if state == nil {
			state = &followed{iterator: f.wire.iterator(f.stream, s.GetShardId(), f.from)}
			f.shards[s.GetShardId()] = state
		}
		for {
			f.page(s.GetShardId(), state)
			if state.done || enough(state) {
				break
			}
		}
		ended = ended || state.done
	}
	return ended
}

// page reads and replays a page of a shard.
func (f *follower) page(id string, s *followed) {
	t := f.wire.t
	t.Helper()
	records, next, more := f.wire.pageAndMore(s.iterator, f.limit)
	goesOn := more != nil && *more
	for _, r := range records {
		at := r.row.Extension
		if s.records++; s.records > 1 && compareExtensions(s.last, at) >= 0 {
			t.Fatalf("shard %s: record %d is at %+v, the one before at %+v", id, s.records, at, s.last)
		}
		s.last = at
		f.seen = append(f.seen, r)
		f.replica.apply(r)
	}
	switch {
	case next == "":
		s.done = true
		f.ends++
	case len(records) == 0 && !goesOn && (next != s.iterator) != f.moves:
		t.Fatalf("shard %s: an iterator that is caught up moves from %s to %s", id, s.iterator, next)
	case goesOn && next == s.iterator:
		t.Fatalf("shard %s: there is more behind %s, which does not move", id, next)
	}
	s.caughtUp, s.iterator = len(records) == 0 && !goesOn, next
}

func compareExtensions(a, b plainbuffer.Extension) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.RowIndex, b.RowIndex))
}

// A replica is a table made from a stream alone. It obeys the rules as a reader of the
// documentation would.
type replica struct {
	t        testing.TB
	rows     map[string]map[string]map[int64]plainbuffer.Cell
	versions int
	ttl      int64 // seconds, below 0 for none
	lazy     bool  // versions beyond are hidden, not gone
	hide     bool  // rows whose cells have all expired are not there
	origins  []string
	checked  int // origins that were compared
	kinds    map[string]int
}

func newReplica(t testing.TB, versions int, ttl int64) *replica {
	return &replica{t: t, rows: map[string]map[string]map[int64]plainbuffer.Cell{}, versions: versions, ttl: ttl, kinds: map[string]int{}}
}

// empty is a replica with the same rules.
func (r *replica) empty() *replica {
	n := newReplica(r.t, r.versions, r.ttl)
	n.lazy, n.hide = r.lazy, r.hide
	return n
}

func (r *replica) alive(ts, now int64) bool { return r.ttl < 0 || ts/1000+r.ttl >= now/1000 }

// hidden says whether a row is not there because all of its cells have expired.
func (r *replica) hidden(row string, now int64) bool {
	stored, living := 0, 0
	for _, column := range r.rows[row] {
		for ts := range column {
			if stored++; r.alive(ts, now) {
				living++
			}
		}
	}
	return r.hide && stored > 0 && living == 0
}

func (r *replica) newest(row, column string, now int64) (plainbuffer.Cell, bool) {
	times := r.times(row, column)
	if len(times) == 0 || !r.alive(times[0], now) {
		return plainbuffer.Cell{}, false
	}
	return r.rows[row][column][times[0]], true
}

// times are a column's timestamps, newest first.
func (r *replica) times(row, column string) []int64 {
	var times []int64
	for ts := range r.rows[row][column] {
		times = append(times, ts)
	}
	slices.SortFunc(times, func(a, b int64) int { return cmp.Compare(b, a) })
	return times
}

func (r *replica) apply(c *change) {
	r.t.Helper()
	key, now := c.key(), c.row.Extension.Timestamp/1000
	r.kinds[c.action.String()]++
	r.origin(c, key, now)
	switch c.action {
	case otsprotocol.ActionType_PUT_ROW:
		r.rows[key] = map[string]map[int64]plainbuffer.Cell{}
	case otsprotocol.ActionType_DELETE_ROW:
		delete(r.rows, key)
		if len(c.row.Cells) > 0 {
			r.t.Fatalf("a delete has cells: %s", c)
		}
		return
	}
	if r.hidden(key, now) {
		delete(r.rows, key)
	}
	if _, there := r.rows[key]; !there {
		sets := slices.ContainsFunc(c.row.Cells, func(c plainbuffer.Cell) bool { return c.HasValue })
		if !sets {
			r.kinds["no row"]++
			return
		}
		r.rows[key] = map[string]map[int64]plainbuffer.Cell{}
	}
	row := r.rows[key]
	for _, cell := range c.row.Cells {
		name := string(cell.Name)
		if row[name] == nil {
			row[name] = map[int64]plainbuffer.Cell{}
		}
		switch cell.Op {
		case plainbuffer.DeleteAll:
			r.kinds["delete all"]++
			delete(row, name)
		case plainbuffer.DeleteOne:
			r.kinds["delete one"]++
			delete(row[name], cell.Timestamp)
		case plainbuffer.Increment:
			r.kinds["increment"]++
			base, _ := r.newest(key, name, now)
			sum := integerCell(name, base.Int()+cell.Int())
			sum.HasTimestamp, sum.Timestamp = true, cell.Timestamp
			row[name][cell.Timestamp] = sum
		default:
			if !cell.HasTimestamp {
				r.t.Fatalf("a cell has no timestamp: %s", c)
			}
			row[name][cell.Timestamp] = cell
		}
	}
	if r.lazy {
		return
	}
	for name := range row {
		for i, ts := range r.times(key, name) {
			if i >= r.versions || !r.alive(ts, now) {
				delete(row[name], ts)
			}
		}
	}
}

// origin compares the row that a record says there was with the one there is.
func (r *replica) origin(c *change, key string, now int64) {
	row, there := r.rows[key]
	if len(r.origins) == 0 || !there {
		if c.origin != nil {
			r.t.Fatalf("%s has an origin: %s", c, cellsText(c.origin.Cells))
		}
		return
	}
	var want []plainbuffer.Cell
	for _, name := range slices.Sorted(keys(row)) {
		if cell, ok := r.newest(key, name, now); ok && slices.Contains(r.origins, name) {
			want = append(want, cell)
		}
	}
	if c.origin == nil {
		r.t.Fatalf("%s has no origin, want %s", c, cellsText(want))
	}
	if got := cellsText(c.origin.Cells); got != cellsText(want) || cellsText(c.origin.Key) != key {
		r.t.Fatalf("the origin of %s is %s, want %s", c, got, cellsText(want))
	}
	r.checked++
}

func integerCell(name string, v int64) plainbuffer.Cell {
	data := make([]byte, 8)
	for i := range data {
		data[i] = byte(uint64(v) >> (8 * i))
	}
	return plainbuffer.Cell{Name: []byte(name), Type: plainbuffer.Integer, Data: data, HasValue: true}
}

// dump is the rows as a read of everything shows them.
func (r *replica) dump(now int64) string {
	var lines []string
	for _, key := range slices.Sorted(keys(r.rows)) {
		var cells []plainbuffer.Cell
		for _, name := range slices.Sorted(keys(r.rows[key])) {
			for i, ts := range r.times(key, name) {
				if i < r.versions && r.alive(ts, now) {
					cells = append(cells, r.rows[key][name][ts])
				}
			}
		}
		if r.hidden(key, now) {
			continue
		}
		lines = append(lines, key+": "+cellsText(cells))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// dumpTable is the table's rows in the same form.
func dumpTable(w *wire, columns int) string {
	w.t.Helper()
	bounds := func(t plainbuffer.Type) []byte {
		var key []plainbuffer.Cell
		for i := range columns {
			key = append(key, plainbuffer.Cell{Name: fmt.Appendf(nil, "pk%d", i+1), Type: t, HasValue: true})
		}
		return block(key)
	}
	req := &otsprotocol.GetRangeRequest{
		TableName:                proto.String("t"),
		Direction:                otsprotocol.Direction_FORWARD.Enum(),
		MaxVersions:              proto.Int32(1 << 30),
		InclusiveStartPrimaryKey: bounds(plainbuffer.InfMin),
		ExclusiveEndPrimaryKey:   bounds(plainbuffer.InfMax),
	}
	var lines []string
	for {
		var res otsprotocol.GetRangeResponse
		w.must("GetRange", req, &res)
		if len(res.Rows) > 0 {
			scanner := plainbuffer.NewScanner(res.Rows)
			for {
				var row plainbuffer.Row
				err := scanner.Next(&row)
				if errors.Is(err, io.EOF) {
					break
				}
				ok(w.t, err)
				lines = append(lines, cellsText(row.Key)+": "+cellsText(row.Cells))
			}
		}
		if res.NextStartPrimaryKey == nil {
			break
		}
		req.InclusiveStartPrimaryKey = bytes.Clone(res.NextStartPrimaryKey)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// same fails with the first lines that differ.
func same(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := 0; i < len(g) || i < len(w); i++ {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			t.Fatalf("%s differs from the table in row %d of %d and %d:\n%s\nwant\n%s", what, i, len(g), len(w), a, b)
		}
	}
}

// A scribbler makes random changes of the table "t", whose key is two integers.
type scribbler struct {
	t   testing.TB
	c   *tablestore.TableStoreClient
	rng *rand.Rand
	now func() int64 // milliseconds
	// plain leaves out what tables with an index refuse: timestamps, and keys that are
	// repeated in a batch.
	plain bool
	// automatic tables make the second column of the key.
	automatic bool
	// transactions are made, too.
	transactions bool
	part         int // of the key's first column, so that several never meet
	made         []int64
	refused      int
}

const scribbleKeys = 12

func (s *scribbler) key() *tablestore.PrimaryKey {
	if s.automatic {
		if len(s.made) == 0 || s.rng.IntN(4) == 0 {
			return key(s.first(), automatic)
		}
		return key(s.first(), s.made[s.rng.IntN(len(s.made))])
	}
	return key(s.first(), s.rng.IntN(scribbleKeys))
}

func (s *scribbler) first() int { return 10*s.part + s.rng.IntN(4) }

func (s *scribbler) cells(update bool) []cell {
	var out []cell
	seen := map[string]bool{}
	for range s.rng.IntN(5) {
		name := fmt.Sprintf("c%d", s.rng.IntN(4))
		ts := int64(-1)
		if !s.plain && s.rng.IntN(2) == 0 {
			ts = s.now() - int64(s.rng.IntN(6))*7
		}
		if update && s.rng.IntN(3) == 0 {
			if s.rng.IntN(2) == 0 {
				out = append(out, cell{name, deleteAll, 0})
			} else {
				out = append(out, cell{name, deleteOne, s.now() - int64(s.rng.IntN(6))*7})
			}
			continue
		}
		if id := fmt.Sprint(name, ts); seen[id] {
			continue
		} else {
			seen[id] = true
		}
		out = append(out, cell{name, int64(s.rng.IntN(1000)), ts})
	}
	return out
}

// transact makes changes of one partition key in a transaction, and others beside it.
func (s *scribbler) transact() error {
	first := s.first()
	start := &tablestore.PrimaryKey{}
	start.AddPrimaryKeyColumn("pk1", int64(first))
	tx, err := s.c.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: "t", PrimaryKey: start})
	if err != nil {
		return err
	}
	for range 1 + s.rng.IntN(5) {
		pk := key(first, s.rng.IntN(scribbleKeys))
		switch s.rng.IntN(4) {
		case 0:
			c := putChange(pk, s.cells(false)...)
			c.TransactionId = tx.TransactionId
			_, err = s.c.PutRow(&tablestore.PutRowRequest{PutRowChange: c})
		case 1:
			c := updateChange(pk, s.cells(true)...)
			c.IncrementColumn("n", 1)
			c.TransactionId = tx.TransactionId
			_, err = s.c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: c})
		case 2:
			c := deleteChange(pk)
			c.TransactionId = tx.TransactionId
			_, err = s.c.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: c})
		default:
			err = put(s.c, key(first+5, 0), s.cells(false)...)
		}
		if err != nil {
			return err
		}
	}
	if s.rng.IntN(4) == 0 {
		_, err = s.c.AbortTransaction(&tablestore.AbortTransactionRequest{TransactionId: tx.TransactionId})
	} else {
		_, err = s.c.CommitTransaction(&tablestore.CommitTransactionRequest{TransactionId: tx.TransactionId})
	}
	return err
}

// step makes one request, or a transaction.
func (s *scribbler) step() error {
	if s.transactions && s.rng.IntN(4) == 0 {
		return s.transact()
	}
	switch s.rng.IntN(12) {
	case 0, 1, 2:
		c := putChange(s.key(), s.cells(false)...)
		c.SetReturnPk()
		res, err := s.c.PutRow(&tablestore.PutRowRequest{PutRowChange: c})
		if err == nil {
			s.learn(&res.PrimaryKey)
		}
		return s.judge(err)
	case 3, 4, 5:
		cells := s.cells(true)
		if len(cells) == 0 {
			return nil
		}
		return s.judge(update(s.c, s.key(), cells...))
	case 6, 7:
		c := updateChange(s.key(), s.cells(true)...)
		c.IncrementColumn("n", int64(s.rng.IntN(9))-4)
		switch s.rng.IntN(5) {
		case 0:
			c.DeleteColumn("m")
		case 1:
			c.IncrementColumn("m", 1)
		}
		_, err := s.c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: c})
		return s.judge(err)
	case 8, 9:
		pk := s.key()
		if s.automatic && pk.PrimaryKeys[1].PrimaryKeyOption == tablestore.AUTO_INCREMENT {
			return nil
		}
		return s.judge(remove(s.c, pk))
	case 10:
		c := updateChange(s.key(), cell{"c0", int64(1), -1})
		c.SetCondition([]tablestore.RowExistenceExpectation{exist, absent}[s.rng.IntN(2)])
		_, err := s.c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: c})
		return s.judge(err)
	}
	batch := &tablestore.BatchWriteRowRequest{IsAtomic: s.rng.IntN(2) == 0}
	first := s.first()
	seen := map[string]bool{}
	for range 1 + s.rng.IntN(6) {
		pk := s.key()
		if batch.IsAtomic {
			pk.PrimaryKeys[0].Value = int64(first)
		}
		if id := keyText(pk); s.plain && seen[id] {
			continue
		} else {
			seen[id] = true
		}
		switch s.rng.IntN(3) {
		case 0:
			batch.AddRowChange(putChange(pk, s.cells(false)...))
		case 1:
			batch.AddRowChange(updateChange(pk, append(s.cells(true), cell{"c1", int64(2), -1})...))
		default:
			if pk.PrimaryKeys[1].PrimaryKeyOption != tablestore.AUTO_INCREMENT {
				batch.AddRowChange(deleteChange(pk))
			}
		}
	}
	if len(batch.RowChangesGroupByTable) == 0 {
		return nil
	}
	_, err := s.c.BatchWriteRow(batch)
	return err
}

func (s *scribbler) learn(pk *tablestore.PrimaryKey) {
	if len(pk.PrimaryKeys) == 2 {
		s.made = append(s.made, pk.PrimaryKeys[1].Value.(int64))
	}
}

// judge lets refusals pass that are the table's right.
func (s *scribbler) judge(err error) error {
	var e *tablestore.OtsError
	if errors.As(err, &e) && (e.Code == "OTSConditionCheckFail" || e.Code == badParameter && strings.Contains(e.Message, "auto increment")) {
		s.refused++
		return nil
	}
	return err
}

// TestStreamReplay makes random changes of a table whose partitions split and merge, and
// which is closed and opened again where it is kept in a file. At random instants, and at
// the end, the rows that a follower has made from the stream alone are those of the
// table; and what was written up to each instant, replayed by its time into an empty
// replica, is the table of that instant. Every switch has its turn.
func TestStreamReplay(t *testing.T) {
	type variant struct {
		behavior engine.Behavior
		stream   engine.StreamBehavior
		columns  []string
		file     bool
		index    bool
		local    bool // an index made beside the stream
		auto     bool
		tx       bool
		evict    bool
		versions int32 // 2 if 0
		ttl      int   // seconds, none if 0
		limit    int32
	}
	variants := map[string]variant{
		"default":              {},
		"file":                 {file: true},
		"increments":           {stream: engine.StreamBehavior{Increments: true}},
		"no noops":             {stream: engine.StreamBehavior{SkipNoops: true}},
		"delete marks":         {stream: engine.StreamBehavior{DeleteMarks: true}},
		"evictions":            {stream: engine.StreamBehavior{Evictions: true}, ttl: 3, evict: true},
		"evictions, origins":   {stream: engine.StreamBehavior{Evictions: true}, ttl: 3, evict: true, columns: []string{"c0", "n"}},
		"expiry":               {ttl: 3, evict: true},
		"hidden rows":          {behavior: engine.Behavior{Reads: engine.ReadBehavior{HideExpiredRows: true}}, ttl: 3},
		"hidden rows, told":    {behavior: engine.Behavior{Reads: engine.ReadBehavior{HideExpiredRows: true}}, stream: engine.StreamBehavior{Evictions: true}, ttl: 3, evict: true},
		"kept versions":        {behavior: engine.Behavior{Writes: engine.WriteBehavior{KeepVersions: true}}},
		"kept versions, told":  {behavior: engine.Behavior{Writes: engine.WriteBehavior{KeepVersions: true}}, stream: engine.StreamBehavior{Evictions: true, Increments: true}, ttl: 3, evict: true},
		"epochs anew":          {stream: engine.StreamBehavior{ResetEpochs: true}},
		"clocks apart":         {stream: engine.StreamBehavior{Skew: 2 * time.Second}},
		"clocks, epochs, file": {stream: engine.StreamBehavior{Skew: time.Second, ResetEpochs: true}, file: true},
		"lag":                  {stream: engine.StreamBehavior{Lag: 50 * time.Millisecond}},
		"pages":                {stream: engine.StreamBehavior{Page: 2, ShardPage: 1, Seeks: 2}, behavior: engine.Behavior{Reads: engine.ReadBehavior{PageSize: 300}}},
		"limit":                {limit: 1},
		"origins":              {columns: []string{"c0", "n", "m"}},
		"origins, kept, file":  {columns: []string{"c1", "n"}, behavior: engine.Behavior{Writes: engine.WriteBehavior{KeepVersions: true}}, stream: engine.StreamBehavior{Increments: true}, file: true, ttl: 3},
		"one version":          {versions: 1},
		"index":                {index: true, versions: 1, columns: []string{"c0"}},
		"index, timestamps":    {index: true, versions: 1, behavior: engine.Behavior{Writes: engine.WriteBehavior{IndexedTimestamps: true}}},
		"only local indexes":   {local: true, versions: 1, stream: engine.StreamBehavior{NoGlobalIndexes: true}},
		"by size":              {behavior: engine.Behavior{Partitions: engine.PartitionBehavior{SplitSize: 1500, MergeSize: 500}}},
		"delay":                {stream: engine.StreamBehavior{Delay: time.Second}},
		"strict":               {stream: engine.StreamBehavior{StrictStart: true, MaxLimit: 3}, limit: 3},
		"automatic keys":       {auto: true},
		"late children":        {stream: engine.StreamBehavior{ChildDelay: 20 * time.Millisecond}, file: true},
		"empty pages":          {stream: engine.StreamBehavior{EmptyPages: 2, Page: 3}},
		"moving, told, empty":  {stream: engine.StreamBehavior{EmptyPages: 1, TellMore: true, MovingIterators: true, Page: 5}, file: true},
		"short lives":          {stream: engine.StreamBehavior{IteratorLife: time.Hour, MovingIterators: true}},
		"late records":         {stream: engine.StreamBehavior{Late: 50 * time.Millisecond, LateEvery: 3}},
		"clocks ahead":         {stream: engine.StreamBehavior{Skew: -2 * time.Second}},
		"transactions":         {tx: true, columns: []string{"c0", "n"}},
		"transactions, told":   {tx: true, stream: engine.StreamBehavior{Evictions: true, Increments: true}, ttl: 3},
		"transactions, file":   {tx: true, file: true, stream: engine.StreamBehavior{SkipNoops: true}},
	}
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			now := newClock(time.UnixMilli(1_700_000_000_000))
			config := ots.Config{Now: now.now, Behavior: v.behavior}
			config.Behavior.Stream = v.stream
			steps, odds := 300, 60
			switch {
			case v.file:
				config.Dir, steps, odds = t.TempDir(), 200, 50
			case v.auto: // whose changes are mostly refused
				steps, odds = 800, 100
			}
			s, err := ots.New(config)
			ok(t, err)
			defer func() { ok(t, s.Close()) }()

			versions := cmp.Or(v.versions, 2)
			ttl := int64(-1)
			if v.ttl > 0 {
				ttl = int64(v.ttl)
			}
			createStreamed(t, inProcess(s), int(versions), int(ttl), v.auto, v.index, v.columns)
			w := wireTo(t, s)
			id := w.stream("t")
			now.advance(v.stream.Delay)
			if v.local {
				_, err := inProcess(s).AddDefinedColumn(&tablestore.AddDefinedColumnRequest{TableName: "t", DefinedColumns: []*tablestore.DefinedColumnSchema{{Name: "c0", ColumnType: tablestore.DefinedColumn_INTEGER}}})
				ok(t, err)
				ok(t, createIndex(inProcess(s), indexMeta("i", true, []string{"pk1", "c0"}, nil), true))
			}
			r := newReplica(t, int(versions), ttl)
			r.lazy, r.hide, r.origins = v.behavior.Writes.KeepVersions, v.behavior.Reads.HideExpiredRows, v.columns
			f := follow(w, id, r)
			f.limit, f.moves = v.limit, v.stream.MovingIterators
			hand := &scribbler{t: t, c: inProcess(s), rng: rng, now: now.millis, plain: v.local || v.index && !v.behavior.Writes.IndexedTimestamps, automatic: v.auto, transactions: v.tx}
			type snapshot struct {
				at   int64 // microseconds
				dump string
			}
			var snapshots []snapshot
			restarts, churned := 0, 0
			partitions := func() int {
				d, err := s.Engine().Definition("t")
				ok(t, engineError(err))
				return len(d.Splits) + 1
			}
			look := func() {
				now.advance(v.stream.Lag + 2*v.stream.ChildDelay + time.Millisecond)
				dump := dumpTable(w, 2)
				snapshots = append(snapshots, snapshot{now.micros.Load(), dump})
				f.drain()
				same(t, "the replica", r.dump(now.millis()), dump)
				now.advance(time.Millisecond)
			}
			// What a random run lacks comes when it goes on.
			lacks := func() (what []string) {
				if len(snapshots) < 3 || churned < 3 || f.ends == 0 || v.file && restarts == 0 {
					what = append(what, fmt.Sprintf("%d instants, %d splits and merges, %d ends of shards, %d restarts", len(snapshots), churned, f.ends, restarts))
				}
				for _, kind := range []string{"PUT_ROW", "UPDATE_ROW", "DELETE_ROW", "delete all", "delete one"} {
					if r.kinds[kind] == 0 {
						what = append(what, "no record of the kind "+kind)
					}
				}
				if v.stream.Increments && r.kinds["increment"] == 0 {
					what = append(what, "no increment")
				}
				if len(v.columns) > 0 && r.checked < 50 {
					what = append(what, fmt.Sprintf("%d origins compared", r.checked))
				}
				return what
			}
			for n := 0; n < steps || n < 20*steps && lacks() != nil; n++ {
				ok(t, hand.step())
				now.advance(time.Duration(rng.IntN(3000)) * time.Microsecond)
				switch n := rng.IntN(odds); {
				case n < 4:
					look()
				case n < 7:
					at := []plainbuffer.Cell{integerCell("pk1", int64(rng.IntN(4))), integerCell("pk2", int64(rng.IntN(scribbleKeys)))}
					if s.Engine().SplitPartition("t", at) == nil {
						churned++
					}
				case n < 10 && partitions() > 1:
					if s.Engine().MergePartitions("t", rng.IntN(partitions()-1)) == nil {
						churned++
					}
				case n < 12 && v.evict:
					if err := s.Engine().Evict("t"); err != nil {
						t.Fatal(err)
					}
				case n < 14 && v.ttl > 0:
					now.advance(time.Second)
				case n < 16 && v.file:
					ok(t, s.Close())
					s, err = ots.New(config)
					ok(t, err)
					w = wireTo(t, s)
					f.wire, hand.c = w, inProcess(s)
					restarts++
				}
			}
			look()

			for _, what := range lacks() {
				t.Error(what)
			}
			if noops := r.kinds["no row"]; v.stream.SkipNoops && noops > 0 {
				t.Errorf("%d records of changes that changed nothing", noops)
			}
			if n := r.kinds["increment"]; n > 0 && !v.stream.Increments {
				t.Errorf("%d increments", n)
			}
			t.Logf("%d records of %d shards, %v, %d instants, %d restarts, %d refused", len(f.seen), len(f.shards), r.kinds, len(snapshots), restarts, hand.refused)

			// A second reader gets the same, from the oldest record on.
			again := follow(w, id, r.empty())
			again.replica.origins, again.moves = v.columns, v.stream.MovingIterators
			again.drain()
			same(t, "a second replica", again.replica.dump(now.millis()), dumpTable(w, 2))
			if v.stream.Skew != 0 || v.stream.Late != 0 {
				return // no time cuts such a stream
			}
			for _, shot := range snapshots {
				cut := r.empty()
				cut.origins = v.columns
				for _, c := range again.seen {
					if c.row.Extension.Timestamp <= shot.at {
						cut.apply(c)
					}
				}
				same(t, "the replica of an instant", cut.dump(shot.at/1000), shot.dump)
			}
		})
	}
}

// createStreamed makes a table "t" of two integers with a stream.
func createStreamed(t testing.TB, c *tablestore.TableStoreClient, versions, ttl int, auto, index bool, columns []string) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("pk1", integer)
	if auto {
		meta.AddPrimaryKeyColumnOption("pk2", integer, tablestore.AUTO_INCREMENT)
	} else {
		meta.AddPrimaryKeyColumn("pk2", integer)
	}
	req := &tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: ttl, MaxVersion: versions, DeviationCellVersionInSec: anyTime},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		EnableLocalTxn:     proto.Bool(true),
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24, OriginColumnsToGet: columns},
	}
	if index {
		meta.AddDefinedColumn("c0", tablestore.DefinedColumn_INTEGER)
		req.IndexMetas = []*tablestore.IndexMeta{{IndexName: "i", Primarykey: []string{"c0"}}}
	}
	_, err := c.CreateTable(req)
	ok(t, err)
}

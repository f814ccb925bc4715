package ots_test

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
)

// raced starts a server whose clock is a millisecond later each time that it is looked
// at, and lets others go first once it was: two writes that look at it before their turn
// have their stamps in the wrong order, on one processor, too.
func raced(t *testing.T, dir string) *ots.Server {
	t.Helper()
	var ticks atomic.Int64
	return otstest.New(t, ots.Config{Dir: dir, Now: func() time.Time {
		at := time.UnixMilli(1_700_000_000_000 + ticks.Add(1))
		runtime.Gosched()
		return at
	}})
}

// A kindOfWrite is made of one row by many clients at the same time. Each write that is
// done adds 1 to the column n.
type kindOfWrite func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error

func incrementOf(pk *tablestore.PrimaryKey) *tablestore.UpdateRowChange {
	change := updateChange(pk)
	change.IncrementColumn("n", 1)
	return change
}

// count is n in the row, 0 if it has none.
func count(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) (int64, error) {
	res, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: pk, MaxVersion: 1}})
	if err != nil || len(res.Columns) == 0 {
		return 0, err
	}
	return res.Columns[0].Value.(int64), nil
}

// readAndAdd replaces what was read, if it is still there, until it is.
func readAndAdd(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey, write func(from, to int64) error) error {
	for {
		n, err := count(c, pk)
		if err != nil {
			return err
		}
		err = write(n, n+1)
		var e *tablestore.OtsError
		if !errors.As(err, &e) || e.Code != "OTSConditionCheckFail" {
			return err
		}
	}
}

func whereN(n int64) *tablestore.SingleColumnCondition {
	x := tablestore.NewSingleColumnCondition("n", tablestore.CT_EQUAL, n)
	x.FilterIfMissing, x.LatestVersionOnly = n != 0, true
	return x
}

func batchOf(changes ...tablestore.RowChange) *tablestore.BatchWriteRowRequest {
	batch := &tablestore.BatchWriteRowRequest{}
	for _, c := range changes {
		batch.AddRowChange(c)
	}
	return batch
}

func batchError(res *tablestore.BatchWriteRowResponse, err error) error {
	if err != nil {
		return err
	}
	for _, row := range res.TableToRowsResult["t"] {
		if !row.IsSucceed {
			return &tablestore.OtsError{Code: row.Error.Code, Message: row.Error.Message}
		}
	}
	return nil
}

// inTransaction waits for its turn at the partition key, and makes a change.
func inTransaction(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey, write func(id *string) error) error {
	first := &tablestore.PrimaryKey{PrimaryKeys: pk.PrimaryKeys[:1]}
	for {
		res, err := c.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: "t", PrimaryKey: first})
		var e *tablestore.OtsError
		if errors.As(err, &e) && e.Code == "OTSRowOperationConflict" {
			runtime.Gosched()
			continue
		}
		if err != nil {
			return err
		}
		if err := write(res.TransactionId); err != nil {
			return err
		}
		_, err = c.CommitTransaction(&tablestore.CommitTransactionRequest{TransactionId: res.TransactionId})
		return err
	}
}

var kindsOfWrites = map[string]kindOfWrite{
	"increment": func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
		_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: incrementOf(pk)})
		return err
	},
	"increment in a batch": func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
		other := key(pk.PrimaryKeys[0].Value, 999)
		return batchError(c.BatchWriteRow(batchOf(incrementOf(pk), putChange(other, cell{"v", int64(1), -1}))))
	},
	"increment in an atomic batch": func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
		other := key(pk.PrimaryKeys[0].Value, 999)
		batch := batchOf(incrementOf(pk), putChange(other, cell{"v", int64(1), -1}))
		batch.IsAtomic = true
		return batchError(c.BatchWriteRow(batch))
	},
	"increment in a transaction": func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
		return inTransaction(c, pk, func(id *string) error {
			change := incrementOf(pk)
			change.TransactionId = id
			_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
			return err
		})
	},
	"conditional put": func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
		return readAndAdd(c, pk, func(from, to int64) error {
			change := putChange(pk, cell{"n", to, -1})
			change.SetColumnCondition(whereN(from))
			_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
			return err
		})
	},
	"conditional update": func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
		return readAndAdd(c, pk, func(from, to int64) error {
			change := updateChange(pk, cell{"n", to, -1})
			change.SetColumnCondition(whereN(from))
			_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
			return err
		})
	},
	"conditional update in a batch": func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
		return readAndAdd(c, pk, func(from, to int64) error {
			change := updateChange(pk, cell{"n", to, -1})
			change.SetColumnCondition(whereN(from))
			return batchError(c.BatchWriteRow(batchOf(change)))
		})
	},
	"put in a transaction": func(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
		return inTransaction(c, pk, func(id *string) error {
			res, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: pk, MaxVersion: 1, TransactionId: id}})
			if err != nil {
				return err
			}
			n := int64(1)
			if len(res.Columns) > 0 {
				n += res.Columns[0].Value.(int64)
			}
			return putIn(c, *id, pk, cell{"n", n, -1})
		})
	},
}

// TestRacesOfOneRow has many clients write to one row, each kind of write in its turn and
// then all of them together. No write is lost; the newest value is the last; and the
// stream has the values in the order of their stamps.
func TestRacesOfOneRow(t *testing.T) {
	type run struct {
		name     string
		kinds    []kindOfWrite
		versions int
		file     bool
	}
	var runs []run
	var all []kindOfWrite
	for _, name := range slices.Sorted(keys(kindsOfWrites)) {
		kind := kindsOfWrites[name]
		if !strings.Contains(name, "put") {
			all = append(all, kind)
			runs = append(runs, run{name, []kindOfWrite{kind}, 1, false})
		}
		runs = append(runs, run{name + ", versions", []kindOfWrite{kind}, 1 << 20, false})
	}
	runs = append(runs,
		run{"all", all, 1 << 20, false}, run{"all, one version", all, 1, false},
		run{"all, file", all, 1, true}, run{"increment, file", []kindOfWrite{kindsOfWrites["increment"]}, 1 << 20, true})
	for _, r := range runs {
		t.Run(r.name, func(t *testing.T) {
			const writers = 8
			each, dir := 10, ""
			if r.file {
				each, dir = 4, t.TempDir()
			}
			s := raced(t, dir)
			c := inProcess(s)
			createStreamed(t, c, r.versions, -1, false, false, nil)
			pk := key(1, 1)
			var wg sync.WaitGroup
			for i := range writers {
				wg.Go(func() {
					c := inProcess(s)
					for n := range each {
						write := r.kinds[(i+n)%len(r.kinds)]
						for {
							err := write(c, pk)
							// Another's transaction has the row.
							if e := new(tablestore.OtsError); errors.As(err, &e) && e.Code == "OTSRowOperationConflict" {
								runtime.Gosched()
								continue
							}
							if err != nil {
								t.Errorf("writer %d: %v", i, err)
							}
							break
						}
					}
				})
			}
			wg.Wait()
			cells, _ := get(t, c, pk)
			if len(cells) == 0 || cells[0].Value != int64(writers*each) {
				t.Fatalf("%d writes come to %v", writers*each, cells)
			}
			w := wireTo(t, s)
			records, _ := w.all(w.oldest(0))
			last, n := int64(0), int64(0)
			for _, c := range records {
				if c.row.Key[1].Int() != 1 {
					continue
				}
				n++
				if got := c.row.Cells[0]; got.Int() != n || got.Timestamp < last {
					t.Fatalf("record %d is %s, the one before is of %d", n, c, last)
				}
				last = c.row.Cells[0].Timestamp
			}
			if n != int64(writers*each) {
				t.Errorf("%d records of %d writes", n, writers*each)
			}
		})
	}
}

// TestRacesOfPlainWrites has many clients put, update and delete one row, plainly and in
// batches. The row is in the end what the stream's last records say, which have their
// stamps in order.
func TestRacesOfPlainWrites(t *testing.T) {
	for _, versions := range []int{1, 3} {
		t.Run(fmt.Sprint(versions, " versions"), func(t *testing.T) {
			s := raced(t, "")
			createStreamed(t, inProcess(s), versions, -1, false, false, nil)
			pk := key(1, 1)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					c := inProcess(s)
					for n := range 25 {
						x := cell{"v", int64(100*i + n), -1}
						var err error
						switch (i + n) % 6 {
						case 0:
							err = put(c, pk, x)
						case 1, 2:
							err = update(c, pk, x)
						case 3:
							err = batchError(c.BatchWriteRow(batchOf(putChange(pk, x), updateChange(pk, cell{"w", int64(n), -1}))))
						case 4:
							err = batchError(c.BatchWriteRow(batchOf(updateChange(pk, x))))
						default:
							if n%3 == 0 {
								err = remove(c, pk)
							}
						}
						if err != nil {
							t.Errorf("writer %d: %v", i, err)
						}
					}
				})
			}
			wg.Wait()
			w := wireTo(t, s)
			f := follow(w, w.stream("t"), newReplica(t, versions, -1))
			f.drain()
			same(t, "the replica", f.replica.dump(0), dumpTable(w, 2))
			last := int64(0)
			for _, c := range f.seen {
				for _, x := range c.row.Cells {
					if x.Timestamp < last {
						t.Fatalf("%s comes after a write of %d", c, last)
					}
					last = x.Timestamp
				}
			}
		})
	}
}

// TestRacesOfMadeKeys has many clients have keys made. Keys and stamps grow in the order
// of the stream, and each client gets another key.
func TestRacesOfMadeKeys(t *testing.T) {
	s := raced(t, "")
	createStreamed(t, inProcess(s), 1, -1, true, false, nil)
	const writers, each = 8, 20
	var mu sync.Mutex
	made := map[int64]bool{}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			c := inProcess(s)
			for range each {
				change := putChange(key(1, automatic), cell{"v", int64(1), -1})
				change.SetReturnPk()
				res, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
				if err != nil {
					t.Error(err)
					continue
				}
				mu.Lock()
				made[res.PrimaryKey.PrimaryKeys[1].Value.(int64)] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	w := wireTo(t, s)
	records, _ := w.all(w.oldest(0))
	if len(made) != writers*each || len(records) != len(made) {
		t.Fatalf("%d keys and %d records of %d writes", len(made), len(records), writers*each)
	}
	sorted := slices.IsSortedFunc(records, func(a, b *change) int {
		return cmp.Or(cmp.Compare(a.row.Key[1].Int(), b.row.Key[1].Int()), cmp.Compare(a.row.Cells[0].Timestamp, b.row.Cells[0].Timestamp))
	})
	stamps := slices.IsSortedFunc(records, func(a, b *change) int {
		return cmp.Compare(a.row.Cells[0].Timestamp, b.row.Cells[0].Timestamp)
	})
	if !sorted || !stamps || records[0].action != otsprotocol.ActionType_PUT_ROW {
		t.Errorf("keys in order %v, stamps in order %v", sorted, stamps)
	}
}

// TestIncrementsOfLaterVersions proves that an increment is never older than the value
// that it adds to: one that was written ahead of the clock, or before the clock was set
// back.
func TestIncrementsOfLaterVersions(t *testing.T) {
	for _, versions := range []int{1, 5} {
		now := newClock(time.UnixMilli(1_700_000_000_000))
		s := otstest.Run(t, ots.Config{Now: now.now})
		c := connect(s)
		create(t, c, tablestore.TableOption{MaxVersion: versions}, integer)
		ok(t, put(c, key(1), cell{"n", int64(5), now.millis() + 1000}))
		now.advance(-time.Hour)
		for want := int64(6); want < 9; want++ {
			change := incrementOf(key(1))
			change.SetReturnIncrementValue()
			change.AppendIncrementColumnToReturn("n")
			res, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
			ok(t, err)
			if got := res.Columns[0].Value; got != want {
				t.Errorf("with %d versions the sum is %v, want %d", versions, got, want)
			}
			if got, _ := get(t, c, key(1)); got[0].Value != want {
				t.Errorf("with %d versions the row has %v, want %d first", versions, got, want)
			}
		}
	}
}

// TestIncrementsInABatch refuses to write a row twice in a batch in which it is
// incremented. Other rows, and the same one in the next batch, are written.
func TestIncrementsInABatch(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{MaxVersion: 3}, integer)
	const text = "Repeated rows do not support atomic increment in BatchModify."
	for name, changes := range map[string][]tablestore.RowChange{
		"two increments":                     {incrementOf(key(1)), incrementOf(key(1))},
		"an increment and a put":             {incrementOf(key(1)), putChange(key(1), cell{"v", int64(1), -1})},
		"an update and an increment":         {updateChange(key(1), cell{"v", int64(1), -1}), incrementOf(key(1))},
		"an increment and a row's deletion":  {incrementOf(key(1)), deleteChange(key(1))},
		"increments of two columns of a row": {incrementOf(key(1)), func() tablestore.RowChange { u := updateChange(key(1)); u.IncrementColumn("m", 1); return u }()},
	} {
		for _, atomic := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", atomic ", atomic), func(t *testing.T) {
				other := incrementOf(key(2))
				if atomic {
					other = incrementOf(key(1))
				}
				batch := batchOf(append(slices.Clone(changes), other)...)
				batch.IsAtomic = atomic
				res, err := c.BatchWriteRow(batch)
				ok(t, err)
				for i, row := range res.TableToRowsResult["t"] {
					if i == len(changes) && !atomic {
						if !row.IsSucceed {
							t.Errorf("another row: %+v", row.Error)
						}
						continue
					}
					if row.IsSucceed || row.Error.Code != badParameter || row.Error.Message != text {
						t.Errorf("row %d: %v %+v", i, row.IsSucceed, row.Error)
					}
				}
			})
		}
	}
	if _, there := get(t, c, key(1)); there {
		t.Error("a row that was refused is there")
	}
	if n, err := count(c, key(2)); n != 5 || err != nil {
		t.Errorf("the other row counts %d, %v", n, err)
	}
}

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/shared/guard"
)

// demoData says how much the demo loads.
type demoData struct{ orders, events, wide int }

func (n demoData) rows() int { return n.orders + n.events + n.wide + 1 }

// wideDeviation lets the demo write timestamps of the past.
const wideDeviation = 86400 * 365 * 100

// demoTime is the newest timestamp that the demo writes.
var demoTime = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

func (n demoData) load(ctx context.Context, c *tablestore.TableStoreClient) error {
	orders := &tablestore.TableMeta{TableName: "orders"}
	orders.AddPrimaryKeyColumn("customer", tablestore.PrimaryKeyType_STRING)
	orders.AddPrimaryKeyColumn("number", tablestore.PrimaryKeyType_INTEGER)
	events := &tablestore.TableMeta{TableName: "events"}
	events.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_BINARY)
	for _, meta := range []*tablestore.TableMeta{orders, events} {
		_, err := c.CreateTable(&tablestore.CreateTableRequest{
			TableMeta:          meta,
			TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 3, DeviationCellVersionInSec: wideDeviation},
			ReservedThroughput: &tablestore.ReservedThroughput{},
		})
		if err != nil {
			return err
		}
	}
	work, ctx := guard.WithContext(ctx)
	work.SetLimit(2 * runtime.GOMAXPROCS(0))
	// chunk loads the rows of a table a few thousand at a time.
	chunk := func(rows int, row func(*rand.Rand, int) *tablestore.PutRowChange) {
		const size = 5000
		for from := 0; from < rows; from += size {
			work.Go(func() error {
				rng := rand.New(rand.NewPCG(1, uint64(from)))
				for at := from; at < min(from+size, rows) && ctx.Err() == nil; at += 200 {
					batch := &tablestore.BatchWriteRowRequest{}
					for i := at; i < min(at+200, from+size, rows); i++ {
						batch.AddRowChange(row(rng, i))
					}
					if err := writeBatch(c, batch); err != nil {
						return err
					}
				}
				return ctx.Err()
			})
		}
	}
	chunk(n.orders, order)
	chunk(n.events, event)
	for i := range n.wide {
		work.Go(func() error { return wideOrder(c, i) })
	}
	work.Go(func() error { return emptyOrder(c) })
	return work.Wait()
}

// writeBatch writes a batch whose every row must be taken.
func writeBatch(c *tablestore.TableStoreClient, batch *tablestore.BatchWriteRowRequest) error {
	res, err := c.BatchWriteRow(batch)
	if err != nil {
		return err
	}
	for _, rows := range res.TableToRowsResult {
		for _, r := range rows {
			if !r.IsSucceed {
				return fmt.Errorf("row %d: %s %s", r.Index, r.Error.Code, r.Error.Message)
			}
		}
	}
	return nil
}

func put(tableName string, key *tablestore.PrimaryKey) *tablestore.PutRowChange {
	p := &tablestore.PutRowChange{TableName: tableName, PrimaryKey: key}
	p.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	return p
}

func orderKey(customer, number int) *tablestore.PrimaryKey {
	k := new(tablestore.PrimaryKey)
	k.AddPrimaryKeyColumn("customer", fmt.Sprintf("customer-%05d", customer))
	k.AddPrimaryKeyColumn("number", int64(number))
	return k
}

var (
	demoCities = []string{"杭州", "Berlin", "Hamburg", "São Paulo", "上海", "Nairobi", "Oslo", "Wien"}
	demoWords  = strings.Fields("table key range shard vault proof restore point order paid sent late gift blue green small large")
)

func order(rng *rand.Rand, i int) *tablestore.PutRowChange {
	p := put("orders", orderKey(i/20, i%20))
	ts := demoTime - int64(i%86400)*1000
	p.AddColumnWithTimestamp("amount", float64(rng.IntN(100_000))/100, ts)
	p.AddColumnWithTimestamp("city", demoCities[rng.IntN(len(demoCities))], ts)
	p.AddColumnWithTimestamp("items", int64(1+rng.IntN(9)), ts)
	p.AddColumnWithTimestamp("note", demoWords[rng.IntN(len(demoWords))]+" "+demoWords[rng.IntN(len(demoWords))], ts)
	p.AddColumnWithTimestamp("paid", rng.IntN(3) > 0, ts)
	if i%4 == 0 {
		// The status has a history.
		for v, s := range []string{"delivered", "sent", "ordered"} {
			p.AddColumnWithTimestamp("status", s, ts-int64(v)*3_600_000)
		}
	}
	if i%10 == 0 {
		tag := make([]byte, 12)
		binary.BigEndian.PutUint64(tag, rng.Uint64())
		p.AddColumnWithTimestamp("signature", tag, ts)
	}
	return p
}

func event(rng *rand.Rand, i int) *tablestore.PutRowChange {
	id := make([]byte, 12)
	binary.BigEndian.PutUint32(id, uint32(i)*0x9E3779B1) // spread over the key space
	binary.BigEndian.PutUint64(id[4:], uint64(i))
	k := new(tablestore.PrimaryKey)
	k.AddPrimaryKeyColumn("id", id)
	p := put("events", k)
	ts := demoTime - int64(i)*1000
	p.AddColumnWithTimestamp("at", ts, ts)
	p.AddColumnWithTimestamp("kind", demoWords[rng.IntN(len(demoWords))], ts)
	p.AddColumnWithTimestamp("value", rng.NormFloat64(), ts)
	return p
}

// wideOrder is a row of more columns than one request may carry.
func wideOrder(c *tablestore.TableStoreClient, i int) error {
	rng := rand.New(rand.NewPCG(2, uint64(i)))
	for part := range 3 {
		u := &tablestore.UpdateRowChange{TableName: "orders", PrimaryKey: orderKey(90_000+i, 0)}
		u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		for col := range 500 {
			u.PutColumnWithTimestamp(fmt.Sprintf("reading-%04d", part*500+col), fmt.Sprintf("%x-%s", rng.Uint64(), strings.Repeat("x", 300)), demoTime)
		}
		if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u}); err != nil {
			return err
		}
	}
	return nil
}

// emptyOrder is a row that has nothing but its key.
func emptyOrder(c *tablestore.TableStoreClient) error {
	p := put("orders", orderKey(99_999, 0))
	p.AddColumnWithTimestamp("scratch", "x", demoTime)
	if _, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: p}); err != nil {
		return err
	}
	u := &tablestore.UpdateRowChange{TableName: "orders", PrimaryKey: orderKey(99_999, 0)}
	u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	u.DeleteColumn("scratch")
	_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u})
	return err
}

// damagedMissing is how many rows damage deletes.
const damagedMissing = 3

// damage deletes rows, changes one and adds one.
func (n demoData) damage(c *tablestore.TableStoreClient) error {
	for i := range damagedMissing {
		d := &tablestore.DeleteRowChange{TableName: "orders", PrimaryKey: orderKey(n.orders/40, i)}
		d.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		if _, err := c.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: d}); err != nil {
			return err
		}
	}
	u := &tablestore.UpdateRowChange{TableName: "orders", PrimaryKey: orderKey(0, 7)}
	u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	u.PutColumnWithTimestamp("amount", 0.01, demoTime+1)
	if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u}); err != nil {
		return err
	}
	p := put("orders", orderKey(0, 1_000_000))
	p.AddColumnWithTimestamp("note", "nobody ordered this", demoTime)
	_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: p})
	return err
}

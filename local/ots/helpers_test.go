package ots_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// connect returns the unmodified SDK's client, which does not retry.
func connect(s *ots.Server) *tablestore.TableStoreClient {
	return connectAs(s, ots.DefaultKeyID, ots.DefaultKeySecret, "")
}

func connectAs(s *ots.Server, id, secret, token string) *tablestore.TableStoreClient {
	config := tablestore.NewDefaultTableStoreConfig()
	config.RetryTimes = 0
	return tablestore.NewClientWithConfig(s.URL(), "local", id, secret, token, config)
}

// A clock is a time in the test's hand.
type clock struct{ micros atomic.Int64 }

func newClock(at time.Time) *clock {
	c := new(clock)
	c.micros.Store(at.UnixMicro())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMicro(c.micros.Load()) }
func (c *clock) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }
func (c *clock) millis() int64           { return c.micros.Load() / 1000 }

// anyTime is a deviation that allows every timestamp.
const anyTime = 9223372036854

// create makes a table "t" with a key of pk1, pk2, … of the types.
func create(t testing.TB, c *tablestore.TableStoreClient, options tablestore.TableOption, types ...tablestore.PrimaryKeyType) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: "t"}
	for i, kind := range types {
		meta.AddPrimaryKeyColumn(fmt.Sprintf("pk%d", i+1), kind)
	}
	if options.TimeToAlive == 0 {
		options.TimeToAlive = -1
	}
	if options.MaxVersion == 0 {
		options.MaxVersion = 1
	}
	_, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &options,
		ReservedThroughput: &tablestore.ReservedThroughput{},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// key makes a key of pk1, pk2, … with the values: strings, int64, []byte, or the bounds
// lowest and highest, or automatic.
func key(values ...any) *tablestore.PrimaryKey {
	pk := &tablestore.PrimaryKey{}
	for i, v := range values {
		name := fmt.Sprintf("pk%d", i+1)
		switch v {
		case lowest:
			pk.AddPrimaryKeyColumnWithMinValue(name)
		case highest:
			pk.AddPrimaryKeyColumnWithMaxValue(name)
		case automatic:
			pk.AddPrimaryKeyColumnWithAutoIncrement(name)
		default:
			if n, ok := v.(int); ok {
				v = int64(n)
			}
			pk.AddPrimaryKeyColumn(name, v)
		}
	}
	return pk
}

type bound int

const (
	lowest    bound = 1
	highest   bound = 2
	automatic bound = 3
)

// cell is one version of a column in tests; Time below 0 leaves it to the server.
type cell struct {
	Name  string
	Value any
	Time  int64
}

func (c cell) String() string { return fmt.Sprintf("%s@%d=%v", c.Name, c.Time, c.Value) }

const (
	ignore = tablestore.RowExistenceExpectation_IGNORE
	exist  = tablestore.RowExistenceExpectation_EXPECT_EXIST
	absent = tablestore.RowExistenceExpectation_EXPECT_NOT_EXIST
)

// put replaces a row. Unlike the SDK's own change it keeps a timestamp of 0.
func put(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey, cells ...cell) error {
	_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: putChange(pk, cells...)})
	return err
}

func putChange(pk *tablestore.PrimaryKey, cells ...cell) *tablestore.PutRowChange {
	change := &tablestore.PutRowChange{TableName: "t", PrimaryKey: pk}
	change.SetCondition(ignore)
	for _, x := range cells {
		if x.Time < 0 {
			change.AddColumn(x.Name, x.Value)
		} else {
			change.AddColumnWithTimestamp(x.Name, x.Value, x.Time)
		}
	}
	return change
}

func updateChange(pk *tablestore.PrimaryKey, cells ...cell) *tablestore.UpdateRowChange {
	change := &tablestore.UpdateRowChange{TableName: "t", PrimaryKey: pk}
	change.SetCondition(ignore)
	for _, x := range cells {
		switch {
		case x.Value == deleteAll:
			change.DeleteColumn(x.Name)
		case x.Value == deleteOne:
			change.DeleteColumnWithTimestamp(x.Name, x.Time)
		case x.Time < 0:
			change.PutColumn(x.Name, x.Value)
		default:
			change.PutColumnWithTimestamp(x.Name, x.Value, x.Time)
		}
	}
	return change
}

type operation int

const (
	deleteAll operation = 1
	deleteOne operation = 2
)

func update(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey, cells ...cell) error {
	_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: updateChange(pk, cells...)})
	return err
}

func deleteChange(pk *tablestore.PrimaryKey) *tablestore.DeleteRowChange {
	change := &tablestore.DeleteRowChange{TableName: "t", PrimaryKey: pk}
	change.SetCondition(ignore)
	return change
}

func remove(c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey) error {
	_, err := c.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: deleteChange(pk)})
	return err
}

// get reads all versions of a row: nil cells and false if it is not there.
func get(t testing.TB, c *tablestore.TableStoreClient, pk *tablestore.PrimaryKey, with ...func(*tablestore.SingleRowQueryCriteria)) ([]cell, bool) {
	t.Helper()
	criteria := &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: pk, MaxVersion: 1 << 30}
	for _, w := range with {
		w(criteria)
	}
	res, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: criteria})
	if err != nil {
		t.Fatal(err)
	}
	return cellsOf(res.Columns), len(res.PrimaryKey.PrimaryKeys) > 0
}

func cellsOf(columns []*tablestore.AttributeColumn) []cell {
	var out []cell
	for _, x := range columns {
		out = append(out, cell{x.ColumnName, x.Value, x.Timestamp})
	}
	return out
}

// page reads one page of a range with all versions.
func page(t testing.TB, c *tablestore.TableStoreClient, from, to *tablestore.PrimaryKey, with ...func(*tablestore.RangeRowQueryCriteria)) *tablestore.GetRangeResponse {
	t.Helper()
	res, err := tryPage(c, from, to, with...)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func tryPage(c *tablestore.TableStoreClient, from, to *tablestore.PrimaryKey, with ...func(*tablestore.RangeRowQueryCriteria)) (*tablestore.GetRangeResponse, error) {
	criteria := &tablestore.RangeRowQueryCriteria{TableName: "t", StartPrimaryKey: from, EndPrimaryKey: to, MaxVersion: 1 << 30, Direction: tablestore.FORWARD}
	for _, w := range with {
		w(criteria)
	}
	return c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: criteria})
}

// keysOf prints the keys of rows.
func keysOf(rows []*tablestore.Row) string {
	var all []string
	for _, r := range rows {
		all = append(all, keyText(r.PrimaryKey))
	}
	return strings.Join(all, " ")
}

func keyText(pk *tablestore.PrimaryKey) string {
	if pk == nil {
		return "none"
	}
	var parts []string
	for _, k := range pk.PrimaryKeys {
		if b, ok := k.Value.([]byte); ok {
			parts = append(parts, fmt.Sprintf("0x%x", b))
		} else {
			parts = append(parts, fmt.Sprint(k.Value))
		}
	}
	return strings.Join(parts, ",")
}

// want fails unless err is the service's, with the code and text.
func want(t testing.TB, err error, status int, code, message string) {
	t.Helper()
	var e *tablestore.OtsError
	if !errors.As(err, &e) {
		t.Errorf("error %v, want %s %q", err, code, message)
		return
	}
	if e.Code != code || e.Message != message || e.HttpStatusCode != status {
		t.Errorf("error %d %s %q, want %d %s %q", e.HttpStatusCode, e.Code, e.Message, status, code, message)
	}
	if len(e.RequestId) != 36 {
		t.Errorf("request id %q", e.RequestId)
	}
}

const (
	badParameter = "OTSParameterInvalid"
	badKey       = "OTSInvalidPK"
)

// await waits until something is so. Only a failure comes near its bound.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after two minutes it is not so that %s", what)
		}
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T any](t testing.TB, what string, got, want []T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s = %v\nwant %v", what, got, want)
	}
}

// send is a request of the wire, for what the SDK cannot say.
func send(t testing.TB, s *ots.Server, op string, m, answer proto.Message) *otsprotocol.Error {
	t.Helper()
	res, err := http.DefaultClient.Do(request(t, s.URL(), op, m))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		refused := new(otsprotocol.Error)
		if err := proto.Unmarshal(body, refused); err != nil {
			t.Fatalf("%s answered %d and %q", op, res.StatusCode, body)
		}
		return refused
	}
	if answer != nil {
		if err := proto.Unmarshal(body, answer); err != nil {
			t.Fatal(err)
		}
	}
	return nil
}

// request is a signed request of the wire.
func request(t testing.TB, url, op string, m proto.Message) *http.Request {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return requestBytes(t, url, op, body)
}

func requestBytes(t testing.TB, url, op string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequest("POST", url+"/"+op, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(body)
	r.Header.Set("x-ots-date", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
	r.Header.Set("x-ots-apiversion", "2015-12-31")
	r.Header.Set("x-ots-accesskeyid", ots.DefaultKeyID)
	r.Header.Set("x-ots-instancename", "local")
	r.Header.Set("x-ots-contentmd5", base64.StdEncoding.EncodeToString(sum[:]))
	sign(t, r, ots.DefaultKeySecret)
	return r
}

// sign signs with the SDK's own code.
func sign(t testing.TB, r *http.Request, secret string) {
	t.Helper()
	r.Header.Del("x-ots-signature")
	signature, err := tablestore.GetSignature(r.URL.Path, "POST", &common.DefaultCredentials{AccessKeyID: r.Header.Get("x-ots-accesskeyid"), AccessKeySecret: secret}, r.Header)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-ots-signature", signature)
}

// block builds a PlainBuffer row of the wire.
func block(key []plainbuffer.Cell, cells ...plainbuffer.Cell) []byte {
	b := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	b.Begin()
	for i := range key {
		b.Cell(&key[i])
	}
	if len(cells) > 0 {
		b.Attributes()
	}
	for i := range cells {
		b.Cell(&cells[i])
	}
	b.End(false)
	return slices.Clone(b.Buf)
}

func keyCell(name, value string) plainbuffer.Cell {
	return plainbuffer.Cell{Name: []byte(name), Type: plainbuffer.String, Data: []byte(value), HasValue: true}
}

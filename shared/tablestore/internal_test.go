package tablestore

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	sdk "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// TestSigningKey holds the key of signatures of version 4 against the vector of the SDK.
func TestSigningKey(t *testing.T) {
	if got := string(signingKey("credentials_test_secret", "20240808", "cn-hangzhou")); got != "RNN1/s8/m45SdD+EzXlvpyGxc4Enu0RiODs1Lg+xFpo=" {
		t.Errorf("key %s", got)
	}
}

// TestSignatureOfSDK holds signatures against those of the SDK's own helper.
func TestSignatureOfSDK(t *testing.T) {
	now := time.Now()
	for _, creds := range []access.Key{{ID: "id", Secret: "secret"}, {ID: "id", Secret: "secret", Token: "token"}} {
		for _, v4 := range []bool{false, true} {
			c := &Client{config: Config{Instance: "shop", Region: "cn-hangzhou", SignV4: v4}}
			h := c.header("GetRange", []byte("body"), creds, now)
			name := "X-Ots-Signature"
			var theirs common.Credentials = &common.DefaultCredentials{AccessKeyID: creds.ID, AccessKeySecret: creds.Secret, SecurityToken: creds.Token}
			if v4 {
				name = "X-Ots-Signaturev4"
				key := string(signingKey(creds.Secret, now.UTC().Format("20060102"), c.config.Region))
				theirs = &common.V4Credentials{AccessKeyID: creds.ID, AccessKeySecret: creds.Secret, V4SigningStsToken: creds.Token,
					Region: c.config.Region, SigningDate: now.UTC().Format("20060102"), V4SigningAccessKey: key}
			}
			got := h.Get(name)
			bare := http.Header{}
			for k, v := range h {
				if k != name && strings.HasPrefix(k, "X-Ots-") {
					bare[k] = slices.Clone(v)
				}
			}
			want, err := sdk.GetSignature("/GetRange", "POST", theirs, bare)
			if err != nil || got != want || got == "" {
				t.Errorf("v4 %t, %s: %q, the SDK has %q, %v", v4, creds, got, want, err)
			}
		}
	}
}

func TestServerTime(t *testing.T) {
	want := time.Date(2026, 11, 20, 23, 36, 35, 0, time.UTC)
	for text, fraction := range map[string]time.Duration{
		"2026-11-20T23:36:35Z":           0,
		"2026-11-20T23:36:35.1Z":         100 * time.Millisecond,
		"2026-11-20T23:36:35.112Z":       112 * time.Millisecond,
		"2026-11-20T23:36:35.112011Z":    112011 * time.Microsecond,
		"2026-11-20T23:36:35.112011003Z": 112011003,
	} {
		if got := serverTime(http.Header{"X-Ots-Date": {text}}); !got.Equal(want.Add(fraction)) {
			t.Errorf("%s is %v", text, got)
		}
	}
	if got := serverTime(http.Header{"Date": {"Fri, 20 Nov 2026 23:36:35 GMT"}}); !got.Equal(want) {
		t.Errorf("date of HTTP: %v", got)
	}
	if got := serverTime(http.Header{"X-Ots-Date": {"yesterday"}}); !got.IsZero() {
		t.Errorf("no date: %v", got)
	}
}

func TestIndexedColumns(t *testing.T) {
	schema := table.Schema{{Name: "a", Type: table.StringKey}, {Name: "b", Type: table.StringKey}}
	for full, want := range map[string]string{
		"x a b":   "x",
		"x y a b": "x y",
		"x b a":   "x b",
		"a x b":   "a x",
		"b a":     "b",
		"x":       "x", // as no service describes it
		"x a":     "x a",
	} {
		if got := strings.Join(indexedColumns(schema, strings.Fields(full)), " "); got != want {
			t.Errorf("%s comes of %s, want %s", full, got, want)
		}
	}
}

// TestRequests holds the requests that are written by hand against the SDK's messages.
func TestRequests(t *testing.T) {
	r := rangeRequest{table: "t", start: []byte("start"), end: []byte("end"), limit: 7, versions: 9, before: 11,
		from: []byte("from"), to: []byte("to"), columns: 13, token: []byte("token")}
	var m otsprotocol.GetRangeRequest
	if err := proto.Unmarshal(r.append(nil), &m); err != nil {
		t.Fatal(err)
	}
	var filter otsprotocol.Filter
	var page otsprotocol.ColumnPaginationFilter
	if err := proto.Unmarshal(m.Filter, &filter); err != nil || filter.GetType() != otsprotocol.FilterType_FT_COLUMN_PAGINATION {
		t.Errorf("filter %v, %v", &filter, err)
	}
	if err := proto.Unmarshal(filter.Filter, &page); err != nil || page.GetLimit() != 13 || page.Offset == nil || page.GetOffset() != 0 {
		t.Errorf("page %v, %v", &page, err)
	}
	m.Filter = nil
	want := otsprotocol.GetRangeRequest{
		TableName: proto.String("t"), Direction: otsprotocol.Direction_FORWARD.Enum(), Limit: proto.Int32(7), MaxVersions: proto.Int32(9),
		TimeRange:                &otsprotocol.TimeRange{StartTime: proto.Int64(0), EndTime: proto.Int64(11)},
		InclusiveStartPrimaryKey: []byte("start"), ExclusiveEndPrimaryKey: []byte("end"),
		StartColumn: proto.String("from"), EndColumn: proto.String("to"), Token: []byte("token"),
		DataBlockTypeHint: otsprotocol.DataBlockType_DBT_PLAIN_BUFFER.Enum(), ReturnEntirePrimaryKeys: proto.Bool(true),
		CompressTypeHint: otsprotocol.CompressType_CPT_NONE.Enum(),
	}
	if !proto.Equal(&m, &want) {
		t.Errorf("got  %v\nwant %v", &m, &want)
	}

	raw := []byte("\x01row")
	b := batch{rows: []batchRow{{raw: raw}, {raw: raw, op: table.Update}}, pending: []int{1, 0}}
	b.encode("t")
	var w otsprotocol.BatchWriteRowRequest
	if err := proto.Unmarshal(b.body, &w); err != nil {
		t.Fatal(err)
	}
	change := func(kind otsprotocol.OperationType) *otsprotocol.RowInBatchWriteRowRequest {
		return &otsprotocol.RowInBatchWriteRowRequest{
			Type: kind.Enum(), RowChange: append(plainbuffer.AppendHeader(nil), raw...),
			Condition: &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_IGNORE.Enum()},
		}
	}
	wantWrite := otsprotocol.BatchWriteRowRequest{Tables: []*otsprotocol.TableInBatchWriteRowRequest{{
		TableName: proto.String("t"),
		Rows:      []*otsprotocol.RowInBatchWriteRowRequest{change(otsprotocol.OperationType_UPDATE), change(otsprotocol.OperationType_PUT)},
	}}}
	if !proto.Equal(&w, &wantWrite) {
		t.Errorf("got  %v\nwant %v", &w, &wantWrite)
	}
}

// TestEmptyAnswer holds that an answer without rows is not the end of a range.
func TestEmptyAnswer(t *testing.T) {
	for _, b := range [][]byte{nil, {0x12, 0}, {0x0a, 0}} {
		if a, err := parseRange(b); err == nil {
			t.Errorf("% x is the page %+v", b, a)
		}
	}
	if a, err := parseRange([]byte{0x0a, 0, 0x12, 0}); err != nil || len(a.rows) > 0 || a.next != nil {
		t.Errorf("an empty page: %+v, %v", a, err)
	}
}

// TestAnswerOfAnotherForm: rows that are said to be in another form than was asked for
// are not read as if they were in that; nor is a message that ends inside of a field.
func TestAnswerOfAnotherForm(t *testing.T) {
	for _, a := range []*otsprotocol.GetRangeResponse{
		{DataBlockType: otsprotocol.DataBlockType_DBT_SIMPLE_ROW_MATRIX.Enum()},
		{CompressType: otsprotocol.CompressType(7).Enum()},
	} {
		a.Consumed, a.Rows = &otsprotocol.ConsumedCapacity{CapacityUnit: &otsprotocol.CapacityUnit{}}, []byte("rows")
		b, err := proto.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseRange(b); err == nil || !strings.Contains(err.Error(), "not asked for") {
			t.Errorf("%v: %+v, %v", a, got, err)
		}
	}
	// A table whose second row breaks off, and a row whose error does.
	row := []byte{0x12, 2, 0x08, 1}
	for _, b := range [][]byte{{0x12, 3, 0x08, 1}, {0xff}, {0x12, 4, 0x12, 2, 0x0a, 9}} {
		inside := append(slices.Clone(row), b...)
		said := batchAnswer{tables: fields{rest: append([]byte{0x0a, byte(len(inside))}, inside...)}}
		rows := 0
		for r := (rowAnswer{}); said.next(&r); {
			rows++
		}
		if rows != 1 || said.err() == nil {
			t.Errorf("% x: %d rows, %v", b, rows, said.err())
		}
	}
}

// TestReadBody reads answers of every size about that of the buffer, with their length
// told and not, byte by byte and at once: one that just fits is read, in the buffer's own
// memory, and one that is a byte larger is told as that.
func TestReadBody(t *testing.T) {
	const limit = 40
	for size := range limit + 3 {
		for _, room := range []int{0, 1, limit / 2, limit} {
			for name, how := range map[string]func(io.Reader) io.Reader{"at once": iotest.DataErrReader, "and then the end": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
				for _, told := range []int64{int64(size), -1} {
					want := bytes.Repeat([]byte{'x'}, size)
					buf := make([]byte, 0, room)
					res := &http.Response{ContentLength: told, Body: io.NopCloser(how(bytes.NewReader(want)))}
					got, err := readBody(res, buf, limit)
					var large *tooLarge
					switch {
					case size > limit:
						if !errors.As(err, &large) || large.size != told {
							t.Errorf("%d bytes %s, told %d: %v", size, name, told, err)
						}
					case err != nil || !bytes.Equal(got, want):
						t.Errorf("%d bytes %s, told %d, into %d: %q, %v", size, name, told, room, got, err)
					case size > 0 && (size < room || room == limit) && &got[0] != &buf[:1][0]:
						t.Errorf("%d bytes %s, told %d, are not in the buffer of %d", size, name, told, room)
					}
				}
			}
		}
	}
	broken := &http.Response{ContentLength: -1, Body: io.NopCloser(io.MultiReader(strings.NewReader("xx"), iotest.ErrReader(io.ErrUnexpectedEOF)))}
	if _, err := readBody(broken, nil, limit); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an answer that breaks off: %v", err)
	}
}

// TestIdentityOf reads what tells tables of one name apart, in the forms that it may
// have, and reads nothing from a message that is cut.
func TestIdentityOf(t *testing.T) {
	for name, test := range map[string]struct {
		said []byte
		want table.Identity
		cut  bool
	}{
		"none":                 {nil, table.Identity{}, false},
		"both":                 {[]byte{9 << 3, 7, 0x0a, 3, 5<<3 | 2, 1, 'x'}, table.Identity{Created: 7, ID: "x"}, false},
		"a number":             {[]byte{0x0a, 2, 5 << 3, 42}, table.Identity{ID: "42"}, false},
		"no text":              {[]byte{0x0a, 3, 5<<3 | 2, 1, 0xff}, table.Identity{}, false},
		"cut":                  {[]byte{9 << 3, 7, 0x0a, 9}, table.Identity{Created: 7}, true},
		"cut inside the table": {[]byte{9 << 3, 7, 0x0a, 3, 5<<3 | 2, 9, 'x'}, table.Identity{Created: 7}, true},
	} {
		got, err := identityOf(test.said)
		if got != test.want || (err != nil) != test.cut {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func rangeAnswers() []proto.Message {
	unit := &otsprotocol.ConsumedCapacity{CapacityUnit: &otsprotocol.CapacityUnit{Read: proto.Int32(7), Write: proto.Int32(0)}}
	return []proto.Message{
		&otsprotocol.GetRangeResponse{Consumed: unit, Rows: []byte("rows")},
		&otsprotocol.GetRangeResponse{Consumed: unit, Rows: []byte{}, NextStartPrimaryKey: []byte("next"), NextToken: []byte("token"),
			DataBlockType: otsprotocol.DataBlockType_DBT_PLAIN_BUFFER.Enum(), CompressType: otsprotocol.CompressType_CPT_NONE.Enum()},
	}
}

// FuzzRange reads what the SDK's messages read, to the same end.
func FuzzRange(f *testing.F) {
	for _, m := range rangeAnswers() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x28, 1})
	f.Add([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseRange(b)
		var m otsprotocol.GetRangeResponse
		if decode(b, &m) != nil || err != nil {
			return // the SDK is strict about groups and enums
		}
		if !bytes.Equal(got.rows, m.Rows) || !bytes.Equal(got.next, m.NextStartPrimaryKey) || !bytes.Equal(got.token, m.NextToken) {
			t.Errorf("got %+v of %v", got, &m)
		}
	})
}

// FuzzBatch reads what the SDK's messages read.
func FuzzBatch(f *testing.F) {
	unit := &otsprotocol.ConsumedCapacity{CapacityUnit: &otsprotocol.CapacityUnit{Read: proto.Int32(0), Write: proto.Int32(3)}}
	b, err := proto.Marshal(&otsprotocol.BatchWriteRowResponse{Tables: []*otsprotocol.TableInBatchWriteRowResponse{{
		TableName: proto.String("t"),
		Rows: []*otsprotocol.RowInBatchWriteRowResponse{
			{IsOk: proto.Bool(true), Consumed: unit},
			{IsOk: proto.Bool(false), Error: &otsprotocol.Error{Code: proto.String("code"), Message: proto.String("message")}},
		},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x0a, 2, 0x12, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var rows []rowAnswer
		said := batchAnswer{tables: fields{rest: b}}
		for r := (rowAnswer{}); said.next(&r); {
			rows = append(rows, r)
		}
		var m otsprotocol.BatchWriteRowResponse
		if decode(b, &m) != nil || said.err() != nil {
			return
		}
		var want []*otsprotocol.RowInBatchWriteRowResponse
		for _, in := range m.Tables {
			want = append(want, in.Rows...)
		}
		if len(rows) != len(want) {
			t.Fatalf("%d rows, want %d", len(rows), len(want))
		}
		for i, w := range want {
			if rows[i].ok != w.GetIsOk() || string(rows[i].code) != w.GetError().GetCode() || string(rows[i].message) != w.GetError().GetMessage() {
				t.Errorf("row %d is %+v, want %v", i, rows[i], w)
			}
		}
	})
}

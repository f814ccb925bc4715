package tablestore

import (
	"bytes"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// recordBlock is a record of a stream as answers have it.
func recordBlock(n, at int64, cells ...plainbuffer.Cell) []byte {
	b := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	b.Begin()
	name := plainbuffer.NewName([]byte("n"))
	b.KeyInteger(&name, n)
	if len(cells) > 0 {
		b.Attributes()
	}
	for i := range cells {
		b.Cell(&cells[i])
	}
	b.EndRecord(false, plainbuffer.Extension{Epoch: 3, Timestamp: at, RowIndex: 7})
	return b.Buf
}

// recordAnswer is an answer of so many records, of all kinds and operations.
func recordAnswer(t testing.TB, records int) []byte {
	t.Helper()
	cells := []plainbuffer.Cell{
		{Name: []byte("a"), HasValue: true, Type: plainbuffer.String, Data: []byte("value"), HasTimestamp: true, Timestamp: 5},
		{Name: []byte("b"), Op: plainbuffer.DeleteAll},
		{Name: []byte("c"), Op: plainbuffer.DeleteOne, HasTimestamp: true, Timestamp: 6},
	}
	m := &otsprotocol.GetStreamRecordResponse{
		NextShardIterator: proto.String("next"),
		MayMoreRecord:     proto.Bool(true),
		Consumed:          &otsprotocol.ConsumedCapacity{CapacityUnit: &otsprotocol.CapacityUnit{Read: proto.Int32(9)}},
	}
	for i := range records {
		m.StreamRecords = append(m.StreamRecords, &otsprotocol.GetStreamRecordResponse_StreamRecord{
			ActionType:   otsprotocol.ActionType(i%3 + 1).Enum(),
			Record:       recordBlock(int64(i), int64(1000+i), cells[:i%4]...),
			OriginRecord: []byte("whatever"),
			TableName:    []byte("t"),
		})
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestParseRecords reads an answer with all that it can have.
func TestParseRecords(t *testing.T) {
	var page table.RecordPage
	if err := readRecordPage(&answer{body: recordAnswer(t, 6)}, "t", "former", &page); err != nil {
		t.Fatal(err)
	}
	if page.Next != "next" || !page.More || page.ReadUnits != 9 || len(page.Records) != 6 {
		t.Fatalf("the page is %+v", page)
	}
	for i, r := range page.Records {
		var row plainbuffer.Row
		_, err := plainbuffer.Scan(r.Row, &row)
		if err != nil || row.Key[0].Int() != int64(i) || len(row.Cells) != i%4 ||
			r.Kind != table.RecordKind(i%3+1) || r.At != (table.Position{Epoch: 3, Timestamp: int64(1000 + i), Row: 7}) {
			t.Errorf("record %d is %+v, its row %+v, %v", i, r, row, err)
		}
	}
}

// TestParseRecordsInOneBuffer reads pages whose columns differ into the same memory.
func TestParseRecordsInOneBuffer(t *testing.T) {
	var page table.RecordPage
	var buffer []byte
	for _, name := range []string{"one", "two", "one"} {
		m := &otsprotocol.GetStreamRecordResponse{
			NextShardIterator: proto.String("next"),
			StreamRecords: []*otsprotocol.GetStreamRecordResponse_StreamRecord{{
				ActionType: otsprotocol.ActionType_PUT_ROW.Enum(),
				Record:     recordBlock(1, 1, plainbuffer.Cell{Name: []byte(name), HasValue: true, Type: plainbuffer.Boolean, Data: []byte{1}}),
			}},
		}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		buffer = append(buffer[:0], b...)
		if err := readRecordPage(&answer{body: buffer}, "t", "former", &page); err != nil || !bytes.Contains(page.Records[0].Row, []byte(name)) {
			t.Errorf("column %s: %+v, %v", name, page.Records, err)
		}
	}
}

// TestParseRecordsAllocates reads pages into the memory of the ones before: a page
// allocates its next iterator, and a few times more where a pool was emptied, whatever
// number of records it has.
func TestParseRecordsAllocates(t *testing.T) {
	var page table.RecordPage
	a := &answer{body: recordAnswer(t, 1000)}
	for _, iterator := range []string{"former", "next"} {
		got := testing.AllocsPerRun(100, func() {
			if err := readRecordPage(a, "t", iterator, &page); err != nil {
				t.Fatal(err)
			}
		})
		if got > 5 {
			t.Errorf("a page of %d records behind %q makes %.0f allocations", len(page.Records), iterator, got)
		}
	}
}

// FuzzRecords reads what the SDK's messages read, and takes no record that has not what a
// record has.
func FuzzRecords(f *testing.F) {
	for _, records := range []int{0, 1, 4} {
		f.Add(recordAnswer(f, records))
	}
	f.Add([]byte{})
	f.Add([]byte{0x0a, 2, 0x08, 1})
	f.Add([]byte{0x18, 0x30}) // a cost that is a number
	f.Add([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x0f})
	var page table.RecordPage
	f.Fuzz(func(t *testing.T, b []byte) {
		costs, err := parseRecords(b, "t", "former", &page)
		var m otsprotocol.GetStreamRecordResponse
		if decode(b, &m) != nil || err != nil {
			return // the SDK is strict about groups and enums
		}
		if len(page.Records) != len(m.StreamRecords) || page.Next != m.GetNextShardIterator() || page.More != m.GetMayMoreRecord() || !costs && m.GetConsumed().GetCapacityUnit() != nil {
			t.Fatalf("got %+v of %v", page, &m)
		}
		for i, r := range m.StreamRecords {
			if got := &page.Records[i]; int32(got.Kind) != int32(r.GetActionType()) || !bytes.Equal(got.Row, r.Record) {
				t.Errorf("record %d is %+v of %v", i, got, r)
			}
		}
		if checkRecords(&page) != nil {
			return
		}
		for i, r := range page.Records {
			var row plainbuffer.Row
			n, err := plainbuffer.Scan(r.Row, &row)
			at := table.Position{Epoch: row.Extension.Epoch, Timestamp: row.Extension.Timestamp, Row: row.Extension.RowIndex}
			if err != nil || n != len(r.Row) || !row.HasExtension || at != r.At {
				t.Errorf("record %d at %+v has a row of %d bytes of %d at %+v: %v", i, r.At, n, len(r.Row), at, err)
			}
		}
	})
}

// BenchmarkParseRecords reads pages of 1,000 records.
func BenchmarkParseRecords(b *testing.B) {
	var page table.RecordPage
	a := &answer{body: recordAnswer(b, 1000)}
	b.SetBytes(int64(len(a.body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := readRecordPage(a, "t", "next", &page); err != nil {
			b.Fatal(err)
		}
	}
}

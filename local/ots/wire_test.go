package ots

import (
	"bytes"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"
)

// FuzzBatchRequest holds the decoder of batches against the generated one: what it
// accepts, the other accepts too, and reads the same.
func FuzzBatchRequest(f *testing.F) {
	row := func(op otsprotocol.OperationType, condition *otsprotocol.Condition, content *otsprotocol.ReturnContent) *otsprotocol.RowInBatchWriteRowRequest {
		return &otsprotocol.RowInBatchWriteRowRequest{Type: &op, RowChange: []byte("row"), Condition: condition, ReturnContent: content}
	}
	ignore := &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_IGNORE.Enum()}
	filtered := &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_EXPECT_EXIST.Enum(), ColumnCondition: []byte("filter")}
	content := &otsprotocol.ReturnContent{ReturnType: otsprotocol.ReturnType_RT_AFTER_MODIFY.Enum(), ReturnColumnNames: []string{"a", "b"}}
	for _, m := range []*otsprotocol.BatchWriteRowRequest{
		{},
		{IsAtomic: proto.Bool(true), TransactionId: proto.String("id")},
		{Tables: []*otsprotocol.TableInBatchWriteRowRequest{{TableName: proto.String("t")}}},
		{Tables: []*otsprotocol.TableInBatchWriteRowRequest{
			{TableName: proto.String("t"), Rows: []*otsprotocol.RowInBatchWriteRowRequest{row(1, ignore, nil), row(2, filtered, content)}},
			{TableName: proto.String("u"), Rows: []*otsprotocol.RowInBatchWriteRowRequest{row(3, filtered, nil)}},
		}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		if err := new(batchRequest).parse(b); err != nil {
			f.Fatalf("%v is refused: %v", m, err)
		}
		f.Add(b)
	}
	var req batchRequest
	f.Fuzz(func(t *testing.T, b []byte) {
		if req.parse(b) != nil {
			return
		}
		var m otsprotocol.BatchWriteRowRequest
		if err := proto.Unmarshal(b, &m); err != nil {
			t.Fatalf("only the decoder of batches accepts: %v", err)
		}
		if req.atomic != m.GetIsAtomic() || req.transaction != m.GetTransactionId() || len(req.tables) != len(m.Tables) {
			t.Fatalf("%+v\n%v", req, &m)
		}
		for i, table := range req.tables {
			if table.name != m.Tables[i].GetTableName() || len(table.rows) != len(m.Tables[i].Rows) {
				t.Fatalf("table %d: %+v\n%v", i, table, &m)
			}
			for j, r := range table.rows {
				want := m.Tables[i].Rows[j]
				if int32(r.op) != int32(want.GetType()) || !bytes.Equal(r.block, want.RowChange) || int32(r.existence) != int32(want.Condition.GetRowExistence()) ||
					!bytes.Equal(r.filter, want.Condition.ColumnCondition) || int32(r.returns) != int32(want.ReturnContent.GetReturnType()) ||
					len(r.columns) != len(want.ReturnContent.GetReturnColumnNames()) {
					t.Fatalf("row %d: %+v\n%v", j, r, want)
				}
			}
		}
	})
}

// FuzzFilter proves that no filter's bytes make the parser or a match panic.
func FuzzFilter(f *testing.F) {
	single, err := proto.Marshal(&otsprotocol.SingleColumnValueFilter{
		Comparator: otsprotocol.ComparatorType_CT_EQUAL.Enum(), ColumnName: proto.String("c"), ColumnValue: []byte{3, 1, 0, 0, 0, 'v'},
		FilterIfMissing: proto.Bool(true), LatestVersionOnly: proto.Bool(true),
		ValueTransRule: &otsprotocol.ValueTransferRule{Regex: proto.String("(.)"), CastType: otsprotocol.VariantType_VT_STRING.Enum()},
	})
	if err != nil {
		f.Fatal(err)
	}
	leaf := &otsprotocol.Filter{Type: otsprotocol.FilterType_FT_SINGLE_COLUMN_VALUE.Enum(), Filter: single}
	page, err := proto.Marshal(&otsprotocol.ColumnPaginationFilter{Offset: proto.Int32(1), Limit: proto.Int32(2)})
	if err != nil {
		f.Fatal(err)
	}
	paged := &otsprotocol.Filter{Type: otsprotocol.FilterType_FT_COLUMN_PAGINATION.Enum(), Filter: page}
	both, err := proto.Marshal(&otsprotocol.CompositeColumnValueFilter{Combinator: otsprotocol.LogicalOperator_LO_AND.Enum(), SubFilters: []*otsprotocol.Filter{leaf, paged}})
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range []*otsprotocol.Filter{leaf, paged, {Type: otsprotocol.FilterType_FT_COMPOSITE_COLUMN_VALUE.Enum(), Filter: both}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := parseFilter(b); err != nil {
			f.Fatalf("%v is refused: %v", m, err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		filter, err := parseFilter(b)
		if err != nil || filter == nil {
			return
		}
		if n := filter.Count(); n > 32 {
			t.Fatalf("%d filters are accepted", n)
		}
		filter.Match(nil, nil)
	})
}

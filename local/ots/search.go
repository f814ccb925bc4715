package ots

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

func (c *call) createSearchIndex() *engine.Error {
	var req otsprotocol.CreateSearchIndexRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	x := engine.SearchIndex{Name: req.GetIndexName(), Source: req.GetSourceIndexName(), TTL: -1}
	if req.TimeToLive != nil {
		x.TTL = req.GetTimeToLive()
	}
	// The schema is kept as the bytes that came: fields that this protocol
	// version does not know stay in it. They outlive the request.
	schema, _ := rawField(c.body, 3)
	x.Schema = bytes.Clone(schema)
	if req.Schema == nil && x.Source == "" {
		return invalid("The schema of search index: '%s' is missing.", x.Name)
	}
	return c.server.engine.CreateSearchIndex(req.GetTableName(), x)
}

// rawField returns the bytes of the last field of the number, of a message that
// was decoded before and is therefore well formed.
func rawField(b []byte, field uint64) (value []byte, ok bool) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return value, ok
		}
		b = b[n:]
		switch tag & 7 {
		case 0:
			_, n := binary.Uvarint(b)
			if n <= 0 {
				return value, ok
			}
			b = b[n:]
		case 1:
			b = b[min(8, len(b)):]
		case 5:
			b = b[min(4, len(b)):]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return value, ok
			}
			if tag>>3 == field {
				value, ok = b[n:n+int(size)], true
			}
			b = b[n+int(size):]
		default:
			return value, ok
		}
	}
	return value, ok
}

func (c *call) listSearchIndex() *engine.Error {
	var req otsprotocol.ListSearchIndexRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	var err *engine.Error
	if table := req.GetTableName(); table != "" {
		err = c.enter(table)
	} else {
		err = c.enter()
	}
	if err != nil {
		return err
	}
	found, err := c.server.engine.SearchIndexes(req.GetTableName())
	if err != nil {
		return err
	}
	res := &otsprotocol.ListSearchIndexResponse{}
	for _, f := range found {
		res.Indices = append(res.Indices, &otsprotocol.IndexInfo{TableName: proto.String(f.Table), IndexName: proto.String(f.Name)})
	}
	return c.send(res)
}

func (c *call) describeSearchIndex() *engine.Error {
	var req otsprotocol.DescribeSearchIndexRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	e := c.server.engine
	x, err := e.SearchIndex(req.GetTableName(), req.GetIndexName())
	if err != nil {
		return err
	}
	rows, size, err := e.Count(req.GetTableName())
	if err != nil {
		return err
	}
	now := c.server.now()
	phase := otsprotocol.SyncPhase_INCR
	if x.Building(now) {
		phase = otsprotocol.SyncPhase_FULL
	}
	c.answer = appendBytes(c.answer, 1, x.Schema)
	res := &otsprotocol.DescribeSearchIndexResponse{
		MeteringInfo: &otsprotocol.MeteringInfo{
			StorageSize:    proto.Int64(size),
			RowCount:       proto.Int64(rows),
			ReservedReadCu: proto.Int64(0),
			Timestamp:      proto.Int64(now.Unix()),
		},
		CreateTime: proto.Int64(x.Created),
		TimeToLive: proto.Int32(x.TTL),
	}
	if req.GetIncludeSyncStat() {
		res.SyncStat = &otsprotocol.SyncStat{SyncPhase: phase.Enum(), CurrentSyncTimestamp: proto.Int64(now.UnixMilli())}
	}
	return c.send(res)
}

func (c *call) deleteSearchIndex() *engine.Error {
	var req otsprotocol.DeleteSearchIndexRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	return c.server.engine.DeleteSearchIndex(req.GetTableName(), req.GetIndexName())
}

// The most rows that a search returns, and those that one asks for without
// saying how many.
const (
	maxSearchRows     = 100
	defaultSearchRows = 10
)

// search answers queries for all rows: their number, and a page of them in the
// order of their keys. Any other query is left out.
func (c *call) search() *engine.Error {
	var req otsprotocol.SearchRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	var q otsprotocol.SearchQuery
	if err := proto.Unmarshal(req.SearchQuery, &q); err != nil {
		return invalid("Failed to parse the search query: %v.", err)
	}
	e := c.server.engine
	x, err := e.SearchIndex(req.GetTableName(), req.GetIndexName())
	if err != nil {
		return err
	}
	if x.Building(c.server.now()) {
		return invalid("The search index is being built.")
	}
	if q.Query == nil || q.Query.GetType() != otsprotocol.QueryType_MATCH_ALL_QUERY || q.Sort != nil || q.Collapse != nil ||
		q.Aggs != nil || q.GroupBys != nil || q.Highlight != nil || q.Filter != nil || len(q.Token) > 0 {
		return &engine.Error{Code: engine.CodeUnsupported, Message: "Unsupported operation: a Search that is not a plain MatchAllQuery is left out of the local server."}
	}
	limit := defaultSearchRows
	if q.Limit != nil {
		limit = int(q.GetLimit())
	}
	if limit < 0 || limit > maxSearchRows || q.GetOffset() < 0 {
		return invalid("Invalid offset or limit of search: %d, %d.", q.GetOffset(), limit)
	}
	rows, _, err := e.Count(req.GetTableName())
	if err != nil {
		return err
	}
	res := &otsprotocol.SearchResponse{IsAllSucceeded: proto.Bool(true), TotalHits: proto.Int64(-1), Consumed: consumed(1, 0)}
	if q.GetGetTotalCount() {
		res.TotalHits = proto.Int64(rows)
	}
	want := map[string]bool{}
	for _, name := range req.ColumnsToGet.GetColumnNames() {
		want[name] = true
	}
	kind := req.ColumnsToGet.GetReturnType()
	all := kind == otsprotocol.ColumnReturnType_RETURN_ALL || kind == otsprotocol.ColumnReturnType_RETURN_ALL_FROM_INDEX
	skip := int(q.GetOffset())
	var failed error
	if limit > 0 {
		err = e.Rows(req.GetTableName(), func(raw []byte) bool {
			if skip > 0 {
				skip--
				return true
			}
			var row []byte
			if row, failed = searchRow(raw, all, want); failed != nil {
				return false
			}
			res.Rows = append(res.Rows, row)
			return len(res.Rows) < limit
		})
	}
	if err != nil {
		return err
	}
	if failed != nil {
		return engine.AsError(failed)
	}
	return c.send(res)
}

// searchRow is a stored row's key and the newest versions of its columns.
func searchRow(raw []byte, all bool, want map[string]bool) ([]byte, error) {
	var row plainbuffer.Row
	if _, err := plainbuffer.Scan(raw, &row); err != nil {
		return nil, err
	}
	b := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	b.Begin()
	for i := range row.Key {
		b.Cell(&row.Key[i])
	}
	marked := false
	last := ""
	for i := range row.Cells {
		cell := &row.Cells[i]
		name := string(cell.Name)
		if !all && !want[name] || marked && name == last {
			continue
		}
		if !marked {
			b.Attributes()
			marked = true
		}
		last = name
		b.Cell(cell)
	}
	b.End(false)
	if len(b.Buf) > math.MaxInt32 {
		return nil, invalid("The row is too large.")
	}
	return b.Buf, nil
}

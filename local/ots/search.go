package ots

import (
	"maps"
	"slices"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots/engine"
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
	// The schema is kept as the bytes that came: fields that this protocol version does
	// not know stay in it.
	var err error
	if x.Schema, err = messageField(c.body, 3); err != nil {
		return invalid("Failed to parse the protobuf of the request: %v.", err)
	}
	if x.Schema == nil && x.Source == "" {
		return invalid("The schema of search index: '%s' is missing.", x.Name)
	}
	if err := checkFields(x.Name, req.Schema.GetFieldSchemas()); err != nil {
		return err
	}
	return c.server.engine.CreateSearchIndex(req.GetTableName(), x)
}

// withSort is a schema with the order that its rows have if it gives none: that of the
// primary key, unless there are nested fields, whose rows have none.
func withSort(b []byte, schema *otsprotocol.IndexSchema) []byte {
	if schema.IndexSort != nil || slices.ContainsFunc(schema.FieldSchemas, func(f *otsprotocol.FieldSchema) bool { return f.GetFieldType() == otsprotocol.FieldType_NESTED }) {
		return b
	}
	pk := appendBytes(nil, 4, appendVarint(nil, 1, uint64(otsprotocol.SortOrder_SORT_ORDER_ASC)))
	return appendBytes(slices.Clone(b), 3, appendBytes(nil, 1, pk))
}

// messageField returns a copy of the bytes of a message that is a field of another, nil
// if there is none. Where the field comes more than once, which makes one message of all,
// so do their bytes.
func messageField(b []byte, number uint64) (out []byte, _ error) {
	err := each(b, func(n uint64, kind int, _ uint64, data []byte) error {
		if n == number && kind == wireBytes {
			out = append(out, data...)
			if out == nil {
				out = []byte{}
			}
		}
		return nil
	})
	return out, err
}

func (c *call) listSearchIndex() *engine.Error {
	var req otsprotocol.ListSearchIndexRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enterAny(req.GetTableName()); err != nil {
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
	phase, status := otsprotocol.SyncPhase_INCR, statusRunning
	if x.Building(now) {
		phase, status = otsprotocol.SyncPhase_FULL, statusPending
	}
	schema, err := schemaOf(x)
	if err != nil {
		return err
	}
	c.answer = appendBytes(c.answer, 1, withSort(x.Schema, schema))
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
	if brother := e.SearchBrother(x); brother != "" {
		res.BrotherIndexName = proto.String(brother)
	}
	for _, w := range x.Weights {
		res.QueryFlowWeight = append(res.QueryFlowWeight, &otsprotocol.QueryFlowWeight{IndexName: proto.String(w.Index), Weight: proto.Int32(w.Weight)})
	}
	// Clients that are older than the wish get it, too.
	if req.IncludeSyncStat == nil || req.GetIncludeSyncStat() {
		res.SyncStat = &otsprotocol.SyncStat{SyncPhase: phase.Enum(), CurrentSyncTimestamp: proto.Int64(now.UnixMilli())}
	}
	if err := c.send(res); err != nil {
		return err
	}
	c.answer = appendBytes(c.answer, indexStatus, appendVarint(nil, 1, uint64(status)))
	return nil
}

// The Node and Java SDKs' messages have the status of an index, which the first relies
// on, in a field that the Go SDK's do not know.
const (
	indexStatus   = 8
	statusPending = 1
	statusRunning = 3
)

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

func (c *call) updateSearchIndex() *engine.Error {
	var req otsprotocol.UpdateSearchIndexRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	change := &engine.SearchChange{TTL: req.TimeToLive, Switch: req.GetSwitchIndexName()}
	for _, w := range req.QueryFlowWeight {
		change.Weights = append(change.Weights, engine.SearchWeight{Index: w.GetIndexName(), Weight: w.GetWeight()})
	}
	return c.server.engine.UpdateSearchIndex(req.GetTableName(), req.GetIndexName(), change)
}

// The service's limits: the fields of an index and how deep they are nested; the rows of
// an answer, of one that has nothing but fields of the index, of one that says not how
// many, and of a scan; the greatest offset and limit together.
const (
	maxSearchFields   = 1000
	maxNestedFields   = 5
	maxSearchRows     = 100
	maxIndexedRows    = 1000
	defaultSearchRows = 10
	maxScanRows       = 2000
	maxSearchReach    = 100000
)

// lastFieldType is the greatest number of a field's type. Newer protocols than the Go
// SDK's have one that it does not know, of keywords that are compared fuzzily.
const lastFieldType = otsprotocol.FieldType_JSON

// checkFields refuses fields that no index can have: too many, too deep, without a name
// or a type, or of a name that another has.
func checkFields(index string, fields []*otsprotocol.FieldSchema) *engine.Error {
	left := maxSearchFields
	var check func([]*otsprotocol.FieldSchema, int) *engine.Error
	check = func(fields []*otsprotocol.FieldSchema, level int) *engine.Error {
		if level > maxNestedFields && len(fields) > 0 {
			return invalid("The fields of search index: '%s' are nested in more than %d levels.", index, maxNestedFields)
		}
		seen := map[string]bool{}
		for _, f := range fields {
			name, kind := f.GetFieldName(), f.GetFieldType()
			nests := kind == otsprotocol.FieldType_NESTED || kind == otsprotocol.FieldType_JSON
			switch {
			case name == "" || len(name) > engine.MaxNameLength:
				return invalid("Invalid field name: '%s' of search index: '%s'.", name, index)
			case seen[name]:
				return invalid("Duplicated field name: '%s' of search index: '%s'.", name, index)
			case f.FieldType == nil || kind < otsprotocol.FieldType_LONG || kind > lastFieldType:
				return invalid("Invalid type of field: '%s' of search index: '%s'.", name, index)
			case !nests && len(f.FieldSchemas) > 0:
				return invalid("Field: '%s' of search index: '%s' has fields, and is not nested.", name, index)
			case kind == otsprotocol.FieldType_NESTED && len(f.FieldSchemas) == 0:
				return invalid("Nested field: '%s' of search index: '%s' has no fields.", name, index)
			}
			seen[name] = true
			if left--; left < 0 {
				return invalid("The number of fields of search index: '%s' exceeds the limit: %d.", index, maxSearchFields)
			}
			if err := check(f.FieldSchemas, level+1); err != nil {
				return err
			}
		}
		return nil
	}
	return check(fields, 0)
}

// schemaOf is the decoded schema of an index, which was given by a client and kept as it
// was.
func schemaOf(x *engine.SearchIndex) (*otsprotocol.IndexSchema, *engine.Error) {
	m := new(otsprotocol.IndexSchema)
	if err := unmarshal(x.Schema, m); err != nil {
		return nil, invalid("Failed to parse the schema of search index: '%s': %v.", x.Name, err)
	}
	return m, nil
}

// search answers queries that compare, of the rows themselves: their number, and a page
// of them. What else a search can be asked for is left out.
func (c *call) search() *engine.Error {
	var req otsprotocol.SearchRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	var q otsprotocol.SearchQuery
	if err := unmarshal(req.SearchQuery, &q); err != nil {
		return invalid("Failed to parse the search query: %v.", err)
	}
	x, err := c.searched(req.GetTableName(), req.GetIndexName())
	if err != nil {
		return err
	}
	switch {
	case q.Collapse != nil:
		return leftOutOfSearch("a Search that collapses")
	case q.Aggs != nil || q.GroupBys != nil:
		return leftOutOfSearch("a Search that aggregates")
	case q.Highlight != nil:
		return leftOutOfSearch("a Search that highlights")
	case len(req.RoutingValues) > 0:
		return leftOutOfSearch("a Search of some routing values")
	}
	schema, err := schemaOf(x)
	if err != nil {
		return err
	}
	r := &queryReader{what: "a Search", schema: schema}
	sq := &engine.SearchQuery{Limit: defaultSearchRows, Offset: int(q.GetOffset()), Count: q.GetGetTotalCount() || tracksTotal(req.SearchQuery)}
	if sq.Match, err = r.match(q.Query); err != nil {
		return err
	}
	if q.Filter != nil {
		filter, err := r.match(q.Filter.Query)
		if err != nil {
			return err
		}
		sq.Match = &engine.Match{Kind: engine.MatchBool, Must: []*engine.Match{sq.Match, filter}}
	}
	if q.Limit != nil {
		sq.Limit = int(q.GetLimit())
	}
	most := maxSearchRows
	if searchColumns(sq, req.ColumnsToGet, schema) {
		most = maxIndexedRows
	}
	if sq.Limit < 0 || sq.Limit > most {
		return invalid("The limit of search must be in range: [0, %d].", most)
	}
	if sq.Offset < 0 || sq.Offset+sq.Limit > maxSearchReach {
		return invalid("The offset plus limit of search must be in range: [0, %d].", maxSearchReach)
	}
	sort := q.Sort
	if len(q.Token) > 0 {
		// It goes on with the order of the search that it is from.
		if sq.Offset > 0 {
			return invalid("The offset of search can't be given with a token.")
		}
		sort, err = r.goOn(sq, q.Token)
	} else {
		sq.Orders, sq.Backward, err = r.orders(sort)
	}
	if err != nil {
		return err
	}
	if len(sort.GetSorter()) == 0 {
		sort = schema.IndexSort
	}
	sq.Loose = sort.GetDisableDefaultPkSorter()
	page, err := c.server.engine.Search(req.GetTableName(), req.GetIndexName(), sq)
	if err != nil {
		return err
	}
	token, err := searchToken(sq, sort, page)
	if err != nil {
		return err
	}
	hits := make([]*otsprotocol.SearchHit, len(page.Rows))
	for i := range hits {
		hits[i] = new(otsprotocol.SearchHit)
	}
	return c.send(&otsprotocol.SearchResponse{
		IsAllSucceeded: proto.Bool(true), TotalHits: proto.Int64(page.Total), Rows: page.Rows, SearchHits: hits,
		NextToken: token, Consumed: consumed(page.Read, 0),
	})
}

// trackTotal is the field of a search in which newer SDKs than Go's ask for the number of
// rows: up to how many it shall be exact, -1 for not at all.
const trackTotal = 13

// tracksTotal says whether a search, which was decoded before, asks so.
func tracksTotal(query []byte) (wanted bool) {
	_ = each(query, func(number uint64, kind int, value uint64, _ []byte) error {
		if number == trackTotal && kind == wireVarint {
			wanted = int32(value) > 0
		}
		return nil
	})
	return wanted
}

// searchColumns makes q ask for what the rows of a search shall have beside their keys,
// and says whether the index has all of it.
func searchColumns(q *engine.SearchQuery, wanted *otsprotocol.ColumnsToGet, schema *otsprotocol.IndexSchema) (indexed bool) {
	if wanted == nil || wanted.ReturnType == nil {
		return true // not the message's default, but no columns
	}
	fields := map[string]bool{}
	for _, f := range schema.GetFieldSchemas() {
		fields[f.GetFieldName()] = true
	}
	indexed = true
	switch wanted.GetReturnType() {
	case otsprotocol.ColumnReturnType_RETURN_ALL:
		q.All, indexed = true, false
	case otsprotocol.ColumnReturnType_RETURN_SPECIFIED:
		for _, name := range wanted.GetColumnNames() {
			q.Columns, indexed = append(q.Columns, name), indexed && fields[name]
		}
	case otsprotocol.ColumnReturnType_RETURN_ALL_FROM_INDEX:
		q.Columns = slices.Collect(maps.Keys(fields))
	}
	return indexed
}

// computeSearchSplits begins a scan of a search index, which has one part: the table is
// one.
func (c *call) computeSearchSplits() *engine.Error {
	var req otsprotocol.ComputeSplitsRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	if req.SearchIndexSplitsOptions.GetIndexName() == "" {
		return invalid("[search index splits options] must not be null")
	}
	if _, err := c.scanned(req.GetTableName(), req.SearchIndexSplitsOptions.GetIndexName()); err != nil {
		return err
	}
	session := requestID()
	return c.send(&otsprotocol.ComputeSplitsResponse{SessionId: []byte(session), SplitsSize: proto.Int32(1)})
}

// searched is the search index of a Search.
func (c *call) searched(table, index string) (*engine.SearchIndex, *engine.Error) {
	e := c.server.engine
	if e.Behavior().Indexes.MissingSearch == engine.CodeObjectNotExist {
		return e.SearchIndex(table, index)
	}
	return c.scanned(table, index)
}

// scanned is the search index of a scan, whose errors have codes of their own.
func (c *call) scanned(table, index string) (*engine.SearchIndex, *engine.Error) {
	e := c.server.engine
	if _, err := e.Definition(table); err != nil {
		return nil, invalid("table [%s] does not exist", table)
	}
	x, err := e.SearchIndex(table, index)
	if err != nil {
		return nil, &engine.Error{Code: engine.CodeMetaNotMatch, Message: "search index [" + index + "] does not exist"}
	}
	return x, nil
}

// parallelScan answers scans, in the order of keys.
func (c *call) parallelScan() *engine.Error {
	var req otsprotocol.ParallelScanRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	var q otsprotocol.ScanQuery
	if err := unmarshal(req.ScanQuery, &q); err != nil {
		return invalid("Failed to parse the scan query: %v.", err)
	}
	x, err := c.scanned(req.GetTableName(), req.GetIndexName())
	if err != nil {
		return err
	}
	if q.GetMaxParallel() > 1 || q.GetCurrentParallelId() > 0 {
		return invalid("The scan of search index: '%s' has one part, not number %d of %d.", x.Name, q.GetCurrentParallelId(), q.GetMaxParallel())
	}
	sq := &engine.SearchQuery{Limit: maxScanRows}
	if q.Limit != nil {
		sq.Limit = int(q.GetLimit())
	}
	if sq.Limit < 1 || sq.Limit > maxScanRows {
		return invalid("The limit of scan must be in range: [1, %d].", maxScanRows)
	}
	schema, err := schemaOf(x)
	if err != nil {
		return err
	}
	r := &queryReader{what: "a ParallelScan", schema: schema}
	if sq.Match, err = r.match(q.Query); err != nil {
		return err
	}
	if len(q.Token) > 0 {
		if _, err := r.goOn(sq, q.Token); err != nil {
			return err
		}
		if len(sq.Orders) > 0 {
			return invalid("The token of scan is invalid.")
		}
	}
	if searchColumns(sq, req.ColumnsToGet, schema); sq.All {
		return invalid("RETURN_ALL is not allowed for parallel scan.")
	}
	page, err := c.server.engine.Search(req.GetTableName(), req.GetIndexName(), sq)
	if err != nil {
		return err
	}
	token, err := searchToken(sq, nil, page)
	if err != nil {
		return err
	}
	return c.send(&otsprotocol.ParallelScanResponse{Rows: page.Rows, NextToken: token})
}

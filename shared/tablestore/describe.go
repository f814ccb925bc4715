package tablestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	protov1 "github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/shared/table"
)

// Tables lists the names of the instance's tables in order. Secondary indexes, which are
// tables of their own, may be among them.
func (c *Client) Tables(ctx context.Context) ([]string, error) {
	var list otsprotocol.ListTableResponse
	if _, err := c.ask(ctx, "ListTable", "", &otsprotocol.ListTableRequest{}, &list); err != nil {
		return nil, err
	}
	slices.Sort(list.TableNames)
	return list.TableNames, nil
}

// Describe returns everything that the service says of a table and its indexes. Where the
// service knows no search indexes, the table has none.
func (c *Client) Describe(ctx context.Context, name string) (table.Definition, error) {
	d, _, err := c.describeTable(ctx, name)
	if err != nil {
		return table.Definition{}, err
	}
	d.SearchIndexes, err = c.searchIndexes(ctx, name)
	return d, err
}

// describeTable is Describe without search indexes. It also says whether the table is
// loaded.
func (c *Client) describeTable(ctx context.Context, name string) (table.Definition, bool, error) {
	var said otsprotocol.DescribeTableResponse
	raw, err := c.ask(ctx, "DescribeTable", name, &otsprotocol.DescribeTableRequest{TableName: &name}, &said)
	if err != nil {
		return table.Definition{}, false, err
	}
	d, err := definitionOf(&said)
	if err == nil {
		d.Indexes, err = indexesOf(raw, d.Schema)
	}
	if err == nil {
		d.Identity, err = identityOf(raw)
	}
	if err != nil {
		return table.Definition{}, false, fmt.Errorf("description of table %q: %w", name, err)
	}
	d.Raw = raw
	status := said.GetTableStatus()
	return d, said.TableStatus == nil || status == otsprotocol.TableStatus_ACTIVE || status == otsprotocol.TableStatus_UPDATING, nil
}

func definitionOf(said *otsprotocol.DescribeTableResponse) (table.Definition, error) {
	d := table.Definition{Name: said.GetTableMeta().GetTableName()}
	for _, k := range said.GetTableMeta().GetPrimaryKey() {
		kind, ok := find(keyTypes, k.GetType())
		if !ok {
			return d, fmt.Errorf("key column %q has the type %d, which this version does not know", k.GetName(), k.GetType())
		}
		d.Schema = append(d.Schema, table.KeyColumn{
			Name: k.GetName(), Type: kind, AutoIncrement: k.Option != nil && k.GetOption() == otsprotocol.PrimaryKeyOption_AUTO_INCREMENT,
		})
	}
	for _, col := range said.GetTableMeta().GetDefinedColumn() {
		kind, ok := find(columnTypes, col.GetType())
		if !ok {
			return d, fmt.Errorf("defined column %q has the type %d, which this version does not know", col.GetName(), col.GetType())
		}
		d.DefinedColumns = append(d.DefinedColumns, table.DefinedColumn{Name: col.GetName(), Type: kind})
	}
	d.Options = optionsOf(said.GetTableOptions())
	unit := said.GetReservedThroughputDetails().GetCapacityUnit()
	d.Throughput = table.Throughput{Read: unit.GetRead(), Write: unit.GetWrite()}
	if s := said.GetStreamDetails(); s.GetEnableStream() {
		d.Stream = &table.Stream{
			ID: s.GetStreamId(), ExpirationHours: s.GetExpirationTime(), OriginColumns: s.GetColumnsToGet(), Enabled: s.GetLastEnableTime(),
		}
	}
	if s := said.GetSseDetails(); s.GetEnable() {
		d.Encryption = &table.Encryption{KeyType: "kms", KeyID: string(s.GetKeyId()), RoleARN: string(s.GetRoleArn())}
		if s.GetKeyType() == otsprotocol.SSEKeyType_SSE_BYOK {
			d.Encryption.KeyType = "byok"
		}
	}
	return d, d.Validate()
}

// identityOf reads what tells the table from another one of its name: fields of
// DescribeTableResponse and of its TableMeta that the SDK's messages lack. A form that is
// not known tells nothing.
func identityOf(response []byte) (id table.Identity, err error) {
	const tableMeta, tableID, creationTime, longest = 1, 5, 9, 256
	f := fields{rest: response}
	for f.next() {
		switch f.tag {
		case creationTime<<3 | asInt:
			id.Created = int64(f.v)
		case tableMeta<<3 | asBytes:
			meta := fields{rest: f.data}
			for meta.next() {
				switch meta.tag {
				case tableID<<3 | asBytes:
					if len(meta.data) <= longest && utf8.Valid(meta.data) {
						id.ID = string(meta.data)
					}
				case tableID<<3 | asInt:
					id.ID = strconv.FormatUint(meta.v, 10)
				}
			}
			if meta.err != nil {
				return id, meta.err
			}
		}
	}
	return id, f.err
}

// optionsOf reads options; what the service leaves out has its default.
func optionsOf(o *otsprotocol.TableOptions) table.Options {
	out := table.Options{TTL: table.NoTTL, MaxVersions: 1, Deviation: defaultDeviation, AllowUpdate: true, UpdateFullRow: o.GetUpdateFullRow()}
	if o == nil {
		return out
	}
	if o.TimeToLive != nil {
		out.TTL = *o.TimeToLive
	}
	if o.MaxVersions != nil {
		out.MaxVersions = *o.MaxVersions
	}
	if o.DeviationCellVersionInSec != nil {
		out.Deviation = *o.DeviationCellVersionInSec
	}
	if o.AllowUpdate != nil {
		out.AllowUpdate = *o.AllowUpdate
	}
	return out
}

// defaultDeviation is the deviation of tables that were given none, in seconds.
const defaultDeviation = 86400

// indexesOf reads the secondary indexes of DescribeTableResponse. The service tells an
// index's key as it was asked for or with the rest of the table's key behind it; read, it
// is always whole.
func indexesOf(response []byte, schema table.Schema) ([]table.Index, error) {
	const indexMetas = 8
	raws, err := rawFields(response, indexMetas)
	if err != nil {
		return nil, err
	}
	var all []table.Index
	for _, raw := range raws {
		var m otsprotocol.IndexMeta
		if err := decode(raw, &m); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		x := table.Index{
			Name: m.GetName(), Key: wholeKey(schema, m.PrimaryKey), Columns: m.DefinedColumn, Type: "global",
			Sync:  m.GetIndexUpdateMode() == otsprotocol.IndexUpdateMode_IUM_SYNC_INDEX,
			Ready: m.IndexSyncPhase == nil || m.GetIndexSyncPhase() == otsprotocol.IndexSyncPhase_ISP_INCR,
			Raw:   bytes.Clone(raw),
		}
		if m.GetIndexType() == otsprotocol.IndexType_IT_LOCAL_INDEX {
			x.Type = "local"
		}
		all = append(all, x)
	}
	return all, nil
}

func (c *Client) searchIndexes(ctx context.Context, name string) ([]table.SearchIndex, error) {
	var list otsprotocol.ListSearchIndexResponse
	_, err := c.ask(ctx, "ListSearchIndex", name, &otsprotocol.ListSearchIndexRequest{TableName: &name}, &list)
	if unsupported(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []table.SearchIndex
	for _, i := range list.Indices {
		x, err := c.searchIndex(ctx, name, i.GetIndexName())
		if errors.Is(err, table.ErrNotExist) {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b table.SearchIndex) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (c *Client) searchIndex(ctx context.Context, name, index string) (table.SearchIndex, error) {
	var said otsprotocol.DescribeSearchIndexResponse
	raw, err := c.ask(ctx, "DescribeSearchIndex", name, &otsprotocol.DescribeSearchIndexRequest{TableName: &name, IndexName: &index}, &said)
	if err != nil {
		return table.SearchIndex{}, err
	}
	const schema = 1
	schemas, err := rawFields(raw, schema)
	if err != nil {
		return table.SearchIndex{}, fmt.Errorf("description of search index %q of table %q: %w", index, name, err)
	}
	x := table.SearchIndex{Name: index, Source: said.GetBrotherIndexName(), TTL: said.GetTimeToLive()}
	if len(schemas) > 0 {
		x.Schema = bytes.Clone(schemas[len(schemas)-1])
	}
	x.Fields = fieldsOf(nil, "", said.GetSchema().GetFieldSchemas())
	return x, nil
}

// fieldsOf names the fields of a search index; those of nested ones have their parent's
// name before theirs.
func fieldsOf(out []table.SearchField, parent string, fields []*otsprotocol.FieldSchema) []table.SearchField {
	for _, f := range fields {
		name := parent + f.GetFieldName()
		out = append(out, table.SearchField{Name: name, Type: strings.ToLower(f.GetFieldType().String())})
		out = fieldsOf(out, name+".", f.GetFieldSchemas())
	}
	return out
}

// unsupported says whether an error means that the service does not have the operation.
func unsupported(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Code == "OTSUnsupportOperation" || e.Code == "OTSParameterInvalid" && strings.Contains(e.Message, textUnsupported)
}

// SplitPoints cuts a table into ranges of about size bytes by the service's own
// partitions. The points order ascending, without repeats, and each is as long as the
// schema. Sizes are approximate; recent writes may not count.
func (c *Client) SplitPoints(ctx context.Context, name string, schema table.Schema, size int64) ([]table.Key, error) {
	const unit = 1 << 20 // the least that the service takes
	request := &otsprotocol.ComputeSplitPointsBySizeRequest{
		TableName: &name, SplitSize: protov1.Int64(max(1, size/unit)), SplitSizeUnitInByte: protov1.Int64(unit),
	}
	var said otsprotocol.ComputeSplitPointsBySizeResponse
	if _, err := c.ask(ctx, "ComputeSplitPointsBySize", name, request, &said); err != nil {
		return nil, err
	}
	whole := schema.Whole()
	var points []table.Key
	for _, block := range said.SplitPoints {
		k, err := schema.ParseKey(block)
		if err != nil {
			return nil, fmt.Errorf("split points of table %q: %w", name, err)
		}
		if k.Compare(whole.Start) > 0 && k.Compare(whole.End) < 0 {
			points = append(points, k)
		}
	}
	slices.SortFunc(points, table.Key.Compare)
	return slices.CompactFunc(points, table.Key.Equal), nil
}

// pair is a name of package table and the protocol's number for it.
type pair[A, B comparable] struct {
	wire B
	name A
}

var keyTypes = []pair[table.KeyType, otsprotocol.PrimaryKeyType]{
	{otsprotocol.PrimaryKeyType_INTEGER, table.IntegerKey},
	{otsprotocol.PrimaryKeyType_STRING, table.StringKey},
	{otsprotocol.PrimaryKeyType_BINARY, table.BinaryKey},
}

var columnTypes = []pair[string, otsprotocol.DefinedColumnType]{
	{otsprotocol.DefinedColumnType_DCT_INTEGER, "integer"},
	{otsprotocol.DefinedColumnType_DCT_DOUBLE, "double"},
	{otsprotocol.DefinedColumnType_DCT_BOOLEAN, "boolean"},
	{otsprotocol.DefinedColumnType_DCT_STRING, "string"},
	{otsprotocol.DefinedColumnType_DCT_BLOB, "binary"},
}

func find[A, B comparable](pairs []pair[A, B], wire B) (name A, ok bool) {
	for _, p := range pairs {
		if p.wire == wire {
			return p.name, true
		}
	}
	return name, false
}

func findWire[A, B comparable](pairs []pair[A, B], name A) (wire B, ok bool) {
	for _, p := range pairs {
		if p.name == name {
			return p.wire, true
		}
	}
	return wire, false
}

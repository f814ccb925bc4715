package tablestore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	protov1 "github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/shared/table"
)

// Create makes a table with the definition's schema, options, defined columns,
// throughput, encryption and local transactions, without its indexes and stream, and
// waits until it serves. Where an answer was lost, a table that exists by then is the one
// that was asked for if it looks like it; else it is table.ErrExist.
func (c *Client) Create(ctx context.Context, def table.Definition) error {
	request, err := createRequest(&def)
	if err != nil {
		return table.Invalidf("create table %q: %w", def.Name, err)
	}
	doubt, err := c.change(ctx, "CreateTable", def.Name, request)
	if errors.Is(err, table.ErrExist) && doubt {
		got, _, describeErr := c.describeTable(ctx, def.Name)
		if describeErr != nil {
			return describeErr
		}
		if slices.Equal(got.Schema, def.Schema) && slices.Equal(got.DefinedColumns, def.DefinedColumns) && got.Options == def.Options {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return c.awaitTable(ctx, &def)
}

func createRequest(def *table.Definition) (*otsprotocol.CreateTableRequest, error) {
	if err := def.Validate(); err != nil {
		return nil, err
	}
	meta := &otsprotocol.TableMeta{TableName: &def.Name}
	for _, k := range def.Schema {
		kind, _ := findWire(keyTypes, k.Type)
		col := &otsprotocol.PrimaryKeySchema{Name: protov1.String(k.Name), Type: kind.Enum()}
		if k.AutoIncrement {
			col.Option = otsprotocol.PrimaryKeyOption_AUTO_INCREMENT.Enum()
		}
		meta.PrimaryKey = append(meta.PrimaryKey, col)
	}
	var err error
	if meta.DefinedColumn, err = definedColumns(def.DefinedColumns); err != nil {
		return nil, err
	}
	request := &otsprotocol.CreateTableRequest{
		TableMeta: meta,
		ReservedThroughput: &otsprotocol.ReservedThroughput{
			CapacityUnit: &otsprotocol.CapacityUnit{Read: &def.Throughput.Read, Write: &def.Throughput.Write},
		},
		TableOptions: tableOptions(def.Options),
	}
	if def.Options.UpdateFullRow {
		request.TableOptions.UpdateFullRow = protov1.Bool(true)
	}
	if def.LocalTransactions {
		request.EnableLocalTxn = protov1.Bool(true)
	}
	if s := def.Encryption; s != nil {
		request.SseSpec = &otsprotocol.SSESpecification{Enable: protov1.Bool(true), KeyType: otsprotocol.SSEKeyType_SSE_KMS_SERVICE.Enum()}
		switch s.KeyType {
		case "kms":
		case "byok":
			request.SseSpec.KeyType = otsprotocol.SSEKeyType_SSE_BYOK.Enum()
			request.SseSpec.KeyId, request.SseSpec.RoleArn = []byte(s.KeyID), []byte(s.RoleARN)
		default:
			return nil, fmt.Errorf("encryption with a key of type %q: want kms or byok", s.KeyType)
		}
	}
	return request, nil
}

func definedColumns(columns []table.DefinedColumn) ([]*otsprotocol.DefinedColumnSchema, error) {
	var out []*otsprotocol.DefinedColumnSchema
	for _, col := range columns {
		kind, ok := findWire(columnTypes, col.Type)
		if !ok {
			return nil, fmt.Errorf("defined column %q has the type %q: want integer, double, boolean, string or binary", col.Name, col.Type)
		}
		out = append(out, &otsprotocol.DefinedColumnSchema{Name: protov1.String(col.Name), Type: kind.Enum()})
	}
	return out, nil
}

// tableOptions is what may be set at any time: the service refuses update_full_row in a
// change, even unchanged.
func tableOptions(o table.Options) *otsprotocol.TableOptions {
	return &otsprotocol.TableOptions{
		TimeToLive: &o.TTL, MaxVersions: &o.MaxVersions, DeviationCellVersionInSec: &o.Deviation, AllowUpdate: &o.AllowUpdate,
	}
}

// readyTime is how long a new table may take until it serves.
const readyTime = 2 * time.Minute

// awaitTable waits until a new table serves. Until then the service may deny that it
// exists.
func (c *Client) awaitTable(ctx context.Context, def *table.Definition) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, fmt.Errorf("it does not serve after %s", readyTime))
	defer cancel()
	whole := def.Schema.Whole()
	start, err := def.Schema.AppendKey(nil, whole.Start)
	if err != nil {
		return err
	}
	end, err := def.Schema.AppendKey(nil, whole.End)
	if err != nil {
		return err
	}
	r := rangeRequest{table: def.Name, start: start, end: end, limit: 1, versions: math.MaxInt32}
	body := r.append(nil)
	for {
		_, ready, err := c.describeTable(ctx, def.Name)
		if err == nil && ready {
			// The table is empty, so its page is.
			_, err = c.send(ctx, "GetRange", def.Name, body)
			if err == nil || errors.Is(err, table.ErrPermission) {
				return nil // whoever writes need not be allowed to read
			}
		}
		if err == nil {
			err = fmt.Errorf("create table %q: %w: it is being loaded", def.Name, table.ErrUnavailable)
		} else if !errors.Is(err, table.ErrNotExist) {
			return err
		}
		if err := wait(ctx, c.poll(), err); err != nil {
			return err
		}
	}
}

// poll is the pause between two looks at something that takes its time.
func (c *Client) poll() time.Duration {
	return min(c.config.Retry.Longest, max(c.config.Retry.First, 250*time.Millisecond))
}

// SetOptions gives a table the options, and waits a while for the service to show them;
// update_full_row, which is of a table's creation, must be what the table has.
func (c *Client) SetOptions(ctx context.Context, name string, o table.Options) error {
	got, _, err := c.describeTable(ctx, name)
	if err != nil {
		return err
	}
	if got.Options == o {
		return nil
	}
	if got.Options.UpdateFullRow != o.UpdateFullRow {
		return table.Invalidf("options of table %q: update_full_row is %t and can be set at creation only", name, got.Options.UpdateFullRow)
	}
	request := &otsprotocol.UpdateTableRequest{TableName: &name, TableOptions: tableOptions(o)}
	if got.Options.AllowUpdate == o.AllowUpdate {
		request.TableOptions.AllowUpdate = nil
	}
	if got.Options.Deviation == o.Deviation {
		request.TableOptions.DeviationCellVersionInSec = nil
	}
	var answer otsprotocol.UpdateTableResponse
	if _, err = c.ask(ctx, "UpdateTable", name, request, &answer); err != nil {
		return err
	}
	got.Options = optionsOf(answer.GetTableOptions())
	// It is not documented how soon a change acts.
	for end := time.Now().Add(c.config.Retry.Window); got.Options != o && time.Now().Before(end); {
		pending := fmt.Errorf("options of table %q: %w: they are not in force yet", name, table.ErrUnavailable)
		if err := wait(ctx, c.poll(), pending); err != nil {
			return err
		}
		if got, _, err = c.describeTable(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// SetStream turns a table's stream on.
func (c *Client) SetStream(ctx context.Context, name string, s table.Stream) error {
	got, _, err := c.describeTable(ctx, name)
	if err != nil {
		return err
	}
	if got.Stream != nil && got.Stream.ExpirationHours == s.ExpirationHours && slices.Equal(got.Stream.OriginColumns, s.OriginColumns) {
		return nil
	}
	spec := &otsprotocol.StreamSpecification{EnableStream: protov1.Bool(true), ColumnsToGet: s.OriginColumns}
	if s.ExpirationHours > 0 {
		spec.ExpirationTime = &s.ExpirationHours
	}
	doubt, err := c.change(ctx, "UpdateTable", name, &otsprotocol.UpdateTableRequest{TableName: &name, StreamSpec: spec})
	if err != nil && doubt {
		// What can't be described has no stream.
		if got, _, _ := c.describeTable(ctx, name); got.Stream != nil && got.Stream.ExpirationHours == s.ExpirationHours {
			return nil
		}
	}
	return err
}

// AddDefinedColumns adds those of the columns that the table does not have.
func (c *Client) AddDefinedColumns(ctx context.Context, name string, columns []table.DefinedColumn) error {
	missing := func() ([]table.DefinedColumn, error) {
		got, _, err := c.describeTable(ctx, name)
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(slices.Clone(columns), func(x table.DefinedColumn) bool { return slices.Contains(got.DefinedColumns, x) }), nil
	}
	add, err := missing()
	if err != nil || len(add) == 0 {
		return err
	}
	wire, err := definedColumns(add)
	if err != nil {
		return table.Invalidf("add columns to table %q: %w", name, err)
	}
	doubt, err := c.change(ctx, "AddDefinedColumn", name, &otsprotocol.AddDefinedColumnRequest{TableName: &name, Columns: wire})
	if err != nil && doubt {
		if left, describeErr := missing(); describeErr == nil && len(left) == 0 {
			return nil
		}
	}
	return err
}

// CreateIndex makes a secondary index over the rows that are there, and waits until it is
// built or ctx ends.
func (c *Client) CreateIndex(ctx context.Context, def table.Definition, index table.Index) error {
	meta, err := indexMeta(def.Schema, index)
	if err != nil {
		return table.Invalidf("create index %q of table %q: %w", index.Name, def.Name, err)
	}
	doubt, err := c.change(ctx, "CreateIndex", def.Name, &otsprotocol.CreateIndexRequest{
		MainTableName: &def.Name, IndexMeta: meta, IncludeBaseData: protov1.Bool(true),
	})
	if errors.Is(err, table.ErrExist) && doubt {
		x, describeErr := c.index(ctx, def.Name, index.Name)
		if describeErr != nil {
			return describeErr
		}
		if x != nil {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	for {
		x, err := c.index(ctx, def.Name, index.Name)
		if err != nil {
			return err
		}
		if x != nil && x.Ready {
			return nil
		}
		pending := fmt.Errorf("create index %q of table %q: %w: it is being built", index.Name, def.Name, table.ErrUnavailable)
		if err := wait(ctx, c.poll(), pending); err != nil {
			return err
		}
	}
}

// index is the description of an index, nil if the table does not have it.
func (c *Client) index(ctx context.Context, name, index string) (*table.Index, error) {
	def, _, err := c.describeTable(ctx, name)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(def.Indexes, func(x table.Index) bool { return x.Name == index })
	if i < 0 {
		return nil, nil
	}
	return &def.Indexes[i], nil
}

// indexMeta is the message that makes an index, with what this version does not know of
// the one that was described.
func indexMeta(schema table.Schema, x table.Index) (*otsprotocol.IndexMeta, error) {
	m := new(otsprotocol.IndexMeta)
	if err := decode(x.Raw, m); err != nil {
		return nil, err
	}
	m.Name, m.PrimaryKey, m.DefinedColumn, m.IndexSyncPhase = &x.Name, indexedColumns(schema, x.Key), x.Columns, nil
	m.IndexUpdateMode = otsprotocol.IndexUpdateMode_IUM_ASYNC_INDEX.Enum()
	if x.Sync {
		m.IndexUpdateMode = otsprotocol.IndexUpdateMode_IUM_SYNC_INDEX.Enum()
	}
	switch x.Type {
	case "global":
		m.IndexType = otsprotocol.IndexType_IT_GLOBAL_INDEX.Enum()
	case "local":
		m.IndexType = otsprotocol.IndexType_IT_LOCAL_INDEX.Enum()
	default:
		return nil, fmt.Errorf("its type is %q: want global or local", x.Type)
	}
	return m, nil
}

// indexedColumns are the columns that an index was made with: the service appends to them
// those of the table's key that are not among them. It is the shortest start of key from
// which that makes key again.
func indexedColumns(schema table.Schema, key []string) []string {
	for n := 1; n < len(key); n++ {
		if slices.Equal(wholeKey(schema, key[:n]), key) {
			return key[:n]
		}
	}
	return key
}

// wholeKey is the key of an index on some columns: the columns of the table's key that
// are not among them follow, so that each of its rows has one key.
func wholeKey(schema table.Schema, indexed []string) []string {
	key := slices.Clone(indexed)
	for _, k := range schema {
		if !slices.Contains(indexed, k.Name) {
			key = append(key, k.Name)
		}
	}
	return key
}

// CreateSearchIndex makes a search index of the schema as it was described. It does not
// wait: the service fills the index beside its other work.
func (c *Client) CreateSearchIndex(ctx context.Context, name string, index table.SearchIndex) error {
	var body []byte
	body = appendString(body, 1, name)
	body = appendString(body, 2, index.Name)
	if len(index.Schema) > 0 {
		body = appendBytes(body, 3, index.Schema)
	}
	if index.Source != "" {
		body = appendString(body, 4, index.Source)
	}
	if index.TTL != 0 {
		body = appendVarint(body, 5, uint64(int64(index.TTL)))
	}
	doubt, err := c.send(ctx, "CreateSearchIndex", name, body)
	if errors.Is(err, table.ErrExist) && doubt {
		return nil
	}
	return err
}

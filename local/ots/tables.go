package ots

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

func (c *call) createTable() *engine.Error {
	var req otsprotocol.CreateTableRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.TableMeta.GetTableName()); err != nil {
		return err
	}
	d, err := definition(&req)
	if err != nil {
		return err
	}
	if req.EnableLocalTxn == nil {
		d.LocalTxn = c.server.engine.Behavior().Transactions.ByDefault
	}
	return c.server.engine.CreateTable(d)
}

func definition(req *otsprotocol.CreateTableRequest) (*engine.Definition, *engine.Error) {
	d := &engine.Definition{Name: req.TableMeta.GetTableName(), LocalTxn: req.GetEnableLocalTxn()}
	for _, k := range req.TableMeta.PrimaryKey {
		column := engine.KeyColumn{Name: k.GetName(), AutoIncrement: k.GetOption() == otsprotocol.PrimaryKeyOption_AUTO_INCREMENT && k.Option != nil}
		switch k.GetType() {
		case otsprotocol.PrimaryKeyType_INTEGER:
			column.Type = plainbuffer.Integer
		case otsprotocol.PrimaryKeyType_STRING:
			column.Type = plainbuffer.String
		case otsprotocol.PrimaryKeyType_BINARY:
			column.Type = plainbuffer.Blob
		default:
			return nil, invalid("Invalid type of primary key column: '%s'.", k.GetName())
		}
		d.Key = append(d.Key, column)
	}
	var err *engine.Error
	if d.Defined, err = definedColumns(req.TableMeta.DefinedColumn); err != nil {
		return nil, err
	}
	o := req.TableOptions
	if o == nil || o.TimeToLive == nil {
		return nil, invalid("Time-to-live is missing while creating table.")
	}
	if o.MaxVersions == nil {
		return nil, invalid("MaxVersions is missing while creating table.")
	}
	d.Options = engine.Options{
		TTL:           o.GetTimeToLive(),
		MaxVersions:   o.GetMaxVersions(),
		Deviation:     engine.DefaultDeviation,
		AllowUpdate:   true,
		UpdateFullRow: o.GetUpdateFullRow(),
	}
	if o.DeviationCellVersionInSec != nil {
		d.Options.Deviation = o.GetDeviationCellVersionInSec()
	}
	if o.AllowUpdate != nil {
		d.Options.AllowUpdate = o.GetAllowUpdate()
	}
	unit := req.GetReservedThroughput().GetCapacityUnit()
	d.Throughput = engine.Throughput{Read: unit.GetRead(), Write: unit.GetWrite()}
	if s := req.StreamSpec; s.GetEnableStream() {
		d.Stream = streamSettings(s)
	}
	if s := req.SseSpec; s != nil {
		d.Encryption = &engine.Encryption{Enable: s.GetEnable(), KeyType: int32(s.GetKeyType()), KeyID: s.GetKeyId(), RoleARN: s.GetRoleArn()}
	}
	if d.Splits, err = partitions(d, req.Partitions); err != nil {
		return nil, err
	}
	for _, x := range req.IndexMetas {
		d.Indexes = append(d.Indexes, indexOf(x))
	}
	for _, x := range req.TableMeta.IndexMeta {
		d.Indexes = append(d.Indexes, indexOf(x))
	}
	return d, nil
}

// maxPartitions is the service's limit of those that a table is made with.
const maxPartitions = 10

// partitions are the keys at which the partitions begin that a table is made with: values
// of its first key column, each of which ends the one before.
func partitions(d *engine.Definition, ranges []*otsprotocol.PartitionRange) ([][]byte, *engine.Error) {
	if len(ranges) > maxPartitions {
		return nil, invalid("The count of partitions cannot be greater than %d", maxPartitions)
	}
	var keys [][]plainbuffer.Cell
	for i, r := range ranges {
		if i > 0 && !bytes.Equal(r.Begin, ranges[i-1].End) || i == 0 && !isBound(r.Begin, plainbuffer.InfMin) {
			return nil, invalid("Partition %d does not begin where the one before ends.", i)
		}
		if i == len(ranges)-1 {
			if !isBound(r.End, plainbuffer.InfMax) {
				return nil, invalid("The last partition does not end at VT_INF_MAX.")
			}
			break
		}
		value, ok := parseVariant(r.End)
		if !ok {
			return nil, invalid("The end of partition %d is no value of a primary key column.", i)
		}
		keys = append(keys, []plainbuffer.Cell{value})
	}
	return d.SplitKeys(keys)
}

// isBound says whether a variant is one of the values that no row has.
func isBound(b []byte, t plainbuffer.Type) bool { return len(b) == 1 && plainbuffer.Type(b[0]) == t }

func streamSettings(s *otsprotocol.StreamSpecification) engine.StreamSettings {
	return engine.StreamSettings{Enabled: s.GetEnableStream(), Hours: s.GetExpirationTime(), Columns: s.GetColumnsToGet()}
}

// columnTypes are the types of defined columns and those of values.
var columnTypes = map[otsprotocol.DefinedColumnType]plainbuffer.Type{
	otsprotocol.DefinedColumnType_DCT_INTEGER: plainbuffer.Integer,
	otsprotocol.DefinedColumnType_DCT_DOUBLE:  plainbuffer.Double,
	otsprotocol.DefinedColumnType_DCT_BOOLEAN: plainbuffer.Boolean,
	otsprotocol.DefinedColumnType_DCT_STRING:  plainbuffer.String,
	otsprotocol.DefinedColumnType_DCT_BLOB:    plainbuffer.Blob,
}

func definedColumns(in []*otsprotocol.DefinedColumnSchema) ([]engine.DefinedColumn, *engine.Error) {
	var out []engine.DefinedColumn
	for _, c := range in {
		t, ok := columnTypes[c.GetType()]
		if !ok {
			return nil, invalid("Invalid type of defined column: '%s'.", c.GetName())
		}
		out = append(out, engine.DefinedColumn{Name: c.GetName(), Type: t})
	}
	return out, nil
}

func (c *call) listTable() *engine.Error {
	if err := c.enter(); err != nil {
		return err
	}
	names, err := c.server.engine.ListTables()
	if err != nil {
		return err
	}
	return c.send(&otsprotocol.ListTableResponse{TableNames: names})
}

func (c *call) deleteTable() *engine.Error {
	var req otsprotocol.DeleteTableRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	return c.server.engine.DeleteTable(req.GetTableName())
}

func (c *call) describeTable() *engine.Error {
	var req otsprotocol.DescribeTableRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	d, err := c.server.engine.DescribeTable(req.GetTableName())
	if err != nil {
		return err
	}
	res := &otsprotocol.DescribeTableResponse{
		TableMeta:                 tableMeta(&d.Definition),
		ReservedThroughputDetails: throughput(&d.Definition),
		TableOptions:              tableOptions(&d.Definition),
		TableStatus:               otsprotocol.TableStatus_ACTIVE.Enum(),
		StreamDetails:             streamDetails(&d.Definition),
		IndexMetas:                indexMetas(d),
	}
	if d.Loading {
		res.TableStatus = otsprotocol.TableStatus_LOADING.Enum()
	}
	for _, key := range d.PartitionKeys {
		res.ShardSplits = append(res.ShardSplits, engine.KeyBlock(key))
	}
	if s := d.Encryption; s != nil {
		res.SseDetails = &otsprotocol.SSEDetails{Enable: proto.Bool(s.Enable)}
		if s.Enable {
			res.SseDetails.KeyType = otsprotocol.SSEKeyType(s.KeyType).Enum()
			res.SseDetails.KeyId, res.SseDetails.RoleArn = s.KeyID, s.RoleARN
		}
	} else {
		res.SseDetails = &otsprotocol.SSEDetails{Enable: proto.Bool(false)}
	}
	if err := c.send(res); err != nil {
		return err
	}
	// creation_time, in microseconds: a field that the Go SDK's messages lack.
	c.answer = appendVarint(c.answer, 9, uint64(d.Created))
	return nil
}

func tableMeta(d *engine.Definition) *otsprotocol.TableMeta {
	m := &otsprotocol.TableMeta{TableName: proto.String(d.Name), PrimaryKey: keySchema(d.Key)}
	for _, col := range d.Defined {
		for wire, t := range columnTypes {
			if t == col.Type {
				m.DefinedColumn = append(m.DefinedColumn, &otsprotocol.DefinedColumnSchema{Name: proto.String(col.Name), Type: wire.Enum()})
			}
		}
	}
	return m
}

func keySchema(key []engine.KeyColumn) []*otsprotocol.PrimaryKeySchema {
	var out []*otsprotocol.PrimaryKeySchema
	for _, k := range key {
		s := &otsprotocol.PrimaryKeySchema{Name: proto.String(k.Name)}
		switch k.Type {
		case plainbuffer.Integer:
			s.Type = otsprotocol.PrimaryKeyType_INTEGER.Enum()
		case plainbuffer.String:
			s.Type = otsprotocol.PrimaryKeyType_STRING.Enum()
		default:
			s.Type = otsprotocol.PrimaryKeyType_BINARY.Enum()
		}
		if k.AutoIncrement {
			s.Option = otsprotocol.PrimaryKeyOption_AUTO_INCREMENT.Enum()
		}
		out = append(out, s)
	}
	return out
}

func throughput(d *engine.Definition) *otsprotocol.ReservedThroughputDetails {
	t := d.Throughput
	out := &otsprotocol.ReservedThroughputDetails{
		CapacityUnit:     &otsprotocol.CapacityUnit{Read: proto.Int32(t.Read), Write: proto.Int32(t.Write)},
		LastIncreaseTime: proto.Int64(t.LastIncrease),
	}
	if t.LastDecrease != 0 {
		out.LastDecreaseTime = proto.Int64(t.LastDecrease)
	}
	return out
}

func tableOptions(d *engine.Definition) *otsprotocol.TableOptions {
	o := d.Options
	return &otsprotocol.TableOptions{
		TimeToLive:                proto.Int32(o.TTL),
		MaxVersions:               proto.Int32(o.MaxVersions),
		DeviationCellVersionInSec: proto.Int64(o.Deviation),
		AllowUpdate:               proto.Bool(o.AllowUpdate),
		UpdateFullRow:             proto.Bool(o.UpdateFullRow),
	}
}

func streamDetails(d *engine.Definition) *otsprotocol.StreamDetails {
	s := d.Stream
	if !s.Enabled {
		return &otsprotocol.StreamDetails{EnableStream: proto.Bool(false)}
	}
	return &otsprotocol.StreamDetails{
		EnableStream:   proto.Bool(true),
		StreamId:       proto.String(s.ID),
		ExpirationTime: proto.Int32(s.Hours),
		LastEnableTime: proto.Int64(s.EnableTime),
		ColumnsToGet:   s.Columns,
	}
}

func (c *call) updateTable() *engine.Error {
	var req otsprotocol.UpdateTableRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	change := &engine.OptionsChange{}
	if o := req.TableOptions; o != nil {
		if o.TimeToLive == nil && o.MaxVersions == nil && o.DeviationCellVersionInSec == nil && o.AllowUpdate == nil && o.UpdateFullRow == nil {
			return invalid("No parameter is specified in table options.")
		}
		change.TTL, change.MaxVersions = o.TimeToLive, o.MaxVersions
		change.Deviation, change.AllowUpdate, change.UpdateFullRow = o.DeviationCellVersionInSec, o.AllowUpdate, o.UpdateFullRow
	}
	if unit := req.ReservedThroughput.GetCapacityUnit(); unit != nil {
		change.Read, change.Write = unit.Read, unit.Write
	}
	if s := req.StreamSpec; s != nil {
		settings := streamSettings(s)
		change.Stream = &settings
	}
	if req.TableOptions == nil && req.ReservedThroughput == nil && req.StreamSpec == nil {
		return invalid("Neither reserved throughput, table options nor stream specification is given while updating table.")
	}
	d, err := c.server.engine.UpdateTable(req.GetTableName(), change)
	if err != nil {
		return err
	}
	return c.send(&otsprotocol.UpdateTableResponse{
		ReservedThroughputDetails: throughput(&d.Definition),
		TableOptions:              tableOptions(&d.Definition),
		StreamDetails:             streamDetails(&d.Definition),
	})
}

func (c *call) addDefinedColumn() *engine.Error {
	var req otsprotocol.AddDefinedColumnRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	columns, err := definedColumns(req.Columns)
	if err != nil {
		return err
	}
	return c.server.engine.AddDefinedColumns(req.GetTableName(), columns)
}

func (c *call) deleteDefinedColumn() *engine.Error {
	var req otsprotocol.DeleteDefinedColumnRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	return c.server.engine.DeleteDefinedColumns(req.GetTableName(), req.Columns)
}

func (c *call) computeSplits() *engine.Error {
	var req otsprotocol.ComputeSplitPointsBySizeRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	if req.SplitSizeUnitInByte != nil && req.GetSplitSizeUnitInByte() == 0 {
		return invalid("The split_size_unit_in_byte should be greater equal than: 1048576")
	}
	if req.SplitPointLimit != nil && req.GetSplitPointLimit() < 1 {
		return invalid("The split_point_limit should be greater than 0.")
	}
	splits, err := c.server.engine.ComputeSplits(req.GetTableName(), req.GetSplitSize(), req.GetSplitSizeUnitInByte(), int(req.GetSplitPointLimit()))
	if err != nil {
		return err
	}
	res := &otsprotocol.ComputeSplitPointsBySizeResponse{
		Consumed:    consumed(splits.Read, 0),
		Schema:      keySchema(splits.Key),
		SplitPoints: splits.Points,
	}
	for i, p := range splits.Partitions {
		if n := len(res.Locations); i > 0 && p == splits.Partitions[i-1] {
			*res.Locations[n-1].Repeat++
			continue
		}
		sum := md5.Sum(fmt.Appendf(nil, "%s/%d", req.GetTableName(), p))
		res.Locations = append(res.Locations, &otsprotocol.ComputeSplitPointsBySizeResponse_SplitLocation{
			Location: proto.String(hex.EncodeToString(sum[:])),
			Repeat:   proto.Int64(1),
		})
	}
	return c.send(res)
}

func consumed(read, write int) *otsprotocol.ConsumedCapacity {
	return &otsprotocol.ConsumedCapacity{CapacityUnit: &otsprotocol.CapacityUnit{Read: proto.Int32(int32(read)), Write: proto.Int32(int32(write))}}
}

package ots

import (
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots/engine"
)

func (c *call) listStream() *engine.Error {
	var req otsprotocol.ListStreamRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enterAny(req.GetTableName()); err != nil {
		return err
	}
	streams, err := c.server.engine.Streams(req.GetTableName())
	if err != nil {
		return err
	}
	res := &otsprotocol.ListStreamResponse{}
	for _, s := range streams {
		res.Streams = append(res.Streams, &otsprotocol.Stream{
			StreamId:     proto.String(s.ID),
			TableName:    proto.String(s.Table),
			CreationTime: proto.Int64(s.EnableTime),
		})
	}
	return c.send(res)
}

func (c *call) describeStream() *engine.Error {
	var req otsprotocol.DescribeStreamRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	s, refused := c.server.engine.Stream(req.GetStreamId())
	if refused != nil {
		return c.refuse(refused)
	}
	if err := c.enter(s.Table); err != nil {
		return err
	}
	if req.ShardLimit != nil && req.GetShardLimit() < 1 {
		return invalid("Invalid shard limit: %d.", req.GetShardLimit())
	}
	shards, next, err := c.server.engine.ShardPage(s, req.GetInclusiveStartShardId(), int(req.GetShardLimit()))
	if err != nil {
		return err
	}
	res := &otsprotocol.DescribeStreamResponse{
		StreamId:       proto.String(s.ID),
		ExpirationTime: proto.Int32(s.Hours),
		TableName:      proto.String(s.Table),
		CreationTime:   proto.Int64(s.EnableTime),
		StreamStatus:   otsprotocol.StreamStatus_STREAM_ENABLING.Enum(),
	}
	if s.Active {
		res.StreamStatus = otsprotocol.StreamStatus_STREAM_ACTIVE.Enum()
	}
	for _, n := range shards {
		shard := &otsprotocol.StreamShard{ShardId: proto.String(s.ShardID(n))}
		if parents := s.Shards[n].Parents; len(parents) > 0 {
			shard.ParentId = proto.String(s.ShardID(parents[0]))
			if len(parents) > 1 {
				shard.ParentSiblingId = proto.String(s.ShardID(parents[1]))
			}
		}
		res.Shards = append(res.Shards, shard)
	}
	if next != "" {
		res.NextShardId = proto.String(next)
	}
	return c.send(res)
}

// refuse answers a request whose table can't be found out.
func (c *call) refuse(err *engine.Error) *engine.Error {
	if entered := c.enter(); entered != nil {
		return entered
	}
	return err
}

func (c *call) getShardIterator() *engine.Error {
	var req otsprotocol.GetShardIteratorRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enterAny(c.server.engine.StreamTable(req.GetStreamId())); err != nil {
		return err
	}
	it, token, err := c.server.engine.ShardIterator(req.GetStreamId(), req.GetShardId(), engine.Seek{Timestamp: req.Timestamp, Token: req.GetToken()})
	if err != nil {
		return err
	}
	// The field is required, also where a token stands for the iterator.
	res := &otsprotocol.GetShardIteratorResponse{ShardIterator: proto.String("")}
	if it != nil {
		res.ShardIterator = proto.String(it.String())
	}
	if token != "" {
		res.NextToken = proto.String(token)
	}
	return c.send(res)
}

// actions are the wire's numbers of what a change did.
var actions = map[engine.Op]otsprotocol.ActionType{
	engine.Put:    otsprotocol.ActionType_PUT_ROW,
	engine.Update: otsprotocol.ActionType_UPDATE_ROW,
	engine.Delete: otsprotocol.ActionType_DELETE_ROW,
}

func (c *call) getStreamRecord() *engine.Error {
	var req otsprotocol.GetStreamRecordRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	it, refused := engine.ParseIterator(req.GetShardIterator())
	if refused != nil {
		return c.refuse(refused)
	}
	if err := c.enterAny(c.server.engine.StreamTable(it.Stream)); err != nil {
		return err
	}
	if req.Limit != nil && req.GetLimit() < 1 {
		return invalid("Invalid limit: %d.", req.GetLimit())
	}
	if table := c.server.engine.StreamTable(it.Stream); table != "" && req.TableName != nil && req.GetTableName() != table {
		return invalid("Invalid table name: '%s': the shard iterator is of another table.", req.GetTableName())
	}
	page, err := c.server.engine.ReadStream(it, int(req.GetLimit()))
	if err != nil {
		return err
	}
	res := &otsprotocol.GetStreamRecordResponse{Consumed: consumed(page.Read, 0), MayMoreRecord: page.More}
	for i := range page.Records {
		r := &page.Records[i]
		res.StreamRecords = append(res.StreamRecords, &otsprotocol.GetStreamRecordResponse_StreamRecord{
			ActionType:   actions[r.Op].Enum(),
			Record:       r.Row,
			OriginRecord: r.Origin,
		})
	}
	if page.Next != nil {
		res.NextShardIterator = proto.String(page.Next.String())
	}
	return c.send(res)
}

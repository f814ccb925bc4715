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
	var err *engine.Error
	if table := req.GetTableName(); table != "" {
		err = c.enter(table)
	} else {
		err = c.enter()
	}
	if err != nil {
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
	s, err := c.server.engine.Stream(req.GetStreamId())
	if err != nil {
		if entered := c.enter(); entered != nil {
			return entered
		}
		return err
	}
	if err := c.enter(s.Table); err != nil {
		return err
	}
	res := &otsprotocol.DescribeStreamResponse{
		StreamId:       proto.String(s.ID),
		ExpirationTime: proto.Int32(s.Hours),
		TableName:      proto.String(s.Table),
		CreationTime:   proto.Int64(s.EnableTime),
		StreamStatus:   otsprotocol.StreamStatus_STREAM_ACTIVE.Enum(),
	}
	for _, shard := range s.Shards {
		res.Shards = append(res.Shards, &otsprotocol.StreamShard{ShardId: proto.String(shard)})
	}
	return c.send(res)
}

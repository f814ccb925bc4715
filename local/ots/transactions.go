package ots

import (
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

func (c *call) startTransaction() *engine.Error {
	var req otsprotocol.StartLocalTransactionRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	var key plainbuffer.Row
	if err := c.scanKey(req.Key, &key); err != nil {
		return err
	}
	id, err := c.server.engine.StartTransaction(req.GetTableName(), key.Key)
	if err != nil {
		return err
	}
	return c.send(&otsprotocol.StartLocalTransactionResponse{TransactionId: proto.String(id)})
}

func (c *call) commitTransaction() *engine.Error {
	var req otsprotocol.CommitTransactionRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enterAny(c.server.engine.TransactionTable(req.GetTransactionId())); err != nil {
		return err
	}
	return c.server.engine.CommitTransaction(req.GetTransactionId())
}

func (c *call) abortTransaction() *engine.Error {
	var req otsprotocol.AbortTransactionRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enterAny(c.server.engine.TransactionTable(req.GetTransactionId())); err != nil {
		return err
	}
	return c.server.engine.AbortTransaction(req.GetTransactionId())
}

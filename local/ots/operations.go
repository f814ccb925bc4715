package ots

import (
	"strings"

	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots/engine"
)

// serve does the operation that the path names and leaves its answer.
func (c *call) serve() *engine.Error {
	c.answer = c.frame.answer[:0]
	defer func() { c.frame.answer = c.answer }()
	switch c.op {
	case "CreateTable":
		return c.createTable()
	case "ListTable":
		return c.listTable()
	case "DescribeTable":
		return c.describeTable()
	case "UpdateTable":
		return c.updateTable()
	case "DeleteTable":
		return c.deleteTable()
	case "ComputeSplitPointsBySize":
		return c.computeSplits()
	case "AddDefinedColumn":
		return c.addDefinedColumn()
	case "DeleteDefinedColumn":
		return c.deleteDefinedColumn()
	case "CreateIndex":
		return c.createIndex()
	case "DropIndex":
		return c.dropIndex()
	case "PutRow":
		return c.putRow()
	case "UpdateRow":
		return c.updateRow()
	case "DeleteRow":
		return c.deleteRow()
	case "GetRow":
		return c.getRow()
	case "GetRange":
		return c.getRange()
	case "BatchGetRow":
		return c.batchGetRow()
	case "BatchWriteRow":
		return c.batchWriteRow()
	case "ListStream":
		return c.listStream()
	case "DescribeStream":
		return c.describeStream()
	case "GetShardIterator":
		return c.getShardIterator()
	case "GetStreamRecord":
		return c.getStreamRecord()
	case "StartLocalTransaction":
		return c.startTransaction()
	case "CommitTransaction":
		return c.commitTransaction()
	case "AbortTransaction":
		return c.abortTransaction()
	case "CreateSearchIndex":
		return c.createSearchIndex()
	case "ListSearchIndex":
		return c.listSearchIndex()
	case "DescribeSearchIndex":
		return c.describeSearchIndex()
	case "DeleteSearchIndex":
		return c.deleteSearchIndex()
	case "UpdateSearchIndex":
		return c.updateSearchIndex()
	case "Search":
		return c.search()
	case "ComputeSplits":
		return c.computeSearchSplits()
	case "ParallelScan":
		return c.parallelScan()
	case "ListTimeseriesTable":
		// There are none, which no bytes say.
		return c.enter()
	}
	if leftOut(c.op) {
		if err := c.enter(); err != nil {
			return err
		}
		return &engine.Error{Code: engine.CodeUnsupported, Message: "Unsupported operation: '" + c.op + "' is left out of the local server."}
	}
	return invalid("Unsupported operation: '%s'.", c.op)
}

// leftOut says whether the service has an operation that this server has not.
func leftOut(op string) bool {
	if strings.HasPrefix(op, "tunnel/") || strings.Contains(op, "Timeseries") || strings.Contains(op, "DeliveryTask") || strings.Contains(op, "GlobalTable") {
		return true
	}
	switch op {
	case "SQLQuery", "BulkImport", "BulkExport", "LoadTable", "UnloadTable":
		return true
	}
	return false
}

// decode reads the request's message.
func (c *call) decode(m proto.Message) *engine.Error {
	if err := unmarshal(c.body, m); err != nil {
		return invalid("Failed to parse the protobuf of the request: %v.", err)
	}
	return nil
}

// send makes a message the answer.
func (c *call) send(m proto.Message) *engine.Error {
	b, err := proto.Marshal(m)
	if err != nil {
		return engine.AsError(err)
	}
	c.answer = append(c.answer, b...)
	return nil
}

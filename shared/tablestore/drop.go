package tablestore

import (
	"context"
	"errors"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	protov1 "github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/shared/table"
)

// DropTable deletes a table with its rows and its indexes. That there is none of the
// name, or no more, is no error; dying in between, and doing it twice, is harmless.
//
// The service refuses to delete a table that has search indexes. Whether it deletes one
// that has secondary indexes is not documented: they go first, too.
func (c *Client) DropTable(ctx context.Context, name string) error {
	drop := func(op string, request protov1.Message) error {
		_, err := c.change(ctx, op, name, request)
		if errors.Is(err, table.ErrNotExist) {
			return nil // by then it was gone
		}
		return err
	}
	def, err := c.Describe(ctx, name)
	if errors.Is(err, table.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, x := range def.SearchIndexes {
		if err := drop("DeleteSearchIndex", &otsprotocol.DeleteSearchIndexRequest{TableName: &name, IndexName: &x.Name}); err != nil {
			return err
		}
	}
	for _, x := range def.Indexes {
		if err := drop("DropIndex", &otsprotocol.DropIndexRequest{MainTableName: &name, IndexName: &x.Name}); err != nil {
			return err
		}
	}
	return drop("DeleteTable", &otsprotocol.DeleteTableRequest{TableName: &name})
}

package ots_test

import (
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/ots"
)

// start runs a server for one test.
func start(t testing.TB, config ots.Config) *ots.Server {
	t.Helper()
	s, err := ots.Start(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// connect returns the unmodified SDK's client, which does not retry.
func connect(s *ots.Server) *tablestore.TableStoreClient {
	config := tablestore.NewDefaultTableStoreConfig()
	config.RetryTimes = 0
	return tablestore.NewClientWithConfig(s.URL(), "local", ots.DefaultKeyID, ots.DefaultKeySecret, "", config)
}

func TestSmoke(t *testing.T) {
	s := start(t, ots.Config{})
	c := connect(s)
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("pk", tablestore.PrimaryKeyType_STRING)
	if _, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 3},
		ReservedThroughput: &tablestore.ReservedThroughput{},
	}); err != nil {
		t.Fatal(err)
	}
	pk := &tablestore.PrimaryKey{}
	pk.AddPrimaryKeyColumn("pk", "a")
	put := &tablestore.PutRowChange{TableName: "t", PrimaryKey: pk}
	put.AddColumn("c", int64(1))
	put.SetCondition(tablestore.RowExistenceExpectation_EXPECT_NOT_EXIST)
	if _, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: put}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: put}); err == nil {
		t.Fatal("no error")
	} else {
		t.Log(err)
	}
	got, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: pk, MaxVersion: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(got.PrimaryKey.PrimaryKeys[0], got.Columns[0], got.ConsumedCapacityUnit)
	d, err := c.DescribeTable(&tablestore.DescribeTableRequest{TableName: "t"})
	t.Log(d, err)
}

package ots

import (
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots/engine"
)

func indexOf(m *otsprotocol.IndexMeta) engine.Index {
	return engine.Index{
		Name:    m.GetName(),
		Key:     m.PrimaryKey,
		Columns: m.DefinedColumn,
		Local:   m.GetIndexType() == otsprotocol.IndexType_IT_LOCAL_INDEX,
		Sync:    m.GetIndexUpdateMode() == otsprotocol.IndexUpdateMode_IUM_SYNC_INDEX,
	}
}

func indexMetas(d *engine.Description) []*otsprotocol.IndexMeta {
	var out []*otsprotocol.IndexMeta
	for i, x := range d.Indexes {
		m := &otsprotocol.IndexMeta{
			Name:            proto.String(x.Name),
			PrimaryKey:      x.Key,
			DefinedColumn:   x.Columns,
			IndexUpdateMode: otsprotocol.IndexUpdateMode_IUM_ASYNC_INDEX.Enum(),
			IndexType:       otsprotocol.IndexType_IT_GLOBAL_INDEX.Enum(),
			IndexSyncPhase:  otsprotocol.IndexSyncPhase(d.IndexPhases[i]).Enum(),
		}
		if x.Sync {
			m.IndexUpdateMode = otsprotocol.IndexUpdateMode_IUM_SYNC_INDEX.Enum()
		}
		if x.Local {
			m.IndexType = otsprotocol.IndexType_IT_LOCAL_INDEX.Enum()
		}
		out = append(out, m)
	}
	return out
}

func (c *call) createIndex() *engine.Error {
	var req otsprotocol.CreateIndexRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetMainTableName()); err != nil {
		return err
	}
	return c.server.engine.CreateIndex(req.GetMainTableName(), indexOf(req.IndexMeta), req.GetIncludeBaseData())
}

func (c *call) dropIndex() *engine.Error {
	var req otsprotocol.DropIndexRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetMainTableName()); err != nil {
		return err
	}
	return c.server.engine.DropIndex(req.GetMainTableName(), req.GetIndexName())
}

package tablestore_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/table"
)

// TestDropTable drops a table with indexes of both kinds, with each of its calls lost
// before or after it took effect, and again when it is gone.
func TestDropTable(t *testing.T) {
	for _, op := range []string{"none", "DescribeTable", "DeleteSearchIndex", "DropIndex", "DeleteTable"} {
		for _, after := range []bool{false, true} {
			s := otstest.Run(t, ots.Config{})
			c := connect(t, s)
			def := full()
			def.Name = "t"
			create(t, c, def)
			beside := definition()
			beside.Name = "t2"
			create(t, c, beside)
			for _, name := range []string{"i1", "i2"} {
				if err := c.CreateIndex(t.Context(), def, table.Index{Name: name, Key: []string{"i", "pk1", "pk2", "pk3"}, Type: "global"}); err != nil {
					t.Fatal(err)
				}
			}
			schema, err := proto.Marshal(&otsprotocol.IndexSchema{FieldSchemas: []*otsprotocol.FieldSchema{
				{FieldName: proto.String("s"), FieldType: otsprotocol.FieldType_KEYWORD.Enum(), Index: proto.Bool(true)},
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.CreateSearchIndex(t.Context(), "t", table.SearchIndex{Name: "find", Schema: schema}); err != nil {
				t.Fatal(err)
			}
			struck := op == "none"
			s.SetFault(func(called, _ string, n int) *ots.Fault {
				if called != op || struck {
					return nil
				}
				struck = true
				if after {
					return &ots.Fault{After: true, Cut: ots.CutSilent}
				}
				return ots.Refuse(engine.CodeServerBusy, "")
			})
			if err := c.DropTable(t.Context(), "t"); err != nil || !struck {
				t.Errorf("%s lost, after %t: %v, struck %t", op, after, err, struck)
			}
			names, err := c.Tables(t.Context())
			if err != nil || !slices.Equal(names, []string{"t2"}) {
				t.Errorf("%s lost, after %t: %v are left, %v", op, after, names, err)
			}
			if err := c.DropTable(t.Context(), "t"); err != nil {
				t.Errorf("again: %v", err)
			}
		}
	}
}

// TestDropTableRefused tells whoever may not.
func TestDropTableRefused(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())
	s.SetFault(func(op, _ string, _ int) *ots.Fault {
		if op == "DeleteTable" {
			return ots.Refuse(engine.CodeNoPermission, "")
		}
		return nil
	})
	if err := c.DropTable(t.Context(), "t"); !errors.Is(err, table.ErrPermission) {
		t.Error(err)
	}
}

package ots_test

import (
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/local/ram"
)

// TestAuthority: a role's temporary key does what its policy says and no more, and
// nothing once it has expired; a batch is allowed as a whole or not at all.
func TestAuthority(t *testing.T) {
	t.Parallel()
	authority := ram.New(ram.Config{Owner: ram.Key{ID: "owner", Secret: "s"}})
	authority.Record()
	policy, err := ram.ParsePolicy([]byte(`{"Version":"1","Statement":[
		{"Effect":"Allow","Action":["ots:GetRange","ots:BatchWriteRow"],"Resource":"acs:ots:*:*:instance/local/table/t"},
		{"Effect":"Allow","Action":"ots:ListTable","Resource":"acs:ots:*:*:instance/local/table/*"}]}`))
	ok(t, err)
	authority.SetPolicies("worker", policy)
	s := otstest.Run(t, ots.Config{Authority: authority})
	create(t, connect(s), tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, tablestore.PrimaryKeyType_STRING)
	const denied = "You have no permission to access the requested resource, please contact the resource owner."
	k := authority.Assume("worker", time.Hour)
	worker := connectAs(s, k.ID, k.Secret, k.Token)

	_, err = tryPage(worker, key(lowest), key(highest))
	ok(t, err)
	_, err = worker.ListTable()
	ok(t, err)
	want(t, put(worker, key("a")), 403, "OTSNoPermissionAccess", denied)
	batch := func(tables ...string) error {
		request := &tablestore.BatchWriteRowRequest{}
		for _, name := range tables {
			change := putChange(key("a"), cell{Name: "c", Value: "v"})
			change.TableName = name
			request.AddRowChange(change)
		}
		_, err := worker.BatchWriteRow(request)
		return err
	}
	ok(t, batch("t"))
	want(t, batch("t", "other"), 403, "OTSNoPermissionAccess", denied)
	_, err = worker.DescribeTable(&tablestore.DescribeTableRequest{TableName: "t"})
	want(t, err, 403, "OTSNoPermissionAccess", denied)

	owner := connectAs(s, "owner", "s", "")
	_, err = owner.DescribeTable(&tablestore.DescribeTableRequest{TableName: "t"})
	ok(t, err)
	_, err = connectAs(s, k.ID, k.Secret, "other").ListTable()
	want(t, err, 403, "OTSAuthFailed", "The security token is invalid.")
	authority.Expire("worker")
	_, err = worker.ListTable()
	want(t, err, 403, "OTSAuthFailed", "The security token is expired.")

	calls, counts := authority.Calls()
	refused := ram.Call{Role: "worker", Action: "ots:PutRow", Resource: "acs:ots:local:0:instance/local/table/t"}
	if len(calls) == 0 || counts[refused] != 1 {
		t.Errorf("%v", counts)
	}
}

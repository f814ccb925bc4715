package engine

import (
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// TestTransactionsAreUsedByOne holds a transaction as a request does, and tries to use it
// meanwhile.
func TestTransactionsAreUsedByOne(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	e, err := Open(kv.Memory(), Config{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := e.CreateTable(&Definition{
		Name: "t", Key: []KeyColumn{{Name: "k", Type: plainbuffer.String}}, LocalTxn: true,
		Options: Options{TTL: -1, MaxVersions: 1, AllowUpdate: true},
	}); err != nil {
		t.Fatal(err)
	}
	key := []plainbuffer.Cell{{Name: []byte("k"), Type: plainbuffer.String, Data: []byte("a"), HasValue: true}}
	id, refused := e.StartTransaction("t", key)
	if refused != nil {
		t.Fatal(refused)
	}
	tx, refused := e.use(id)
	if refused != nil {
		t.Fatal(refused)
	}
	change := &Change{Op: Put, Row: plainbuffer.Row{Key: key}}
	for name, use := range map[string]func() *Error{
		"a write":  func() *Error { return e.WriteIn(id, "t", change) },
		"a commit": func() *Error { return e.CommitTransaction(id) },
		"an abort": func() *Error { return e.AbortTransaction(id) },
		"a read": func() *Error {
			_, _, err := e.Get("t", key, &Query{MaxVersions: 1, Transaction: id}, nil)
			return err
		},
	} {
		if err := use(); err != errSessionBusy {
			t.Errorf("%s beside another request is answered %v", name, err)
		}
	}
	tx.release()
	if err := e.WriteIn(id, "t", change); err != nil {
		t.Error(err)
	}
	// A transaction that is being committed can't run out: its key stays locked
	// until the changes are in the table.
	tx.committing = true
	now = now.Add(time.Hour)
	if err := e.Write("t", &Change{Op: Put, Row: plainbuffer.Row{Key: key}}); err == nil || err.Code != CodeRowConflict {
		t.Errorf("a write beside a commit is answered %v", err)
	}
	tx.committing = false
	if err := e.Write("t", &Change{Op: Put, Row: plainbuffer.Row{Key: key}}); err != nil {
		t.Error(err)
	}
	for _, partition := range "bcd" {
		key := []plainbuffer.Cell{{Name: []byte("k"), Type: plainbuffer.String, Data: []byte(string(partition)), HasValue: true}}
		if _, err := e.StartTransaction("t", key); err != nil {
			t.Error(err)
		}
	}
	now = now.Add(time.Hour)
	if id, refused = e.StartTransaction("t", key); refused != nil || e.sessions.n.Load() != 1 {
		t.Errorf("beside a new transaction there are others that ran out: %d of them, %v", e.sessions.n.Load(), refused)
	}
	if err := e.AbortTransaction(id); err != nil {
		t.Error(err)
	}
	if e.sessions.n.Load() != 0 || len(e.sessions.byID) != 0 || len(e.sessions.held) != 0 {
		t.Error("a transaction that ran out is still kept")
	}
}

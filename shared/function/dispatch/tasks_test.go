package dispatch

import (
	"reflect"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestTaskID: work that differs in anything has another id, but in what a worker may use
// of a budget; and the same work has the same one, within a step of time. A field that is
// added to the work has to be thought of here.
func TestTaskID(t *testing.T) {
	work := fanout.Work{
		Verb: fanout.VerbRestore, Table: vault.TableID{Region: "r", Instance: "i", Table: "t"}, Backup: "b", Restore: "r", Segment: "s", Replica: "ta",
		Rate: 1, Request: "re", ReadUnits: 1, WriteUnits: 1, Start: 1, After: fanout.Loading,
	}
	now := time.Unix(1_800_000_000, 0)
	id := func(w fanout.Work, at time.Time) string { return taskID(w, at, time.Minute) }
	same := id(work, now)
	if id(work, now.Add(59*time.Second)) != same || id(work, now.Add(time.Minute)) == same {
		t.Error("the id does not change by steps of a minute")
	}
	shares := map[string]bool{"Rate": true, "ReadUnits": true, "WriteUnits": true}
	fields := reflect.TypeFor[fanout.Work]()
	for i := range fields.NumField() {
		other := work
		field := reflect.ValueOf(&other).Elem().Field(i)
		switch name := fields.Field(i).Name; {
		case field.IsZero():
			t.Errorf("%s is not set", name)
		case name == "Table":
			other.Table.Table = "u"
		case field.Kind() == reflect.String:
			field.SetString(field.String() + "x")
		case field.CanInt():
			field.SetInt(field.Int() + 1)
		case field.CanFloat():
			field.SetFloat(field.Float() + 1)
		default:
			t.Errorf("%s is of a kind that this test does not know", name)
		}
		if name := fields.Field(i).Name; (id(other, now) == same) != shares[name] {
			t.Errorf("another %s: is it the same task? %t", name, !shares[name])
		}
	}
	// Neighbours do not run into each other.
	other := work
	other.Replica, other.Request = "t", "are"
	if id(other, now) == same {
		t.Error("a target and a request are one text")
	}
}

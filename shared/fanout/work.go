package fanout

import (
	"context"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// Work is one thing for a function to do: a segment of a backup or of a restore, a group
// of a copy, or a look at a restore or at a request.
type Work struct {
	Verb    Verb
	Table   vault.TableID
	Backup  vault.BackupID
	Restore vault.RestoreID
	Segment vault.SegmentID
	// Replica is the key of the one that a group of a backup, which Segment is the first
	// of, is copied to, and Rate what that may use of its budget, in bytes per second; 0
	// for any number.
	Replica string
	Rate    int64
	// Request is the name of the request to be looked at; of a segment of a restore, the
	// request that has asked for the restore, if one has.
	Request string
	// ReadUnits is what the worker may read of the table per second, in read units,
	// WriteUnits what it may write, in write units; 0 for as much as there is.
	ReadUnits  float64
	WriteUnits float64
	// Start is the number of the start that this work will be; with the rest it makes the
	// id of the task, so that a second dispatch of one start is one task.
	Start int
	// After is what a look comes after, where a worker asks for it that has found nothing
	// left to do: looks after different phases are different tasks. It is empty for the
	// work of a segment, and for the looks of a tick.
	After Phase
}

// Phase is what workers do together, before which something else can't begin.
type Phase string

// The phases.
const (
	Exporting Phase = "exporting"
	Loading   Phase = "loading"
	Comparing Phase = "comparing"
	Answering Phase = "answering"
)

// Verb is what a function does.
type Verb string

// The verbs that work is dispatched for.
const (
	VerbExport  Verb = "export"
	VerbImport  Verb = "import"
	VerbVerify  Verb = "verify"
	VerbRestore Verb = "restore"
	VerbCopy    Verb = "copy"
	// VerbSeal looks at a backup of which nothing is left to export, VerbTick at
	// everything.
	VerbSeal Verb = "seal"
	VerbTick Verb = "tick"
)

// Dispatcher hands work to the functions. Submit returns when the work is queued; the
// same work queued twice may run twice.
type Dispatcher interface {
	Submit(ctx context.Context, w Work) error
}

// Run is what a verb knows of the invocation that it runs in.
type Run struct {
	// Request is the platform's id of the invocation, for the notes.
	Request string
	// Stop is when to stop at a page boundary, save and hand over; Until is when the
	// platform ends the invocation. Zero means never.
	Stop, Until time.Time
	// Retry counts the deliveries of the event before this one that failed.
	Retry int
	// Tell is after how long work on a segment tells how far it has come, before there is
	// a record; it then does so ever more rarely. Zero means never.
	Tell time.Duration
	// Hide takes secrets out of a text before it is stored; nil if there are none.
	Hide func(string) string
	// Now is the clock. It stamps notes and measures time left, and decides nothing about
	// coverage.
	Now func() time.Time
}

// Stopping says that it is time to stop at the next page boundary.
func (r Run) Stopping() bool { return !r.Stop.IsZero() && !r.Now().Before(r.Stop) }

// Text is what may be stored of an error.
func (r Run) Text(err error) string {
	if r.Hide == nil {
		return err.Error()
	}
	return r.Hide(err.Error())
}

// wrote says that a note is by this delivery of the event, or by one before it: the
// platform gives all of them one id.
func (r Run) wrote(n *vault.Note) bool { return r.Request != "" && n.Request == r.Request }

// InTime is ctx with an end half way from when run says stop to when the platform ends
// the invocation: late enough for what is under way, early enough to save, or to say what
// happened.
func (r Run) InTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.Stop.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, r.Stop.Sub(r.Now())+r.Until.Sub(r.Stop)/2)
}

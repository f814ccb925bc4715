// Package backup holds the verbs: plan, export, seal, restore, import, verify
// and prune. It is the only package that decides anything.
//
// Every verb may run twice, at the same time, late, or die at any byte; the
// outcome is the same backup or a clear error. They meet in the vault alone: a
// segment's slots, a group's roll-up and the manifest are names that one
// writer wins, and whoever loses obeys what stands there.
//
// The verbs reach the world through ports: [Tables] for Tablestore, an
// object.Store for the vault, [Dispatcher] for the functions that work.
package backup

import (
	"context"
	"time"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Version is the version of the command, which plans and manifests record.
const Version = "0.1.0"

// Tables is one Tablestore instance. Errors match the conditions of package
// table. Every method tries again what may succeed, until ctx ends.
type Tables interface {
	Describe(ctx context.Context, name string) (table.Definition, error)
	// SplitPoints cuts a table into ranges of about size bytes and returns the
	// keys between them, in ascending order, each as long as the schema.
	SplitPoints(ctx context.Context, name string, schema table.Schema, size int64) ([]table.Key, error)
	Scan(name string, schema table.Schema, r table.Range) table.Scan

	// Create makes a table with the definition's schema, options and defined
	// columns, without its indexes, and waits until it serves.
	Create(ctx context.Context, def table.Definition) error
	SetOptions(ctx context.Context, name string, o table.Options) error
	SetStream(ctx context.Context, name string, s table.Stream) error
	AddDefinedColumns(ctx context.Context, name string, columns []table.DefinedColumn) error
	// CreateIndex makes an index over the rows that are there and waits until
	// it is built.
	CreateIndex(ctx context.Context, def table.Definition, index table.Index) error
	CreateSearchIndex(ctx context.Context, name string, index table.SearchIndex) error

	NewBatch() table.Batch
	Write(ctx context.Context, name string, b table.Batch) (table.WriteResult, error)
}

// Work is one thing for a function to do: a segment of a backup or of a
// restore, a group of a copy, or a look at a restore or at a request.
type Work struct {
	Verb    Verb
	Table   vault.TableID
	Backup  vault.BackupID
	Restore vault.RestoreID
	Segment vault.SegmentID
	// Target is the address of the vault that a group of a backup, which Segment
	// is the first of, is copied to, and Rate what that may use of its budget, in
	// bytes per second; 0 for any number.
	Target string
	Rate   int64
	// Request is the name of the request to be looked at.
	Request string
	// ReadUnits is what the worker may read per second, in read units; 0 for as
	// much as there is.
	ReadUnits float64
	// Start is the number of the start that this work will be; with the rest it
	// makes the id of the task, so that a second dispatch of one start is one
	// task.
	Start int
}

// Verb is what a function does.
type Verb string

// The verbs that work is dispatched for.
const (
	VerbExport  Verb = "export"
	VerbImport  Verb = "import"
	VerbVerify  Verb = "verify"
	VerbRestore Verb = "restore"
	VerbCopy    Verb = "copy"
)

// Dispatcher hands work to the functions. Submit returns when the work is
// queued; the same work queued twice may run twice.
type Dispatcher interface {
	Submit(ctx context.Context, w Work) error
}

// Run is what a verb knows of the invocation that it runs in.
type Run struct {
	// Request is the platform's id of the invocation, for the notes.
	Request string
	// Stop is when to stop at a page boundary, save and hand over; Until is
	// when the platform ends the invocation. Zero means never.
	Stop, Until time.Time
	// Retry counts the deliveries of the event before this one that failed.
	Retry int
	// Now is the clock. It stamps notes and measures time left, and decides
	// nothing about coverage.
	Now func() time.Time
}

func (r Run) stopping() bool { return !r.Stop.IsZero() && !r.Now().Before(r.Stop) }

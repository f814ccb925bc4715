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

	"github.com/tablevault/tablevault/shared/table"
)

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

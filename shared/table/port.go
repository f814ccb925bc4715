package table

import (
	"context"
	"regexp"
	"time"
)

// A Scan reads a range of a table in key order, page by page.
type Scan interface {
	// Next reads the next page into buf, whose capacity bounds it. It returns io.EOF
	// after the page whose Next is nil.
	Next(ctx context.Context, buf []byte) (Page, error)
	// Aim has the scan ask for pages of about so many bytes, if the buffer has room for
	// more; 0 is no aim.
	Aim(bytes int)
}

// A Page is what one request of a scan brought. It covers the keys from where the scan
// stood to Next.
type Page struct {
	// Block is the rows as PlainBuffer, a slice of the buffer that Next was given. The
	// service's own bytes, but where Piece is true.
	Block []byte
	// Next is where the range goes on, nil after its last page. While a row is not over,
	// it is that row's key.
	Next Key
	// Piece says that Block is a single piece of a row too wide for the buffer: its key
	// and some of its cells. The pieces of a row follow each other, in canonical order;
	// the first and the last are marked.
	Piece, First, Last bool
	// ServerTime is the service's date of the answer.
	ServerTime time.Time
	// ReadUnits is what the page cost.
	ReadUnits int64
}

// A Batch gathers rows for one write, within the service's limits.
type Batch interface {
	// Add takes a row, PlainBuffer without a block's header, which must stay as it is
	// until the batch was written. It returns false, and takes nothing, if the row no
	// longer fits. A row that does not fit into an empty batch can be written in pieces
	// only.
	Add(row []byte, op WriteOp) bool
	Len() int
	Reset()
}

// OnThrottled returns a context whose calls tell f of each answer by which the service
// wants fewer requests, and of each that wants so for some rows of a batch, before the
// call waits to try again. Calls may do so side by side.
func OnThrottled(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, throttledKey{}, f)
}

// Throttled tells whoever asked to be told.
func Throttled(ctx context.Context) {
	if f, ok := ctx.Value(throttledKey{}).(func()); ok {
		f()
	}
}

type throttledKey struct{}

// BeforeRetry returns a context whose calls ask f before they try again what failed. An
// error of f's ends the call, and is what it returns.
func BeforeRetry(ctx context.Context, f func(ctx context.Context) error) context.Context {
	return context.WithValue(ctx, retryKey{}, f)
}

// Retrying asks whoever wanted to be asked whether a call may try again.
func Retrying(ctx context.Context) error {
	if f, ok := ctx.Value(retryKey{}).(func(context.Context) error); ok {
		return f(ctx)
	}
	return nil
}

type retryKey struct{}

// WriteOp is what a write does with a row.
type WriteOp int

// The operations.
const (
	// Put replaces the row.
	Put WriteOp = iota
	// Update adds the row's cells to what is there.
	Update
)

// WriteResult is the answer to a batch that was carried out.
type WriteResult struct {
	// Refused are the rows that the service will refuse each time. All others are
	// written.
	Refused    []Refusal
	ServerTime time.Time
	WriteUnits int64
	// InDoubt says that a request which was sent for the batch has no answer, or one by
	// which the service does not know itself what became of it: it may be carried out
	// after the call has returned, well or with an error.
	InDoubt bool
}

// Refusal is one row of a batch that was not written.
type Refusal struct {
	Index   int // place in the batch
	Code    string
	Message string
}

var instanceForm = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// IsInstanceName says whether an instance may have the name. It becomes part of the host
// that rows and tokens are sent to, and may come from a document of the vault: with a
// slash, a question mark or an at sign in it the host would be another.
func IsInstanceName(name string) bool { return instanceForm.MatchString(name) }

// An Instance is one Tablestore instance. Errors match the conditions of this package.
// Every method tries again what may succeed, until ctx ends.
type Instance interface {
	Describe(ctx context.Context, name string) (Definition, error)
	// SplitPoints cuts a table into ranges of about size bytes and returns the keys
	// between them, in ascending order, each as long as the schema.
	SplitPoints(ctx context.Context, name string, schema Schema, size int64) ([]Key, error)
	Scan(name string, schema Schema, r Range) Scan

	// Create makes a table with the definition's schema, options and defined columns,
	// without its indexes, and waits until it serves.
	Create(ctx context.Context, def Definition) error
	SetOptions(ctx context.Context, name string, o Options) error
	SetStream(ctx context.Context, name string, s Stream) error
	AddDefinedColumns(ctx context.Context, name string, columns []DefinedColumn) error
	// CreateIndex makes an index over the rows that are there and waits until it is
	// built.
	CreateIndex(ctx context.Context, def Definition, index Index) error
	CreateSearchIndex(ctx context.Context, name string, index SearchIndex) error

	NewBatch() Batch
	// Write returns what is known of a batch beside an error, too.
	Write(ctx context.Context, name string, b Batch) (WriteResult, error)
}

// Catalog is an instance whose tables can be listed and deleted.
type Catalog interface {
	Instance
	// Tables are the names of the instance's tables.
	Tables(ctx context.Context) ([]string, error)
	// DropTable deletes a table with its indexes; that there is none is no error.
	DropTable(ctx context.Context, name string) error
}

// UnitBytes is how much a unit reads or writes.
const UnitBytes = 4096

package engine

import "time"

// Behavior is what the service is free to do, what differs between its instances, or what
// is not known of it: one answer is the default, the zero value, and a switch gives the
// other.
type Behavior struct {
	Writes       WriteBehavior
	Reads        ReadBehavior
	Tables       TableBehavior
	Indexes      IndexBehavior
	Transactions TransactionBehavior
	Capacity     CapacityBehavior
	Partitions   PartitionBehavior
	Stream       StreamBehavior
}

// WriteBehavior is what is not known of writes.
type WriteBehavior struct {
	// RefuseEmptyPut makes a PutRow without attributes an error. By default it writes a
	// row that has only its key.
	RefuseEmptyPut bool
	// RefusePutVersions makes a PutRow with several versions of one column an error. By
	// default it writes them all.
	RefusePutVersions bool
	// CountColumns holds the columns of a write against the limit of 1024. By default
	// each version counts.
	CountColumns bool
	// RequireUTF8 makes a string that is no UTF-8 an error. By default it is taken as it
	// is.
	RequireUTF8 bool
	// SecondsWindow compares given timestamps with the window in whole seconds. By
	// default it is done in milliseconds.
	SecondsWindow bool
	// IndexedTimestamps lets writes to a table with indexes give timestamps, and a batch
	// repeat a row of it. By default both are refused.
	IndexedTimestamps bool
	// KeepVersions lets a write keep what is beyond MaxVersions or has expired: hidden
	// until [Engine.Evict], or until an option or the delete of a newer version brings it
	// back. By default a write drops it from its row.
	KeepVersions bool
	// RefusedUpdate is the code with which an UpdateRow is refused on a table that allows
	// none, CodeParameterInvalid if it is empty.
	RefusedUpdate string
}

// ReadBehavior is what is not known of reads, and where their pages end.
type ReadBehavior struct {
	// HideExpiredRows makes a row whose cells have all expired invisible. By default it
	// is an empty row.
	HideExpiredRows bool
	// Tokens says when a page ends inside of a row. By default it is never.
	Tokens Tokens
	// DocumentedLimits allows 10 filters and 128 columns in a read, as the documentation
	// says. By default they are 32 and 1024, as the Java SDK's tests expect.
	DocumentedLimits bool
	// RefuseRepeats makes a BatchGetRow that names a row twice an error, which the error
	// page knows. By default it is read twice, as the Python SDK's tests do.
	RefuseRepeats bool
	// PageRows and PageSize make pages shorter than 5000 rows and 4 MiB, as the service
	// may at any time.
	PageRows, PageSize int
}

// TableBehavior is what is not known of tables, how many there may be, and what takes its
// time.
type TableBehavior struct {
	// MinTTL is the least TTL in seconds. By default any is taken that is not 0, as the
	// SDKs' tests need, though the documentation says 86400.
	MinTTL int32
	// ReadyDelay is how long a new table refuses reads and writes, with the error
	// ReadyCode, CodeTableNotReady if it is empty.
	ReadyDelay time.Duration
	ReadyCode  string
	// OptionsDelay is how long an UpdateTable takes to act.
	OptionsDelay time.Duration
	// Max is the quota of tables, 64 if 0.
	Max int
	// Operations is how many operations on tables are allowed per second, 0 for any
	// number; the service allows 10.
	Operations int
}

// IndexBehavior is what is not known of indexes, and what takes its time.
type IndexBehavior struct {
	// FullKeys makes DescribeTable show the key of an index with the rest of the table's
	// key behind the columns that were asked for. By default it shows those alone, as the
	// Python SDK's tests expect.
	FullKeys bool
	// Listed puts indexes among the tables of ListTables. By default they are not: the
	// Java SDK's tests could not clean up otherwise.
	Listed bool
	// Delay is how long the build of an index takes.
	Delay time.Duration
	// Lag is how far indexes that are not updated with their table are behind it: global
	// ones that are asynchronous, and search indexes. What was written while it was 0, or
	// before the engine was opened, shows at once.
	Lag time.Duration
	// SearchTTLWithUpdates lets a search index have a TTL on a table that allows updates.
	// By default such an index is refused.
	SearchTTLWithUpdates bool
	// MissingSearch is the code with which a Search of an index that is not there is
	// refused. By default it is CodeMetaNotMatch, as the SDKs' tests have it of
	// ComputeSplits; else it is that of operations on tables, CodeObjectNotExist.
	MissingSearch string
}

// TransactionBehavior is what is not known of local transactions.
type TransactionBehavior struct {
	// ByDefault lets every new table have local transactions that is not told otherwise.
	// By default only a table has them that asks.
	ByDefault bool
	// Life is how long a local transaction may be open, a minute if 0.
	Life time.Duration
}

// CapacityBehavior is how much the service gives.
type CapacityBehavior struct {
	// Read and Write throttle every table at so many units per second; 0 is no limit.
	// Work beyond is refused with the error ThrottleCode, CodeNotEnoughCapacity if it is
	// empty; a range ends its page early.
	Read, Write  int
	ThrottleCode string
	// Reserve says what becomes of a wish to reserve capacity. By default it is granted.
	Reserve Reserve
	// ReserveInterval is the least time between two changes of a table's reserved
	// capacity; the service's is two minutes.
	ReserveInterval time.Duration
}

// PartitionBehavior is how a table is parted, and what is told of it.
type PartitionBehavior struct {
	// SplitPoints says which keys ComputeSplits proposes.
	SplitPoints SplitPoints
	// SplitSize is the size at which a partition splits by itself, 0 for never.
	SplitSize int64
	// MergeSize is the size up to which two neighbours together merge by themselves, 0
	// for never. It is well below SplitSize.
	MergeSize int64
}

// Tokens says when a page ends inside of a row.
type Tokens int8

// The choices.
const (
	TokensOff      Tokens = iota // never: a row is sent whole, however large
	TokensWide                   // in a row that is larger than a page by itself
	TokensAnywhere               // in any row in which the page is full
)

// SplitPoints says which keys ComputeSplits proposes.
type SplitPoints int8

// The choices.
const (
	SplitAtRows  SplitPoints = iota // the key of the row that begins a range
	SplitAtParts                    // the fewest columns of it that tell the ranges apart
	SplitBetween                    // the key right after the last row of a range, which no row may have
)

// Reserve says what becomes of a wish to reserve capacity.
type Reserve int8

// The choices.
const (
	ReserveGranted   Reserve = iota
	ReserveInvalid           // as in capacity instances: an invalid parameter of CreateTable, a forbidden UpdateTable
	ReserveForbidden         // both are forbidden
)

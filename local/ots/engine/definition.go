package engine

import (
	"math"
	"slices"
	"strings"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// The service's limits.
const (
	MaxTables         = 64
	MaxNameLength     = 255
	MaxKeyColumns     = 4
	MaxKeyLength      = 1024
	MaxValueLength    = 2 << 20
	MaxWriteColumns   = 1024
	MaxReadColumns    = 1024
	MaxRowWrite       = 4 << 20
	MaxBatchRows      = 200
	MaxBatchSize      = 4 << 20
	MaxBatchReads     = 100
	MaxPageRows       = 5000
	MaxPageSize       = 4 << 20
	MaxDefinedColumns = 32
	MaxIndexes        = 5
	MaxIndexColumns   = 32
	MaxFilters        = 32
	MaxReserved       = 100000
	maxIndexKey       = 2 * MaxKeyColumns // an index has the table's key too
	maxTimestamp      = math.MaxInt64 / 1000
	maxDeviation      = math.MaxInt64 / 1000000

	documentedReadColumns = 128
	documentedFilters     = 10
)

// A KeyColumn is one column of a primary key.
type KeyColumn struct {
	Name          string
	Type          plainbuffer.Type // Integer, String or Blob
	AutoIncrement bool             `json:",omitempty"`
}

// A DefinedColumn is an attribute whose type the table fixes.
type DefinedColumn struct {
	Name string
	Type plainbuffer.Type
}

// Options are a table's settings that can change.
type Options struct {
	TTL           int32 // seconds, -1 for none
	MaxVersions   int32
	Deviation     int64 // seconds that a given timestamp may be off
	AllowUpdate   bool
	UpdateFullRow bool // fixed at creation
}

// DefaultDeviation is a day.
const DefaultDeviation = 86400

// Throughput is reserved capacity and when it was changed, in seconds.
type Throughput struct {
	Read, Write  int32
	LastIncrease int64
	LastDecrease int64
}

// Encryption is server-side encryption as it was asked for.
type Encryption struct {
	Enable  bool
	KeyType int32
	KeyID   []byte
	RoleARN []byte
}

// StreamSettings say whether changes of the table are kept, and for how long.
type StreamSettings struct {
	Enabled    bool
	ID         string
	Hours      int32    // of retention
	EnableTime int64    // microseconds
	Columns    []string // kept with their former values

	Number   int64   `json:",omitempty"` // of the stream, unlike any other's
	ActiveAt int64   `json:",omitempty"` // microseconds: from then on it keeps records
	Shards   []Shard `json:",omitempty"` // by number, also those that are closed
	Open     []int   `json:",omitempty"` // the number of each partition's shard
}

// A Definition is all that is known of a table but its rows. It is never changed: an
// update replaces it.
type Definition struct {
	Name       string
	Key        []KeyColumn
	Defined    []DefinedColumn
	Options    Options
	Throughput Throughput
	Encryption *Encryption
	Stream     StreamSettings
	LocalTxn   bool
	Created    int64 // microseconds
	Indexes    []Index
	Searches   []SearchIndex
	// Base is the table whose index this is.
	Base string
	// Splits are stored keys at which partitions begin, ascending.
	Splits [][]byte

	Space  string // of the store
	Prefix []byte // of the rows' keys in it
}

func (d *Definition) clone() *Definition {
	c := *d
	return &c
}

func (d *Definition) autoIncrement() int {
	for i := range d.Key {
		if d.Key[i].AutoIncrement {
			return i
		}
	}
	return -1
}

func (d *Definition) defined(name string) (DefinedColumn, bool) {
	i := slices.IndexFunc(d.Defined, func(c DefinedColumn) bool { return c.Name == name })
	if i < 0 {
		return DefinedColumn{}, false
	}
	return d.Defined[i], true
}

func (d *Definition) isKey(name string) bool {
	return slices.ContainsFunc(d.Key, func(c KeyColumn) bool { return c.Name == name })
}

// CheckTableName refuses what names neither a table nor an index.
func CheckTableName(name string) *Error {
	if checkIndexName(name) != nil {
		return checkTableName(name)
	}
	return nil
}

// checkTableName refuses what is no name of a table.
func checkTableName(name string) *Error {
	ok := len(name) > 0 && len(name) <= MaxNameLength
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9'
	}
	if !ok {
		return invalid("Invalid table name: '%s'.", name)
	}
	return nil
}

// checkIndexName is checkTableName for names that may have hyphens, but not at their
// beginning.
func checkIndexName(name string) *Error {
	if strings.HasPrefix(name, "-") {
		return checkTableName(name)
	}
	return checkTableName(strings.ReplaceAll(name, "-", "_"))
}

// checkColumnName refuses what no column can be called.
func checkColumnName(name []byte) *Error {
	if len(name) == 0 || len(name) > MaxNameLength || name[0] == '#' {
		return invalid("Invalid column name: '%s'.", name)
	}
	return nil
}

func (d *Definition) check() *Error {
	if err := checkTableName(d.Name); err != nil {
		return err
	}
	if len(d.Key) == 0 || len(d.Key) > MaxKeyColumns {
		return invalid("The number of primary key columns must be in range: [1, %d].", MaxKeyColumns)
	}
	seen := map[string]bool{}
	auto := 0
	for i, c := range d.Key {
		if err := checkColumnName([]byte(c.Name)); err != nil {
			return err
		}
		if seen[c.Name] {
			return invalid("Duplicated primary key name: '%s'.", c.Name)
		}
		seen[c.Name] = true
		if c.AutoIncrement {
			auto++
			if c.Type != plainbuffer.Integer {
				return invalid("AUTO_INCREMENT primary key must be integer.")
			}
			if i == 0 {
				return invalid("First primary key can't be auto increment, table: %s.", d.Name)
			}
		}
	}
	if auto > 1 {
		return invalid("AUTO_INCREMENT primary key count must <= 1.")
	}
	if err := checkDefined(d.Defined, d.Key); err != nil {
		return err
	}
	if err := d.Options.check(); err != nil {
		return err
	}
	return d.Throughput.check()
}

func checkDefined(columns []DefinedColumn, key []KeyColumn) *Error {
	if len(columns) > MaxDefinedColumns {
		return invalid("The number of defined columns must be in range: [0, %d].", MaxDefinedColumns)
	}
	seen := map[string]bool{}
	for _, c := range key {
		seen[c.Name] = true
	}
	for _, c := range columns {
		if err := checkColumnName([]byte(c.Name)); err != nil {
			return err
		}
		if seen[c.Name] {
			return invalid("Duplicated defined column name: '%s'.", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

func (o *Options) check() *Error {
	switch {
	case o.MaxVersions < 1:
		return invalid("The maximum versions cannot be less than or equal to 0.")
	case o.TTL == 0 || o.TTL < -1:
		return invalid("TimeToLive cannot be 0 or less than -1.")
	case o.Deviation < 0 || o.Deviation > maxDeviation:
		return invalid("The maximum deviation must be in range [0, INT64_MAX/1000000].")
	}
	return nil
}

func (t *Throughput) check() *Error {
	if least := min(t.Read, t.Write); least < 0 {
		return invalid("Invalid Capacity Unit:%d. Capacity Unit must be nonnegative.", least)
	}
	if t.Read > MaxReserved {
		return invalid("Read capacity unit must be in range: [0, %d].", MaxReserved)
	}
	if t.Write > MaxReserved {
		return invalid("Write capacity unit must be in range: [0, %d].", MaxReserved)
	}
	return nil
}

// keepsVersions says whether a version's timestamp counts in the size of rows.
func (o *Options) keepsVersions() bool { return o.MaxVersions > 1 || o.TTL >= 0 }

// expiry is the least timestamp that is still alive at the time.
func (o *Options) expiry(now int64) int64 {
	if o.TTL < 0 {
		return math.MinInt64
	}
	return (now/1000 - int64(o.TTL)) * 1000
}

// window is the range [low, high) of timestamps that a write may give, in whole seconds
// if told so.
func (o *Options) window(now int64, seconds bool) (low, high int64) {
	if seconds {
		now -= now % 1000
	}
	low, high = now-o.Deviation*1000, now+o.Deviation*1000
	if o.TTL >= 0 {
		low = max(low, now-int64(o.TTL)*1000)
	}
	return low, high
}

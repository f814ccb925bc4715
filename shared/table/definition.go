package table

import (
	"fmt"
	"time"
)

// Definition is everything about a table that a restore makes anew, besides its rows. Raw
// fields hold the service's own message, so that a field which this version does not know
// is not lost.
type Definition struct {
	Name           string          `json:"name"`
	Schema         Schema          `json:"schema"`
	DefinedColumns []DefinedColumn `json:"defined_columns,omitempty"`
	Options        Options         `json:"options"`
	Throughput     Throughput      `json:"throughput"`
	Stream         *Stream         `json:"stream,omitempty"`
	Encryption     *Encryption     `json:"encryption,omitempty"`
	Indexes        []Index         `json:"indexes,omitempty"`
	SearchIndexes  []SearchIndex   `json:"search_indexes,omitempty"`
	// LocalTransactions has the table take local transactions. It is set at creation
	// only, and no description tells it.
	LocalTransactions bool `json:"local_transactions,omitempty"`
	// Identity tells the table from any other one of its name.
	Identity Identity `json:"identity,omitzero"`
	// Raw is the service's description of the table.
	Raw []byte `json:"raw,omitempty"`
}

// Identity is what the service gives a table once, when it is made: a table that was
// dropped and made anew under its name has another. A field is empty where the service
// does not tell it.
type Identity struct {
	// Created is when the table was made, in microseconds since 1970.
	Created int64 `json:"created,omitempty"`
	// ID is the service's own id of the table.
	ID string `json:"id,omitempty"`
}

// Known says whether the identity tells anything.
func (i Identity) Known() bool { return i != Identity{} }

// Other says whether two identities are of two tables, as far as both tell.
func (i Identity) Other(o Identity) bool {
	return i.Created != 0 && o.Created != 0 && i.Created != o.Created || i.ID != "" && o.ID != "" && i.ID != o.ID
}

// String is the identity for people.
func (i Identity) String() string {
	switch {
	case i.Created != 0 && i.ID != "":
		return fmt.Sprintf("%s, made %s", i.ID, time.UnixMicro(i.Created).UTC().Format(time.RFC3339Nano))
	case i.Created != 0:
		return "made " + time.UnixMicro(i.Created).UTC().Format(time.RFC3339Nano)
	case i.ID != "":
		return i.ID
	}
	return "of an unknown time"
}

// Options are a table's options.
type Options struct {
	// TTL is the age in seconds at which a cell expires, -1 for never.
	TTL int32 `json:"ttl_seconds"`
	// MaxVersions is how many versions of a column are kept.
	MaxVersions int32 `json:"max_versions"`
	// Deviation is how far, in seconds, a written timestamp may lie from the server's
	// time.
	Deviation int64 `json:"deviation_seconds"`
	// AllowUpdate is false in tables that take only whole rows.
	AllowUpdate bool `json:"allow_update"`
	// UpdateFullRow marks a row-version table; it is set at creation only.
	UpdateFullRow bool `json:"update_full_row,omitempty"`
}

// NoTTL is the TTL of cells that never expire.
const NoTTL = -1

// WidestDeviation is the greatest deviation that the service takes, in seconds: with it a
// table accepts every timestamp from 0 on.
const WidestDeviation = (1<<63 - 1) / 1_000_000

// Expired says whether a cell with the given timestamp is past its TTL at the instant
// now; both are in milliseconds since 1970.
func (o Options) Expired(timestamp, now int64) bool {
	return o.TTL > 0 && timestamp < now-int64(o.TTL)*1000
}

// DefinedColumn is an attribute column with a fixed type.
type DefinedColumn struct {
	Name string `json:"name"`
	// Type is "integer", "double", "boolean", "string" or "binary".
	Type string `json:"type"`
}

// Throughput is what a table has reserved, in capacity units per second.
type Throughput struct {
	Read  int32 `json:"read"`
	Write int32 `json:"write"`
}

// Stream is the setting of a table's change stream; nil means that it is off.
type Stream struct {
	ID string `json:"id,omitempty"`
	// ExpirationHours is how long records are kept.
	ExpirationHours int32 `json:"expiration_hours"`
	// OriginColumns are the columns whose former values records carry.
	OriginColumns []string `json:"origin_columns,omitempty"`
	// Enabled is when the stream was turned on, in microseconds since 1970.
	Enabled int64 `json:"enabled,omitempty"`
}

// Encryption is the setting of encryption at rest; nil means that it is off.
type Encryption struct {
	// KeyType is "kms" or "byok".
	KeyType string `json:"key_type"`
	KeyID   string `json:"key_id,omitempty"`
	RoleARN string `json:"role_arn,omitempty"`
}

// Index is the definition of a secondary index.
type Index struct {
	Name string `json:"name"`
	// Key is the index's primary key as the service describes it: the indexed columns and
	// the table's own key columns after them.
	Key []string `json:"key"`
	// Columns are the defined columns that the index carries.
	Columns []string `json:"columns,omitempty"`
	// Type is "global" or "local".
	Type string `json:"type"`
	// Sync says that the index is written with the table.
	Sync bool `json:"sync,omitempty"`
	// Ready says that the index is built.
	Ready bool   `json:"ready,omitempty"`
	Raw   []byte `json:"raw,omitempty"`
}

// SearchIndex is the definition of a search index. Schema is the service's message,
// encoded as it was received.
type SearchIndex struct {
	Name   string `json:"name"`
	Source string `json:"source,omitempty"`
	TTL    int32  `json:"ttl_seconds,omitempty"`
	// Fields names the indexed fields and their types, for people.
	Fields []SearchField `json:"fields,omitempty"`
	Schema []byte        `json:"schema"`
}

// SearchField is one field of a search index.
type SearchField struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Validate says whether the definition can stand in a plan.
func (d *Definition) Validate() error {
	if d.Name == "" {
		return fmt.Errorf("a table without a name")
	}
	if err := d.Schema.Validate(); err != nil {
		return fmt.Errorf("table %s: %w", d.Name, err)
	}
	if d.Options.MaxVersions < 1 {
		return fmt.Errorf("table %s: max_versions is %d: want at least 1", d.Name, d.Options.MaxVersions)
	}
	return nil
}

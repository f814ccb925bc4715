package engine

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// MaxStreamHours is the longest retention of a stream.
const MaxStreamHours = 168

// enable checks the settings and names the new stream.
func (s *StreamSettings) enable(d *Definition, now time.Time) *Error {
	if s.Hours < 1 || s.Hours > MaxStreamHours {
		return invalid("Stream expiration time must be in range: [1, %d].", MaxStreamHours)
	}
	s.EnableTime = now.UnixMicro()
	s.ID = fmt.Sprintf("%s_%d", d.Name, s.EnableTime)
	return nil
}

// updateStream turns the stream of a table on, off, or changes its retention.
// A stream that is turned on again is a new one.
func (d *Definition) updateStream(s *StreamSettings, now time.Time) *Error {
	if !s.Enabled {
		d.Stream = StreamSettings{}
		return nil
	}
	if d.Stream.Enabled {
		if s.Hours < 1 || s.Hours > MaxStreamHours {
			return invalid("Stream expiration time must be in range: [1, %d].", MaxStreamHours)
		}
		d.Stream.Hours, d.Stream.Columns = s.Hours, s.Columns
		return nil
	}
	next := *s
	if err := next.enable(d, now); err != nil {
		return err
	}
	d.Stream = next
	return nil
}

// A StreamDescription is a table's stream.
type StreamDescription struct {
	StreamSettings
	Table  string
	Shards []string
}

// Streams returns the stream of a table if it has one, or all for "".
func (e *Engine) Streams(table string) ([]StreamDescription, *Error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []StreamDescription
	if table != "" {
		t := e.tables[table]
		if t == nil {
			return nil, errNoTable
		}
		if d := t.definition(); d.Stream.Enabled {
			out = append(out, d.describeStream())
		}
		return out, nil
	}
	for _, t := range e.tables {
		if d := t.definition(); d.Stream.Enabled {
			out = append(out, d.describeStream())
		}
	}
	slices.SortFunc(out, func(a, b StreamDescription) int { return cmp.Compare(a.Table, b.Table) })
	return out, nil
}

func (d *Definition) describeStream() StreamDescription {
	s := StreamDescription{StreamSettings: d.Stream, Table: d.Name}
	for i := range len(d.Splits) + 1 {
		s.Shards = append(s.Shards, fmt.Sprintf("%s_shard_%d", d.Stream.ID, i))
	}
	return s
}

// Stream returns the stream of an id.
func (e *Engine) Stream(id string) (*StreamDescription, *Error) {
	all, err := e.Streams("")
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].ID == id {
			return &all[i], nil
		}
	}
	return nil, invalid("Invalid stream id: %s.", id)
}

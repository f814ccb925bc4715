package table

import "fmt"

// A Range is the keys from Start, inclusive, to End, exclusive.
type Range struct {
	Start Key `json:"start"`
	End   Key `json:"end"`
}

// String prints a range for people.
func (r Range) String() string { return fmt.Sprintf("[%v, %v)", r.Start, r.End) }

// Empty says whether no key can lie in r.
func (r Range) Empty() bool { return r.Start.Compare(r.End) >= 0 }

// Contains says whether k lies in r.
func (r Range) Contains(k Key) bool { return r.Start.Compare(k) <= 0 && k.Compare(r.End) < 0 }

// Intersect is the part of r that lies in s; it may be Empty.
func (r Range) Intersect(s Range) Range {
	if r.Start.Compare(s.Start) < 0 {
		r.Start = s.Start
	}
	if r.End.Compare(s.End) > 0 {
		r.End = s.End
	}
	return r
}

// Validate says whether r can be read from a table of the schema.
func (r Range) Validate(s Schema) error {
	if err := s.CheckBound(r.Start); err != nil {
		return fmt.Errorf("start of range: %w", err)
	}
	if err := s.CheckBound(r.End); err != nil {
		return fmt.Errorf("end of range: %w", err)
	}
	if r.Empty() {
		return fmt.Errorf("range %v holds no key: its start is not less than its end", r)
	}
	return nil
}

// Covers says whether parts, in their order, cover whole without a gap and without an
// overlap; the error names the first place where they do not.
func Covers(whole Range, parts []Range) error {
	at := whole.Start
	for i, p := range parts {
		switch c := at.Compare(p.Start); {
		case c < 0:
			return fmt.Errorf("gap [%v, %v) before range %d", at, p.Start, i)
		case c > 0:
			return fmt.Errorf("range %d begins at %v, inside the range before it, which ends at %v", i, p.Start, at)
		}
		if p.Empty() {
			return fmt.Errorf("range %d, %v, holds no key", i, p)
		}
		at = p.End
	}
	if c := at.Compare(whole.End); c < 0 {
		return fmt.Errorf("gap [%v, %v) at the end", at, whole.End)
	} else if c > 0 {
		return fmt.Errorf("the last range ends at %v, beyond the end %v", at, whole.End)
	}
	return nil
}

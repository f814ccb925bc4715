package verify

import (
	"context"
	"errors"

	"github.com/tablevault/tablevault/shared/compare"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/vault"
)

// Loading is what the log of a segment's loading tells.
type Loading struct {
	// Ended says that all of the segment is loaded.
	Ended bool
	// Quarantined are the keys, as Key.String gives them, of the rows that the service
	// refused.
	Quarantined map[string]bool
	// Usage is what the loading asked of the store.
	Usage object.Usage
}

// ReadLoading reads the log of a segment's loading. Rows in quarantine that can't be read
// are left out.
func ReadLoading(ctx context.Context, r *repository.Repository, restore vault.Restore, s vault.SegmentID, check *vault.Check) (Loading, error) {
	loaded := Loading{Quarantined: map[string]bool{}}
	for entry, err := range r.Loading(ctx, restore, s, 0) {
		if err != nil {
			return loaded, err
		}
		loaded.Usage.Add(entry.Usage)
		if entry.Quarantine != nil {
			var q vault.Quarantine
			err := r.ReadExact(ctx, *entry.Quarantine, &q)
			switch {
			case repository.Corrupt(err):
				check.Find(entry.Quarantine.Name, err)
			case err != nil:
				return loaded, err
			default:
				for _, row := range q.Rows {
					loaded.Quarantined[row.Key.String()] = true
				}
			}
		}
		if loaded.Ended = entry.Last; loaded.Ended {
			break
		}
	}
	return loaded, nil
}

// Count is the sink of a proof, to which quarantine explains a difference.
func (l Loading) Count(found *vault.Check, d vault.Difference) {
	found.Differ(d, l.Quarantined[d.Key.String()])
}

// Segment verifies one segment at a depth. What is damaged here and not in a replica is
// verified there.
func Segment(ctx context.Context, depth string, c *compare.Comparer, x *compare.Comparison, check *vault.Check) (compare.Found, error) {
	r := x.Segment.Backup.Repo
	corrupted := check.Corrupted
	var names []string
	objects := map[string]vault.Object{}
	for _, s := range x.Segment.Parts() {
		for _, o := range []vault.Object{s.Part.Shard, s.Part.Index} {
			names = append(names, o.Name)
			objects[o.Name] = o
			check.Objects++
			check.Bytes += o.Bytes
			sizeOnly, err := r.PresentAnywhere(ctx, o)
			switch {
			case repository.Corrupt(err):
				check.Find(o.Name, err)
			case err != nil:
				return compare.Found{}, err
			case sizeOnly:
				check.SizeOnly++
			}
		}
	}
	if check.Corrupted > corrupted && depth == DepthRows {
		// A table is not compared with what is not all there, but whatever can
		// still be read is.
		depth = DepthRead
	}
	var found vault.Check
	var compared compare.Found
	var broken error
	_ = r.FailOver(ctx, func() error {
		found = *check
		if compared, broken = readAt(ctx, depth, c, x, &found); broken != nil {
			return broken
		}
		var bad []error
		for _, f := range found.Findings[len(check.Findings):] {
			if o, ok := objects[f.Object]; ok {
				bad = append(bad, &repository.BadObject{Object: o, Err: errors.New(f.Reason)})
			}
		}
		return errors.Join(bad...) // those that no replica has either stay findings
	})
	if broken != nil {
		return compare.Found{}, broken
	}
	found.Replace(r.Replaced(names...))
	*check = found
	return compared, nil
}

// readAt reads a segment, or compares it, as far as depth asks for that.
func readAt(ctx context.Context, depth string, c *compare.Comparer, x *compare.Comparison, check *vault.Check) (found compare.Found, err error) {
	switch depth {
	case DepthRead:
		var sum sealed.Sum
		sum, err = x.Segment.Read(ctx, check, nil)
		check.Rows += sum.Rows
		check.Digest.Add(sum.Digest)
	case DepthRows:
		found, err = c.Segment(ctx, x, check)
		var bad *repository.BadObject
		if errors.As(err, &bad) {
			check.Find(bad.Object.Name, bad.Err)
			err = nil
		}
	}
	return found, err
}

package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Copies is what a tick found of backups that are to stand in replicas.
type Copies struct {
	// Pending counts the copies that are not complete, Live the groups that are being
	// copied, and Dispatched those that this tick started.
	Pending    int `json:"pending"`
	Live       int `json:"live"`
	Dispatched int `json:"dispatched"`
}

// maxCopyLooks bounds how many backups a tick looks at for one replica; the newest come
// first.
const maxCopyLooks = 200

// toCopy is a backup that a rule with replicas has made.
type toCopy struct {
	vault.Backup
	rule *policy.Rule
}

// copies hands the sealed backups of rules with replicas to the function that copies,
// group by group, unless they are complete there, are being copied, or have failed for
// good. It comes last: exports have had the workers that they need, and what goes wrong
// here is reported and stops nothing else.
func (s *ticking) copies(ctx context.Context) error {
	replicas := s.Policy.Replicas()
	if len(replicas) == 0 {
		return nil
	}
	noted := map[string]bool{}
	for info, err := range s.Repo.Store().List(ctx, vault.CopyNotesPrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", vault.CopyNotesPrefix, err)
		}
		noted[info.Name] = true
	}
	wanted := s.kept()
	for _, d := range replicas {
		if err := s.copiesTo(ctx, d, wanted, noted); err != nil {
			return err
		}
	}
	return nil
}

// kept are the backups to copy whose time is not over by their rules, newest first.
func (s *ticking) kept() []toCopy {
	var kept []toCopy
	seen := map[position]int{}
	slices.SortStableFunc(s.toCopy, func(a, b toCopy) int { return strings.Compare(string(b.ID), string(a.ID)) })
	for _, c := range s.toCopy {
		at := position{c.rule.Name, c.Table}
		keep := c.rule.Keep
		if keep.For == 0 || s.reply.At.Sub(c.ID.Time()) <= keep.For || seen[at] < keep.AtLeast {
			kept = append(kept, c)
		}
		seen[at]++
	}
	return kept
}

// copyUnit is a group to be copied.
type copyUnit struct {
	backup vault.Backup
	start  fanout.Start
	bytes  int64
}

func (s *ticking) copiesTo(ctx context.Context, d policy.Replica, wanted []toCopy, noted map[string]bool) error {
	key := d.Key()
	var units []copyUnit
	live, used, looks := 0, int64(0), 0
	for _, c := range wanted {
		if noted[c.CopyNote(key)] || !slices.ContainsFunc(c.rule.Replicas, func(o policy.Replica) bool { return o.Key() == key }) {
			continue
		}
		if looks++; looks > maxCopyLooks || s.run.Stopping() {
			s.report(c.rule.Name, "", "more than %d copies to %s are not complete: older ones wait", looks-1, place.Plain(d.To))
			break
		}
		var found *copyLook
		err := guard.Do(func() (err error) {
			lctx, cancel := s.share(ctx, 0)
			defer cancel()
			found, err = s.lookAtCopy(lctx, c, key)
			return err
		})
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.report(c.rule.Name, c.Table.String(), "the copy of backup %s to %s can't be looked at: %v", c.ID, place.Plain(d.To), err)
			continue
		}
		if found == nil {
			continue // it was given up, or is not sealed
		}
		s.reply.Copies.Pending++
		if found.failure != "" {
			s.report(c.rule.Name, c.Table.String(), "%s", found.failure)
		}
		live, used = live+found.live, used+found.rate
		units = append(units, found.units...)
	}
	s.reply.Copies.Live += live
	// Exports that never end must not keep copies from being made.
	room := max(s.reply.Most-s.reply.Live-s.reply.Dispatched-s.reply.Copies.Live-s.reply.Copies.Dispatched, min(1, len(units)-live))
	for i, rate := range shares(d.Bandwidth, used, units, room) {
		u := units[i]
		err := s.Work.Submit(ctx, fanout.Work{
			Verb: fanout.VerbCopy, Table: u.backup.Table, Backup: u.backup.ID, Segment: u.start.Segment, Start: u.start.Number, Replica: key, Rate: rate,
		})
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.report("", u.backup.Table.String(), "the copy of backup %s to %s can't be dispatched: %v", u.backup.ID, place.Plain(d.To), err)
			return nil
		}
		s.reply.Copies.Dispatched++
	}
	return nil
}

// shares divides what is left of a bandwidth over the first of some units, at most n of
// them, in proportion to their sizes, so that all are done at about the same time; none
// gets less than the least bandwidth. Without a bandwidth, all shares are 0: any number.
func shares(bandwidth, used int64, units []copyUnit, n int) []int64 {
	n = max(0, min(n, len(units)))
	if bandwidth == 0 {
		return make([]int64, n)
	}
	left := max(0, bandwidth-used)
	n = int(min(int64(n), left/policy.MinBandwidth))
	rates := make([]int64, n)
	sum := 0.0
	for _, u := range units[:n] {
		sum += float64(u.bytes)
	}
	spare := left - int64(n)*policy.MinBandwidth
	for i, u := range units[:n] {
		rates[i] = policy.MinBandwidth
		if sum > 0 {
			rates[i] += int64(float64(spare) * float64(u.bytes) / sum)
		}
	}
	return rates
}

// copyLook is what a tick found of one copy.
type copyLook struct {
	units   []copyUnit
	live    int
	rate    int64 // of those that live
	failure string
}

// lookAtCopy finds out which groups of a backup are to be copied: nil if it is no backup.
// Its cost is a read of the manifest, a list, and a read for each group that was begun
// and is not done.
func (s *ticking) lookAtCopy(ctx context.Context, c toCopy, key string) (*copyLook, error) {
	m, _, err := s.Repo.Manifest(ctx, c.Backup)
	if errors.Is(err, fs.ErrNotExist) || err == nil && m.State != vault.Sealed {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	log := c.Copying(key)
	logs, err := replica.Logs(ctx, s.Repo, c.Copyings()+key+"/")
	if err != nil {
		return nil, err
	}
	state := logs[""]
	look := new(copyLook)
	for g := range m.Groups {
		if state.Done[g] && (g > 0 || len(state.Done) < len(m.Groups)) {
			continue
		}
		// If all are done and nothing says that the copy is, the first one's worker
		// completes it.
		id := vault.GroupID(g)
		u := copyUnit{c.Backup, fanout.Start{Segment: id}, m.Totals.StoredBytes / int64(len(m.Groups))}
		if starts, begun := state.Starts[g]; begun {
			if u.start.Number = starts.Last + 1; u.start.Number > vault.MaxNumber {
				look.failure = fmt.Sprintf("%v: there is a start %d of group %d; give `tablevault copy %s`", fanout.ErrStarts, starts.Last, g, c.ID)
				continue
			}
			failures := state.Failures[g]
			name := log.Start(id, starts.Last)
			failed := failures.Count > 0 && failures.Last >= starts.Last
			if failed {
				name = log.Failure(id, failures.Last)
			}
			var note vault.Note
			_, err := s.Repo.Read(ctx, name, &note)
			if err != nil && !repository.Corrupt(err) {
				return nil, err
			}
			if err != nil {
				look.failure = err.Error() // as good as a failure: it is begun again
			} else if failed {
				look.failure = note.Error
				if note.Permanent || failures.Count >= fanout.MaxFailures {
					look.failure += fmt.Sprintf("; it is not tried again by itself: mend that, and give `tablevault copy %s`", c.ID)
					continue
				}
			} else if !starts.Over(&note, s.run.Now()) {
				look.live++
				look.rate += note.Rate
				continue
			}
		}
		look.units = append(look.units, u)
	}
	return look, nil
}

package replica

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Log is what a list tells of the copying to one replica, by group.
type Log struct {
	Done             map[int]bool
	Starts, Failures map[int]fanout.Notes
}

// Logs lists the logs of copying under a prefix: of one backup to all replicas, by their
// keys with a slash, or to one, under the empty string.
func Logs(ctx context.Context, r *repository.Repository, prefix string) (map[string]Log, error) {
	logs := map[string]Log{}
	for info, err := range r.Store().List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		// done/<group>/<segment>, starts/<segment>/<number>.json, failures/….
		dir, file := path.Split(strings.TrimPrefix(info.Name, prefix))
		above, of := path.Split(strings.TrimSuffix(dir, "/"))
		key, what := path.Split(strings.TrimSuffix(above, "/"))
		l, listed := logs[key]
		if !listed {
			l = Log{Done: map[int]bool{}, Starts: map[int]fanout.Notes{}, Failures: map[int]fanout.Notes{}}
			logs[key] = l
		}
		if what == "done" {
			of, file = file, ""
		}
		id, err := vault.ParseSegmentID(of)
		if err != nil {
			continue // not ours
		}
		g := id.Group()
		n, err := strconv.Atoi(strings.TrimSuffix(file, ".json"))
		if err == nil && (n < 0 || n > vault.MaxNumber || of != string(vault.GroupID(g)) || file != fmt.Sprintf("%06d.json", n)) {
			continue // no worker names a note so
		}
		switch {
		case what == "done":
			l.Done[g] = true
		case err != nil:
		case what == "starts":
			l.Starts[g] = l.Starts[g].With(n, info.Modified)
		case what == "failures":
			l.Failures[g] = l.Failures[g].With(n, info.Modified)
		}
	}
	return logs, nil
}

// The states of a copy.
const (
	StateCopied  = "copied"
	StateCopying = "copying"
	StateFailed  = "failed"
)

// State is how far a backup has come in one replica.
type State struct {
	// Replica is its address, or its key where no start has noted the address.
	Replica string `json:"target"`
	// State is "copied", "copying", or "failed".
	State string `json:"state"`
	// Groups is how many groups the backup has, Copied how many are there.
	Groups int `json:"groups"`
	Copied int `json:"copied"`
	// At is when the copy was complete, Bytes its size.
	At    time.Time `json:"at,omitzero"`
	Bytes int64     `json:"bytes,omitempty"`
	Error string    `json:"error,omitempty"`
}

// States tells how far a sealed backup has come in each replica that it was ever copied
// to, from what is noted in this vault.
func States(ctx context.Context, r *repository.Repository, m *vault.Manifest) ([]State, error) {
	b := vault.Backup{Table: m.Table, ID: m.Backup}
	notes, err := r.CopyNotes(ctx, b)
	var states []State
	switch {
	case err != nil && !repository.Corrupt(err):
		return nil, err
	case err != nil:
		// A note that is damaged does not hide the copies that the others tell of.
		states = append(states, State{Replica: "unknown", State: StateFailed, Groups: len(m.Groups), Error: err.Error()})
	}
	complete := map[string]bool{}
	for _, n := range notes {
		complete[place.Key(n.Replica)] = true
		states = append(states, State{Replica: n.Replica, State: StateCopied, Groups: len(m.Groups), Copied: len(m.Groups), At: n.At, Bytes: n.Bytes})
	}
	logs, err := Logs(ctx, r, b.Copyings())
	if err != nil {
		return nil, err
	}
	for key, l := range logs {
		key := strings.TrimSuffix(key, "/")
		if complete[key] {
			continue
		}
		s := State{Replica: key, State: StateCopying, Groups: len(m.Groups), Copied: len(l.Done)}
		log := b.Copying(key)
		for g, starts := range l.Starts {
			var note vault.Note
			if _, err := r.Read(ctx, log.Start(vault.GroupID(g), starts.Last), &note); err != nil {
				return nil, err
			}
			if note.Replica != "" {
				s.Replica = note.Replica
			}
			if f := l.Failures[g]; f.Count > 0 && f.Last >= starts.Last && !l.Done[g] {
				if _, err := r.Read(ctx, log.Failure(vault.GroupID(g), f.Last), &note); err != nil {
					return nil, err
				}
				s.State, s.Error = StateFailed, note.Error
			}
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Replica, b.Replica) })
	return states, nil
}

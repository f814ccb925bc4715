// Package dispatch turns work into the command of a function, and a command back into the
// work, by one table.
package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/vault"
)

// verb is how work of one verb travels in a command.
type verb struct {
	name fanout.Verb
	kind function.Kind
	// carries is what of the work stands in the command. The rest only tells one task
	// from another.
	carries func(fanout.Work) fanout.Work
}

// verbs are all verbs. A look at one backup and a look at everything are one kind of
// command: the former stands first, and its command names a backup.
var verbs = []verb{
	{fanout.VerbExport, function.KindExport, func(w fanout.Work) fanout.Work {
		return fanout.Work{Table: w.Table, Backup: w.Backup, Segment: w.Segment, Start: w.Start, ReadUnits: w.ReadUnits, WriteUnits: w.WriteUnits}
	}},
	{fanout.VerbImport, function.KindImport, ofRestore},
	{fanout.VerbVerify, function.KindVerify, ofRestore},
	{fanout.VerbCopy, function.KindCopy, func(w fanout.Work) fanout.Work {
		return fanout.Work{Backup: w.Backup, Segment: w.Segment, Start: w.Start, Replica: w.Replica, Rate: w.Rate}
	}},
	{fanout.VerbRestore, function.KindRestore, func(w fanout.Work) fanout.Work { return fanout.Work{Restore: w.Restore, Request: w.Request} }},
	{fanout.VerbSeal, function.KindTick, func(w fanout.Work) fanout.Work { return fanout.Work{Backup: w.Backup} }},
	{fanout.VerbTick, function.KindTick, func(fanout.Work) fanout.Work { return fanout.Work{} }},
}

// ofRestore is what a command carries of work on a segment of a restore, whose plan names
// the tables.
func ofRestore(w fanout.Work) fanout.Work {
	return fanout.Work{
		Backup: w.Backup, Restore: w.Restore, Segment: w.Segment, Start: w.Start, Request: w.Request, ReadUnits: w.ReadUnits, WriteUnits: w.WriteUnits,
	}
}

// share is what a worker may use of budgets, as the settings of its command.
type share struct {
	Units
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
}

// Command is the command by which a function is given work.
func Command(w fanout.Work) (function.Command, error) {
	for _, v := range verbs {
		if v.name != w.Verb {
			continue
		}
		w = v.carries(w)
		c := function.Command{
			Kind: v.kind, Backup: string(w.Backup), Restore: string(w.Restore), Segment: string(w.Segment), Start: w.Start, Replica: w.Replica, Request: w.Request,
		}
		if w.Table != (vault.TableID{}) {
			c.Table = w.Table.String()
		}
		if s := (share{Units{w.ReadUnits, w.WriteUnits}, w.Rate}); s != (share{}) {
			c.Settings = Settings(s)
		}
		return c, nil
	}
	return function.Command{}, fmt.Errorf("no function does %q", w.Verb)
}

// Work is the work that a command hands to a function in a region.
func Work(c function.Command, region string) (fanout.Work, error) {
	for _, v := range verbs {
		if v.kind != c.Kind || v.name == fanout.VerbSeal && c.Backup == "" {
			continue
		}
		s, err := shareOf(c)
		if err != nil {
			return fanout.Work{}, err
		}
		w := fanout.Work{
			Backup: vault.BackupID(c.Backup), Restore: vault.RestoreID(c.Restore), Segment: vault.SegmentID(c.Segment), Start: c.Start,
			Replica: c.Replica, Rate: s.BytesPerSecond, Request: c.Request, ReadUnits: s.ReadUnits, WriteUnits: s.WriteUnits,
		}
		if v.kind == function.KindExport {
			if w.Table, err = vault.ParseTable(region, c.Table); err != nil {
				return fanout.Work{}, err
			}
		}
		w = v.carries(w)
		w.Verb = v.name
		return w, nil
	}
	return fanout.Work{}, fmt.Errorf("a command of kind %q is no work of a worker's", c.Kind)
}

// shareOf reads a worker's share from a command's settings, strictly by its kind.
func shareOf(c function.Command) (s share, err error) {
	switch c.Kind {
	case function.KindExport, function.KindImport:
		err = c.ReadSettings(&s.Units)
	case function.KindVerify:
		var of VerifySettings
		err = c.ReadSettings(&of)
		s.Units = of.Units
	case function.KindCopy:
		var of replica.Settings
		err = c.ReadSettings(&of)
		s.BytesPerSecond = of.BytesPerSecond
	}
	return s, err
}

// To hands work to the functions beside the one that an invocation runs.
func To(inv *function.Invocation) (fanout.Dispatcher, error) {
	invoker, err := inv.Invoker()
	if err != nil {
		return nil, err
	}
	return dispatcher{inv, invoker}, nil
}

type dispatcher struct {
	inv     *function.Invocation
	invoker *function.Invoker
}

// Submit queues work under a task id made of all that it is, so that one start that is
// dispatched twice is one task. The id also has the time in it, in steps of
// [function.Env.Redispatch]: the platform keeps the id of a task that it has dropped for
// days, and a start that was never made is to be made after all.
func (d dispatcher) Submit(ctx context.Context, w fanout.Work) error {
	c, err := Command(w)
	if err != nil {
		return err
	}
	return d.invoker.Submit(ctx, d.inv.Env.Name(c.Function()), taskID(w, time.Now(), d.inv.Env.Redispatch), c)
}

// taskID is the same for work that is the same, within a step of time, and for no other.
// What a worker may use of a budget is not of it: two planners that divide otherwise
// begin one start.
func taskID(w fanout.Work, now time.Time, redispatch time.Duration) string {
	return function.TaskID(w.Verb, w.Table.Path(), w.Backup, w.Restore, w.Segment, w.Replica, w.Request, w.Start, w.After,
		now.Unix()/max(1, int64(redispatch/time.Second)))
}

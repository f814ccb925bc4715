package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/status"
)

// watched are watchers of one thing by its id, or of all that run.
func watched(ctx context.Context, repo *repository.Repository, id string) (*status.Watchers, error) {
	if id != "" {
		ref, err := find(ctx, repo, id, status.BackupKind, status.RestoreKind, status.VerificationKind)
		if err != nil {
			return nil, err
		}
		return status.WatchOne(repo, ref, time.Now), nil
	}
	w, err := status.WatchAll(ctx, repo, time.Now)
	if err == nil && w.Empty() {
		err = errors.New("no backup is running, and no restore: `tablevault list` shows those that have ended; a verification is watched by its id")
	}
	return w, err
}

// runWatch looks at backups, restores and verifications until they have ended: at one by
// its id, or at all that are open. It prints a line of JSON per look, or on a terminal a
// row for each that it draws anew.
func runWatch(ctx context.Context, s *streams, dir, id string, every time.Duration) error {
	_, repo, err := openVault(ctx, dir)
	if err != nil {
		return err
	}
	w, err := watched(ctx, repo, id)
	if err != nil {
		return err
	}
	screen := s.screen()
	for {
		l, err := w.Look(ctx)
		if err != nil {
			return err
		}
		if err := screen.show(l); err != nil {
			return err
		}
		if !l.Running() {
			return failures(l)
		}
		if err := retry.Sleep(ctx, every); err != nil {
			return nil // a person has seen enough
		}
	}
}

// failures is the error of what has gone wrong, when all has ended.
func failures(l *status.Look) error {
	var all []string
	code := exitFailed
	for _, b := range l.Backups {
		if b.State == backup.StateFailed || b.State == backup.StateVoid {
			all = append(all, fmt.Sprintf("backup %s of %s is %s: %s", b.Backup, b.Table, b.State, b.LastError))
		}
	}
	for _, r := range l.Restores {
		if r.State == restore.StateFailed {
			all = append(all, fmt.Sprintf("restore %s into %s is failed: %s", r.Restore, r.Target, r.LastError))
			if refuted(r.Verdict) || r.Corrupt {
				code = exitDiffers
			}
		}
	}
	for _, v := range l.Verifications {
		if v.State == status.Lost {
			all = append(all, fmt.Sprintf("verification %s has said nothing since %s: give it again", v.Verification, v.Heard.Format(time.RFC3339)))
			continue
		}
		if e := new(exit); errors.As(verdictCode(v.Proof.Verdict), &e) {
			all, code = append(all, fmt.Sprintf("verification %s: %s", v.Verification, verdictLine(v.Proof.Verdict, v.Proof.Depth, &v.Proof.Check))), e.code
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &exit{code, errors.New(strings.Join(all, "; "))}
}

// screen is what looks are shown on.
type screen struct {
	s     *streams
	width func() int // of the terminal that rows are drawn anew on; nil elsewhere
	lines int        // of the look before
	last  string
}

func (s *streams) screen() *screen {
	return &screen{s: s, width: s.terminal}
}

func (c *screen) show(l *status.Look) error {
	if c.s.json {
		return c.s.document(l)
	}
	rows := make([]string, 0, len(l.Backups)+len(l.Restores)+len(l.Verifications)+1)
	for _, b := range l.Backups {
		var one status.Total
		one.Add(&b)
		rows = append(rows, progressRow(b.Table+" "+string(b.Backup), b.State, &one)+going{pace: b.Pace, waiting: b.Silent, lastError: b.LastError}.String())
	}
	if len(l.Backups) > 1 {
		rows = append(rows, progressRow("in total", "", &l.Total))
	}
	for i := range l.Restores {
		r := &l.Restores[i]
		rows = append(rows, fmt.Sprintf("restore %s  %s  %s", r.Restore, r.State, restoreLine(r, "")))
		if c.width != nil { // where the row is clipped, which has it at its end
			rows = append(rows, wrapped(r.Waiting, c.width())...)
		}
	}
	for i := range l.Verifications {
		v := &l.Verifications[i]
		line := verificationLine(v, 0)
		if v.Proof != nil {
			line = verdictLine(v.Proof.Verdict, v.Proof.Depth, &v.Proof.Check)
		}
		rows = append(rows, fmt.Sprintf("verification %s  %s  %s", v.Verification, v.State, line))
	}
	if c.width != nil {
		for i := range rows {
			rows[i] = clipped(rows[i], c.width()) // one that wraps would be two lines
		}
	}
	text := strings.Join(rows, "\n") + "\n"
	if c.width != nil && c.lines > 0 {
		// Up to the first of the rows before, and all from there is erased.
		if _, err := fmt.Fprintf(c.s.out, "\x1b[%dA\x1b[J", c.lines); err != nil {
			return err
		}
	} else if text == c.last {
		return nil
	}
	c.lines, c.last = len(rows), text
	_, err := io.WriteString(c.s.out, text)
	return err
}

// progressRow says how far backups have come.
func progressRow(what, state string, t *status.Total) string {
	row := what
	if state != "" {
		row += "  " + state
	}
	row += fmt.Sprintf("  %s of %s", count(int64(t.Done)), counted(int64(t.Segments), "segment"))
	if t.Live > 0 {
		row += fmt.Sprintf(", %d at work", t.Live)
	}
	row += fmt.Sprintf("  %s, %s stored", counted(t.Rows, "row"), size(t.Stored))
	if n := t.Usage.Requests(); n > 0 {
		row += " by " + counted(n, "request")
	}
	if t.RowsPerSecond > 0 {
		row += fmt.Sprintf("  %s rows/s, %s/s", count(int64(t.RowsPerSecond)), size(int64(t.BytesPerSecond)))
	}
	if t.Left != nil {
		row += fmt.Sprintf("  about %s left", remaining(*t.Left))
	}
	return row
}

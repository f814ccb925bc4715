package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// look is one look of `show --watch`: each backup, restore and verification, and all
// backups together.
type look struct {
	At            time.Time             `json:"at"`
	Backups       []backup.Watched      `json:"backups"`
	Restores      []restore.Watched     `json:"restores"`
	Verifications []status.Verification `json:"verifications"`
	Total         lookTotal             `json:"total"`
}

type lookTotal struct {
	Segments       int      `json:"segments"`
	Done           int      `json:"done"`
	Live           int      `json:"live"`
	Rows           int64    `json:"rows"`
	Bytes          int64    `json:"raw_bytes"`
	Stored         int64    `json:"stored_bytes"`
	RowsPerSecond  float64  `json:"rows_per_second"`
	BytesPerSecond float64  `json:"bytes_per_second"`
	Left           *float64 `json:"seconds_left,omitempty"`

	Usage object.Usage `json:"usage,omitzero"`
}

// watchers look at what runs.
type watchers struct {
	backups       []*backup.Watcher
	restores      []*restore.Watcher
	verifications []*status.Watcher
}

// watched are those of one thing by its id, or of all that run.
func watched(ctx context.Context, repo *repository.Repository, id string) (*watchers, error) {
	w := new(watchers)
	if id != "" {
		ref, err := find(ctx, repo, id, status.BackupKind, status.RestoreKind, status.VerificationKind)
		if err != nil {
			return nil, err
		}
		switch ref.Kind {
		case status.BackupKind:
			w.backups = append(w.backups, backup.Watch(repo, ref.Backup(), time.Now))
		case status.RestoreKind:
			w.restores = append(w.restores, restore.Watch(repo, vault.RestoreID(ref.ID), time.Now))
		case status.VerificationKind:
			w.verifications = append(w.verifications, status.Watch(repo, vault.VerificationID(ref.ID), time.Now))
		}
		return w, nil
	}
	for b, err := range repo.Open(ctx, nil) {
		if err != nil {
			return nil, err
		}
		w.backups = append(w.backups, backup.Watch(repo, b, time.Now))
	}
	for r, err := range repo.Restoring(ctx) {
		if err != nil {
			return nil, err
		}
		w.restores = append(w.restores, restore.Watch(repo, r, time.Now))
	}
	if len(w.backups)+len(w.restores) == 0 {
		return nil, errors.New("no backup is running, and no restore: `tablevault list` shows those that have ended; a verification is watched by its id")
	}
	return w, nil
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
		l, err := w.look(ctx)
		if err != nil {
			return err
		}
		if err := screen.show(l); err != nil {
			return err
		}
		running, err := l.end()
		if !running {
			return err
		}
		if err := pause(ctx, every); err != nil {
			return nil // a person has seen enough
		}
	}
}

// end says whether anything runs, and if not, what has gone wrong.
func (l *look) end() (running bool, err error) {
	var failures []string
	code := exitFailed
	for _, b := range l.Backups {
		switch b.State {
		case backup.StateRunning:
			running = true
		case backup.StateFailed, backup.StateVoid:
			failures = append(failures, fmt.Sprintf("backup %s of %s is %s: %s", b.Backup, b.Table, b.State, b.LastError))
		}
	}
	for _, r := range l.Restores {
		switch r.State {
		case restore.StateDone:
		case restore.StateFailed:
			failures = append(failures, fmt.Sprintf("restore %s into %s is failed: %s", r.Restore, r.Target, r.LastError))
			if refuted(r.Verdict) || r.Corrupt {
				code = exitDiffers
			}
		default:
			running = true
		}
	}
	for _, v := range l.Verifications {
		switch v.State {
		case status.Running:
			running = true
		case status.Lost:
			failures = append(failures, fmt.Sprintf("verification %s has said nothing since %s: give it again", v.Verification, v.Heard.Format(time.RFC3339)))
		default:
			if e := new(exit); errors.As(verdictCode(v.Proof.Verdict), &e) {
				failures, code = append(failures, fmt.Sprintf("verification %s: %s", v.Verification, verdictLine(v.Proof.Verdict, v.Proof.Depth, &v.Proof.Check))), e.code
			}
		}
	}
	if running || len(failures) == 0 {
		return running, nil
	}
	return false, &exit{code, errors.New(strings.Join(failures, "; "))}
}

func (w *watchers) look(ctx context.Context) (*look, error) {
	l, err := lookAt(ctx, w.backups)
	if err != nil {
		return nil, err
	}
	l.Restores, l.Verifications = []restore.Watched{}, []status.Verification{}
	for _, r := range w.restores {
		seen, err := r.Look(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever marked it died before it planned
		}
		if err != nil {
			return nil, err
		}
		l.Restores = append(l.Restores, seen)
	}
	for _, v := range w.verifications {
		seen, err := v.Look(ctx)
		if err != nil {
			return nil, err
		}
		l.Verifications = append(l.Verifications, seen)
	}
	return &l, nil
}

func lookAt(ctx context.Context, watchers []*backup.Watcher) (look, error) {
	l := look{At: time.Now().UTC(), Backups: []backup.Watched{}}
	for _, w := range watchers {
		b, err := w.Look(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever marked it died before it planned
		}
		if err != nil && ctx.Err() != nil {
			return l, err
		}
		if err != nil {
			// One that can't be looked at hides no other.
			b.State, b.LastError = backup.StateFailed, err.Error()
		}
		b.Manifest = nil // `show` has it
		l.Backups = append(l.Backups, b)
		t := &l.Total
		t.Segments, t.Done, t.Live = t.Segments+b.Segments, t.Done+b.Done, t.Live+b.Live
		t.Rows, t.Bytes, t.Stored = t.Rows+b.Totals.Rows, t.Bytes+b.Totals.RawBytes, t.Stored+b.Totals.StoredBytes
		t.Usage.Add(b.Usage)
		t.RowsPerSecond, t.BytesPerSecond = t.RowsPerSecond+b.RowsPerSecond, t.BytesPerSecond+b.BytesPerSecond
		if b.Left != nil && (t.Left == nil || *b.Left > *t.Left) {
			t.Left = b.Left // they run side by side
		}
	}
	return l, nil
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

func (c *screen) show(l *look) error {
	if c.s.json {
		return c.s.document(l)
	}
	rows := make([]string, 0, len(l.Backups)+len(l.Restores)+len(l.Verifications)+1)
	for _, b := range l.Backups {
		row := progressRow(b.Table+" "+string(b.Backup), b.State, b.Done, b.Segments, b.Live, b.Totals.Rows, b.Totals.StoredBytes, b.Usage.Requests(), b.RowsPerSecond, b.BytesPerSecond, b.Left)
		rows = append(rows, row+pacing(0, nil, 0, b.Pace, b.Silent, b.LastError))
	}
	if len(l.Backups) > 1 {
		t := l.Total
		rows = append(rows, progressRow("in total", "", t.Done, t.Segments, t.Live, t.Rows, t.Stored, t.Usage.Requests(), t.RowsPerSecond, t.BytesPerSecond, t.Left))
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

func progressRow(what, state string, done, segments, live int, rows, stored, requests int64, rowsPerSecond, bytesPerSecond float64, left *float64) string {
	row := what
	if state != "" {
		row += "  " + state
	}
	row += fmt.Sprintf("  %s of %s", count(int64(done)), counted(int64(segments), "segment"))
	if live > 0 {
		row += fmt.Sprintf(", %d at work", live)
	}
	row += fmt.Sprintf("  %s, %s stored", counted(rows, "row"), size(stored))
	if requests > 0 {
		row += " by " + counted(requests, "request")
	}
	if rowsPerSecond > 0 {
		row += fmt.Sprintf("  %s rows/s, %s/s", count(int64(rowsPerSecond)), size(int64(bytesPerSecond)))
	}
	if left != nil {
		row += fmt.Sprintf("  about %s left", remaining(*left))
	}
	return row
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/vault"
)

// look is one look of `show --watch`: each backup, and all together.
type look struct {
	At      time.Time        `json:"at"`
	Backups []backup.Watched `json:"backups"`
	Total   lookTotal        `json:"total"`
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

	Usage vault.Usage `json:"usage,omitzero"`
}

// runWatch looks at backups until they have ended: one by its id, or all that are
// open. It prints a line of JSON per look, or on a terminal a row per backup that
// it draws anew.
func runWatch(ctx context.Context, s *streams, dir, id string, every time.Duration) error {
	site, err := openSite(dir)
	if err != nil {
		return err
	}
	repo, err := site.repository(ctx)
	if err != nil {
		return err
	}
	var watchers []*backup.Watcher
	if id != "" {
		b, err := vault.ParseBackupID(id)
		if err != nil {
			return &exit{exitUsage, err}
		}
		found, err := repo.FindBackup(ctx, b)
		if err != nil {
			return err
		}
		watchers = append(watchers, backup.Watch(repo, found, time.Now))
	} else {
		for b, err := range repo.Open(ctx, nil) {
			if err != nil {
				return err
			}
			watchers = append(watchers, backup.Watch(repo, b, time.Now))
		}
		if len(watchers) == 0 {
			return errors.New("no backup is running: `tablevault list` shows those that have ended")
		}
	}
	screen := s.screen()
	for {
		l, err := lookAt(ctx, watchers)
		if err != nil {
			return err
		}
		if err := screen.show(l); err != nil {
			return err
		}
		running := false
		var failures []string
		for _, b := range l.Backups {
			running = running || b.State == backup.StateRunning
			if b.State == backup.StateFailed || b.State == backup.StateVoid {
				failures = append(failures, fmt.Sprintf("backup %s of %s is %s: %s", b.Backup, b.Table, b.State, b.LastError))
			}
		}
		if !running && len(failures) > 0 {
			return errors.New(strings.Join(failures, "; "))
		}
		if !running {
			return nil
		}
		if err := pause(ctx, every); err != nil {
			return nil // a person has seen enough
		}
	}
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
	c := &screen{s: s}
	if f, ok := s.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		c.width = func() int {
			if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
				return w
			}
			return 80
		}
	}
	return c
}

func (c *screen) show(l look) error {
	if c.s.json {
		e := json.NewEncoder(c.s.out)
		e.SetEscapeHTML(false)
		return e.Encode(l)
	}
	rows := make([]string, 0, len(l.Backups)+1)
	for _, b := range l.Backups {
		row := progressRow(b.Table+" "+string(b.Backup), b.State, b.Done, b.Segments, b.Live, b.Totals.Rows, b.Totals.StoredBytes, b.Usage.Requests(), b.RowsPerSecond, b.BytesPerSecond, b.Left)
		if b.Pace != nil {
			row += "; " + b.Pace.String()
		}
		if b.LastError != "" {
			row += "; last error: " + b.LastError
		}
		rows = append(rows, row)
	}
	if len(l.Backups) > 1 {
		t := l.Total
		rows = append(rows, progressRow("in total", "", t.Done, t.Segments, t.Live, t.Rows, t.Stored, t.Usage.Requests(), t.RowsPerSecond, t.BytesPerSecond, t.Left))
	}
	if c.width != nil {
		width := max(c.width(), 10)
		for i := range rows {
			// A row that wraps would be two lines.
			if r := []rune(rows[i]); len(r) >= width {
				rows[i] = string(r[:width-2]) + "…"
			}
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
	row += fmt.Sprintf("  %d of %d segments", done, segments)
	if live > 0 {
		row += fmt.Sprintf(", %d at work", live)
	}
	row += fmt.Sprintf("  %s rows, %s stored", count(rows), size(stored))
	if requests > 0 {
		row += fmt.Sprintf(" by %s requests", count(requests))
	}
	if rowsPerSecond > 0 {
		row += fmt.Sprintf("  %s rows/s, %s/s", count(int64(rowsPerSecond)), size(int64(bytesPerSecond)))
	}
	if left != nil {
		row += fmt.Sprintf("  about %s left", time.Duration(*left*float64(time.Second)).Round(time.Second))
	}
	return row
}

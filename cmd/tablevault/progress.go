package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
)

// How often progress is told: on a terminal in place, elsewhere in a line of its own.
const (
	tellOnTerminal = time.Second
	tellElsewhere  = 30 * time.Second
)

// progress tells people how far something has come, on the error stream.
type progress struct {
	s     *streams
	width func() int // of the terminal; nil elsewhere
	every time.Duration
	last  time.Time
	shown bool // a line stands on the terminal

	remarked string // what was told last in full
}

// progress begins to tell. What is quick is not told of at all.
func (s *streams) progress() *progress {
	p := &progress{s: s, every: cmp.Or(s.every, tellElsewhere), last: time.Now()}
	if p.width = terminalOf(s.err); p.width != nil {
		p.every = tellOnTerminal
	}
	return p
}

// terminalOf is the width of the terminal that a stream is, nil if it is none.
func terminalOf(stream io.Writer) func() int {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func() int {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
		return 80
	}
}

// due says whether it is time to look, and to tell.
func (p *progress) due() bool { return time.Since(p.last) >= p.every }

// tell tells a line.
func (p *progress) tell(line string) {
	p.last = time.Now()
	if p.width == nil {
		fmt.Fprintln(p.s.err, line)
		return
	}
	fmt.Fprint(p.s.err, "\r\x1b[K"+clipped(line, p.width()))
	p.shown = true
}

// end takes what stands on the terminal away.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.s.err, "\r\x1b[K")
	}
	p.shown = false
}

// clipped cuts a line so that it does not wrap.
func clipped(line string, width int) string {
	width = max(width, 10)
	if r := []rune(line); len(r) >= width {
		return string(r[:width-2]) + "…"
	}
	return line
}

// wrapped cuts a text between words into lines that a terminal takes, none if it is
// empty.
func wrapped(text string, width int) (lines []string) {
	const indent = "  "
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(indent+line+" "+word) >= width {
			lines, line = append(lines, indent+line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	if line != "" {
		lines = append(lines, indent+line)
	}
	return lines
}

// remark tells in full, above the line that is drawn anew on a terminal, what that line
// is too short for. Elsewhere lines are as long as they are.
func (p *progress) remark(text string) {
	if p.width == nil || text == "" || text == p.remarked {
		return
	}
	p.end()
	fmt.Fprintln(p.s.err, strings.Join(wrapped(text, p.width()), "\n"))
	p.remarked = text
}

// rowsDone says how many rows of so many are done; of 0 if that is not known, about if it
// is a guess.
func rowsDone(done, of int64, about bool) string {
	if of <= 0 || about && done > of {
		return counted(done, "row")
	}
	word := ""
	if about {
		word = "about "
	}
	return fmt.Sprintf("%s of %s%s (%d %%)", count(done), word, counted(of, "row"), int(100*float64(done)/float64(of)))
}

// going is how something goes.
type going struct {
	rowsPerSecond float64
	left          *float64     // seconds; nil if that can't be told
	live          int          // workers
	pace          *fanout.Pace // what holds them back
	waiting       string       // what is waited for
	lastError     string
}

// String says how fast something goes, what holds it back, and what went wrong last.
func (g going) String() string {
	var b strings.Builder
	if g.rowsPerSecond >= 1 {
		fmt.Fprintf(&b, ", %s rows/s", count(int64(g.rowsPerSecond)))
	}
	if g.left != nil {
		fmt.Fprintf(&b, ", about %s left", remaining(*g.left))
	}
	if g.live > 0 {
		fmt.Fprintf(&b, "; %d at work", g.live)
	}
	if g.pace != nil {
		b.WriteString("; " + g.pace.String())
	}
	if g.waiting != "" {
		b.WriteString("; " + g.waiting)
	}
	if g.lastError != "" {
		b.WriteString("; last error: " + g.lastError)
	}
	return b.String()
}

// seconds are so many seconds.
func seconds(n float64) time.Duration {
	return time.Duration(math.Round(n * float64(time.Second)))
}

// remaining prints so many seconds as a time that is left.
func remaining(left float64) string {
	d := seconds(left).Round(time.Second)
	if d < time.Minute || d >= 10*time.Minute {
		return span(d)
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// backupLine says how far a backup has come.
func backupLine(w *backup.Watched) string {
	line := fmt.Sprintf("%s: %s", w.Table, rowsDone(w.Totals.Rows, w.Expected, true))
	if w.Segments > 1 {
		line += fmt.Sprintf(", %s of %s segments", count(int64(w.Done)), count(int64(w.Segments)))
	}
	return line + going{w.RowsPerSecond, w.Left, w.Live, w.Pace, w.Silent, w.LastError}.String()
}

// restoreLine says how far a restore has come.
func restoreLine(w *restore.Watched, waiting string) string {
	line := fmt.Sprintf("%s: ", w.Target)
	how := going{live: w.Live, pace: w.Pace, waiting: cmp.Or(waiting, w.Waiting, w.Silent), lastError: w.LastError}
	done, segments := w.LoadedRows, w.Loaded
	switch w.State {
	case restore.StateLoading:
		line += "loaded "
	case restore.StateVerifying:
		line += "compared "
		done, segments = w.CheckedRows, w.Checked
	default:
		return line + w.State + how.String()
	}
	line += rowsDone(done, w.Rows, false)
	if w.Segments > 1 {
		line += fmt.Sprintf(", %s of %s segments", count(int64(segments)), count(int64(w.Segments)))
	}
	how.rowsPerSecond, how.left = w.RowsPerSecond, w.Left
	return line + how.String()
}

// counted is a number of things: "1 row", "2,000 rows".
func counted(n int64, thing string) string {
	if n == 1 || n == -1 {
		return count(n) + " " + thing
	}
	return count(n) + " " + thing + "s"
}

// verificationLine says how far a verification has come, of a backup of so many rows, 0
// if that is not known.
func verificationLine(v *status.Verification, rows int64) string {
	return "read " + rowsDone(v.Rows, rows, false) + going{rowsPerSecond: v.RowsPerSecond, left: fanout.Left(rows, v.Rows, v.RowsPerSecond)}.String()
}

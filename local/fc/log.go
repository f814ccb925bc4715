package fc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// maxLine bounds a logged line; a longer one is cut into several.
const maxLine = 16 << 10

// lineLog writes whole lines from many sources to one writer.
type lineLog struct {
	mu sync.Mutex
	to io.Writer
}

// print writes one line. A log that cannot be written must not stop the work.
func (l *lineLog) print(source, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintf(l.to, "%s | %s\n", source, line)
}

func (l *lineLog) writer(source string) io.Writer { return sourceLog{l, source} }

type sourceLog struct {
	log    *lineLog
	source string
}

func (s sourceLog) Write(p []byte) (int, error) {
	s.log.print(s.source, strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// The lines with which the runtime frames what an invocation prints.
const (
	startLine = "FC Invoke Start RequestId: "
	endLine   = "FC Invoke End RequestId: "
)

// readLog hands each line that an instance prints to the log, and to the invocation
// between whose start and end lines it stands, until the process and all who inherited
// its output are gone.
func (i *instance) readLog(from io.Reader) {
	r := bufio.NewReaderSize(from, maxLine)
	var current *call
	for {
		text, err := r.ReadSlice('\n')
		if len(text) > 0 {
			line := strings.TrimRight(string(text), "\r\n")
			if id, ok := strings.CutPrefix(line, startLine); ok {
				current = i.inFlight(id)
			}
			source := i.pool.function.Name + " " + i.id
			if current == nil {
				i.speaks(line)
			} else {
				current.tail.add(line)
				source = i.pool.function.Name + " " + current.id
			}
			i.host.log.print(source, line)
			if rest, ok := strings.CutPrefix(line, endLine); ok && current != nil {
				if id, _, _ := strings.Cut(rest, ","); id == current.id {
					current.tail.end()
					current = nil
				}
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// speaks keeps a line that belongs to no invocation, for the error about an instance that
// never asks for work.
func (i *instance) speaks(line string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if line = strings.TrimSpace(line); line != "" {
		i.said = line[:min(len(line), 300)]
	}
}

// tail keeps the last bytes of what an invocation printed.
type tail struct {
	mu    sync.Mutex
	text  []byte
	ended chan struct{} // closed at the end line
	once  sync.Once
}

func newTail() *tail { return &tail{ended: make(chan struct{})} }

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(append(t.text, line...), '\n')
	if over := len(t.text) - maxLogTail; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
}

func (t *tail) end() { t.once.Do(func() { close(t.ended) }) }

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.text...)
}

// keptSlices is the number of invocations whose output is kept.
const keptSlices = 1024

// logSlices keeps the last of what each of the latest invocations printed.
type logSlices struct {
	mu   sync.Mutex
	text map[string][]byte // by request id: of its last delivery
	ring []string          // request ids, from the oldest on
}

func newLogSlices() *logSlices { return &logSlices{text: make(map[string][]byte)} }

func (l *logSlices) add(request string, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.text[request]; !known {
		if len(l.ring) == keptSlices {
			delete(l.text, l.ring[0])
			l.ring = l.ring[1:]
		}
		l.ring = append(l.ring, request)
	}
	l.text[request] = text
}

// RequestLog returns the last of what the latest delivery of a request printed, from its
// start line to its end line; empty if it has not ended, or too many have since.
func (h *Host) RequestLog(request string) string {
	h.slices.mu.Lock()
	defer h.slices.mu.Unlock()
	return string(h.slices.text[request])
}

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// patient is after how long a step is told of, so that what is quick stays silent.
const patient = time.Second

// waiting tells a person what takes its time.
type waiting struct {
	to io.Writer

	mu    sync.Mutex
	timer *time.Timer
}

// patience tells on the error stream of each step that is not quick.
func (s *streams) patience() *waiting { return &waiting{to: s.err} }

// step says that something begins, and that what came before it is over.
func (w *waiting) step(what string) {
	w.over()
	w.mu.Lock()
	defer w.mu.Unlock()
	var t *time.Timer
	t = time.AfterFunc(patient, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.timer == t {
			fmt.Fprintln(w.to, what+" …")
		}
	})
	w.timer = t
}

// over says that the last step is over. After it nothing is written.
func (w *waiting) over() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

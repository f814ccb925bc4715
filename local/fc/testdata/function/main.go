// Command function is what the host's tests run: it does what the settings of a
// tick say, well or badly.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tablevault/tablevault/shared/function"
)

// settings is what a tick is asked to do.
type settings struct {
	Do     string `json:"do"`
	Millis int    `json:"millis"`
	Bytes  int    `json:"bytes"`
	Until  int    `json:"until"` // fail until this retry
	Note   string `json:"note"`
}

// reply is what it tells about itself.
type reply struct {
	PID     int               `json:"pid"`
	Calls   int               `json:"calls"` // of this process
	Retry   int               `json:"retry"`
	Key     string            `json:"key"`
	LeftMS  int64             `json:"left_ms"`
	Margin  int64             `json:"margin_ms"`
	Child   int               `json:"child,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Padding string            `json:"padding,omitempty"`
}

func (r reply) LogValue() slog.Value { return slog.GroupValue(slog.Int("calls", r.Calls)) }

func main() {
	switch os.Getenv("TEST_MODE") {
	case "deaf":
		time.Sleep(time.Hour)
	case "stillborn":
		fmt.Println("no configuration")
		os.Exit(3)
	}
	calls := 0
	function.Serve(function.Verbs{
		function.KindTick: func(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
			calls++ // one at a time, by the host's promise
			var s settings
			if len(cmd.Settings) > 0 {
				if err := json.Unmarshal(cmd.Settings, &s); err != nil {
					return nil, function.Permanent(err)
				}
			}
			r := reply{PID: os.Getpid(), Calls: calls, Retry: inv.Retry, Key: inv.Credentials.ID,
				LeftMS: time.Until(inv.Deadline).Milliseconds(), Margin: inv.Deadline.Sub(inv.Stop).Milliseconds()}
			if outcome := inv.Origin.Outcome; outcome != nil {
				s.Note = outcome.Condition + " " + string(outcome.Request) + " " + string(outcome.Response)
			}
			if err := note(inv, s); err != nil {
				return nil, err
			}
			return do(ctx, inv, s, r)
		},
		function.KindRestore: func(_ context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
			return nil, note(inv, settings{Note: cmd.Request})
		},
	})
}

// note writes down that it was asked, and why.
func note(inv *function.Invocation, s settings) error {
	dir := os.Getenv("TEST_NOTES")
	if dir == "" {
		return nil
	}
	text := fmt.Sprintf("%s %s retry=%d note=%s\n", inv.RequestID, inv.Origin.Key(), inv.Retry, s.Note)
	f, err := os.OpenFile(filepath.Join(dir, "notes"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text) // one write of a short line is not torn
	return errors.Join(err, f.Close())
}

func do(ctx context.Context, inv *function.Invocation, s settings, r reply) (any, error) {
	pause := time.Duration(s.Millis) * time.Millisecond
	switch s.Do {
	case "", "answer":
	case "fail":
		return nil, errors.New("it did not work")
	case "refuse":
		return nil, function.Permanent(errors.New("it will never work"))
	case "fail-until":
		if inv.Retry < s.Until {
			return nil, fmt.Errorf("retry %d of %d", inv.Retry, s.Until)
		}
	case "panic":
		panic("oh")
	case "panic-elsewhere":
		go func() { panic("oh, elsewhere") }()
		time.Sleep(time.Minute)
	case "exit":
		fmt.Println("goodbye")
		os.Exit(7)
	case "wait": // until it is told to stop
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "gate": // until the test opens it
		for gate := filepath.Join(os.Getenv("TEST_NOTES"), "open-"+s.Note); ; {
			if _, err := os.Stat(gate); err == nil {
				break
			}
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	case "sleep": // whatever the deadline says
		time.Sleep(pause)
	case "work": // until the margin
		work, cancel := context.WithDeadline(ctx, inv.Stop)
		defer cancel()
		<-work.Done()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("work ended by %v", context.Cause(work))
		}
		r.LeftMS = time.Until(inv.Deadline).Milliseconds()
	case "stop": // as a process that hangs for good
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		time.Sleep(time.Hour) // this thread may not be the one that is stopped first
	case "print":
		for n := range s.Bytes {
			fmt.Printf("line %d\n", n)
		}
	case "pad":
		r.Padding = strings.Repeat("x", s.Bytes)
	case "env":
		r.Env = make(map[string]string)
		for _, entry := range os.Environ() {
			name, value, _ := strings.Cut(entry, "=")
			r.Env[name] = value
		}
	case "child":
		child := exec.Command("/bin/sleep", "1000")
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			return nil, err
		}
		r.Child = child.Process.Pid
	case "call": // another function, and itself later
		v, err := inv.Invoker()
		if err != nil {
			return nil, err
		}
		if _, err := v.Invoke(ctx, inv.Env.Name("other"), function.Command{Kind: function.KindPing}); err != nil {
			return nil, err
		}
		next := function.Command{Kind: function.KindTick, Settings: json.RawMessage(`{"note":"next"}`)}
		for range 2 {
			if err := v.Submit(ctx, inv.Function, function.TaskID("next", s.Note), next); err != nil {
				return nil, err
			}
		}
	default:
		return nil, function.Permanent(fmt.Errorf("unknown deed %q", s.Do))
	}
	return r, nil
}

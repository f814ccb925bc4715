package fc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/fc/deployment"
	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/function"
)

func openTasks(t *testing.T, name string) *TaskFile {
	t.Helper()
	f, err := OpenTasks(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // twice for those that the test closed
	return f
}

func sample(id string) Task {
	return Task{ID: id, Function: "f", RequestID: "r-" + id, Payload: []byte(`{"kind":"ping"}`), Status: Enqueued, Enqueued: time.Now().UTC()}
}

// TestTaskFile: what was added is there after the file was closed, or cut off in the
// middle of a line, and one id is taken once.
func TestTaskFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "tasks")
	f := openTasks(t, name)
	for _, id := range []string{"a", "b"} {
		if err := f.Add(sample(id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Add(sample("a")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	if err := f.Update(sample("c")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	done := sample("b")
	done.Status, done.Payload, done.Ended = Succeeded, nil, time.Now().UTC()
	if err := f.Update(done); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTasks(name); err == nil || !strings.Contains(err.Error(), "another host") {
		t.Errorf("opened twice: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Add(sample("d")); err == nil {
		t.Error("a closed file takes tasks")
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, tail := range []string{"", `{"id":"torn","func`, "\x00\x00"} {
		if err := os.WriteFile(name, append(slices.Clone(whole), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTasks(t, name)
		var got []string
		for task, err := range f.All("f") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, task.ID+" "+string(task.Status)+" "+string(task.Payload))
		}
		if want := []string{`a Enqueued {"kind":"ping"}`, "b Succeeded "}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// A line that is whole and no task is not for the host to drop.
	if err := os.WriteFile(name, append([]byte("{}\n"), whole...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTasks(name); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("%v", err)
	}
	if data, err := os.ReadFile(name); err != nil || len(data) != len(whole)+3 {
		t.Errorf("the refused file was changed: %d bytes, %v", len(data), err)
	}
}

// TestTaskFileForgets: tasks that ended long ago go, and a file that is mostly history is
// written anew while it is in use.
func TestTaskFileForgets(t *testing.T) {
	name := filepath.Join(t.TempDir(), "tasks")
	f := openTasks(t, name)
	old := sample("old")
	if err := f.Add(old); err != nil {
		t.Fatal(err)
	}
	old.Status, old.Ended = Failed, time.Now().Add(-taskMemory-time.Hour)
	if err := f.Update(old); err != nil {
		t.Fatal(err)
	}
	if err := f.Add(sample("kept")); err != nil {
		t.Fatal(err)
	}
	for range compactAfter {
		if err := f.Update(sample("kept")); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Size() > 100_000 {
		t.Errorf("%v, %v", info.Size(), err)
	}
	if _, err := f.Get("f", "old"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := f.Add(sample("new")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = openTasks(t, name)
	for _, id := range []string{"kept", "new"} {
		if _, err := f.Get("f", id); err != nil {
			t.Error(err)
		}
	}
}

// TestTaskFileTogether: of many who add one id, one succeeds.
func TestTaskFileTogether(t *testing.T) {
	f := openTasks(t, filepath.Join(t.TempDir(), "tasks"))
	var won atomic.Int32
	var wait sync.WaitGroup
	for n := range 64 {
		wait.Go(func() {
			err := f.Add(sample(fmt.Sprint("t", n/4)))
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if won.Load() != 16 {
		t.Errorf("%d adds succeeded, want 16", won.Load())
	}
}

// FuzzTaskFile: whatever a file holds, opening it gives tasks or an error, and what was
// opened once opens again with the same tasks.
func FuzzTaskFile(f *testing.F) {
	f.Add([]byte(`{"id":"a","function":"f","status":"Enqueued"}` + "\n" + `{"id":"a","function":"f","status":"Failed"}` + "\n"))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"id":"a"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "tasks")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		count := func() int {
			file, err := OpenTasks(name)
			if err != nil {
				return -1
			}
			defer file.Close()
			return len(file.tasks.tasks)
		}
		if first := count(); first >= 0 && count() != first {
			t.Errorf("%d tasks, then %d", first, count())
		}
	})
}

// takeUntilKilled hosts with a file of tasks and says which it has taken.
func takeUntilKilled(dir, tasks string) {
	file, err := OpenTasks(tasks)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	h, err := Start(context.Background(), Config{Functions: []deployment.Function{define("test-main", time.Minute, nil)}, BinDir: dir, TempDir: os.Getenv("TEST_HOST_TEMP"),
		Tasks: file, Env: map[string]string{"TEST_NOTES": os.Getenv("TEST_HOST_TEMP")}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		id := fmt.Sprintf("t%d", n)
		if _, err := h.Submit("test-main", id, fmt.Appendf(nil, `{"kind":"tick","settings":{"note":%q}}`, id), 0); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(id)
	}
}

// TestQueueOutlivesAKill: a host that is killed while it takes tasks has lost none that
// it said it has taken; the next one does those that are left.
func TestQueueOutlivesAKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	tasks := filepath.Join(temp, "tasks")
	host := exec.Command(self)
	host.Env = append(os.Environ(), "TEST_HOST_IN="+binaries, "TEST_HOST_TEMP="+temp, "TEST_HOST_TASKS="+tasks)
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var taken []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if taken = append(taken, lines.Text()); len(taken) == 60 {
			if err := host.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = host.Wait()
	if len(taken) < 60 || taken[0] != "t0" {
		t.Fatalf("the host said %q", taken)
	}
	h := run(t, Config{Tasks: openTasks(t, tasks)})
	for _, id := range taken {
		h.task(t, id, Succeeded)
	}
	ran := 0
	data, err := os.ReadFile(filepath.Join(temp, "notes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	all := string(data) + strings.Join(h.readNotes(t), "\n") + "\n"
	for _, id := range taken {
		if strings.Contains(all, "note="+id+"\n") {
			ran++
		}
	}
	if ran != len(taken) {
		t.Errorf("%d of %d tasks have run", ran, len(taken))
	}
}

// TestKeysExpire: a key that an invocation was given is refused when its time is over,
// and the next invocation has a new one.
func TestKeysExpire(t *testing.T) {
	h := run(t, Config{TemporaryKeys: true, KeyLife: 300 * time.Millisecond})
	first := h.tick(t, `{}`)
	key, ok := h.LookupKey(first.Key)
	if !ok || key.Token == "" || time.Until(key.Expires) > 300*time.Millisecond {
		t.Fatalf("%v until %v", key, key.Expires)
	}
	ping := func(k Key) error {
		v, err := function.NewInvoker(function.InvokerConfig{Endpoint: h.URL(), Credentials: access.Key{ID: k.ID, Secret: k.Secret, Token: k.Token}.Provider()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Invoke(t.Context(), "test-other", function.Command{Kind: function.KindPing})
		return err
	}
	wrong := key
	wrong.Token = "other"
	if err := ping(wrong); err == nil {
		t.Error("a wrong token is taken")
	}
	// One with a life that is long enough to be used.
	if err := ping(h.config.Authority.Assume("r", time.Minute)); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Until(key.Expires))
	var refused *function.CallError
	if err := ping(key); !errors.As(err, &refused) || refused.Status != 403 || !strings.Contains(refused.Message, "expired") {
		t.Errorf("%v", err)
	}
	if again := h.tick(t, `{}`); again.Key == first.Key || again.PID != first.PID {
		t.Errorf("%+v after %+v", again, first)
	}
}

// TestPermissions: a function that may not invoke is told so.
func TestPermissions(t *testing.T) {
	owner := Key{ID: "owner", Secret: "secret"}
	authority := ram.New(ram.Config{Owner: owner})
	policy, err := ram.ParsePolicy([]byte(`{"Version":"1","Statement":[{"Effect":"Allow","Action":"fc:InvokeFunction","Resource":"acs:fc:*:*:functions/test-main"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	authority.SetPolicies("worker", policy)
	f := define("test-main", 10*time.Second, nil)
	f.Role = "acs:ram::1:role/worker"
	h := run(t, Config{Key: owner, Authority: authority, TemporaryKeys: true, Functions: []deployment.Function{f, define("test-other", 10*time.Second, nil)}})
	_, err = h.try(t, `{"do":"call","note":"x"}`) // it pings the other one first
	var failure *function.Failure
	if !errors.As(err, &failure) || !strings.Contains(failure.Message, "403 AccessDenied") || !strings.Contains(failure.Message, "role worker may not fc:InvokeFunction on acs:fc:local:0:functions/test-other") {
		t.Errorf("%v", err)
	}
	if _, err := Start(t.Context(), Config{Functions: h.config.Functions, BinDir: binaries, Key: Key{ID: "x", Secret: "y"}, Authority: authority}); err == nil {
		t.Error("started with a key that the authority does not know")
	}
}

// TestStallsAndSkews: a frozen instance goes on, or is killed when its time is over; a
// skewed deadline is what the function sees, and not what the host does.
func TestStallsAndSkews(t *testing.T) {
	var fault atomic.Pointer[Fault]
	fault.Store(&Fault{})
	with := func(timeout time.Duration) *hosted {
		return run(t, Config{Functions: []deployment.Function{define("test-main", timeout, nil)}, Fault: func(d Delivery) Fault {
			if !d.Sync {
				t.Error("an asynchronous delivery")
			}
			return *fault.Load()
		}})
	}
	const timeout = time.Minute
	h, brief := with(timeout), with(time.Second)
	first := h.tick(t, `{}`)
	fault.Store(&Fault{Stall: 300 * time.Millisecond, StallAfter: time.Millisecond})
	thawed := make(chan error, 1)
	var r reply
	go func() {
		var err error
		r, err = h.try(t, `{"do":"gate","note":"thaws"}`)
		thawed <- err
	}()
	if runtime.GOOS == "linux" {
		eventually(t, "it is frozen", func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", first.PID))
			_, state, _ := strings.Cut(string(stat), ") ")
			return err == nil && strings.HasPrefix(state, "T")
		})
	}
	h.open(t, "thaws")
	if err := <-thawed; err != nil || r.PID != first.PID {
		t.Errorf("%+v, %v", r, err)
	}
	fault.Store(&Fault{Stall: timeout, StallAfter: time.Millisecond})
	var failure *function.Failure
	if _, err := brief.try(t, `{"do":"gate","note":"never"}`); !errors.As(err, &failure) || !strings.Contains(failure.Message, "timed out after 1s") {
		t.Errorf("%v", err)
	}
	for _, skew := range []time.Duration{time.Hour, -time.Second} {
		fault.Store(&Fault{Skew: skew})
		left := time.Duration(h.tick(t, `{}`).LeftMS) * time.Millisecond
		if off := left - timeout - skew; off > 0 || off < -timeout {
			t.Errorf("%v left with a skew of %v", left, skew)
		}
	}
	// One that believes in a later deadline is killed at the true one.
	fault.Store(&Fault{Skew: time.Minute})
	if _, err := brief.try(t, `{"do":"wait","millis":60000}`); !errors.As(err, &failure) || !strings.Contains(failure.Message, "timed out after 1s") {
		t.Errorf("%v", err)
	}
	fault.Store(&Fault{KillAfter: 50 * time.Millisecond})
	if _, err := h.try(t, `{"do":"gate","note":"never"}`); !errors.As(err, &failure) || !strings.Contains(failure.Message, "killed") {
		t.Errorf("%v", err)
	}
}

// TestLateTwin: the second delivery comes when the first has ended, and changes nothing
// about the task.
func TestLateReplica(t *testing.T) {
	asked := make(chan struct{}, 2)
	h := run(t, Config{Fault: func(Delivery) Fault {
		asked <- struct{}{}
		return Fault{Twice: true, TwiceAfter: 200 * time.Millisecond}
	}})
	h.submit(t, "a", `{"note":"a"}`)
	task := h.task(t, "a", Succeeded)
	eventually(t, "the second delivery", func() bool { return len(h.readNotes(t)) == 2 })
	if again := h.task(t, "a", Succeeded); !again.Ended.Equal(task.Ended) {
		t.Errorf("the second delivery changed the task: %+v, %+v", again, task)
	}
	if len(asked) != 1 {
		t.Error("the second delivery has a fault of its own")
	}
}

// TestCallFaults: a submit that is refused, broken or not answered is repeated until it
// is taken, and taken once.
func TestCallFaults(t *testing.T) {
	var calls atomic.Int32
	h := run(t, Config{CallFault: func(string) CallFault {
		switch calls.Add(1) {
		case 1:
			return CallFault{Status: 429}
		case 2:
			return CallFault{Status: 500}
		case 3:
			return CallFault{Cut: true}
		}
		return CallFault{}
	}})
	h.submit(t, "a", `{"note":"a"}`)
	h.task(t, "a", Succeeded)
	if calls.Load() != 4 || len(h.readNotes(t)) != 1 {
		t.Errorf("%d calls, %d deliveries", calls.Load(), len(h.readNotes(t)))
	}
}

// TestChaos: one seed makes the same faults each time, each of them at about its rate.
func TestChaos(t *testing.T) {
	draw := func(seed uint64) (map[string]int, string) {
		c := &Chaos{Seed: seed, Longest: time.Second, Drop: 0.1, Twice: 0.1, Late: 0.1, Kill: 0.1, Stall: 0.1, Skew: 0.1, Busy: 0.1, Broken: 0.1, Lost: 0.1}
		var all strings.Builder
		for n := range 4000 {
			f := c.Fault(Delivery{Function: "f", Payload: fmt.Append(nil, n/2)})
			fmt.Fprint(&all, f, c.CallFault("f"))
			for _, d := range []time.Duration{f.TwiceAfter, f.Delay, f.KillAfter, f.Stall, f.StallAfter, f.Skew} {
				if d > time.Second || d < -time.Second/2 {
					t.Fatalf("%+v", f)
				}
			}
		}
		return c.Count(), all.String()
	}
	count, first := draw(1)
	_, again := draw(1)
	_, other := draw(2)
	if first != again || first == other {
		t.Error("a seed does not decide the faults")
	}
	if len(count) != 9 {
		t.Errorf("%v", count)
	}
	for name, n := range count {
		if n < 250 || n > 550 {
			t.Errorf("%s: %d of 4000", name, n)
		}
	}
	quiet := &Chaos{Drop: 1, Skip: func(d Delivery) bool { return d.Function == "calm" }}
	if quiet.Fault(Delivery{Function: "calm"}) != (Fault{}) || quiet.Fault(Delivery{Function: "wild"}) == (Fault{}) {
		t.Error("Skip is not obeyed")
	}
}

// TestWatch: a file that appears in a bucket's folder fires its trigger once, also across
// hosts, and one that is written anew fires again.
func TestWatch(t *testing.T) {
	f := define("test-main", 10*time.Second, nil)
	f.Objects = []deployment.ObjectTrigger{{Name: "r", Bucket: "b", Events: []string{putObject}, Prefix: "requests/", Suffix: ".restore.json"}}
	folder, tasks := t.TempDir(), NewMemoryTasks()
	config := func() Config {
		return Config{Functions: []deployment.Function{f}, Buckets: map[string]string{"b": folder}, WatchEvery: 20 * time.Millisecond, Tasks: tasks}
	}
	put := func(name, text string) {
		t.Helper()
		name = filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("requests/before.restore.json", "{}")
	first := run(t, config())
	seen := func(h *hosted) []string {
		var keys []string
		for _, note := range h.readNotes(t) {
			keys = append(keys, note[strings.Index(note, "note=")+5:])
		}
		slices.Sort(keys)
		return keys
	}
	eventually(t, "what was there before", func() bool { return len(seen(first)) == 1 })
	put("requests/deep/er.restore.json", "{}")
	put("requests/other.json", "{}")
	put("shards/x.restore.json", "{}")
	eventually(t, "the new one", func() bool { return len(seen(first)) == 2 })
	put("requests/before.restore.json", "{ }")
	eventually(t, "the one that was written anew", func() bool { return len(seen(first)) == 3 })
	// What the host has not heard the end of comes again from the next one.
	eventually(t, "the ends of the tasks", func() bool {
		for task, err := range tasks.All("") {
			if err != nil || !task.Status.Ended() {
				return false
			}
		}
		return true
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	put("requests/between.restore.json", "{}")
	second := run(t, config())
	eventually(t, "what came between two hosts", func() bool { return len(seen(second)) == 1 })
	put("requests/last.restore.json", "{}") // which is found after all that a look would have found before
	eventually(t, "the last one", func() bool { return len(seen(second)) == 2 })
	want := []string{"oss://b/requests/before.restore.json", "oss://b/requests/before.restore.json", "oss://b/requests/deep/er.restore.json"}
	if got := seen(first); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := seen(second); !slices.Equal(got, []string{"oss://b/requests/between.restore.json", "oss://b/requests/last.restore.json"}) {
		t.Errorf("%q", got)
	}
}

// TestPublish: an event of the bus reaches the functions whose pattern it fits.
func TestPublish(t *testing.T) {
	pattern, err := deployment.ParsePattern(`{"source":["acme.jobs"],"type":[{"prefix":"backup"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	f := define("test-main", 10*time.Second, nil)
	f.Events = []deployment.EventTrigger{{Name: "jobs", Enabled: true, Pattern: pattern}, {Name: "off", Pattern: pattern}}
	h := run(t, Config{Functions: []deployment.Function{f}})
	data := json.RawMessage(`{"kind":"tick","settings":{"note":"asked"}}`)
	for _, e := range []CloudEvent{
		{Source: "acme.jobs", Type: "restore", Data: data},
		{Source: "acme", Type: "backup", Data: data},
		{ID: "e-1", Source: "acme.jobs", Type: "backup:now", Time: time.Now(), Data: data},
	} {
		if err := h.Publish(e); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the event", func() bool { return len(h.readNotes(t)) > 0 })
	if notes := h.readNotes(t); len(notes) != 1 || !strings.HasSuffix(notes[0], " cloudevent/acme.jobs/e-1 retry=0 note=asked") {
		t.Errorf("%q", notes)
	}
	if err := h.Publish(CloudEvent{Source: "acme"}); err == nil {
		t.Error("an event without a type is taken")
	}
}

// TestTell: a destination that is no function is told through the configuration.
func TestTell(t *testing.T) {
	f := define("test-main", 10*time.Second, nil)
	f.Async.Retries = 1
	f.Async.OnSuccess = "acs:mns:local:0:/queues/good/messages"
	f.Async.OnFailure = "acs:mns:local:0:/topics/bad/messages"
	var mu sync.Mutex
	told := map[string][]byte{}
	h := run(t, Config{Functions: []deployment.Function{f}, Tell: func(arn string, envelope []byte) error {
		mu.Lock()
		defer mu.Unlock()
		told[arn] = envelope
		return nil
	}})
	h.submit(t, "good", `{}`)
	h.task(t, "good", Succeeded)
	h.submit(t, "bad", `{"do":"fail"}`)
	bad := h.task(t, "bad", Failed)
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 2 {
		t.Fatalf("told %v", slices.Collect(maps.Keys(told)))
	}
	events, err := function.Decode(told[f.Async.OnFailure])
	if err != nil || len(events) != 1 || events[0].Origin.Outcome.RequestID != bad.RequestID || events[0].Origin.Outcome.Condition != handledError {
		t.Errorf("%+v, %v", events, err)
	}
}

// TestRequestLog: what each request printed can be looked up by its id.
func TestRequestLog(t *testing.T) {
	h := run(t, Config{})
	h.submit(t, "a", `{"do":"print","bytes":2}`)
	task := h.task(t, "a", Succeeded)
	if log := h.RequestLog(task.RequestID); !strings.HasPrefix(log, "FC Invoke Start RequestId: "+task.RequestID) || !strings.Contains(log, "line 1\n") {
		t.Errorf("%q", log)
	}
	if log := h.RequestLog("none"); log != "" {
		t.Errorf("%q", log)
	}
	s := newLogSlices()
	for n := range keptSlices + 10 {
		s.add(fmt.Sprint(n), nil)
		s.add(fmt.Sprint(n), nil)
	}
	if len(s.text) != keptSlices || len(s.ring) != keptSlices {
		t.Errorf("%d slices of %d requests are kept", len(s.text), len(s.ring))
	}
}

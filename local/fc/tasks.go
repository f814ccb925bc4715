package fc

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"time"
)

// Status is where an asynchronous invocation is, in the service's words.
type Status string

// The statuses.
const (
	Enqueued  Status = "Enqueued"
	Running   Status = "Running"
	Retrying  Status = "Retrying"
	Succeeded Status = "Succeeded"
	Failed    Status = "Failed"
	Expired   Status = "Expired"
	Stopping  Status = "Stopping"
	Stopped   Status = "Stopped"
)

// Ended reports whether the task will not run again.
func (s Status) Ended() bool { return s == Succeeded || s == Failed || s == Expired || s == Stopped }

// Task is one asynchronous invocation.
type Task struct {
	ID        string    `json:"id"` // unique within its function
	Function  string    `json:"function"`
	RequestID string    `json:"request"`
	Payload   []byte    `json:"payload,omitempty"`
	Status    Status    `json:"status"`
	Enqueued  time.Time `json:"enqueued"`
	Due       time.Time `json:"due"`              // when it is to be delivered next
	Started   time.Time `json:"started,omitzero"` // last delivery
	Ended     time.Time `json:"ended,omitzero"`
	Retries   int       `json:"retries,omitempty"`  // deliveries after the first
	Lost      int       `json:"lost,omitempty"`     // deliveries that the end of a host cut off
	Instance  string    `json:"instance,omitempty"` // of the last delivery
	Error     string    `json:"error,omitempty"`    // of the last delivery that failed
}

// Tasks keeps asynchronous invocations. A host asks it what is unfinished when it starts,
// so that one which outlives the host makes the queue survive a restart. Its methods are
// called from several goroutines.
type Tasks interface {
	// Add stores a new task. It returns an error matching fs.ErrExist if the function has
	// a task of that id, whatever became of it.
	Add(Task) error

	// Update replaces the task of t's function and id.
	Update(t Task) error

	// Get returns a task, or an error matching fs.ErrNotExist.
	Get(function, id string) (Task, error)

	// All yields all tasks, or one function's, in the order of their addition, and stops
	// at an error.
	All(function string) iter.Seq2[Task, error]
}

// NewMemoryTasks returns a store that lives as long as the process.
func NewMemoryTasks() Tasks { return &memoryTasks{index: make(map[string]int)} }

type memoryTasks struct {
	mu    sync.Mutex
	tasks []Task
	index map[string]int // function/id to place; neither has a slash
}

func (m *memoryTasks) Add(t Task) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.index[t.Function+"/"+t.ID]; ok {
		return fmt.Errorf("task %s of %s: %w", t.ID, t.Function, fs.ErrExist)
	}
	m.index[t.Function+"/"+t.ID] = len(m.tasks)
	m.tasks = append(m.tasks, t)
	return nil
}

func (m *memoryTasks) Update(t Task) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.index[t.Function+"/"+t.ID]
	if !ok {
		return fmt.Errorf("task %s of %s: %w", t.ID, t.Function, fs.ErrNotExist)
	}
	m.tasks[at] = t
	return nil
}

func (m *memoryTasks) Get(function, id string) (Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.index[function+"/"+id]
	if !ok {
		return Task{}, fmt.Errorf("task %s of %s: %w", id, function, fs.ErrNotExist)
	}
	return m.tasks[at], nil
}

func (m *memoryTasks) All(function string) iter.Seq2[Task, error] {
	return func(yield func(Task, error) bool) {
		m.mu.Lock()
		all := slices.Clone(m.tasks)
		m.mu.Unlock()
		for _, t := range all {
			if (function == "" || t.Function == function) && !yield(t, nil) {
				return
			}
		}
	}
}

// queue is the tasks of one function by when they are due.
type queue struct {
	mu    sync.Mutex
	items dueOrder
	added int
	wake  chan struct{} // has an element after a push
}

type queued struct {
	task   Task
	copied bool  // a second delivery of the same event, whose outcome is not recorded
	fault  Fault // what goes wrong with this delivery
	faulty bool  // the fault was decided
	order  int
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) push(item queued) {
	q.mu.Lock()
	q.added++
	item.order = q.added
	heap.Push(&q.items, item)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pop returns the first item once it is due, or false when ctx ends.
func (q *queue) pop(ctx context.Context) (queued, bool) {
	for {
		q.mu.Lock()
		wait := time.Hour
		if len(q.items) > 0 {
			wait = time.Until(q.items[0].task.Due)
			if wait <= 0 {
				item := heap.Pop(&q.items).(queued)
				q.mu.Unlock()
				return item, true
			}
		}
		q.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-q.wake:
		case <-ctx.Done():
			timer.Stop()
			return queued{}, false
		}
		timer.Stop()
	}
}

type dueOrder []queued

func (d dueOrder) Len() int      { return len(d) }
func (d dueOrder) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *dueOrder) Push(x any)   { *d = append(*d, x.(queued)) }
func (d dueOrder) Less(i, j int) bool {
	if !d[i].task.Due.Equal(d[j].task.Due) {
		return d[i].task.Due.Before(d[j].task.Due)
	}
	return d[i].order < d[j].order
}
func (d *dueOrder) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = queued{}
	*d = (*d)[:last]
	return x
}

// resume queues what the store says is unfinished.
//
// A task that runs by it was delivered by a host that has ended since, and its instance
// with it. To the function that is a delivery which failed, like one whose instance
// crashed: the next one has a retry count. It is the host's failure, so it takes none of
// the retries that the function has.
func (h *Host) resume() error {
	for t, err := range h.config.Tasks.All("") {
		if err != nil {
			return fmt.Errorf("read the tasks: %w", err)
		}
		p := h.pools[t.Function]
		if t.Status.Ended() || p == nil {
			continue
		}
		if t.Status == Stopping { // its instance is gone
			h.stopped(t)
			continue
		}
		if t.Status == Running {
			t.Status, t.Due = Retrying, time.Now()
			t.Retries++
			t.Lost++
			t.Error = unhandledError + ": the host ended while instance " + t.Instance + " had the event"
			if err := h.config.Tasks.Update(t); err != nil {
				return fmt.Errorf("record that a delivery was lost: %w", err)
			}
		}
		p.queue.push(queued{task: t})
	}
	return nil
}

// Task returns an asynchronous invocation, or an error matching fs.ErrNotExist.
func (h *Host) Task(function, id string) (Task, error) { return h.config.Tasks.Get(function, id) }

// Submit invokes a function asynchronously, for the machine's own triggers: no signature
// is asked for. An empty task id is replaced by a unique one. It returns the request id;
// the error matches fs.ErrExist if the task id is taken.
func (h *Host) Submit(function, taskID string, event []byte, delay time.Duration) (string, error) {
	h.mu.Lock()
	p, closing := h.pools[function], h.closing
	h.mu.Unlock()
	switch {
	case closing:
		return "", errClosing
	case p == nil:
		return "", fmt.Errorf("submit: there is no function %s", function)
	case len(event) > maxAsyncPayload:
		return "", fmt.Errorf("submit to %s: an event of %d bytes exceeds %d", function, len(event), maxAsyncPayload)
	}
	now := time.Now()
	t := Task{ID: taskID, Function: function, RequestID: newRequestID(), Payload: event, Status: Enqueued, Enqueued: now, Due: now.Add(delay)}
	if t.ID == "" {
		t.ID = newTaskID()
	}
	if err := h.config.Tasks.Add(t); err != nil {
		return "", err
	}
	p.queue.push(queued{task: t})
	return t.RequestID, nil
}

func newTaskID() string { return "t_" + token(16) }

// dispatch delivers p's tasks in the order in which they are due, each as soon as there
// is an instance for it.
func (h *Host) dispatch(p *pool) {
	for {
		item, ok := p.queue.pop(h.ctx)
		if !ok {
			return
		}
		if now, err := h.config.Tasks.Get(item.task.Function, item.task.ID); err == nil && now.Status == Stopped {
			continue
		}
		if h.config.Fault != nil && !item.faulty {
			item.faulty = true
			item.fault = h.config.Fault(Delivery{
				Function: item.task.Function, TaskID: item.task.ID, RequestID: item.task.RequestID, Payload: item.task.Payload, Retry: item.task.Retries})
			if item.fault.Drop {
				continue
			}
			if item.fault.Twice {
				again := item
				again.copied = true
				again.task.Due = time.Now().Add(item.fault.TwiceAfter)
				p.queue.push(again)
			}
			if item.fault.Delay > 0 {
				item.task.Due = time.Now().Add(item.fault.Delay)
				p.queue.push(item)
				continue
			}
		}
		i, err := h.acquire(h.ctx, p, true)
		switch {
		case h.ctx.Err() != nil:
			if i != nil {
				h.release(i, true)
			}
			return
		case errors.Is(err, errClosing):
			return
		}
		// The age counts until an instance has been found.
		if age := p.function.Async.MaxAge; !item.copied && age > 0 && time.Since(item.task.Enqueued) > age {
			if i != nil {
				h.release(i, true)
			}
			h.end(p, item.task, Expired, outcome{}, fmt.Sprintf("not delivered within %v", age))
			continue
		}
		h.work.Go(func() { h.deliver(p, item, i, err) })
	}
}

// deliver runs one delivery on an instance, or fails it with the error that starting one
// had, and decides what becomes of the task.
func (h *Host) deliver(p *pool, item queued, i *instance, startError error) {
	t := item.task
	c := newCall(t.RequestID, t.Payload, t.Retries)
	if startError != nil {
		c.finish(errorBody("%v", startError), unhandledError)
	} else {
		t.Started, t.Instance, t.Status = time.Now(), i.id, Running
		if !item.copied && !h.begin(t, i) {
			h.release(i, true) // it was stopped while it waited
			return
		}
		healthy := i.serve(c, item.fault)
		if !item.copied {
			h.ran(t) // before another task has the instance
		}
		h.release(i, healthy)
	}
	if item.copied {
		return
	}
	if c.result.errorType == "" {
		h.end(p, t, Succeeded, c.result, "")
		return
	}
	if h.ctx.Err() != nil {
		return // the host is closing, which is not the function's failure
	}
	t.Error = c.result.errorType + ": " + string(c.result.body[:min(len(c.result.body), 4<<10)])
	switch next := h.next(p, &t); next {
	case Retrying:
		p.queue.push(queued{task: t})
	case Failed:
		h.end(p, t, next, c.result, t.Error)
	}
}

// ran takes back that an instance has a task.
func (h *Host) ran(t Task) {
	h.stops.Lock()
	defer h.stops.Unlock()
	delete(h.running, t.Function+"/"+t.ID)
}

// next decides what becomes of a task after a delivery that failed: it is retrying, which
// is recorded, or has failed, or was stopped meanwhile.
func (h *Host) next(p *pool, t *Task) Status {
	h.stops.Lock()
	defer h.stops.Unlock()
	if now, err := h.config.Tasks.Get(t.Function, t.ID); err == nil && (now.Status == Stopping || now.Status == Stopped) {
		h.stopped(*t)
		return Stopped
	}
	if t.Retries-t.Lost >= p.function.Async.Retries {
		return Failed
	}
	t.Retries++
	t.Status, t.Due = Retrying, time.Now().Add(h.config.Backoff(t.Retries))
	h.update(*t)
	return Retrying
}

// begin records that an instance has a task, unless the task was stopped.
func (h *Host) begin(t Task, i *instance) bool {
	h.stops.Lock()
	defer h.stops.Unlock()
	if now, err := h.config.Tasks.Get(t.Function, t.ID); err == nil && now.Status.Ended() {
		return false
	}
	h.running[t.Function+"/"+t.ID] = i
	h.update(t)
	return true
}

// stopped records that a task was stopped.
func (h *Host) stopped(t Task) {
	t.Status, t.Error, t.Ended, t.Payload = Stopped, "stopped by a call of StopAsyncTask", time.Now(), nil
	h.update(t)
}

// Stop ends a task: one that waits is not delivered, and the instance of one that runs is
// killed. What has ended stays as it is. The error matches fs.ErrNotExist if there is no
// such task.
func (h *Host) Stop(function, id string) error {
	h.stops.Lock()
	defer h.stops.Unlock()
	t, err := h.config.Tasks.Get(function, id)
	switch i := h.running[function+"/"+id]; {
	case err != nil:
		return err
	case t.Status.Ended():
		return nil
	case i != nil:
		t.Status = Stopping
		h.update(t)
		i.kill()
	default:
		h.stopped(t)
	}
	return nil
}

// end records a task's last status, tells its destination, and lets its payload go. The
// destination comes first: a host that dies between the two tells it again, and never not
// at all.
func (h *Host) end(p *pool, t Task, status Status, out outcome, text string) {
	t.Status, t.Error, t.Ended = status, text, time.Now()
	h.report(p, t, out)
	t.Payload = nil
	if status != Succeeded {
		h.log.print(t.Function+" "+t.RequestID, fmt.Sprintf("task %s: %s after %d retries: %s", t.ID, status, t.Retries, text))
	}
	h.update(t)
}

func (h *Host) update(t Task) {
	if err := h.config.Tasks.Update(t); err != nil {
		h.log.print("host", fmt.Sprintf("record task %s of %s: %v", t.ID, t.Function, err))
	}
}

package fc

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// taskMemory is how long the service tells what became of a task, and so how long its id
// is not taken again.
const taskMemory = 7 * 24 * time.Hour

// compactAfter is the number of lines after which a file that is mostly history is
// written anew.
const compactAfter = 50_000

// TaskFile keeps asynchronous invocations in a file: what it has taken is there after the
// host was killed, at whatever moment.
//
// The file is a log of JSON lines, each a task as it was then; the last one of a task
// counts. A new task is on the disk before Add returns, and adders that come together
// share the wait for it. An update is only handed to the system: were it lost with the
// machine, the invocation would be delivered again.
type TaskFile struct {
	name string
	lock *os.File
	now  func() time.Time

	syncing sync.Mutex // held while the disk is waited for; taken before mu

	mu      sync.Mutex
	tasks   *memoryTasks
	file    *os.File
	lines   int
	written int64 // bytes handed to the system
	durable int64 // of those, on the disk
	broken  error // after a failed write nothing more is taken
}

// OpenTasks opens a file of tasks, or makes one. Only one process can have it open. It
// forgets what has ended more than a week ago.
func OpenTasks(name string) (*TaskFile, error) {
	f := &TaskFile{name: name, now: time.Now, tasks: &memoryTasks{index: make(map[string]int)}}
	var err error
	if f.lock, err = os.OpenFile(name+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("open tasks: %w", err)
	}
	if err := lockFile(f.lock); err != nil {
		return nil, errors.Join(fmt.Errorf("open tasks %s: another host has them open: %w", name, err), f.lock.Close())
	}
	err = f.load()
	if err == nil { // else the log stays as it is
		err = f.compact()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tasks %s: %w", name, err), f.lock.Close())
	}
	return f, nil
}

// load reads the log. A line that lacks its end was being written when the host died, and
// nobody was told that it was taken.
func (f *TaskFile) load() error {
	file, err := os.Open(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var t Task
		if err := json.Unmarshal(bytes.TrimSpace(line), &t); err != nil || t.ID == "" || t.Function == "" {
			return fmt.Errorf("line %d is no task (%v): remove the line, or the file to forget all tasks", n, err)
		}
		if errors.Is(f.tasks.Update(t), fs.ErrNotExist) {
			if err := f.tasks.Add(t); err != nil {
				return err
			}
		}
	}
}

// compact replaces the log by one that has a line for each task, without those whose
// memory has ended. Nobody else uses f, or both locks are held.
func (f *TaskFile) compact() error {
	kept := &memoryTasks{index: make(map[string]int)}
	oldest := f.now().Add(-taskMemory)
	var text bytes.Buffer
	for t, err := range f.tasks.All("") {
		if err != nil {
			return err
		}
		if t.Status.Ended() && t.Ended.Before(oldest) {
			continue
		}
		if err := kept.Add(t); err != nil {
			return err
		}
		if err := json.NewEncoder(&text).Encode(t); err != nil {
			return fmt.Errorf("task %s of %s: %w", t.ID, t.Function, err)
		}
	}
	file, err := os.OpenFile(f.name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text.Bytes())
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(file.Name(), f.name)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(f.name))
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if f.file != nil {
		f.file.Close() // its name is another file's now
	}
	f.tasks, f.file = kept, file
	f.lines, f.written, f.durable = len(kept.tasks), int64(text.Len()), int64(text.Len())
	return nil
}

// syncFolder makes a new name in a folder durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// append writes a line and returns the length of the log up to it. f.mu is held.
func (f *TaskFile) append(t Task) (int64, error) {
	if f.broken != nil {
		return 0, f.broken
	}
	line, err := json.Marshal(t)
	if err != nil {
		return 0, fmt.Errorf("task %s of %s: %w", t.ID, t.Function, err)
	}
	n, err := f.file.Write(append(line, '\n'))
	f.written += int64(n)
	f.lines++
	if err != nil {
		f.broken = fmt.Errorf("write tasks: %w", err)
		return 0, f.broken
	}
	return f.written, nil
}

// Add stores a new task, durably.
func (f *TaskFile) Add(t Task) error {
	f.mu.Lock()
	if _, err := f.tasks.Get(t.Function, t.ID); err == nil {
		f.mu.Unlock()
		return fmt.Errorf("task %s of %s: %w", t.ID, t.Function, fs.ErrExist)
	}
	upTo, err := f.append(t)
	if err == nil {
		err = f.tasks.Add(t)
	}
	file := f.file
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.sync(file, upTo)
}

// sync returns when the log is durable up to a length that it had in a file.
func (f *TaskFile) sync(file *os.File, upTo int64) error {
	f.syncing.Lock()
	defer f.syncing.Unlock()
	f.mu.Lock()
	done := f.file != file || f.durable >= upTo // a file that was replaced was durable as a whole
	at := f.written
	f.mu.Unlock()
	if done {
		return nil
	}
	err := file.Sync()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.broken = fmt.Errorf("write tasks: %w", err)
		return f.broken
	}
	f.durable = at
	return nil
}

// Update replaces a task.
func (f *TaskFile) Update(t Task) error {
	f.mu.Lock()
	if _, err := f.tasks.Get(t.Function, t.ID); err != nil {
		f.mu.Unlock()
		return err
	}
	_, err := f.append(t)
	if err == nil {
		err = f.tasks.Update(t)
	}
	full := f.lines > compactAfter && f.lines > 8*len(f.tasks.tasks)
	f.mu.Unlock()
	if err != nil || !full {
		return err
	}
	f.syncing.Lock()
	defer f.syncing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil || f.lines <= compactAfter {
		return f.broken
	}
	if f.broken = f.compact(); f.broken != nil {
		f.broken = fmt.Errorf("write tasks anew: %w", f.broken)
	}
	return f.broken
}

// Get returns a task.
func (f *TaskFile) Get(function, id string) (Task, error) { return f.current().Get(function, id) }

// All yields all tasks, or one function's.
func (f *TaskFile) All(function string) iter.Seq2[Task, error] {
	return f.current().All(function)
}

func (f *TaskFile) current() *memoryTasks {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tasks
}

// Close lets another process have the file. No other call may follow.
func (f *TaskFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = errors.New("the tasks are closed")
	return errors.Join(f.file.Sync(), f.file.Close(), f.lock.Close())
}

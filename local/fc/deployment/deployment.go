// Package deployment reads an s.yaml: what functions there are and how they are run, in
// the form of Serverless Devs' edition 3.0.0 with its component fc3.
//
// The same file deploys the functions to Function Compute and configures the local host,
// so that both worlds share timers, timeouts, memory, environment and retry settings. The
// vendor's tool checks the file's schema only when it logs for debugging, and that schema
// lets unknown properties, any trigger configuration and impossible ratios of CPU to
// memory pass. [Parse] is strict instead: it knows the properties that it lists, refuses
// all others by name and line, and checks every value against the service's ranges.
//
// Of the vendor's expressions it evaluates ${env('NAME')}, ${env('NAME', 'default')} and
// ${vars.name}; of inheritance, a resource's extend of one template. Anything else is
// refused rather than guessed.
package deployment

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Deployment is all that an s.yaml says.
type Deployment struct {
	Name      string
	Functions []Function // in the order of the file
}

// Function is one function as it is to be run.
type Function struct {
	Resource    string // the key under resources
	Name        string
	Description string
	Region      string
	Code        string // folder of the code package, relative to the file
	Handler     string // path of the executable in Code
	Role        string // name or ARN
	CPU         float64
	MemoryMB    int
	DiskMB      int
	Timeout     time.Duration
	Environment map[string]string
	Async       Async

	// Reserved is how many instances are kept for the function, which is also the most it
	// may have. Zero means it shares the account's.
	Reserved int

	Timers  []Timer
	Objects []ObjectTrigger
	Events  []EventTrigger
}

// RoleName returns the name of the role, without the rest of its ARN.
func (f Function) RoleName() string { return f.Role[strings.LastIndexByte(f.Role, '/')+1:] }

// Async says how asynchronous invocations are treated.
type Async struct {
	Retries   int           // runs after the first that failed
	MaxAge    time.Duration // an event older than this when its turn comes is dropped
	OnSuccess string        // ARN of the destination, or empty
	OnFailure string
}

// Timer is a timer trigger.
type Timer struct {
	Name     string
	Cron     string // as written
	Schedule Schedule
	Enabled  bool
	Payload  string // a JSON command as text, or empty
}

// Schedule tells when a timer fires.
type Schedule interface {
	// Next returns the first time after t, or zero if there is none.
	Next(t time.Time) time.Time
}

// ObjectTrigger fires when an object is created in a bucket.
type ObjectTrigger struct {
	Name   string
	Bucket string
	Events []string // such as oss:ObjectCreated:PutObject
	Prefix string   // of the object's name
	Suffix string
	Role   string // in whose name the function is invoked: a name or ARN, or empty for the service's own
}

// RoleName returns the name of the role, without the rest of its ARN.
func (t ObjectTrigger) RoleName() string { return t.Role[strings.LastIndexByte(t.Role, '/')+1:] }

// Matches reports whether the trigger is for objects of that name.
func (t ObjectTrigger) Matches(key string) bool {
	return strings.HasPrefix(key, t.Prefix) && strings.HasSuffix(key, t.Suffix) && len(key) >= len(t.Prefix)+len(t.Suffix)
}

// EventTrigger fires when an event of the account's default bus fits a pattern.
type EventTrigger struct {
	Name    string
	Enabled bool
	Pattern Pattern
}

// Problem is one thing wrong with an s.yaml.
type Problem struct {
	File string
	Line int    // 1 and up
	Path string // such as resources.planner.props.timeout
	Text string
}

func (p *Problem) Error() string {
	if p.Path == "" {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Path, p.Text)
}

const maxFile = 1 << 20

// Parse reads the text of an s.yaml. file is its name in errors, and env the environment
// that ${env()} looks into. The error holds a [Problem] for each thing that is wrong.
func Parse(file string, data []byte, env map[string]string) (d *Deployment, err error) {
	defer func() {
		// The YAML parser is not ours, and the file is an outsider's.
		if p := recover(); p != nil {
			d, err = nil, fmt.Errorf("%s: the YAML parser failed: %v", file, p)
		}
	}()
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", file, len(data), maxFile)
	}
	root, err := parseYAML(file, data)
	if err != nil {
		return nil, err
	}
	r := &reader{file: file}
	root = r.evaluate(root, env)
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	d = r.deployment(root)
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	return d, nil
}

// Function returns the function of a name, or false.
func (d *Deployment) Function(name string) (Function, bool) {
	for _, f := range d.Functions {
		if f.Name == name {
			return f, true
		}
	}
	return Function{}, false
}

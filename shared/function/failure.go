package function

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/vault"
)

// The types of failures, as they stand in answers and error envelopes. They are stable:
// callers and alarms dispatch on them.
const (
	TypeBadRequest  = "BadRequest"  // the event is no command that this function serves
	TypeBadSettings = "BadSettings" // the function's environment is wrong
	TypePermanent   = "Permanent"   // the verb failed, and would again
	TypeCorrupt     = "Corrupt"     // the verb failed, since an object of the vault is not as it was written
	TypeRetriable   = "Retriable"   // the verb failed, and may succeed when it is run again
	TypeDeadline    = "Deadline"    // the verb ran into its deadline
	TypePanic       = "Panic"       // the verb panicked
	TypeCrash       = "Crash"       // the platform ended the function: killed, out of memory, out of time
)

// Failure is an invocation that was carried out and failed. It is what the answer to a
// handled failure holds, and what [Invoker.Invoke] returns for both handled and unhandled
// ones.
type Failure struct {
	Type     string `json:"type"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"` // the operator's next step
	Function string `json:"function,omitempty"`
	Request  string `json:"request,omitempty"` // request id
	Kind     Kind   `json:"kind,omitempty"`
	Table    string `json:"table,omitempty"`
	Backup   string `json:"backup,omitempty"`
	Restore  string `json:"restore,omitempty"`
	Segment  string `json:"segment,omitempty"`
}

func (f *Failure) Error() string {
	var b strings.Builder
	b.WriteString(f.Function)
	if f.Kind != "" {
		fmt.Fprintf(&b, " %s", f.Kind)
	}
	for _, about := range []struct{ name, value string }{
		{"table", f.Table}, {"backup", f.Backup}, {"restore", f.Restore}, {"segment", f.Segment}} {
		if about.value != "" {
			fmt.Fprintf(&b, " %s %s", about.name, about.value)
		}
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		fmt.Fprintf(&b, " (%s)", f.Hint)
	}
	return b.String()
}

// Permanent reports whether running the same command again would fail again.
func (f *Failure) Permanent() bool {
	switch f.Type {
	case TypeBadRequest, TypeBadSettings, TypePermanent, TypeCorrupt:
		return true
	}
	return false
}

// Is says that a failure for corruption is vault.ErrCorrupt to whoever hears of it.
func (f *Failure) Is(target error) bool { return f.Type == TypeCorrupt && target == vault.ErrCorrupt }

// Permanent marks err as one that a retry cannot mend: permission denied, schema changed,
// stream trimmed. It keeps err's text and chain. A nil err stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

type permanent struct{ error }

func (p *permanent) Unwrap() error   { return p.error }
func (p *permanent) Permanent() bool { return true }

// IsPermanent reports what the outermost error in err's tree that has a method
// Permanent() bool says, as [Permanent]'s marks and a [Failure] do.
func IsPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// hint returns the operator's next step if an error in err's tree knows one, by a method
// Hint() string.
func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// failureType classifies what a verb returned.
func failureType(ctx context.Context, err error) string {
	permanent := IsPermanent(err) || fanout.Permanent(err)
	switch {
	case permanent && errors.Is(err, vault.ErrCorrupt):
		return TypeCorrupt
	case permanent:
		return TypePermanent
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		return TypeDeadline
	}
	return TypeRetriable
}

// Package function runs one verb as a Function Compute function: it turns an event into a
// command, carries the invocation's deadline, credentials and logger to the verb, and
// turns what the verb returns into an answer.
//
// A function's main lists its verbs and serves them:
//
//	func main() {
//		function.Serve(function.Verbs{
//			function.KindExport: exportSegment,
//		})
//	}
//
//	func exportSegment(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
//		run := inv.Run()
//		// Read until run says stop, while there is time left to save;
//		// flush, record and re-invoke under ctx, which ends at the deadline.
//	}
//
// # Deliveries
//
// Every asynchronous event is delivered at least once, so a verb may run twice and at the
// same time. [Origin.Key] is equal for all deliveries of one trigger; ids are derived
// from it, never from the clock.
//
// # Failures
//
// The platform runs a failed asynchronous invocation again and bills each run. A failure
// that a second run cannot mend is therefore answered as handled: the invocation succeeds
// with {"ok":false,"error":{…}}. A verb says so by marking its error with [Permanent], by
// an error type of its own with a method Permanent() bool, or by one that
// fanout.Permanent knows. Any other error fails the invocation and is retried.
//
// # Calling functions
//
// [Invoker] calls functions through the Function Compute API, on the service and on the
// local host alike.
package function

import "fmt"

// Name is the short name of one of the functions. The deployed name has the prefix of
// [Env] in front.
type Name string

// The functions.
const (
	Plan   Name = "plan"
	Export Name = "export"
	Import Name = "import"
	Verify Name = "verify"
)

// Kind is what a command asks for.
type Kind string

// The kinds of commands, with the function that serves them.
const (
	KindTick    Kind = "tick"    // plan: look at everything, or at one backup, and do what is due
	KindBackup  Kind = "backup"  // plan: back a table up
	KindVoid    Kind = "void"    // plan: give an unsealed backup up; import: a restore
	KindExport  Kind = "export"  // export: work on one segment of a backup
	KindRestore Kind = "restore" // import: make a restore's plan and its target
	KindImport  Kind = "import"  // import: work on one segment of a restore
	KindVerify  Kind = "verify"  // verify: prove a backup or a restore
	KindCopy    Kind = "copy"    // verify: copy a backup to a replica
	KindPing    Kind = "ping"    // any: answer who you are
)

// Kinds lists all kinds in the order of their declaration.
func Kinds() []Kind {
	return []Kind{KindTick, KindBackup, KindVoid, KindExport, KindRestore, KindImport, KindVerify, KindCopy, KindPing}
}

// Function returns the function that serves k: the empty name for a kind that every
// function serves. It panics on a kind that is none of [Kinds], which decoding has
// refused.
func (k Kind) Function() Name {
	switch k {
	case KindTick, KindBackup, KindVoid:
		return Plan
	case KindExport:
		return Export
	case KindRestore, KindImport:
		return Import
	case KindVerify, KindCopy:
		return Verify
	case KindPing:
		return ""
	}
	panic(fmt.Sprintf("function: unknown kind %q", string(k)))
}

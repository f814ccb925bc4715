package vault

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// RequestPrefix begins the names of requests: objects that someone else puts into the
// vault, each a command to restore. What the functions have to say to them, the note that
// one was accepted and in the end its answer, lies apart, so that who may write requests
// can't write answers.
const RequestPrefix = "requests/"

// DrillRequests begins the names of the requests to restore that drills make. They lie
// apart from those of others, who could take their names.
const DrillRequests = "drill-requests/"

// What begins the names of what the functions have to say to requests.
const (
	AcceptedPrefix = "accepted/"
	AnswerPrefix   = "answers/"
)

var requestForm = regexp.MustCompile(`^(drill-)?requests/[A-Za-z0-9._/-]{1,200}\.json$`)

// ParseRequestName checks that name is a request's: letters, digits and . _ - / after
// requests/, or drill-requests/, and .json at the end.
func ParseRequestName(name string) error {
	if !requestForm.MatchString(name) || strings.Contains(name, "//") || strings.Contains(name, "/.") {
		return fmt.Errorf("%.200q is no name of a request: want requests/<name>.json, of letters, digits and . _ - /", name)
	}
	return nil
}

// IsRequest says whether a name lies where requests do, well formed or not.
func IsRequest(name string) bool {
	return strings.HasPrefix(name, RequestPrefix) || strings.HasPrefix(name, DrillRequests)
}

// AcceptedName is the name of the note that a request was accepted.
func AcceptedName(request string) string { return AcceptedPrefix + request }

// AnswerName is the name of a request's answer.
func AnswerName(request string) string { return AnswerPrefix + request }

// Accepted fixes what a request asks for, so that every later look at it means the same
// backup.
type Accepted struct {
	Request string    `json:"request"`
	Restore RestoreID `json:"restore"`
	Backup  BackupID  `json:"backup"`
	Table   TableID   `json:"table"`
	Target  TableID   `json:"target"`
	// At is when the request was put into the vault, by the store's clock.
	At     time.Time `json:"at"`
	Budget Budget    `json:"budget,omitzero"`
	// Instant is what was asked for, of which Backup was the newest; zero if none was.
	Instant time.Time `json:"instant,omitzero"`
	// LocalTransactions has the table take local transactions.
	LocalTransactions bool `json:"local_transactions,omitempty"`
}

func (*Accepted) kind() docKind { return docKind{name: "accepted", limit: shortDocument} }

func (a *Accepted) validate(name string) error {
	var c checks
	c.try(ParseRequestName(a.Request))
	c.at(name, AcceptedName(a.Request))
	c.restore(a.Restore)
	c.backup(a.Backup)
	c.table("the source", a.Table)
	c.table("the target", a.Target)
	c.instant("at", a.At)
	c.date("instant", a.Instant)
	c.try(a.Budget.Validate())
	return c.err
}

// Answer is what became of a request. It is for whoever asked, and is never encrypted.
type Answer struct {
	Request string    `json:"request"`
	At      time.Time `json:"at"`
	// OK says that the table is restored and proved; Error, if it is not, why, and what
	// to do.
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	// What follows is empty as far as the request did not come.
	Restore     RestoreID `json:"restore,omitempty"`
	Backup      BackupID  `json:"backup,omitempty"`
	Table       string    `json:"table,omitempty"`  // instance/table that was backed up
	Target      string    `json:"target,omitempty"` // instance/table restored
	Rows        int64     `json:"rows"`
	Quarantined int64     `json:"quarantined"`
	Verdict     Verdict   `json:"verdict,omitempty"`
	Proof       string    `json:"proof,omitempty"` // name of the proof
	Notes       []string  `json:"notes,omitempty"`
}

func (*Answer) kind() docKind { return docKind{name: "answer", limit: notedDocument} }

func (a *Answer) clip() { a.Error, a.Notes = clip(a.Error), clipNotes(a.Notes) }

func (a *Answer) validate(name string) error {
	var c checks
	c.try(ParseRequestName(a.Request))
	c.at(name, AnswerName(a.Request))
	c.instant("at", a.At)
	c.that(a.OK != (a.Error != ""), "an answer is ok, or says what went wrong")
	c.text("error", a.Error)
	if a.Restore != "" {
		c.restore(a.Restore)
	}
	if a.Backup != "" {
		c.backup(a.Backup)
	}
	c.outcome(a.Restore, a.Rows, a.Quarantined, a.Verdict, a.Proof)
	c.that(!a.OK || a.Proof != "", "a restore that is ok has a proof")
	c.text("table", a.Table)
	c.text("target", a.Target)
	c.notes(a.Notes)
	return c.err
}

// outcome is what came of a restore, as far as it came.
func (c *checks) outcome(r RestoreID, rows, quarantined int64, v Verdict, proof string) {
	c.count("rows", rows)
	c.count("quarantined", quarantined)
	switch v {
	case "", OK, Differs, Quarantined, Corrupt:
	default:
		c.try(fmt.Errorf("the verdict %.80q", v))
	}
	if proof != "" {
		c.named(proof, Restore{r}.Proof())
	}
}

// RestoringPrefix begins the names of the marks of all restores that were begun,
// RestoredPrefix of those that have ended. They stand apart from the restores, so that
// one list page finds a thousand of them.
const (
	RestoringPrefix = "restoring/"
	RestoredPrefix  = "restored/"
)

// Restoring is the mark that the restore was begun.
func (r Restore) Restoring() string { return RestoringPrefix + string(r.ID) }

// Restored is the mark that the restore has ended, well or not.
func (r Restore) Restored() string { return RestoredPrefix + string(r.ID) }

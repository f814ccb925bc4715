package dispatch

import (
	"encoding/json"
	"time"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/vault"
)

// Units are a budget as the settings of commands tell it: to a worker its share, to
// whoever begins the budget itself. A vault's documents tell it by other keys.
type Units struct {
	ReadUnits  float64 `json:"read_units,omitempty"`
	WriteUnits float64 `json:"write_units,omitempty"`
}

// RestoreSettings are those of a command that begins a restore.
type RestoreSettings struct {
	Units
	// LocalTransactions has the table take local transactions.
	LocalTransactions bool `json:"local_transactions,omitempty"`
}

// VerifySettings are those of a verification.
type VerifySettings struct {
	Units
	// ID is that under which it tells how far it has come, and leaves its proof; empty
	// for one that nobody watches.
	ID vault.VerificationID `json:"verification,omitempty"`
}

// Reason are the settings of a command that gives up.
type Reason struct {
	Reason string `json:"reason"`
}

func readReason(c function.Command) (string, error) {
	var s Reason
	err := c.ReadSettings(&s)
	return s.Reason, err
}

// Since are the settings of the looks that follow a command which a person gave: when
// that was taken, as the reply to it said, so that what had failed for good before is
// tried again.
type Since struct {
	Since time.Time `json:"since"`
}

func readSince(c function.Command) (time.Time, error) {
	var s Since
	err := c.ReadSettings(&s)
	return s.Since, err
}

// Settings are settings as a command has them.
func Settings(of any) json.RawMessage {
	settings, err := json.Marshal(of)
	if err != nil {
		panic("dispatch: " + err.Error()) // texts, finite numbers, and instants of this era
	}
	return settings
}

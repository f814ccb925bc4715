package dispatch

import (
	"errors"
	"time"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
)

// Restore is what a command asks for that restores, or gives a restore up.
func Restore(inv *function.Invocation, c function.Command) (a restore.Asked, err error) {
	switch {
	case c.Request != "" && c.Kind == function.KindRestore:
		a.Request, err = restore.RequestName(inv.Env.Vault, c.Request)
		err = function.Permanent(err)
	case c.Kind == function.KindVoid:
		a.Restore = vault.RestoreID(c.Restore)
		if a.Reason, err = readReason(c); err == nil && a.Reason == "" {
			err = function.Permanent(errors.New(`settings: a restore is given up for a reason, such as {"reason":"the wrong backup"}`))
		}
	case c.Restore != "":
		a.Restore = vault.RestoreID(c.Restore)
		a.Since, err = readSince(c)
	default:
		a.At = time.Now()
		if inv.Origin.Key() != "" {
			a.At, _ = inv.Origin.Instant(a.At)
		}
		a.Ask, err = ask(inv, c)
	}
	return a, err
}

// ask is what a command that begins a restore asks for.
func ask(inv *function.Invocation, c function.Command) (a restore.Ask, err error) {
	a = restore.Ask{Backup: vault.BackupID(c.Backup), At: c.At, New: c.New, Replicas: make([]string, len(c.Replicas))}
	for i, name := range c.Replicas {
		d, err := inv.Replica(name)
		if err != nil {
			return a, err
		}
		a.Replicas[i] = d.Key()
	}
	var s RestoreSettings
	if err := c.ReadSettings(&s); err != nil {
		return a, err
	}
	a.Budget, a.LocalTransactions = vault.Budget(s.Units), s.LocalTransactions
	if err := a.Budget.Validate(); err != nil {
		return a, function.Permanent(err)
	}
	if a.Target, err = inv.Table(c.To); err == nil && c.Table != "" {
		a.Table, err = inv.Table(c.Table)
	}
	return a, err
}

// Asks reads requests: each is the command that a person would give.
func Asks(inv *function.Invocation) func(content []byte) (restore.Ask, error) {
	return func(content []byte) (restore.Ask, error) {
		c, err := function.ParseCommand(content)
		if err != nil {
			return restore.Ask{}, err
		}
		if c.Kind != function.KindRestore || c.Restore != "" || c.Request != "" || c.New || len(c.Replicas) > 0 {
			return restore.Ask{}, errors.New(`a request asks for a new restore, such as {"kind":"restore","table":"prod/orders","at":"2026-11-20T10:14:00+08:00","to":"prod/orders_copy"}`)
		}
		return ask(inv, c)
	}
}

// Request is the content of a request to restore a backup into a table.
func Request(b vault.BackupID, to vault.TableID) ([]byte, error) {
	return function.Command{Kind: function.KindRestore, Backup: string(b), To: to.String()}.Encode()
}

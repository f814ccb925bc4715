package dispatch

import (
	"cmp"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/vault"
)

// Backup is what a command to back a table up asks the planner for. What has triggered
// it, and when, makes the backup's id.
func Backup(inv *function.Invocation, c function.Command) (backup.PlanRequest, error) {
	req := backup.PlanRequest{Kind: vault.Kind(cmp.Or(c.Type, string(vault.Full))), At: time.Now(), Trigger: inv.RequestID, New: c.New}
	if err := c.ReadSettings(&req.Settings); err != nil {
		return req, err
	}
	req.Settings.Lanes = cmp.Or(req.Settings.Lanes, inv.Env.Lanes)
	if key := inv.Origin.Key(); key != "" {
		at, told := inv.Origin.Instant(req.At)
		req.At, req.Trigger, req.Undated = at, key, !told
	}
	var err error
	req.Table, err = inv.Table(c.Table)
	return req, err
}

// Asked is the backup that a command is about, with what a look at it or giving it up
// needs.
func Asked(inv *function.Invocation, c function.Command) (a reconcile.Asked, err error) {
	a.Backup = vault.BackupID(c.Backup)
	if c.Table != "" {
		if a.Table, err = inv.Table(c.Table); err != nil {
			return a, err
		}
	}
	switch c.Kind {
	case function.KindVoid:
		a.GiveUp = true
		a.Reason, err = readReason(c)
	case function.KindTick:
		a.Since, err = readSince(c)
	}
	return a, err
}

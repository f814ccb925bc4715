package dispatch

import (
	"fmt"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// Verify is what a command asks to be verified.
func Verify(inv *function.Invocation, c function.Command) (verify.Asked, error) {
	var s VerifySettings
	if err := c.ReadSettings(&s); err != nil {
		return verify.Asked{}, err
	}
	a := verify.Asked{Request: verify.Request{Restore: vault.RestoreID(c.Restore), Depth: c.Depth, ReadUnits: s.ReadUnits}, At: c.At, Replica: c.Replica, ID: s.ID}
	a.Backup.ID = vault.BackupID(c.Backup)
	if s.ID != "" {
		if _, err := vault.ParseVerificationID(string(s.ID)); err != nil {
			return a, function.Permanent(err)
		}
	}
	var err error
	if c.Table != "" {
		if a.Backup.Table, err = inv.Table(c.Table); err != nil {
			return a, err
		}
	}
	if c.Against != "" {
		against, err := inv.Table(c.Against)
		if err != nil {
			return a, err
		}
		a.Against = &against
	}
	return a, nil
}

// Copy is what a command asks to be copied.
func Copy(inv *function.Invocation, c function.Command) (a replica.Asked, err error) {
	if err := c.ReadSettings(&a.Settings); err != nil {
		return a, err
	}
	if a.BytesPerSecond < 0 {
		return a, function.Permanent(fmt.Errorf("bytes_per_second is %d", a.BytesPerSecond))
	}
	if a.Work, err = Work(c, inv.TableRegion()); err == nil && c.Table != "" {
		a.Work.Table, err = inv.Table(c.Table)
	}
	return a, err
}

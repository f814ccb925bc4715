package restore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestInstantToCome refuses a restore of an instant that is still to come, by whichever
// way it is asked for, and leaves nothing behind.
func TestInstantToCome(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 5)
	m := w.Backup(vault.Settings{})
	req := w.Request(m)
	req.Instant = w.Clock().Add(time.Hour)
	_, err := w.Restorer().Begin(t.Context(), w.Run(), req)
	if !errors.Is(err, table.ErrInvalid) || !strings.Contains(err.Error(), "2026-11-20T03:14:00Z is still to come, in 1h0m0s") {
		t.Errorf("%v", err)
	}
	const ask = `{"table":"prod/orders","to":"prod/orders_copy","at":"2026-11-20T03:14:00Z"}`
	if _, err := w.Store.Create(t.Context(), "requests/a.json", strings.NewReader(ask)); err != nil {
		t.Fatal(err)
	}
	// The clock that it is held against is that of the request: later looks are alike.
	w.Advance(2 * time.Hour)
	p, err := w.Requests().Serve(t.Context(), w.Run(), "requests/a.json")
	if err != nil || p.Answer == nil || !strings.Contains(p.Answer.Error, "is still to come") {
		t.Errorf("%+v, %v", p.Answer, err)
	}
	if w.Exists(vault.ClaimName(vaulttest.TargetID, 0)) {
		t.Error("there is a claim on the target")
	}
}

// TestInstantBetweenBackups says how much earlier than what was asked for the recovery
// point is, and takes a clock for right that is a little ahead.
func TestInstantBetweenBackups(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, 30 * time.Second} {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 5)
		m := w.Backup(vault.Settings{})
		point := w.Clock()
		w.Advance(3 * time.Hour)
		req := w.Request(m)
		req.Instant = w.Clock().Add(ahead)
		plan, err := w.Restorer().Begin(t.Context(), w.Run(), req)
		if err != nil {
			t.Fatal(err)
		}
		want := "2026-11-20T02:14:00Z, which is " + req.Instant.Sub(point).String() + " earlier"
		p := w.Finish(plan.Restore)
		w.Proved(p, vault.OK)
		if notes := strings.Join(p.Proof.Notes, "\n"); !strings.Contains(notes, want) || !strings.Contains(notes, string(m.Backup)) {
			t.Errorf("the notes do not say %q:\n%s", want, notes)
		}
		if p.Backup != m.Backup || !p.RecoveryPoint.Equal(point) {
			t.Errorf("the progress says %s at %s", p.Backup, p.RecoveryPoint)
		}
	}
}

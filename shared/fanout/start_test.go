package fanout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestNoStartWithoutOneBefore gives numbers of starts that nothing has dispatched. A note
// under one of them would stand behind a gap, and who looks for starts one after the
// other, as the one that closes a restore does, would never see it; a failure would be
// the segment's newest for ever.
func TestNoStartWithoutOneBefore(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	repo, err := repository.Init(t.Context(), &mem.Store{}, now)
	if err != nil {
		t.Fatal(err)
	}
	run := Run{Now: func() time.Time { return now }}
	log := vault.Log{}
	w := &Worker{Log: NewLog(repo, log), Run: &run, What: func(s vault.SegmentID) string { return string(s) }}
	for name, begin := range map[string]func(s vault.SegmentID, start int) error{
		"worker": func(s vault.SegmentID, start int) error {
			w.At = Start{s, start}
			_, err := w.begin(t.Context(), 0)
			return err
		},
		"copier": func(s vault.SegmentID, start int) error {
			_, err := NewLog(repo, log).Begin(t.Context(), vault.Note{Segment: s, Start: start}, run)
			return err
		},
	} {
		s := vault.SegmentID("000000")
		if name == "copier" {
			s = "000001"
		}
		for _, start := range []int{1, 500} {
			err := begin(s, start)
			if !errors.Is(err, ErrNoStart) || !Permanent(err) || !strings.Contains(err.Error(), fmt.Sprint(start)) {
				t.Errorf("%s: start %d with none before it: %v", name, start, err)
			}
			if err := NewLog(repo, log).Fail(t.Context(), Start{s, start}, run, true, err); !errors.Is(err, ErrNoStart) {
				t.Errorf("%s: %v", name, err)
			}
			for _, note := range []string{log.Start(s, start), log.Failure(s, start)} {
				if there, err := repo.Exists(t.Context(), note); there || err != nil {
					t.Errorf("%s: %s stands: %v", name, note, err)
				}
			}
		}
		for start := range 3 {
			if err := begin(s, start); err != nil {
				t.Errorf("%s: start %d after the others: %v", name, start, err)
			}
		}
	}
}

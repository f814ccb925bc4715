package mem_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return &mem.Store{} })
}

// The store's dates come from its clock, and Replace changes content and checksum.
func TestUnderTheTestsHand(t *testing.T) {
	day := time.Date(2026, 11, 20, 10, 14, 0, 0, time.UTC)
	s := &mem.Store{Now: func() time.Time { return day }}
	before, err := s.Create(t.Context(), "a", strings.NewReader("whole"))
	if err != nil || !before.Modified.Equal(day) {
		t.Fatalf("Create: %+v, %v, want the date %v", before, err, day)
	}
	s.Replace("a", []byte("whale"))
	after, err := object.Stat(t.Context(), s, "a")
	if err != nil || after.Size != before.Size || after.Checksum == before.Checksum {
		t.Errorf("Stat after Replace: %+v, %v, before %+v", after, err, before)
	}
	if got, err := object.ReadAll(t.Context(), s, "a", 5); err != nil || string(got) != "whale" {
		t.Errorf("ReadAll after Replace: %q, %v", got, err)
	}
}

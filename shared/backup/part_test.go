package backup

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
)

// countingScan counts the pages that it is asked for.
type countingScan int

func (s *countingScan) Aim(int) {}

func (s *countingScan) Next(context.Context, []byte) (table.Page, error) {
	*s++
	return table.Page{}, nil
}

// TestLaneEndsBeforeItsTurn: a lane that has come further does not read another page of a
// part that is closing, whoever had it close while the lane waited. One that has not come
// further, or stands inside of a row, does.
func TestLaneEndsBeforeItsTurn(t *testing.T) {
	at := func(n int64) table.Key { return table.Key{table.Integer(n)} }
	for name, c := range map[string]struct {
		lane  laneRun
		inRow bool
		pages countingScan
		err   error
	}{
		"between two rows": {laneRun{from: at(1), next: at(2)}, false, 0, errStopping},
		"inside of a row":  {laneRun{from: at(1), next: at(2)}, true, 1, nil},
		"no further":       {laneRun{from: at(1), next: at(1)}, false, 1, nil},
	} {
		p := &partRun{export: &export{throttle: throttle.ForReads(0), run: fanout.Run{Now: time.Now}}, closing: true}
		var scan countingScan
		if _, err := p.next(t.Context(), &c.lane, &scan, nil, c.inRow); !errors.Is(err, c.err) || scan != c.pages {
			t.Errorf("%s: %d pages, %v", name, scan, err)
		}
	}
}

package restore

import (
	"fmt"
	"time"

	"github.com/tablevault/tablevault/shared/compare"
	"github.com/tablevault/tablevault/shared/vault"
)

// What a TTL takes from a restored table. Cells keep their timestamps, so that those
// that are older than the table's TTL are gone as soon as it is handed over, though
// every one of them was written and compared.

// ttlNote says, when a restore begins, what the TTL of the table will take: what can be
// told without reading a row.
func ttlNote(ttl time.Duration, point, now time.Time) string {
	oldest := now.Add(-ttl)
	note := fmt.Sprintf("the table gets a TTL of %s, and rows keep their timestamps: cells written before %s have expired by now, and are not served once the table is handed over; the recovery point is %s, %s ago",
		span(ttl), oldest.UTC().Format(time.RFC3339), point.UTC().Format(time.RFC3339), now.Sub(point).Round(time.Second))
	switch {
	case point.Before(oldest):
		return note + ", so that all cells written until then have: the table will be empty but for cells whose timestamps were given, and rows without cells"
	case point.Before(oldest.Add(compare.LapsesSoon)):
		return note + ", so that within a day all cells written until then will have"
	}
	return note
}

// lapseNote says, when a restore is proved, what the TTL of the table was found to take;
// empty if it takes nothing within a day.
func lapseNote(ttl int32, c *vault.Check) string {
	if c.Lapsed == (vault.Lapse{}) && c.Lapsing == (vault.Lapse{}) {
		return ""
	}
	return fmt.Sprintf("of %s, %s with all their cells, %s in all, were past the table's TTL of %s when they were compared, and are not served once it has that; %s with all their cells, %s in all, will be within a day of that",
		many(c.Target, "row"), many(c.Lapsed.Rows, "row"), many(c.Lapsed.Cells, "cell"), span(time.Duration(ttl)*time.Second),
		many(c.Lapsing.Rows, "more row"), many(c.Lapsing.Cells, "more cell"))
}

// span is a TTL for people.
func span(ttl time.Duration) string {
	if days := ttl / (24 * time.Hour); days > 0 && ttl%(24*time.Hour) == 0 {
		return many(int64(days), "day")
	}
	return ttl.String()
}

// many is a number of things.
func many(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

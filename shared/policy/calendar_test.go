package policy_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/policy"
)

// zones change their clocks at two, at midnight, by half an hour, and over a whole day.
var zones = []string{"America/Los_Angeles", "Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Shanghai"}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func schedule(t *testing.T, text string) policy.Schedule {
	t.Helper()
	s, err := policy.ParseSchedule(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// between are a schedule's instants after from, up to until.
func between(s policy.Schedule, from, until time.Time) (all []time.Time) {
	for at := s.Next(from); !at.After(until); at = s.Next(at) {
		all = append(all, at)
	}
	return all
}

func utc(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestChangesOfClocks names what is due on days on which clocks change.
func TestChangesOfClocks(t *testing.T) {
	for _, c := range []struct {
		name, text, from, until string
		want                    []string
	}{
		{"an hour that is skipped", "CRON_TZ=America/Los_Angeles 0 30 2 * * *", "2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z",
			[]string{"2026-03-08T10:00:00Z", "2026-03-09T09:30:00Z"}},
		{"several times in it", "CRON_TZ=America/Los_Angeles 0 0,30 2,3 * * *", "2026-03-08T00:00:00Z", "2026-03-08T23:00:00Z",
			[]string{"2026-03-08T10:00:00Z", "2026-03-08T10:30:00Z"}},
		{"an hour that comes twice", "CRON_TZ=America/Los_Angeles 0 30 1 * * *", "2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z",
			[]string{"2026-11-01T08:30:00Z", "2026-11-02T09:30:00Z"}},
		{"the Sunday of the change", "CRON_TZ=Europe/Berlin 0 30 2 * * SUN", "2026-03-20T00:00:00Z", "2026-04-06T00:00:00Z",
			[]string{"2026-03-22T01:30:00Z", "2026-03-29T01:00:00Z", "2026-04-05T00:30:00Z"}},
		{"midnight that is skipped", "CRON_TZ=America/Sao_Paulo 0 0 0 * * *", "2018-11-02T12:00:00Z", "2018-11-05T12:00:00Z",
			[]string{"2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}},
		{"midnight that comes twice", "CRON_TZ=America/Havana 0 15 0 * * *", "2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z",
			[]string{"2026-11-01T04:15:00Z", "2026-11-02T05:15:00Z"}},
		{"before a midnight that comes twice", "CRON_TZ=America/Sao_Paulo 0 30 23 * * *", "2018-02-16T12:00:00Z", "2018-02-18T12:00:00Z",
			[]string{"2018-02-17T01:30:00Z", "2018-02-18T01:30:00Z"}},
		{"half an hour that is skipped", "CRON_TZ=Australia/Lord_Howe 0 15 2 * * *", "2026-10-03T00:00:00Z", "2026-10-04T20:00:00Z",
			[]string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}},
		{"a day that is skipped", "CRON_TZ=Pacific/Apia 0 0 2 * * FRI", "2011-12-20T00:00:00Z", "2012-01-07T00:00:00Z",
			[]string{"2011-12-23T12:00:00Z", "2011-12-30T10:00:00Z", "2012-01-05T12:00:00Z"}},
		{"wildcards over a skipped hour", "CRON_TZ=America/Los_Angeles 0 30 * * * *", "2026-03-08T08:00:00Z", "2026-03-08T12:00:00Z",
			[]string{"2026-03-08T08:30:00Z", "2026-03-08T09:30:00Z", "2026-03-08T10:30:00Z", "2026-03-08T11:30:00Z"}},
		{"wildcards over a doubled hour", "CRON_TZ=America/Los_Angeles 0 30 * * * *", "2026-11-01T08:00:00Z", "2026-11-01T11:00:00Z",
			[]string{"2026-11-01T08:30:00Z", "2026-11-01T09:30:00Z", "2026-11-01T10:30:00Z"}},
		{"steps over a doubled midnight", "CRON_TZ=America/Havana 0 0 */6 * * *", "2026-11-01T00:00:00Z", "2026-11-01T18:00:00Z",
			[]string{"2026-11-01T04:00:00Z", "2026-11-01T05:00:00Z", "2026-11-01T11:00:00Z", "2026-11-01T17:00:00Z"}},
	} {
		var got []string
		for _, at := range between(schedule(t, c.text), utc(t, c.from), utc(t, c.until)) {
			got = append(got, at.Format(time.RFC3339))
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestOncePerLocalDay goes through ten years of each zone: a fixed time of the day is due
// once on each day, at the first instant at which clocks show it or something later,
// found by looking at the clock every five minutes.
func TestOncePerLocalDay(t *testing.T) {
	for _, name := range zones {
		z := zone(t, name)
		for _, clock := range []string{"0:00", "0:30", "1:30", "2:00", "2:15", "3:00", "23:30"} {
			var h, m int
			fmt.Sscanf(clock, "%d:%d", &h, &m)
			s := schedule(t, fmt.Sprintf("CRON_TZ=%s 0 %d %d * * *", name, m, h))
			from, until := time.Date(2010, 1, 1, 12, 0, 0, 0, time.UTC), time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)
			all := between(s, from, until)
			if days := int(until.Sub(from).Hours() / 24); len(all) < days || len(all) > days+2 { // a day that was skipped counts, too
				t.Errorf("%s at %s: %d instants in %d days", name, clock, len(all), days)
			}
			for i, at := range all[1:] {
				if apart := at.Sub(all[i]); apart < 15*time.Minute || apart > 25*time.Hour {
					t.Errorf("%s at %s: %s comes %s after %s", name, clock, at, apart, all[i])
				}
			}
			for _, change := range changes(z, from, until) {
				for d := -2; d <= 2; d++ {
					y, mo, day := change.In(z).AddDate(0, 0, d).Date()
					shown := time.Date(y, mo, day, h, m, 0, 0, time.UTC)
					want := firstShown(z, shown)
					if got := s.Next(want.Add(-time.Second)); !got.Equal(want) {
						t.Errorf("%s: %s is first shown at %s, due is %s", name, shown.Format("2006-01-02 15:04"), want, got)
					}
				}
			}
		}
	}
}

// changes are the instants at which clocks are set.
func changes(z *time.Location, from, until time.Time) (all []time.Time) {
	for {
		_, end := from.In(z).ZoneBounds()
		if end.IsZero() || end.After(until) {
			return all
		}
		all = append(all, end.UTC())
		from = end
	}
}

// firstShown is the first instant, of those five minutes apart, at which clocks show a
// time or a later one.
func firstShown(z *time.Location, shown time.Time) time.Time {
	for at := shown.Add(-38 * time.Hour); ; at = at.Add(5 * time.Minute) {
		_, ahead := at.In(z).Zone()
		if !at.Add(time.Duration(ahead) * time.Second).Before(shown) {
			return at
		}
	}
}

// TestWildcardsGoByRealTime: every hour has its instant, on days of 23 and 25 hours too.
func TestWildcardsGoByRealTime(t *testing.T) {
	for _, name := range zones {
		if name == "Australia/Lord_Howe" {
			continue // there an hour is cut in two
		}
		hourly := schedule(t, "CRON_TZ="+name+" 0 30 * * * *")
		for _, change := range append(changes(zone(t, name), time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)), time.Date(2019, 6, 1, 0, 0, 0, 0, time.UTC)) {
			all := between(hourly, change.Add(-30*time.Hour), change.Add(30*time.Hour))
			for i, at := range all[1:] {
				if at.Sub(all[i]) != time.Hour {
					t.Errorf("%s: %s comes after %s", name, at, all[i])
				}
			}
		}
	}
}

// TestNoWeekIsLeftOut: what is weekly comes after a week, and an hour more or less.
func TestNoWeekIsLeftOut(t *testing.T) {
	for _, name := range zones {
		for _, hour := range []int{0, 1, 2, 3, 23} {
			all := between(schedule(t, fmt.Sprintf("CRON_TZ=%s 0 0 %d * * SUN", name, hour)), time.Date(2006, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC))
			for i, at := range all[1:] {
				if apart := at.Sub(all[i]); apart > 7*24*time.Hour+time.Hour || apart < 6*24*time.Hour-time.Hour {
					t.Errorf("%s at %d: %s comes %s after %s", name, hour, at, apart, all[i])
				}
			}
		}
	}
}

// TestDueIsTheLastNext: at every instant, what is due is the last of the instants that
// came.
func TestDueIsTheLastNext(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for _, name := range zones {
		for _, fields := range []string{"0 30 2 * * *", "0 0 0 * * SUN", "7 15 * * * *", "0 0,30 */6 * * *", "0 30 23 1 * ?", "0 10 0,1,2,3 * 3,11 ?"} {
			s := schedule(t, "CRON_TZ="+name+" "+fields)
			for _, change := range changes(zone(t, name), time.Date(2009, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2013, 1, 1, 0, 0, 0, 0, time.UTC)) {
				at := change.Add(time.Duration(random.Int64N(int64(96*time.Hour))) - 48*time.Hour)
				due := s.Due(at)
				if due.After(at) || !s.Due(due).Equal(due) {
					t.Errorf("%s %s: due at %s is %s", name, fields, at, due)
				}
				if next := s.Next(due); !next.After(at) {
					t.Errorf("%s %s: due at %s is %s, and %s came since", name, fields, at, due, next)
				}
			}
		}
	}
}

package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is when something is due, again and again: at an interval, or at the instants
// of a cron expression. Its instants are the same for whoever asks, so that two ticks
// that see the same one agree on what it starts.
type Schedule struct {
	text     string
	interval time.Duration
	cron     *calendar
}

// MinInterval is the least interval of a schedule: that of the planner's timer.
const MinInterval = 5 * time.Minute

// origin is the instant that intervals are counted from, a Monday, so that weeks begin
// with it and hours at their full.
var origin = time.Date(1970, 1, 5, 0, 0, 0, 0, time.UTC)

// ParseSchedule reads "hourly", "daily", "weekly", an interval such as "15 minutes" or "6
// hours", or a cron expression in the platform's form: second, minute, hour, day, month,
// weekday, with CRON_TZ=… in front for another zone than UTC. An expression whose hours
// are fixed has an instant for each of them on each local day that it names, whatever
// becomes of the clocks that day: what falls into a gap is right after it, what comes
// twice is the first. One with a wildcard or a step in its hours goes by real time: it
// has an instant as often as its local time comes.
func ParseSchedule(text string) (Schedule, error) {
	s := Schedule{text: strings.TrimSpace(text)}
	switch s.text {
	case "hourly":
		s.interval = time.Hour
	case "daily":
		s.interval = 24 * time.Hour
	case "weekly":
		s.interval = 7 * 24 * time.Hour
	default:
		if len(strings.Fields(s.text)) >= 5 {
			return s.parseCron()
		}
		d, err := ParseDuration(s.text)
		if err != nil {
			return Schedule{}, fmt.Errorf("%q is no schedule: want hourly, daily, weekly, an interval such as \"6 hours\", or a cron expression such as \"CRON_TZ=Asia/Shanghai 0 30 2 * * *\"%s",
				text, suggest(s.text, []string{"hourly", "daily", "weekly"}))
		}
		s.interval = d
	}
	if s.interval < MinInterval {
		return Schedule{}, fmt.Errorf("%q is too often: the planner looks every %s", text, spell(MinInterval))
	}
	return s, nil
}

var (
	cronMinute  = regexp.MustCompile(`^(\*/([5-9]|[1-5][0-9])|[0-9]{1,2}(,[0-9]{1,2})*)$`)
	cronWeekday = regexp.MustCompile(`^([*?]|[A-Z]{3}([-,][A-Z]{3})*)$`)
)

func (s Schedule) parseCron() (Schedule, error) {
	// The library takes the machine's zone for a default, and its week begins
	// on another day than others': both are left no room.
	zone, fields := "CRON_TZ=UTC", strings.Fields(s.text)
	if strings.HasPrefix(fields[0], "CRON_TZ=") {
		zone, fields = fields[0], fields[1:]
	}
	bad := func(format string, args ...any) (Schedule, error) {
		return Schedule{}, fmt.Errorf("cron expression %q: "+format, append([]any{s.text}, args...)...)
	}
	if zone == "CRON_TZ=" || zone == "CRON_TZ=Local" {
		return bad("want a zone such as CRON_TZ=Asia/Shanghai")
	}
	if len(fields) != 6 {
		return bad("%d fields: want second, minute, hour, day, month and weekday", len(fields))
	}
	if n, err := strconv.Atoi(fields[0]); err != nil || n < 0 || n > 59 {
		return bad("second %q: want a number from 0 to 59", fields[0])
	}
	if !cronMinute.MatchString(fields[1]) {
		return bad("minute %q: want numbers, or */5 and up: the planner looks every %s", fields[1], spell(MinInterval))
	}
	if !cronWeekday.MatchString(fields[5]) {
		return bad("weekday %q: want names such as MON-FRI, whose meaning is the same everywhere", fields[5])
	}
	parser := cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	c, err := parser.Parse(zone + " " + strings.Join(fields, " "))
	if err != nil {
		return bad("%w", err)
	}
	spec, ok := c.(*cron.SpecSchedule)
	if !ok {
		return bad("want fields, not a descriptor")
	}
	s.cron = &calendar{SpecSchedule: spec, byClock: !strings.ContainsAny(fields[2], "*?/")}
	if s.cron.next(origin).IsZero() {
		return bad("there is no such day")
	}
	return s, nil
}

// IsZero says that there is no schedule.
func (s Schedule) IsZero() bool { return s.interval == 0 && s.cron == nil }

// String is the schedule as the policy has it.
func (s Schedule) String() string { return s.text }

// MarshalText writes String's form.
func (s Schedule) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// Due is the schedule's latest instant that is not after t, in UTC; zero if there was
// none in the last years.
func (s Schedule) Due(t time.Time) time.Time {
	if s.cron == nil {
		since := t.Sub(origin)
		return origin.Add(since - since%s.interval)
	}
	return s.cron.due(t).UTC()
}

// Next is the schedule's first instant after t, in UTC.
func (s Schedule) Next(t time.Time) time.Time {
	if s.cron == nil {
		return s.Due(t).Add(s.interval)
	}
	return s.cron.next(t).UTC()
}

var durationForm = regexp.MustCompile(`^([0-9]{1,9}) ?(m|min|minutes?|h|hours?|d|days?|w|weeks?|years?)$`)

// ParseDuration reads a number and a unit: minutes, hours, days, weeks or years of 365
// days.
func ParseDuration(text string) (time.Duration, error) {
	m := durationForm.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, fmt.Errorf("%q is no duration: want a number and minutes, hours, days, weeks or years, such as \"72 hours\"", text)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, err
	}
	unit := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour, 'y': 365 * 24 * time.Hour}[m[2][0]]
	switch {
	case n == 0:
		return 0, errors.New("a duration of nothing")
	case time.Duration(n) > maxDuration/unit:
		return 0, fmt.Errorf("%q is more than a hundred years", text)
	}
	return time.Duration(n) * unit, nil
}

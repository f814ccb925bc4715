package deployment

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

var (
	everyMinutes = regexp.MustCompile(`^@every ([1-9][0-9]{0,5})m$`)
	cronSecond   = regexp.MustCompile(`^[0-9]{1,2}$`)
	cronNumbers  = regexp.MustCompile(`^(\*|[0-9]{1,2}(-[0-9]{1,2})?)(/[0-9]{1,2})?(,(\*|[0-9]{1,2}(-[0-9]{1,2})?)(/[0-9]{1,2})?)*$`)
	cronMonths   = regexp.MustCompile(`^(\*|([0-9]{1,2}|[A-Z]{3})(-([0-9]{1,2}|[A-Z]{3}))?)(/[0-9]{1,2})?(,([0-9]{1,2}|[A-Z]{3})(-([0-9]{1,2}|[A-Z]{3}))?)*$`)
	cronDays     = regexp.MustCompile(`^([A-Z]{3}(-[A-Z]{3})?)(,[A-Z]{3}(-[A-Z]{3})?)*$`)
)

// ParseSchedule reads a timer's cronExpression: six fields (second, minute, hour, day of
// month, month, day of week) or "@every 5m". Times are UTC unless "CRON_TZ=Area/City "
// stands in front.
//
// It is narrower than the library behind it, which takes local time for a default, and
// than the service where the service's meaning is in doubt: seconds are one number, "?"
// stands only for a day, and days of the week are names, since which day a number means
// differs between dialects.
func ParseSchedule(expression string) (Schedule, error) {
	if everyMinutes.MatchString(expression) {
		return cron.ParseStandard(expression)
	}
	if strings.HasPrefix(expression, "@") {
		return nil, fmt.Errorf("%q: of the @ forms, only @every 5m is known to the service", expression)
	}
	zone, fields := "UTC", expression
	if rest, ok := strings.CutPrefix(expression, "CRON_TZ="); ok {
		zone, fields, ok = strings.Cut(rest, " ")
		if !ok || zone == "" || zone == "Local" {
			return nil, fmt.Errorf("%q: after CRON_TZ= want a zone such as Asia/Shanghai, a blank and six fields", expression)
		}
	}
	if _, err := time.LoadLocation(zone); err != nil {
		return nil, fmt.Errorf("%q: %w", expression, err)
	}
	f := strings.Fields(fields)
	if len(f) != 6 {
		return nil, fmt.Errorf("%q: %d fields, want six: second minute hour day month weekday", expression, len(f))
	}
	switch {
	case !cronSecond.MatchString(f[0]):
		return nil, fmt.Errorf("%q: second %q: want a number from 0 to 59", expression, f[0])
	case !cronNumbers.MatchString(f[1]):
		return nil, fmt.Errorf("%q: minute %q", expression, f[1])
	case !cronNumbers.MatchString(f[2]):
		return nil, fmt.Errorf("%q: hour %q", expression, f[2])
	case f[3] != "?" && !cronNumbers.MatchString(f[3]):
		return nil, fmt.Errorf("%q: day %q", expression, f[3])
	case !cronMonths.MatchString(f[4]):
		return nil, fmt.Errorf("%q: month %q", expression, f[4])
	case f[5] != "?" && f[5] != "*" && !cronDays.MatchString(f[5]):
		return nil, fmt.Errorf("%q: weekday %q: want names such as MON-FRI", expression, f[5])
	}
	f[5] = weekdays(f[5])
	parser := cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	schedule, err := parser.Parse("CRON_TZ=" + zone + " " + strings.Join(f, " "))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", expression, err)
	}
	// The library searches five years ahead; the 29th of February may be eight away.
	for year := 2000; ; year += 4 {
		if !schedule.Next(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
			return schedule, nil
		}
		if year > 2012 {
			return nil, fmt.Errorf("%q: %w", expression, errors.New("there is no such day"))
		}
	}
}

// weekdays rewrites ranges that end on Sunday for the library, whose week begins with it.
func weekdays(field string) string {
	parts := strings.Split(field, ",")
	for i, part := range parts {
		if first, ok := strings.CutSuffix(part, "-SUN"); ok {
			parts[i] = first + "-SAT,SUN"
			if first == "SUN" {
				parts[i] = "SUN"
			}
		}
	}
	return strings.Join(parts, ",")
}

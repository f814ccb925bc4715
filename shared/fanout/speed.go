package fanout

import "time"

// Speed is how fast work goes, by what the looks at it in the last half minute saw.
type Speed struct {
	seen []sample
}

// sample is how much had been done at an instant.
type sample struct {
	at          time.Time
	rows, bytes int64
}

// speedOver is how far back a speed goes.
const speedOver = 30 * time.Second

// Look takes what is done by now, and returns how much of it was done per second. The
// first look goes by when the work began.
func (s *Speed) Look(began, now time.Time, rows, bytes int64) (rowsPerSecond, bytesPerSecond float64) {
	if len(s.seen) == 0 {
		s.seen = append(s.seen, sample{at: began})
	}
	for len(s.seen) > 1 && now.Sub(s.seen[1].at) >= speedOver {
		s.seen = s.seen[1:]
	}
	since := s.seen[0]
	if s.seen = append(s.seen, sample{now, rows, bytes}); since.at.Equal(began) && len(s.seen) == 2 && now.Sub(began) > speedOver {
		// What was done before anybody looked is no measure of what is done now.
		s.seen = s.seen[1:]
	}
	d := now.Sub(since.at).Seconds()
	if d <= 0 || rows < since.rows {
		return 0, 0
	}
	return float64(rows-since.rows) / d, float64(bytes-since.bytes) / d
}

// Left is for how many seconds work goes on of which so much is expected and done; nil
// where that can't be told, or would be no more than a guess of nothing.
func Left(expected, done int64, perSecond float64) *float64 {
	if expected <= done || perSecond <= 0 {
		return nil
	}
	left := float64(expected-done) / perSecond
	if left < 1 {
		return nil
	}
	return &left
}

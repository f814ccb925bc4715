package retry_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/retry"
)

var (
	errBad  = errors.New("bad")  // it fails again
	errBusy = errors.New("busy") // it may succeed, and was not done
	errLost = errors.New("lost") // it may succeed, and may have been done
	errFull = errors.New("full") // the service wants fewer requests
	errAway = errors.New("away") // nothing answers
)

func judge(err error, _ int) retry.Verdict {
	switch {
	case errors.Is(err, errBusy):
		return retry.Again
	case errors.Is(err, errLost):
		return retry.Again | retry.Doubt
	case errors.Is(err, errFull):
		return retry.Again | retry.Slower
	case errors.Is(err, errAway):
		return retry.Again | retry.Away
	}
	return 0
}

// answers is an attempt that has one error after the other, and the last for ever.
func answers(errs ...error) func(context.Context) error {
	n := 0
	return func(context.Context) error {
		n++
		return errs[min(n, len(errs))-1]
	}
}

// TestEnds has calls end in every way in which they can.
func TestEnds(t *testing.T) {
	tries := retry.Policy{First: time.Second, Most: 4 * time.Second, Attempts: 5}
	timed := retry.Policy{First: time.Second, Most: 4 * time.Second, Total: time.Minute, Away: 10 * time.Second}
	for name, test := range map[string]struct {
		policy  retry.Policy
		answers []error
		want    retry.End
		is      time.Duration // how long it takes exactly, if that is not left to chance
	}{
		"success":                  {tries, []error{nil}, retry.End{Attempts: 1}, 0},
		"refused":                  {tries, []error{errBad}, retry.End{Err: errBad, Attempts: 1}, 0},
		"busy, then done":          {tries, []error{errBusy, errBusy, nil}, retry.End{Attempts: 3}, 0},
		"lost, then done":          {tries, []error{errLost, nil}, retry.End{Attempts: 2, Doubt: true}, 0},
		"lost, then refused":       {tries, []error{errLost, errBusy, errBad}, retry.End{Err: errBad, Attempts: 3, Doubt: true}, 0},
		"no more attempts":         {tries, []error{errBusy}, retry.End{Err: errBusy, Attempts: 5}, 0},
		"no more attempts, lost":   {tries, []error{errBusy, errBusy, errBusy, errBusy, errLost}, retry.End{Err: errLost, Attempts: 5, Doubt: true}, 0},
		"the last one succeeds":    {tries, []error{errBusy, errBusy, errBusy, errBusy, nil}, retry.End{Attempts: 5}, 0},
		"no more time":             {timed, []error{errBusy}, retry.End{Err: errBusy, Tried: time.Minute}, time.Minute},
		"nobody is there":          {timed, []error{errAway}, retry.End{Err: errAway, Tried: 10 * time.Second}, 10 * time.Second},
		"somebody comes":           {timed, []error{errAway, errAway, errAway, nil}, retry.End{Attempts: 4}, 0},
		"somebody was there":       {timed, []error{errAway, errBusy, errAway, errBusy, errAway, errBusy}, retry.End{Err: errBusy, Tried: time.Minute}, time.Minute},
		"they leave for ever":      {timed, []error{errBusy, errAway}, retry.End{Err: errAway, Tried: 10 * time.Second}, 0},
		"no bound where all leave": {retry.Policy{First: 1, Most: 4, Attempts: 5}, []error{errAway}, retry.End{Err: errAway, Attempts: 5}, 0},
		"one bound for all":        {retry.Policy{First: 1, Most: time.Second, Total: time.Minute}, []error{errAway}, retry.End{Err: errAway, Tried: time.Minute}, time.Minute},
		"away is no longer":        {retry.Policy{First: 1, Most: time.Second, Total: time.Minute, Away: time.Hour}, []error{errAway}, retry.End{Err: errAway, Tried: time.Minute}, time.Minute},
		"away alone":               {retry.Policy{First: 1, Most: time.Second, Away: time.Minute}, []error{errAway}, retry.End{Err: errAway, Tried: time.Minute}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				call := retry.Call{Policy: test.policy, Judge: judge}
				got := call.Do(t.Context(), answers(test.answers...))
				if test.want.Attempts == 0 {
					got.Attempts = 0
				}
				if got != test.want {
					t.Errorf("got  %+v\nwant %+v", got, test.want)
				}
				if took := time.Since(began); test.is > 0 && took != test.is {
					t.Errorf("it took %s, want %s", took, test.is)
				}
			})
		})
	}
}

// TestAway: how long nothing answers counts from when that began, and from anew once
// something has answered.
func TestAway(t *testing.T) {
	policy := retry.Policy{First: time.Second, Most: 4 * time.Second, Total: time.Hour, Away: 10 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		began, n := time.Now(), 0
		var left time.Time
		call := retry.Call{Policy: policy, Judge: judge}
		end := call.Do(t.Context(), func(context.Context) error {
			if n++; n <= 6 {
				return errBusy
			}
			if left.IsZero() {
				left = time.Now()
			}
			return errAway
		})
		if took := time.Since(left); end.Err != errAway || end.Tried != policy.Away || took != policy.Away {
			t.Errorf("%+v after %s, and %s of silence", end, time.Since(began), took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		n := 0
		call := retry.Call{Policy: policy, Judge: judge}
		end := call.Do(t.Context(), func(context.Context) error {
			n++
			return [][]error{{errBusy, errAway}, {nil, nil}}[n/20][n%2]
		})
		if end != (retry.End{Attempts: 20}) {
			t.Errorf("%+v", end)
		}
	})
}

// TestPauses looks at every pause of many calls: they double to the longest, at least
// half of each is waited and not all wait alike; a service that wants fewer requests has
// ten times the first at once, and after a success in part the next is no longer.
func TestPauses(t *testing.T) {
	policy := retry.Policy{First: 10 * time.Millisecond, Most: 80 * time.Millisecond, Attempts: 8}
	few := retry.Policy{First: 10 * time.Millisecond, Most: time.Second, Attempts: 4}
	for name, test := range map[string]struct {
		policy   retry.Policy
		answers  []error
		progress int // the attempt that succeeds in part
		want     []time.Duration
	}{
		"doubled":      {policy, []error{errBusy}, 0, []time.Duration{10, 20, 40, 80, 80, 80, 80}},
		"slower":       {few, []error{errFull}, 0, []time.Duration{100, 200, 400}},
		"slower later": {few, []error{errBusy, errFull, errBusy}, 0, []time.Duration{10, 100, 200}},
		"slower, most": {policy, []error{errFull}, 0, []time.Duration{80, 80, 80, 80, 80, 80, 80}},
		"progress":     {policy, []error{errBusy}, 4, []time.Duration{10, 20, 40, 40, 80, 80, 80}},
		"no shorter":   {policy, []error{errBusy}, 1, []time.Duration{10, 20, 40, 80, 80, 80, 80}},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make([]map[time.Duration]bool, len(test.want))
			for range 50 {
				synctest.Test(t, func(t *testing.T) {
					var pauses []time.Duration
					n, last := 0, time.Now()
					answer := answers(test.answers...)
					call := retry.Call{Policy: test.policy, Judge: judge}
					call.Pausing = func(err error, pause time.Duration) {
						if judge(err, n) == 0 {
							t.Errorf("a pause for %v", err)
						}
						pauses = append(pauses, pause)
					}
					call.Do(t.Context(), func(ctx context.Context) error {
						if n++; n > 1 {
							if waited := time.Since(last); waited != pauses[n-2] {
								t.Errorf("pause %d took %s, told %s", n-1, waited, pauses[n-2])
							}
						}
						if last = time.Now(); n == test.progress {
							call.Progress()
						}
						return answer(ctx)
					})
					if len(pauses) != len(test.want) {
						t.Fatalf("%d pauses, want %d", len(pauses), len(test.want))
					}
					for i, want := range test.want {
						want *= time.Millisecond
						if pauses[i] < want/2 || pauses[i] > want {
							t.Errorf("pause %d is %s, want %s at most and half of it at least", i+1, pauses[i], want)
						}
						if seen[i] == nil {
							seen[i] = map[time.Duration]bool{}
						}
						seen[i][pauses[i]] = true
					}
				})
			}
			for i := range seen {
				if len(seen[i]) < 10 {
					t.Errorf("pause %d has %d lengths in 50 calls", i+1, len(seen[i]))
				}
			}
		})
	}
}

// TestProgressHasTime: what succeeds in part may take longer than a call without success.
func TestProgressHasTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := retry.Call{Policy: retry.Policy{First: time.Second, Most: time.Second, Total: 2 * time.Second, Away: time.Second}, Judge: judge}
		n := 0
		end := call.Do(t.Context(), func(context.Context) error {
			n++
			call.Progress()
			return []error{errBusy, errAway, nil}[n/40]
		})
		if end != (retry.End{Attempts: 80}) {
			t.Errorf("%+v", end)
		}
	})
}

// TestContextEnds: a call ends with its context, in a pause and in an attempt, of which
// nobody knows then whether it was carried out.
func TestContextEnds(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return errBusy }
	for name, test := range map[string]struct {
		attempt func(context.Context) error
		doubt   bool
	}{"pause": {answers(errBusy), false}, "pause, lost": {answers(errLost), true}, "attempt": {hang, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				call := retry.Call{Policy: retry.Policy{First: time.Hour, Most: time.Hour}, Judge: judge}
				end := call.Do(ctx, test.attempt)
				want := retry.End{Err: end.Err, Attempts: 1, Stopped: context.DeadlineExceeded, Doubt: test.doubt}
				if end != want || end.Err == nil {
					t.Errorf("got  %+v\nwant %+v", end, want)
				}
				if took := time.Since(began); took != time.Second {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// TestLimit: an attempt that hangs is given up, and another one made, with as much time.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Duration
		call := retry.Call{Policy: retry.Policy{First: time.Second, Most: time.Second, Attempts: 3, Limit: time.Minute}, Judge: judge}
		end := call.Do(t.Context(), func(ctx context.Context) error {
			began := time.Now()
			<-ctx.Done()
			times = append(times, time.Since(began))
			return errLost
		})
		if end != (retry.End{Err: errLost, Attempts: 3, Doubt: true}) || !slices.Equal(times, []time.Duration{time.Minute, time.Minute, time.Minute}) {
			t.Errorf("%+v, attempts of %v", end, times)
		}
	})
}

// TestResume: whoever is asked before each further attempt may end the call.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, asked := time.Now(), 0
		call := retry.Call{Policy: retry.Policy{First: time.Second, Most: time.Second}, Judge: judge}
		call.Resume = func(context.Context) error {
			if time.Since(began) == 0 {
				t.Error("it is asked before the pause")
			}
			if asked++; asked == 3 {
				return errBad
			}
			return nil
		}
		if end := call.Do(t.Context(), answers(errLost)); end != (retry.End{Err: errBad, Attempts: 3, Doubt: true}) {
			t.Errorf("%+v", end)
		}
	})
}

// TestJudgeCounts: attempts are counted from 1 on.
func TestJudgeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := retry.Call{Policy: retry.Policy{First: 1, Most: 1}, Judge: func(_ error, attempt int) retry.Verdict {
			if attempt == 3 {
				return 0
			}
			return retry.Again
		}}
		if end := call.Do(t.Context(), answers(errBad)); end != (retry.End{Err: errBad, Attempts: 3}) {
			t.Errorf("%+v", end)
		}
	})
}

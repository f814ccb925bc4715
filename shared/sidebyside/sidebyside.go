// Package sidebyside measures pieces of work beside each other, in CPU time and in one
// run: on a machine that does other things too, ratios are what can be repeated.
//
//	times := sidebyside.Measure(b, 7,
//		sidebyside.Here("walk", walk),
//		sidebyside.Here("sdk", decode))
//	times.Report(b, "walk", "sdk") // as the metric walk/sdk
package sidebyside

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A Work is one of the things that are measured. Do does it once and returns the CPU time
// that it took, in all threads and processes.
type Work struct {
	Name string
	Do   func() (time.Duration, error)
}

// Here is a Work that this process does.
func Here(name string, do func() error) Work {
	return Work{name, func() (time.Duration, error) { return CPU(do) }}
}

// CPU is the CPU time that this process takes while it does something. It is for a Work
// that prepares what is not measured.
func CPU(do func() error) (time.Duration, error) {
	before := spent()
	err := do()
	return spent() - before, err
}

// Command is a Work that a command does, whose output nobody reads.
func Command(name, command string, args ...string) Work {
	return Work{name, func() (time.Duration, error) {
		c := exec.Command(command, args...)
		if err := c.Run(); err != nil {
			return 0, fmt.Errorf("%s: %w", command, err)
		}
		return c.ProcessState.UserTime() + c.ProcessState.SystemTime(), nil
	}}
}

// spent is the CPU time of this process so far.
func spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic("sidebyside: " + err.Error()) // it can't fail for this process
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Times are the CPU times of works, round by round.
type Times map[string][]time.Duration

// Measure does works in turns: in each iteration of b, and at least rounds times, each of
// them once. The benchmark's own time is that of the iterations.
func Measure(b *testing.B, rounds int, works ...Work) Times {
	b.Helper()
	times := Times{}
	round := func() {
		for _, w := range works {
			runtime.GC() // what the work before left is not for this one to collect
			took, err := w.Do()
			if err != nil {
				b.Fatalf("%s: %v", w.Name, err)
			}
			times[w.Name] = append(times[w.Name], max(took, time.Microsecond))
		}
	}
	done := 0
	for b.Loop() {
		round()
		done++
	}
	b.StopTimer()
	for ; done < rounds; done++ {
		round()
	}
	return times
}

// ratios are the times of one work over those of another, round by round, ascending.
func (t Times) ratios(a, b string) []float64 {
	ratios := make([]float64, len(t[a]))
	for i := range ratios {
		ratios[i] = float64(t[a][i]) / float64(t[b][i])
	}
	slices.Sort(ratios)
	return ratios
}

// Ratio is the time of one work over that of another: the median of the rounds.
func (t Times) Ratio(a, b string) float64 {
	r := t.ratios(a, b)
	return r[len(r)/2]
}

// Middle is between which ratios the middle half of the rounds lies.
func (t Times) Middle(a, b string) (low, high float64) {
	r := t.ratios(a, b)
	return r[len(r)/4], r[len(r)-1-len(r)/4]
}

// Report reports a ratio as a metric, and logs how far the rounds agree.
func (t Times) Report(b *testing.B, over, under string) {
	b.Helper()
	b.ReportMetric(t.Ratio(over, under), over+"/"+under)
	low, high := t.Middle(over, under)
	b.Logf("%s/%s: %.3g, half of %d rounds from %.3g to %.3g", over, under, t.Ratio(over, under), len(t[over]), low, high)
}

package sidebyside_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/sidebyside"
)

// TestRatio: the ratio is the median of the rounds', whatever disturbed one.
func TestRatio(t *testing.T) {
	times := sidebyside.Times{
		"a": {10 * time.Millisecond, 90 * time.Millisecond, 20 * time.Millisecond},
		"b": {5 * time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond},
	}
	if got := times.Ratio("a", "b"); got != 2 {
		t.Errorf("a over b is %v, want 2", got)
	}
	if got := times.Ratio("b", "a"); got != 0.5 {
		t.Errorf("b over a is %v, want 0.5", got)
	}
}

// TestMiddle: what disturbed a quarter of the rounds is left out.
func TestMiddle(t *testing.T) {
	times := sidebyside.Times{"b": slices.Repeat([]time.Duration{time.Second}, 8)}
	for _, n := range []int{3, 9, 2, 4, 1, 5, 3, 70} {
		times["a"] = append(times["a"], time.Duration(n)*time.Second)
	}
	if low, high := times.Middle("a", "b"); low != 3 || high != 5 {
		t.Errorf("the middle half is from %v to %v, want 3 to 5", low, high)
	}
}

// TestMeasure: every work is done as often as was asked for, in turns.
func TestMeasure(t *testing.T) {
	var order string
	testing.Benchmark(func(b *testing.B) {
		order = ""
		work := func(name string) sidebyside.Work {
			return sidebyside.Work{Name: name, Do: func() (time.Duration, error) {
				order += name
				return time.Second, nil
			}}
		}
		times := sidebyside.Measure(b, 3, work("a"), work("b"))
		if len(times["a"]) < 3 || len(times["a"]) != len(times["b"]) {
			t.Errorf("%d rounds of a, %d of b", len(times["a"]), len(times["b"]))
		}
		b.SkipNow() // once is enough
	})
	if len(order) < 6 || order[:6] != "ababab" {
		t.Errorf("the works were done in the order %.20s", order)
	}
}

package s3

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// The sum of two contents one after the other is what combining their sums gives, wherever they are parted.
func TestCombine(t *testing.T) {
	content := objecttest.Content("combine", 100_000)
	whole := crc32.Checksum(content, castagnoli)
	for _, at := range []int{0, 1, 7, 8, 255, 256, 65_536, 99_999, 100_000, rand.N(100_000), rand.N(100_000)} {
		a, b := crc32.Checksum(content[:at], castagnoli), crc32.Checksum(content[at:], castagnoli)
		if got := combine(a, b, int64(len(content)-at)); got != whole {
			t.Errorf("parted at %d: %08x, want %08x", at, got, whole)
		}
	}
}

//go:build linux || darwin

package dir

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tablevault/tablevault/shared/object"
)

// A small object is what a decision costs, a large one what a shard does. On a file
// system in memory, what is left is the store's own work.
func BenchmarkCreate(b *testing.B) {
	for _, size := range []int{1 << 10, 8 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s, err := Open(b.Context(), b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			content := bytes.Repeat([]byte("content "), size/8)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Create(b.Context(), fmt.Sprintf("backups/local/prod/orders/slots/%d", i), bytes.NewReader(content)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkStat(b *testing.B) {
	s, err := Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	const size = 8 << 20
	if _, err := s.Create(b.Context(), "a/b", bytes.NewReader(make([]byte, size))); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		if _, err := object.Stat(b.Context(), s, "a/b"); err != nil {
			b.Fatal(err)
		}
	}
}

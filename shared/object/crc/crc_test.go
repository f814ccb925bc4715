package crc

import (
	"hash/crc32"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/tablevault/tablevault/shared/sidebyside"
)

// content is so many bytes, which differ with each run.
func content(t testing.TB, size int) []byte {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	p := make([]byte, size)
	source := rand.New(rand.NewPCG(seed, seed))
	for i := range p {
		p[i] = byte(source.Uint64())
	}
	return p
}

// A lane is moved ahead by the powers that it should be.
func TestAhead(t *testing.T) {
	bits := func(n int) uint64 { // x to the power of n
		p := power[uint64](crc64.ECMA, int64(n/8))
		return multiply(crc64.ECMA, p, 1<<(63-n%8))
	}
	if want := [2]uint64{bits(575), bits(511)}; ahead != want {
		t.Errorf("lanes are moved by %#x, want %#x", ahead, want)
	}
}

// Contents of every length up to some lanes, at every offset to the words of memory, sum
// up to what the standard library says.
func TestSum64(t *testing.T) {
	p := content(t, least+3*lane+32)
	for from := range 17 {
		for to := from; to <= len(p); to++ {
			if got, want := update(uint64(to)<<40, p[from:to]), crc64.Update(uint64(to)<<40, ecma, p[from:to]); got != want {
				t.Fatalf("from %d to %d: %016x, want %016x", from, to, got, want)
			}
		}
	}
}

// FuzzSum64 sums contents in two pieces, and combines the sums of these.
func FuzzSum64(f *testing.F) {
	f.Add([]byte("a few bytes"), uint(3))
	f.Add(make([]byte, 3*least), uint(least+1))
	f.Fuzz(func(t *testing.T, p []byte, cut uint) {
		at := int(cut % uint(len(p)+1))
		first, second := p[:at], p[at:]
		var whole, a, b Sum64
		for _, w := range []struct {
			to *Sum64
			p  []byte
		}{{&whole, first}, {&whole, second}, {&a, first}, {&b, second}} {
			if n, err := w.to.Write(w.p); n != len(w.p) || err != nil {
				t.Fatalf("Write: %d of %d, %v", n, len(w.p), err)
			}
		}
		want := crc64.Checksum(p, ecma)
		if uint64(whole) != want {
			t.Errorf("the sum is %016x, want %016x", whole, want)
		}
		if got := Combine(crc64.ECMA, uint64(a), uint64(b), int64(len(second))); got != want {
			t.Errorf("the sums of two pieces combine to %016x, want %016x", got, want)
		}
		table := crc32.MakeTable(crc32.Castagnoli)
		if got, want := Combine(crc32.Castagnoli, crc32.Checksum(first, table), crc32.Checksum(second, table), int64(len(second))), crc32.Checksum(p, table); got != want {
			t.Errorf("the 32 bit sums of two pieces combine to %08x, want %08x", got, want)
		}
	})
}

// The sum of two contents one after the other is what combining their sums gives,
// wherever they are parted.
func TestCombine(t *testing.T) {
	p := content(t, 100_000)
	table := crc32.MakeTable(crc32.Castagnoli)
	for _, at := range []int{0, 1, 7, 8, 255, 256, 65_536, 99_999, 100_000, rand.N(100_000), rand.N(100_000)} {
		a, b := p[:at], p[at:]
		if got, want := Combine(crc64.ECMA, crc64.Checksum(a, ecma), crc64.Checksum(b, ecma), int64(len(b))), crc64.Checksum(p, ecma); got != want {
			t.Errorf("parted at %d: %016x, want %016x", at, got, want)
		}
		if got, want := Combine(crc32.Castagnoli, crc32.Checksum(a, table), crc32.Checksum(b, table), int64(len(b))), crc32.Checksum(p, table); got != want {
			t.Errorf("parted at %d: %08x, want %08x", at, got, want)
		}
	}
}

// BenchmarkSum64 sums parts beside the standard library.
//
//	go test -run '^$' -bench . -benchtime 1x ./shared/object/crc
func BenchmarkSum64(b *testing.B) {
	p := content(b, 5<<20)
	b.SetBytes(20 * int64(len(p)))
	sum := func(w io.Writer) func() error {
		return func() (err error) {
			for range 10 {
				_, err = w.Write(p)
			}
			return err
		}
	}
	sidebyside.Measure(b, 7, sidebyside.Here("library", sum(crc64.New(ecma))), sidebyside.Here("sum", sum(new(Sum64)))).Report(b, "library", "sum")
}

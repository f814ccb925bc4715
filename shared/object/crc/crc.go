// Package crc has what the standard library's checksums lack: the CRC-64 of OSS at the
// speed at which memory is read, and the CRC of contents that follow one another from
// those of each.
//
//	var sum crc.Sum64
//	io.Copy(&sum, r) // uint64(sum) is crc64.Checksum(…, crc64.MakeTable(crc64.ECMA))
//	whole := crc.Combine(crc64.ECMA, first, second, int64(lengthOfSecond))
//
// A CRC is a polynomial over bits modulo another. Polynomials stand in words with the
// highest power in the lowest bit, so that x⁰ is the highest bit of a word.
package crc

import (
	"encoding/binary"
	"hash/crc64"
)

// Sum64 is the CRC-64 of what was written to it, of the polynomial [crc64.ECMA], as
// [hash/crc64] has it.
type Sum64 uint64

var ecma = crc64.MakeTable(crc64.ECMA)

// Write adds p. It always succeeds.
func (s *Sum64) Write(p []byte) (int, error) {
	*s = Sum64(update(uint64(*s), p))
	return len(p), nil
}

const (
	// lane is what is folded at once: four times sixteen bytes.
	lane = 64
	// least is how long content must be for folding to pay: the end of it takes as long
	// as a lane by the table.
	least = 4 * lane
)

// ahead moves sixteen bytes ahead by a lane: the first eight of them are multiplied by
// x⁵⁷⁵, the other eight by x⁵¹¹. Eight bytes are the upper half of a polynomial of
// sixteen, and so 64 powers ahead of the others; the product of two words in this order
// of bits comes out multiplied by another x.
var ahead = [2]uint64{0x6ae3efbb9dd441f3, 0x081f6054a7842df4}

// update is crc64.Update. Where the processor multiplies polynomials, each lane is added
// to the next, moved ahead by its length, which leaves the CRC as it is. So all but the
// last lane vanish in it, and the table is for that alone.
func update(sum uint64, p []byte) uint64 {
	if whole := len(p) &^ (lane - 1); canFold && whole >= least {
		var last [lane]byte
		copy(last[:], p)
		// The sum so far is added to what follows it. Sums are kept inverted.
		binary.LittleEndian.PutUint64(last[:], binary.LittleEndian.Uint64(p)^^sum)
		fold(&last, p[lane:whole], &ahead)
		sum, p = crc64.Update(^uint64(0), ecma, last[:]), p[whole:]
	}
	return crc64.Update(sum, ecma, p)
}

// Combine returns the CRC of two contents, one after the other, from their CRCs and the
// length of the second in bytes. The polynomial has the order of bits, and as many, as a
// sum.
func Combine[T uint32 | uint64](polynomial, first, second T, length int64) T {
	return multiply(polynomial, power(polynomial, length), first) ^ second
}

// power is x to the power of 8n, by which n more bytes multiply.
func power[T uint32 | uint64](polynomial T, n int64) T {
	one := ^(^T(0) >> 1)
	product, square := one, one>>8
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			product = multiply(polynomial, product, square)
		}
		square = multiply(polynomial, square, square)
	}
	return product
}

// multiply multiplies two polynomials modulo a third.
func multiply[T uint32 | uint64](polynomial, a, b T) (product T) {
	one := ^(^T(0) >> 1)
	for ; a != 0; a <<= 1 {
		if a&one != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry == 1 {
			b ^= polynomial
		}
	}
	return product
}

package oss

import "hash/crc64"

// combine returns the CRC-64 of two contents, one after the other, from theirs and the length of the second.
//
// A CRC is a polynomial over bits modulo another, the highest power in the lowest bit. Appending n bytes multiplies it by
// x to the power of 8n, which squaring finds in as many steps as n has bits.
func combine(first, second uint64, n int64) uint64 {
	const one, byteOn = 1 << 63, 1 << (63 - 8) // x⁰ and x⁸
	power, square := uint64(one), uint64(byteOn)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			power = multiply(power, square)
		}
		square = multiply(square, square)
	}
	return multiply(power, first) ^ second
}

// multiply multiplies two polynomials modulo that of the CRC.
func multiply(a, b uint64) (product uint64) {
	for ; a != 0; a <<= 1 {
		if a>>63 == 1 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry == 1 {
			b ^= crc64.ECMA
		}
	}
	return product
}

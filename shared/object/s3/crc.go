package s3

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode is a CRC-32C as S3 writes it.
func encode(sum uint32) *string {
	text := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
	return &text
}

// checksum is a CRC-32C as the port writes it.
func checksum(sum uint32) string { return fmt.Sprintf("crc32c:%08x", sum) }

// decode turns what the store calls a CRC-32C into what the port does.
func decode(encoded string) (string, error) {
	sum, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(sum) != 4 {
		return "", fmt.Errorf("the store says that the CRC-32C is %q", encoded)
	}
	return "crc32c:" + strings.ToLower(hex.EncodeToString(sum)), nil
}

// combine is the CRC-32C of a and b one after the other, of their sums and b's length in bytes.
//
// A zero byte that follows changes a sum linearly, as a matrix over bits does, so that n of them are the matrix to the
// power of n, which is found by squaring.
func combine(a, b uint32, length int64) uint32 {
	// The matrix of one zero bit: each bit moves down by one, and the lowest falls out as the polynomial.
	var m matrix
	m[0] = crc32.Castagnoli
	for i := 1; i < len(m); i++ {
		m[i] = 1 << (i - 1)
	}
	for range 3 { // of eight
		m = m.square()
	}
	for ; length > 0; length >>= 1 {
		if length&1 == 1 {
			a = m.times(a)
		}
		m = m.square()
	}
	return a ^ b
}

// matrix maps 32 bits to 32 bits: each set bit to its entry.
type matrix [32]uint32

func (m *matrix) times(v uint32) (sum uint32) {
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 == 1 {
			sum ^= m[i]
		}
	}
	return sum
}

func (m *matrix) square() (squared matrix) {
	for i, v := range m {
		squared[i] = m.times(v)
	}
	return squared
}

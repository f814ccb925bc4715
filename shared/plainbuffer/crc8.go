package plainbuffer

import "encoding/binary"

// The checksum of PlainBuffer is CRC-8 with polynomial 0x07, initial value 0,
// no reflection and no final xor; the check value of "123456789" is 0xF4.

// tables holds at [k][b] the checksum of byte b followed by k zero bytes. A CRC is
// linear, so sixteen bytes cost sixteen independent look-ups and no chain.
var tables = makeTables()

func makeTables() (t [16][256]byte) {
	for b := range 256 {
		crc := byte(b)
		for range 8 {
			if crc&0x80 != 0 {
				crc = crc<<1 ^ 0x07
			} else {
				crc <<= 1
			}
		}
		t[0][b] = crc
	}
	for k := 1; k < len(t); k++ {
		for b := range 256 {
			t[k][b] = t[0][t[k-1][b]]
		}
	}
	return t
}

// Checksum continues crc over data; the checksum of a whole starts at 0.
func Checksum(crc byte, data []byte) byte {
	for len(data) >= 16 {
		d := data[:16:16]
		crc = tables[15][crc^d[0]] ^ tables[14][d[1]] ^ tables[13][d[2]] ^ tables[12][d[3]] ^
			tables[11][d[4]] ^ tables[10][d[5]] ^ tables[9][d[6]] ^ tables[8][d[7]] ^
			tables[7][d[8]] ^ tables[6][d[9]] ^ tables[5][d[10]] ^ tables[4][d[11]] ^
			tables[3][d[12]] ^ tables[2][d[13]] ^ tables[1][d[14]] ^ tables[0][d[15]]
		data = data[16:]
	}
	if len(data) >= 8 {
		crc = checksum8(crc, binary.LittleEndian.Uint64(data))
		data = data[8:]
	}
	if len(data) >= 4 {
		crc = checksum4(crc, binary.LittleEndian.Uint32(data))
		data = data[4:]
	}
	for _, b := range data {
		crc = tables[0][crc^b]
	}
	return crc
}

func checksum1(crc, b byte) byte { return tables[0][crc^b] }

// checksum4 continues crc over the little-endian bytes of v.
func checksum4(crc byte, v uint32) byte {
	return tables[3][crc^byte(v)] ^ tables[2][byte(v>>8)] ^ tables[1][byte(v>>16)] ^ tables[0][byte(v>>24)]
}

// checksum8 continues crc over the little-endian bytes of v.
func checksum8(crc byte, v uint64) byte {
	return tables[7][crc^byte(v)] ^ tables[6][byte(v>>8)] ^ tables[5][byte(v>>16)] ^ tables[4][byte(v>>24)] ^
		tables[3][byte(v>>32)] ^ tables[2][byte(v>>40)] ^ tables[1][byte(v>>48)] ^ tables[0][byte(v>>56)]
}

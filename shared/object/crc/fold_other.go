//go:build !amd64

package crc

const canFold = false

func fold(*[lane]byte, []byte, *[2]uint64) { panic("crc: folding is not there") }

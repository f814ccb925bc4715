package crc

import "golang.org/x/sys/cpu"

var canFold = cpu.X86.HasPCLMULQDQ

// fold adds last to the first 64 bytes of p, moved ahead by these, puts that into last,
// and goes on with the next. The length of p is a multiple of 64.
//
//go:noescape
func fold(last *[lane]byte, p []byte, ahead *[2]uint64)

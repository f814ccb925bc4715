#include "textflag.h"

// AHEAD moves the sixteen bytes of A ahead by a lane, with X8 being by how much its halves are multiplied, and adds the
// sixteen bytes at AT. B is overwritten.
#define AHEAD(A, B, AT) \
	MOVOU     A, B         \
	PCLMULQDQ $0x00, X8, A \
	PCLMULQDQ $0x11, X8, B \
	MOVOU     AT, X9       \
	PXOR      B, A         \
	PXOR      X9, A

// func fold(last *[64]byte, p []byte, ahead *[2]uint64)
TEXT ·fold(SB), NOSPLIT, $0-40
	MOVQ  last+0(FP), DI
	MOVQ  p_base+8(FP), SI
	MOVQ  p_len+16(FP), CX
	MOVQ  ahead+32(FP), AX
	MOVOU (AX), X8
	MOVOU 0(DI), X0
	MOVOU 16(DI), X1
	MOVOU 32(DI), X2
	MOVOU 48(DI), X3

next:
	CMPQ CX, $64
	JB   done
	AHEAD(X0, X4, 0(SI))
	AHEAD(X1, X5, 16(SI))
	AHEAD(X2, X6, 32(SI))
	AHEAD(X3, X7, 48(SI))
	ADDQ $64, SI
	SUBQ $64, CX
	JMP  next

done:
	MOVOU X0, 0(DI)
	MOVOU X1, 16(DI)
	MOVOU X2, 32(DI)
	MOVOU X3, 48(DI)
	RET

package ots

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// The simple row matrix is the other form in which a range can be read: the names of the
// columns once, then each row's values in their order, one version of each and no
// timestamps.
const (
	matrixMagic = 0x304D5253
	matrixHead  = 5 * 4

	matrixTagChecksum = 1
	matrixTagRow      = 2
	matrixTagCount    = 3
	matrixTagWholeKey = 10
)

// appendMatrix appends the rows of a PlainBuffer block as a matrix of the key and the
// named attributes.
func appendMatrix(b, block []byte, key []string, columns []string) ([]byte, error) {
	start := len(b)
	var attributes []string
	for _, c := range columns {
		if !slices.Contains(key, c) {
			attributes = append(attributes, c)
		}
	}
	b = append(b, make([]byte, matrixHead)...)
	for _, names := range [][]string{key, attributes} {
		for _, n := range names {
			b = binary.LittleEndian.AppendUint16(b, uint16(len(n)))
			b = append(b, n...)
		}
	}
	options := len(b) - start
	b = append(b, matrixTagWholeKey, 1, matrixTagCount, 0, 0, 0, 0)
	data := len(b) - start

	s := plainbuffer.NewScanner(block)
	var row plainbuffer.Row
	count := uint32(0)
	for {
		err := s.Next(&row)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return b, err
		}
		count++
		b = append(b, matrixTagRow)
		for i := range row.Key {
			b = appendMatrixValue(b, &row.Key[i])
		}
		for _, name := range attributes {
			// The first of a column's versions is the newest.
			i := slices.IndexFunc(row.Cells, func(c plainbuffer.Cell) bool { return string(c.Name) == name })
			if i < 0 {
				b = append(b, byte(plainbuffer.Null))
				continue
			}
			b = appendMatrixValue(b, &row.Cells[i])
		}
	}
	head := b[start:]
	binary.LittleEndian.PutUint32(head, matrixMagic)
	binary.LittleEndian.PutUint32(head[4:], uint32(data))
	binary.LittleEndian.PutUint32(head[8:], uint32(options))
	binary.LittleEndian.PutUint32(head[12:], uint32(len(key)))
	binary.LittleEndian.PutUint32(head[16:], uint32(len(attributes)))
	binary.LittleEndian.PutUint32(head[data-4:], count)
	b = append(b, matrixTagChecksum)
	return append(b, plainbuffer.Checksum(0, b[start:])), nil
}

func appendMatrixValue(b []byte, c *plainbuffer.Cell) []byte {
	b = append(b, byte(c.Type))
	if c.Type == plainbuffer.String || c.Type == plainbuffer.Blob {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Data)))
	}
	return append(b, c.Data...)
}

// matrixAnswer makes the block that the answer holds a matrix.
func (c *call) matrixAnswer(table string, columns []string) *engine.Error {
	d, err := c.server.engine.Definition(table)
	if err != nil {
		return err
	}
	var key []string
	for _, k := range d.Key {
		key = append(key, k.Name)
	}
	block := append([]byte(nil), c.answer[blockGap:]...)
	b, failed := appendMatrix(c.answer[:blockGap], block, key, columns)
	c.answer = b
	return engine.AsError(failed)
}

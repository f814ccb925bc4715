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

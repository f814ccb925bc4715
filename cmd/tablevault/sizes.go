package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"

	"github.com/spf13/cobra"
)

// bytesValue is the value of a flag that is a number of bytes.
type bytesValue int64

var bytesForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kKMGT]i?)?B?$`)

// Set reads a number of bytes, or of larger units: 1GiB, 64 MB, 1048576.
func (b *bytesValue) Set(text string) error {
	m := bytesForm.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("%q is no number of bytes: want for example 1GiB, 64MB or 1048576", text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return err
	}
	if unit := m[2]; unit != "" {
		base := 1000.0
		if len(unit) == 2 {
			base = 1024
		}
		n *= math.Pow(base, float64(map[byte]int{'k': 1, 'K': 1, 'M': 2, 'G': 3, 'T': 4}[unit[0]]))
	}
	if n > 1<<53 {
		return fmt.Errorf("%q is too much: want at most 8192TiB", text)
	}
	*b = bytesValue(n)
	return nil
}

func (b *bytesValue) String() string { return strconv.FormatInt(int64(*b), 10) }

// Type is what help calls it.
func (b *bytesValue) Type() string { return "size" }

// sizeFlag is a flag that is a number of bytes, by default 0, which help does not tell.
func sizeFlag(c *cobra.Command, to *int64, name, help string) {
	c.Flags().Var((*bytesValue)(to), name, help)
	c.Flags().Lookup(name).DefValue = ""
}

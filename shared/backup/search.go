package backup

import (
	"bytes"
	"context"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/table"
)

// search finds how far the values of a column go from a first one, by looking for rows at
// places far ahead.
type search struct {
	scale scale
	from  table.Value // the least
	n     int         // ranges to cut into
	wave  int         // looks at a time
	// key is the place of a value, row the column's value in the first row from a place
	// on, nil if there is none.
	key func(table.Value) table.Key
	row func(context.Context, table.Key) (*table.Value, error)

	least, most uint64
	last        table.Value // the greatest that was seen
}

// The bounds of a search.
const (
	// gallop is by how much the distances from the least value grow.
	gallop = 16
	// rounds is how often what is left between the greatest value that was seen and the
	// least that is too far is looked through.
	rounds = 8
)

// greatest looks at distances from the least value that grow, until nothing is there, and
// then evenly between what was found and what is too far.
func (s *search) greatest(ctx context.Context) error {
	s.least = s.scale.of(s.from)
	s.most, s.last = s.least, s.from
	var far []uint64
	for step := uint64(1); s.least <= math.MaxUint64-step; step *= gallop {
		far = append(far, s.least+step)
		if step > math.MaxUint64/gallop {
			break
		}
	}
	above := uint64(math.MaxUint64)
	for places := range slices.Chunk(far, s.wave) {
		top, err := s.reach(ctx, places)
		if err != nil {
			return err
		}
		if top < above {
			above = top
			break
		}
	}
	for range rounds {
		if above <= s.most || above-s.most <= (s.most-s.least)/uint64(4*s.n) {
			return nil
		}
		gap := max(1, (above-s.most)/uint64(s.wave+1))
		var places []uint64
		for at := s.most; len(places) < s.wave && above-at > gap; {
			at += gap
			places = append(places, at)
		}
		if len(places) == 0 {
			return nil
		}
		top, err := s.reach(ctx, places)
		if err != nil {
			return err
		}
		above = min(above, top)
	}
	return nil
}

// reach looks for rows at and beyond each place, and returns the least place with nothing
// at or beyond it.
func (s *search) reach(ctx context.Context, places []uint64) (above uint64, err error) {
	found := make([]*table.Value, len(places))
	group, gctx := guard.WithContext(ctx)
	for i, at := range places {
		group.Go(func() (err error) {
			found[i], err = s.row(gctx, s.key(s.scale.value(at)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	above = math.MaxUint64
	for i, v := range found {
		if v == nil {
			above = min(above, places[i])
			continue
		}
		s.most = max(s.most, s.scale.of(*v))
		if v.Compare(s.last) > 0 {
			s.last = *v
		}
	}
	return above, nil
}

// refine chooses a scale that tells the values between the first and the last one better
// apart, and says whether there is one.
func (s *search) refine() bool {
	if s.scale.kind == table.IntegerKey || s.scale.alphabet != "" {
		return false
	}
	if s.most == s.least {
		// They agree in what the scale looks at, or there is but one.
		next := len(s.scale.prefix) + s.scale.width()
		if len(s.from.Bytes) <= next {
			return false
		}
		if s.scale.kind == table.StringKey {
			for next > len(s.scale.prefix)+1 && !utf8.RuneStart(s.from.Bytes[next]) {
				next--
			}
		}
		s.scale.prefix = s.from.Bytes[:next]
		return true
	}
	common := 0
	for common < min(len(s.from.Bytes), len(s.last.Bytes)) && s.from.Bytes[common] == s.last.Bytes[common] {
		common++
	}
	finer := scale{kind: s.scale.kind, prefix: s.from.Bytes[:common]}
	for _, a := range alphabets {
		if contains(a, s.from.Bytes[common:]) && contains(a, s.last.Bytes[common:]) {
			finer.alphabet = a
			break
		}
	}
	if finer.alphabet == "" {
		return false
	}
	s.scale = finer
	return true
}

// cuts are keys at even distances.
func (s *search) cuts() []table.Key {
	var keys []table.Key
	for i := 1; i < s.n; i++ {
		at := s.least + uint64(float64(s.most-s.least)/float64(s.n)*float64(i))
		k := s.key(s.scale.value(at))
		if at > s.least && at <= s.most && (len(keys) == 0 || k.Compare(keys[len(keys)-1]) > 0) {
			keys = append(keys, k)
		}
	}
	return keys
}

// scale maps values of a column to numbers that order as they do: integers by themselves,
// strings and blobs by what follows a prefix, as a number whose digits are the letters of
// an alphabet, or bytes where that is empty.
type scale struct {
	kind     table.KeyType
	prefix   []byte
	alphabet string
}

// The alphabets that keys are often made of, in their order.
var alphabets = []string{
	"0123456789",
	"0123456789ABCDEF",
	"0123456789abcdef",
	"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
}

func contains(alphabet string, text []byte) bool {
	return !slices.ContainsFunc(text, func(c byte) bool { return strings.IndexByte(alphabet, c) < 0 })
}

// base is the number of digits, width how many of them fit into a number.
func (s scale) base() uint64 {
	if s.alphabet == "" {
		return 256
	}
	return uint64(len(s.alphabet))
}

func (s scale) width() int {
	if s.alphabet == "" {
		return 8
	}
	return int(math.Floor(63 / math.Log2(float64(s.base()))))
}

// of is the number of a value. It never falls as values rise; values that differ behind
// what fits into a number share one.
func (s scale) of(v table.Value) uint64 {
	if s.kind == table.IntegerKey {
		return ordinal(v)
	}
	rest, ok := bytes.CutPrefix(v.Bytes, s.prefix)
	if !ok {
		if bytes.Compare(v.Bytes, s.prefix) < 0 {
			return 0
		}
		return math.MaxUint64
	}
	n := uint64(0)
	for i := range s.width() {
		n *= s.base()
		if i >= len(rest) {
			continue
		}
		digit, known := s.digit(rest[i])
		n += digit
		if !known {
			// Everything that begins so lies before the next letter.
			for range s.width() - i - 1 {
				n *= s.base()
			}
			return n
		}
	}
	return n
}

// digit is a byte's place in the alphabet, or that of the next letter, which may be one
// past the last.
func (s scale) digit(c byte) (digit uint64, known bool) {
	if s.alphabet == "" {
		return uint64(c), true
	}
	i := strings.IndexFunc(s.alphabet, func(r rune) bool { return byte(r) >= c })
	if i < 0 {
		return s.base(), false
	}
	return uint64(i), s.alphabet[i] == c
}

// value is of's inverse, as far as a value may be long. A string is text, since a service
// may refuse another bound.
func (s scale) value(at uint64) table.Value {
	if s.kind == table.IntegerKey {
		return valueAt(s.kind, at)
	}
	digits := make([]byte, s.width())
	if s.alphabet != "" {
		at = min(at, uint64(math.Pow(float64(s.base()), float64(s.width())))-1)
	}
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte(at % s.base())
		if s.alphabet != "" {
			digits[i] = s.alphabet[at%s.base()]
		}
		at /= s.base()
	}
	b := append(slices.Clone(s.prefix), digits...)
	if s.kind == table.BinaryKey {
		return table.Binary(b[:min(len(b), table.MaxKeyBytes)])
	}
	return table.String(shorten(strings.TrimRight(text(b), "\x00"), table.MaxKeyBytes))
}

// shorten cuts a text to a length that may be too short for its last letter.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// text is a text near to what may be none: its bytes as far as they are UTF-8, and where
// they are not, those next to them that are.
func text(b []byte) string {
	var out []byte
	for len(b) > 0 {
		c := b[0]
		// The bytes that may follow c: how many, and the bounds of the first.
		n, least, most := 0, byte(0x80), byte(0xbf)
		switch {
		case c < 0x80:
		case c < 0xc2:
			return string(append(out, 0x7f))
		case c < 0xe0:
			n = 1
		case c < 0xf0:
			if n = 2; c == 0xe0 {
				least = 0xa0
			} else if c == 0xed {
				most = 0x9f
			}
		case c < 0xf5:
			if n = 3; c == 0xf0 {
				least = 0x90
			} else if c == 0xf4 {
				most = 0x8f
			}
		default:
			return string(append(out, 0xf4, 0x8f, 0xbf, 0xbf))
		}
		out, b = append(out, c), b[1:]
		for ; n > 0; n-- {
			next := least
			if len(b) > 0 {
				next = min(max(b[0], least), most)
				b = b[1:]
			}
			out = append(out, next)
			least, most = 0x80, 0xbf
		}
	}
	return string(out)
}

package plainbuffertest

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A Shape is rows like those of some real table: made up, but with the repetitions,
// ranges and texts that tables have. The key is pk1, a string, and pk2, an integer, and
// ascends from row to row.
type Shape struct {
	Name string
	// PerPage is how many rows a page of about 4 MB has.
	PerPage int
	cells   func(m *Maker, timestamp int64)
}

// Shapes are the shapes that the project measures.
func Shapes() []Shape {
	return []Shape{
		{"small", 10_000, small},       // 8 short columns, about 400 bytes
		{"medium", 1668, medium},       // 20 columns, about 2.3 KB
		{"wide", 63, wide},             // a blob of 64 KB
		{"versions", 4668, versions},   // 4 columns of 5 versions each
		{"differing", 4000, differing}, // each of 40 columns in every second row
		{"sparse", 4000, sparse},       // each of 200 columns in every twelfth row
		{"kinds", 4000, kinds},         // 40 kinds of rows with columns of their own
		{"strangers", 4000, strangers}, // 20 of some ten thousand columns
	}
}

// ShapeOf is the shape with a name.
func ShapeOf(name string) Shape {
	for _, s := range Shapes() {
		if s.Name == name {
			return s
		}
	}
	panic("plainbuffertest: no shape " + name)
}

// Pages makes n pages, each a block.
func (s Shape) Pages(n int) [][]byte {
	m := s.Maker()
	pages := make([][]byte, n)
	for i := range pages {
		w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(make([]byte, 0, 4<<20+1<<19))}
		for range s.PerPage {
			m.Append(&w)
		}
		pages[i] = w.Buf
	}
	return pages
}

// Maker returns what makes the rows, from the first on. Two make equal rows.
func (s Shape) Maker() *Maker {
	return &Maker{
		shape: s, rng: rand.New(rand.NewPCG(1, uint64(len(s.Name)))), names: map[string]*plainbuffer.Name{},
		pk1: plainbuffer.NewName([]byte("pk1")), pk2: plainbuffer.NewName([]byte("pk2")),
	}
}

// A Maker makes the rows of a shape, one after the other.
type Maker struct {
	shape    Shape
	rng      *rand.Rand
	row      int
	w        *plainbuffer.Builder
	names    map[string]*plainbuffer.Name
	pk1, pk2 plainbuffer.Name
	buf      []byte
}

// Append builds the next row.
func (m *Maker) Append(w *plainbuffer.Builder) {
	m.w = w
	w.Begin()
	m.buf = fmt.Appendf(m.buf[:0], "user%08d", m.row/10*37)
	w.KeyBytes(&m.pk1, plainbuffer.String, m.buf)
	w.KeyInteger(&m.pk2, int64(m.row%10*1000)+m.rng.Int64N(1000))
	w.Attributes()
	m.shape.cells(m, m.timestamp())
	w.End(false)
	m.row++
}

func (m *Maker) timestamp() int64 { return 1_760_000_000_000 + int64(m.row)*37 + m.rng.Int64N(5000) }

func (m *Maker) name(s string) *plainbuffer.Name {
	n := m.names[s]
	if n == nil {
		p := plainbuffer.NewName([]byte(s))
		n = &p
		m.names[s] = n
	}
	return n
}

var vocabulary = bytes.Fields([]byte(`the order was shipped from warehouse to customer after payment by card and
	confirmed on arrival with signature status pending retry error none region north south east west item quantity
	price discount total currency invoice reference note returned damaged replaced closed open`))

func (m *Maker) word() []byte { return vocabulary[m.rng.IntN(len(vocabulary))] }

// text is n bytes of words; the next text takes its place.
func (m *Maker) text(n int) []byte {
	b := m.buf[:0]
	for len(b) < n {
		b = append(append(b, m.word()...), ' ')
	}
	m.buf = b
	return b[:n]
}

// digits is n hexadecimal digits.
func (m *Maker) digits(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[m.rng.IntN(16)]
	}
	return b
}

// noise is n bytes that nothing can compress.
func (m *Maker) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return b
}

func small(m *Maker, t int64) {
	w, rng := m.w, m.rng
	w.Double(m.name("amount"), float64(rng.IntN(1000000))/100, t)
	w.Bytes(m.name("city"), plainbuffer.String, m.word(), t)
	w.Integer(m.name("created_at"), t*1000+rng.Int64N(1000), t)
	w.Bytes(m.name("email"), plainbuffer.String, append(m.text(12), "@example.com"...), t)
	w.Boolean(m.name("is_active"), rng.IntN(4) > 0, t)
	w.Integer(m.name("quantity"), rng.Int64N(100), t)
	w.Bytes(m.name("status"), plainbuffer.String, vocabulary[rng.IntN(6)], t)
	w.Bytes(m.name("trace_id"), plainbuffer.String, m.digits(16), t)
}

func medium(m *Maker, t int64) {
	w, rng := m.w, m.rng
	for c := range 20 {
		n := m.name(fmt.Sprintf("attribute_%02d", c))
		switch c % 5 {
		case 0:
			w.Integer(n, rng.Int64N(1<<40), t)
		case 1:
			w.Double(n, rng.Float64(), t)
		case 2:
			w.Bytes(n, plainbuffer.String, m.text(200+rng.IntN(100)), t)
		case 3:
			w.Bytes(n, plainbuffer.String, fmt.Appendf(nil, `{"id":%d,"kind":"%s","tags":["%s","%s"],"hash":"%s"}`, rng.IntN(1e6),
				vocabulary[rng.IntN(20)], vocabulary[rng.IntN(20)], vocabulary[rng.IntN(20)], m.digits(20)), t)
		default:
			w.Bytes(n, plainbuffer.Blob, m.noise(16), t)
		}
	}
}

func wide(m *Maker, t int64) {
	body := append(bytes.Clone(m.text(48<<10)), m.noise(16<<10)...)
	m.w.Bytes(m.name("body"), plainbuffer.Blob, body, t)
	m.w.Bytes(m.name("name"), plainbuffer.String, m.text(20), m.timestamp())
}

func versions(m *Maker, _ int64) {
	w, rng := m.w, m.rng
	for c, name := range []string{"balance", "flag", "note", "score"} {
		n, t := m.name(name), m.timestamp()
		for range 5 {
			switch c {
			case 0:
				w.Integer(n, rng.Int64N(1e6), t)
			case 1:
				w.Boolean(n, rng.IntN(2) == 0, t)
			case 2:
				w.Bytes(n, plainbuffer.String, m.text(10), t)
			default:
				w.Double(n, float64(rng.IntN(1000)), t)
			}
			t -= 60000 + rng.Int64N(10000)
		}
	}
}

// any is a short value of a type that goes with c.
func (m *Maker) any(n *plainbuffer.Name, c int, t int64) {
	switch c % 3 {
	case 0:
		m.w.Integer(n, m.rng.Int64N(1e6), t)
	case 1:
		m.w.Bytes(n, plainbuffer.String, m.text(12), t)
	default:
		m.w.Double(n, float64(m.rng.IntN(1000))/10, t)
	}
}

func differing(m *Maker, t int64) {
	for c := range 40 {
		if m.rng.IntN(2) > 0 {
			m.any(m.name(fmt.Sprintf("field_%02d", c)), c, t)
		}
	}
}

func sparse(m *Maker, t int64) {
	for c := range 200 {
		if m.rng.IntN(12) == 0 {
			m.any(m.name(fmt.Sprintf("field_%03d", c)), c, t)
		}
	}
}

func kinds(m *Maker, t int64) {
	kind := m.rng.IntN(40)
	m.w.Integer(m.name("a_common"), m.rng.Int64N(1e6), t)
	for c := range 10 {
		m.any(m.name(fmt.Sprintf("kind%d_%02d", kind, c)), c+kind, t)
	}
}

func strangers(m *Maker, t int64) {
	at := m.rng.IntN(100)
	for range 20 {
		m.w.Bytes(m.name(fmt.Sprintf("event_%06d", at)), plainbuffer.String, m.text(12), t)
		at += 1 + m.rng.IntN(2000)
	}
}

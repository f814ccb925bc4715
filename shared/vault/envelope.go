package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Format is the version of the documents that this package writes and reads.
const Format = 2

// A Document is one of the vault's JSON objects.
type Document interface {
	kind() docKind
	// validate says what is wrong with a document that stands under a name.
	validate(name string) error
}

// clipper is a document with texts that come from elsewhere, however long.
type clipper interface {
	// clip cuts them to what the document may hold.
	clip()
}

// docKind is what all documents of one type have in common.
type docKind struct {
	name  string
	limit int64 // how long one can be, in bytes as JSON
	// values is how many values one has at most, where it has few fields and some lists,
	// of which is known how long they can be: what stands in a list may take many times
	// the memory of its text. It is 0 for all others.
	values int
}

// listing is the kind of documents with such lists.
func listing(name string, limit int64) docKind {
	return docKind{name: name, limit: limit, values: maxListedValues}
}

// maxListedValues is more values than such lists can have: a thousand differences, in a
// key of four columns and 64 others each.
const maxListedValues = 1 << 17

// KindOf is what documents like d are called.
func KindOf(d Document) string { return d.kind().name }

// Limit is how long an object with a document of this kind can be. Nothing longer is
// read.
func Limit(d Document) int64 { return d.kind().limit }

// The limits, by what a document can hold: a few fields and a text of at most maxText
// bytes, each of which may need six in JSON; with notes; the keys of one split, of which
// many are read at a time; lists of as many keys, rows or objects as there may be; what
// grows with the table. A plan of a hundred thousand ranges is 30 MB.
const (
	shortDocument = 256 << 10
	notedDocument = 16 << 20
	splitDocument = 16 << 20
	listDocument  = 64 << 20
	// MaxDocument is the greatest limit.
	MaxDocument = 256 << 20
)

const (
	maxText = 16 << 10
	maxName = 1023
)

// clip cuts a text to what a document may hold.
func clip(text string) string { return clipTo(text, maxText) }

func clipTo(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const cut = "…"
	return strings.ToValidUTF8(text[:most-len(cut)], "") + cut
}

// What a document is made of besides its name and its body.
const (
	documentIntro = `{"document":"`
	formatIntro   = `","format":`
	nameIntro     = `,"name":`
	bodyIntro     = `,"body":`
	sumIntro      = `,"sha256":"`
	sumOutro      = "\"}\n"
	sumTail       = len(sumIntro) + 2*sha256.Size + len(sumOutro)
)

// head is what stands before the body of a document in the object of a name.
func head(d Document, name string) ([]byte, error) {
	quoted, err := compact(name)
	return fmt.Appendf(nil, "%s%s%s%d%s%s%s", documentIntro, d.kind().name, formatIntro, Format, nameIntro, quoted, bodyIntro), err
}

// compact is the JSON of a value as documents have it.
func compact(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// Encode writes the document that is to stand under a name. Equal documents have equal
// bytes under one name, and what is written was read back.
func Encode(name string, d Document) ([]byte, error) {
	bad := func(err error) ([]byte, error) { return nil, fmt.Errorf("%s: %w", d.kind().name, err) }
	// A byte that is no UTF-8 stands in a body by an escape that the character itself,
	// which is read, has not: what was read once is what stays the same. Texts are cut
	// in the copy, too.
	body, err := compact(d)
	if err != nil {
		return bad(err)
	}
	read := reflect.New(reflect.TypeOf(d).Elem()).Interface().(Document)
	if err := decodeStrict(body, read); err != nil {
		return bad(fmt.Errorf("it can't be read back: %w", err))
	}
	if c, ok := read.(clipper); ok {
		c.clip()
	}
	if err := read.validate(name); err != nil {
		return bad(err)
	}
	if body, err = compact(read); err != nil {
		return bad(err)
	}
	out, err := head(d, name)
	if err != nil {
		return bad(err)
	}
	out = append(out, body...)
	sum := sha256.Sum256(out)
	out = append(out, sumIntro...)
	out = hex.AppendEncode(out, sum[:])
	out = append(out, sumOutro...)
	if int64(len(out)) > d.kind().limit {
		return bad(fmt.Errorf("%d bytes, where there can be %d", len(out), d.kind().limit))
	}
	if err := dense(d, body); err != nil {
		return bad(err)
	}
	return out, nil
}

// dense is an error about a body that has more values than a document like d can have. It
// is looked at before anything is decoded.
func dense(d Document, body []byte) error {
	most := d.kind().values
	if most == 0 {
		return nil
	}
	n, quoted := 1, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case !quoted && (c == '{' || c == '[' || c == ','):
			n++
		}
	}
	if n > most {
		return fmt.Errorf("it has %d values, where there can be %d", n, most)
	}
	return nil
}

// Decode reads the document that stands under a name, strictly: what Encode would write
// otherwise is corrupt, and so is what was written under another name. An unknown version
// is told as such. Nothing is left of what d was before.
func Decode(name string, data []byte, d Document) error {
	reflect.ValueOf(d).Elem().SetZero()
	bad := func(err error) error { return fmt.Errorf("%w: %s: %w", ErrCorrupt, d.kind().name, err) }
	if int64(len(data)) > d.kind().limit {
		return bad(fmt.Errorf("%d bytes, where there can be %d", len(data), d.kind().limit))
	}
	signed, err := checked(data)
	if err != nil {
		if unreleased.Match(data) && bytes.HasSuffix(data, []byte("}}\n")) {
			return fmt.Errorf("%w: a %s of %w", ErrVersion, d.kind().name, unreadable(1))
		}
		return bad(err)
	}
	if format := formatOf(signed); format != Format {
		return fmt.Errorf("%w: a %s of %w", ErrVersion, d.kind().name, unreadable(format))
	}
	want, err := head(d, name)
	if err != nil {
		return bad(err)
	}
	body, found := bytes.CutPrefix(signed, want)
	if !found {
		return bad(fmt.Errorf("it begins with %.400q where %q should stand: it was written under another name, or as another document", signed[:min(len(signed), len(want))], want))
	}
	if err := dense(d, body); err != nil {
		return bad(err)
	}
	if err := decodeStrict(body, d); err != nil {
		return bad(err)
	}
	if again, err := compact(d); err != nil || !bytes.Equal(again, body) {
		return bad(errors.New("it is not written as tablevault writes it"))
	}
	if err := d.validate(name); err != nil {
		return bad(err)
	}
	return nil
}

// checked is what stands before a document's checksum, if that is right.
func checked(data []byte) ([]byte, error) {
	at := len(data) - sumTail
	if at < 0 {
		return nil, fmt.Errorf("it has %d bytes: it was cut", len(data))
	}
	signed, tail := data[:at], data[at:]
	sum := sha256.Sum256(signed)
	want := append(hex.AppendEncode([]byte(sumIntro), sum[:]), sumOutro...)
	if !bytes.Equal(tail, want) {
		return nil, errors.New("its checksum is not that of its bytes: it was changed, or cut")
	}
	return signed, nil
}

// unreleased is how documents began in format 1.
var unreleased = regexp.MustCompile(`^\{"document":"[a-z-]+","format":1,"body":`)

// formatOf is the format that the beginning of a document tells, 0 if none.
func formatOf(data []byte) int {
	rest, ok := bytes.CutPrefix(data, []byte(documentIntro))
	_, rest, cut := bytes.Cut(rest, []byte(formatIntro))
	digits, _, end := bytes.Cut(rest[:min(len(rest), 20)], []byte(","))
	format, err := strconv.Atoi(string(digits))
	if !ok || !cut || !end || err != nil {
		return 0
	}
	return format
}

// unreadable says why a format is not read, and what to do.
func unreadable(format int) error {
	switch {
	case format == 1:
		return errors.New("format 1, which was never released, and which no tablevault reads any more: begin a new vault with another prefix or folder, and delete this one")
	case format > Format:
		return fmt.Errorf("format %d, and this command reads format %d: use a newer tablevault", format, Format)
	}
	return fmt.Errorf("format %d, which there never was: the object is damaged", format)
}

// decodeStrict decodes JSON without unknown fields and without anything behind it.
func decodeStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes after the document")
	}
	return nil
}

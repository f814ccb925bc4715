// Package object is the port to what keeps immutable objects under names: a directory, a
// bucket, memory.
//
// A [Store] creates an object once and whole, never changes it, reads it in ranges and
// lists names in order. That one guarantee, "the name is taken" decided by the store
// itself, is all the coordination that its users need: [Decide] turns it into an
// agreement between any number of writers that may die at any byte.
//
//	standing, mine, err := object.Decide(ctx, store, "slots/0007/3", record, 1<<20)
//	// standing is what everyone will read under that name, whoever wrote it
//
// Package objecttest holds this contract as a test suite; every store passes it.
package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Store keeps immutable objects under names.
//
// All methods may be called from many goroutines and many processes at the same time.
// Each refuses, before it does anything else, a name for which [ValidName] has an error,
// with that error; and a ctx that is already done, with an error matching ctx.Err().
// Errors name the object and what was being done to it.
//
// A name is used either for an object or as a folder of others ("a" or "a/b"), never as
// both. Buckets can keep both, a directory can't: a store may refuse the second with an
// error that matches neither fs.ErrExist nor fs.ErrNotExist.
type Store interface {
	// Create stores all of r under name, or nothing: no reader and no listing ever sees a
	// part of it, nor does a crash at any moment leave one.
	//
	// It returns an error matching fs.ErrExist if there is an object of that name, which
	// it leaves as it was; it may find so before it reads anything of r, or after it read
	// everything. Of several calls that race for one name, in whatever processes, exactly
	// one succeeds. Since a store may repeat a request whose answer was lost, the object
	// found there can be this call's own: [Decide] tells.
	//
	// An error of r other than io.EOF ends the call with an error that wraps it, and
	// nothing is stored. Likewise nothing is stored when ctx is done before r came to its
	// end. Any other error leaves open whether the object exists; if it does, or comes to
	// exist while a last request is still on its way, then it is whole.
	//
	// r is read by one goroutine at a time, not rewound, not closed and not touched any
	// more once Create has returned. A Read that blocks is not interrupted by ctx. Memory
	// does not grow with the length of r.
	//
	// A nil error means that the object is durable, that it is found by Open and List
	// from now on by everyone, and that Info has the length and checksum of what was read
	// from r, as the store confirmed them.
	Create(ctx context.Context, name string, r io.Reader) (Info, error)

	// Open reads n bytes of an object from byte off on; fewer if the object ends before,
	// all to the end if n < 0. The Info is about the whole object, whatever was asked
	// for; its Checksum may be empty unless n is 0.
	//
	// With n == 0 nothing is read, and the store is asked what it holds now: the Info has
	// its Checksum, equal to the one Create gave as long as the stored bytes are still
	// the same. A bucket answers from its records (HEAD); a store without records reads
	// the bytes again.
	//
	// The error matches fs.ErrNotExist if there is no such object, and [ErrRange] if off
	// is negative or beyond the end; off equal to the size is good and reads nothing.
	// When err is nil the reader is not nil, and the caller closes it, read to its end or
	// not.
	//
	// ctx covers the call and the reading: once it is done, Read returns its error. A
	// stream that breaks off returns an error (io.ErrUnexpectedEOF if there is no better
	// one), never io.EOF: a reader that came to io.EOF has delivered every byte asked
	// for. The bytes are not compared with the checksum; who needs that, hashes them.
	Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, Info, error)

	// List yields the objects whose names begin with prefix and are greater than after,
	// in ascending order of the names' bytes. The Checksum of an Info may be empty.
	// Neither prefix nor after need be names of objects, nor end at a slash:
	// [ValidPrefix] says what they may be, and both may be empty.
	//
	// ctx covers the whole listing: once it is done, the next step yields its error.
	//
	// An object that exists during the whole listing is yielded exactly once; one that is
	// created or deleted meanwhile is yielded or not. After an error, which comes with a
	// zero Info, nothing more is yielded: what came before it is right, but is not all.
	// The sequence can be ended early and used again; each use lists anew. It holds no
	// lock while the loop body runs, and memory does not grow with the number of objects,
	// except that a directory may hold the names of one folder and its parents.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	// Delete removes an object. That there is none of that name is no error, since a
	// repeated request could not tell the difference. A nil error means that the object
	// is gone for good and from now on for everyone; any other leaves that open. Readers
	// already open go on, or fail; they never deliver other bytes.
	Delete(ctx context.Context, name string) error
}

// Info is what a store says about an object.
type Info struct {
	Name string
	Size int64 // bytes

	// Checksum of the whole content as the store keeps or computes it: the algorithm, a
	// colon, and the value in lower case hexadecimal, such as "crc32c:e3069283" or
	// "crc64ecma:995dc9bbdf1939fa". One store always uses one algorithm, so two checksums
	// of one store are compared as strings. Empty where a method does not promise it.
	Checksum string

	// Modified is when the object was created, by the store's clock and with the store's
	// precision, which may be a whole second. It is compared with other dates of the same
	// store only, never with this machine's clock.
	Modified time.Time
}

// ErrRange is matched by the error of an Open whose offset is negative or beyond the end
// of the object.
var ErrRange = errors.New("offset outside the object")

// ErrTooLong is matched by the error of [ReadAll] for an object longer than its limit.
var ErrTooLong = errors.New("object is longer than allowed")

// MaxName is the length of the longest name in bytes. Buckets take 1023 bytes and more;
// what is left of them is for the prefix under which a store keeps its objects there.
const MaxName = 768

// ValidName returns nil if name can name an object in every store, and otherwise an error
// that says why not and matches fs.ErrInvalid.
//
// A name is UTF-8 of 1 to [MaxName] bytes: elements with single slashes between them,
// none of which is empty, "." or "..". There are no control characters, and no U+FFFE or
// U+FFFF, which a bucket's XML listing can't carry. It does not begin with a backslash,
// which OSS refuses.
func ValidName(name string) error {
	if why := invalid(name, false); why != "" {
		return fmt.Errorf("object name %.120q: %s: %w", name, why, fs.ErrInvalid)
	}
	return nil
}

// ValidPrefix returns nil if prefix is how a name may begin, cut between any two
// characters, and otherwise an error that says why not and matches fs.ErrInvalid. The
// empty prefix is valid.
func ValidPrefix(prefix string) error {
	if why := invalid(prefix, true); why != "" {
		return fmt.Errorf("prefix of object names %.120q: %s: %w", prefix, why, fs.ErrInvalid)
	}
	return nil
}

// invalid says what is wrong with a name, or with the beginning of one.
func invalid(name string, beginning bool) string {
	switch {
	case name == "":
		if beginning {
			return ""
		}
		return "is empty"
	case len(name) > MaxName:
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(name), MaxName)
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case name[0] == '\\':
		return "begins with a backslash"
	}
	for i, r := range name {
		if unicode.IsControl(r) || r == '\uFFFE' || r == '\uFFFF' {
			return fmt.Sprintf("has the character %U at byte %d", r, i)
		}
	}
	for rest, more := name, true; more; {
		var element string
		element, rest, more = strings.Cut(rest, "/")
		if beginning && !more {
			break // the last element may go on
		}
		switch element {
		case "":
			return "begins or ends with a slash, or has two in a row"
		case ".", "..":
			return fmt.Sprintf("has the element %q", element)
		}
	}
	return ""
}

// Check is what each method of a store that is about one object does first: it refuses a
// name that is not valid, and a ctx that is done. in follows the name in the error about
// ctx, such as " in the bucket".
func Check(ctx context.Context, doing, name, in string) error {
	if err := ValidName(name); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s%s: %w", doing, name, in, err)
	}
	return nil
}

// Stat asks the store what it holds under name, checksum included. The error matches
// fs.ErrNotExist if that is nothing.
func Stat(ctx context.Context, s Store, name string) (Info, error) {
	r, info, err := s.Open(ctx, name, 0, 0)
	if err != nil {
		return Info{}, err
	}
	if err := r.Close(); err != nil {
		return Info{}, fmt.Errorf("close %s: %w", name, err)
	}
	return info, nil
}

// ReadAll returns the whole content of an object of at most limit bytes. The error
// matches fs.ErrNotExist if there is no such object, and [ErrTooLong] if it is longer, of
// which no more than its length was asked for.
func ReadAll(ctx context.Context, s Store, name string, limit int64) ([]byte, error) {
	r, info, err := s.Open(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info.Size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, at most %d expected: %w", name, info.Size, limit, ErrTooLong)
	}
	content := make([]byte, info.Size)
	if _, err := io.ReadFull(r, content); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	// The end is read too: only io.EOF says that the store has no complaint.
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n > 0:
		return nil, fmt.Errorf("read %s: the store sent more than the %d bytes it announced", name, info.Size)
	case err != io.EOF:
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, nil
}

// Decide creates name with content, or learns what was decided there before, and returns
// what stands under that name from now on. Any number of callers may decide one name, at
// the same time or years apart, and all are told the same.
//
// mine says that the standing content equals this caller's: it was stored now, or by an
// earlier try of which the answer was lost. If not, it is another's: obey it and go on
// from there. So content must say whose it is, if that matters. The standing content may
// have at most limit bytes, and so may the caller's.
//
// After an error nothing is known: deciding again, with the same or with other content,
// is safe and tells. The error matches neither fs.ErrExist nor fs.ErrNotExist.
func Decide(ctx context.Context, s Store, name string, content []byte, limit int64) (standing []byte, mine bool, err error) {
	if size := int64(len(content)); size > limit {
		return nil, false, fmt.Errorf("decide %s: %d bytes, at most %d expected: %w", name, size, limit, ErrTooLong)
	}
	_, err = s.Create(ctx, name, bytes.NewReader(content))
	switch {
	case err == nil:
		return content, true, nil
	case errors.Is(err, fs.ErrInvalid):
		return nil, false, fmt.Errorf("decide: %w", err)
	}
	// Taken, or an answer that leaves it open: either way the name itself tells.
	taken := errors.Is(err, fs.ErrExist)
	standing, rerr := ReadAll(ctx, s, name, limit)
	gone := errors.Is(rerr, fs.ErrNotExist)
	switch {
	case rerr == nil:
		return standing, bytes.Equal(standing, content), nil
	case taken && gone:
		return nil, false, fmt.Errorf("decide %s: it was taken when created, and missing when read", name)
	case taken:
		return nil, false, fmt.Errorf("decide %s: it is taken, and %w", name, rerr)
	case gone:
		return nil, false, fmt.Errorf("decide %s: %w", name, err)
	default:
		return nil, false, fmt.Errorf("decide %s: %w; and reading what stands there: %w", name, err, rerr)
	}
}

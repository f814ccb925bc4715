package vault

import (
	"fmt"
	"strconv"
	"strings"
)

// Told is how far the start of a segment had come when it last told, before there is a
// record that says so.
type Told struct {
	// Start is the number of the start, and Number counts what it has told.
	Start, Number int
	// Rows and Bytes are those of the segment: of its records, and of what the start has
	// worked on since.
	Rows, Bytes int64
}

// Progress begins the names of what starts of a segment tell of how far they have come;
// without a segment, of all.
func (l Log) Progress(s SegmentID) string { return within(l.folder(progressKind), s) }

// Name is the name of an empty object under prefix that tells it: a list of them is all
// that it takes to know.
func (t Told) Name(prefix string) string {
	return fmt.Sprintf("%s%06d-%04d-%d-%d", prefix, t.Start, t.Number, t.Rows, t.Bytes)
}

// ParseTold reads the last part of a name that Name has made.
func ParseTold(base string) (t Told, ok bool) {
	parts := strings.Split(base, "-")
	if len(parts) != 4 || len(parts[0]) != 6 || len(parts[1]) != 4 {
		return Told{}, false
	}
	var n [4]int64
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 53)
		if err != nil {
			return Told{}, false
		}
		n[i] = int64(v)
	}
	return Told{int(n[0]), int(n[1]), n[2], n[3]}, true
}

// verificationPrefix begins the names of what verifications leave that were asked for by
// an id: VerificationProgress those of what they tell, verificationProofs those of their
// proofs.
const (
	verificationPrefix   = "verifications/"
	VerificationProgress = verificationPrefix + progressKind
	verificationProofs   = verificationPrefix + "proofs/"
)

// VerificationID names a verification that a person watches. Like those of backups and
// restores, ids sort by time.
type VerificationID string

// ParseVerificationID checks an id that was given from outside.
func ParseVerificationID(s string) (VerificationID, error) {
	if !idForm.MatchString(s) {
		return "", fmt.Errorf("verification id %q: want the form 20261120T101400Z-0a1b2c3d", s)
	}
	return VerificationID(s), nil
}

// Verification names the objects of one verification.
type Verification struct {
	ID VerificationID
}

// Progress begins the names of what it tells of how far it has come.
func (v Verification) Progress() string {
	return VerificationProgress + string(v.ID) + "/"
}

// Proof is the name of its proof.
func (v Verification) Proof() string { return verificationProofs + string(v.ID) + ".json" }

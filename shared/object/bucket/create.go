package bucket

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// WriterKey is where an object's metadata says which call of Create wrote it.
const WriterKey = "tablevault-writer"

// NewWriter is a name for one call of Create, which no other has.
func NewWriter() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// Settle finds out who has a name after a request that was to take it: the error of the
// request is returned unless its answers leave open whether it did (doubt), and the
// store, being asked, says that the object is of this writer, or of another.
func Settle(ctx context.Context, doubt bool, err error, writer string, ask func() (writer string, err error)) error {
	if err == nil || !doubt || ctx.Err() != nil {
		return err
	}
	is, asked := ask()
	switch {
	case asked != nil:
		return err // it may come to exist yet, and so nothing is known
	case is == writer:
		return nil
	case errors.Is(err, fs.ErrExist):
		return err
	}
	return fmt.Errorf("%w: %w", fs.ErrExist, err)
}

// AbortTimeout is the time for finding an upload whose id was lost.
const AbortTimeout = 10 * time.Second

// Upload is an upload in parts that was begun, and neither completed nor aborted: it is
// under way, or its process died. What it has stored is not seen, and costs money.
type Upload struct {
	Name  string // of the object that it was to become
	ID    string
	Begun time.Time // by the store's clock
}

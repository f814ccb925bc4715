package objecttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/object"
)

// Work makes a store make each kind of request that it has, for objects whose names begin
// with run: a short one and one of long bytes, which goes in parts. It checks what comes
// of each, and returns an error that begins with "wrong" if that is not as it should be,
// or else the store's own. It is what faults strike.
func Work(ctx context.Context, s object.Store, run string, long int) error {
	for _, o := range worked(run, long) {
		content := Content(o.name, o.size)
		info, err := s.Create(ctx, o.name, bytes.NewReader(content))
		if err != nil {
			return err
		}
		if info.Size != int64(o.size) || info.Checksum == "" {
			return fmt.Errorf("wrong: %s was created as %+v", o.name, info)
		}
		if got, err := object.ReadAll(ctx, s, o.name, int64(long)); err != nil {
			return err
		} else if !bytes.Equal(got, content) {
			return fmt.Errorf("wrong: %s has other content", o.name)
		}
		r, _, err := s.Open(ctx, o.name, 500, 400)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return err
		} else if !bytes.Equal(got, content[500:900]) {
			return fmt.Errorf("wrong: %s has other content in the middle", o.name)
		}
		if _, err := s.Create(ctx, o.name, strings.NewReader("other")); err == nil {
			return fmt.Errorf("wrong: %s was created twice", o.name)
		} else if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create again: %w", err)
		}
	}
	listed := 0
	for _, err := range s.List(ctx, run+"/", "") {
		if err != nil {
			return err
		}
		listed++
	}
	if listed != 2 {
		return fmt.Errorf("wrong: %d objects are listed", listed)
	}
	if err := s.Delete(ctx, run+"/short"); err != nil {
		return err
	}
	if _, err := object.Stat(ctx, s, run+"/short"); err == nil {
		return errors.New("wrong: an object is there after it was deleted")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Whole fails if an object that Work creates is there with other content than it should
// have.
func Whole(t *testing.T, s object.Store, run string, long int) {
	t.Helper()
	for _, o := range worked(run, long) {
		got, err := object.ReadAll(t.Context(), s, o.name, int64(long))
		if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(got, Content(o.name, o.size)) {
			t.Errorf("%s is neither whole nor missing: %d bytes, %v", o.name, len(got), err)
		}
	}
}

type sized struct {
	name string
	size int
}

func worked(run string, long int) []sized {
	return []sized{{run + "/short", 1000}, {run + "/long", long}}
}

package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// ErrSame matches errors about a replica that is the vault itself. It matches
// table.ErrInvalid: trying again does not help.
var ErrSame = table.Invalidf("the further vault is the vault itself, by another name: a symbolic link, another name of the store, or the like")

// maxProbe bounds what is read of a probe.
const maxProbe = 1 << 10

// CheckApart returns an error matching ErrSame if a vault and its replica are in one
// place, whatever that is called: an object that is made in home is seen in far. key is
// the replica's. far is only read.
//
// The first object stays, and serves all later calls: a replica that does not have it is
// elsewhere. One that has it may be elsewhere too, filled by copying home's folder; so it
// is asked for a second object, which was made just now.
func CheckApart(ctx context.Context, home, far object.Store, key string) error {
	for _, name := range []string{vault.ProbeName(key, "first"), vault.ProbeName(key, RandomName())} {
		seen, err := probe(ctx, home, far, name)
		if err != nil {
			return fmt.Errorf("find out whether the further vault is another place than the vault: %w", err)
		}
		if !seen {
			return nil
		}
	}
	return ErrSame
}

// probe makes sure that an object stands in home, and looks for it in far.
func probe(ctx context.Context, home, far object.Store, name string) (seen bool, err error) {
	here, _, err := object.Decide(ctx, home, name, []byte(RandomName()), maxProbe)
	if err != nil {
		return false, err
	}
	there, err := object.ReadAll(ctx, far, name, maxProbe)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrTooLong) {
		return false, nil
	}
	return err == nil && bytes.Equal(here, there), err
}

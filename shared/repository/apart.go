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

// Apart is an error matching ErrSame if two stores are one place, whatever they are
// called: an object that is made in one is seen in the other. far, which key
// tells from other replicas, is only read.
//
// One object in home serves all further calls, since whoever does not see it is
// elsewhere. Who sees it may have been filled with all of home by other means, as by
// copying the folder; so he is asked for another that was made just now.
func Apart(ctx context.Context, home, far object.Store, key string) error {
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

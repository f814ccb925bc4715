package function

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
)

// Policy reads the policy that is deployed beside the functions. Without one, nothing is
// due by itself. A policy that can't be read is an error, and the default is returned
// beside it: what is under way goes on.
func (inv *Invocation) Policy() (*policy.Policy, error) {
	data, err := os.ReadFile(inv.Env.Policy)
	if errors.Is(err, fs.ErrNotExist) && !inv.Env.PolicyNamed {
		return policy.Default(), nil
	}
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err // what TABLEVAULT_POLICY says stays where it is
		}
		return policy.Default(), Permanent(fmt.Errorf("read the policy (TABLEVAULT_POLICY): %w", err))
	}
	p, err := policy.Decode(filepath.Base(inv.Env.Policy), data)
	if err != nil {
		return policy.Default(), fmt.Errorf("the policy: %w", err)
	}
	// On one machine the vault is the stack's own, and a policy can be tried.
	if p.Vault != "" && inv.TableRegion() != "local" && !place.Same(p.Vault, inv.Env.Vault) {
		return policy.Default(), Permanent(fmt.Errorf("the policy is for the vault %s, these functions write to %s (TABLEVAULT_VAULT): deploy them with one of the two", place.Plain(p.Vault), place.Plain(inv.Env.Vault)))
	}
	return p, nil
}

// Wanted is the policy, or the default where it can't be read.
func (inv *Invocation) Wanted() *policy.Policy {
	wanted, err := inv.Policy()
	if err != nil {
		inv.Log.Warn("without the policy", KeyError, err)
	}
	return wanted
}

// Replica finds a replica in the policy by its name or its key. Nothing else says where
// one is: whoever may send a command, or write a plan into the vault, must not be able to
// have rows and tokens sent to him.
func (inv *Invocation) Replica(name string) (policy.Replica, error) {
	p, err := inv.Policy()
	if err != nil {
		return policy.Replica{}, fmt.Errorf("find the further vault %q: %w", name, err)
	}
	d, err := p.Replica(name)
	if err != nil {
		return policy.Replica{}, Permanent(err)
	}
	return d, nil
}

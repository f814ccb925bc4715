package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/status"
)

// Completion reads the vault, as the commands do, and offers nothing where it can't.

// completeIDs offers the ids of kinds, newest first, for the first argument.
func completeIDs(dir *string, kinds ...status.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offered(cmd, dir, typed, kinds...), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

func offered(cmd *cobra.Command, dir *string, typed string, kinds ...status.Kind) []cobra.Completion {
	var refs []status.Ref
	_, repo, err := openVault(cmd.Context(), *dir)
	if err != nil {
		return nil
	}
	for _, kind := range kinds {
		for ref, err := range status.All(cmd.Context(), repo, kind) {
			if err != nil {
				return nil
			}
			if strings.HasPrefix(ref.ID, typed) {
				refs = append(refs, ref)
			}
		}
	}
	slices.SortFunc(refs, func(a, b status.Ref) int { return strings.Compare(b.ID, a.ID) })
	var words []cobra.Completion
	for _, ref := range refs {
		words = append(words, cobra.CompletionWithDesc(ref.ID, ref.String()))
	}
	return words
}

// completeFlag offers ids of a kind for a flag.
func completeFlag(c *cobra.Command, dir *string, flag string, kind status.Kind) {
	complete := func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return offered(cmd, dir, typed, kind), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
	if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic("tablevault: " + err.Error()) // there is no such flag
	}
}

// completeTables offers for flags the tables that were backed up.
func completeTables(c *cobra.Command, dir *string, flags ...string) {
	complete := func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var names []string
		_, repo, err := openVault(cmd.Context(), *dir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for b, err := range repo.Begun(cmd.Context(), nil) {
			if err != nil {
				break
			}
			if name := b.Table.String(); strings.HasPrefix(name, typed) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
	}
	for _, flag := range flags {
		if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic("tablevault: " + err.Error()) // there is no such flag
		}
	}
}

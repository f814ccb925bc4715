package main

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/status"
)

// Completion reads the vault, and asks for tables, as the commands do, and offers nothing
// where it can't.

// refs yields things of a kind that are in a vault.
type refs func(ctx context.Context, r *repository.Repository, kind status.Kind) iter.Seq2[status.Ref, error]

// completeIDs offers the ids of kinds, newest first, for the first argument.
func completeIDs(dir *string, of refs, kinds ...status.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, shellOrder
		}
		return offered(cmd, dir, typed, of, kinds...), ownOrder
	}
}

func offered(cmd *cobra.Command, dir *string, typed string, of refs, kinds ...status.Kind) []cobra.Completion {
	var all []status.Ref
	_, repo, err := openVault(cmd.Context(), *dir)
	if err != nil {
		return nil
	}
	for _, kind := range kinds {
		for ref, err := range of(cmd.Context(), repo, kind) {
			if err != nil {
				return nil
			}
			if strings.HasPrefix(ref.ID, typed) {
				all = append(all, ref)
			}
		}
	}
	slices.SortFunc(all, func(a, b status.Ref) int { return strings.Compare(b.ID, a.ID) })
	var words []cobra.Completion
	for _, ref := range all {
		words = append(words, cobra.CompletionWithDesc(ref.ID, ref.String()))
	}
	return words
}

// The order of words that are offered: their own, or the shell's.
const (
	ownOrder   = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	shellOrder = cobra.ShellCompDirectiveNoFileComp
)

// completeFlag has a flag completed by what offers words for what was typed.
func completeFlag(c *cobra.Command, flag string, order cobra.ShellCompDirective, offer func(cmd *cobra.Command, typed string) []cobra.Completion) {
	complete := func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return offer(cmd, typed), order
	}
	if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic("tablevault: " + err.Error()) // there is no such flag
	}
}

// completeID offers ids of a kind for a flag.
func completeID(c *cobra.Command, dir *string, flag string, kind status.Kind) {
	completeFlag(c, flag, ownOrder, func(cmd *cobra.Command, typed string) []cobra.Completion {
		return offered(cmd, dir, typed, status.All, kind)
	})
}

// completeWords offers words for a flag that takes one of them.
func completeWords(c *cobra.Command, flag string, words ...string) {
	completeFlag(c, flag, ownOrder, func(*cobra.Command, string) []cobra.Completion { return words })
}

// completeTables offers for a flag those of a site's tables that begin as was typed, in
// order, each once: those that were backed up, or those that are live.
func completeTables(c *cobra.Command, dir *string, flag string, tables func(s *site, ctx context.Context, typed string) []string) {
	completeFlag(c, flag, shellOrder, func(cmd *cobra.Command, typed string) []cobra.Completion {
		site, err := openSite(*dir)
		if err != nil {
			return nil
		}
		names := tables(site, cmd.Context(), typed)
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, typed) })
		slices.Sort(names)
		return slices.Compact(names)
	})
}

// backedUp are the tables of the vault's backups.
func (s *site) backedUp(ctx context.Context, _ string) (names []string) {
	repo, err := s.repository(ctx)
	if err != nil {
		return nil
	}
	for b, err := range repo.Begun(ctx, nil) {
		if err != nil {
			break
		}
		names = append(names, b.Table.String())
	}
	return names
}

// offerFor is how long instances are asked for their tables while somebody waits for
// words.
const offerFor = 3 * time.Second

// live are the tables of the instances that are known, the stack's, the policy's and the
// vault's, or of the one that was typed.
func (s *site) live(ctx context.Context, typed string) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, offerFor)
	defer cancel()
	instances := []string{}
	if instance, _, whole := strings.Cut(typed, "/"); whole {
		instances = append(instances, instance)
	} else {
		known := status.Known{Region: s.env.Region}
		if s.dir != "" {
			instances = append(instances, stack.Instance)
		}
		if _, p, err := s.readPolicy(""); err == nil {
			known.Policy = p
		}
		if store, err := s.store(ctx); err == nil {
			known.Backups, _ = status.Ended(ctx, store) // those that could be listed
		}
		instances = append(instances, known.Instances()...)
	}
	for _, instance := range instances {
		if !strings.HasPrefix(instance+"/", typed) && !strings.HasPrefix(typed, instance+"/") {
			continue
		}
		client, err := s.instance(instance)
		if err != nil {
			continue
		}
		tables, err := client.Tables(ctx)
		client.CloseIdle()
		if err != nil {
			continue
		}
		for _, table := range tables {
			names = append(names, instance+"/"+table)
		}
	}
	return names
}

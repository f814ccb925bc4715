package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/status"
)

// find finds what an id means that a person has typed, whole or in part. What is no id,
// or means several, is a matter of usage.
func find(ctx context.Context, repo *repository.Repository, text string, kinds ...status.Kind) (status.Ref, error) {
	ref, err := status.Find(ctx, repo, text, kinds...)
	if errors.Is(err, status.ErrForm) || errors.Is(err, status.ErrAmbiguous) {
		return ref, &exit{exitUsage, err}
	}
	return ref, err
}

// whole is the id that a person has typed, written out. One that is whole is believed:
// whoever is given it finds out whether it exists.
func (s *site) whole(ctx context.Context, text string, kinds ...status.Kind) (string, error) {
	if text == "" || status.IsWhole(text) {
		return text, nil
	}
	repo, err := s.repository(ctx)
	if err != nil {
		return "", err
	}
	ref, err := find(ctx, repo, text, kinds...)
	return ref.ID, err
}

// openFor opens the site for a command that has been held against what functions take,
// and returns it with the ids that a person has typed written out.
func openFor(ctx context.Context, dir string, cmd function.Command) (*site, function.Command, error) {
	part := cmd
	part.Backup, part.Restore = placeholder(cmd.Backup), placeholder(cmd.Restore)
	if err := part.Validate(); err != nil {
		return nil, cmd, &exit{exitUsage, err}
	}
	s, err := openSite(dir)
	if err != nil {
		return nil, cmd, err
	}
	if cmd.Backup, err = s.whole(ctx, cmd.Backup, status.BackupKind); err != nil {
		return nil, cmd, err
	}
	cmd.Restore, err = s.whole(ctx, cmd.Restore, status.RestoreKind)
	return s, cmd, err
}

// placeholder stands for an id that is yet to be written out, while the rest of a command
// is looked at.
func placeholder(id string) string {
	if id == "" {
		return ""
	}
	return "20000101T000000Z-00000000"
}

// oneID wants one id as an argument, and at least so many: of what, and where a person
// finds it.
func oneID(least int, what, where string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage("the id is missing: `%s` wants that of %s; %s", cmd.CommandPath(), what, where)
		case len(args) > 1:
			return usage("%q is one argument too many: `%s` wants one id, that of %s", args[1], cmd.CommandPath(), what)
		}
		return nil
	}
}

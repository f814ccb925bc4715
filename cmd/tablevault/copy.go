package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// copyOptions are what `tablevault copy` was asked for.
type copyOptions struct {
	stack, to, from string
	bandwidth       int64
}

// copyResult is the JSON of `tablevault copy`.
type copyResult struct {
	Backup vault.BackupID `json:"backup"`
	Target string         `json:"target"` // where the objects came to stand
	// Objects were copied, Found were there before.
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Found   int64 `json:"found"`
	// Replaced are the objects that had to be taken from another vault.
	Replaced []vault.Finding `json:"replaced,omitempty"`
}

func copyCommand(s *streams) *cobra.Command {
	var o copyOptions
	c := &cobra.Command{
		Use:   "copy BACKUP (--to VAULT | --from VAULT)",
		Short: "Copy a backup to a further vault, or put back from there what is gone here",
		Long: "Copy a sealed backup to a further vault, with --to. The copy is a vault of its own; what is there already is compared\n" +
			"and not sent again, so that giving the command again goes on with one that was interrupted, and makes anew what is\n" +
			"gone from a complete copy.\n\n" +
			"The further vault is one of the destinations of the functions' policy, named by its name there, its key or its\n" +
			"address: functions send nothing to an address that their policy does not have.\n\n" +
			"With --from, what is gone from the backup here is made anew out of such a copy. Nothing is ever written over: an\n" +
			"object that is damaged here stays so, and `tablevault restore --also VAULT` reads it from the copy.",
		Args: oneID(1, "the backup to copy", "`tablevault list` shows which there are, and latest:INSTANCE/TABLE is the newest of a table"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := runCopy(cmd.Context(), s, args[0], o)
			if err != nil {
				return err
			}
			return s.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "%s  whole in %s: %s copied, %s; %s there\n", r.Backup, r.Target, counted(r.Objects, "object"), size(r.Bytes), were(r.Found))
				for _, f := range r.Replaced {
					fmt.Fprintf(w, "  %s: %s\n", f.Object, f.Reason)
				}
			})
		},
	}
	siteFlags(c, &o.stack)
	c.Flags().StringVar(&o.to, "to", "", "the destination of the policy to copy to, by its name, its key or its address")
	c.Flags().StringVar(&o.from, "from", "", "the destination of the policy that has a copy, to put back what is gone here")
	c.ValidArgsFunction = completeIDs(&o.stack, status.All, status.BackupKind)
	sizeFlag(c, &o.bandwidth, "bandwidth", "bytes per second at most, such as 10MB; 0 for any number")
	return c
}

func runCopy(ctx context.Context, s *streams, id string, o copyOptions) (*copyResult, error) {
	if (o.to == "") == (o.from == "") {
		return nil, usage("say where: either --to VAULT, or --from VAULT to put back what is gone here")
	}
	if o.bandwidth < 0 {
		return nil, usage("--bandwidth %d: want bytes per second, or 0 for any number", o.bandwidth)
	}
	flag, names := "to", replicaNames{}
	if o.from != "" {
		flag = "from"
	}
	name, err := names.name(flag, o.to+o.from)
	if err != nil {
		return nil, err
	}
	cmd := function.Command{Kind: function.KindCopy, Backup: id, Replica: name}
	site, cmd, err := openFor(ctx, o.stack, cmd)
	if err != nil {
		return nil, err
	}
	id = cmd.Backup
	total := &copyResult{Backup: vault.BackupID(id)}
	settings := replica.Settings{BytesPerSecond: o.bandwidth, Back: o.from != ""}
	p := s.progress()
	defer p.end()
	for {
		cmd.Settings = dispatch.Settings(settings)
		var r replica.Reply
		if err := site.call(ctx, cmd, &r); err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("interrupted; the copy of backup %s is broken off: %s, %s, copied by then, stay, and so does what a function still copies; the same command goes on with it",
				id, counted(total.Objects, "object"), size(total.Bytes))
		} else if err != nil {
			return nil, names.explain(err)
		}
		total.Target = r.Replica
		total.Objects += r.Objects
		total.Bytes += r.Bytes
		total.Found += r.Found
		total.Replaced = append(total.Replaced, r.Replaced...)
		if r.Done {
			return total, nil
		}
		point := settings.Next
		if r.Next == point && r.Objects == 0 {
			return nil, fmt.Errorf("the copy of backup %s to %s does not get beyond object %d of group %d: give the function verify more time", id, total.Target, point.Object, point.Group)
		}
		settings.Next = r.Next
		if p.due() {
			p.tell(fmt.Sprintf("copy of %s: %s copied, in group %d of %d", id, size(total.Bytes), r.Next.Group+1, r.Groups))
		}
	}
}

// were says how many of a thing were there.
func were(n int64) string {
	if n == 1 {
		return "1 was"
	}
	return count(n) + " were"
}

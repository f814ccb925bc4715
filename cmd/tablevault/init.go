package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/policy"
)

// initOptions are what `tablevault init` was asked for.
type initOptions struct {
	file, vault, table string
	schema             bool
}

// initResult is the JSON of `tablevault init`.
type initResult struct {
	File   string `json:"file"`
	Vault  string `json:"vault,omitempty"`
	Tables string `json:"tables"`
}

func initCommand(s *streams) *cobra.Command {
	var o initOptions
	c := &cobra.Command{
		Use:   "init --table INSTANCE/PATTERN [--vault ADDRESS]",
		Short: "Write a first policy, tablevault.yaml",
		Long: "Write a first policy: back the tables up every hour, keep for 72 hours. A file that is there is never\n" +
			"overwritten. With --schema, print the JSON schema of policies instead, for editors.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.schema {
				_, err := s.out.Write(policy.Schema)
				return err
			}
			r, err := runInit(o)
			if err != nil {
				return err
			}
			return s.print(r, func(w io.Writer) {
				deploy, look := "s deploy packs it", "tablevault doctor"
				if filepath.Clean(r.File) != policy.FileName {
					deploy, look = fmt.Sprintf("s deploy packs %s: copy it to that", policy.FileName), "tablevault doctor --policy "+r.File
				}
				fmt.Fprintf(w, "%s says: back up %s every hour. Deploy it beside the functions (%s), then look with `%s`.\n", r.File, r.Tables, deploy, look)
			})
		},
	}
	c.Flags().StringVar(&o.file, "file", policy.FileName, "the file to write")
	c.Flags().StringVar(&o.vault, "vault", os.Getenv("TABLEVAULT_VAULT"), "address of the vault: oss://bucket/prefix, s3://bucket/prefix or file:///folder")
	c.Flags().StringVar(&o.table, "table", "", "what to back up: instance/table, with * and ? in the table's name")
	c.Flags().BoolVar(&o.schema, "schema", false, "print the JSON schema of policies, and write nothing")
	return c
}

func runInit(o initOptions) (*initResult, error) {
	if o.table == "" {
		return nil, usage("--table is missing: name what to back up, for example --table 'prod/*'")
	}
	text := policy.First(o.vault, o.table)
	if _, err := policy.Decode(o.file, []byte(text)); err != nil {
		return nil, &exit{exitUsage, err}
	}
	f, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is there already, and is not overwritten: edit it, or name another with --file", o.file)
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("write %s: %w", o.file, err)
	}
	return &initResult{File: o.file, Vault: o.vault, Tables: o.table}, nil
}

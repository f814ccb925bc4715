package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tablevault/tablevault/local/ots"
)

// readDocument returns the text of docs/local-tablestore.md and the folder of the module,
// in which the working directory is.
func readDocument(ctx context.Context) (text, root string, err error) {
	located, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", "", fmt.Errorf("find the module that the document is in: %w", err)
	}
	root = strings.TrimSpace(string(located))
	data, err := os.ReadFile(filepath.Join(root, "docs", "local-tablestore.md"))
	return string(data), root, err
}

// programs returns the code blocks of a Markdown document that are marked with the
// language.
func programs(document, language string) []string {
	var found []string
	for {
		_, rest, ok := strings.Cut(document, "\n```"+language+"\n")
		if !ok {
			return found
		}
		program, rest, ok := strings.Cut(rest, "\n```\n")
		if !ok {
			return found
		}
		found, document = append(found, program+"\n"), rest
	}
}

// environment is the process's, with what the document's programs connect by.
func environment(server *ots.Server) []string {
	return append(os.Environ(),
		"TABLESTORE_ENDPOINT="+server.URL(), "TABLESTORE_INSTANCE=local",
		"TABLESTORE_ACCESS_KEY_ID="+ots.DefaultKeyID, "TABLESTORE_ACCESS_KEY_SECRET="+ots.DefaultKeySecret)
}

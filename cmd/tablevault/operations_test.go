package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOperationsPage holds docs/operations.md against the code: each text that it quotes
// as what a person sees stands in the sources, each setting of s.yaml is explained, and
// so is each policy.
func TestOperationsPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	var sources strings.Builder
	err = filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		sources.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, failures, ok := strings.Cut(page, "## When something fails")
	if !ok {
		t.Fatal("there is no part about failures")
	}
	quoted := 0
	for row := range strings.SplitSeq(failures, "\n") {
		cells := strings.Split(row, "|")
		if len(cells) < 5 || strings.HasPrefix(strings.TrimSpace(cells[1]), "--") || strings.Contains(cells[1], "it says") {
			continue
		}
		if strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("without a meaning or a step: %s", row)
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			quoted++
			if !strings.Contains(sources.String(), m[1]) {
				t.Errorf("nothing says %q", m[1])
			}
		}
	}
	if quoted < 40 {
		t.Errorf("only %d texts are quoted", quoted)
	}
	for _, name := range deployed() {
		if !strings.Contains(page, name) {
			t.Errorf("the setting %s is not explained", name)
		}
	}
	policies, err := filepath.Glob("../../docs/ram/*.json")
	if err != nil || len(policies) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	for _, p := range policies {
		if !strings.Contains(page, filepath.Base(p)) {
			t.Errorf("the policy %s is not explained", p)
		}
	}
}

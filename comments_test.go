package tablevault_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

var fixComments = flag.Bool("comments.fix", false, "wrap the comments anew that TestComments finds wrapped otherwise")

const (
	// commentWidth is the column at which comments end, tabs counted as tabWidth.
	commentWidth = 90
	tabWidth     = 4
)

// TestComments holds the comments of the whole tree to one form: a doc comment begins
// with the name that it documents and fills its lines up to one width, and no other
// comment goes beyond it.
func TestComments(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == "testdata" || e.Name() == ".git" || e.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		seen++
		return checkComments(t, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 300 {
		t.Fatalf("only %d files were looked at", seen)
	}
}

func checkComments(t *testing.T, name string) error {
	t.Helper()
	source, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.ParseComments)
	if err != nil {
		return err
	}
	if ast.IsGenerated(file) {
		return nil
	}
	checkNames(t, files, file)
	docs := docComments(file)
	lines := strings.Split(string(source), "\n")
	changed := false
	for _, group := range slices.Backward(file.Comments) {
		first, last := files.Position(group.Pos()).Line-1, files.Position(group.End()).Line-1
		if strings.HasPrefix(group.List[0].Text, "/*") || strings.TrimSpace(lines[first][:files.Position(group.Pos()).Column-1]) != "" {
			continue // beside code
		}
		if output.MatchString(group.Text()) {
			continue
		}
		old := lines[first : last+1]
		if !docs[group] && !slices.ContainsFunc(old, tooWide) {
			continue
		}
		filled := fill(old)
		if slices.Equal(filled, old) {
			continue
		}
		if !*fixComments {
			t.Errorf("%s:%d: the comment is not wrapped at column %d: `go test . -run TestComments -comments.fix` does it", name, first+1, commentWidth)
			continue
		}
		changed = true
		lines = slices.Concat(lines[:first], filled, lines[last+1:])
	}
	if changed {
		return os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o644)
	}
	return nil
}

// testName is the name of what package testing calls: its comment tells what is shown.
var testName = regexp.MustCompile(`^(Test|Fuzz|Benchmark|Example|test)[A-Z]`)

// output begins what an example prints, line by line.
var output = regexp.MustCompile(`(?i)^(unordered )?output:`)

// checkNames checks that the doc comments of functions, types, constants and variables
// begin with their names, an article before them aside.
func checkNames(t *testing.T, files *token.FileSet, file *ast.File) {
	t.Helper()
	check := func(doc *ast.CommentGroup, name string) {
		if doc == nil || testName.MatchString(name) {
			return
		}
		words := strings.Fields(doc.Text())
		if len(words) > 0 && slices.Contains([]string{"A", "An", "The"}, words[0]) {
			words = words[1:]
		}
		if len(words) > 0 && strings.TrimRight(words[0], ",.:'s") != strings.TrimRight(name, "s") && words[0] != name {
			t.Errorf("%s: the comment on %s begins with %q", files.Position(doc.Pos()), name, words[0])
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			check(d.Doc, d.Name.Name)
		case *ast.GenDecl:
			if d.Lparen.IsValid() || len(d.Specs) != 1 {
				continue // the comment is about all of them
			}
			switch s := d.Specs[0].(type) {
			case *ast.TypeSpec:
				check(d.Doc, s.Name.Name)
			case *ast.ValueSpec:
				if len(s.Names) == 1 && s.Names[0].Name != "_" {
					check(d.Doc, s.Names[0].Name)
				}
			}
		}
	}
}

// docComments are the comments that stand before what they document.
func docComments(file *ast.File) map[*ast.CommentGroup]bool {
	docs := map[*ast.CommentGroup]bool{file.Doc: true}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			docs[n.Doc] = true
		case *ast.GenDecl:
			docs[n.Doc] = true
		case *ast.TypeSpec:
			docs[n.Doc] = true
		case *ast.ValueSpec:
			docs[n.Doc] = true
		case *ast.Field:
			docs[n.Doc] = true
		}
		return true
	})
	return docs
}

// fill wraps the paragraphs of a comment anew. What is no paragraph stays as it is:
// lists, headings, code, and directives.
func fill(lines []string) []string {
	var filled, words []string
	indent := lines[0][:strings.Index(lines[0], "//")]
	end := func() {
		line := indent + "//"
		for i, w := range words {
			if i > 0 && width(line+" "+w) > commentWidth {
				filled = append(filled, line)
				line = indent + "//"
			}
			line += " " + w
		}
		if len(words) > 0 {
			filled = append(filled, line)
		}
		words = nil
	}
	for _, line := range lines {
		if text := strings.TrimLeft(line, "\t "); plain.MatchString(text) {
			words = append(words, strings.Fields(text[2:])...)
			continue
		}
		end()
		filled = append(filled, line)
	}
	end()
	return filled
}

// plain is a comment's line of a paragraph.
var plain = regexp.MustCompile(`^// ([^ \t#\-*0-9]|#\S|[-*]\S|[0-9]+([^.)0-9]|[.)]\S))`)

func tooWide(line string) bool {
	return width(line) > commentWidth && strings.Contains(strings.TrimSpace(line)[3:], " ")
}

func width(line string) int {
	tabs := strings.Count(line, "\t")
	return utf8.RuneCountInString(line) + tabs*(tabWidth-1)
}

// TestFill shows what is wrapped, and what is not.
func TestFill(t *testing.T) {
	long := strings.Repeat("word ", 40)
	for _, c := range []struct{ in, want string }{
		{"// short\n// lines", "// short lines"},
		{"// a paragraph\n//\n// and another", "// a paragraph\n//\n// and another"},
		{"// a list:\n//   - one\n//   - two\n// after it", "// a list:\n//   - one\n//   - two\n// after it"},
		{"// code:\n//\n//\tx := 1\n//\ty := 2", "// code:\n//\n//\tx := 1\n//\ty := 2"},
		{"// what\n//go:embed file", "// what\n//go:embed file"},
		{"// # Heading\n// text\n// goes on", "// # Heading\n// text goes on"},
		{"// 12 rows\n// of 3.5 MB", "// 12 rows of 3.5 MB"},
		{"\t// " + long, fmt.Sprintf("\t// %s\n\t// %s\n\t// %s", strings.TrimSpace(strings.Repeat("word ", 16)), strings.TrimSpace(strings.Repeat("word ", 16)), strings.TrimSpace(strings.Repeat("word ", 8)))},
	} {
		if got := strings.Join(fill(strings.Split(c.in, "\n")), "\n"); got != c.want {
			t.Errorf("%q becomes\n%q, want\n%q", c.in, got, c.want)
		}
	}
}

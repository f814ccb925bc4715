package tablevault_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmbedding holds what ships to embed no struct that embeds one of ours itself: a
// name that is promoted twice is looked for in three places.
func TestEmbedding(t *testing.T) {
	embedded := map[string][]string{} // by type, package first
	seen := 0
	for _, dir := range []string{"shared", "functions", "cmd"} {
		err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				return err
			}
			seen++
			embeddings(file, path.Dir(filepath.ToSlash(name)), embedded)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 150 || len(embedded) < 10 {
		t.Fatalf("only %d files with %d types that embed others were looked at", seen, len(embedded))
	}
	for outer, all := range embedded {
		for _, inner := range all {
			for _, innermost := range embedded[inner] {
				t.Errorf("%s embeds %s, which embeds %s", outer, inner, innermost)
			}
		}
	}
}

// embeddings adds the structs of a file that embed types of this module.
func embeddings(file *ast.File, pkg string, to map[string][]string) {
	imports := map[string]string{}
	for _, i := range file.Imports {
		of, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module)
		if !ours {
			continue
		}
		name := path.Base(of)
		if i.Name != nil {
			name = i.Name.Name
		}
		imports[name] = of
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		fields, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, f := range fields.Fields.List {
			if len(f.Names) > 0 {
				continue
			}
			of := f.Type
			if p, ok := of.(*ast.StarExpr); ok {
				of = p.X
			}
			outer := pkg + "." + spec.Name.Name
			switch of := of.(type) {
			case *ast.Ident:
				to[outer] = append(to[outer], pkg+"."+of.Name)
			case *ast.SelectorExpr:
				if from, ours := imports[of.X.(*ast.Ident).Name]; ours {
					to[outer] = append(to[outer], from+"."+of.Sel.Name)
				}
			}
		}
		return true
	})
}

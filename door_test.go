package tablevault_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// doors are the functions by which the content of an object is read or written, and for
// each the packages that call it beside repository and the adapters, with what they read
// or write. None of it is a shard or an index.
var doors = map[string]map[string]string{
	"Store.Open": {},
	"Store.Create": {
		"shared/fanout":  "empty objects whose names tell how far a worker has come",
		"shared/prune":   "the empty object that tells the store's date",
		"cmd/tablevault": "doctor's probe, and the vault.json that it puts back",
	},
	"ReadAll": {
		"shared/restore": "the request of somebody outside",
		"shared/replica": "a document that is there already",
		"cmd/tablevault": "vault.json, as doctor finds it",
	},
	"Decide": {
		"shared/drill":   "a drill's request",
		"shared/replica": "a document, byte for byte",
	},
}

// TestOneDoor: shards and indexes are opened and created by package repository alone, and
// nothing else seals or opens what is sealed.
func TestOneDoor(t *testing.T) {
	type pkg struct {
		ImportPath, Dir, Export string
		GoFiles, Imports        []string
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Imports", "./shared/...", "./functions/...", "./cmd/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	exports := map[string]string{}
	var ours []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if strings.HasPrefix(p.ImportPath, module) {
			ours = append(ours, p)
		}
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	called := map[string]bool{}
	for _, p := range ours {
		from := strings.TrimPrefix(p.ImportPath, module)
		if under(from, "shared/object") || from == "shared/repository" || strings.HasSuffix(from, "test") || under(from, "local") {
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		for _, path := range p.Imports {
			if path == module+"shared/crypt" {
				t.Errorf("%s imports shared/crypt: repository seals and opens", from)
			}
		}
		info := types.Info{Uses: map[*ast.Ident]types.Object{}}
		config := types.Config{Importer: imports}
		if _, err := config.Check(p.ImportPath, fset, files, &info); err != nil {
			t.Fatal(err)
		}
		for at, o := range info.Uses {
			door := doorOf(o)
			others, ok := doors[door]
			if !ok {
				continue
			}
			if called[door+from] = others[from] != ""; !called[door+from] {
				t.Errorf("%s: %s calls object.%s: data objects are opened by repository.OpenData and made by CreateData, documents by Read and Win",
					fset.Position(at.Pos()), from, door)
			}
		}
	}
	for door, others := range doors {
		for from := range others {
			if !called[door+from] {
				t.Errorf("%s does not call object.%s any more", from, door)
			}
		}
	}
}

// doorOf is the name of a function of package object, or of a method of a store.
func doorOf(o types.Object) string {
	f, ok := o.(*types.Func)
	if !ok || f.Pkg() == nil || !under(strings.TrimPrefix(f.Pkg().Path(), module), "shared/object") {
		return ""
	}
	if f.Signature().Recv() != nil {
		return "Store." + f.Name()
	}
	if f.Pkg().Path() != module+"shared/object" {
		return "" // it opens a store
	}
	return f.Name()
}

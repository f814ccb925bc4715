package tablevault_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// layers are the packages of the core from the lowest to the highest. A package
// may import what stands before it.
var layers = []string{
	"shared/guard", "shared/retry", "shared/plainbuffer", "shared/table", "shared/vault", "shared/crypt", "shared/repository", "shared/policy", "shared/throttle", "shared/fanout", "shared/backup/coverage", "shared/replica", "shared/sealed", "shared/compare", "shared/verify", "shared/restore", "shared/backup", "shared/drill", "shared/reconcile", "shared/prune", "shared/status", "shared/function",
}

// sdks are the modules that only adapters know, with the packages that are
// adapters to them.
var sdks = map[string][]string{
	"github.com/aliyun/aliyun-tablestore-go-sdk": {"shared/tablestore", "local/ots", "cmd/tablevault", "local/stack"},
	"github.com/aliyun/aliyun-oss-go-sdk":        {"shared/object"},
	"github.com/aws/aws-sdk-go-v2":               {"shared/object", "local/s3"},
	"github.com/aliyun/fc-runtime-go-sdk":        {"shared/function"},
	"github.com/alibabacloud-go":                 {"shared/function"},
}

const module = "github.com/tablevault/tablevault/"

// TestArrows holds the imports of the shipped code against the order of the
// layers: the core knows no network, nothing that ships in a function knows the
// local stand-ins, and SDKs stay in their adapters.
func TestArrows(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	d := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok {
			continue
		}
		seen++
		for _, path := range p.Imports {
			if to, ours := strings.CutPrefix(path, module); ours {
				checkOurs(t, from, to)
			} else {
				checkSDK(t, from, path)
			}
		}
	}
	if seen < 15 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}

func checkOurs(t *testing.T, from, to string) {
	t.Helper()
	if under(to, "local") && (under(from, "shared") || under(from, "functions")) {
		t.Errorf("%s imports %s: the stand-ins do not ship", from, to)
	}
	if strings.HasSuffix(to, "test") && !strings.HasSuffix(from, "test") {
		t.Errorf("%s imports %s, which is for tests", from, to)
	}
	if layer(from) >= 0 && layer(to) > layer(from) {
		t.Errorf("%s imports %s, which stands above it", from, to)
	}
	if (under(to, "cmd") || under(to, "functions")) && !under(from, "cmd") && !under(from, "functions") {
		t.Errorf("%s imports %s: nothing stands above a main", from, to)
	}
}

func checkSDK(t *testing.T, from, path string) {
	t.Helper()
	for sdk, adapters := range sdks {
		if !under(path, sdk) {
			continue
		}
		for _, a := range adapters {
			if under(from, a) {
				return
			}
		}
		t.Errorf("%s imports %s: only %v may", from, path, adapters)
	}
}

func layer(path string) int {
	for i, l := range layers {
		if under(path, l) {
			return i
		}
	}
	return -1
}

func under(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// TestGoroutines holds what ships to start goroutines through package guard: a panic
// in any other would end the process, whoever recovers elsewhere.
func TestGoroutines(t *testing.T) {
	seen := 0
	for _, dir := range []string{"shared", "functions", "cmd"} {
		err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			if under(name, "shared/guard") || strings.HasSuffix(filepath.Dir(name), "test") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				return err
			}
			seen++
			for _, i := range file.Imports {
				if i.Path.Value == `"golang.org/x/sync/errgroup"` {
					t.Errorf("%s imports errgroup: use guard.Group, in which a panic is an error", name)
				}
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if g, ok := n.(*ast.GoStmt); ok {
					t.Errorf("%s, at byte %d, starts a goroutine: use guard.Go, by which a panic is an error", name, g.Pos())
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 60 {
		t.Fatalf("only %d files were looked at", seen)
	}
}

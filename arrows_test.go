package tablevault_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// edges are the packages of the shipped code, each with those that it imports, no more
// and no fewer. A new arrow is an entry here, and a reason for it.
var edges = map[string]string{
	"cmd/tablevault":            "backup drill fanout function function/dispatch guard local/ots local/stack object object/address object/bucket object/dir object/oss object/place policy prune replica repository restore retry status table tablestore vault verify",
	"functions/export":          "backup function function/dispatch functions/internal/parts",
	"functions/import":          "drill function function/dispatch functions/internal/parts restore",
	"functions/internal/parts":  "function object object/address object/objectmeter object/place policy replica repository table tablestore vault",
	"functions/plan":            "function function/dispatch functions/internal/parts reconcile",
	"functions/verify":          "function function/dispatch functions/internal/parts object replica restore verify",
	"shared/access":             "",
	"shared/backup":             "backup/coverage fanout guard object plainbuffer repository retry table throttle vault vault/shard",
	"shared/backup/coverage":    "repository table vault",
	"shared/compare":            "fanout guard plainbuffer sealed table throttle vault vault/shard",
	"shared/crypt":              "vault",
	"shared/drill":              "fanout guard object policy repository restore table vault",
	"shared/fanout":             "guard object repository retry table vault",
	"shared/function":           "access fanout guard object/place policy retry vault",
	"shared/function/dispatch":  "backup fanout function reconcile replica restore vault verify",
	"shared/guard":              "",
	"shared/object":             "",
	"shared/object/address":     "access object object/bucket object/dir object/objectmeter object/oss object/place object/s3",
	"shared/object/bucket":      "object object/place retry",
	"shared/object/crc":         "",
	"shared/object/dir":         "object",
	"shared/object/mem":         "object",
	"shared/object/multipart":   "",
	"shared/object/objectfault": "object retry",
	"shared/object/objectmeter": "object",
	"shared/object/oss":         "access object object/bucket object/crc object/multipart retry",
	"shared/object/place":       "",
	"shared/object/s3":          "access object object/bucket object/crc object/multipart retry",
	"shared/plainbuffer":        "",
	"shared/policy":             "object/place table vault",
	"shared/prune":              "guard object object/place policy repository vault",
	"shared/reconcile":          "backup drill fanout guard object/place policy replica repository table vault",
	"shared/replica":            "fanout guard object object/place repository table vault",
	"shared/repository":         "crypt guard object plainbuffer table vault vault/shard",
	"shared/restore":            "compare fanout guard object object/place plainbuffer repository sealed table throttle vault vault/shard verify",
	"shared/retry":              "",
	"shared/sealed":             "backup/coverage fanout guard repository table vault vault/shard",
	"shared/sidebyside":         "",
	"shared/status":             "backup drill fanout guard object policy replica repository restore vault",
	"shared/table":              "plainbuffer",
	"shared/tablestore":         "access plainbuffer retry table",
	"shared/throttle":           "table vault",
	"shared/vault":              "object object/place plainbuffer table",
	"shared/vault/shard":        "plainbuffer table",
	"shared/verify":             "backup/coverage compare fanout guard object object/place repository sealed table throttle vault",
}

// sdks are the modules that only adapters know, with the packages that are adapters to
// them.
var sdks = map[string][]string{
	"github.com/aliyun/aliyun-tablestore-go-sdk": {"shared/tablestore", "local/ots", "cmd/tablevault", "local/stack"},
	"github.com/aliyun/aliyun-oss-go-sdk":        {"shared/object"},
	"github.com/aws/aws-sdk-go-v2":               {"shared/object", "local/s3"},
	"github.com/aliyun/fc-runtime-go-sdk":        {"shared/function"},
	"github.com/alibabacloud-go":                 {"shared/function"},
}

const module = "github.com/tablevault/tablevault/"

// TestArrows holds the imports of the shipped code against the edges: the core knows no
// network, nothing that ships in a function knows the local stand-ins, and SDKs stay in
// their adapters.
func TestArrows(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	d := json.NewDecoder(strings.NewReader(string(out)))
	seen := map[string]bool{}
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
		seen[from] = true
		var ours []string
		for _, path := range p.Imports {
			if to, ok := strings.CutPrefix(path, module); ok {
				ours = append(ours, to)
				checkOurs(t, from, to)
			} else {
				checkSDK(t, from, path)
			}
		}
		if ships(from) {
			checkEdges(t, from, ours)
		}
	}
	for from := range edges {
		if !seen[from] {
			t.Errorf("there is no package %s", from)
		}
	}
}

// ships says whether a package is part of what is deployed or run by people.
func ships(path string) bool {
	return (under(path, "shared") || under(path, "functions") || under(path, "cmd")) && !strings.HasSuffix(path, "test")
}

func checkEdges(t *testing.T, from string, imports []string) {
	t.Helper()
	want, known := edges[from]
	if !known {
		t.Errorf("%s has no entry: it imports %s", from, short(imports))
		return
	}
	if got := short(imports); got != want {
		t.Errorf("%s imports\n\t%s\nits entry says\n\t%s", from, got, want)
	}
}

// short are the names of packages as the edges have them.
func short(paths []string) string {
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = strings.TrimPrefix(p, "shared/")
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestOrder holds the order of packages in docs/design.md against the edges: each arrow
// goes from a package to one that stands before it, and each package has its place.
func TestOrder(t *testing.T) {
	design, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(design), "A package may import those before it:\n\n```\n")
	order, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatal("docs/design.md has no order of packages")
	}
	place := map[string]int{}
	for i, name := range strings.Fields(order) {
		if _, twice := place[name]; twice {
			t.Errorf("%s has two places", name)
		}
		place[name] = i
	}
	for from, imports := range edges {
		name := strings.TrimPrefix(from, "shared/")
		at, ok := place[name]
		if !ok {
			t.Errorf("docs/design.md gives %s no place", name)
			continue
		}
		for _, to := range strings.Fields(imports) {
			if before, ok := place[to]; ok && before >= at {
				t.Errorf("%s imports %s, which docs/design.md places after it", name, to)
			}
		}
	}
	if len(place) != len(edges) {
		t.Errorf("docs/design.md gives %d packages a place, there are %d", len(place), len(edges))
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

func under(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// TestGoroutines holds what ships to start goroutines through package guard: a panic in
// any other would end the process, whoever recovers elsewhere.
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

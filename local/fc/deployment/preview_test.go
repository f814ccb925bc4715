package deployment

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// previewer is the vendor's deploying tool, if it is here. TEST_S names it, and that it
// must be.
func previewer(t *testing.T) string {
	t.Helper()
	named := os.Getenv("TEST_S")
	if named == "" {
		named = "s"
	}
	tool, err := exec.LookPath(named)
	if err != nil && os.Getenv("TEST_S") != "" {
		t.Fatalf("TEST_S: %v", err)
	}
	if err != nil {
		t.Skip("Serverless Devs is not here: npm install -g @serverless-devs/s")
	}
	return tool
}

// TestPreview has the vendor's tool render s.yaml, without asking the service, and reads
// what it makes of it: all expressions filled in, templates merged. It has to be what
// this package makes of the file itself, whatever the environment.
func TestPreview(t *testing.T) {
	tool := previewer(t)
	file, err := filepath.Abs("../../../s.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir() // it writes there
	for name, env := range map[string]map[string]string{
		"defaults": {},
		"settings": {
			"TABLEVAULT_REGION": "ap-southeast-1", "TABLEVAULT_ACCOUNT": "1234567890123456", "TABLEVAULT_BUCKET": "acme-backups", "TABLEVAULT_REQUESTS": "prod/requests/",
			"TABLEVAULT_VAULT": "oss://acme-backups/prod?region=ap-southeast-1&retention=30d", "TABLEVAULT_TABLESTORE_ENDPOINT": "vpc", "TABLEVAULT_FUNCTION_PREFIX": "dr-",
			"TABLEVAULT_LANES": "4", "TABLEVAULT_MARGIN": "1m", "TABLEVAULT_LOG_LEVEL": "debug", "TABLEVAULT_PLAN_ROLE": "acs:ram::1234567890123456:role/planner",
			"TABLEVAULT_TRIGGER_ROLE": "requests",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), tool, "preview", "-t", file, "-o", "json")
			cmd.Dir = filepath.Dir(file)
			cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "TABLEVAULT_") }), "HOME="+home)
			for k, v := range env {
				cmd.Env = append(cmd.Env, k+"="+v)
			}
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s%s", err, errs.String(), out.String())
			}
			// A warning may stand before the document.
			begin := strings.Index(out.String(), "{\n")
			if begin < 0 {
				t.Fatalf("it renders %s", out.String())
			}
			rendered := out.String()[begin:]
			if strings.Contains(rendered, "${") {
				t.Errorf("it leaves an expression open:\n%s", rendered)
			}
			theirs, err := Parse("preview.json", []byte(rendered), nil)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := Parse("s.yaml", text, env)
			if err != nil {
				t.Fatal(err)
			}
			if len(ours.Functions) != 4 || len(theirs.Functions) != 4 {
				t.Fatalf("%d functions here, %d there", len(ours.Functions), len(theirs.Functions))
			}
			for i := range ours.Functions {
				if !reflect.DeepEqual(ours.Functions[i], theirs.Functions[i]) {
					t.Errorf("the tool deploys\n%+v\nthe local host runs\n%+v", theirs.Functions[i], ours.Functions[i])
				}
			}
			if env["TABLEVAULT_FUNCTION_PREFIX"] != "" && ours.Functions[0].Name != "dr-plan" {
				t.Errorf("%+v", ours.Functions[0])
			}
		})
	}
}

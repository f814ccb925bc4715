package address

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/object"
)

// A directory's address opens the directory, whatever characters its path has.
func TestOpen(t *testing.T) {
	for _, name := range []string{"vault", "with space", "100%", "a#b?c&d", "é+日本", "%41", "semi;colon:@"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), File(path), Config{})
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := s.Create(t.Context(), "object", strings.NewReader("content")); err != nil {
			t.Error(err)
		}
		if content, err := os.ReadFile(filepath.Join(path, "object")); err != nil || string(content) != "content" {
			t.Errorf("in %s: %q, %v", path, content, err)
		}
	}
	path := t.TempDir()
	for _, address := range []string{"file://" + path, "file://" + path + "/", "file://localhost" + path, "file:" + path} {
		s, err := Open(t.Context(), address, Config{})
		if err != nil {
			t.Errorf("Open(%s): %v", address, err)
		} else if _, err := object.Stat(t.Context(), s, "nothing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat in %s: %v", address, err)
		}
	}
}

// What can't be opened is named with what to write instead.
func TestOpenRefuses(t *testing.T) {
	for address, want := range map[string]string{
		"":                        "file:///path",
		"/srv/vault":              "file:///path",
		"srv/vault":               "file:///path",
		"file://srv/vault":        "file:///srv/vault",
		"file:srv/vault":          "file:///srv/vault",
		"file://":                 "not absolute",
		"file:///srv/vault?x=1":   "%3F",
		"file:///srv/vault?":      "%3F",
		"file:///srv/vault#1":     "%23",
		"file:///srv/%00":         "zero byte",
		"file:///srv/%zz":         "%zz",
		"file://me@/srv":          "user",
		"file:///no/such/folder":  "mkdir -p /no/such/folder",
		"oss://bucket/prefix":     "the region is missing",
		"oss://bucket?region=r":   "no keys for OSS",
		"s3://bucket":             "the region is missing",
		"s3://bucket?region=r":    "no keys for S3",
		"ftp://host/path":         `unknown scheme "ftp"`,
		"http://127.0.0.1:1/path": `unknown scheme "http"`,
		"\x7f":                    "invalid control character",
	} {
		s, err := Open(t.Context(), address, Config{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want an error that says %q", address, err, want)
		}
		if s != nil {
			t.Errorf("Open(%q) returns a store beside the error", address)
		}
	}
}

// Every absolute path comes back from its address.
func FuzzFile(f *testing.F) {
	for _, path := range []string{"/", "/srv/vault", "/a b/%41", "/a#b?c", "/é", "//double/../dots", "/\xff", "/:@;"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
			return
		}
		u, err := url.Parse(File(p))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := path(u); err != nil || got != filepath.Clean(p) {
			t.Errorf("%q has the address %s, which has the path %q, %v", p, File(p), got, err)
		}
	})
}

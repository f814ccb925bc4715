package address

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/oss"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/object/s3"
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
		"":                        "file:///folder",
		"/srv/vault":              "file:///folder",
		"srv/vault":               "file:///folder",
		"file://srv/vault":        "three slashes",
		"file:srv/vault":          "not absolute",
		"file:///":                "root of this machine",
		"file:///etc":             "more than a vault",
		"file://":                 "not absolute",
		"file:///srv/vault?x=1":   "%3F",
		"file:///srv/vault?":      "%3F",
		"file:///srv/vault#1":     "%23",
		"file:///srv/%00":         "zero byte",
		"file:///srv/%zz":         "file:///folder",
		"file://me@/srv":          "user",
		"file:///no/such/folder":  "mkdir -p /no/such/folder",
		"oss://bucket/prefix":     "the region is missing",
		"oss://bucket?region=r":   "no keys for OSS",
		"s3://bucket":             "the region is missing",
		"s3://bucket?region=r":    "no keys for S3",
		"ftp://host/path":         "want oss://",
		"http://127.0.0.1:1/path": "want oss://",
		"\x7f":                    "want oss://",
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
		got, err := place.Parse(File(p))
		if clean := filepath.Clean(p); (err != nil) != (clean == "/") || err == nil && got.Path != clean {
			t.Errorf("%q has the address %s, which has the path %q, %v", p, File(p), got.Path, err)
		}
	})
}

// TestOthersFolders refuses as a vault what holds more than a vault, under any name.
func TestOthersFolders(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home", "me")
	if err := os.MkdirAll(filepath.Join(home, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	links := t.TempDir()
	for name, of := range map[string]string{"root": "/", "home": home, "etc": "/etc"} {
		if err := os.Symlink(of, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"/", "/usr", "/etc/", "/usr/../etc", home, filepath.Dir(home), filepath.Join(links, "root"), filepath.Join(links, "home"), filepath.Join(links, "etc")} {
		before, _ := os.ReadDir(folder)
		s, err := Open(t.Context(), "file://"+folder, Config{})
		if err == nil || s != nil || !strings.Contains(err.Error(), "for the vault alone") {
			t.Errorf("%s is opened, or refused without a word: %v", folder, err)
		}
		if after, _ := os.ReadDir(folder); len(after) != len(before) {
			t.Errorf("something was left in %s", folder)
		}
	}
	if _, err := Open(t.Context(), File(filepath.Join(home, "vault")), Config{}); err != nil {
		t.Errorf("a folder in a home: %v", err)
	}
}

// TestParameters holds the parameters that package place knows against those that the
// stores do.
func TestParameters(t *testing.T) {
	for scheme, parse := range map[string]func(string) error{
		"oss": func(a string) error { _, err := oss.Parse(a); return err },
		"s3":  func(a string) error { _, err := s3.Parse(a); return err },
	} {
		_, knows := place.Parse(scheme + "://bucket?none=1")
		is := parse(scheme + "://bucket?none=1")
		if knows == nil || is == nil || !strings.HasSuffix(is.Error(), knows.Error()) || !strings.Contains(is.Error(), "known are") {
			t.Errorf("%s: %v, and place says %v", scheme, is, knows)
		}
	}
}

// TestNoValues types a key into every part of every address: no error shows it.
func TestNoValues(t *testing.T) {
	const key = "hunter2"
	store := t.TempDir()
	for _, address := range []string{
		key, key + "://b", "oss://" + key + "/p:%zz", "oss://b:" + key + "/p", "oss://" + key + ":x@bucket?region=r", "oss://x:" + key + "@bucket?region=r",
		"oss://B" + key + "?region=r", "oss://bucket/p#" + key, "oss://bucket/a//" + key + "?region=r", "oss://bucket?" + key, "oss://bucket?region=A" + key,
		"oss://bucket?region=r&region=" + key, "oss://bucket?region=oss-" + key, "oss://bucket?region=r&secret=" + key, "oss://bucket?region=r&endpoint=u:" + key + "@h",
		"oss://bucket?region=r&endpoint=h/" + key, "oss://bucket?region=r&path_style=" + key, "oss://bucket?region=r&part_size=" + key, "oss://bucket?region=r&parallel=" + key,
		"oss://bucket?region=r&encryption=" + key, "oss://bucket?region=r&storage_class=" + key, "oss://bucket?region=r&retention=" + key,
		"oss://bucket?region=r&encryption=SM4&kms_key=" + key, "oss://bucket?region=%zz" + key,
		"s3://x:" + key + "@bucket?region=r", "s3://B" + key + "?region=r", "s3://bucket?region=r&lock=" + key + "&retain=1d", "s3://bucket?region=r&lock=compliance&retain=" + key,
		"s3://bucket?region=r&storage_class=" + key, "s3://bucket?" + key + "=" + key,
		"file://" + key + store, "file://x:" + key + "@" + store, "file://" + store + "?" + key, "file://" + store + "#" + key, "file:" + key,
	} {
		s, err := Open(t.Context(), address, Config{})
		if err == nil || s != nil {
			t.Errorf("Open(%q) succeeds", address)
		} else if strings.Contains(err.Error(), key) {
			t.Errorf("Open(%q) says %q", address, err)
		}
	}
}

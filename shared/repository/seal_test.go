package repository_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/crypt"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

var age = vault.Encryption{Mode: "age"}

// TestSealing holds that every document is sealed and opened for the readers that it has,
// and that an encryption which is not built in writes nothing.
func TestSealing(t *testing.T) {
	classes := map[string]crypt.Class{"vault": crypt.Public, "proof": crypt.Public, "answer": crypt.Public, "quarantine": crypt.Data,
		"drill": crypt.Public, "drill-end": crypt.Public, "drill-drop": crypt.Public}
	files, err := filepath.Glob("../vault/testdata/v2/*.json")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var at struct{ Document, Name string }
			if err := json.Unmarshal(golden, &at); err != nil {
				t.Fatal(err)
			}
			fresh := kinds()[at.Document]
			if fresh == nil {
				t.Fatalf("a %s, which this test does not know", at.Document)
			}
			seen[at.Document] = true
			want, special := classes[at.Document]
			if !special {
				want = crypt.Control
			}
			if got := repository.ClassOf(fresh()); got != want {
				t.Errorf("class %d, want %d", got, want)
			}
			repo := (&repository.Repository{}).Encrypted(vault.Encryption{Mode: "none"}).In(&mem.Store{})
			d, back := fresh(), fresh()
			if err := repo.Decode(at.Name, golden, d); err != nil {
				t.Fatal(err)
			}
			if _, err := repo.Create(t.Context(), at.Name, d); err != nil {
				t.Fatal(err)
			}
			if _, err := repo.Read(t.Context(), at.Name, back); err != nil || !reflect.DeepEqual(back, d) {
				t.Errorf("%v: %+v, want %+v", err, back, d)
			}
			locked := repo.Encrypted(age).In(&mem.Store{})
			if _, err := locked.Create(t.Context(), at.Name, d); err == nil || !strings.Contains(err.Error(), "age") {
				t.Errorf("age: %v", err)
			}
			if there, err := locked.Exists(t.Context(), at.Name); there || err != nil {
				t.Errorf("age: it was written, %v", err)
			}
			if err := locked.Decode(at.Name, golden, fresh()); err == nil || !strings.Contains(err.Error(), "age") {
				t.Errorf("age: %v", err)
			}
		})
	}
	if len(seen) != len(kinds()) {
		t.Errorf("%d kinds of documents, there are %d", len(seen), len(kinds()))
	}
}

// TestData writes a data object and reads it: as a whole, and each piece by one request.
// With an encryption that is not built in nothing is written, nor read.
func TestData(t *testing.T) {
	none := vault.Encryption{Mode: "none"}
	plain := bytes.Repeat([]byte("0123456789"), 100)
	w := vaulttest.NewWorld(t)
	in, err := w.Repo.CreateData(t.Context(), "shards/x", none)
	if err != nil {
		t.Fatal(err)
	}
	for piece := range bytes.Lines(plain) {
		if _, err := in.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	o, err := in.Finish()
	if err != nil || o.Bytes != int64(len(plain)) {
		t.Fatalf("%+v, %v", o, err)
	}
	if err := w.Repo.Present(t.Context(), o); err != nil {
		t.Error(err)
	}
	data := w.Repo.OpenData(t.Context(), o, none)
	buf := make([]byte, 20)
	for off, want := range map[int64]struct {
		n   int
		err error
	}{0: {20, nil}, 980: {20, nil}, 990: {10, io.EOF}, 1000: {0, io.EOF}} {
		if n, err := data.ReadAt(buf, off); n != want.n || err != want.err || !bytes.Equal(buf[:n], plain[off:off+int64(n)]) {
			t.Errorf("%d bytes at %d, %v: %q", n, off, err, buf[:n])
		}
	}
	var bad *repository.BadObject
	if _, err := data.ReadAt(buf, 1001); !errors.As(err, &bad) || bad.Object != o {
		t.Errorf("behind its end: %v", err)
	}
	s, err := data.Stream()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if all, err := io.ReadAll(s); err != nil || !bytes.Equal(all, plain) || s.End() != nil {
		t.Errorf("as a whole: %d bytes, %v, %v", len(all), err, s.End())
	}
	w.Remove(o.Name)
	if _, err := data.ReadAt(buf, 0); !errors.As(err, &bad) {
		t.Errorf("gone: %v", err)
	}
	if _, err := data.Stream(); !errors.As(err, &bad) {
		t.Errorf("gone, as a whole: %v", err)
	}

	if _, err := w.Repo.CreateData(t.Context(), o.Name, age); err == nil || !strings.Contains(err.Error(), "age") {
		t.Errorf("age: %v", err)
	}
	if there, err := w.Repo.Exists(t.Context(), o.Name); there || err != nil {
		t.Errorf("age: it was written, %v", err)
	}
	w.Store.(*mem.Store).Replace(o.Name, plain)
	locked := w.Repo.OpenData(t.Context(), o, age)
	if _, err := locked.ReadAt(buf, 0); err == nil || !strings.Contains(err.Error(), "age") {
		t.Errorf("age: %v", err)
	}
	if _, err := locked.Stream(); err == nil || !strings.Contains(err.Error(), "age") {
		t.Errorf("age, as a whole: %v", err)
	}
}

// TestDataAborted breaks a data object off: nothing of it is stored, and the cause is
// told once.
func TestDataAborted(t *testing.T) {
	w := vaulttest.NewWorld(t)
	in, err := w.Repo.CreateData(t.Context(), "shards/x", vault.Encryption{Mode: "none"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("half of it")); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the page is broken")
	if err := in.Abort(cause); !errors.Is(err, cause) || strings.Count(err.Error(), cause.Error()) != 1 {
		t.Errorf("%v", err)
	}
	if there, err := w.Repo.Exists(t.Context(), "shards/x"); there || err != nil {
		t.Errorf("it was written, %v", err)
	}
	if _, err := w.Repo.OpenData(t.Context(), vault.Object{Name: "shards/x"}, vault.Encryption{Mode: "none"}).Stream(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

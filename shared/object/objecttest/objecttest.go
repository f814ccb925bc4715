// Package objecttest is the contract of object.Store as a test suite, which every store
// passes.
//
//	func TestStore(t *testing.T) {
//		objecttest.Run(t, func(t *testing.T) object.Store { return &mem.Store{} })
//	}
//
// It says the same of every store. How often it says so, where names or moments are many,
// is less by default, so that stores behind a wire are done in seconds: TEST_STORES=full
// in the environment makes it all of them.
package objecttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/tablevault/tablevault/shared/object"
)

// Run tests everything that object.Store promises. open returns a new empty store each
// time it is called, and removes what is left of it with t.Cleanup; a store in a bucket
// uses a new prefix.
func Run(t *testing.T, open func(t *testing.T) object.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, object.Store)
	}{
		{"Create", testCreate},
		{"Create/reader", testCreateReader},
		{"Create/taken", testCreateTaken},
		{"Create/race", testCreateRace},
		{"Create/reader fails", testCreateReaderFails},
		{"Create/context", testCreateContext},
		{"Open/ranges", testOpenRanges},
		{"Open/missing", testOpenMissing},
		{"Open/context", testOpenContext},
		{"Open/deleted meanwhile", testOpenDeleted},
		{"List/order", testListOrder},
		{"List/random", testListRandom},
		{"List/many", testListMany},
		{"List/changing", testListChanging},
		{"List/context", testListContext},
		{"List/bad prefix", testListBadPrefix},
		{"Delete", testDelete},
		{"Delete/beside creates", testDeleteBesideCreates},
		{"Names/odd", testNamesOdd},
		{"Names/refused", testNamesRefused},
		{"Names/object and folder", testNamesObjectAndFolder},
		{"Decide/race", testDecideRace},
		{"Model", testModel},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Full reports whether the environment asks for tests in full.
func Full() bool { return os.Getenv("TEST_STORES") == "full" }

// times is a count in full tests, and a smaller one otherwise.
func times(full, otherwise int) int {
	if Full() {
		return full
	}
	return otherwise
}

// TwoWriters has two stores of one bucket or folder create the same name at the same
// moment, a thousand times in full tests, one in sixteen with a body of long bytes:
// exactly one wins each time, is told so and finds its own content there, and the other
// is told that the name is taken.
func TwoWriters(t *testing.T, writers [2]object.Store, long int) {
	t.Helper()
	rounds := times(1000, 150)
	var wins [2]int
	for round := range rounds {
		name, size := fmt.Sprintf("race/%d", round), 100
		if round%16 == 0 {
			size = long
		}
		var contents [2][]byte
		var infos [2]object.Info
		var errs [2]error
		start := make(chan struct{})
		var both sync.WaitGroup
		for w, store := range writers {
			// Different lengths, so that what one sees of the other's is not its own.
			contents[w] = Content(fmt.Sprint(name, w), size+w)
			both.Go(func() {
				<-start
				infos[w], errs[w] = store.Create(t.Context(), name, bytes.NewReader(contents[w]))
			})
		}
		close(start)
		both.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		loser := 1 - winner
		if errs[winner] != nil || !errors.Is(errs[loser], fs.ErrExist) {
			t.Fatalf("%s: %v and %v, want one to win and the other to be told that the name is taken", name, errs[0], errs[1])
		}
		if got := read(t, writers[loser], name); !bytes.Equal(got, contents[winner]) {
			t.Fatalf("%s: %d bytes, which are not the winner's %d", name, len(got), len(contents[winner]))
		}
		if now := stat(t, writers[loser], name); !same(now, infos[winner]) {
			t.Fatalf("%s: Stat says %+v, the winner was told %+v", name, now, infos[winner])
		}
		wins[winner]++
	}
	t.Logf("of %d rounds the writers won %v", rounds, wins)
}

// Limits say what is special about a store under test.
type Limits struct {
	// Element is the length in bytes of the longest element of a name, if behind the
	// store there is no bucket but a file system. The suite leaves longer ones out and
	// logs how many; a bucket keeps them.
	Element int
	// Page is the number of names that the store asks for at once, if it is set up to ask
	// for fewer than a bucket's thousand.
	Page int
}

// Limited returns the store with its limits.
func Limited(s object.Store, l Limits) object.Store { return limited{s, l} }

type limited struct {
	object.Store
	Limits
}

func limits(s object.Store) Limits {
	l, _ := s.(limited)
	return l.Limits
}

// kept returns those of the names that the server behind a store can keep.
func kept(t *testing.T, s object.Store, names []string) []string {
	t.Helper()
	short := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !keeps(s, name) })
	if len(short) < len(names) {
		t.Logf("%d of %d names are left out, since the server can't keep elements of more than %d bytes", len(names)-len(short), len(names), limits(s).Element)
	}
	return short
}

func keeps(s object.Store, name string) bool {
	most := limits(s).Element
	return most == 0 || !slices.ContainsFunc(strings.Split(name, "/"), func(e string) bool { return len(e) > most })
}

// Every length comes back as it was streamed, and Create, Stat, Open and List agree about
// it.
func testCreate(t *testing.T, s object.Store) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 300_000, 6<<20 + 3} {
		name := fmt.Sprintf("sizes/%d", size)
		content := Content(name, size)
		created, err := s.Create(t.Context(), name, bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		if created.Name != name || created.Size != int64(size) || created.Modified.IsZero() {
			t.Errorf("Create: %+v, want name %s and size %d and a date", created, name, size)
		}
		if algorithm, value, ok := strings.Cut(created.Checksum, ":"); !ok || algorithm == "" || value == "" || strings.ToLower(value) != value {
			t.Errorf("Create: checksum %q, want algorithm:value", created.Checksum)
		}
		if stat, err := object.Stat(t.Context(), s, name); err != nil || !same(stat, created) {
			t.Errorf("Stat: %+v, %v, want %+v as Create said", stat, err, created)
		}
		r, opened, err := s.Open(t.Context(), name, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if opened.Checksum == "" {
			opened.Checksum = created.Checksum
		}
		if !same(opened, created) {
			t.Errorf("Open: %+v, want %+v as Create said", opened, created)
		}
		if size < 10_000 {
			// It reads with buffers of all kinds, and fails if anything but io.EOF ends
			// it.
			err = iotest.TestReader(struct{ io.Reader }{r}, content)
		} else if got, readErr := io.ReadAll(r); readErr != nil || !bytes.Equal(got, content) {
			err = fmt.Errorf("%d bytes, %v, want the %d created", len(got), readErr, size)
		}
		if err != nil {
			t.Errorf("read %s: %v", name, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		listed := list(t, s, name, "")
		if len(listed) != 1 {
			t.Fatalf("List: %v, want %s alone", listed, name)
		}
		if listed[0].Checksum == "" {
			listed[0].Checksum = created.Checksum
		}
		if !same(listed[0], created) {
			t.Errorf("List: %+v, want %+v as Create said", listed[0], created)
		}
	}
	if a, b := stat(t, s, "sizes/4095"), stat(t, s, "sizes/4097"); a.Checksum == b.Checksum {
		t.Errorf("two contents have the same checksum %s", a.Checksum)
	}
}

// Readers may deliver their bytes in every way that io.Reader allows.
func testCreateReader(t *testing.T, s object.Store) {
	content := Content("reader", 70_000)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte at a time":     iotest.OneByteReader,
		"half of what was asked": iotest.HalfReader,
		"end beside the data":    iotest.DataErrReader,
		"nothing in between":     func(r io.Reader) io.Reader { return &pausingReader{r: r} },
		"a pipe": func(r io.Reader) io.Reader {
			pr, pw := io.Pipe()
			go func() {
				_, err := io.Copy(pw, r)
				pw.CloseWithError(err)
			}()
			return pr
		},
	} {
		if _, err := s.Create(t.Context(), name, wrap(bytes.NewReader(content))); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := read(t, s, name); !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes of other content, want the %d written", name, len(got), len(content))
		}
	}
}

// A taken name stays what it is, whatever is to be put there.
func testCreateTaken(t *testing.T, s object.Store) {
	first := create(t, s, "folder/taken", []byte("the first"))
	for _, content := range []string{"another", "the first", "", strings.Repeat("long", 1<<19)} {
		if _, err := s.Create(t.Context(), "folder/taken", strings.NewReader(content)); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("second Create: %v, want fs.ErrExist", err)
		} else if !strings.Contains(err.Error(), "folder/taken") {
			t.Errorf("the error %q does not name the object", err)
		}
		if got := read(t, s, "folder/taken"); string(got) != "the first" {
			t.Fatalf("a refused Create left %q", got)
		}
	}
	if now := stat(t, s, "folder/taken"); !same(now, first) {
		t.Errorf("refused creates made %+v of %+v", now, first)
	}
	if got := names(list(t, s, "", "")); !slices.Equal(got, []string{"folder/taken"}) {
		t.Errorf("refused creates left %q", got)
	}
}

// Of many that race for a name one wins, is told so, and its whole content is what stands
// there; in folders that do not exist before the race as in those that do.
func testCreateRace(t *testing.T, s object.Store) {
	const racers = 12
	rounds := times(12, 6)
	for round := range rounds {
		name := fmt.Sprintf("race/%d/deep/name", round/2*2)
		if round%2 == 1 {
			name = fmt.Sprintf("race/%d/deep/other name", round-1)
		}
		contents := make([][]byte, racers)
		errs := make([]error, racers)
		infos := make([]object.Info, racers)
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range racers {
			contents[i] = Content(fmt.Sprint(round, i), 1000+i*7919)
			all.Go(func() {
				<-start
				infos[i], errs[i] = s.Create(t.Context(), name, bytes.NewReader(contents[i]))
			})
		}
		close(start)
		all.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("%s: both %d and %d won", name, winner, i)
			case !errors.Is(err, fs.ErrExist):
				t.Fatalf("%s: a loser was told %v, want fs.ErrExist", name, err)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody won", name)
		}
		if !bytes.Equal(read(t, s, name), contents[winner]) {
			t.Fatalf("%s: the content is not the winner's", name)
		}
		if now := stat(t, s, name); !same(now, infos[winner]) {
			t.Fatalf("%s: Stat says %+v, the winner was told %+v", name, now, infos[winner])
		}
	}
	if got := list(t, s, "race/", ""); len(got) != rounds {
		t.Errorf("%d objects after %d races", len(got), rounds)
	}
}

// An error of the reader is handed back and leaves nothing, wherever it comes; an
// unexpected end is an error, too.
func testCreateReaderFails(t *testing.T, s object.Store) {
	broken := errors.New("the source broke")
	for _, cause := range []error{broken, io.ErrUnexpectedEOF} {
		for _, after := range []int{0, 1, 5000, 300_000, 6 << 20} {
			for _, beside := range []bool{false, true} {
				var r io.Reader = io.MultiReader(bytes.NewReader(Content("", after)), iotest.ErrReader(cause))
				if beside {
					r = iotest.DataErrReader(r)
				}
				name := "fails/here"
				if _, err := s.Create(t.Context(), name, r); !errors.Is(err, cause) || errors.Is(err, fs.ErrExist) {
					t.Fatalf("reader failed after %d bytes with %v, Create: %v", after, cause, err)
				}
				wantNothing(t, s, name)
			}
		}
	}
	create(t, s, "fails/here", []byte("now"))
}

// A context that ends before, or while the reader is read, leaves nothing.
func testCreateContext(t *testing.T, s object.Store) {
	done, cancel := context.WithCancel(t.Context())
	cancel()
	touched := &cancellingReader{cancel: func() {}}
	if _, err := s.Create(done, "never", touched); !errors.Is(err, context.Canceled) {
		t.Errorf("Create with a context that was done: %v", err)
	}
	if touched.read > 0 {
		t.Errorf("Create with a context that was done read %d bytes", touched.read)
	}
	wantNothing(t, s, "never")
	for _, at := range []int{0, 1, 100_000, 7 << 20} {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := s.Create(ctx, "never", &cancellingReader{at: at, cancel: cancel}); !errors.Is(err, context.Canceled) {
			t.Errorf("Create cancelled after %d bytes: %v", at, err)
		}
		wantNothing(t, s, "never")
	}
	create(t, s, "never", []byte("say never"))
}

// Each range is what it says, at the edges, too; offsets outside are errors.
func testOpenRanges(t *testing.T, s object.Store) {
	const size = 100_000
	content := Content("ranges", size)
	create(t, s, "ranges", content)
	create(t, s, "empty", nil)
	for _, c := range []struct {
		name   string
		off, n int64
	}{
		{"ranges", 0, -1}, {"ranges", 0, 1}, {"ranges", 0, size}, {"ranges", 0, size + 1}, {"ranges", 0, 1 << 62},
		{"ranges", 1, -1}, {"ranges", 1, 1}, {"ranges", 4095, 2}, {"ranges", 50_000, 33_333}, {"ranges", size - 1, -1},
		{"ranges", size - 1, 1}, {"ranges", size - 1, 5}, {"ranges", size - 1, 1<<63 - 1}, {"ranges", size, -1},
		{"ranges", size, 1}, {"ranges", 0, 0}, {"ranges", 5, 0}, {"ranges", size, 0}, {"ranges", 7, -99},
		{"empty", 0, -1}, {"empty", 0, 0}, {"empty", 0, 1},
	} {
		whole := content
		if c.name == "empty" {
			whole = nil
		}
		want := whole[c.off:]
		if c.n >= 0 && c.n < int64(len(want)) {
			want = want[:c.n]
		}
		r, info, err := s.Open(t.Context(), c.name, c.off, c.n)
		if err != nil {
			t.Errorf("Open(%s, %d, %d): %v", c.name, c.off, c.n, err)
			continue
		}
		if info.Name != c.name || info.Size != int64(len(whole)) {
			t.Errorf("Open(%s, %d, %d): %+v, want the whole object's %d bytes", c.name, c.off, c.n, info, len(whole))
		}
		if c.n == 0 && info.Checksum == "" {
			t.Errorf("Open(%s, %d, 0) has no checksum", c.name, c.off)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Open(%s, %d, %d): %d bytes, %v, want %d", c.name, c.off, c.n, len(got), err, len(want))
		}
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for _, off := range []int64{-1, -1 << 63, size + 1, 1<<63 - 1} {
		for _, n := range []int64{-1, 0, 1, 1<<63 - 1} {
			if _, _, err := s.Open(t.Context(), "ranges", off, n); !errors.Is(err, object.ErrRange) {
				t.Errorf("Open(%d, %d) of %d bytes: %v, want ErrRange", off, n, size, err)
			}
		}
	}
	if _, _, err := s.Open(t.Context(), "empty", 1, -1); !errors.Is(err, object.ErrRange) {
		t.Errorf("Open(1, -1) of an empty object: %v, want ErrRange", err)
	}
	r, _, err := s.Open(t.Context(), "ranges", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close of a reader that is not at its end: %v", err)
	}
}

// What is not there is fs.ErrNotExist, whatever is asked and whatever lies around it.
func testOpenMissing(t *testing.T, s object.Store) {
	wantNothing(t, s, "a")
	create(t, s, "a/b", []byte("b"))
	for _, name := range kept(t, s, []string{"a", "a/c", "a/b/c", "a/b/c/d", "a/b.", "A/B", "b", "a/bb", strings.Repeat("x", 700)}) {
		for _, n := range []int64{-1, 0, 1} {
			if _, _, err := s.Open(t.Context(), name, 0, n); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Open(%s, 0, %d): %v, want fs.ErrNotExist", name, n, err)
			} else if !strings.Contains(err.Error(), name) {
				t.Errorf("the error %q does not name %s", err, name)
			}
		}
		if _, err := object.ReadAll(t.Context(), s, name, 10); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadAll(%s): %v, want fs.ErrNotExist", name, err)
		}
		if err := s.Delete(t.Context(), name); err != nil {
			t.Errorf("Delete(%s): %v, want nil", name, err)
		}
	}
	if got := names(list(t, s, "", "")); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("deleting what is not there left %q", got)
	}
}

// A context that ends stops the opening and the reading.
func testOpenContext(t *testing.T, s object.Store) {
	content := Content("context", 3<<20)
	create(t, s, "context", content)
	ctx, cancel := context.WithCancel(t.Context())
	r, _, err := s.Open(ctx, "context", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if got, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("reading on after the context ended: %d bytes, %v", len(got), err)
	}
	for _, n := range []int64{-1, 0, 1} {
		if _, _, err := s.Open(ctx, "context", 0, n); !errors.Is(err, context.Canceled) {
			t.Errorf("Open with a context that was done: %v", err)
		}
	}
}

// A reader whose object is deleted goes on or fails.
func testOpenDeleted(t *testing.T, s object.Store) {
	content := Content("deleted", 3<<20)
	create(t, s, "deleted", content)
	r, _, err := s.Open(t.Context(), "deleted", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Delete(t.Context(), "deleted"); err != nil {
		t.Fatal(err)
	}
	create(t, s, "deleted", Content("its successor", 4<<20))
	if got, err := io.ReadAll(r); !bytes.HasPrefix(content, got) || err == nil && len(got) < len(content) {
		t.Errorf("%d bytes, %v: want those of the deleted object, or an error", len(got), err)
	}
}

// ordered has names in byte order, where a slash sorts among other bytes.
var ordered = []string{
	"A", "Z/z", "a b", "a!/b", "a!b", "a%2fb", "a+/x", "a+b", "a-b", "a-b/c", "a.b", "a/-", "a/0", "a/b", "a/b-c/d", "a/b.c/d", "a/b/c",
	"a/b0", "a/c/d/e", "a/é", "a0", "a0/0", "aa", "a~", "aé/b", "aé0", "aü", "b", "b-/x", "b.", "b0", "é", "é/é", "日本", "日本語/テスト", "🗝",
}

// Listings are in the order of the names' bytes, not of folders, and cut exactly at
// prefix and after.
func testListOrder(t *testing.T, s object.Store) {
	// "a/b" and "a/b/c" can't both be objects.
	all := slices.DeleteFunc(slices.Clone(ordered), func(name string) bool {
		return slices.ContainsFunc(ordered, func(other string) bool { return strings.HasPrefix(other, name+"/") })
	})
	if !slices.IsSorted(all) || len(all) < 25 {
		t.Fatalf("the names of this test are out of order: %q", all)
	}
	shuffled := slices.Clone(all)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, name := range shuffled {
		create(t, s, name, []byte(name))
	}
	beginnings := map[string]bool{"": true, "nothing": true, "a/b/c/d": true, "a/..": true, "a/b/.": true, "\U0010FFFD": true}
	for _, name := range ordered {
		beginnings[name], beginnings[name+"/"], beginnings[name+" "] = true, true, true
		for i := range name {
			beginnings[name[:i]] = true
		}
	}
	type listing struct{ prefix, after string }
	var listings []listing
	for prefix := range beginnings {
		for _, after := range []string{"", prefix, prefix + "!", "a/b", "a-b/", "b"} {
			listings = append(listings, listing{prefix, after})
		}
	}
	for after := range beginnings {
		for _, prefix := range []string{"", "a", "a/", "a/b"} {
			listings = append(listings, listing{prefix, after})
		}
	}
	// A map's order is random, so the first are others with each run.
	for _, l := range listings[:times(len(listings), 150)] {
		wantList(t, s, all, l.prefix, l.after)
	}
}

// Listings of random names equal what filtering a sorted slice gives.
func testListRandom(t *testing.T, s object.Store) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	alphabet := []string{"a", "b", "-", ".x", "/", "/", "/a", "%", " ", "é", "0", "~", strings.Repeat("w", 90), strings.Repeat("%", 40)}
	random := func() string {
		var name strings.Builder
		for range 1 + rnd.IntN(7) {
			name.WriteString(alphabet[rnd.IntN(len(alphabet))])
		}
		return name.String()
	}
	folders := map[string]bool{}
	var all []string
	for len(all) < 150 {
		name := random()
		if object.ValidName(name) != nil || folders[name] || slices.Contains(all, name) || !keeps(s, name) {
			continue
		}
		above := foldersOf(name)
		if slices.ContainsFunc(above, func(f string) bool { return slices.Contains(all, f) }) {
			continue
		}
		for _, f := range above {
			folders[f] = true
		}
		all = append(all, name)
	}
	createMany(t, s, all)
	slices.Sort(all)
	compared := 0
	for range times(500, 120) {
		prefix, after := "", ""
		if rnd.IntN(4) > 0 {
			prefix = cut(rnd, random(), all)
		}
		if rnd.IntN(2) > 0 {
			after = cut(rnd, random(), all)
		}
		if object.ValidPrefix(prefix) == nil && object.ValidPrefix(after) == nil {
			wantList(t, s, all, prefix, after)
			compared++
		}
	}
	if compared < 50 {
		t.Errorf("only %d listings compared", compared)
	}
}

// cut returns a random string, or a name, or the beginning of a name.
func cut(rnd *rand.Rand, random string, all []string) string {
	name := all[rnd.IntN(len(all))]
	switch rnd.IntN(4) {
	case 0:
		return random
	case 1:
		return name
	default:
		return name[:rnd.IntN(len(name)+1)]
	}
}

// foldersOf returns the folders in which name lies.
func foldersOf(name string) (folders []string) {
	for i := range len(name) {
		if name[i] == '/' {
			folders = append(folders, name[:i])
		}
	}
	return folders
}

// More names than a page of a bucket's listing come all, once, in order; the sequence can
// be left, used again and continued elsewhere, and its loop body may use the store.
func testListMany(t *testing.T, s object.Store) {
	many, piece := 1600, 97
	if page := limits(s).Page; page > 0 {
		many, piece = 3*page+page/2, page
	}
	var all []string
	for i := range many {
		all = append(all, fmt.Sprintf("many/%d/%04x", i%3, i*7919%65536))
	}
	createMany(t, s, all)
	slices.Sort(all)
	sequence := s.List(t.Context(), "many/", "")
	for range 2 {
		var got []string
		for info, err := range sequence {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, info.Name)
			if len(got)%(many/4) == 0 {
				if now := stat(t, s, info.Name); now.Size != info.Size {
					t.Fatalf("%s has %d bytes, listed were %d", info.Name, now.Size, info.Size)
				}
			}
		}
		if !slices.Equal(got, all) {
			t.Fatalf("%d names, want all %d in order", len(got), len(all))
		}
	}
	var got []string
	for after, uses := "", 0; ; uses++ {
		before := len(got)
		for info, err := range s.List(t.Context(), "many/", after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, info.Name)
			if len(got)-before == piece {
				break
			}
		}
		if len(got) == before {
			if uses != (many+piece-1)/piece {
				t.Errorf("%d uses of a listing for %d names", uses, many)
			}
			break
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, all) {
		t.Errorf("%d names in pieces, want all %d in order", len(got), len(all))
	}
}

// What exists throughout a listing is listed once, whatever else comes and goes in its
// folders; the listing never fails.
func testListChanging(t *testing.T, s object.Store) {
	var stay []string
	for i := range 60 {
		stay = append(stay, fmt.Sprintf("changing/%d/%d/stays", i%7, i))
	}
	createMany(t, s, stay)
	slices.Sort(stay)
	stop := make(chan struct{})
	var changers sync.WaitGroup
	for c := range 3 {
		changers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("changing/%d/%d/goes-%d/x", i%7, i%60, c)
				if _, err := s.Create(t.Context(), name, strings.NewReader("x")); err != nil {
					t.Errorf("Create: %v", err)
					return
				}
				if err := s.Delete(t.Context(), name); err != nil {
					t.Errorf("Delete: %v", err)
					return
				}
			}
		})
	}
	for range times(20, 8) {
		var got []string
		last := ""
		for info, err := range s.List(t.Context(), "changing/", "") {
			if err != nil {
				t.Errorf("List: %v", err)
				break
			}
			if info.Name <= last {
				t.Errorf("%s listed after %s", info.Name, last)
			}
			last = info.Name
			if strings.HasSuffix(info.Name, "/stays") {
				got = append(got, info.Name)
			}
		}
		if !slices.Equal(got, stay) {
			t.Errorf("%d names, want the %d that stay", len(got), len(stay))
		}
	}
	close(stop)
	changers.Wait()
}

// A context that ends is the next thing a listing says, and the last.
func testListContext(t *testing.T, s object.Store) {
	createMany(t, s, []string{"a", "b/c", "b/d", "e"})
	for after := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		if after == 0 {
			cancel()
		}
		var got []string
		var errs []error
		for info, err := range s.List(ctx, "", "") {
			if err != nil {
				errs = append(errs, err)
				if info != (object.Info{}) {
					t.Errorf("the error comes with %+v", info)
				}
				continue
			}
			if got = append(got, info.Name); len(got) == after {
				cancel()
			}
		}
		cancel()
		if len(got) != after || len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
			t.Errorf("cancelled after %d names: %q, %v", after, got, errs)
		}
	}
}

// A prefix that no name can have is a mistake of the caller, and is told.
func testListBadPrefix(t *testing.T, s object.Store) {
	create(t, s, "a/b", nil)
	tried := 0
	for _, bad := range badNames {
		if object.ValidPrefix(bad) == nil {
			continue
		}
		tried++
		for _, sequence := range []func() (prefix, after string){
			func() (string, string) { return bad, "" },
			func() (string, string) { return "", bad },
		} {
			prefix, after := sequence()
			var errs []error
			for info, err := range s.List(t.Context(), prefix, after) {
				if err == nil {
					t.Errorf("List(%.40q, %.40q) yields %s", prefix, after, info.Name)
				}
				errs = append(errs, err)
			}
			if len(errs) != 1 || !errors.Is(errs[0], fs.ErrInvalid) {
				t.Errorf("List(%.40q, %.40q): %v, want fs.ErrInvalid", prefix, after, errs)
			}
		}
	}
	if tried < 5 {
		t.Errorf("only %d prefixes tried", tried)
	}
}

// Deleting takes one object and nothing else, can be repeated, and frees the name.
func testDelete(t *testing.T, s object.Store) {
	createMany(t, s, []string{"a/b/c", "a/b/d", "a/e", "f"})
	want := func(all ...string) {
		t.Helper()
		if got := names(list(t, s, "", "")); !slices.Equal(got, all) {
			t.Fatalf("left are %q, want %q", got, all)
		}
	}
	for _, folder := range []string{"a", "a/b"} {
		if err := s.Delete(t.Context(), folder); err != nil {
			t.Errorf("Delete of %s, which is a folder only: %v", folder, err)
		}
	}
	want("a/b/c", "a/b/d", "a/e", "f")
	for range 2 {
		if err := s.Delete(t.Context(), "a/b/c"); err != nil {
			t.Fatal(err)
		}
		want("a/b/d", "a/e", "f")
		if _, _, err := s.Open(t.Context(), "a/b/c", 0, -1); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("Open after Delete: %v", err)
		}
	}
	create(t, s, "a/b/c", []byte("again"))
	if got := read(t, s, "a/b/c"); string(got) != "again" {
		t.Errorf("created again: %q", got)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Delete(done, "f"); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete with a context that was done: %v", err)
	}
	want("a/b/c", "a/b/d", "a/e", "f")
	// A folder is gone with its last object, and its name is free.
	for _, name := range []string{"a/b/c", "a/b/d", "a/e"} {
		if err := s.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	want("f")
	create(t, s, "a", []byte("an object now"))
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	create(t, s, "a/b", []byte("a folder again"))
	want("a/b", "f")
}

// Creating and deleting in the same folders at the same time disturb each other in
// nothing.
func testDeleteBesideCreates(t *testing.T, s object.Store) {
	var all sync.WaitGroup
	for w := range 6 {
		all.Go(func() {
			for i := range times(60, 20) {
				name := fmt.Sprintf("beside/%d/deep/%d", i%2, w)
				if _, err := s.Create(t.Context(), name, strings.NewReader(name)); err != nil {
					t.Errorf("Create: %v", err)
					return
				}
				if got, err := object.ReadAll(t.Context(), s, name, 100); err != nil || string(got) != name {
					t.Errorf("ReadAll: %q, %v", got, err)
					return
				}
				if err := s.Delete(t.Context(), name); err != nil {
					t.Errorf("Delete: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	if got := names(list(t, s, "", "")); len(got) > 0 {
		t.Errorf("left are %q", got)
	}
}

// oddNames are valid names that some file system, URL or shell would rather not have.
var oddNames = []string{
	" ", "  leading and trailing  ", "a%b", "%", "%%", "%2e%2e", "%2F", "%tmp/x", "%folded", "a%zz", "a+b c&d=e?f#g", `q"u'o<t>e|s*:;\`, "~", "-rf",
	"$HOME", "...", ".hidden", "..x/x..", "x./.x", "NUL", "con.txt", "Case", "case", "CASE/x", "case2/x", "Case2/x", "é", "e\u0301", "É", "ß", "日本語/テスト",
	"🗝/👩‍👩‍👧", "\u202Ertl", "\u200B", "\uFEFFbom", "\uFFFD", "{}[]()!,@^`", "trailing.", "trailing ", "a\u00A0b", "a\\b",
	strings.Repeat("l", 255), strings.Repeat("m", 256), strings.Repeat("n", object.MaxName), strings.Repeat("%", object.MaxName),
	strings.Repeat("é", object.MaxName/2), strings.Repeat("o", 300) + "/" + strings.Repeat("o", 300) + "/" + strings.Repeat("o", 100),
	strings.Repeat("p", 199), strings.Repeat("p", 200) + "/x", strings.Repeat("p", 201) + "/x", strings.Repeat("p", 200) + " ", strings.Repeat("p", 200) + "z",
	strings.Repeat("q/", object.MaxName/2-1) + "q", strings.Repeat("🗝", 100) + "." + strings.Repeat("%", 100),
}

// Names that are valid are kept byte for byte, apart from their likes.
func testNamesOdd(t *testing.T, s object.Store) {
	oddNames := kept(t, s, oddNames)
	if len(oddNames) < 40 {
		t.Fatalf("only %d names are left", len(oddNames))
	}
	for _, name := range oddNames {
		if err := object.ValidName(name); err != nil {
			t.Fatal(err)
		}
		create(t, s, name, []byte("content of "+name))
	}
	for _, name := range oddNames {
		if got := read(t, s, name); string(got) != "content of "+name {
			t.Errorf("%q contains %q", name, got)
		}
		if got := stat(t, s, name); got.Name != name {
			t.Errorf("Stat(%q) is about %q", name, got.Name)
		}
		if _, err := s.Create(t.Context(), name, strings.NewReader("")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("second Create(%q): %v", name, err)
		}
	}
	sorted := slices.Sorted(slices.Values(oddNames))
	for _, prefix := range append([]string{""}, oddNames...) {
		for _, after := range []string{"", prefix, "%", "p"}[:times(4, 2)] {
			wantList(t, s, sorted, prefix, after)
		}
	}
	for _, name := range oddNames {
		if err := s.Delete(t.Context(), name); err != nil {
			t.Errorf("Delete(%q): %v", name, err)
		}
	}
	wantList(t, s, nil, "", "")
}

// badNames are refused by every store.
var badNames = []string{
	"", "/", "/a", "a/", "a//b", "a/./b", "a/../b", ".", "..", "../a", "a/..", "./a", "a/.", "\x00", "a\x00b", "a\nb", "a\tb", "\x7f", "a\u0085b",
	"\xff", "a/\xc3", "\xed\xa0\x80", "a\uFFFE", "\uFFFFa", `\a`, strings.Repeat("n", object.MaxName+1), strings.Repeat("é", object.MaxName/2+1),
}

// Names that are not valid are refused by every method, before anything is read.
func testNamesRefused(t *testing.T, s object.Store) {
	for _, name := range badNames {
		r := &cancellingReader{cancel: func() {}}
		if _, err := s.Create(t.Context(), name, r); !errors.Is(err, fs.ErrInvalid) || r.read > 0 {
			t.Errorf("Create(%.40q): %v after %d bytes, want fs.ErrInvalid", name, err, r.read)
		}
		for _, n := range []int64{-1, 0} {
			if _, _, err := s.Open(t.Context(), name, 0, n); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Open(%.40q): %v, want fs.ErrInvalid", name, err)
			}
		}
		if err := s.Delete(t.Context(), name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Delete(%.40q): %v, want fs.ErrInvalid", name, err)
		}
		if _, _, err := object.Decide(t.Context(), s, name, nil, 10); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Decide(%.40q): %v, want fs.ErrInvalid", name, err)
		}
	}
	wantList(t, s, nil, "", "")
}

// A name that is an object and a folder is kept or refused, and what was there first
// stays.
func testNamesObjectAndFolder(t *testing.T, s object.Store) {
	for _, c := range [][2]string{{"a", "a/b"}, {"c", "c/d/e"}, {"f/g", "f"}, {"h/i/j", "h"}, {"k/l/m", "k/l"}} {
		create(t, s, c[0], []byte("first"))
		_, err := s.Create(t.Context(), c[1], strings.NewReader("second"))
		if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Create(%s) beside %s: %v, want another error or none", c[1], c[0], err)
		}
		if err == nil {
			if got := read(t, s, c[1]); string(got) != "second" {
				t.Errorf("%s contains %q", c[1], got)
			}
		} else {
			wantNothing(t, s, c[1], c[0])
		}
		if got := read(t, s, c[0]); string(got) != "first" {
			t.Errorf("%s contains %q", c[0], got)
		}
	}
}

// All who decide a name at the same time are told the same, and one that it is its own.
func testDecideRace(t *testing.T, s object.Store) {
	for round := range times(8, 4) {
		name := fmt.Sprintf("slots/%d", round)
		standing := make([][]byte, 8)
		mine := make([]bool, len(standing))
		var all sync.WaitGroup
		for i := range standing {
			all.Go(func() {
				var err error
				if standing[i], mine[i], err = object.Decide(t.Context(), s, name, fmt.Appendf(nil, "decider %d", i), 100); err != nil {
					t.Errorf("Decide: %v", err)
				}
			})
		}
		all.Wait()
		winners := 0
		for i := range standing {
			if !bytes.Equal(standing[i], standing[0]) {
				t.Errorf("%s: one was told %q, another %q", name, standing[0], standing[i])
			}
			if mine[i] {
				winners++
				if want := fmt.Sprintf("decider %d", i); string(standing[i]) != want {
					t.Errorf("%s: %q was told that %q is its own", name, want, standing[i])
				}
			}
		}
		if winners != 1 {
			t.Errorf("%s: %d winners", name, winners)
		}
	}
}

// Random calls one after the other have the results that a map of contents has.
func testModel(t *testing.T, s object.Store) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	model := map[string][]byte{}
	for range times(800, 250) {
		name := fmt.Sprintf("m/%c/%d", 'a'+rnd.IntN(4), rnd.IntN(6))
		content, there := model[name]
		switch rnd.IntN(5) {
		case 0, 1:
			content := Content(name, rnd.IntN(3000))
			_, err := s.Create(t.Context(), name, bytes.NewReader(content))
			if there != errors.Is(err, fs.ErrExist) || !there && err != nil {
				t.Fatalf("Create(%s): %v, and it is %v that there is one", name, err, there)
			}
			if !there {
				model[name] = content
			}
		case 2:
			got, err := object.ReadAll(t.Context(), s, name, 3000)
			if there != (err == nil) || !there && !errors.Is(err, fs.ErrNotExist) || !bytes.Equal(got, content) {
				t.Fatalf("ReadAll(%s): %d bytes, %v, want %d", name, len(got), err, len(content))
			}
		case 3:
			if err := s.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			delete(model, name)
		case 4:
			var all []string
			for name := range model {
				all = append(all, name)
			}
			slices.Sort(all)
			wantList(t, s, all, []string{"", "m/", "m/b", "m/c/"}[rnd.IntN(4)], []string{"", name}[rnd.IntN(2)])
		}
	}
}

// Content returns size bytes that follow from the name, so that an object found later can
// be checked by itself.
func Content(name string, size int) []byte {
	var seed [32]byte
	for i, b := range []byte(name) {
		seed[i%32] = seed[i%32]*31 + b
	}
	content := make([]byte, size)
	if _, err := rand.NewChaCha8(seed).Read(content); err != nil {
		panic("objecttest: " + err.Error()) // it never returns an error
	}
	return content
}

// same compares what two calls of a store say about one object.
func same(a, b object.Info) bool {
	equal := a.Modified.Equal(b.Modified)
	a.Modified = b.Modified
	return equal && a == b
}

func create(t *testing.T, s object.Store, name string, content []byte) object.Info {
	t.Helper()
	info, err := s.Create(t.Context(), name, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// createMany creates objects side by side, each with its name as its content.
func createMany(t *testing.T, s object.Store, names []string) {
	t.Helper()
	next := make(chan string)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for name := range next {
				if _, err := s.Create(t.Context(), name, strings.NewReader(name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, name := range names {
		next <- name
	}
	close(next)
	workers.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func read(t *testing.T, s object.Store, name string) []byte {
	t.Helper()
	content, err := object.ReadAll(t.Context(), s, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func stat(t *testing.T, s object.Store, name string) object.Info {
	t.Helper()
	info, err := object.Stat(t.Context(), s, name)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func list(t *testing.T, s object.Store, prefix, after string) (all []object.Info) {
	t.Helper()
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info)
	}
	return all
}

func names(all []object.Info) (names []string) {
	for _, info := range all {
		names = append(names, info.Name)
	}
	return names
}

// wantList compares a listing with what filtering all names, which are sorted, gives.
func wantList(t *testing.T, s object.Store, all []string, prefix, after string) {
	t.Helper()
	var want []string
	for _, name := range all {
		if strings.HasPrefix(name, prefix) && name > after {
			want = append(want, name)
		}
	}
	if got := names(list(t, s, prefix, after)); !slices.Equal(got, want) {
		t.Fatalf("List(%q, %q):\n got %q\nwant %q", prefix, after, got, want)
	}
}

// wantNothing fails if anything of the object can be seen, or any object but those named.
func wantNothing(t *testing.T, s object.Store, name string, but ...string) {
	t.Helper()
	for _, n := range []int64{-1, 0} {
		if _, _, err := s.Open(t.Context(), name, 0, n); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("Open(%s): %v, want fs.ErrNotExist", name, err)
		}
	}
	for _, info := range list(t, s, "", "") {
		if info.Name == name || len(but) == 0 {
			t.Fatalf("there is %s of %d bytes, want nothing", info.Name, info.Size)
		}
	}
}

// cancellingReader delivers 16 MiB of zeros, and calls cancel once it has delivered at
// bytes.
type cancellingReader struct {
	at, read int
	cancel   func()
}

func (r *cancellingReader) Read(p []byte) (int, error) {
	if r.read >= r.at {
		r.cancel()
	}
	n := min(len(p), 16<<20-r.read)
	if r.read < r.at {
		n = min(n, r.at-r.read)
	}
	if n == 0 {
		return 0, io.EOF
	}
	r.read += n
	return n, nil
}

// pausingReader delivers nothing in every other Read.
type pausingReader struct {
	r     io.Reader
	pause bool
}

func (r *pausingReader) Read(p []byte) (int, error) {
	if r.pause = !r.pause; r.pause {
		return 0, nil
	}
	return r.r.Read(p)
}

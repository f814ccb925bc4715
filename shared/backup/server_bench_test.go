package backup_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/sidebyside"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// A recorder is a transport that keeps the requests of one operation.
type recorder struct {
	next http.RoundTripper
	path string
	mu   sync.Mutex
	all  []recordedRequest
}

type recordedRequest struct {
	request *http.Request // without a body
	body    []byte
}

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Path != r.path {
		return r.next.RoundTrip(q)
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	if err := q.Body.Close(); err != nil {
		return nil, err
	}
	kept := q.Clone(context.WithoutCancel(q.Context()))
	kept.Body, kept.ContentLength = nil, int64(len(body))
	r.mu.Lock()
	r.all = append(r.all, recordedRequest{kept, body})
	r.mu.Unlock()
	q = q.Clone(q.Context())
	q.Body = io.NopCloser(bytes.NewReader(body))
	return r.next.RoundTrip(q)
}

// through is the workshop with clients whose requests go through the recorder.
func (w *workshop) through(b *testing.B, r *recorder) *workshop {
	b.Helper()
	c, err := tablestore.New(tablestore.Config{
		Endpoint: w.server.URL(), Instance: "local", Transport: r,
		Credentials: access.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret}.Provider(),
	})
	if err != nil {
		b.Fatal(err)
	}
	i := *w.instance
	i.Client, i.taped = c, c
	return &workshop{instance: &i, repo: w.repo, n: w.n + 1000}
}

// serve answers recorded requests, as they come over the eight connections of a worker,
// and keeps nothing of the answers.
func serve(s *ots.Server, all []recordedRequest) error {
	var next atomic.Int64
	var group guard.Group
	for range 8 {
		group.Go(func() error {
			for {
				n := next.Add(1) - 1
				if n >= int64(len(all)) {
					return nil
				}
				q := *all[n].request
				q.Body = io.NopCloser(bytes.NewReader(all[n].body))
				w := nowhere{header: http.Header{}}
				if s.ServeHTTP(&w, &q); w.status != http.StatusOK {
					return fmt.Errorf("%s is answered %d", q.URL.Path, w.status)
				}
			}
		})
	}
	return group.Wait()
}

// nowhere is a ResponseWriter that keeps nothing but the status.
type nowhere struct {
	header http.Header
	status int
}

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) WriteHeader(status int)      { w.status = status }
func (w *nowhere) Write(b []byte) (int, error) { return len(b), nil }

// takeLeast does with recorded requests what no server could leave out: it reads the
// bodies and makes their sums, one at a time.
func takeLeast(all []recordedRequest) error {
	var body bytes.Buffer
	for i := range all {
		body.Reset()
		if _, err := body.ReadFrom(bytes.NewReader(all[i].body)); err != nil {
			return err
		}
		if sum := md5.Sum(body.Bytes()); base64.StdEncoding.EncodeToString(sum[:]) != all[i].request.Header.Get("X-Ots-Contentmd5") {
			return fmt.Errorf("request %d has another sum", i)
		}
	}
	return nil
}

// BenchmarkServerBesideWorkers holds the local Tablestore against the workers that it is
// there to test: what an export takes of a core over what serving its pages takes, and
// the same of an import and its batches, in memory and in a folder. With a core for each,
// a worker waits for the server where a ratio is below 1. Both sides are whole but for
// the network: a worker reads its shards from the vault or writes them there, and makes,
// sums and signs its requests; the server checks sums and signatures, and answers.
// Neither pays for HTTP. How fast any server could be is told by one that only makes the
// sums of its requests.
//
//	go test -run '^$' -bench ServerBeside -benchtime 1x -cpu 1 ./shared/backup
func BenchmarkServerBesideWorkers(b *testing.B) {
	forSpeedShapes(b, func(b *testing.B, w *workshop) {
		source, err := w.export(b.Context()) // all requests, for the tape
		if err != nil {
			b.Fatal(err)
		}
		pages := &recorder{next: w.server, path: "/GetRange"}
		if _, err := w.through(b, pages).export(b.Context()); err != nil {
			b.Fatal(err)
		}
		if progress, err := w.planner().Tick(b.Context(), w.run(), source); err != nil || progress.Manifest == nil {
			b.Fatalf("the backup is not sealed: %+v, %v", progress, err)
		}
		// Each import goes into a table of its own, whose name its batches have.
		begin := func(w *workshop, name string) (load func() error, err error) {
			p := &restore.Planner{Repo: w.repo, Tables: w, Work: w, Log: slog.New(slog.DiscardHandler)}
			l := &restore.Loader{Repo: w.repo, Tables: w, Work: w, Log: p.Log}
			target := benchID
			target.Table = name
			plan, err := p.Begin(b.Context(), w.run(), restore.Request{Backup: source, Target: target, At: time.Now()})
			if err != nil {
				return nil, err
			}
			return func() error {
				for _, s := range plan.Segments {
					if _, err := l.Load(b.Context(), w.run(), fanout.Work{Restore: plan.Restore, Segment: s.ID}); err != nil {
						return err
					}
				}
				return nil
			}, nil
		}
		batches := &recorder{next: w.server, path: "/BatchWriteRow"}
		load, err := begin(w.through(b, batches), "recorded")
		if err == nil {
			err = load()
		}
		if err != nil {
			b.Fatal(err)
		}
		if len(pages.all) == 0 || len(batches.all) == 0 {
			b.Fatalf("%d pages and %d batches are recorded", len(pages.all), len(batches.all))
		}
		take := func(config func() ots.Config) func() (time.Duration, error) {
			return func() (time.Duration, error) {
				s, err := ots.New(config())
				if err != nil {
					return 0, err
				}
				d, err2 := w.server.Engine().Definition("recorded")
				if err2 != nil {
					return 0, err2
				}
				fresh := *d
				if err := s.Engine().CreateTable(&fresh); err != nil {
					return 0, err
				}
				took, err := sidebyside.CPU(func() error { return serve(s, batches.all) })
				if err != nil {
					return 0, err
				}
				return took, s.Close()
			}
		}
		n := 0
		times := sidebyside.Measure(b, 5,
			sidebyside.Here("serve", func() error { return serve(w.server, pages.all) }),
			sidebyside.Here("export", func() error { _, err := w.export(b.Context()); return err }),
			sidebyside.Here("take-least", func() error { return takeLeast(batches.all) }),
			sidebyside.Work{Name: "take", Do: take(func() ots.Config { return ots.Config{} })},
			sidebyside.Work{Name: "take-durably", Do: take(func() ots.Config { return ots.Config{Dir: b.TempDir()} })},
			sidebyside.Work{Name: "import", Do: func() (time.Duration, error) {
				n++
				load, err := begin(w, fmt.Sprint("taped", n))
				if err != nil {
					return 0, err
				}
				return sidebyside.CPU(load)
			}})
		times.Report(b, "export", "serve")
		times.Report(b, "import", "take")
		times.Report(b, "import", "take-durably")
		times.Report(b, "import", "take-least")
	})
}

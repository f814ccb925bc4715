package tablestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// TestRetry puts every kind of failure in the way of a scan. It ends with all rows where
// the failure passes, and at once where it cannot.
func TestRetry(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Always})
	c := connect(t, s)
	def := definition()
	create(t, c, def)
	var want [][]byte
	for i := range 500 {
		want = append(want, row("u", int64(i), cell("x", 7, strings.Repeat("y", 300))))
	}
	write(t, c, "t", table.Put, want...)
	for name, test := range map[string]struct {
		fault *ots.Fault
		end   error // nil if the scan goes on
	}{
		"busy":               {fault: ots.Refuse(engine.CodeServerBusy, "")},
		"storage busy":       {fault: ots.Refuse(engine.CodeStorageServerBusy, "")},
		"internal":           {fault: ots.Refuse(engine.CodeInternal, "")},
		"timeout":            {fault: ots.Refuse(engine.CodeTimeout, "")},
		"unavailable":        {fault: ots.Refuse(engine.CodeServerUnavailable, "")},
		"partition":          {fault: ots.Refuse(engine.CodePartitionNotReady, "")},
		"not ready":          {fault: ots.Refuse(engine.CodeTableNotReady, "")},
		"conflict":           {fault: ots.Refuse(engine.CodeRowConflict, "")},
		"request timeout":    {fault: ots.Refuse(engine.CodeRequestTimeout, "")},
		"capacity":           {fault: ots.Refuse(engine.CodeNotEnoughCapacity, "")},
		"capacity exhausted": {fault: ots.Refuse(engine.CodeCapacityExhausted, "")},
		"flow control":       {fault: ots.Refuse(engine.CodeFlowControl, "")},
		"throttled":          {fault: ots.Refuse(engine.CodeOperationThrottled, "")},
		"too frequent":       {fault: ots.Refuse(engine.CodeQuotaExhausted, "Too frequent table operations.")},
		"proxy":              {fault: &ots.Fault{Err: &engine.Error{Code: "x"}, Status: 502, Body: []byte("<html>bad gateway")}},
		"balancer":           {fault: &ots.Fault{Err: &engine.Error{Code: "x"}, Status: 503, Body: []byte{}}},
		"unknown code, 429":  {fault: &ots.Fault{Err: &engine.Error{Code: "OTSNew"}, Status: 429}},
		"unknown code, 500":  {fault: &ots.Fault{Err: &engine.Error{Code: "OTSNew"}, Status: 500}},
		"cut":                {fault: &ots.Fault{Cut: ots.CutSilent}},
		"cut in the middle":  {fault: &ots.Fault{Cut: ots.CutMiddle}},
		"unknown code, 400":  {fault: &ots.Fault{Err: &engine.Error{Code: "OTSNew"}, Status: 400}, end: table.ErrInvalid},
		"quota":              {fault: ots.Refuse(engine.CodeQuotaExhausted, "Number of tables exceeds the quota:64."), end: table.ErrInvalid},
		"authentication":     {fault: ots.Refuse(engine.CodeAuthFailed, ""), end: table.ErrAuth},
		"permission":         {fault: ots.Refuse(engine.CodeNoPermission, ""), end: table.ErrPermission},
		"not found":          {fault: ots.Refuse(engine.CodeObjectNotExist, ""), end: table.ErrNotExist},
		"not the service":    {fault: &ots.Fault{Err: &engine.Error{Code: "x"}, Status: 404, Body: []byte("<html>no such page")}, end: table.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			first := s.Calls("GetRange")
			s.SetFault(func(_, _ string, n int) *ots.Fault {
				if n-first < 2 || test.end != nil {
					return test.fault
				}
				return nil
			})
			rows, pages, err := tryCollect(t.Context(), c.Scan("t", def.Schema, def.Schema.Whole()), make([]byte, 1<<20))
			if !errors.Is(err, test.end) {
				t.Fatalf("error %v, want %v", err, test.end)
			}
			if test.end != nil {
				if n := s.Calls("GetRange") - first; n != 1 {
					t.Errorf("%d requests, want one", n)
				}
				return
			}
			same(t, rows, want)
			if n := s.Calls("GetRange") - first; n != pages+2 {
				t.Errorf("%d requests for %d pages, want two more", n, pages)
			}
		})
	}
}

func TestThrottledIsSaid(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	def := definition()
	create(t, c, def)
	first := s.Calls("GetRange")
	s.SetFault(func(_, _ string, n int) *ots.Fault {
		if n == first {
			return ots.Refuse(engine.CodeFlowControl, "slow down")
		}
		return nil
	})
	for _, want := range []int{1, 0} {
		told := 0
		ctx := table.OnThrottled(t.Context(), func() { told++ })
		if _, err := c.Scan("t", def.Schema, def.Schema.Whole()).Next(ctx, make([]byte, 1<<20)); err != nil || told != want {
			t.Errorf("told %d times, %v; want %d", told, err, want)
		}
	}
}

// TestRefusedRowsAreSaid refuses some rows of a batch for want of capacity, in both ways
// that the service has for it: whoever asked is told, and they are written.
func TestRefusedRowsAreSaid(t *testing.T) {
	for _, code := range []string{engine.CodeNotEnoughCapacity, engine.CodeServerBusy} {
		s := otstest.Run(t, ots.Config{})
		c := connect(t, s)
		create(t, c, definition())
		s.SetFault(func(op, _ string, n int) *ots.Fault {
			if op != "BatchWriteRow" || n > 1 {
				return nil
			}
			return &ots.Fault{Rows: map[int]*engine.Error{1: engine.Refusal(code), 2: engine.Refusal(code)}}
		})
		batch := c.NewBatch()
		for i := range 5 {
			batch.Add(row("u", int64(i), cell("x", 1, "y")), table.Put)
		}
		told := 0
		result, err := c.Write(table.OnThrottled(t.Context(), func() { told++ }), "t", batch)
		// The first attempt has both, the second has the two rows alone, of which it is
		// the second that is refused.
		if err != nil || len(result.Refused) > 0 || told != 2 || s.Calls("BatchWriteRow") != 3 {
			t.Errorf("%s: told %d times in %d requests, refused %v, %v", code, told, s.Calls("BatchWriteRow"), result.Refused, err)
		}
		if rows, _ := collect(t, c.Scan("t", definition().Schema, definition().Schema.Whole()), 1<<20); len(rows) != 5 {
			t.Errorf("%s: %d rows", code, len(rows))
		}
	}
}

// TestAim asks for small pages of rows whose size is not known before.
func TestAim(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())
	var rows [][]byte
	for i := range 300 {
		rows = append(rows, row("u", int64(i), cell("x", 1, strings.Repeat("z", 500))))
	}
	write(t, c, "t", table.Put, rows...)
	const aim = 16 << 10
	scan := c.Scan("t", definition().Schema, definition().Schema.Whole())
	scan.Aim(aim)
	pages, total := 0, 0
	for next := definition().Schema.Whole().Start; next != nil; pages++ {
		page, err := scan.Next(t.Context(), make([]byte, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Block) > aim*5/4 || page.ReadUnits > aim/4096+1 {
			t.Errorf("page %d has %d bytes for %d units", pages, len(page.Block), page.ReadUnits)
		}
		total += len(page.Block)
		next = page.Next
	}
	if most := 2 + 2*total/aim; pages > most {
		t.Errorf("%d pages of %d bytes, want at most %d", pages, total, most)
	}
}

// TestCorruptAnswer flips every byte of the last page of a range, which no checksum
// inside of it may cover, over the whole wire.
func TestCorruptAnswer(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Always})
	flip := &flipper{next: http.DefaultTransport, at: -1}
	c := connect(t, s, func(config *tablestore.Config) { config.Transport = flip })
	def := definition()
	create(t, c, def)
	want := [][]byte{row("a", 1, cell("x", 2, "y")), row("b", 1)}
	write(t, c, "t", table.Put, want...)
	scan := func() []collected {
		rows, _ := collect(t, c.Scan("t", def.Schema, def.Schema.Whole()), 1<<20)
		return rows
	}
	scan()
	if flip.size < 50 {
		t.Fatalf("an answer of %d bytes", flip.size)
	}
	for at := range flip.size {
		flip.at = at
		same(t, scan(), want)
		if flip.at != -1 {
			t.Fatalf("byte %d was not flipped", at)
		}
	}
}

// flipper changes one bit of one answer of GetRange.
type flipper struct {
	next     http.RoundTripper
	at, size int
}

func (f *flipper) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := f.next.RoundTrip(r)
	if err != nil || r.URL.Path != "/GetRange" {
		return res, err
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		return nil, err
	}
	if err := res.Body.Close(); err != nil {
		return nil, err
	}
	f.size = body.Len()
	if f.at >= 0 {
		body.Bytes()[f.at] ^= 4
		f.at = -1
	}
	res.Body = http.NoBody
	res.Body = struct {
		*bytes.Buffer
		nopCloser
	}{&body, nopCloser{}}
	return res, nil
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// TestSlowAnswer has answers that come later than an attempt may take.
func TestSlowAnswer(t *testing.T) {
	inBubble(t, ots.Config{}, func(t *testing.T, s *ots.Server, connect func(...func(*tablestore.Config)) *tablestore.Client) {
		c := connect(func(config *tablestore.Config) { config.Retry.Attempt = 300 * time.Millisecond })
		def := definition()
		create(t, c, def)
		write(t, c, "t", table.Put, row("u", 1))
		first := s.Calls("GetRange")
		s.SetFault(func(_, _ string, n int) *ots.Fault {
			if n < first+2 {
				return &ots.Fault{Delay: time.Second}
			}
			return nil
		})
		began := time.Now()
		rows, pages := collect(t, c.Scan("t", def.Schema, def.Schema.Whole()), 1<<20)
		same(t, rows, [][]byte{row("u", 1)})
		if n := s.Calls("GetRange") - first; n != pages+2 {
			t.Errorf("%d requests for %d pages, want two more", n, pages)
		}
		if took := time.Since(began); took < 600*time.Millisecond || took > 700*time.Millisecond {
			t.Errorf("it took %s, want twice the time of an attempt and two short pauses", took)
		}
	})
}

// TestUnreachable asks where nothing listens: it takes Retry.Unreachable, not
// Retry.Total, and says where.
func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connectAt(t, "http://127.0.0.1:9", func(config *tablestore.Config) { config.Transport = nobody{} })
		began := time.Now()
		_, err := c.Describe(t.Context(), "t")
		if !errors.Is(err, table.ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1:9") || !strings.Contains(err.Error(), "check the endpoint") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took != 200*time.Millisecond {
			t.Errorf("it took %s", took)
		}
	})
}

// nobody refuses connections, as a host does where nothing listens.
type nobody struct{}

func (nobody) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Body.Close(); err != nil {
		return nil, err
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// TestNobodyListens is TestUnreachable with the real network's error.
func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = connectAt(t, "http://"+addr).Describe(t.Context(), "t")
	if !errors.Is(err, table.ErrUnavailable) || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "check the endpoint") {
		t.Errorf("error %v", err)
	}
}

// TestBadCertificate asks a server whose certificate nobody vouches for: that is told at
// once, since no repetition mends it.
func TestBadCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	var connections atomic.Int32
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.StartTLS()
	defer s.Close()
	_, err := connectAt(t, s.URL).Describe(t.Context(), "t")
	if !errors.Is(err, table.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error %v", err)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want one", n)
	}
}

// TestCancel ends calls in the middle of a request and in the middle of a pause.
func TestCancel(t *testing.T) {
	for name, fault := range map[string]*ots.Fault{
		"request": {Delay: time.Hour},
		"pause":   ots.Refuse(engine.CodeServerBusy, "busy"),
	} {
		for _, call := range []string{"scan", "write", "describe"} {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s, late: %t", name, call, late), func(t *testing.T) {
					inBubble(t, ots.Config{}, func(t *testing.T, s *ots.Server, connect func(...func(*tablestore.Config)) *tablestore.Client) {
						def := definition()
						create(t, connect(), def)
						s.SetFault(func(string, string, int) *ots.Fault { return fault })
						c := connect(func(config *tablestore.Config) {
							config.Retry = tablestore.Retry{First: time.Minute, Longest: time.Minute, Total: time.Hour, Attempt: time.Hour}
						})
						cancelled(t, name, late, func(ctx context.Context) (err error) {
							switch call {
							case "scan":
								_, err = c.Scan("t", def.Schema, def.Schema.Whole()).Next(ctx, make([]byte, 1<<20))
							case "write":
								b := c.NewBatch()
								b.Add(row("u", 1), table.Put)
								_, err = c.Write(ctx, "t", b)
							case "describe":
								_, err = c.Describe(ctx, "t")
							}
							return err
						})
					})
				})
			}
		}
	}
}

// cancelled has a call end after 50 ms, by its deadline or without one, and looks at its
// error. A pause has a reason, which the error of a deadline keeps.
func cancelled(t *testing.T, name string, late bool, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	want := context.Canceled
	if late {
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		want = context.DeadlineExceeded
	} else {
		time.AfterFunc(50*time.Millisecond, cancel)
	}
	defer cancel()
	began := time.Now()
	err := do(ctx)
	if !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
	if late && name == "pause" && (!errors.Is(err, table.ErrUnavailable) || !strings.Contains(err.Error(), "busy")) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took != 50*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}

// TestProgress writes against a service that takes one row of a batch at a time: that
// goes on for longer than a call without success may.
func TestProgress(t *testing.T) {
	inBubble(t, ots.Config{}, func(t *testing.T, s *ots.Server, connect func(...func(*tablestore.Config)) *tablestore.Client) {
		c := connect(func(config *tablestore.Config) { config.Retry.Total = 100 * time.Millisecond })
		create(t, c, definition())
		s.SetFault(func(string, string, int) *ots.Fault {
			rows := map[int]*engine.Error{}
			for i := 1; i < 20; i++ {
				rows[i] = &engine.Error{Code: engine.CodeNotEnoughCapacity, Message: "slow down"}
			}
			return &ots.Fault{Rows: rows, Delay: 20 * time.Millisecond}
		})
		b := c.NewBatch()
		for i := range 20 {
			b.Add(row("u", int64(i)), table.Put)
		}
		began := time.Now()
		if result, err := c.Write(t.Context(), "t", b); err != nil || len(result.Refused) > 0 {
			t.Errorf("%v, %+v", err, result)
		}
		if n := s.Calls("BatchWriteRow"); n != 20 {
			t.Errorf("%d requests, want 20", n)
		}
		if took := time.Since(began); took < 400*time.Millisecond {
			t.Errorf("it took %s, which is less than the answers' delays", took)
		}
	})
}

func TestSignatures(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	def := definition()
	create(t, connect(t, s), def)
	asked := 0
	s.SetKeys(ots.Key{ID: "STS.x", Secret: "y", Token: "z/+="})
	for _, v4 := range []bool{false, true} {
		c := connect(t, s, func(config *tablestore.Config) {
			config.SignV4, config.Region = v4, "cn-hangzhou"
			config.Credentials = func(context.Context) (access.Key, error) {
				asked++
				return access.Key{ID: "STS.x", Secret: "y", Token: "z/+="}, nil
			}
		})
		if _, err := c.Describe(t.Context(), "t"); err != nil {
			t.Errorf("v4 %t: %v", v4, err)
		}
	}
	if asked != 4 {
		t.Errorf("credentials were asked for %d times by 4 requests", asked)
	}
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	creds := access.Key{ID: "the-id", Secret: "the-secret", Token: "the-token"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "creds", creds, "pointer", &creds)
	for _, text := range []string{fmt.Sprint(creds), fmt.Sprintf("%v %+v %#v %s %q", creds, creds, creds, creds, creds), fmt.Sprintf("%+v", struct{ C access.Key }{creds}), log.String()} {
		if strings.Contains(text, "the-secret") || strings.Contains(text, "the-token") || !strings.Contains(text, "the-id") {
			t.Errorf("printed as %s", text)
		}
	}
}

func TestNew(t *testing.T) {
	good := tablestore.Config{
		Endpoint: "https://i.cn-hangzhou.ots.aliyuncs.com/", Instance: "i",
		Credentials: access.Key{}.Provider(),
	}
	if c, err := tablestore.New(good); err != nil || c.String() != "i at https://i.cn-hangzhou.ots.aliyuncs.com" {
		t.Errorf("%v, %v", c, err)
	}
	for want, change := range map[string]func(*tablestore.Config){
		"no endpoint":                   func(c *tablestore.Config) { c.Endpoint = "" },
		"is no address":                 func(c *tablestore.Config) { c.Endpoint = "i.cn-hangzhou.ots.aliyuncs.com" },
		"the endpoint is no address":    func(c *tablestore.Config) { c.Endpoint = "://secret@x" },
		"more than a scheme":            func(c *tablestore.Config) { c.Endpoint += "path?x=y" },
		"no name of an instance":        func(c *tablestore.Config) { c.Instance = "" },
		"\"evil.example#\" is no name":  func(c *tablestore.Config) { c.Instance = "evil.example#" },
		"\"evil.example/x\" is no name": func(c *tablestore.Config) { c.Instance = "evil.example/x" },
		"\"a.b\" is no name":            func(c *tablestore.Config) { c.Instance = "a.b" },
		"\"u@h\" is no name":            func(c *tablestore.Config) { c.Instance = "u@h" },
		"no credentials":                func(c *tablestore.Config) { c.Credentials = nil },
		"version 4":                     func(c *tablestore.Config) { c.SignV4 = true },
		"the endpoint has more":         func(c *tablestore.Config) { c.Endpoint = "https://x:secret@host" },
	} {
		bad := good
		change(&bad)
		if _, err := tablestore.New(bad); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

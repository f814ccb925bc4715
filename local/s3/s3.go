// Package s3 runs an S3 server that others wrote on this machine, for tests: versitygw
// over a directory. It is built from the module in the folder versitygw, whose
// dependencies are kept apart from those of the module that ships, and whatever stands
// between client and server is under the test's hand with a [Proxy].
//
//	server := s3.RunT(t)
//	server.CreateBucket(ctx, "vault", s3.Locked)
//
// A test for which the server is not built yet is skipped, and says so. With
// TEST_S3_SERVER=required in the environment it is built, and a test that can't have it
// fails.
package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Region is the region that the server says it is in.
const Region = "us-east-1"

// Server is a running server.
type Server struct {
	// URL is its endpoint, http://127.0.0.1:PORT. Its buckets are addressed with their
	// names in the path.
	URL string
	// KeyID and Secret are its only key pair.
	KeyID, Secret string
	// Dir has a folder per bucket in which each object is a file under its name.
	Dir string

	process *exec.Cmd
	ended   chan struct{}
	log     string
}

// ErrNotBuilt is matched by the error of Find about a server that was not built on this
// machine.
var ErrNotBuilt = errors.New("versitygw is not built on this machine; TEST_S3_SERVER=required builds it, which takes minutes")

// Find returns the path of the server if it was built before, which takes a second, and
// ErrNotBuilt if not.
func Find(ctx context.Context) (string, error) {
	// What would be done is known without doing it, and without the network. The program
	// itself is built always, its packages are in the cache or not.
	plan, err := command(ctx, "go", "build", "-n", "-o", os.DevNull, "github.com/versity/versitygw/cmd/versitygw")
	if err != nil {
		return "", err
	}
	plan.Env = append(plan.Env, "GOPROXY=off")
	steps, err := plan.CombinedOutput()
	if err != nil || bytes.Count(steps, []byte("/compile ")) > 1 {
		return "", ErrNotBuilt
	}
	return Build(ctx)
}

// Build builds the server, or finds it built, and returns its path.
func Build(ctx context.Context) (string, error) {
	build, err := command(ctx, "go", "tool", "-n", "versitygw")
	if err != nil {
		return "", err
	}
	path, err := output(build)
	if err != nil {
		return "", fmt.Errorf("build versitygw: %w", err)
	}
	return path, nil
}

// command is a command in the server's module.
func command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	root, err := output(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/tablevault/tablevault"))
	if err != nil {
		return nil, fmt.Errorf("find this module: %w", err)
	}
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = filepath.Join(root, "local", "s3", "versitygw")
	// Neither a workspace nor flags that are meant for this module apply to that one.
	c.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	return c, nil
}

func output(c *exec.Cmd) (string, error) {
	out, err := c.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return "", fmt.Errorf("%s: %w: %.500s", strings.Join(c.Args, " "), err, exit.Stderr)
		}
		return "", fmt.Errorf("%s: %w", strings.Join(c.Args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Start starts the server over an empty directory, in which the file system must keep
// extended attributes. It runs until Close.
func Start(ctx context.Context, binary, dir string) (*Server, error) {
	var key [24]byte
	rand.Read(key[:])
	s := &Server{
		KeyID: "TEST" + hex.EncodeToString(key[:8]), Secret: hex.EncodeToString(key[8:]),
		Dir: filepath.Join(dir, "buckets"), log: filepath.Join(dir, "log"),
	}
	versions := filepath.Join(dir, "versions")
	for _, folder := range []string{s.Dir, versions} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			return nil, fmt.Errorf("start versitygw: %w", err)
		}
	}
	// A port that is free now may be taken a moment later.
	var err error
	for range 5 {
		if err = s.start(ctx, binary, versions); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// whileParentLives runs a command until the shell's standard input comes to its end, as
// it does when this process ends in whatever way.
const whileParentLives = `exec 3<&0; (cat <&3 >/dev/null; kill -9 $$) & exec "$0" "$@" </dev/null 3<&-`

// start starts the process on some free port and waits until it answers.
func (s *Server) start(ctx context.Context, binary, versions string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	address := listener.Addr().String()
	listener.Close()
	log, err := os.Create(s.log)
	if err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	defer log.Close()
	s.process = exec.Command("sh", "-c", whileParentLives, binary, "--port", address, "--region", Region, "--health", "/health", "--quiet", "--keep-alive",
		"posix", "--versioning-dir", versions, s.Dir)
	s.process.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+s.KeyID, "ROOT_SECRET_ACCESS_KEY="+s.Secret)
	s.process.Stdout, s.process.Stderr = log, log
	if _, err := s.process.StdinPipe(); err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func() {
		s.process.Wait()
		close(ended)
	}()
	s.URL = "http://" + address
	for {
		if answer, err := http.Get(s.URL + "/health"); err == nil {
			answer.Body.Close()
			select {
			case <-ended: // another process answered on that port
			default:
				return nil
			}
		}
		select {
		case <-ctx.Done():
			s.Close()
			return fmt.Errorf("start versitygw: %w", ctx.Err())
		case <-ended:
			said, _ := os.ReadFile(s.log)
			return fmt.Errorf("start versitygw: it ended: %.500s", said)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Close ends the server. What it stored stays in Dir.
func (s *Server) Close() error {
	select {
	case <-s.ended:
		return nil
	default:
	}
	err := s.process.Process.Kill()
	<-s.ended
	return err
}

// Locking says whether a bucket has Object Lock, and with it versions.
type Locking bool

// The two kinds of buckets.
const (
	Plain  Locking = false
	Locked Locking = true
)

// CreateBucket makes a bucket.
func (s *Server) CreateBucket(ctx context.Context, name string, locking Locking) error {
	_, err := s.Client().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name, ObjectLockEnabledForBucket: aws.Bool(bool(locking))})
	return err
}

// SetVersioning switches the versions of a bucket on, or suspends them.
func (s *Server) SetVersioning(ctx context.Context, name string, on bool) error {
	status := types.BucketVersioningStatusSuspended
	if on {
		status = types.BucketVersioningStatusEnabled
	}
	_, err := s.Client().PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
		Bucket: &name, VersioningConfiguration: &types.VersioningConfiguration{Status: status},
	})
	return err
}

// Client is the SDK's client of the server, for what a test sets up and looks at by
// itself.
func (s *Server) Client() *s3.Client {
	return s3.New(s3.Options{
		Region: Region, BaseEndpoint: &s.URL, UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: s.KeyID, SecretAccessKey: s.Secret}, nil
		}),
	})
}

// Uploads counts the multipart uploads in a bucket that were begun and neither completed
// nor aborted.
func (s *Server) Uploads(ctx context.Context, bucket string) (int, error) {
	count := 0
	pages := s3.NewListMultipartUploadsPaginator(s.Client(), &s3.ListMultipartUploadsInput{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return count, err
		}
		count += len(page.Uploads)
	}
	return count, nil
}

// Required reports whether the environment has TEST_S3_SERVER=required: then no test may
// be skipped.
func Required() bool { return os.Getenv("TEST_S3_SERVER") == "required" }

// binary finds the server once in a process.
var binary = sync.OnceValues(func() (string, error) {
	if Required() {
		return Build(context.Background())
	}
	return Find(context.Background())
})

// RunT starts a server that ends with the test, or skips the test if there is none.
func RunT(t testing.TB) *Server {
	t.Helper()
	unavailable := t.Skipf
	if Required() {
		unavailable = t.Fatalf
	}
	path, err := binary()
	if err != nil {
		unavailable("%s needs an S3 server: %v", t.Name(), err)
	}
	server, err := Start(t.Context(), path, t.TempDir())
	if err != nil {
		unavailable("%s needs an S3 server: %v", t.Name(), err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

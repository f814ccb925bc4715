// Package uploader_test measures how fast the S3 store streams a body of unknown length, beside the SDK's own uploader.
package uploader_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/object/s3"
	"github.com/tablevault/tablevault/shared/sidebyside"
)

// BenchmarkBesideUploader sends the same body both ways in turns, in one run against one server. It reports how long the
// SDK's uploader takes for what the store takes a second for: by the clock, and in CPU time of this process.
//
//	go test -C local/s3/uploader -mod=mod -run '^$' -bench . -benchtime 1x
func BenchmarkBesideUploader(b *testing.B) {
	const size, rounds = 256 << 20, 7
	server := local.RunT(b)
	if err := server.CreateBucket(b.Context(), "vault", local.Plain); err != nil {
		b.Fatal(err)
	}
	config, err := s3.Parse("s3://vault?region=" + local.Region + "&endpoint=" + server.URL)
	if err != nil {
		b.Fatal(err)
	}
	config.Credentials = func(context.Context) (s3.Credentials, error) {
		return s3.Credentials{ID: server.KeyID, Secret: server.Secret}, nil
	}
	store, err := s3.Open(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	options := server.Client().Options()
	options.HTTPClient = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	manager := transfermanager.New(sdk.New(options))
	ours := func(name string) error {
		info, err := store.Create(b.Context(), name, &zeros{left: size})
		if err == nil && info.Size != size {
			err = fmt.Errorf("%d bytes", info.Size)
		}
		return err
	}
	theirs := func(name string) error {
		_, err := manager.UploadObject(b.Context(), &transfermanager.UploadObjectInput{
			Bucket: aws.String("vault"), Key: &name, Body: &zeros{left: size}, IfNoneMatch: aws.String("*"),
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
		})
		return err
	}
	upload := func(kind string, create func(string) error) func() error {
		n := 0
		return func() error {
			n++
			name := fmt.Sprintf("%s/%d", kind, n)
			if err := create(name); err != nil {
				return err
			}
			_, err := server.Client().DeleteObject(b.Context(), &sdk.DeleteObjectInput{Bucket: aws.String("vault"), Key: &name})
			return err
		}
	}
	cpu := sidebyside.Times{}
	work := func(name string, do func() error) sidebyside.Work {
		if err := do(); err != nil { // the first warms up
			b.Fatal(err)
		}
		return sidebyside.Work{Name: name, Do: func() (time.Duration, error) {
			started := time.Now()
			took, err := sidebyside.CPU(do)
			cpu[name] = append(cpu[name], took)
			return time.Since(started), err
		}}
	}
	b.SetBytes(2 * size)
	clock := sidebyside.Measure(b, rounds, work("uploader", upload("uploader", theirs)), work("store", upload("store", ours)))
	b.ReportMetric(clock.Ratio("uploader", "store"), "uploader/store-clock")
	b.ReportMetric(cpu.Ratio("uploader", "store"), "uploader/store-cpu")
}

// zeros delivers so many bytes, and can't be rewound.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), z.left)]
	z.left -= int64(len(p))
	return len(p), nil
}

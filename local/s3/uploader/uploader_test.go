// Package uploader_test measures how fast the S3 store streams a body of unknown length, beside the SDK's own uploader.
package uploader_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/object/s3"
)

// Both send the same body in turns, in one run against one server; the medians are compared.
func TestThroughput(t *testing.T) {
	const size, rounds = 256 << 20, 5
	server := local.RunT(t)
	if err := server.CreateBucket(t.Context(), "vault", local.Plain); err != nil {
		t.Fatal(err)
	}
	config, err := s3.Parse("s3://vault?region=" + local.Region + "&endpoint=" + server.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.Credentials = func(context.Context) (s3.Credentials, error) {
		return s3.Credentials{ID: server.KeyID, Secret: server.Secret}, nil
	}
	store, err := s3.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	options := server.Client().Options()
	options.HTTPClient = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	manager := transfermanager.New(sdk.New(options))
	ours := func(name string) error {
		info, err := store.Create(t.Context(), name, &zeros{left: size})
		if err == nil && info.Size != size {
			err = fmt.Errorf("%d bytes", info.Size)
		}
		return err
	}
	theirs := func(name string) error {
		_, err := manager.UploadObject(t.Context(), &transfermanager.UploadObjectInput{
			Bucket: aws.String("vault"), Key: &name, Body: &zeros{left: size}, IfNoneMatch: aws.String("*"),
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
		})
		return err
	}
	var took [2][]time.Duration
	for round := range rounds + 1 {
		for w, upload := range []func(string) error{ours, theirs} {
			started := time.Now()
			name := fmt.Sprintf("%d/%d", w, round)
			if err := upload(name); err != nil {
				t.Fatal(err)
			}
			if round > 0 { // the first warms up
				took[w] = append(took[w], time.Since(started))
			}
			if _, err := server.Client().DeleteObject(t.Context(), &sdk.DeleteObjectInput{Bucket: aws.String("vault"), Key: &name}); err != nil {
				t.Fatal(err)
			}
		}
	}
	mb := func(all []time.Duration) float64 {
		slices.Sort(all)
		return size / 1e6 / all[len(all)/2].Seconds()
	}
	mine, sdks := mb(took[0]), mb(took[1])
	t.Logf("%d MB, median of %d: the store %.0f MB/s, the SDK's uploader %.0f MB/s, ratio %.2f", size/1000000, rounds, mine, sdks, mine/sdks)
	if mine < 0.9*sdks {
		t.Errorf("the store is slower than the SDK's uploader by more than the noise of a shared machine")
	}
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

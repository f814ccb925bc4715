// Package uploader_test measures how fast the S3 store streams a body of unknown length,
// beside the SDK's own uploader.
package uploader_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object/objecttest"
	"github.com/tablevault/tablevault/shared/object/s3"
)

// BenchmarkBesideUploader sends the same body both ways, in parts of the same size and as
// many at once: those of the store's defaults, and those of the uploader's.
//
//	go test -C local/s3/uploader -mod=mod -run '^$' -bench . -benchtime 1x
func BenchmarkBesideUploader(b *testing.B) {
	const size = 256 << 20
	server := local.RunT(b)
	if err := server.CreateBucket(b.Context(), "vault", local.Plain); err != nil {
		b.Fatal(err)
	}
	config, err := s3.Parse("s3://vault?region=" + local.Region + "&endpoint=" + server.URL)
	if err != nil {
		b.Fatal(err)
	}
	config.Credentials = access.Key{ID: server.KeyID, Secret: server.Secret}.Provider()
	for _, c := range []struct{ part, parallel int }{{5, 4}, {8, 5}} {
		b.Run(fmt.Sprintf("%dx%dMiB", c.parallel, c.part), func(b *testing.B) {
			config.PartSize, config.Parallel = int64(c.part)<<20, c.parallel
			store, err := s3.Open(b.Context(), config)
			if err != nil {
				b.Fatal(err)
			}
			options := server.Client().Options()
			options.HTTPClient = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
			manager := transfermanager.New(sdk.New(options), func(o *transfermanager.Options) {
				o.PartSizeBytes, o.Concurrency = int64(c.part)<<20, c.parallel
			})
			ours := func(name string) error {
				info, err := store.Create(b.Context(), name, &objecttest.Noise{Left: size})
				if err == nil && info.Size != size {
					err = fmt.Errorf("%d bytes", info.Size)
				}
				return err
			}
			theirs := func(name string) error {
				_, err := manager.UploadObject(b.Context(), &transfermanager.UploadObjectInput{
					Bucket: aws.String("vault"), Key: &name, Body: &objecttest.Noise{Left: size}, IfNoneMatch: aws.String("*"),
					ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
				})
				return err
			}
			objecttest.BesideUploader(b, size, ours, theirs, func(name string) error {
				_, err := server.Client().DeleteObject(b.Context(), &sdk.DeleteObjectInput{Bucket: aws.String("vault"), Key: &name})
				return err
			})
		})
	}
}

package oss_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	local "github.com/tablevault/tablevault/local/oss"
	shared "github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// Streaming takes no more memory for two gigabytes than for ten parts, the server's in
// this process included.
func TestMemory(t *testing.T) {
	server := serve(t, local.Config{}, local.BucketConfig{})
	objecttest.Memory(t, open(t, configure(t, server, "", "")), 64<<20)
}

// BenchmarkBesideUploader sends the same file with the store and with the SDK's own
// uploader, which takes nothing but files: in parts of the same size and as many at once,
// over transports of the same kind, with the uploader comparing the CRC-64 of each part
// and refusing to overwrite.
//
//	go test -run '^$' -bench BesideUploader -benchtime 1x ./shared/object/oss
func BenchmarkBesideUploader(b *testing.B) {
	const size, partSize, parallel = 256 << 20, 5 << 20, 4
	server := serve(b, local.Config{}, local.BucketConfig{})
	store := open(b, configure(b, server, "", ""))
	bucket := handle(b, server, sdk.HTTPClient(shared.Client(nil)), sdk.EnableCRC(true))
	path := filepath.Join(b.TempDir(), "body")
	body, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer body.Close()
	if _, err := io.Copy(body, &objecttest.Noise{Left: size}); err != nil {
		b.Fatal(err)
	}
	ours := func(name string) error {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return err
		}
		info, err := store.Create(b.Context(), name, struct{ io.Reader }{body})
		if err == nil && info.Size != size {
			err = fmt.Errorf("%d bytes", info.Size)
		}
		return err
	}
	theirs := func(name string) error {
		return bucket.UploadFile(name, path, partSize, sdk.Routines(parallel), sdk.ForbidOverWrite(true))
	}
	objecttest.BesideUploader(b, size, ours, theirs, func(name string) error { return bucket.DeleteObject(name) })
}

package oss_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	local "github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// Streaming takes no more memory for two gigabytes than for ten parts, the server's in this process included.
func TestMemory(t *testing.T) {
	server := serve(t, local.Config{}, local.BucketConfig{})
	objecttest.Memory(t, open(t, configure(t, server, "", "")), 64<<20)
}

// The store and the SDK's own uploader send the same file, in parts of the same size and as many at once, in turns.
func TestThroughput(t *testing.T) {
	if !objecttest.Full() {
		t.Skip("a minute of measuring: with TEST_STORES=full")
	}
	const size, partSize, parallel = 256 << 20, 5 << 20, 4
	server := serve(t, local.Config{}, local.BucketConfig{})
	store := open(t, configure(t, server, "", ""))
	client, err := sdk.New(server.URL(), local.DefaultKeyID, local.DefaultKeySecret, sdk.AuthVersion(sdk.AuthV4), sdk.Region(local.DefaultRegion))
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := client.Bucket("vault")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "body")
	body, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.Copy(body, &objecttest.Noise{Left: size}); err != nil {
		t.Fatal(err)
	}
	ours := func(round int) error {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return err
		}
		name := fmt.Sprint("ours/", round)
		info, err := store.Create(t.Context(), name, struct{ io.Reader }{body})
		if err == nil && info.Size != size {
			err = fmt.Errorf("%d bytes", info.Size)
		}
		if err == nil {
			err = store.Delete(t.Context(), name)
		}
		return err
	}
	theirs := func(round int) error {
		name := fmt.Sprint("theirs/", round)
		if err := bucket.UploadFile(name, path, partSize, sdk.Routines(parallel), sdk.ForbidOverWrite(true)); err != nil {
			return err
		}
		return bucket.DeleteObject(name)
	}
	objecttest.Throughput(t, size, ours, theirs)
}

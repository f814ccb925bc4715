package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/local/suite"
)

// ossutilStep is one call of ossutil. In its arguments DIR is a folder with files to be
// copied.
type ossutilStep struct {
	name   string
	args   string
	prints []string // patterns that what it prints must match
	fails  bool     // with an exit code other than 0
}

// ossutilSteps are checks that go on from each other.
var ossutilSteps = []ossutilStep{
	{"mb", "mb oss://BUCKET", nil, false},
	{"ls", "ls", []string{`oss://BUCKET\b`, `Bucket Number is: [1-9]`}, false},
	{"stat of a bucket", "stat oss://BUCKET", []string{`Name\s*: BUCKET`, `ACL\s*: private`, `Owner\s*: 0`, `StorageClass\s*: Standard`}, false},
	{"cp -r up", "cp -r -f DIR/up oss://BUCKET/tree/ --bigfile-threshold 1000000 --part-size 500000", []string{`Succeed: Total num: 4,.*upload 3 files, 1 directories`}, false},
	{"cp -r up again, what is newer", "cp -r -u DIR/up oss://BUCKET/tree/", []string{`skip 4 files`}, false},
	{"ls of a prefix", "ls oss://BUCKET/tree/", []string{`oss://BUCKET/tree/small`, `oss://BUCKET/tree/deep/é 1`, `Object Number is: 4`}, false},
	{"ls -d", "ls -d oss://BUCKET/tree/", []string{`oss://BUCKET/tree/deep/`, `Object and Directory Number is: 3`}, false},
	{"ls in pages", "ls -s --limited-num 2 oss://BUCKET/", []string{`Object Number is: 2`}, false},
	{"stat", "stat oss://BUCKET/tree/big", []string{`Content-Length\s*: 2000017`, `X-Oss-Hash-Crc64ecma`, `ACL\s*: default`, `X-Oss-Object-Type\s*: Multipart`}, false},
	{"stat of nothing", "stat oss://BUCKET/none", []string{`NoSuchKey`}, true},
	{"du", "du oss://BUCKET/tree/", []string{`total object count:\s*4\b`, `total object sum size:\s*2000033`}, false},
	{"cp -r from a bucket to itself", "cp -r -f oss://BUCKET/tree/ oss://BUCKET/twin/ --bigfile-threshold 1000000 --part-size 500000", []string{`Succeed: Total num: 4,`}, false},
	{"cp -r down", "cp -r -f oss://BUCKET/twin/ DIR/down/ --bigfile-threshold 1000000 --part-size 500000", []string{`Succeed: Total num: [34],`}, false},
	{"cat", "cat oss://BUCKET/tree/small", []string{`^small`}, false},
	{"sign", "sign oss://BUCKET/tree/small --timeout 60", []string{`ignature=`}, false},
	{"rm of a bucket that is not empty", "rm -b -f oss://BUCKET", []string{`BucketNotEmpty`}, true},
	{"rm -r", "rm -r -f oss://BUCKET/twin/", []string{`Removed 4 objects`}, false},
	{"rm", "rm oss://BUCKET/tree/small", []string{`Removed 1 objects`}, false},
	{"rm -r -b", "rm -r -b -f oss://BUCKET", []string{`Removed Bucket: BUCKET`}, false},
	{"ls of a bucket that is gone", "ls oss://BUCKET", []string{`NoSuchBucket`}, true},
}

// useOssutil runs the steps with signatures of each version.
func useOssutil(ctx context.Context, server *oss.Server, dir string, out io.Writer) {
	for _, version := range []string{"v1", "v4"} {
		var flags []string
		if version == "v4" {
			flags = []string{"--sign-version", "v4", "--region", oss.DefaultRegion}
		}
		bucket, folder := "ossutil-"+version, filepath.Join(dir, version)
		if err := filesToCopy(filepath.Join(folder, "up")); err != nil {
			fmt.Fprintf(out, "FAIL  ossutil %s: %v\n", version, err)
			continue
		}
		places := strings.NewReplacer("BUCKET", bucket, "DIR", folder)
		for _, step := range ossutilSteps {
			args := append([]string{"./ossutil", "-e", server.URL(), "-i", oss.DefaultKeyID, "-k", oss.DefaultKeySecret}, flags...)
			for _, arg := range strings.Fields(step.args) {
				args = append(args, places.Replace(arg))
			}
			cmd := suite.Command(ctx, dir, args)
			cmd.Env = append(os.Environ(), "HOME="+dir) // its own settings and checkpoints
			text, err := cmd.CombinedOutput()
			bad := ""
			if (err != nil) != step.fails {
				bad = fmt.Sprint("it ended with ", err)
			}
			for _, pattern := range step.prints {
				if !regexp.MustCompile("(?m)" + places.Replace(pattern)).Match(text) {
					bad = "it does not print " + pattern
				}
			}
			if bad == "" && step.name == "cp -r down" {
				bad = sameFiles(filepath.Join(folder, "up"), filepath.Join(folder, "down"))
			}
			if bad != "" {
				fmt.Fprintf(out, "FAIL  ossutil %s %s: %s\n%s\n", version, step.name, bad, text)
				continue
			}
			fmt.Fprintf(out, "PASS  ossutil %s %s\n", version, step.name)
		}
	}
}

// filesToCopy makes three files, of which one is copied in parts.
func filesToCopy(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "deep"), 0o700); err != nil {
		return err
	}
	big := make([]byte, 2_000_017)
	rand.Read(big) // never fails
	for name, content := range map[string][]byte{"big": big, "small": []byte("small"), "deep/é 1": []byte("deep number")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// sameFiles says what is different in a folder, if something is.
func sameFiles(want, got string) string {
	for _, name := range []string{"big", "small", "deep/é 1"} {
		a, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			return err.Error()
		}
		if b, err := os.ReadFile(filepath.Join(got, name)); err != nil || !bytes.Equal(a, b) {
			return fmt.Sprintf("%s came back with %d bytes of %d: %v", name, len(b), len(a), err)
		}
	}
	return ""
}

package fc

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// putObject is what a file that appears in a watched folder counts as.
const putObject = "oss:ObjectCreated:PutObject"

// seen is a file as a look found it.
type seen struct {
	size     int64
	modified time.Time
}

// watch looks through the folder that stands for a bucket and fires the object triggers
// of each file that is new or was written anew, once it has stopped growing.
//
// An event's task id is made of the object, so that tasks which survive the host keep a
// host that looks for the first time from repeating what another did before, and let it
// make up for what appeared while there was none. Files older than that memory are left
// alone.
func (h *Host) watch(bucket, folder string) {
	prefixes := make(map[string]bool)
	for _, f := range h.config.Functions {
		for _, t := range f.Objects {
			if t.Bucket == bucket {
				// The folder that the prefix lies in.
				prefixes[t.Prefix[:strings.LastIndexByte(t.Prefix, '/')+1]] = true
			}
		}
	}
	fired, last := make(map[string]seen), make(map[string]seen)
	ticker := time.NewTicker(h.config.WatchEvery)
	defer ticker.Stop()
	said := ""
	for {
		now := make(map[string]seen)
		var errs []error
		for prefix := range prefixes {
			errs = append(errs, h.list(folder, prefix, bucket, now))
		}
		for key, is := range now {
			if is != last[key] || is == fired[key] {
				continue // it grows, or is known
			}
			if err := h.found(bucket, folder, key, is); err != nil {
				errs = append(errs, err)
				continue
			}
			fired[key] = is
		}
		last = now
		for key := range fired {
			if _, there := now[key]; !there {
				delete(fired, key)
			}
		}
		if err := errors.Join(errs...); err != nil && err.Error() != said {
			said = err.Error()
			h.log.print("host", fmt.Sprintf("watch bucket %s: %v", bucket, err))
		}
		select {
		case <-h.ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// list adds the files under a prefix that some trigger of the bucket is for.
func (h *Host) list(folder, prefix, bucket string, to map[string]seen) error {
	oldest := time.Now().Add(-taskMemory)
	err := filepath.WalkDir(filepath.Join(folder, filepath.FromSlash(prefix)), func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		key, err := filepath.Rel(folder, name)
		if err != nil {
			return err
		}
		key = filepath.ToSlash(key)
		if !h.triggers(bucket, key) {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.ModTime().After(oldest) {
			to[key] = seen{info.Size(), info.ModTime()}
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nobody has put anything there, or it went while we looked
	}
	return err
}

func (h *Host) triggers(bucket, key string) bool {
	for _, f := range h.config.Functions {
		for _, t := range f.Objects {
			if t.Bucket == bucket && t.Matches(key) {
				return true
			}
		}
	}
	return false
}

// found fires what a file triggers.
func (h *Host) found(bucket, folder, key string, is seen) error {
	file, err := os.Open(filepath.Join(folder, filepath.FromSlash(key)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	sum := md5.New() // an ETag is one, of what was put at once
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	o := Object{Event: putObject, Bucket: bucket, Key: key, Size: is.size, Created: is.modified, ETag: strings.ToUpper(hex.EncodeToString(sum.Sum(nil)))}
	id := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d", bucket, key, o.ETag, is.modified.UnixNano()))
	return h.objectCreated(o, "o_"+hex.EncodeToString(id[:20]))
}

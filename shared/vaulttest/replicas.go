package vaulttest

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc64"
	"io"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// ReplicaAddress is where the tests' second vault is said to be.
const ReplicaAddress = "s3://twin/vault"

// Replicator copies into the replica in a store.
func (w *World) Replicator(to object.Store) *replica.Replicator {
	return &replica.Replicator{Repo: w.Repo, Address: ReplicaAddress, Store: to, Work: w, Log: w.Log()}
}

// ReplicaAt is a replica, in a store.
func ReplicaAt(store object.Store) repository.Replica {
	return repository.Replica{Name: ReplicaAddress, Open: func(context.Context) (object.Store, error) { return store, nil }}
}

// BackupOf is the backup that a manifest seals.
func BackupOf(m *vault.Manifest) vault.Backup { return vault.Backup{Table: m.Table, ID: m.Backup} }

// CopyWork is the work that copies a group.
func CopyWork(m *vault.Manifest, group int) fanout.Work {
	return fanout.Work{Verb: fanout.VerbCopy, Table: m.Table, Backup: m.Backup, Segment: vault.GroupID(group), Replica: place.Key(ReplicaAddress)}
}

// CopyAll copies a backup by the work of all its groups.
func (w *World) CopyAll(m *vault.Manifest, to object.Store) replica.Reply {
	w.T.Helper()
	var reply replica.Reply
	for g := range m.Groups {
		var err error
		if reply, err = w.Replicator(to).Copy(w.T.Context(), w.Run(), CopyWork(m, g)); err != nil {
			w.T.Fatal(err)
		}
	}
	return reply
}

// ContentOf is what a store holds under a prefix.
func ContentOf(t testing.TB, store object.Store, prefix string) map[string]string {
	t.Helper()
	content := map[string]string{}
	for info, err := range store.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		data, err := object.ReadAll(t.Context(), store, info.Name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		content[info.Name] = string(data)
	}
	return content
}

// IsReplica holds a copy against the backup: by the records, by reading, and byte for
// byte.
func (w *World) IsReplica(m *vault.Manifest, far object.Store) {
	w.T.Helper()
	proof, err := w.Verifier().Compare(w.T.Context(), BackupOf(m), ReplicaAddress, far)
	if err != nil || proof.Verdict != vault.OK || proof.Check.SizeOnly != 0 || proof.Check.Objects != m.Totals.Objects+2+int64(len(m.Groups)) {
		w.T.Fatalf("the twin: %+v, %v", proof, err)
	}
	repo, err := repository.Open(w.T.Context(), far)
	if err != nil {
		w.T.Fatal(err)
	}
	v := w.Verifier()
	v.Repo = repo
	b, err := repo.FindBackup(w.T.Context(), m.Backup)
	if err != nil {
		w.T.Fatal(err)
	}
	if proof, err = v.Verify(w.T.Context(), verify.Request{Backup: b, Depth: verify.DepthRead}); err != nil || proof.Verdict != vault.OK || proof.Check.Rows != m.Totals.Rows {
		w.T.Fatalf("the twin, read: %+v, %v", proof, err)
	}
	for _, o := range append(w.Parts(m), vault.Object{Name: vault.HeaderName}, vault.Object{Name: BackupOf(m).Manifest()}, vault.Object{Name: vault.Opened(m.Table, m.Backup)}) {
		here, err := object.ReadAll(w.T.Context(), w.Store, o.Name, 1<<30)
		if err != nil {
			w.T.Fatal(err)
		}
		if there, err := object.ReadAll(w.T.Context(), far, o.Name, 1<<30); err != nil || !bytes.Equal(here, there) {
			w.T.Fatalf("%s is another in the twin, %v", o.Name, err)
		}
	}
	for name := range ContentOf(w.T, far, "") {
		if strings.HasPrefix(name, "slots/") || strings.HasPrefix(name, "starts/") {
			w.T.Errorf("%s was copied", name)
		}
	}
}

// CopyWorld has a backup of several segments and parts.
func CopyWorld(t testing.TB, rows int) (*World, *vault.Manifest) {
	w := NewWorld(t)
	w.Fill(Definition(), rows)
	w.Tables.PageRows = 40
	m := w.Backup(Small)
	if m.Totals.Parts < 3 {
		t.Fatalf("%d parts: too few for this test", m.Totals.Parts)
	}
	return w, m
}

// OtherKind is a store that keeps checksums of another kind, as OSS does beside S3.
type OtherKind struct{ *mem.Store }

func (o OtherKind) relabel(info object.Info) object.Info {
	if info.Checksum == "" {
		return info
	}
	content, err := object.ReadAll(context.Background(), o.Store, info.Name, 1<<30)
	if err != nil {
		panic(err)
	}
	info.Checksum = fmt.Sprintf("crc64ecma:%016x", crc64.Checksum(content, crc64.MakeTable(crc64.ECMA)))
	return info
}

func (o OtherKind) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	info, err := o.Store.Create(ctx, name, r)
	if err == nil {
		info = o.relabel(info)
	}
	return info, err
}

func (o OtherKind) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	r, info, err := o.Store.Open(ctx, name, off, n)
	if err == nil {
		info = o.relabel(info)
	}
	return r, info, err
}

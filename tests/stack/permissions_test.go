package stack_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/search"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/fc"
	"github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/address"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

var eachGrant = flag.Bool("permissions.each", false, "TestPermissions takes each grant away, one at a time")

// job is a stack whose vault is in a bucket with a locked retention policy, and in which
// each function may do what docs/ram says and no more.
type job struct {
	*stack.Stack
	t      *testing.T
	tables *tablestore.TableStoreClient
	invoke *function.Invoker
	store  object.Store
	// further is the address of the vault to which the policy wants backups copied.
	further string
	n       int // makes names
	base    vault.BackupID
	hour    time.Time // of the next tick by the timer
	// exporting is the table whose segments were last handed to a worker.
	exporting atomic.Pointer[string]
}

// step is one thing that the functions do. It makes what it needs, so that it can be
// repeated.
type step struct {
	name string
	run  func(*job, context.Context) error
}

// steps are all that the functions do, each by the way that it is done on the service.
var steps = []step{
	{"a backup of a table with indexes", (*job).backupStep},
	{"a segment goes on in a further invocation", (*job).continuationStep},
	{"a segment that lags behind is split", (*job).splitStep},
	{"an upload breaks off", (*job).brokenUploadStep},
	{"the id of an upload is lost", (*job).lostUploadStep},
	{"what stops a worker is noted", (*job).failureStep},
	{"a restore of a table with indexes", (*job).restoreStep},
	{"a restore goes on by ticks", (*job).tickedRestoreStep},
	{"a backup is read and compared", (*job).verifyStep},
	{"a request that an event tells of", func(j *job, ctx context.Context) error { return j.request(ctx, ".restore.json", false) }},
	{"a request that a tick finds", func(j *job, ctx context.Context) error { return j.request(ctx, ".json", true) }},
	{"a backup that the policy wants", (*job).policyStep},
	{"a backup is copied to a further vault, and compared", (*job).copyStep},
	{"a restore is rehearsed", (*job).drillStep},
	{"what a tick has begun comes to its end by itself", (*job).oneTickStep},
}

// How long a step may take, and how long one that was refused something may go on.
const (
	stepTime    = 3 * time.Minute
	refusedTime = 8 * time.Second
)

// staging is the instance that drills restore into.
const staging = "staging"

func beginJob(t *testing.T) *job {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "tablevault.yaml")
	const policy = "every: hourly\nkeep: 72 hours\nrules:\n- {name: drilled, tables: local/drilled*, drill: {every: daily, to: staging/drill}}\n- {name: due, tables: local/due*"
	if err := os.WriteFile(file, []byte(policy+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "functions.log"))
	if err != nil {
		t.Fatal(err)
	}
	j := &job{t: t, hour: time.Now().Truncate(time.Hour)}
	s, err := stack.Start(t.Context(), stack.Config{
		Dir: dir, BinDir: bin, Deployment: tablevault.Deployment, Policies: tablevault.Policies(), Memory: true, Log: log, Vault: stack.Bucket,
		Host: func(c *fc.Config) {
			c.Env = map[string]string{"TABLEVAULT_POLICY": file, "TABLEVAULT_MARGIN": "1s", "TABLEVAULT_SPLIT_AFTER": "1s"}
			c.Backoff = func(int) time.Duration { return 20 * time.Millisecond }
			c.Fault = func(d fc.Delivery) fc.Fault {
				if cmd, err := function.ParseCommand(d.Payload); err == nil && cmd.Kind == function.KindExport {
					j.exporting.Store(&cmd.Table)
				}
				return fc.Fault{}
			}
			for i := range c.Functions {
				if c.Functions[i].Handler == "bin/export" {
					c.Functions[i].Timeout = 4 * time.Second
				}
			}
		},
		Tablestore: func(c *ots.Config) {
			// As on the service, a new table is there before it can be used.
			c.Instances = append(c.Instances, staging)
			c.Behavior.Tables.ReadyDelay, c.Behavior.Tables.ReadyCode = 300*time.Millisecond, engine.CodeObjectNotExist
		},
		OSS: func(o *stack.OSS) {
			o.Bucket = oss.BucketConfig{RetentionDays: 1}
			o.Parameters = url.Values{"retention": {"1d"}, "part_size": {"1"}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), log.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the functions' log, without ticks that were well, ends with\n%s", lastOf(string(text)))
		}
	})
	j.Stack, j.invoke = s, caller(t, s)
	if err := s.OSS.CreateBucket("copies", oss.BucketConfig{RetentionDays: 1}); err != nil {
		t.Fatal(err)
	}
	j.further = s.OSS.Address("copies", "vault") + "&retention=1d&part_size=1"
	if err := os.WriteFile(file, []byte(policy+", destinations: '"+j.further+"'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for role, p := range roles(t) {
		s.Authority.SetPolicies(role, p)
	}
	j.tables = tablestore.NewClient(s.Info.Tablestore, s.Instance, s.AccessKeyID, s.AccessKeySecret)
	if j.store, err = address.Open(t.Context(), s.Vault, address.Config{Credentials: access.Key{ID: s.AccessKeyID, Secret: s.AccessKeySecret}.Provider()}); err != nil {
		t.Fatal(err)
	}
	return j
}

// lastOf is the end of a log without the lines of ticks that were well.
func lastOf(log string) string {
	lines := slices.DeleteFunc(strings.Split(log, "\n"), func(l string) bool {
		return strings.Contains(l, "FC Invoke") || strings.Contains(l, `"level":"INFO"`) && strings.Contains(l, `"kind":"tick"`)
	})
	text := strings.Join(lines, "\n")
	return text[max(0, len(text)-20_000):]
}

// name is one that was not used before.
func (j *job) name(kind string) string {
	j.n++
	return fmt.Sprintf("%s%d", kind, j.n)
}

// make makes a table of rows, each with a cell of so many random bytes.
func (j *job) make(name string, rows, size int) error {
	meta := &tablestore.TableMeta{TableName: name}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	meta.AddDefinedColumn("n", tablestore.DefinedColumn_INTEGER)
	index := &tablestore.IndexMeta{IndexName: name + "_by_n"}
	index.AddPrimaryKeyColumn("n")
	index.SetAsGlobalIndex()
	_, err := j.tables.CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, ReservedThroughput: &tablestore.ReservedThroughput{}, IndexMetas: []*tablestore.IndexMeta{index},
		TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
	})
	if err != nil {
		return err
	}
	_, err = j.tables.CreateSearchIndex(&tablestore.CreateSearchIndexRequest{TableName: name, IndexName: name + "_search",
		IndexSchema: &tablestore.IndexSchema{FieldSchemas: []*tablestore.FieldSchema{{FieldName: ptr("n"), FieldType: tablestore.FieldType_LONG, Index: ptr(true)}},
			IndexSort: &search.Sort{Sorters: []search.Sorter{&search.PrimaryKeySort{}}}}})
	if err != nil {
		return err
	}
	random := rand.NewChaCha8([32]byte{})
	for id := range rows {
		pk := new(tablestore.PrimaryKey)
		pk.AddPrimaryKeyColumn("id", int64(id))
		content := make([]byte, size)
		_, _ = random.Read(content) // it never fails
		change := &tablestore.PutRowChange{TableName: name, PrimaryKey: pk}
		change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		change.AddColumn("n", int64(id))
		change.AddColumn("content", content)
		put := func() error {
			_, err := j.tables.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
			return err
		}
		for end := time.Now().Add(time.Second); id == 0 && put() != nil && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond) // it is being loaded
		}
		if err := put(); err != nil {
			return err
		}
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

// ask gives a command until over says that it came to its end, or until it fails for
// good.
func ask[R any](ctx context.Context, j *job, cmd function.Command, over func(R) bool) (R, error) {
	for {
		var r R
		body, err := j.invoke.Invoke(ctx, "tablevault-"+string(cmd.Kind.Function()), cmd)
		var failure *function.Failure
		switch {
		case errors.As(err, &failure) && !failure.Permanent(): // it may be given again
		case err != nil:
			return r, err
		default:
			if err := json.Unmarshal(body, &r); err != nil || over(r) {
				return r, err
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return r, fmt.Errorf("%s goes on and on: %s, %v", cmd.Kind, body, err)
		}
	}
}

type planned struct {
	Backup vault.BackupID
	backup.Progress
}

// backup makes a backup of a table and returns how it ended.
func (j *job) backup(ctx context.Context, name string) (planned, error) {
	begun, err := ask(ctx, j, function.Command{Kind: function.KindBackup, Table: "local/" + name, Settings: json.RawMessage(`{"lanes":1}`)}, func(planned) bool { return true })
	if err != nil {
		return begun, err
	}
	return ask(ctx, j, function.Command{Kind: function.KindTick, Backup: string(begun.Backup)}, func(p planned) bool { return p.State != backup.StateRunning })
}

// sealed makes a backup that must succeed.
func (j *job) sealed(ctx context.Context, name string, rows int) (vault.BackupID, error) {
	p, err := j.backup(ctx, name)
	if err == nil && (p.State != backup.StateSealed || p.Totals.Rows != int64(rows)) {
		err = fmt.Errorf("%s, %d rows of %d: %s", p.State, p.Totals.Rows, rows, p.LastError)
	}
	return p.Backup, err
}

func (j *job) backupStep(ctx context.Context) error {
	name := j.name("orders")
	if err := j.make(name, 3, 700_000); err != nil {
		return err
	}
	id, err := j.sealed(ctx, name, 3)
	if j.base == "" {
		j.base = id
	}
	return err
}

func (j *job) continuationStep(ctx context.Context) error {
	name := j.name("slow")
	if err := j.make(name, 8, 1_700_000); err != nil {
		return err
	}
	j.Tablestore.SetFault(func(op, table string, _ int) *ots.Fault {
		if op == "GetRange" && table == name {
			return &ots.Fault{Delay: time.Second}
		}
		return nil
	})
	defer j.Tablestore.SetFault(nil)
	begun, err := ask(ctx, j, function.Command{Kind: function.KindBackup, Table: "local/" + name, Settings: json.RawMessage(`{"lanes":1}`)}, func(planned) bool { return true })
	if err != nil {
		return err
	}
	// No tick helps it on.
	b := vault.Backup{Table: vault.TableID{Region: "local", Instance: "local", Table: name}, ID: begun.Backup}
	second := b.Log().Start(vault.NewSegmentID(0), 1)
	for {
		if there, err := j.exists(ctx, second); err != nil || there {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("there is no second invocation")
		}
	}
	_, err = j.sealed(ctx, name, 8)
	return err
}

// splitStep ticks while a slow segment is read: its worker is asked to split it.
func (j *job) splitStep(ctx context.Context) error {
	name := j.name("lagging")
	if err := j.make(name, 50, 1_700_000); err != nil {
		return err
	}
	j.Tablestore.SetFault(func(op, table string, _ int) *ots.Fault {
		if op == "GetRange" && table == name {
			return &ots.Fault{Delay: 150 * time.Millisecond}
		}
		return nil
	})
	defer j.Tablestore.SetFault(nil)
	p, err := j.backup(ctx, name)
	if err == nil && (p.State != backup.StateSealed || p.Totals.Rows != 50 || p.Segments < 2) {
		err = fmt.Errorf("%s, %d rows of 50 in %d segments: %s", p.State, p.Totals.Rows, p.Segments, p.LastError)
	}
	return err
}

// failingStore makes requests about the shards of a table's backup fail.
func (j *job) failingStore(name, operation string, fault oss.Fault) {
	j.OSS.SetFault(func(r oss.Request) *oss.Fault {
		if r.Operation == operation && strings.Contains(r.Object, "/"+name+"/") {
			return &fault
		}
		return nil
	})
}

// uploaded is an error if uploads are left behind.
func (j *job) uploaded() error {
	n, err := j.OSS.Uploads("tablevault")
	if err == nil && n != 0 {
		err = fmt.Errorf("%d uploads are left behind", n)
	}
	return err
}

func (j *job) brokenUploadStep(ctx context.Context) error {
	name := j.name("broken")
	if err := j.make(name, 3, 700_000); err != nil {
		return err
	}
	j.failingStore(name, "UploadPart", oss.Fault{Err: &oss.Error{Status: 400, Code: "InvalidArgument", Message: "the test's hand"}})
	defer j.OSS.SetFault(nil)
	begun, err := ask(ctx, j, function.Command{Kind: function.KindBackup, Table: "local/" + name}, func(planned) bool { return true })
	if err != nil {
		return err
	}
	_, err = ask(ctx, j, function.Command{Kind: function.KindTick, Backup: string(begun.Backup)}, func(p planned) bool { return p.LastError != "" })
	if err != nil {
		return err
	}
	// The worker that failed has ended; none else may begin an upload now.
	if _, err := ask(ctx, j, function.Command{Kind: function.KindVoid, Backup: string(begun.Backup)}, func(any) bool { return true }); err != nil {
		return err
	}
	for j.uploaded() != nil {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return j.uploaded()
		}
	}
	return nil
}

func (j *job) lostUploadStep(ctx context.Context) error {
	name := j.name("lost")
	if err := j.make(name, 3, 700_000); err != nil {
		return err
	}
	var begun atomic.Bool
	j.OSS.SetFault(func(r oss.Request) *oss.Fault {
		if r.Operation == "InitiateMultipartUpload" && strings.Contains(r.Object, "/"+name+"/") && begun.CompareAndSwap(false, true) {
			return &oss.Fault{After: true, Cut: oss.CutSilent}
		}
		return nil
	})
	defer j.OSS.SetFault(nil)
	if _, err := j.sealed(ctx, name, 3); err != nil {
		return err
	}
	if !begun.Load() {
		return errors.New("no upload was begun")
	}
	return j.uploaded()
}

func (j *job) failureStep(ctx context.Context) error {
	name := j.name("refused")
	if err := j.make(name, 1, 10); err != nil {
		return err
	}
	j.Tablestore.SetFault(func(op, table string, _ int) *ots.Fault {
		if at := j.exporting.Load(); op == "GetRange" && at != nil && *at == "local/"+name {
			return ots.Refuse("OTSNoPermissionAccess", "")
		}
		return nil
	})
	defer j.Tablestore.SetFault(nil)
	p, err := j.backup(ctx, name)
	if err == nil && (p.State != backup.StateFailed || !strings.Contains(p.LastError, name)) {
		err = fmt.Errorf("%s: %q", p.State, p.LastError)
	}
	return err
}

// restore restores the first backup and returns how that ended.
func (j *job) restore(ctx context.Context, to string) error {
	begun, err := ask(ctx, j, function.Command{Kind: function.KindRestore, Backup: string(j.base), To: "local/" + to}, func(restore.Progress) bool { return true })
	if err != nil {
		return err
	}
	return restored(ask(ctx, j, function.Command{Kind: function.KindRestore, Restore: string(begun.Restore)}, func(p restore.Progress) bool {
		return p.State == restore.StateDone || p.State == backup.StateFailed
	}))
}

func restored(p restore.Progress, err error) error {
	if err == nil && (p.State != restore.StateDone || p.Proof == nil || p.Proof.Verdict != vault.OK) {
		err = fmt.Errorf("%s: %s", p.State, p.LastError)
	}
	return err
}

func (j *job) restoreStep(ctx context.Context) error {
	name := j.name("copy")
	if err := j.restore(ctx, name); err != nil {
		return err
	}
	d, err := j.tables.DescribeTable(&tablestore.DescribeTableRequest{TableName: name})
	if err != nil {
		return err
	}
	s, err := j.tables.ListSearchIndex(&tablestore.ListSearchIndexRequest{TableName: name})
	if err == nil && (len(d.IndexMetas) != 1 || len(d.TableMeta.DefinedColumns) != 1 || len(s.IndexInfo) != 1) {
		err = fmt.Errorf("the copy has %d indexes, %d defined columns and %d search indexes", len(d.IndexMetas), len(d.TableMeta.DefinedColumns), len(s.IndexInfo))
	}
	return err
}

// tick fires the planner's timer and waits until it has run.
func (j *job) tick(ctx context.Context) error {
	j.hour = j.hour.Add(time.Second)
	return j.Host.Fire("tablevault-plan", "tick", j.hour)
}

// ticking fires the timer until over says that what is waited for has come.
func (j *job) ticking(ctx context.Context, what string, over func() (bool, error)) error {
	for {
		if err := j.tick(ctx); err != nil {
			return err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s does not come", what)
		}
		if done, err := over(); err != nil || done {
			return err
		}
	}
}

func (j *job) tickedRestoreStep(ctx context.Context) error {
	begun, err := ask(ctx, j, function.Command{Kind: function.KindRestore, Backup: string(j.base), To: "local/" + j.name("ticked")}, func(restore.Progress) bool { return true })
	if err != nil {
		return err
	}
	return j.ticking(ctx, "the proof", func() (bool, error) { return j.exists(ctx, vault.Restore{ID: begun.Restore}.Proof()) })
}

func (j *job) exists(ctx context.Context, name string) (bool, error) {
	_, err := object.Stat(ctx, j.store, name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (j *job) verifyStep(ctx context.Context) error {
	id := vault.VerificationID(vault.NewBackupID(time.Now(), j.name("verification")))
	for _, cmd := range []function.Command{
		{Kind: function.KindVerify, Backup: string(j.base), Depth: verify.DepthRead, Settings: fmt.Appendf(nil, `{"verification":%q}`, id)},
		{Kind: function.KindVerify, Backup: string(j.base), Against: "local/orders1"},
	} {
		p, err := ask(ctx, j, cmd, func(vault.Proof) bool { return true })
		if err == nil && p.Verdict != vault.OK {
			err = fmt.Errorf("verdict %s", p.Verdict)
		}
		if err != nil {
			return err
		}
	}
	if there, err := j.exists(ctx, vault.Verification{ID: id}.Proof()); err != nil || !there {
		return fmt.Errorf("there is no proof of verification %s: %w", id, err)
	}
	return nil
}

func (j *job) request(ctx context.Context, suffix string, ticks bool) error {
	name := j.name("asked")
	request := "requests/" + name + suffix
	command := fmt.Sprintf(`{"kind":"restore","backup":%q,"to":"local/%s"}`, j.base, name)
	if _, err := j.store.Create(ctx, request, strings.NewReader(command)); err != nil {
		return err
	}
	answered := func() (bool, error) { return j.exists(ctx, vault.AnswerName(request)) }
	if ticks {
		if err := j.ticking(ctx, "the answer", answered); err != nil {
			return err
		}
	} else {
		// The event alone begins it; who asks for how far it has come makes it go on.
		for {
			begun, err := j.exists(ctx, vault.AcceptedName(request))
			if err != nil {
				return err
			}
			if begun {
				break
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return errors.New("the request is not accepted")
			}
		}
		if _, err := ask(ctx, j, function.Command{Kind: function.KindRestore, Request: request}, func(p restore.RequestProgress) bool { return p.Answer != nil }); err != nil {
			return err
		}
	}
	data, err := object.ReadAll(ctx, j.store, vault.AnswerName(request), 1<<20)
	if err != nil {
		return err
	}
	var answer vault.Answer
	if err := vault.Decode(vault.AnswerName(request), data, &answer); err != nil {
		return err
	}
	if !answer.OK || answer.Rows != 3 {
		return fmt.Errorf("answered %+v", answer)
	}
	return nil
}

func (j *job) policyStep(ctx context.Context) error {
	name := j.name("due")
	if err := j.make(name, 2, 10); err != nil {
		return err
	}
	j.hour = j.hour.Add(time.Hour)
	t := vault.TableID{Region: "local", Instance: "local", Table: name}
	return j.ticking(ctx, "the backup", func() (bool, error) {
		for _, err := range j.store.List(ctx, vault.ManifestsOf(t), "") {
			return err == nil, err
		}
		return false, nil
	})
}

// copyStep makes a backup that is due, which the policy wants copied. The id of an upload
// there is lost, then an upload breaks off, and the copy comes all the same, and is what
// was copied.
func (j *job) copyStep(ctx context.Context) (err error) {
	name := j.name("due")
	if err := j.make(name, 3, 700_000); err != nil {
		return err
	}
	var lost, broken atomic.Bool
	j.OSS.SetFault(func(r oss.Request) *oss.Fault {
		switch about := r.Bucket == "copies" && strings.Contains(r.Object, "/"+name+"/"); {
		case about && r.Operation == "InitiateMultipartUpload" && lost.CompareAndSwap(false, true):
			return &oss.Fault{After: true, Cut: oss.CutSilent}
		case about && r.Operation == "UploadPart" && broken.CompareAndSwap(false, true):
			return &oss.Fault{Err: &oss.Error{Status: 400, Code: "InvalidArgument", Message: "the test's hand"}}
		}
		return nil
	})
	defer j.OSS.SetFault(nil)
	j.hour = j.hour.Add(time.Hour)
	t := vault.TableID{Region: "local", Instance: "local", Table: name}
	defer func() {
		if err == nil && (!lost.Load() || !broken.Load()) {
			err = errors.New("nothing went wrong")
		}
		if n, failed := j.OSS.Uploads("copies"); err == nil && (failed != nil || n != 0) {
			err = fmt.Errorf("%d uploads are left behind, %v", n, failed)
		}
	}()
	var copied vault.BackupID
	err = j.ticking(ctx, "the note that the copy is complete", func() (bool, error) {
		for note, err := range j.store.List(ctx, vault.CopyNotesPrefix+t.Path()+"/", "") {
			b, _, _ := vault.ParseCopyNote(note.Name)
			copied = b.ID
			return err == nil, err
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	p, err := ask(ctx, j, function.Command{Kind: function.KindVerify, Backup: string(copied), Replica: place.Key(j.further)}, func(vault.Proof) bool { return true })
	if err == nil && p.Verdict != vault.OK {
		err = fmt.Errorf("the copy: verdict %s", p.Verdict)
	}
	return err
}

// drillStep has two drills by the timer alone: one is proved and leaves no table behind,
// and one finds a table in its way, fails, and leaves that where it is.
func (j *job) drillStep(ctx context.Context) error {
	today := func() time.Time { return time.Now().UTC().Truncate(24 * time.Hour) }
	due := today()
	err := j.drills(ctx, due)
	if err != nil && today() != due {
		// Another day has begun in the middle of it.
		err = j.drills(ctx, today())
	}
	return err
}

// drills has the drills that are due at the instant.
func (j *job) drills(ctx context.Context, due time.Time) error {
	var ids []vault.DrillID
	for range 2 {
		name := j.name("drilled")
		if err := j.make(name, 2, 10); err != nil {
			return err
		}
		ids = append(ids, vault.NewDrillID(vault.TableID{Region: "local", Instance: "local", Table: name}, due))
	}
	there := tablestore.NewClient(j.Info.Tablestore, staging, j.AccessKeyID, j.AccessKeySecret)
	meta := &tablestore.TableMeta{TableName: ids[1].Target("drill")}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	if _, err := there.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, ReservedThroughput: &tablestore.ReservedThroughput{},
		TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}}); err != nil {
		return err
	}
	err := j.ticking(ctx, "the end of the drills", func() (bool, error) {
		dropped, err := j.exists(ctx, ids[0].Dropped())
		if err != nil || !dropped {
			return false, err
		}
		return j.exists(ctx, ids[1].Ended())
	})
	if err != nil {
		return err
	}
	for i, want := range []string{"", "the table exists"} {
		var end vault.DrillEnd
		data, err := object.ReadAll(ctx, j.store, ids[i].Ended(), 1<<20)
		if err == nil {
			err = vault.Decode(ids[i].Ended(), data, &end)
		}
		if err != nil {
			return err
		}
		if end.OK != (want == "") || !strings.Contains(end.Error, want) || end.OK && (end.Rows != 2 || end.Verdict != vault.OK) {
			return fmt.Errorf("the drill has come to %+v", end)
		}
	}
	tables, err := there.ListTable()
	if err == nil && (slices.Contains(tables.TableNames, ids[0].Target("drill")) || !slices.Contains(tables.TableNames, ids[1].Target("drill"))) {
		err = fmt.Errorf("staging has the tables %v", tables.TableNames)
	}
	return err
}

// oneTickStep has a backup begun by one tick, and a drill by another: the last workers of
// each have the planner look, so that nothing waits for a third.
func (j *job) oneTickStep(ctx context.Context) error {
	name := j.name("drilled")
	if err := j.make(name, 2, 10); err != nil {
		return err
	}
	t := vault.TableID{Region: "local", Instance: "local", Table: name}
	for _, of := range []struct {
		what string
		over func() (bool, error)
	}{
		{"the backup", func() (bool, error) {
			for _, err := range j.store.List(ctx, vault.ManifestsOf(t), "") {
				return err == nil, err
			}
			return false, nil
		}},
		{"the end of the drill", func() (bool, error) {
			for info, err := range j.store.List(ctx, vault.DrillsOf(t), "") {
				if _, what, _ := vault.ParseDrillName(info.Name); err != nil || what == vault.DrillDropped {
					return err == nil, err
				}
			}
			return false, nil
		}},
	} {
		if err := j.tick(ctx); err != nil {
			return err
		}
		for {
			done, err := of.over()
			if err != nil {
				return err
			}
			if done {
				break
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("%s does not come without a further tick", of.what)
			}
		}
	}
	return nil
}

// do does a step.
func (j *job) do(ctx context.Context, s step) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	if err := s.run(j, ctx); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// roles are the functions' roles and the trigger's, and their policies.
func roles(t *testing.T) map[string]*ram.Policy {
	t.Helper()
	out := map[string]*ram.Policy{}
	for _, name := range []string{"plan", "export", "import", "verify", "trigger"} {
		names, instances := []string{name}, []string{"local"}
		switch name {
		case "plan":
			names = append(names, "drill-plan")
		case "import":
			instances = append(instances, staging)
		case "verify":
			names, instances = append(names, "further-verify"), append(instances, staging)
		}
		var all struct {
			Version   string
			Statement []json.RawMessage
		}
		for _, name := range names {
			text, err := fs.ReadFile(tablevault.Policies(), name+".json")
			if err != nil {
				t.Fatal(err)
			}
			text, err = ram.Fill(text, map[string][]string{"bucket": {"tablevault"}, "prefix": {"vault"}, "instance": instances, "functions": {"tablevault-"},
				"drill-instance": {staging}, "drill-name": {"drill"}, "further-bucket": {"copies"}, "further-prefix": {"vault"}})
			if err != nil {
				t.Fatal(err)
			}
			one := all
			one.Statement = nil
			if err := json.Unmarshal(text, &one); err != nil {
				t.Fatal(err)
			}
			all.Version, all.Statement = one.Version, append(all.Statement, one.Statement...)
		}
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ram.ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		out["tablevault-"+name] = p
	}
	return out
}

// used are the grants of a role by which something was allowed.
func used(p *ram.Policy, role string, calls []ram.Call) []ram.Grant {
	return slices.DeleteFunc(p.Grants(), func(g ram.Grant) bool {
		return !slices.ContainsFunc(calls, func(c ram.Call) bool { return c.Role == role && c.Allowed && g.Covers(c) })
	})
}

// TestPermissions does all that the functions do, each with what docs/ram lets its role
// do. Nothing is refused, and nothing is allowed that is not needed: each grant is used,
// and, with -permissions.each, a step fails without it.
func TestPermissions(t *testing.T) {
	j := beginJob(t)
	policies := roles(t)
	users := map[string]map[ram.Grant][]step{} // by role: the steps that use a grant
	for _, s := range steps {
		j.Authority.Record()
		start := time.Now()
		if err := j.do(t.Context(), s); err != nil {
			t.Error(err)
		}
		t.Logf("%s: %v", s.name, time.Since(start).Round(time.Millisecond))
		calls, _ := j.Authority.Calls()
		for _, c := range calls {
			if !c.Allowed {
				t.Errorf("%s: %s may not %s on %s", s.name, c.Role, c.Action, c.Resource)
			}
		}
		for role, p := range policies {
			for _, g := range used(p, role, calls) {
				if users[role] == nil {
					users[role] = map[ram.Grant][]step{}
				}
				users[role][g] = append(users[role][g], s)
			}
		}
	}
	if t.Failed() {
		return
	}
	grants := 0
	for role, p := range policies {
		for _, g := range p.Grants() {
			grants++
			if len(users[role][g]) == 0 && spare(role, g) == "" {
				t.Errorf("%s need not be allowed to %s on %s", role, g.Action, g.Resource)
			}
		}
	}
	t.Logf("%d grants", grants)
	if grants == 0 || !*eachGrant || t.Failed() {
		return
	}
	for role, p := range policies {
		for _, g := range p.Grants() {
			t.Run(strings.ReplaceAll(role+" "+g.Action+" "+g.Resource, "/", "|"), func(t *testing.T) {
				t.Parallel() // each has a stack of its own, and waits most of the time
				without(t, role, p, g, users[role][g])
			})
		}
	}
}

// without takes a grant away from a role. One of the steps that used it must ask for it
// in vain and fail. Which worker is faster is chance, and so is whether some grants are
// asked for: one that is needed is so in one of a few runs.
func without(t *testing.T, role string, p *ram.Policy, g ram.Grant, users []step) {
	if len(users) == 0 {
		t.Skipf("no step of this run asks for it: %s", spare(role, g))
	}
	const runs = 3
	for range runs {
		if failsWithout(t, role, p, g, users) {
			return
		}
		if reason := spare(role, g); reason != "" {
			t.Logf("all is done without it: %s", reason)
			return
		}
	}
	t.Errorf("all is done without it, in %d runs", runs)
}

// failsWithout does the steps in a stack of its own in which the role lacks the grant,
// and tells whether one of them has failed for want of it.
func failsWithout(t *testing.T, role string, p *ram.Policy, g ram.Grant, users []step) bool {
	t.Helper()
	j := beginJob(t)
	if users[0].name != steps[0].name {
		// What the others need is made with all permissions.
		if err := j.do(t.Context(), steps[0]); err != nil {
			t.Fatal(err)
		}
	}
	j.Authority.SetPolicies(role, p.Without(g))
	// What a step has set going may be what those after it wait for.
	last := slices.IndexFunc(steps, func(s step) bool { return s.name == users[len(users)-1].name })
	if spare(role, g) == "" {
		users = append(slices.Clip(users), steps[last+1:]...)
	}
	for _, s := range users {
		j.Authority.Record()
		refused := func() bool {
			calls, _ := j.Authority.Calls()
			return slices.ContainsFunc(calls, func(c ram.Call) bool { return c.Role == role && !c.Allowed && g.Covers(c) })
		}
		ctx, cancel := context.WithCancel(t.Context())
		go afterRefusal(ctx, refused, cancel)
		err := j.do(ctx, s)
		cancel()
		if err != nil && !refused() {
			t.Fatalf("fails for another reason: %v", err)
		}
		if err != nil {
			t.Logf("fails: %v", err)
			return true
		}
	}
	return false
}

// afterRefusal gives a step up that was refused something and has not failed or ended a
// while later: it waits for what will not come.
func afterRefusal(ctx context.Context, refused func() bool, giveUp func()) {
	for pause := 100 * time.Millisecond; ; {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if pause == refusedTime {
			giveUp()
			return
		}
		if refused() {
			pause = refusedTime
		}
	}
}

func spare(role string, g ram.Grant) string {
	return spared[strings.TrimPrefix(role, "tablevault-")+" "+g.Action+" "+g.Resource]
}

// spared are the grants without which a run goes slower, or only one in which deliveries
// die or come twice would not end well. Not every run asks for each of them.
var spared = map[string]string{
	"export oss:ListObjects acs:oss:*:*:tablevault":                       "a worker that can't see what nobody has begun fails when its own segment is done; ticks have the rest begun",
	"export oss:GetObject acs:oss:*:*:tablevault/vault/failures/*":        "a start whose failure can't be read counts as one that is at work: whoever comes after it goes on beside it, or later",
	"plan oss:GetObject acs:oss:*:*:tablevault/vault/accepted/*":          "a restore that a request has asked for is looked at by both names in a tick, and the tick reports the note that it can't read",
	"plan oss:GetObject acs:oss:*:*:tablevault/vault/copying/*":           "a copy whose worker died is begun anew by who reads its notes",
	"import oss:GetObject acs:oss:*:*:tablevault/vault/copied/*":          "where an object is damaged, the notes tell which vault has another",
	"plan oss:GetObject acs:oss:*:*:tablevault/vault/restores/closed/*":   "where a restore was closed before its drill has failed, what it was closed with is read back",
	"verify ots:DescribeSearchIndex acs:ots:*:*:instance/staging/table/*": "a drill's table is compared before it has search indexes; by a person's command, after",
	"plan ots:GetRange acs:ots:*:*:instance/staging/table/drill_*":        "a drill's table of which it was not noted who made it is dropped only if it is empty",
	"verify fc:InvokeFunction acs:fc:*:*:functions/tablevault-verify":     "a copy that its time limit ends is gone on with by ticks",
	"verify fc:InvokeFunction acs:fc:*:*:functions/tablevault-import":     "a restore that a request has asked for is gone on with by ticks",
	"verify oss:GetObject acs:oss:*:*:tablevault/vault/copies/*":          "a vault that was a copy, from a store with other checksums, knows there how its objects came",
	"verify oss:GetObject acs:oss:*:*:tablevault/vault/copied/*":          "the note of another delivery is read back and obeyed",
	"export oss:GetObject acs:oss:*:*:tablevault/vault/progress/*":        "nobody sees how far a segment has come before a part of it is recorded",
	"export oss:PutObject acs:oss:*:*:tablevault/vault/progress/*":        "nobody sees how far a segment has come before a part of it is recorded",
}

// TestNobodyHarms holds keys of the functions' roles in a thief's hand: together with the
// bucket's rule against overwriting, or its retention policy, they neither change nor
// delete an object that is there, nor the bucket's settings.
func TestNobodyHarms(t *testing.T) {
	const name, content = "vault/shards/local/local/orders/20261120T101400Z-0a1b2c3d/000000/a.shard", "rows"
	for kind, config := range map[string]oss.BucketConfig{
		"rule":      {Overwrite: []oss.OverwriteRule{{ID: "vault", Action: "forbid", Prefix: "vault/"}}},
		"retention": {RetentionDays: 30},
	} {
		owner := ram.Key{ID: "owner", Secret: "secret"}
		authority := ram.New(ram.Config{Owner: owner})
		server, err := oss.Start(oss.Config{Authority: authority})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
		if err := server.CreateBucket("tablevault", config); err != nil {
			t.Fatal(err)
		}
		if err := bucketOf(t, server, owner).PutObject(name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		policies := roles(t)
		prune, err := stack.Policy(tablevault.Policies(), "prune")
		if err != nil {
			t.Fatal(err)
		}
		policies["tablevault-prune"] = prune
		for role, p := range policies {
			t.Run(kind+" "+role, func(t *testing.T) {
				authority.SetPolicies(role, p)
				b := bucketOf(t, server, authority.Assume(role, time.Hour))
				upload := func() error {
					u, err := b.InitiateMultipartUpload(name)
					if err != nil {
						return err
					}
					part, err := b.UploadPart(u, strings.NewReader("other"), 5, 1)
					if err == nil {
						_, err = b.CompleteMultipartUpload(u, []sdk.UploadPart{part})
					}
					return err
				}
				settings := func(parameter, document string) error {
					r, err := b.Client.Conn.Do("PUT", "tablevault", "", map[string]any{parameter: nil}, nil, strings.NewReader(document), 0, nil)
					if err == nil {
						err = r.Close()
					}
					return err
				}
				harms := map[string]error{
					"overwrite":           b.PutObject(name, strings.NewReader("other")),
					"overwrite in parts":  upload(),
					"overwrite by a copy": func() error { _, err := b.CopyObject(name, name, sdk.MetadataDirective("REPLACE")); return err }(),
					"delete the bucket":   b.Client.DeleteBucket("tablevault"),
					"switch versions on":  b.Client.SetBucketVersioning("tablevault", sdk.VersioningConfig{Status: "Suspended"}),
					"change the rules":    settings("overwriteConfig", "<OverwriteConfiguration><Rule><Action>forbid</Action><Prefix>x</Prefix></Rule></OverwriteConfiguration>"),
					"drop the retention":  b.Client.AbortBucketWorm("tablevault"),
					"change a lifecycle":  settings("lifecycle", "<LifecycleConfiguration/>"),
				}
				// Prune deletes what its grace allows; the retention alone stops it.
				if role != "tablevault-prune" || kind == "retention" {
					harms["delete"] = b.DeleteObject(name)
					_, harms["delete several things"] = b.DeleteObjects([]string{name})
				}
				for harm, err := range harms {
					var refused sdk.ServiceError
					if !errors.As(err, &refused) || refused.StatusCode != 403 && refused.StatusCode != 409 {
						t.Errorf("%s: %v", harm, err)
					}
				}
				r, err := bucketOf(t, server, owner).GetObject(name)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if got, err := io.ReadAll(r); err != nil || string(got) != content {
					t.Errorf("the object is %q, %v", got, err)
				}
			})
		}
	}
}

func bucketOf(t *testing.T, server *oss.Server, key ram.Key) *sdk.Bucket {
	t.Helper()
	c, err := sdk.New(server.URL(), key.ID, key.Secret, sdk.SecurityToken(key.Token), sdk.AuthVersion(sdk.AuthV4), sdk.Region(oss.DefaultRegion))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Bucket("tablevault")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// demoSize is how many rows the demo loads: orders, events, and a few that are wide.
var demoSize = demoData{orders: 150_000, events: 60_000, wide: 12}

func demoCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "The whole story on this machine: back up, damage, restore, prove",
		Long: "Start a Tablestore server, a vault and the functions on this machine, all embedded; fill two tables, back them up,\n" +
			"damage one, see what verify says, restore beside it, prove the copy, and tamper with a copy of the vault. It takes\n" +
			"under a minute and leaves nothing behind.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), s, demoSize)
		},
	}
}

// demo is one run of the story.
type demo struct {
	*streams
	began  time.Time
	dir    string
	stack  *stack.Stack
	site   *site
	client *tablestore.TableStoreClient
}

func runDemo(ctx context.Context, s *streams, data demoData) (err error) {
	d := &demo{streams: s, began: time.Now()}
	d.say("tablevault %s: the whole story on this machine.", vault.Program)
	waits := s.patience()
	defer waits.over()
	waits.step("building the functions")
	bin, clean, err := binaries(ctx)
	if err != nil {
		return err
	}
	defer clean()
	waits.over()
	if d.dir, err = os.MkdirTemp("", "tablevault-demo-"); err != nil {
		return err
	}
	// What the functions log is for the day when one fails.
	var log tail
	defer func() {
		if d.stack != nil {
			err = errors.Join(err, d.stack.Close())
		}
		err = errors.Join(err, os.RemoveAll(d.dir))
		if err != nil {
			s.err.Write(log.last)
		}
	}()
	d.stack, err = stack.Start(ctx, stack.Config{Dir: d.dir, BinDir: bin, Deployment: tablevault.Deployment, Policies: tablevault.Policies(), Memory: true, Log: &log})
	if err != nil {
		return err
	}
	if d.site, err = openSite(d.dir); err != nil {
		return err
	}
	d.say("Started a Tablestore server, a vault in a directory, and a host for the functions plan, export, import and verify.")
	d.client = tablestore.NewClient(d.stack.Info.Tablestore, d.stack.Instance, d.stack.AccessKeyID, d.stack.AccessKeySecret)
	for _, step := range []func(context.Context, demoData) error{d.load, d.backUp, d.damage, d.restore, d.tamper} {
		if err := step(ctx, data); err != nil {
			return err
		}
	}
	d.say("\nDone in %s. Nothing is left behind.", time.Since(d.began).Round(100*time.Millisecond))
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) head(n int, title string) { d.say("\n%d. %s", n, title) }

func (d *demo) table(name string) string { return d.stack.Instance + "/" + name }

func (d *demo) load(ctx context.Context, data demoData) error {
	d.head(1, "Two tables, filled through the official SDK")
	start := time.Now()
	if err := data.load(ctx, d.client); err != nil {
		return fmt.Errorf("fill the tables: %w", err)
	}
	took := time.Since(start)
	d.say("   orders: %s rows by customer and number, with text, numbers, several versions; a few of them wide", count(int64(data.orders+data.wide+1)))
	d.say("   events: %s rows with a binary key", count(int64(data.events)))
	d.say("   loaded in %s, %s rows a second", took.Round(10*time.Millisecond), count(int64(float64(data.rows())/took.Seconds())))
	return nil
}

func (d *demo) backUp(ctx context.Context, _ demoData) error {
	d.head(2, "Back them up")
	for _, name := range []string{"orders", "events"} {
		start := time.Now()
		m, err := backupTable(ctx, d.streams, d.site, function.Command{Kind: function.KindBackup, Table: d.table(name)})
		if err != nil {
			return fmt.Errorf("back up %s: %w", name, err)
		}
		took := time.Since(start)
		d.say("   %s  %s: %s rows, %s read, %s stored (%.1f to 1), %s in %s", m.Backup, name, count(m.Totals.Rows), size(m.Totals.RawBytes),
			size(m.Totals.StoredBytes), float64(m.Totals.RawBytes)/float64(m.Totals.StoredBytes),
			size(int64(float64(m.Totals.RawBytes)/took.Seconds()))+" a second", took.Round(10*time.Millisecond))
	}
	d.say("   Before a backup was sealed, a check proved that its ranges cover the table without a gap, that the counts of what was")
	d.say("   read and what was stored agree, and that the store holds every object as it was written.")
	return nil
}

// latest is the newest backup of a table.
func (d *demo) latest(ctx context.Context, name string) (*vault.Manifest, error) {
	repo, err := d.site.repository(ctx)
	if err != nil {
		return nil, err
	}
	id, err := d.site.id(d.table(name))
	if err != nil {
		return nil, err
	}
	return repo.Latest(ctx, id, time.Time{})
}

func (d *demo) damage(ctx context.Context, data demoData) error {
	d.head(3, "Something goes wrong: rows are deleted, one is changed, one appears")
	if err := data.damage(d.client); err != nil {
		return fmt.Errorf("damage the table: %w", err)
	}
	m, err := d.latest(ctx, "orders")
	if err != nil {
		return err
	}
	r, err := verifyAt(ctx, d.streams, d.site, function.Command{Kind: function.KindVerify, Backup: string(m.Backup), Against: d.table("orders"), Depth: verify.DepthRows}, 0)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	d.say("   tablevault verify --backup %s --against %s", m.Backup, d.table("orders"))
	var text strings.Builder
	r.human(&text)
	d.say("   %s", strings.ReplaceAll(strings.TrimSpace(text.String()), "\n", "\n   "))
	if r.Missing != damagedMissing || r.Changed != 1 || r.Extra != 1 {
		return fmt.Errorf("verify found %d missing, %d changed, %d extra: want %d, 1, 1", r.Missing, r.Changed, r.Extra, damagedMissing)
	}
	return nil
}

func (d *demo) restore(ctx context.Context, _ demoData) error {
	d.head(4, "Restore beside the damaged table, and prove the copy")
	start := time.Now()
	r, err := restoreTo(ctx, d.streams, d.site, function.Command{Kind: function.KindRestore, Table: d.table("orders"), To: d.table("orders_restored")})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	took := time.Since(start)
	d.say("   %s: %s rows written and compared in both directions in %s: %s", r.Table, count(r.Rows), took.Round(10*time.Millisecond), r.Verdict)
	for _, n := range r.Notes {
		d.say("   note: %s", n)
	}
	if r.Verdict != vault.OK {
		return fmt.Errorf("the restored table is not proved: %s", r.Verdict)
	}
	return nil
}

func (d *demo) tamper(ctx context.Context, _ demoData) error {
	d.head(5, "Turn one bit in a copy of the vault")
	copied := filepath.Join(d.dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(d.dir, "vault"))); err != nil {
		return err
	}
	store, err := dir.Open(ctx, copied)
	if err != nil {
		return err
	}
	repo, err := repository.Open(ctx, store)
	if err != nil {
		return err
	}
	m, err := d.latest(ctx, "events")
	if err != nil {
		return err
	}
	b := vault.Backup{Table: m.Table, ID: m.Backup}
	shard, err := flipBit(filepath.Join(copied, filepath.FromSlash(b.Shards())))
	if err != nil {
		return err
	}
	v := &verify.Verifier{Repo: repo, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	proof, err := v.Verify(ctx, verify.Request{Backup: b, Depth: verify.DepthRead})
	if err != nil {
		return fmt.Errorf("verify the copy: %w", err)
	}
	d.say("   in %s", filepath.Base(shard))
	d.say("   verify says: %s", proof.Verdict)
	for _, f := range proof.Check.Findings {
		d.say("   %s: %s", filepath.Base(f.Object), f.Reason)
	}
	if proof.Verdict != vault.Corrupt {
		return errors.New("a changed bit was not noticed")
	}
	return nil
}

// flipBit turns a bit in the middle of the first shard under a directory.
func flipBit(under string) (string, error) {
	var file string
	err := filepath.WalkDir(under, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".shard") || file != "" {
			return err
		}
		file = path
		return nil
	})
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	data[len(data)/2] ^= 0x10
	return file, os.WriteFile(file, data, 0o600)
}

// tail keeps the end of what is written to it.
type tail struct{ last []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.last = append(t.last, b...)
	if over := len(t.last) - 16<<10; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return len(b), nil
}

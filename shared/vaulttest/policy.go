package vaulttest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Hourly backs everything of prod up.
const Hourly = "tables: prod/*\nevery: hourly\nkeep: 72 hours\nsegment_size: 1 MiB\nlanes: 3"

// Requests answers requests.
func (w *World) Requests() *restore.Requests {
	return &restore.Requests{
		Repo: w.Repo, Work: w, Log: w.Log(), Planner: func(string) (*restore.Planner, error) { return w.Restorer(), nil },
		Parse: func(content []byte) (restore.Ask, error) {
			var ask struct {
				Backup, Table, To string
				At                time.Time
			}
			if err := json.Unmarshal(content, &ask); err != nil {
				return restore.Ask{}, err
			}
			of, _ := vault.ParseTable("local", ask.Table) // none where a backup is named
			to, err := vault.ParseTable("local", ask.To)
			return restore.Ask{Backup: vault.BackupID(ask.Backup), Table: of, At: ask.At, Target: to}, err
		},
	}
}

// Reconciler does what a policy's text asks for.
func (w *World) Reconciler(text string) *reconcile.Reconciler {
	w.T.Helper()
	p := policy.Default()
	if text != "" {
		var err error
		if p, err = policy.Decode("tablevault.yaml", []byte(text)); err != nil {
			w.T.Fatal(err)
		}
	}
	return &reconcile.Reconciler{
		Repo: w.Repo, Policy: p, Region: "local", Work: w, Log: w.Log(),
		Open: func(instance string) (table.Catalog, error) {
			if instance != "prod" {
				return nil, fmt.Errorf("no instance %s", instance)
			}
			return w.Tables, nil
		},
		Endpoint: func(instance string) string { return "http://" + instance },
	}
}

// Tick is one tick, at the world's time or at an instant of its own.
func (w *World) Tick(text string, at ...time.Time) *reconcile.Tick {
	w.T.Helper()
	instant := w.Clock()
	if len(at) > 0 {
		instant = at[0]
	}
	tick, err := w.Reconciler(text).Tick(w.T.Context(), w.Run(), instant)
	if err != nil {
		w.T.Fatal(err)
	}
	return tick
}

// Settle ticks and works until nothing is open.
func (w *World) Settle(text string) {
	w.T.Helper()
	for range 100 {
		tick := w.Tick(text)
		w.Work()
		if !slices.ContainsFunc(tick.Backups, func(b reconcile.Backup) bool { return b.State == backup.StateRunning }) && tick.Restores+tick.Requests == 0 {
			return
		}
		w.Advance(10 * time.Second)
	}
	w.T.Fatal("what is due does not end")
}

// Drain takes all work that is queued.
func (w *World) Drain() []fanout.Work {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue := w.Queue
	w.Queue = nil
	return queue
}

// Said says whether a tick reported a text.
func Said(s *reconcile.Tick, text string) bool {
	return slices.ContainsFunc(s.Reports, func(r policy.Report) bool { return strings.Contains(r.Text, text) })
}

// BeginAndDie notes a start as a worker does, and nothing else.
func BeginAndDie(w *World, work fanout.Work) error {
	run := w.Run()
	n := vault.Note{Segment: work.Segment, Start: work.Start, Request: "dead", Began: run.Now(), Until: run.Until}
	log := vault.Backup{Table: work.Table, ID: work.Backup}.Log()
	if work.Restore != "" {
		log = vault.Restore{ID: work.Restore}.Log()
	}
	data, err := vault.Encode(log.Start(work.Segment, work.Start), &n)
	if err != nil {
		return err
	}
	_, _, err = object.Decide(w.T.Context(), w.Store, log.Start(work.Segment, work.Start), data, 1<<20)
	return err
}

// HourlyCopied is a policy that backs everything of prod up, to two replicas.
const HourlyCopied = Hourly + "\ndestinations: [" + ReplicaAddress + ", oss://third/vault]"

// Manifests are the sealed backups of a table, oldest first.
func (w *World) Manifests(name string) []*vault.Manifest {
	w.T.Helper()
	var all []*vault.Manifest
	for m, err := range w.Repo.Manifests(w.T.Context(), &vault.TableID{Region: "local", Instance: "prod", Table: name}) {
		if err != nil {
			w.T.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

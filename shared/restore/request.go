package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// maxRequest bounds the object that holds a request: a command is short.
const maxRequest = 128 << 10

// Requests carries out restores that were asked for by an object in the vault,
// requests/<name>.json, and answers each with an object, answers/requests/<name>.json.
// Whoever may write there may restore backups of this vault into tables that do not
// exist, and nothing else.
//
// A request is looked at until it is answered: when it lands, and by every tick of the
// planner. Its first look fixes what it asks for; all looks are alike, may come twice, at
// the same time, or not at all.
type Requests struct {
	Repo *repository.Repository
	// Parse reads a request's content.
	Parse func(content []byte) (Ask, error)
	// Planner makes what restores into an instance, Open reaches it.
	Planner func(instance string) (*Planner, error)
	Open    func(instance string) (table.Catalog, error)
	// Replicas are those with the keys that a person's command, or the plan of a restore,
	// names.
	Replicas func(keys []string) []repository.Replica
	// Work has the planner look at the drill whose request was answered; nil leaves that
	// to its next tick.
	Work fanout.Dispatcher
	// Drills is how many workers the restore of a drill may have, 0 for as many as any.
	Drills int
	Log    *slog.Logger
}

// Ask is what a request asks for: either a backup by its id, or the newest of a table,
// not later than At if that is not zero.
type Ask struct {
	Backup vault.BackupID
	Table  vault.TableID
	At     time.Time
	Target vault.TableID
	Budget vault.Budget
	// LocalTransactions has the table take local transactions.
	LocalTransactions bool
	// New and Replicas are those of a person, as a [Request] has them.
	New      bool
	Replicas []string
}

// RequestProgress is how far a request has come.
type RequestProgress struct {
	Request string `json:"request"`
	// Restore is how far the restore has come, Answer what became of it; nil while that
	// is open.
	Restore *Progress     `json:"restore,omitempty"`
	Answer  *vault.Answer `json:"answer,omitempty"`
}

// refused is why a request can't be carried out, now or ever.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// Serve looks at a request and does what is due. An error means that the next look may
// come further; what can't be carried out at all is an answer.
func (q *Requests) Serve(ctx context.Context, run fanout.Run, name string) (RequestProgress, error) {
	progress := RequestProgress{Request: name}
	if err := vault.ParseRequestName(name); err != nil {
		return progress, err
	}
	var answer vault.Answer
	_, err := q.Repo.Read(ctx, vault.AnswerName(name), &answer)
	if err == nil {
		progress.Answer = &answer
		return progress, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return progress, fmt.Errorf("request %s: %w", name, err)
	}
	accepted, answer, err := q.serve(ctx, run, name, &progress)
	var no refused
	switch {
	case errors.As(err, &no), err != nil && fanout.Permanent(err):
		answer = vault.Answer{Error: run.Text(err)}
	case err != nil:
		return progress, fmt.Errorf("request %s: %w", name, err)
	case !answer.OK && answer.Error == "":
		return progress, nil // it goes on
	}
	answer.Request, answer.At = name, run.Now().UTC()
	if accepted != nil {
		answer.Restore, answer.Backup, answer.Table, answer.Target = accepted.Restore, accepted.Backup, accepted.Table.String(), accepted.Target.String()
	}
	mine, err := q.Repo.Win(ctx, vault.AnswerName(name), &answer)
	if err != nil {
		return progress, fmt.Errorf("request %s: %w", name, err)
	}
	if mine {
		q.Log.Info("request answered", "request", name, "ok", answer.OK, "error", answer.Error)
	}
	if mine && q.Work != nil && strings.HasPrefix(name, vault.DrillRequests) {
		if err := q.Work.Submit(ctx, fanout.Work{Verb: fanout.VerbTick, Request: name, After: fanout.Answering}); err != nil {
			q.Log.Warn("the drill is recorded by the next tick only", "request", name, "error", err)
		}
	}
	progress.Answer = &answer
	return progress, nil
}

// serve accepts a request, begins its restore or goes on with it, and returns an answer
// that says something if it has ended.
func (q *Requests) serve(ctx context.Context, run fanout.Run, name string, progress *RequestProgress) (*vault.Accepted, vault.Answer, error) {
	var answer vault.Answer
	a, err := q.accept(ctx, name)
	if err != nil {
		return nil, answer, err
	}
	planner, err := q.Planner(a.Target.Instance)
	if err != nil {
		return a, answer, err
	}
	planner.Request = name
	if q.Drills > 0 && strings.HasPrefix(name, vault.DrillRequests) {
		planner.Workers = q.Drills
	}
	plan, err := planner.Begin(ctx, run, Request{
		Backup: vault.Backup{Table: a.Table, ID: a.Backup}, Target: a.Target, At: a.At, Own: true, Budget: a.Budget, Instant: a.Instant,
		LocalTransactions: a.LocalTransactions,
	})
	if err != nil {
		return a, answer, err
	}
	p, err := planner.Tick(ctx, run, plan.Restore)
	progress.Restore = &p
	if err != nil {
		return a, answer, err
	}
	if p.State == StateFailed && !p.over {
		// Nobody gives the command again when its cause is mended: end it, so
		// that none of its workers writes any more, and say so.
		closed, err := GiveUp(ctx, q.Repo, run, plan.Restore, p.LastError)
		if err != nil {
			return a, answer, err
		}
		if closed.Reason == "" {
			return a, answer, nil // it was handed over meanwhile
		}
		if p, err = planner.Tick(ctx, run, plan.Restore); err != nil {
			return a, answer, err
		}
	}
	switch p.State {
	case StateDone:
		answer.OK = true
	case StateFailed:
		answer.Error = fmt.Sprintf("restore %s failed: %s; drop %s and put a request under another name", plan.Restore, p.LastError, a.Target)
	}
	if p.Proof != nil {
		answer.Rows, answer.Quarantined, answer.Verdict = p.Proof.Check.Target, p.Proof.Check.Quarantined, p.Proof.Verdict
		answer.Proof, answer.Notes = vault.Restore{ID: plan.Restore}.Proof(), p.Proof.Notes
	}
	return a, answer, nil
}

// accept fixes what a request asks for, or reads what was fixed before.
func (q *Requests) accept(ctx context.Context, name string) (*vault.Accepted, error) {
	a := new(vault.Accepted)
	_, err := q.Repo.Read(ctx, vault.AcceptedName(name), a)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	// Its date is the store's, and the same at each look.
	info, err := object.Stat(ctx, q.Repo.Store(), name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is not in this vault: %w", err)
	}
	if err != nil {
		return nil, err
	}
	content, err := object.ReadAll(ctx, q.Repo.Store(), name, maxRequest)
	if errors.Is(err, object.ErrTooLong) {
		return nil, refused{err}
	}
	if err != nil {
		return nil, err
	}
	ask, err := q.Parse(content)
	if err != nil {
		return nil, refused{err}
	}
	if err := ask.Budget.Validate(); err != nil {
		return nil, refused{err}
	}
	if err := NotAhead(ask.At, info.Modified); err != nil {
		return nil, refused{err}
	}
	m, err := q.manifest(ctx, ask)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refused{err}
	}
	if err != nil {
		return nil, err
	}
	if m.State != vault.Sealed {
		return nil, refused{fmt.Errorf("backup %s was given up (%s): `tablevault list` shows those that can be restored", m.Backup, m.Reason)}
	}
	*a = vault.Accepted{
		Request: name, Backup: m.Backup, Table: m.Table, Target: ask.Target, At: info.Modified.UTC(), Budget: ask.Budget,
		Instant: ask.At.UTC(), LocalTransactions: ask.LocalTransactions,
		Restore: vault.RestoreAsked(info.Modified, m.Backup, ask.Target, ask.LocalTransactions),
	}
	_, err = q.Repo.Win(ctx, vault.AcceptedName(name), a)
	return a, err
}

func (q *Requests) manifest(ctx context.Context, ask Ask) (*vault.Manifest, error) {
	if ask.Backup == "" {
		return q.Repo.Latest(ctx, ask.Table, ask.At)
	}
	b, err := q.Repo.Named(ctx, ask.Backup, ask.Table, ask.At)
	if err != nil {
		return nil, err
	}
	m, _, err := q.Repo.Manifest(ctx, b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("backup %s of %s is not sealed: %w", b.ID, b.Table, err)
	}
	return m, err
}

// RequestName is the name in the vault of a request that an event names as
// scheme://bucket/key. address is the vault's; a request elsewhere is refused.
func RequestName(address, request string) (string, error) {
	if vault.IsRequest(request) {
		return request, vault.ParseRequestName(request)
	}
	at, err := place.Parse(address)
	if err != nil {
		return "", table.Invalidf("the address of the vault: %w", err)
	}
	at.Endpoint = "" // an event does not tell it
	name, ok := strings.CutPrefix(request, at.String()+"/")
	if at.Scheme == "file" {
		// Where a directory keeps the vault, it stands for the bucket of the trigger.
		_, name, ok = strings.Cut(strings.TrimPrefix(request, "oss://"), "/")
	}
	if !ok {
		return "", table.Invalidf("the request %s is not in the vault %s, where requests are read from %s only", request, at, vault.RequestPrefix)
	}
	return name, vault.ParseRequestName(name)
}

package fc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/local/fc/deployment"
)

// tick fires a timer whenever it is due.
func (h *Host) tick(p *pool, t deployment.Timer) {
	now := time.Now()
	for {
		next := t.Schedule.Next(now)
		if next.IsZero() {
			return
		}
		wait := time.NewTimer(time.Until(next))
		select {
		case <-wait.C:
		case <-h.ctx.Done():
			wait.Stop()
			return
		}
		if err := h.fire(p.function.Name, t, next); err != nil {
			h.log.print("host", fmt.Sprintf("timer %s of %s: %v", t.Name, p.function.Name, err))
		}
		// From the tick that was due, so that none fires twice; but a machine which
		// slept does not make up for all that it missed.
		if now = next; time.Since(next) > time.Minute {
			now = time.Now()
		}
	}
}

// Fire fires a function's timer, also one that is switched off, as if it had been due at
// that time.
func (h *Host) Fire(function, timer string, at time.Time) error {
	h.mu.Lock()
	p := h.pools[function]
	h.mu.Unlock()
	if p != nil {
		for _, t := range p.function.Timers {
			if t.Name == timer {
				return h.fire(function, t, at)
			}
		}
	}
	return fmt.Errorf("fire: function %s has no timer %s", function, timer)
}

func (h *Host) fire(function string, t deployment.Timer, at time.Time) error {
	return h.send(function, struct {
		TriggerTime string `json:"triggerTime"`
		TriggerName string `json:"triggerName"`
		Payload     string `json:"payload"`
	}{at.UTC().Format(time.RFC3339), t.Name, t.Payload})
}

func (h *Host) send(function string, event any) error { return h.sendAs(function, "", event) }

// sendAs sends an event under a task id, if it has one: an event that was sent under it
// before is not sent again.
func (h *Host) sendAs(function, task string, event any) error {
	data, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("event for %s: %w", function, err)
	}
	_, err = h.Submit(function, task, data, 0)
	if task != "" && errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Object is an object that was created in a bucket.
type Object struct {
	Event   string // such as oss:ObjectCreated:PutObject
	Bucket  string
	Key     string
	ETag    string
	Size    int64
	Created time.Time
}

// ObjectCreated fires every object trigger that o matches. Whoever keeps the objects
// calls it.
func (h *Host) ObjectCreated(o Object) error { return h.objectCreated(o, "") }

// objectCreated fires the triggers under task ids that begin so.
func (h *Host) objectCreated(o Object, task string) error {
	var errs []error
	for _, f := range h.config.Functions {
		for _, t := range f.Objects {
			if t.Bucket != o.Bucket || !t.Matches(o.Key) || !slices.Contains(t.Events, o.Event) {
				continue
			}
			if t.Role != "" {
				if err := h.config.Authority.AuthorizeRole(t.RoleName(), "fc:InvokeFunction", h.arn(f.Name), nil); err != nil {
					errs = append(errs, fmt.Errorf("trigger %s: %w", t.Name, err))
					continue
				}
			}
			id := task
			if id != "" {
				id += "_" + t.Name
			}
			errs = append(errs, h.sendAs(f.Name, id[:min(len(id), 128)], o.notice(h.config)))
		}
	}
	return errors.Join(errs...)
}

// notice is the event in the service's form, which leaves the oss: of the configuration's
// event names out.
func (o Object) notice(c Config) any {
	type m map[string]any
	return m{"events": []any{m{
		"eventName":    strings.TrimPrefix(o.Event, "oss:"),
		"eventSource":  "acs:oss",
		"eventTime":    o.Created.UTC().Format("2006-01-02T15:04:05.000Z"),
		"eventVersion": "1.0",
		"region":       c.Region,
		"oss": m{
			"bucket":           m{"name": o.Bucket, "arn": "acs:oss:" + c.Region + ":" + c.Account + ":" + o.Bucket, "ownerIdentity": c.Account, "virtualBucket": ""},
			"object":           m{"key": o.Key, "eTag": o.ETag, "size": o.Size, "deltaSize": o.Size},
			"ossSchemaVersion": "1.0",
		},
	}}}
}

// report sends the outcome of a task that has ended to the destination that its function
// has for it.
func (h *Host) report(p *pool, t Task, out outcome) {
	to, condition := p.function.Async.OnFailure, out.errorType
	count := t.Retries + 1
	if t.Status == Succeeded {
		to, condition = p.function.Async.OnSuccess, "Success"
	} else if t.Status == Expired {
		condition, count = "EventAgeExceeded", t.Retries
	}
	if to == "" {
		return
	}
	type m map[string]any
	envelope := m{
		"timestamp": time.Now().UnixMilli(),
		"requestContext": m{
			"requestId": t.RequestID, "functionArn": h.arn(t.Function), "condition": condition, "approximateInvokeCount": count,
		},
		"requestPayload":  string(t.Payload),
		"responseContext": m{"statusCode": 200, "functionError": out.errorType},
		"responsePayload": string(out.body),
	}
	if err := h.tell(to, envelope); err != nil {
		h.log.print(t.Function+" "+t.RequestID, fmt.Sprintf("task %s: %s is not told: %v", t.ID, to, err))
	}
}

func (h *Host) tell(to string, envelope any) error {
	if strings.Contains(to, ":functions/") {
		return h.send(path.Base(to), envelope)
	}
	if h.config.Tell == nil {
		return errors.New("the local host reaches functions only")
	}
	data, err := json.Marshal(envelope)
	if err != nil {
		return err
	}
	return h.config.Tell(to, data)
}

// CloudEvent is an event of a bus.
type CloudEvent struct {
	ID      string // default a unique one
	Source  string
	Type    string
	Subject string
	Time    time.Time
	Data    any // marshalled as JSON
}

// Publish puts an event on the account's default bus: every function with an EventBridge
// trigger that is enabled and whose pattern the event fits gets it.
func (h *Host) Publish(e CloudEvent) error {
	if e.Source == "" || e.Type == "" {
		return errors.New("publish: an event needs a source and a type")
	}
	if e.ID == "" {
		e.ID = newRequestID()
	}
	at := e.Time.UTC().Format("2006-01-02T15:04:05.000Z")
	event := map[string]any{
		"id": e.ID, "source": e.Source, "specversion": "1.0", "type": e.Type, "subject": e.Subject, "time": at,
		"datacontenttype": "application/json; charset=utf-8",
		"aliyunaccountid": h.config.Account, "aliyunpublishtime": at, "aliyuneventbusname": "default", "aliyunregionid": h.config.Region,
		"data": e.Data,
	}
	facts := map[string]string{"source": e.Source, "type": e.Type, "subject": e.Subject}
	var errs []error
	for _, f := range h.config.Functions {
		for _, t := range f.Events {
			if t.Enabled && t.Pattern.Fits(facts) {
				errs = append(errs, h.send(f.Name, event))
			}
		}
	}
	return errors.Join(errs...)
}

func (h *Host) arn(function string) string {
	return fmt.Sprintf("acs:fc:%s:%s:functions/%s", h.config.Region, h.config.Account, function)
}

package function

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// maxEvent bounds what is decoded. An asynchronous event holds 128 KiB; a destination's
// envelope quotes such an event once more, with escapes.
const maxEvent = 1 << 20

// maxNesting bounds how often an event may be wrapped in another.
const maxNesting = 4

// Event is one command and what caused it.
type Event struct {
	Command Command
	Origin  Origin
}

// Source names the kind of trigger that an event came from.
type Source string

// The sources.
const (
	SourceDirect      Source = "direct"      // console, command line, another function
	SourceTimer       Source = "timer"       // a timer trigger
	SourceObject      Source = "object"      // an object that landed in a bucket
	SourceCloudEvent  Source = "cloudevent"  // EventBridge
	SourceDestination Source = "destination" // the outcome of another asynchronous invocation
)

// Origin tells what caused an event.
type Origin struct {
	Source  Source
	Trigger string    // a timer's name
	ID      string    // the source's own id of the event, if it has one
	Time    time.Time // when it was triggered, UTC, as the event says; zero if it does not; see [Origin.Instant]
	Object  *Object   // of SourceObject
	Outcome *Outcome  // of SourceDestination
}

// Object is what a bucket's event says about an object.
type Object struct {
	Bucket string
	Key    string
	ETag   string
	Size   int64
}

// Outcome is the ended invocation that a destination reports.
type Outcome struct {
	RequestID string          // of the ended invocation
	Function  string          // its function's ARN
	Condition string          // why it ended, as the platform says
	Status    int             // of the response
	Error     string          // the platform's error type; empty after a success
	Request   json.RawMessage // the event it was given, as JSON if it was JSON, else as a JSON string
	Response  json.RawMessage // what it answered, in the same way
}

// Key is the same for every delivery of one trigger, and empty for a direct event, which
// nothing identifies. Ids of what a trigger starts derive from it.
func (o Origin) Key() string {
	switch o.Source {
	case SourceTimer:
		return "timer/" + o.Trigger + "/" + o.Time.UTC().Format(time.RFC3339)
	case SourceObject:
		return "object/" + o.Object.Bucket + "/" + o.Object.Key + "/" + o.Object.ETag
	case SourceCloudEvent:
		return "cloudevent/" + o.ID
	case SourceDestination:
		return "destination/" + o.Outcome.RequestID
	}
	return ""
}

// Instant is when the trigger went off, and whether its event tells. One without an
// instant, or with one that is still to come, went off when it was delivered, as far as
// anybody knows: ids that derive from it then sort by that.
func (o Origin) Instant(now time.Time) (at time.Time, told bool) { return vault.Happened(o.Time, now) }

// Decode reads an event of any source that the functions are triggered by:
//
//   - a command as [ParseCommand] reads it (console, command line, functions);
//   - a timer's event: its payload is a string that holds a command, and an
//     empty payload is a tick;
//   - an OSS trigger's event: each created object becomes a restore whose
//     Request names the object;
//   - an EventBridge event, or an array of them, or an array of strings that
//     hold them, whose data is a command, an OSS record or a message with a
//     command as its body;
//   - an asynchronous destination's envelope: a tick whose origin has the
//     [Outcome], since the reconciler finds out by looking what is to be done.
//
// What it is, its keys tell; an unknown shape is an error that names them. One delivery
// may hold several events (bucket notifications and EventBridge batch them): all are
// returned, in order, without repetitions, and never none.
func Decode(event []byte) ([]Event, error) {
	if len(event) > maxEvent {
		return nil, fmt.Errorf("event of %d bytes exceeds %d", len(event), maxEvent)
	}
	if len(bytes.TrimSpace(event)) == 0 {
		return nil, errors.New(`event is empty; a command looks like {"kind":"backup","table":"instance/table","type":"full"}`)
	}
	events, err := decode(event, Origin{Source: SourceDirect}, 0)
	if err != nil {
		return nil, err
	}
	return distinct(events), nil
}

func decode(data []byte, origin Origin, depth int) ([]Event, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("event is wrapped more than %d times", maxNesting)
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return nil, errors.New("event holds an empty text where a command is expected")
	}
	switch data[0] {
	case '"':
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return nil, fmt.Errorf("event is not JSON: %w", err)
		}
		return decode([]byte(text), origin, depth+1)
	case '[':
		var items []json.RawMessage
		if err := json.Unmarshal(data, &items); err != nil {
			return nil, fmt.Errorf("event is not JSON: %w", err)
		}
		if len(items) == 0 {
			return nil, errors.New("event is an array without elements")
		}
		var events []Event
		for i, item := range items {
			more, err := decode(item, origin, depth+1)
			if err != nil {
				return nil, fmt.Errorf("element %d of %d: %w", i, len(items), err)
			}
			events = append(events, more...)
		}
		return events, nil
	case '{':
		return decodeObject(data, origin, depth)
	}
	if !json.Valid(data) {
		return nil, fmt.Errorf("event is not JSON: it begins with %q", clip(data, 32))
	}
	return nil, fmt.Errorf("event is %s, not a JSON object", clip(data, 32))
}

func decodeObject(data []byte, origin Origin, depth int) ([]Event, error) {
	all, err := members(data)
	if err != nil {
		return nil, fmt.Errorf("event is %w", err)
	}
	object := make(map[string]json.RawMessage, len(all))
	for _, m := range all {
		object[m.key] = m.value
	}
	has := func(keys ...string) bool {
		return !slices.ContainsFunc(keys, func(key string) bool { _, ok := object[key]; return !ok })
	}
	switch {
	case has("kind"):
		if err := checkLength(data); err != nil {
			return nil, err
		}
		cmd, err := commandOf(all)
		if err != nil {
			return nil, err
		}
		return []Event{{cmd, origin}}, nil
	case has("triggerTime"):
		return decodeTimer(data, depth)
	case has("specversion"):
		return decodeCloudEvent(data, depth)
	case has("requestContext", "responseContext"):
		return decodeDestination(data)
	case has("events"):
		return decodeObjects(data)
	case has("oss"):
		var record ossRecord
		if err := json.Unmarshal(data, &record); err != nil {
			return nil, fmt.Errorf("OSS record: %w", err)
		}
		event, err := record.event()
		if err != nil {
			return nil, err
		}
		return []Event{event}, nil
	case has("messageBody"):
		return decode(object["messageBody"], origin, depth+1)
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, clip([]byte(name), 64))
	}
	slices.Sort(names)
	if len(names) > 32 {
		names = append(names[:32], "…")
	}
	return nil, fmt.Errorf("event of an unknown shape with the keys [%s]; a command has a kind: %s",
		strings.Join(names, " "), joined(Kinds()))
}

func decodeTimer(data []byte, depth int) ([]Event, error) {
	var timer struct {
		TriggerTime string          `json:"triggerTime"`
		TriggerName string          `json:"triggerName"`
		Payload     json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(data, &timer); err != nil {
		return nil, fmt.Errorf("timer event: %w", err)
	}
	at, err := ParseInstant(timer.TriggerTime)
	if err != nil {
		return nil, fmt.Errorf("timer event: triggerTime %w", err)
	}
	origin := Origin{Source: SourceTimer, Trigger: timer.TriggerName, Time: at}
	if empty(timer.Payload) {
		return []Event{{Command{Version: Version, Kind: KindTick}, origin}}, nil
	}
	events, err := decode(timer.Payload, origin, depth+1)
	if err != nil {
		return nil, fmt.Errorf("payload of timer %q: %w", clip([]byte(timer.TriggerName), 64), err)
	}
	return events, nil
}

// empty reports whether a payload says nothing: absent, null, or a blank string.
func empty(raw json.RawMessage) bool {
	var text string
	switch {
	case len(raw) == 0, string(raw) == "null":
		return true
	case json.Unmarshal(raw, &text) == nil:
		return strings.TrimSpace(text) == ""
	}
	return false
}

func decodeCloudEvent(data []byte, depth int) ([]Event, error) {
	var event struct {
		ID         string          `json:"id"`
		Source     string          `json:"source"`
		Type       string          `json:"type"`
		Time       string          `json:"time"`
		Data       json.RawMessage `json:"data"`
		DataBase64 []byte          `json:"data_base64"`
	}
	if err := json.Unmarshal(data, &event); err != nil {
		var corrupt base64.CorruptInputError
		if errors.As(err, &corrupt) {
			return nil, fmt.Errorf("EventBridge event: data_base64: %w", err)
		}
		return nil, fmt.Errorf("EventBridge event: %w", err)
	}
	if event.ID == "" || event.Source == "" {
		return nil, errors.New("EventBridge event without an id or a source")
	}
	origin := Origin{Source: SourceCloudEvent, ID: event.Source + "/" + event.ID}
	if event.Time != "" {
		at, err := ParseInstant(event.Time)
		if err != nil {
			return nil, fmt.Errorf("EventBridge event %s: time %w", clip([]byte(origin.ID), 128), err)
		}
		origin.Time = at
	}
	body := []byte(event.Data)
	if len(body) == 0 || string(body) == "null" {
		body = event.DataBase64
	}
	events, err := decode(body, origin, depth+1)
	if err != nil {
		return nil, fmt.Errorf("data of EventBridge event %s of type %q: %w", clip([]byte(origin.ID), 128), clip([]byte(event.Type), 64), err)
	}
	return events, nil
}

func decodeDestination(data []byte) ([]Event, error) {
	var envelope struct {
		Timestamp      json.RawMessage `json:"timestamp"`
		RequestContext struct {
			RequestID   string `json:"requestId"`
			FunctionARN string `json:"functionArn"`
			Condition   string `json:"condition"`
		} `json:"requestContext"`
		RequestPayload  json.RawMessage `json:"requestPayload"`
		ResponseContext struct {
			StatusCode    int    `json:"statusCode"`
			FunctionError string `json:"functionError"`
		} `json:"responseContext"`
		ResponsePayload json.RawMessage `json:"responsePayload"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		return nil, fmt.Errorf("destination event: %w", err)
	}
	if envelope.RequestContext.RequestID == "" {
		return nil, errors.New("destination event without a request id")
	}
	origin := Origin{Source: SourceDestination, ID: envelope.RequestContext.RequestID, Outcome: &Outcome{
		RequestID: envelope.RequestContext.RequestID,
		Function:  envelope.RequestContext.FunctionARN,
		Condition: envelope.RequestContext.Condition,
		Status:    envelope.ResponseContext.StatusCode,
		Error:     envelope.ResponseContext.FunctionError,
		Request:   unquote(envelope.RequestPayload),
		Response:  unquote(envelope.ResponsePayload),
	}}
	// The timestamp's form is not documented for every target: it is taken as
	// milliseconds or as RFC 3339, and its absence is no reason to drop the event.
	var millis int64
	var text string
	if json.Unmarshal(envelope.Timestamp, &millis) == nil && millis > 0 && millis < 1<<48 {
		origin.Time = time.UnixMilli(millis).UTC()
	} else if json.Unmarshal(envelope.Timestamp, &text) == nil {
		if at, err := ParseInstant(text); err == nil {
			origin.Time = at
		}
	}
	return []Event{{Command{Version: Version, Kind: KindTick}, origin}}, nil
}

// unquote turns a payload that is a string of JSON into that JSON.
func unquote(raw json.RawMessage) json.RawMessage {
	var text string
	if json.Unmarshal(raw, &text) == nil && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return raw
}

// ossRecord is one element of an OSS trigger's events; through EventBridge it arrives as
// the data of an event.
type ossRecord struct {
	EventName string `json:"eventName"`
	EventTime string `json:"eventTime"`
	OSS       *struct {
		Bucket struct {
			Name string `json:"name"`
		} `json:"bucket"`
		Object struct {
			Key  string `json:"key"`
			ETag string `json:"eTag"`
			Size int64  `json:"size"`
		} `json:"object"`
	} `json:"oss"`
}

func decodeObjects(data []byte) ([]Event, error) {
	var notice struct {
		Events []ossRecord `json:"events"`
	}
	if err := json.Unmarshal(data, &notice); err != nil {
		return nil, fmt.Errorf("OSS event: %w", err)
	}
	if len(notice.Events) == 0 {
		return nil, errors.New("OSS event without records")
	}
	events := make([]Event, 0, len(notice.Events))
	for i, record := range notice.Events {
		event, err := record.event()
		if err != nil {
			return nil, fmt.Errorf("OSS record %d of %d: %w", i, len(notice.Events), err)
		}
		events = append(events, event)
	}
	return events, nil
}

func (r ossRecord) event() (Event, error) {
	if r.OSS == nil {
		return Event{}, errors.New("it has no key oss")
	}
	// Configuration writes oss:ObjectCreated:PutObject, the event leaves oss: out.
	name := strings.TrimPrefix(r.EventName, "oss:")
	if name != "" && !strings.HasPrefix(name, "ObjectCreated:") {
		return Event{}, fmt.Errorf("event %q is not the creation of an object: limit the trigger to oss:ObjectCreated", clip([]byte(r.EventName), 64))
	}
	key := r.OSS.Object.Key
	// Whether keys arrive URL-encoded is not documented. A request's key has no
	// character that encoding changes but the slash, so a percent sign can only
	// come from encoding.
	if strings.Contains(key, "%") {
		plain, err := url.PathUnescape(key)
		if err != nil {
			return Event{}, fmt.Errorf("object key %q: %w", clip([]byte(key), 128), err)
		}
		key = plain
	}
	request := "oss://" + r.OSS.Bucket.Name + "/" + key
	if err := checkRequest(request); err != nil {
		return Event{}, err
	}
	origin := Origin{Source: SourceObject, Object: &Object{
		Bucket: r.OSS.Bucket.Name, Key: key, ETag: r.OSS.Object.ETag, Size: r.OSS.Object.Size}}
	if r.EventTime != "" {
		at, err := ParseInstant(r.EventTime)
		if err != nil {
			return Event{}, fmt.Errorf("object %s: eventTime %w", request, err)
		}
		origin.Time = at
	}
	return Event{Command{Version: Version, Kind: KindRestore, Request: request}, origin}, nil
}

var requestForm = regexp.MustCompile(`^[A-Za-z0-9._/-]+$`)

// checkRequest finds out whether a request is oss://bucket/key. Its key has only letters,
// digits, dots, hyphens, underscores and slashes.
func checkRequest(request string) error {
	rest, oss := strings.CutPrefix(request, "oss://")
	bucket, key, _ := strings.Cut(rest, "/")
	if !oss || bucket == "" || key == "" {
		return fmt.Errorf("%q is not oss://bucket/key", clip([]byte(request), 128))
	}
	if !requestForm.MatchString(rest) {
		return fmt.Errorf("%q: name requests with letters, digits and . _ - / only", clip([]byte(request), 128))
	}
	return nil
}

// distinct drops repetitions of the same command from the same origin.
func distinct(events []Event) []Event {
	if len(events) < 2 {
		return events
	}
	seen := make(map[string]bool, len(events))
	return slices.DeleteFunc(events, func(e Event) bool {
		text, err := e.Command.Encode()
		if err != nil {
			return false // decoding validated it; were it too long now, it is kept
		}
		id := e.Origin.Key() + "\n" + string(text)
		defer func() { seen[id] = true }()
		return seen[id]
	})
}

// clip shortens text for an error message.
func clip(text []byte, n int) string {
	if len(text) <= n {
		return string(text)
	}
	return strings.ToValidUTF8(string(text[:n]), "") + "…"
}

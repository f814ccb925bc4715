package function

import (
	"context"
	"fmt"
	"log/slog"
)

// Credentials is an access key, with a security token if it is a temporary one.
// However it is printed, logged or marshalled, only the id shows.
type Credentials struct {
	ID     string
	Secret string
	Token  string
}

// IsZero reports whether there is no key at all.
func (c Credentials) IsZero() bool { return c == Credentials{} }

// Provider returns a function that always yields c, for clients that ask for
// credentials per request. A triple handed over with an invocation outlives the
// longest one: it is valid for 36 hours, and a function ends after 24.
func (c Credentials) Provider() func(context.Context) (Credentials, error) {
	return func(context.Context) (Credentials, error) { return c, nil }
}

// String returns the id and says whether a token is there.
func (c Credentials) String() string {
	if c.Token != "" {
		return "credentials " + c.ID + " with a token"
	}
	return "credentials " + c.ID
}

// Format prints [Credentials.String] for every verb, so that neither %#v nor %x
// shows a secret.
func (c Credentials) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue makes slog print [Credentials.String].
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText makes encoding/json and its kind print [Credentials.String].
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

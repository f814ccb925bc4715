// Package access has the keys that requests are signed with.
package access

import (
	"context"
	"fmt"
	"log/slog"
)

// Key is an access key, with a security token if it is a temporary one. However it is
// printed, logged or marshalled, only the id shows.
type Key struct {
	ID     string
	Secret string
	Token  string
}

// Provider yields the key of the moment. Clients ask for one before every request, from
// several goroutines at a time.
type Provider func(context.Context) (Key, error)

// IsZero reports whether there is no key at all.
func (k Key) IsZero() bool { return k == Key{} }

// Provider always yields k. A triple handed over with an invocation outlives the longest
// one: it is valid for 36 hours, and a function ends after 24.
func (k Key) Provider() Provider {
	return func(context.Context) (Key, error) { return k, nil }
}

// String returns the id and says whether a token is there.
func (k Key) String() string {
	if k.Token != "" {
		return "credentials " + k.ID + " with a token"
	}
	return "credentials " + k.ID
}

// Format prints [Key.String] for every verb, so that neither %#v nor %x shows a secret.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue makes slog print [Key.String].
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText makes encoding/json and its kind print [Key.String].
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

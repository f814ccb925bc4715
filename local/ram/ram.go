// Package ram stands in for the account's authority over keys and permissions: it hands
// out temporary keys for roles, knows until when they are valid, and says what they may
// do.
//
// The other stand-ins ask it who signed a request, and whether that one may do what the
// request asks for:
//
//	authority := ram.New(ram.Config{Owner: ram.Key{ID: "id", Secret: "secret"}})
//	authority.SetPolicies("tablevault-export", policy)
//	key, err := authority.Assume("tablevault-export", time.Hour)
//	…
//	err = authority.Authorize(key.ID, "ots:GetRange", "acs:ots:…", nil)
//
// After [Authority.Record] it keeps who asked for what, so that a test can hold a policy
// against the calls that were made.
package ram

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Key is an access key, with a token and an end if it is a temporary one.
type Key struct {
	ID      string
	Secret  string
	Token   string
	Expires time.Time // zero: never
}

// String hides the secret.
func (k Key) String() string { return "key " + k.ID }

// GoString hides the secret.
func (k Key) GoString() string { return k.String() }

// Config says who owns the account.
type Config struct {
	// Owner may do everything.
	Owner Key
	// Now is the clock, the system's if nil.
	Now func() time.Time
	// Refused, if given, is told of each call that is not allowed, before its caller is.
	// It is called from several goroutines.
	Refused func(*Denied)
}

// Authority knows keys and permissions. It is safe for use by several goroutines.
type Authority struct {
	owner   Key
	now     func() time.Time
	refused func(*Denied)

	mu    sync.Mutex
	keys  map[string]holder // temporary ones, by id
	roles map[string][]*Policy
	calls map[Call]int // nil: they are not recorded
	swept time.Time
}

type holder struct {
	key  Key
	role string
}

// Call is what someone asked for, and whether it was allowed.
type Call struct {
	Role     string // empty for the owner
	Action   string
	Resource string
	Allowed  bool
}

// Denied is a call that was not allowed.
type Denied struct {
	Role     string
	Action   string
	Resource string
}

func (d *Denied) Error() string {
	return fmt.Sprintf("the role %s may not %s on %s", d.Role, d.Action, d.Resource)
}

// errUnknown is about a key that nobody has.
var errUnknown = errors.New("the access key is unknown, or has expired")

// New returns an authority that knows its owner and nobody else.
func New(c Config) *Authority {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Authority{owner: c.Owner, now: c.Now, refused: c.Refused, keys: map[string]holder{}, roles: map[string][]*Policy{}}
}

// SetPolicies says what a role may do, in place of what was said before. A role that was
// never given policies may do everything: permissions are enforced where somebody has
// thought about them.
func (a *Authority) SetPolicies(role string, policies ...*Policy) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roles[role] = policies
}

// Assume returns a new temporary key of a role, valid for life.
func (a *Authority) Assume(role string, life time.Duration) Key {
	now := a.now()
	k := Key{ID: "STS." + token(12), Secret: token(20), Token: token(32), Expires: now.Add(life)}
	a.mu.Lock()
	defer a.mu.Unlock()
	// An expired key is kept for a while: its late users are told that it has
	// expired, and not that it never was.
	if now.Sub(a.swept) > time.Minute {
		for id, h := range a.keys {
			if now.Sub(h.key.Expires) > time.Hour {
				delete(a.keys, id)
			}
		}
		a.swept = now
	}
	a.keys[k.ID] = holder{k, role}
	return k
}

// Lookup returns the key of an id, also one that has expired: see [Key.Expires].
func (a *Authority) Lookup(id string) (Key, bool) {
	if id == a.owner.ID {
		return a.owner, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.keys[id]
	return h.key, ok
}

// Expire ends a role's keys at once.
func (a *Authority) Expire(role string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, h := range a.keys {
		if h.role == role {
			h.key.Expires = a.now()
			a.keys[id] = h
		}
	}
}

// Authorize returns nil if the key of an id may carry out an action, such as
// ots:GetRange, on a resource, and a [*Denied] if not. facts are what conditions ask
// about, such as oss:Prefix.
func (a *Authority) Authorize(id, action, resource string, facts map[string]string) error {
	a.mu.Lock()
	role := ""
	if id != a.owner.ID {
		h, ok := a.keys[id]
		if !ok || !a.now().Before(h.key.Expires) {
			a.mu.Unlock()
			return errUnknown
		}
		role = h.role
	}
	allowed := id == a.owner.ID || a.allows(role, action, resource, facts)
	a.record(Call{role, action, resource, allowed})
	a.mu.Unlock()
	return a.answer(role, action, resource, allowed)
}

// AuthorizeRole is Authorize for what a service does in a role's name.
func (a *Authority) AuthorizeRole(role, action, resource string, facts map[string]string) error {
	a.mu.Lock()
	allowed := a.allows(role, action, resource, facts)
	a.record(Call{role, action, resource, allowed})
	a.mu.Unlock()
	return a.answer(role, action, resource, allowed)
}

func (a *Authority) answer(role, action, resource string, allowed bool) error {
	if allowed {
		return nil
	}
	d := &Denied{role, action, resource}
	if a.refused != nil {
		a.refused(d)
	}
	return d
}

// allows asks a role's policies. a.mu is held.
func (a *Authority) allows(role, action, resource string, facts map[string]string) bool {
	policies, given := a.roles[role]
	verdict := silent
	for _, p := range policies {
		if d := p.decide(action, resource, facts); d > verdict {
			verdict = d
		}
	}
	return !given || verdict == allowed
}

// record counts a call. a.mu is held.
func (a *Authority) record(c Call) {
	if a.calls != nil {
		a.calls[c]++
	}
}

// Record makes the authority keep what is asked for from now on, and forget what was
// before.
func (a *Authority) Record() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = map[Call]int{}
}

// Calls returns what was asked for since [Authority.Record], each once, in order, and how
// often.
func (a *Authority) Calls() ([]Call, map[Call]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	counts := make(map[Call]int, len(a.calls))
	list := make([]Call, 0, len(a.calls))
	for c, n := range a.calls {
		counts[c] = n
		list = append(list, c)
	}
	slices.SortFunc(list, func(x, y Call) int {
		return cmp.Or(cmp.Compare(x.Role, y.Role), cmp.Compare(x.Action, y.Action), cmp.Compare(x.Resource, y.Resource))
	})
	return list, counts
}

// token returns n random bytes in hex.
func token(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

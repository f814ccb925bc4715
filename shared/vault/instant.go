package vault

import "time"

// MaxAhead is how far an instant that somebody names may lie in the future: so far may
// the clocks of services be apart.
const MaxAhead = 5 * time.Minute

// ClocksApart is how far the store's clock and those of the tables, and of the functions,
// may be apart at most: services refuse requests whose clock is 15 minutes off theirs.
const ClocksApart = 30 * time.Minute

// Happened is when something happened that an event, or a name, gives an instant for, and
// whether that can be: nothing has happened at no instant, nor at one that is still to
// come by the clock of whoever asks. Then it is now.
func Happened(at, now time.Time) (instant time.Time, told bool) {
	if at.IsZero() || at.After(now.Add(MaxAhead)) {
		return now, false
	}
	return at, true
}

// Ahead says whether the instant that an id names is still to come.
func (b BackupID) Ahead(now time.Time) bool {
	at := b.Time()
	return !at.IsZero() && at.After(now.Add(MaxAhead))
}

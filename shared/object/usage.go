package object

import "log/slog"

// Usage is what was asked of a store: requests by kind, failed ones too, and the bytes of
// content that went there and came from there.
type Usage struct {
	// Create is what writes: on the wire each part of an upload, its beginning and its
	// end is a request of its own.
	Create int64 `json:"create"`
	// Open is what reads content, and Stat what asks about it or about the bucket.
	Open int64 `json:"open"`
	Stat int64 `json:"stat"`
	// List is the pages of listings.
	List int64 `json:"list"`
	// Delete is what deletes an object, and on the wire what gives an upload up.
	Delete  int64 `json:"delete"`
	Written int64 `json:"bytes_written"`
	Read    int64 `json:"bytes_read"`
}

// Add adds what was asked elsewhere.
func (u *Usage) Add(o Usage) {
	u.Create += o.Create
	u.Open += o.Open
	u.Stat += o.Stat
	u.List += o.List
	u.Delete += o.Delete
	u.Written += o.Written
	u.Read += o.Read
}

// Sub returns what was asked since before.
func (u Usage) Sub(before Usage) Usage {
	u.Add(Usage{-before.Create, -before.Open, -before.Stat, -before.List, -before.Delete, -before.Written, -before.Read})
	return u
}

// Requests is the number of requests of all kinds.
func (u Usage) Requests() int64 { return u.Create + u.Open + u.Stat + u.List + u.Delete }

// LogValue has the names that it has in documents.
func (u Usage) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int64("create", u.Create), slog.Int64("open", u.Open), slog.Int64("stat", u.Stat), slog.Int64("list", u.List),
		slog.Int64("delete", u.Delete), slog.Int64("bytes_written", u.Written), slog.Int64("bytes_read", u.Read))
}

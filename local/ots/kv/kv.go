// Package kv keeps ordered keys in named spaces, in memory or in a file.
//
// A space is one ordered map from byte keys to byte values. Reads see all of an update or
// none of it, and updates of one space happen one after the other. [Memory] keeps
// everything in the process; [Open] keeps it in a folder, where an update that returned
// survives the death of the process and of the machine.
package kv

// A Store is a set of spaces. It is safe for concurrent use; the functions that it calls
// must not call it.
type Store interface {
	// View calls fn with the space as it is. A space that was never written is empty.
	// View returns fn's error.
	View(space string, fn func(Reader) error) error

	// Update calls fn with the space, alone, and returns when what fn wrote is as durable
	// as the store makes it. Concurrent updates may share that wait.
	//
	// An error or panic of fn is handed back and undoes nothing: fn decides first and
	// writes then.
	Update(space string, fn func(Writer) error) error

	// Drop removes the space and all it holds; a space that is not there is no error.
	Drop(space string) error

	// Close waits for the calls under way. The store is of no use after it.
	Close() error
}

// A Reader reads one space. The slices that it hands out must not be changed and are
// valid until fn returns or, in an update, until the next write.
type Reader interface {
	// Get returns the key's value, or nil if the space does not have it. The value of a
	// key that holds no bytes is empty but not nil.
	Get(key []byte) []byte

	// Ascend calls fn with each key from the given one on, in order, until fn returns
	// false. A nil key is the first.
	Ascend(from []byte, fn func(key, value []byte) bool)

	// Descend calls fn with each key below the given one, in falling order, until fn
	// returns false. A nil key is beyond the last.
	Descend(below []byte, fn func(key, value []byte) bool)
}

// A Writer changes one space. fn of Ascend and Descend must not write.
type Writer interface {
	Reader

	// Put sets the key's value. The key must not be empty. The store may keep both slices
	// until Update returns; they must not change before.
	Put(key, value []byte)

	// Delete removes the key if it is there.
	Delete(key []byte)
}

// Package backup holds the verbs: plan, export, seal, restore, import, verify
// and prune. It is the only package that decides anything.
//
// Every verb may run twice, at the same time, late, or die at any byte; the
// outcome is the same backup or a clear error. They meet in the vault alone: a
// segment's slots, a group's roll-up and the manifest are names that one
// writer wins, and whoever loses obeys what stands there.
//
// The verbs reach the world through ports: [table.Instance] for Tablestore, an
// object.Store for the vault, [Dispatcher] for the functions that work.
package backup

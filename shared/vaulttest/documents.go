package vaulttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// Named is an object of a name, as a document names one that nobody reads.
func Named(name string) vault.Object {
	return vault.Object{Name: name, Bytes: 1, SHA256: strings.Repeat("0", 64)}
}

// SealedAt is the manifest of a fuzzy backup of one segment whose objects nobody reads,
// and whose recovery point is the given one.
func SealedAt(b vault.Backup, sealed, point time.Time) *vault.Manifest {
	plan := Named(b.Plan())
	return &vault.Manifest{
		Backup: b.ID, Table: b.Table, Kind: vault.Full, State: vault.Sealed, Sealed: sealed.UTC(), Segments: 1, Plan: &plan, Fuzzy: true,
		Groups: []vault.Object{Named(b.Group(0))}, Totals: vault.Totals{First: point.UTC(), Latest: point.UTC(), Objects: 2, Parts: 1, StoredBytes: 1000},
	}
}

// Resealed gives a document that was changed the checksum of what it is now, as whoever
// forges one does.
func Resealed(document []byte) []byte {
	const intro, digits, outro = `,"sha256":"`, 2 * sha256.Size, "\"}\n"
	if at := len(document) - len(intro) - digits - len(outro); at >= 0 && bytes.HasPrefix(document[at:], []byte(intro)) {
		document = document[:at]
	}
	return fmt.Appendf(bytes.Clone(document), "%s%x%s", intro, sha256.Sum256(document), outro)
}

// Forge is the document of a name as someone would make it who knows the format, and does
// not care whether it can be.
func Forge(name string, d vault.Document) []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(d); err != nil {
		panic(err) // a document's body is always one
	}
	return Resealed(fmt.Appendf(nil, `{"document":%q,"format":%d,"name":%q,"body":%s`, vault.KindOf(d), vault.Format, name, bytes.TrimSpace(text.Bytes())))
}

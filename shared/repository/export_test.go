package repository

import "github.com/tablevault/tablevault/shared/vault"

// MaxHeaders is how many shards are read to find out what vault.json was.
const MaxHeaders = maxHeaders

// ClassOf is who may read a document.
var ClassOf = classOf

// Encrypted is the same vault with another encryption of its documents.
func (r *Repository) Encrypted(e vault.Encryption) *Repository {
	other := r.In(r.store)
	other.encryption = e
	return other
}

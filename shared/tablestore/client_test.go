package tablestore_test

import (
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// The client is the port that the verbs work with.
var _ backup.Tables = (*tablestore.Client)(nil)

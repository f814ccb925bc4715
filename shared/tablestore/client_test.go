package tablestore_test

import (
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// The client is the port that the verbs work with.
var (
	_ table.Instance = (*tablestore.Client)(nil)
	_ table.Streams  = (*tablestore.Client)(nil)
)

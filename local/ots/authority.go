package ots

import (
	"cmp"

	"github.com/tablevault/tablevault/local/ots/engine"
)

// key is the key of an id: one of the server's own, or of the authority's.
func (s *Server) key(id string) (Key, bool) {
	if key, ok := (*s.keys.Load())[id]; ok || s.config.Authority == nil {
		return key, ok
	}
	k, ok := s.config.Authority.Lookup(id)
	return Key{ID: k.ID, Secret: k.Secret, Token: k.Token, Expires: k.Expires}, ok
}

// authorize asks the authority whether the key may do the operation on each of its
// tables. Batches are allowed as a whole or not at all, and an operation on no table is
// one on the instance. The server's own keys may do everything but what their rules deny.
func (c *call) authorize(tables []string) *engine.Error {
	s := c.server
	if _, own := (*s.keys.Load())[c.key.ID]; own || s.config.Authority == nil {
		return nil
	}
	instance := "acs:ots:" + cmp.Or(s.config.Region, "local") + ":" + cmp.Or(s.config.Account, "0") + ":instance/" + c.header.Get(headerInstance)
	if len(tables) == 0 {
		tables = []string{""}
	}
	for _, t := range tables {
		// ListTable is asked about all tables: an instance does not cover them.
		resource := instance
		if t != "" {
			resource += "/table/" + t
		} else if c.op == "ListTable" {
			resource += "/table/*"
		}
		if err := s.config.Authority.Authorize(c.key.ID, "ots:"+c.op, resource, nil); err != nil {
			return engine.Refusal(engine.CodeNoPermission)
		}
	}
	return nil
}

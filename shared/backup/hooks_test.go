package backup

import "github.com/tablevault/tablevault/shared/vault/shard"

// FlushBy has f stand for (*shard.Encoder).Flush.
func (e *Exporter) FlushBy(f func(*shard.Encoder) (*shard.Block, error)) { e.flush = f }

package engine

import (
	"bytes"
	"slices"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// SplitPartition cuts the partition that holds the key into two, the second of which
// begins at the key. The key may be shorter than the table's.
func (e *Engine) SplitPartition(table string, key []plainbuffer.Cell) *Error {
	return e.change(table, func(d *Definition) *Error {
		if len(key) == 0 || len(key) > len(d.Key) {
			return invalid("A partition begins at a key of 1 to %d columns, not %d.", len(d.Key), len(key))
		}
		for i := range key {
			if key[i].Type != d.Key[i].Type {
				return refuse(CodeInvalidPK, "Validate PK type fail. Input: %s, Meta: %s.", wireType(key[i].Type), wireType(d.Key[i].Type))
			}
		}
		return e.split(d, appendKey(slices.Clone(d.Prefix), key))
	})
}

// SplitKeys are the stored keys at which the partitions of a new table begin, by values
// of the first key column.
func (d *Definition) SplitKeys(keys [][]plainbuffer.Cell) ([][]byte, *Error) {
	if len(keys) > 0 && len(d.Key) == 0 {
		return nil, nil // which is refused for its own reason
	}
	var splits [][]byte
	for _, key := range keys {
		if key[0].Type != d.Key[0].Type {
			return nil, refuse(CodeInvalidPK, "Validate PK type fail. Input: %s, Meta: %s.", wireType(key[0].Type), wireType(d.Key[0].Type))
		}
		key[0].Name = []byte(d.Key[0].Name)
		if err := checkKeyValues(key, 1, false); err != nil {
			return nil, err
		}
		at := appendKey([]byte{prefixRow}, key)
		if n := len(splits); n > 0 && bytes.Compare(splits[n-1], at) >= 0 {
			return nil, invalid("Partitions must be in the order of their keys: '%s'.", display(&key[0]))
		}
		splits = append(splits, at)
	}
	return splits, nil
}

func (e *Engine) split(d *Definition, at []byte) *Error {
	i, found := slices.BinarySearchFunc(d.Splits, at, bytes.Compare)
	if found {
		return invalid("A partition begins at that key already.")
	}
	d.Splits = slices.Insert(slices.Clone(d.Splits), i, at)
	d.Stream.split(e, i, e.now())
	return nil
}

// MergePartitions joins the partition of the number, counted from 0, with the one that
// follows.
func (e *Engine) MergePartitions(table string, number int) *Error {
	return e.change(table, func(d *Definition) *Error {
		if number < 0 || number >= len(d.Splits) {
			return invalid("There is no partition %d with one that follows.", number)
		}
		e.merge(d, number)
		return nil
	})
}

func (e *Engine) merge(d *Definition, number int) {
	d.Splits = slices.Delete(slices.Clone(d.Splits), number, number+1)
	d.Stream.merge(e, number, e.now())
}

// grown counts bytes that were written and, where they may have made partitions too large
// or too small, looks for some in the background.
func (t *Table) grown(size int) {
	b := t.engine.behavior()
	if b.Partitions.SplitSize <= 0 && b.Partitions.MergeSize <= 0 || t.growth.Add(int64(size)) < max(b.Partitions.SplitSize/4, b.Partitions.MergeSize/4, 1) {
		return
	}
	t.growth.Store(0)
	if !t.resizing.CompareAndSwap(false, true) {
		return
	}
	t.engine.builds.Go(func() {
		defer t.resizing.Store(false)
		// A store that fails shows it to the next write.
		_ = t.resize(b.Partitions.SplitSize, b.Partitions.MergeSize)
	})
}

// resize cuts each partition that is larger than split at its middle, and joins
// neighbours that are no larger than merge together, by twos. A size of 0 is none.
func (t *Table) resize(split, merge int64) error {
	d := t.definition()
	options := t.options(d, t.engine.now())
	sizes := make([]int64, len(d.Splits)+1)
	count := func(each func(number int, key []byte, size int64)) error {
		return t.walk(d, func(key []byte, rec record) error {
			each(d.partition(key), key, int64(rec.stored(&options)))
			return nil
		})
	}
	if err := count(func(n int, _ []byte, size int64) { sizes[n] += size }); err != nil {
		return err
	}
	var joins [][]byte
	for n := 0; n+1 < len(sizes); n++ {
		if merge > 0 && sizes[n]+sizes[n+1] <= merge {
			joins = append(joins, d.Splits[n])
			n++
		}
	}
	var cuts [][]byte
	if split > 0 && slices.Max(sizes) > split {
		passed := make([]int64, len(sizes))
		err := count(func(n int, key []byte, size int64) {
			if sizes[n] <= split || passed[n] < 0 {
				return
			}
			if passed[n]*2 >= sizes[n] {
				cuts = append(cuts, bytes.Clone(key))
				passed[n] = -1
				return
			}
			passed[n] += size
		})
		if err != nil {
			return err
		}
	}
	if len(cuts)+len(joins) == 0 || t.engine.closing.Load() {
		return nil
	}
	t.engine.ddl.Lock()
	defer t.engine.ddl.Unlock()
	if t.gone.Load() {
		return nil
	}
	next := t.definition().clone()
	for _, cut := range cuts {
		// One that was made meanwhile is as good.
		_ = t.engine.split(next, cut)
	}
	for _, join := range joins {
		if n, found := slices.BinarySearchFunc(next.Splits, join, bytes.Compare); found {
			t.engine.merge(next, n)
		}
	}
	if err := t.engine.replace(t, next, nil, nil); err != nil {
		return err
	}
	return nil
}

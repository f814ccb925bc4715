package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// finish gives the loaded table what it had at the source: defined columns,
// indexes, the options and the stream, and search indexes; each unless it is
// there. The notes say what is not as it was; waiting, what the service is not
// done with.
func (p *Planner) finish(ctx context.Context, plan *vault.RestorePlan, made *vault.Made) (notes []string, waiting string, err error) {
	name, want := plan.Target.Table, plan.Definition
	describe := func() (table.Definition, error) {
		got, err := p.Tables.Describe(ctx, name)
		if err == nil {
			err = stands(plan, made, got, false)
		}
		return got, err
	}
	got, err := describe()
	if err != nil {
		return nil, "", err
	}
	// step carries out one change. What the service refuses for good becomes a
	// note: the rows are there, and people decide.
	step := func(what string, done func() bool, do func() error) error {
		if done() {
			return nil
		}
		doErr := do()
		if got, err = describe(); err != nil {
			return err
		}
		switch {
		case done(), doErr == nil:
			return nil
		case errors.Is(doErr, table.ErrInvalid), errors.Is(doErr, table.ErrExist):
			notes = append(notes, fmt.Sprintf("%s was refused: %v", what, doErr))
			return nil
		}
		return fmt.Errorf("%s: %w", what, doErr)
	}
	err = step("adding defined columns", func() bool { return len(missingColumns(want, got)) == 0 }, func() error {
		return p.Tables.AddDefinedColumns(ctx, name, missingColumns(want, got))
	})
	if err != nil {
		return nil, "", err
	}
	names := indexNames(name, want.Indexes)
	for _, index := range want.Indexes {
		// The names of indexes are names of tables: beside its source, a copy
		// cannot have them.
		other := index
		other.Name = names[index.Name]
		there := func(n string) *table.Index {
			return find(got.Indexes, func(x *table.Index) bool { return x.Name == n })
		}
		done := func() bool { return there(index.Name) != nil || there(other.Name) != nil }
		err := step(fmt.Sprintf("creating index %q", index.Name), done, func() error {
			err := p.Tables.CreateIndex(ctx, got, index)
			if errors.Is(err, table.ErrExist) {
				err = p.Tables.CreateIndex(ctx, got, other)
			}
			return err
		})
		if err != nil {
			return nil, "", err
		}
		if there(index.Name) == nil && there(other.Name) != nil {
			notes = append(notes, fmt.Sprintf("index %q is %q here, since the instance has something of its name", index.Name, other.Name))
		}
	}
	for _, x := range got.Indexes {
		if !x.Ready {
			return nil, fmt.Sprintf("index %q is being built", x.Name), nil
		}
	}
	options := func() error {
		return step("setting the options", func() bool { return sameOptions(want.Options, got.Options) }, func() error {
			return p.Tables.SetOptions(ctx, name, want.Options)
		})
	}
	stream := func() error {
		if want.Stream == nil {
			return nil
		}
		return step("enabling the stream", func() bool { return got.Stream != nil && sameStream(*want.Stream, *got.Stream) }, func() error {
			return p.Tables.SetStream(ctx, name, *want.Stream)
		})
	}
	// allow_update comes last. Where it ends as false, TTL and deviation come
	// with it in one change: a table with an index takes a TTL only together
	// with it.
	order := []func() error{options, stream}
	if !want.Options.AllowUpdate {
		order = []func() error{stream, options}
	}
	for _, do := range order {
		if err := do(); err != nil {
			return nil, "", err
		}
	}
	// A search index with a TTL is taken only on a table with a TTL and without
	// updates.
	for _, index := range want.SearchIndexes {
		err := step(fmt.Sprintf("creating search index %q", index.Name), func() bool {
			return find(got.SearchIndexes, func(x *table.SearchIndex) bool { return x.Name == index.Name }) != nil
		}, func() error { return p.Tables.CreateSearchIndex(ctx, name, index) })
		if err != nil {
			return nil, "", err
		}
	}
	return append(notes, settingsDiffer(want, got)...), "", nil
}

// maxIndexName is how long the name of an index may be, as that of a table.
const maxIndexName = 255

// indexNames are the names of a copy's indexes where their own are taken, by these. No
// two are the same, nor is one the own name of another: where an index is looked for
// under both, no other one is found.
func indexNames(copied string, indexes []table.Index) map[string]string {
	taken := make(map[string]bool, 2*len(indexes))
	for _, x := range indexes {
		taken[x.Name] = true
	}
	names := make(map[string]string, len(indexes))
	for _, x := range indexes {
		n := copied + "_" + x.Name
		if len(n) > maxIndexName || taken[n] {
			// What is cut off would tell them apart.
			sum := sha256.Sum256([]byte(n))
			end := "_" + hex.EncodeToString(sum[:8])
			n = n[:min(len(n), maxIndexName-len(end))] + end
		}
		names[x.Name], taken[n] = n, true
	}
	return names
}

func find[T any](list []T, is func(*T) bool) *T {
	for i := range list {
		if is(&list[i]) {
			return &list[i]
		}
	}
	return nil
}

func missingColumns(want, got table.Definition) []table.DefinedColumn {
	var missing []table.DefinedColumn
	for _, c := range want.DefinedColumns {
		if find(got.DefinedColumns, func(g *table.DefinedColumn) bool { return g.Name == c.Name }) == nil {
			missing = append(missing, c)
		}
	}
	return missing
}

func sameOptions(a, b table.Options) bool {
	a.UpdateFullRow = b.UpdateFullRow // set when the table is made, never after
	return a == b
}

func sameStream(a, b table.Stream) bool {
	return a.ExpirationHours == b.ExpirationHours && slices.Equal(slices.Sorted(slices.Values(a.OriginColumns)), slices.Sorted(slices.Values(b.OriginColumns)))
}

// settingsDiffer says in which settings a table is not as it should be.
func settingsDiffer(want, got table.Definition) (notes []string) {
	differ := func(what string, want, got any) {
		notes = append(notes, fmt.Sprintf("%s is %v, at the source it was %v", what, got, want))
	}
	if !slices.Equal(want.Schema, got.Schema) {
		differ("the primary key", want.Schema, got.Schema)
	}
	if want.Options.TTL != got.Options.TTL {
		differ("ttl_seconds", want.Options.TTL, got.Options.TTL)
	}
	if want.Options.MaxVersions != got.Options.MaxVersions {
		differ("max_versions", want.Options.MaxVersions, got.Options.MaxVersions)
	}
	if want.Options.Deviation != got.Options.Deviation {
		differ("deviation_seconds", want.Options.Deviation, got.Options.Deviation)
	}
	if want.Options.AllowUpdate != got.Options.AllowUpdate {
		differ("allow_update", want.Options.AllowUpdate, got.Options.AllowUpdate)
	}
	if want.Options.UpdateFullRow != got.Options.UpdateFullRow {
		differ("update_full_row", want.Options.UpdateFullRow, got.Options.UpdateFullRow)
	}
	if want.Throughput != got.Throughput {
		differ("reserved throughput", want.Throughput, got.Throughput)
	}
	for _, w := range want.DefinedColumns {
		g := find(got.DefinedColumns, func(g *table.DefinedColumn) bool { return g.Name == w.Name })
		if g == nil {
			notes = append(notes, fmt.Sprintf("defined column %q is missing", w.Name))
		} else if g.Type != w.Type {
			differ(fmt.Sprintf("defined column %q", w.Name), w.Type, g.Type)
		}
	}
	names := indexNames(want.Name, want.Indexes)
	for _, w := range want.Indexes {
		g := find(got.Indexes, func(g *table.Index) bool { return g.Name == w.Name || g.Name == names[w.Name] })
		if g == nil {
			notes = append(notes, fmt.Sprintf("index %q is missing", w.Name))
		} else if g.Type != w.Type || g.Sync != w.Sync || !slices.Equal(g.Key, w.Key) ||
			!slices.Equal(slices.Sorted(slices.Values(g.Columns)), slices.Sorted(slices.Values(w.Columns))) {
			differ(fmt.Sprintf("index %q", w.Name), fmt.Sprintf("%s %v carrying %v", w.Type, w.Key, w.Columns), fmt.Sprintf("%s %v carrying %v", g.Type, g.Key, g.Columns))
		}
	}
	for _, w := range want.SearchIndexes {
		if find(got.SearchIndexes, func(g *table.SearchIndex) bool { return g.Name == w.Name }) == nil {
			notes = append(notes, fmt.Sprintf("search index %q is missing", w.Name))
		}
	}
	switch {
	case want.Stream == nil && got.Stream != nil:
		notes = append(notes, "the stream is on, at the source it was off")
	case want.Stream != nil && got.Stream == nil:
		notes = append(notes, "the stream is off, at the source it was on")
	case want.Stream != nil && !sameStream(*want.Stream, *got.Stream):
		differ("the stream", fmt.Sprintf("%d h, former values of %v", want.Stream.ExpirationHours, want.Stream.OriginColumns),
			fmt.Sprintf("%d h, former values of %v", got.Stream.ExpirationHours, got.Stream.OriginColumns))
	}
	if (want.Encryption == nil) != (got.Encryption == nil) {
		notes = append(notes, fmt.Sprintf("encryption at rest is on: %t, at the source: %t", got.Encryption != nil, want.Encryption != nil))
	}
	return notes
}

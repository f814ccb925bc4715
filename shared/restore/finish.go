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

// finish gives the loaded table what it had at the source: defined columns, indexes, the
// options and the stream, and search indexes; each unless it is there. The notes say what
// is not as it was; waiting, what the service is not done with.
func (p *Planner) finish(ctx context.Context, plan *vault.RestorePlan, made *vault.Made) (notes []string, waiting string, err error) {
	f := &finishing{tables: p.Tables, plan: plan, made: made}
	if err := f.describe(ctx); err != nil {
		return nil, "", err
	}
	if err := f.columns(ctx); err != nil {
		return nil, "", err
	}
	if err := f.indexes(ctx); err != nil {
		return nil, "", err
	}
	for _, x := range f.got.Indexes {
		if !x.Ready {
			return nil, fmt.Sprintf("index %q is being built", x.Name), nil
		}
	}
	// allow_update comes last. Where it ends as false, TTL and deviation come
	// with it in one change: a table with an index takes a TTL only together
	// with it.
	order := []func(context.Context) error{f.options, f.stream}
	if !plan.Definition.Options.AllowUpdate {
		order = []func(context.Context) error{f.stream, f.options}
	}
	// A search index with a TTL is taken only on a table with a TTL and without
	// updates.
	for _, do := range append(order, f.searchIndexes) {
		if err := do(ctx); err != nil {
			return nil, "", err
		}
	}
	return append(f.notes, settingsDiffer(plan.Definition, f.got)...), "", nil
}

// finishing is the handing over of a table.
type finishing struct {
	tables table.Instance
	plan   *vault.RestorePlan
	made   *vault.Made
	got    table.Definition // the table as it is
	notes  []string
}

// describe reads what the table is by now, which has to be the restore's own.
func (f *finishing) describe(ctx context.Context) (err error) {
	if f.got, err = f.tables.Describe(ctx, f.plan.Target.Table); err != nil {
		return err
	}
	return stands(f.plan, f.made, f.got, false)
}

// step carries out one change. What the service refuses for good becomes a note: the rows
// are there, and people decide.
func (f *finishing) step(ctx context.Context, what string, done func() bool, do func() error) error {
	if done() {
		return nil
	}
	refused := do()
	if err := f.describe(ctx); err != nil {
		return err
	}
	switch {
	case done(), refused == nil:
		return nil
	case errors.Is(refused, table.ErrInvalid), errors.Is(refused, table.ErrExist):
		f.notes = append(f.notes, fmt.Sprintf("%s was refused: %v", what, refused))
		return nil
	}
	return fmt.Errorf("%s: %w", what, refused)
}

func (f *finishing) columns(ctx context.Context) error {
	missing := func() []table.DefinedColumn { return missingColumns(f.plan.Definition, f.got) }
	return f.step(ctx, "adding defined columns", func() bool { return len(missing()) == 0 }, func() error {
		return f.tables.AddDefinedColumns(ctx, f.plan.Target.Table, missing())
	})
}

func (f *finishing) indexes(ctx context.Context) error {
	names := indexNames(f.plan.Target.Table, f.plan.Definition.Indexes)
	there := func(n string) bool {
		return find(f.got.Indexes, func(x *table.Index) bool { return x.Name == n }) != nil
	}
	for _, index := range f.plan.Definition.Indexes {
		// The names of indexes are names of tables: beside its source, a copy
		// cannot have them.
		other := index
		other.Name = names[index.Name]
		done := func() bool { return there(index.Name) || there(other.Name) }
		err := f.step(ctx, fmt.Sprintf("creating index %q", index.Name), done, func() error {
			err := f.tables.CreateIndex(ctx, f.got, index)
			if errors.Is(err, table.ErrExist) {
				err = f.tables.CreateIndex(ctx, f.got, other)
			}
			return err
		})
		if err != nil {
			return err
		}
		if !there(index.Name) && there(other.Name) {
			f.notes = append(f.notes, fmt.Sprintf("index %q is %q here, since the instance has something of its name", index.Name, other.Name))
		}
	}
	return nil
}

func (f *finishing) options(ctx context.Context) error {
	want := f.plan.Definition.Options
	return f.step(ctx, "setting the options", func() bool { return sameOptions(want, f.got.Options) }, func() error {
		return f.tables.SetOptions(ctx, f.plan.Target.Table, want)
	})
}

func (f *finishing) stream(ctx context.Context) error {
	want := f.plan.Definition.Stream
	if want == nil {
		return nil
	}
	return f.step(ctx, "enabling the stream", func() bool { return f.got.Stream != nil && sameStream(*want, *f.got.Stream) }, func() error {
		return f.tables.SetStream(ctx, f.plan.Target.Table, *want)
	})
}

func (f *finishing) searchIndexes(ctx context.Context) error {
	for _, index := range f.plan.Definition.SearchIndexes {
		there := func() bool {
			return find(f.got.SearchIndexes, func(x *table.SearchIndex) bool { return x.Name == index.Name }) != nil
		}
		err := f.step(ctx, fmt.Sprintf("creating search index %q", index.Name), there, func() error {
			return f.tables.CreateSearchIndex(ctx, f.plan.Target.Table, index)
		})
		if err != nil {
			return err
		}
	}
	return nil
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

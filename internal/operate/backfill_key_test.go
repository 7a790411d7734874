package operate_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// Some keys have operators outside the search_path. Others have an index that orders or compares
// differently from the column's type.
func TestBackfillReadsEveryRowWhateverOrdersItsKey(t *testing.T) {
	t.Parallel()
	const extensions = "create schema extensions; create extension citext schema extensions; create extension ltree schema extensions; "
	for name, c := range map[string]struct{ table, rows string }{
		"citext":                        {"k extensions.citext primary key", "select case when i % 2 = 0 then 'a' else 'B' end || i from generate_series(1, 500) i"},
		"ltree":                         {"k extensions.ltree primary key", "select ('top.n' || i)::extensions.ltree from generate_series(1, 500) i"},
		"a domain over citext":          {"k extensions.name_of primary key", "select case when i % 2 = 0 then 'a' else 'B' end || i from generate_series(1, 500) i"},
		"mixed operators":               {"k extensions.citext, n int default 0, primary key (k, n)", "select case when i % 2 = 0 then 'a' else 'B' end || i / 3 , i % 3 from generate_series(1, 500) i"},
		"a collation":                   {`k text collate "C" primary key`, "select case when i % 2 = 0 then 'a' else 'B' end || i from generate_series(1, 500) i"},
		"an index of another collation": {`k text collate extensions.nocase not null`, "select case when i % 2 = 0 then 'a' else 'A' end || i / 2 from generate_series(1, 500) i"},
		"an operator class":             {"k text not null", "select case when i % 2 = 0 then 'a' else 'B' end || i from generate_series(1, 500) i"},
		"an array":                      {"k int[] primary key", "select array[i % 7, i] from generate_series(1, 500) i"},
		"descending":                    {"k int, n int, unique (k, n)", "select i % 7, i from generate_series(1, 500) i"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.do(t, extensions+"create domain extensions.name_of as extensions.citext; "+
				"create collation extensions.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false); create table a ("+c.table+")")
			switch name {
			case "an index of another collation":
				d.do(t, `create unique index on a (k collate "C")`)
			case "an operator class":
				d.do(t, "create unique index on a (k text_pattern_ops)")
			case "descending":
				d.do(t, "alter table a alter k set not null, alter n set not null; alter table a drop constraint a_k_n_key; create unique index on a (k desc, n)")
			}
			d.do(t, "insert into a "+c.rows)
			d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.On = trigger.On{Insert: true} }))
			done, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true})
			require.NoError(t, err)
			require.Equal(t, int64(500), done.Recorded)
			require.Equal(t, 500, d.count(t, "(select distinct new::text from rowhook.event_log) as e"))
		})
	}
}

// The role owns the table, and row level security is forced on the owner.
func TestBackfillRefusesATableWhoseRowsAreHiddenFromIt(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, "insert into a (v) select 'x' from generate_series(1, 10)")
	role, url := d.Role(t)
	d.do(t, "grant usage on schema rowhook to "+role+"; grant all on all tables in schema rowhook to "+role+"; grant all on all sequences in schema rowhook to "+role+
		"; grant execute on all functions in schema rowhook to "+role+"; alter table a owner to "+role+"; alter schema rowhook owner to "+role)
	for _, policy := range []string{"create policy none on a using (false)", "drop policy none on a; create policy half on a using (id % 2 = 0)"} {
		d.do(t, "alter table a enable row level security; alter table a force row level security; "+policy)
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		_, err = operate.Backfill(t.Context(), conn, "a", operate.BackfillOptions{})
		require.ErrorIs(t, err, operate.ErrRefused)
		require.ErrorContains(t, err, "row level security keeps rows of public.a from this role")
		require.NoError(t, conn.Close(t.Context()))
	}
}

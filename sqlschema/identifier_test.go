package sqlschema_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/pg"
)

func TestSplitNameReadsWhatPostgresQuotes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		schema, table := rapid.StringMatching(`[a-zA-Z0-9_ ."ä]{1,8}`).Draw(t, "schema"), rapid.StringMatching(`[a-z_."]{1,8}`).Draw(t, "table")
		gotSchema, gotTable, err := pg.SplitName(pgx.Identifier{schema, table}.Sanitize())
		require.NoError(t, err)
		require.Equal(t, schema, gotSchema)
		require.Equal(t, table, gotTable)
	})
	schema, table, err := pg.SplitName(`public.orders`)
	require.NoError(t, err)
	require.Equal(t, "public.orders", schema+"."+table)
	for _, bad := range []string{"16384", `"a`, `a.b.c`, ""} {
		_, _, err := pg.SplitName(bad)
		require.Error(t, err, bad)
	}
}

package pg_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestCollectPutsEachColumnIntoTheFieldOfItsName(t *testing.T) {
	t.Parallel()
	type Part struct{ LastName *string }
	type person struct {
		ID int64
		Part
		Kept  []string
		Other int `db:"-"`
		inner int //nolint:unused // no column is for it
	}
	conn := pgtest.NewEmpty(t).Conn(t)
	found, err := pg.Collect[person](t.Context(), conn, "select kept, id, last_name from (values (1, 'Ada', '{a,b}'::text[]), (2, null, null)) as p (id, last_name, kept) order by id")
	require.NoError(t, err)
	name := "Ada"
	require.Equal(t, []person{{ID: 1, Part: Part{&name}, Kept: []string{"a", "b"}}, {ID: 2}}, found)
	found, err = pg.Collect[person](t.Context(), conn, "select 1 as id where false")
	require.NoError(t, err)
	require.Equal(t, []person{}, found)
	for sql, want := range map[string]string{
		"select 1 as id, null::text as last_name":                                                        "the row has no column for the field kept of pg_test.person",
		"select 1 as id, null as last_name, null as kept, 1 as more":                                     "pg_test.person has no field for the column more",
		"select 1 as id, null as last_name, null as kept, 2 as id":                                       "two columns have that name",
		"select null::bigint as id, null as last_name, null::text[] as kept":                             "cannot scan NULL into *int64",
		"select 1 / (2 - i) as id, null as last_name, null::text[] as kept from generate_series(1, 2) i": "division by zero",
	} {
		_, err := pg.Collect[person](t.Context(), conn, sql)
		require.ErrorContains(t, err, want)
	}
}

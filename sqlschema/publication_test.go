package sqlschema_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
)

func TestNothingIsInstalledIntoWhatIsPublishedWhole(t *testing.T) {
	t.Parallel()
	publications := []string{"create publication certain for all tables"}
	if pgtest.Version(t) >= 15 {
		publications = append(publications, "create schema rowhook; create publication certain for tables in schema rowhook")
	}
	for _, publication := range publications {
		db := pgtest.NewEmpty(t)
		w := watched{db, db.Conn(t)}
		w.Exec(t, "create table t (id int primary key, a int, b int); "+publication)
		for _, err := range []error{sqlschema.Migrate(t.Context(), w.conn, nil), sqlschema.MigrateTo(t.Context(), w.conn, 1, nil)} {
			var published *sqlschema.PublishedError
			require.ErrorAs(t, err, &published)
			require.Equal(t, []string{"certain"}, published.Publications)
		}
		require.Equal(t, "0", w.scalar(t, "select count(*) from pg_class where relnamespace = (select oid from pg_namespace where nspname = 'rowhook')"))
		warnings := w.plan(t, all("w", "t")).Warnings
		require.Len(t, warnings, 1)
		require.Contains(t, warnings[0], "apply installs nothing without --allow-publication: the publication certain", "the plan knows what apply will meet")

		require.NoError(t, sqlschema.Migrator{AllowPublication: true}.Migrate(t.Context(), w.conn, nil))
		w.migrate(t) // an existing installation can still be migrated
		plan := w.plan(t, all("w", "t"))
		require.Contains(t, plan.String(), "! the publication certain: Rowhook's tables are published, too")
		w.apply(t, all("w", "t"))
	}
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	w.Exec(t, "create table t (id int primary key, a int, b int); create publication certain for table t")
	w.migrate(t)
	require.Empty(t, w.plan(t, all("w", "t")).Warnings)
}

package sqlschema_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestNoLoggerIsNeeded(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	conn := db.Conn(t)
	db.Exec(t, "create table t (id int primary key, a int, b int)")
	_, program, err := sqlschema.Version(t.Context(), conn)
	require.NoError(t, err)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, nil))
	require.NoError(t, sqlschema.MigrateTo(t.Context(), conn, program-1, nil))
	require.NoError(t, sqlschema.MigrateTo(t.Context(), conn, program, nil))
	db.Exec(t, "update rowhook.schema_version set version = version + 1; update rowhook.setting set value = '1' where name = 'compatible'")
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, nil), "a newer schema that is left as it is")
	for _, specs := range [][]trigger.Spec{{all("w", "t")}, nil} {
		_, err = sqlschema.Apply(t.Context(), conn, specs, trigger.DefaultSettings(), nil)
		require.NoError(t, err)
		_, err = sqlschema.Applier{}.Apply(t.Context(), conn, specs, trigger.DefaultSettings(), nil)
		require.NoError(t, err)
	}
	require.NoError(t, sqlschema.Uninstall(t.Context(), conn, nil))
}

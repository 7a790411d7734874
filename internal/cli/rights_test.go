package cli_test

import (
	"context"
	"net/url"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

// TestAnOwnerAppliesAndAnotherRoleDispatches needs no superuser: one role owns the tables and
// applies, the other runs.
func TestAnOwnerAppliesAndAnotherRoleDispatches(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	owner, ownerURL, asOwner := ownerOfOrders(t, db)
	dispatcher, dispatcherURL := db.Role(t)
	s, receiverURL := receiver(t)
	file := ordersConfig(t, receiverURL)

	code, _, stderr := rowhook(t, database(ownerURL), "apply", "-f", file, "--dry-run", "--grant-to", "nobody_"+owner)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `there is no role "nobody_`+owner+`" on this server`)
	require.Zero(t, schemaVersion(t, db))

	apply := []string{"apply", "-f", file, "--grant-to", dispatcher}
	code, stdout, stderr := rowhook(t, database(ownerURL), append(apply, "--dry-run")...)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "+ rights of a dispatcher for "+dispatcher+": usage on schema rowhook; ")
	require.Zero(t, schemaVersion(t, db))
	code, stdout, stderr = rowhook(t, database(ownerURL), "apply", "-f", file)
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, "rights")

	code, _, stderr = rowhook(t, database(dispatcherURL), "run")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "the role "+dispatcher+" lacks rights that a dispatcher needs (usage on schema rowhook; ")
	require.Contains(t, stderr, `run "rowhook apply --grant-to `+dispatcher+`"`)

	code, stdout, stderr = rowhook(t, append(database(ownerURL), "ROWHOOK_GRANT_TO="+dispatcher+","+owner), "apply", "-f", file)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "+ rights of a dispatcher for "+dispatcher)
	require.NotContains(t, stdout, "for "+owner, "the owner has them")
	code, stdout, stderr = rowhook(t, database(ownerURL), apply...)
	require.Zero(t, code, stderr)
	require.Regexp(t, "^Nothing to do: ", stdout)

	p := start(t, database(dispatcherURL), "run", "--poll-interval", "1h")
	p.stderr.waitFor(t, "ready")
	_, err := asOwner.Exec(t.Context(), "insert into orders values (1, 1, 'a')")
	require.NoError(t, err)
	arrived(t, s, 1)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	require.NotContains(t, p.stderr.String(), "permission")

	code, _, stderr = rowhook(t, database(dispatcherURL), "uninstall", "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "permission denied")
	code, _, stderr = rowhook(t, database(ownerURL), "uninstall", "--yes")
	require.Zero(t, code, stderr)
	db.Exec(t, "alter role "+dispatcher+" nologin") // and nothing of it depends on this database any more, as the end of the test shows
}

func TestAMigrationGivesTheDispatchersRoleWhatTheNewVersionNeeds(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	role, _ := db.Role(t)
	apply := []string{"apply", "-f", ordersConfig(t, "http://127.0.0.1:1"), "--grant-to", role}
	code, _, stderr := rowhook(t, database(db.URL()), apply...)
	require.Zero(t, code, stderr)

	for _, migrate := range [][]string{{"migrate", "--to", "1", "--yes"}, {"migrate"}} {
		code, _, stderr = rowhook(t, database(db.URL()), migrate...)
		require.Zero(t, code, stderr)
	}
	code, stdout, stderr := rowhook(t, database(db.URL()), append(apply, "--dry-run")...)
	require.Zero(t, code, stderr)
	require.Regexp(t, "^Nothing to do: ", stdout)
}

// TestRunWaitsForAConnectionThatTheServerDoesNotHaveYet runs as a role of a single connection: it
// looks at the schema, and can't begin.
func TestRunWaitsForAConnectionThatTheServerDoesNotHaveYet(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s, receiverURL := receiver(t)
	role, roleURL := db.Role(t)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", ordersConfig(t, receiverURL), "--grant-to", role)
	require.Zero(t, code, stderr)

	db.Exec(t, "alter role "+role+" connection limit 1")
	code, _, stderr = rowhook(t, database(roleURL), "run", "--connect-timeout", "300ms")
	require.Equal(t, 1, code)
	require.Regexp(t, `can't connect to Postgres at \S+ as user "`+role+`", .*: the server has no free connection.*; raise max_connections`, stderr)

	p := start(t, database(roleURL), "run")
	p.stderr.waitFor(t, "waiting for Postgres.*the server has no free connection")
	db.Exec(t, "alter role "+role+" connection limit -1")
	p.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

// ownerOfOrders makes a role that owns the table orders, and may install Rowhook, without being a
// superuser; conn is its session.
func ownerOfOrders(t *testing.T, db *pgtest.DB) (owner, connString string, conn *pgx.Conn) {
	t.Helper()
	owner, connString = db.Role(t)
	u, err := url.Parse(db.URL())
	require.NoError(t, err)
	db.Exec(t, "grant create on database "+u.Path[1:]+" to "+owner+"; grant create on schema public to "+owner)
	conn, err = pgx.Connect(t.Context(), connString)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), orders)
	require.NoError(t, err)
	return owner, connString, conn
}

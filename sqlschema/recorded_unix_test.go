//go:build unix

package sqlschema_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
)

// Ids of transactions have 32 bits and begin again. This server begins shortly before that, as
// pg_resetwal makes it.
func TestRecordedSeesItsRowsWhereTransactionIDsBeginAgain(t *testing.T) {
	t.Parallel()
	local, err := pgtest.StartServer(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, local.Stop(context.Background(), localpg.Immediate)) })
	resetwal := filepath.Join(local.BinDir(), "pg_resetwal")
	if _, err := os.Stat(resetwal); err != nil {
		t.Skipf("the server's programs lack pg_resetwal: %v", err)
	}
	for _, database := range []string{"template1", "postgres"} { // their rows would be of the future
		conn, err := pgx.Connect(t.Context(), local.URL(database))
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "vacuum (freeze)")
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
	}
	require.NoError(t, local.Halt(t.Context(), localpg.Fast))
	const begin = 1<<32 - 2500
	data, err := os.Stat(local.DataDir())
	require.NoError(t, err)
	owner := data.Sys().(*syscall.Stat_t) // the programs refuse to run as root
	reset := exec.CommandContext(t.Context(), resetwal, "-f", "-e", "6", "-x", strconv.Itoa(begin), "-D", local.DataDir())
	if os.Geteuid() == 0 {
		reset.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	out, err := reset.CombinedOutput()
	require.NoError(t, err, "%s", out)
	states := filepath.Join(local.DataDir(), "pg_xact", "0FFF") // of these ids
	require.NoError(t, os.WriteFile(states, make([]byte, 32*8192), 0o600))
	require.NoError(t, os.Chown(states, int(owner.Uid), int(owner.Gid)))
	require.NoError(t, local.Start(t.Context()))

	conn, err := pgx.Connect(t.Context(), local.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, quiet()))
	w := watched{nil, conn}
	w.do(t, "create table t (id int primary key)")
	w.apply(t, all("t", "t"))
	w.do(t, "insert into t values (-1)", "begin", "insert into t values (0)")
	before := w.scalar(t, "select pg_current_xact_id()")
	w.do(t, "do $$ begin for n in 1..3000 loop begin insert into t values (n); exception when others then raise; end; end loop; end $$")
	require.Equal(t, "true", w.scalar(t, "select (pg_current_xact_id()::text::bigint >> 32) = 6 and $1::bigint >> 32 = 6 and exists (select from t where xmin::text::bigint < 10000)", before), "some ids are of the next round")
	require.Equal(t, "3001 0 3000", w.scalar(t, "select concat_ws(' ', count(*), min((new->>'id')::int), max((new->>'id')::int)) from rowhook.recorded()"))
	w.do(t, "commit", "begin", "insert into t values (-2)")
	require.Equal(t, `t INSERT {"id":-2}`, recorded(t, conn))
	require.Equal(t, "7", w.scalar(t, "select pg_current_xact_id()::text::bigint >> 32"))
	w.do(t, "rollback")
}

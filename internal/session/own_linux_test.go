package session_test

import (
	"runtime"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/session"
)

// A role's settings for its sessions do not reach the sessions of Rowhook.
func TestASessionHasNoTimeoutsOfItsRoleAndNoticesWhoIsGone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	role, link := db.Role(t)
	want := map[string]string{
		"statement_timeout": "0", "lock_timeout": "0", "idle_session_timeout": "0", "idle_in_transaction_session_timeout": "0",
		"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "60000",
	}
	if pgtest.Version(t) >= 17 {
		want["transaction_timeout"] = "0"
	}
	for name := range want {
		if name != "tcp_keepalives_count" {
			db.Exec(t, "alter role "+role+" set "+name+" = '77s'")
		}
	}
	pool, err := session.ParsePool(link)
	require.NoError(t, err)
	idleWant := 5
	check := func(conn *pgx.Conn) {
		for name, value := range want {
			var got string
			require.NoError(t, conn.QueryRow(t.Context(), "select current_setting($1)", name).Scan(&got))
			require.Equal(t, value, got, name)
		}
		tcp, ok := conn.PgConn().Conn().(syscall.Conn)
		require.True(t, ok)
		raw, err := tcp.SyscallConn()
		require.NoError(t, err)
		var alive, idle, timeout int
		require.NoError(t, raw.Control(func(fd uintptr) {
			alive, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
			if runtime.GOOS == "linux" {
				idle, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, 4)
				timeout, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, 0x12)
			}
		}))
		require.NotZero(t, alive)
		if runtime.GOOS == "linux" {
			require.Equal(t, idleWant, idle)
			require.Equal(t, 10_000, timeout)
		}
	}
	conn, err := session.Open(t.Context(), link)
	require.NoError(t, err)
	check(conn)
	require.NoError(t, conn.Close(t.Context()))

	idleWant = 7 // the string says 7, and the other parameters keep their defaults
	conn, err = session.Open(t.Context(), link+"&keepalives_idle=7")
	require.NoError(t, err)
	check(conn)
	require.NoError(t, conn.Close(t.Context()))
	idleWant = 5

	conn, err = pgx.ConnectConfig(t.Context(), pool.ConnConfig)
	require.NoError(t, err)
	require.NoError(t, pool.AfterConnect(t.Context(), conn))
	check(conn)
	require.NoError(t, conn.Close(t.Context()))
}

// A pooler would pass the settings on to its next client.
func TestNothingIsSetWhereAPoolerMayShareTheSession(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, err := session.Parse(db.URL())
	require.NoError(t, err)
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	conn, err := session.Connect(t.Context(), config)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	var idle string
	require.NoError(t, conn.QueryRow(t.Context(), "select current_setting('tcp_keepalives_idle')").Scan(&idle))
	require.NotEqual(t, "5", idle)
}

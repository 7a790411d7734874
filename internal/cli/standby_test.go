package cli_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/sink"
)

// replicated is a primary and a standby that follows it. Commits wait for the standby.
type replicated struct {
	primary, standby *localpg.Server
}

// replicate starts both. The standby is a cold copy of the primary's data, since not every
// distribution of PostgreSQL has pg_basebackup.
func replicate(t *testing.T) *replicated {
	t.Helper()
	dir, err := os.MkdirTemp("", "rowhook-standby-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755)) // the server's user passes through
	serve := func(name string, settings map[string]string) *localpg.Server {
		settings["fsync"] = "off"
		s, err := localpg.Start(t.Context(), localpg.Config{BinDir: os.Getenv(pgtest.EnvBinDir), DataDir: filepath.Join(dir, name), Settings: settings})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Stop(context.Background(), localpg.Immediate)) })
		return s
	}
	r := &replicated{primary: serve("primary", map[string]string{"wal_level": "replica"})}
	require.NoError(t, r.primary.Halt(t.Context(), localpg.Fast))
	out, err := exec.Command("cp", "-a", filepath.Join(dir, "primary"), filepath.Join(dir, "standby")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "standby", "standby.signal"), nil, 0o644))
	require.NoError(t, r.primary.Start(t.Context()))
	u, err := url.Parse(r.primary.URL("postgres"))
	require.NoError(t, err)
	password, _ := u.User.Password()
	r.standby = serve("standby", map[string]string{
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=%s", r.primary.Port(), password),
	})
	admin, err := pgx.Connect(t.Context(), r.primary.URL("postgres"))
	require.NoError(t, err)
	defer admin.Close(t.Context())
	for _, sql := range []string{"alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"} {
		_, err := admin.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		var state string
		return admin.QueryRow(t.Context(), "select sync_state from pg_stat_replication").Scan(&state) == nil && state == "sync"
	}, patience, 10*time.Millisecond)
	return r
}

// url names both servers, of which clients take the one that can be written to.
func (r *replicated) url(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(r.primary.URL("postgres"))
	require.NoError(t, err)
	u.Host = fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", r.primary.Port(), r.standby.Port())
	u.RawQuery += "&target_session_attrs=read-write"
	return u.String()
}

func TestDeliveriesGoOnAfterAStandbyIsPromoted(t *testing.T) {
	t.Parallel()
	r := replicate(t)
	arrived := sync.Map{}
	s := &sink.Sink{Keep: 1, Behaviour: sink.Behaviour{Delay: 30 * time.Millisecond}, OnDelivery: func(d sink.Delivery) { arrived.Store(string(d.New()), true) }}
	server := newServer(t, s)
	conn, err := pgx.Connect(t.Context(), r.url(t))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "create table orders (id bigint generated always as identity primary key, status text)")
	require.NoError(t, err)
	env := database(r.url(t))
	code, _, stderr := rowhook(t, env, "apply", "-f", ordersConfig(t, server))
	require.Zero(t, code, stderr)
	p := start(t, env, "run", "--poll-interval", "1h", "--concurrency", "5")
	p.stderr.waitFor(t, "ready")

	_, err = conn.Exec(t.Context(), "insert into orders (status) select 'before' from generate_series(1, 200)")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.Wait(ctx, func(c sink.Counts) bool { return c.Events >= 20 }), "it is in the middle of its work")
	require.NoError(t, r.primary.Halt(t.Context(), localpg.Immediate))
	promote(t, r.standby)

	conn, err = pgx.Connect(t.Context(), r.url(t))
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "insert into orders (status) select 'after' from generate_series(1, 50)")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		var owed int
		return conn.QueryRow(t.Context(), "select count(*) from rowhook.event_log").Scan(&owed) == nil && owed == 0
	}, patience, 20*time.Millisecond, "events are still owed")
	rows, err := conn.Query(t.Context(), "select row_to_json(orders)::text from orders")
	require.NoError(t, err)
	images, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, images, 250)
	for _, image := range images {
		_, ok := arrived.Load(image)
		require.True(t, ok, "%s did not arrive", image)
	}
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

// promote makes a standby the primary. It does not wait for commits to reach a standby of its own.
func promote(t *testing.T, s *localpg.Server) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer admin.Close(t.Context())
	_, err = admin.Exec(t.Context(), "select pg_promote()")
	require.NoError(t, err)
	for _, sql := range []string{"alter system reset synchronous_standby_names", "select pg_reload_conf()"} {
		_, err := admin.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
}

package cli_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestRunWaitsForTablesThatMigrationsMakeLaterAndSaysSo(t *testing.T) {
	t.Parallel()
	s, url := receiver(t)
	db := pgtest.NewEmpty(t)
	file := ordersConfig(t, url)
	p := start(t, database(db.URL()), "run", "-f", file, "--wait-for-tables", "5m", "--http", "127.0.0.1:0")
	address := served(t, p)
	p.stderr.waitFor(t, `waiting for tables that do not exist yet.*public\.orders`)
	status, _ := ask(t, "GET", address, "/healthz", "", "")
	require.Equal(t, 200, status)
	status, text := ask(t, "GET", address, "/readyz", "", "")
	require.Equal(t, 503, status)
	require.Contains(t, text, "waiting for the table public.orders")
	conn := db.Conn(t)
	var others int
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from pg_locks l join pg_stat_activity a using (pid) where l.locktype <> 'virtualxid' and a.datname = current_database() and a.application_name like 'rowhook%' and a.state like 'idle in%'").Scan(&others))
	require.Zero(t, others, "no transaction is open between two looks")

	// The migrations make the table first, and then its columns.
	orders := strings.TrimSpace(orders)
	db.Exec(t, orders)
	p.stderr.waitFor(t, "the tables are there")
	p.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	require.Equal(t, 1, strings.Count(p.stderr.String(), "waiting for tables"), p.stderr.String())
}

func TestAStopEndsTheWaitForTables(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	file := ordersConfig(t, "http://127.0.0.1:1")
	for _, args := range [][]string{{"run", "--http", "off"}, {"apply"}, {"apply", "--dry-run", "--json"}} {
		p := start(t, database(db.URL()), append(args, "-f", file, "--wait-for-tables", "5m")...)
		p.stderr.waitFor(t, "waiting for tables")
		p.signal(t, syscall.SIGTERM)
		code := p.exit(t)
		require.Equal(t, args[0] == "apply", code == 1, "%v: %d", args, code)
	}
}

func TestTheWaitForTablesEndsWithTheUsualError(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, "create view v as select 1 as id")
	file := ordersConfig(t, "http://127.0.0.1:1")
	for _, args := range [][]string{{"run", "--http", "off"}, {"apply"}} {
		code, _, stderr := rowhook(t, database(db.URL()), append(args, "-f", file, "--wait-for-tables", "1s")...)
		require.Equal(t, 2, code)
		require.Contains(t, stderr, "waiting for tables")
		require.Regexp(t, `rowhook\.yaml:\d+:\d+: .*there is no table public\.orders`, stderr)
	}
	view := write(t, "rowhook.yaml", "triggers:\n  - {name: a, table: public.v, on: {insert: true}, webhook: {url: \"http://127.0.0.1:1\"}}\n")
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", view, "--wait-for-tables", "5m")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "is a view")
	require.NotContains(t, stderr, "waiting for tables")
	code, _, stderr = rowhook(t, append(database(db.URL()), "ROWHOOK_WATCH=1"), "run")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "add -f rowhook.yaml")
}

func TestAWatchedFileIsAppliedWhileDeliveriesGoOn(t *testing.T) {
	t.Parallel()
	s, url := receiver(t)
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	file := ordersConfig(t, url)
	p := start(t, database(db.URL()), "run", "-f", file, "--watch", "--wait-for-tables", "5m", "--http", "off")
	p.stderr.waitFor(t, "ready")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte("triggers: [}"), 0o600))
	p.stderr.waitFor(t, "configuration not applied")
	db.Exec(t, "insert into orders values (1, 1, 'x')")
	arrived(t, s, 1)

	later := string(text) + "  - {name: later, table: public.later, on: {insert: true}, webhook: {url: \"" + url + "/later\"}}\n"
	require.NoError(t, os.WriteFile(file, []byte(later), 0o600))
	p.stderr.waitFor(t, `waiting for tables that do not exist yet.*public\.later`)
	db.Exec(t, "insert into orders values (2, 2, 'x')")
	arrived(t, s, 2)
	db.Exec(t, "create table later (id int primary key)")
	p.stderr.waitFor(t, "configuration loaded")
	db.Exec(t, "insert into later values (1)")
	require.Equal(t, "/later", arrived(t, s, 3)[2].Path)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	require.Equal(t, 1, strings.Count(p.stderr.String(), "configuration not applied"), p.stderr.String())
}

package pgtest_test

import (
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestNewDatabaseHasTheSchemaAndNobodyElsesRows(t *testing.T) {
	t.Parallel()
	one, two := pgtest.New(t), pgtest.New(t)
	one.Exec(t, "create table public.mine (); create schema if not exists other")

	var schema, mine bool
	err := two.Conn(t).QueryRow(t.Context(), "select to_regnamespace('rowhook') is not null, to_regclass('public.mine') is not null").Scan(&schema, &mine)
	require.NoError(t, err)
	require.True(t, schema, "schema rowhook")
	require.False(t, mine, "the other database's table")
}

func TestNewEmptyDatabaseHasNoSchema(t *testing.T) {
	t.Parallel()
	var schema bool
	err := pgtest.NewEmpty(t).Pool(t).QueryRow(t.Context(), "select to_regnamespace('rowhook') is not null").Scan(&schema)
	require.NoError(t, err)
	require.False(t, schema)
}

func TestDatabaseIsDroppedAtTheEndOfItsTest(t *testing.T) {
	t.Parallel()
	var url string
	t.Run("inner", func(t *testing.T) {
		db := pgtest.New(t)
		url = db.URL()
		conn := db.Conn(t)
		_, err := conn.Exec(t.Context(), "select pg_create_logical_replication_slot('held', 'pgoutput')")
		require.NoError(t, err)
	})
	_, err := pgx.Connect(t.Context(), url)
	require.ErrorContains(t, err, "does not exist")
}

func TestCrashedServerKeepsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, "work_mem=7MB")
	db := server.New(t)
	db.Exec(t, "create table kept (n int); insert into kept select generate_series(1, 1000)")

	server.Stop(t, localpg.Immediate)
	_, err := pgx.Connect(t.Context(), db.URL())
	require.Error(t, err, "connect to a stopped server")
	require.Zero(t, server.PID())
	server.Start(t)
	server.Restart(t, localpg.Fast)

	var n int
	var workMem string
	require.NoError(t, db.Conn(t).QueryRow(t.Context(), "select count(*), current_setting('work_mem') from kept").Scan(&n, &workMem))
	require.Equal(t, 1000, n)
	require.Equal(t, "7MB", workMem)
}

func TestVersionIsThatOfTheServer(t *testing.T) {
	t.Parallel()
	var number int
	require.NoError(t, pgtest.NewEmpty(t).Conn(t).QueryRow(t.Context(), "select current_setting('server_version_num')::int / 10000").Scan(&number))
	require.Equal(t, number, pgtest.Version(t))
	require.GreaterOrEqual(t, number, 14)
}

func BenchmarkNew(b *testing.B) {
	pgtest.New(b) // makes the template
	start := time.Now()
	for b.Loop() {
		pgtest.New(b)
	}
	b.ReportMetric(float64(time.Since(start).Milliseconds())/float64(b.N), "ms/db")
}

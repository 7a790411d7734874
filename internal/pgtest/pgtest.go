// Package pgtest gives each test its own PostgreSQL database.
//
// A package whose tests use it needs
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// Main starts a temporary server for the package, or uses the one in ROWHOOK_TEST_DATABASE_URL.
// [New] clones a database from a template that was migrated once, which takes some 35 ms.
// Tests can therefore run in parallel, and do not see each other's rows.
//
// If the server outlives the run, a failing test keeps its database and prints the psql command
// that opens it. A server in ROWHOOK_TEST_DATABASE_URL outlives the run, such as that of 'go run
// ./internal/pgtest/cmd/pgtestserver'.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/clone"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/sqlschema"
)

// These environment variables name the server of the tests. Main sets the missing ones for its
// process.
const (
	// EnvURL is the URL of a database whose user may create databases.
	EnvURL = "ROWHOOK_TEST_DATABASE_URL"
	// EnvBinDir is the directory of the PostgreSQL programs, for servers that a test starts itself.
	EnvBinDir = "ROWHOOK_TEST_POSTGRES_BIN"
	// EnvTemporary is set if the server ends with the run. A failed test can't keep its database
	// then.
	EnvTemporary = "ROWHOOK_TEST_SERVER_IS_TEMPORARY"
)

// Main runs a package's tests and returns the exit code, for TestMain.
func Main(m *testing.M) int {
	code, err := run(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "pgtest: %v\n", err)
		return max(code, 1)
	}
	return code
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	if os.Getenv(EnvURL) == "" {
		server, err := StartServer(ctx)
		if err != nil {
			return 1, err
		}
		defer func() { err = errors.Join(err, server.Stop(ctx, localpg.Immediate)) }()
		for name, value := range Environment(server) {
			if err := os.Setenv(name, value); err != nil {
				return 1, fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	if os.Getenv(EnvTemporary) == "" {
		if err := clone.Sweep(ctx, os.Getenv(EnvURL)); err != nil {
			return 1, err
		}
	}
	return m.Run(), nil
}

// StartServer starts a temporary server with the settings that tests need. Settings of the form
// name=value override these.
func StartServer(ctx context.Context, settings ...string) (*localpg.Server, error) {
	config := localpg.Config{
		BinDir:  os.Getenv(EnvBinDir),
		TempDir: localpg.MemoryDir(4 << 30), QuickConnect: true,
		Settings: map[string]string{
			"fsync":                     "off", // a crash of PostgreSQL loses nothing; only a crash of the machine does
			"full_page_writes":          "off",
			"max_connections":           "800", // some 15 for each of the tests that run at once, in two packages
			"wal_level":                 "logical",
			"max_prepared_transactions": "20",
			"track_commit_timestamp":    "on",
		},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	for _, setting := range settings {
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return nil, fmt.Errorf("setting %q does not have the form name=value", setting)
		}
		config.Settings[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return localpg.Start(ctx, config)
}

// Environment returns the environment variables that make tests use a temporary server.
func Environment(server *localpg.Server) map[string]string {
	return map[string]string{EnvURL: server.URL("postgres"), EnvBinDir: server.BinDir(), EnvTemporary: "1"}
}

// DB is a database for one test.
type DB struct{ url string }

// New makes a database with the schema rowhook, and drops it at the end of the test.
func New(t testing.TB) *DB {
	t.Helper()
	db, err := clone.New(t.Context(), serverURL(t), migrated(t))
	require.NoError(t, err)
	return attend(t, db)
}

// migrated is the template of databases with the schema rowhook. It serves all packages and runs
// whose migrations are the same.
func migrated(t testing.TB) clone.Template {
	t.Helper()
	key, err := sqlschema.Fingerprint()
	require.NoError(t, err)
	return clone.Template{Key: "pgtest " + key, Base: "template0", Make: migrate}
}

func migrate(ctx context.Context, databaseURL string) (err error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("connect to the template database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := sqlschema.Migrate(ctx, conn, slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("migrate the template database: %w", err)
	}
	return nil
}

// NewEmpty makes a database without the schema rowhook, and drops it at the end of the test.
func NewEmpty(t testing.TB) *DB {
	t.Helper()
	db, err := clone.Empty(t.Context(), serverURL(t), "template0")
	require.NoError(t, err)
	return attend(t, db)
}

// NewIn is New for a database with another encoding than the server's, such as LATIN1.
func NewIn(t testing.TB, encoding string) *DB {
	t.Helper()
	made, err := clone.InEncoding(t.Context(), serverURL(t), encoding)
	require.NoError(t, err)
	db := attend(t, made)
	require.NoError(t, migrate(t.Context(), db.url+"&client_encoding=UTF8"))
	return db
}

func serverURL(t testing.TB) string {
	t.Helper()
	server := os.Getenv(EnvURL)
	require.NotEmpty(t, server, "this package needs: func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	return server
}

// attend drops the database at the end of the test. A failed test keeps it if the server outlives the
// run.
func attend(t testing.TB, made *clone.Database) *DB {
	t.Helper()
	db := &DB{url: made.URL}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv(EnvTemporary) == "" {
			t.Logf("the test's database is kept, open it with: psql '%s'", db.url)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := made.Drop(ctx, time.Minute); err != nil {
			t.Error(err)
		}
	})
	return db
}

// URL returns the database's connection string. On a server that Main started its user is a
// superuser.
func (db *DB) URL() string { return db.url }

// Conn opens a connection, and closes it at the end of the test.
func (db *DB) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	conn := connect(t, db.url)
	t.Cleanup(func() { closeConn(t, conn) })
	return conn
}

// Pool opens a pool, and closes it at the end of the test.
func (db *DB) Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), db.url)
	require.NoError(t, err, "open a pool")
	t.Cleanup(pool.Close)
	return pool
}

// unhurried is for a session in a database that a test has given time-outs for all sessions.
const unhurried = "set statement_timeout = 0; set lock_timeout = 0; "

// Role makes a role for this test that may log in and nothing else. At the end of the test it drops
// the role and what it owns in this database. It returns the role's name and the database's
// connection string for it.
func (db *DB) Role(t testing.TB) (name, connString string) {
	t.Helper()
	name, password := "rowhook_role_"+strings.ToLower(rand.Text()[:12]), rand.Text()
	conn := db.Conn(t)
	_, err := conn.Exec(t.Context(), unhurried+fmt.Sprintf("create role %s login password '%s'", name, password))
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() && os.Getenv(EnvTemporary) == "" {
			return // the database is kept, and so is its role
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, db.url)
		if err != nil {
			t.Errorf("drop the role %s: %v", name, err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, unhurried+fmt.Sprintf("drop owned by %s cascade; drop role %[1]s", name)); err != nil {
			t.Errorf("drop the role %s: %v", name, err)
		}
	})
	u, err := url.Parse(db.url)
	require.NoError(t, err)
	u.User = url.UserPassword(name, password)
	return name, u.String()
}

// Exec runs a statement, or several without arguments, on a new connection.
func (db *DB) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	conn := connect(t, db.url)
	defer closeConn(t, conn)
	_, err := conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func connect(t testing.TB, connString string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), connString)
	require.NoError(t, err, "connect to the test database")
	return conn
}

// closeConn closes a connection. It ignores errors, because the test may have killed the server or
// the session.
func closeConn(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// Version returns the major version of the tests' server, such as 15.
func Version(t testing.TB) int {
	t.Helper()
	conn := connect(t, os.Getenv(EnvURL))
	defer closeConn(t, conn)
	number, err := strconv.Atoi(conn.PgConn().ParameterStatus("server_version_num"))
	if err != nil {
		var text string
		require.NoError(t, conn.QueryRow(t.Context(), "show server_version_num").Scan(&text))
		number, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	return number / 10000
}

// Package pgtest gives each test its own PostgreSQL database.
//
// A package whose tests use it needs
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// Main starts a temporary server for the package, or uses the one in ROWHOOK_TEST_DATABASE_URL.
// [New] clones a database from a template that was migrated once, which takes some 30 to 50 ms.
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
	"hash/fnv"
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

	envTemplate = "ROWHOOK_TEST_TEMPLATE" // set by Main and read by New
)

// Names of databases are prefix_UNIXTIME_RANDOM. By the time Main finds databases of killed runs.
const (
	templatePrefix = "rowhook_template_"
	testPrefix     = "rowhook_test_"
	leftoverAge    = 24 * time.Hour
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
	if err := os.Setenv(envTemplate, databaseName(templatePrefix)); err != nil {
		return 1, fmt.Errorf("set %s: %w", envTemplate, err)
	}
	if err := dropLeftovers(ctx); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, dropTemplate(ctx)
}

// StartServer starts a temporary server with the settings that tests need. Settings of the form
// name=value override these.
func StartServer(ctx context.Context, settings ...string) (*localpg.Server, error) {
	config := localpg.Config{
		BinDir:  os.Getenv(EnvBinDir),
		TempDir: localpg.MemoryDir(4 << 30),
		Settings: map[string]string{
			"fsync":                     "off", // a crash of PostgreSQL loses nothing; only a crash of the machine does
			"full_page_writes":          "off",
			"max_connections":           "300",
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

func databaseName(prefix string) string {
	return prefix + strconv.FormatInt(time.Now().Unix(), 10) + "_" + strings.ToLower(rand.Text()[:12])
}

// DB is a database for one test.
type DB struct{ url string }

// New makes a database with the schema rowhook, and drops it at the end of the test.
func New(t testing.TB) *DB {
	t.Helper()
	template := os.Getenv(envTemplate)
	require.NotEmpty(t, template, "this package needs: func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	admin := connect(t, os.Getenv(EnvURL))
	defer closeConn(t, admin)
	require.NoError(t, ensureTemplate(t.Context(), admin, template))
	return create(t, admin, os.Getenv(EnvURL), template)
}

// NewEmpty makes a database without the schema rowhook, and drops it at the end of the test.
func NewEmpty(t testing.TB) *DB {
	t.Helper()
	require.NotEmpty(t, os.Getenv(EnvURL), "this package needs: func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	admin := connect(t, os.Getenv(EnvURL))
	defer closeConn(t, admin)
	return create(t, admin, os.Getenv(EnvURL), "template0")
}

// NewIn is New for a database with another encoding than the server's, such as LATIN1.
func NewIn(t testing.TB, encoding string) *DB {
	t.Helper()
	require.NotEmpty(t, os.Getenv(EnvURL), "this package needs: func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	admin := connect(t, os.Getenv(EnvURL))
	defer closeConn(t, admin)
	db := create(t, admin, os.Getenv(EnvURL), "template0 encoding '"+encoding+"' lc_collate 'C' lc_ctype 'C'")
	conn := connect(t, db.url+"&client_encoding=UTF8")
	defer closeConn(t, conn)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, slog.New(slog.DiscardHandler)))
	return db
}

func create(t testing.TB, admin *pgx.Conn, adminURL, template string) *DB {
	t.Helper()
	name := databaseName(testPrefix)
	_, err := admin.Exec(t.Context(), "create database "+name+" template "+template)
	require.NoError(t, err, "create a test database")
	db := &DB{url: withDatabase(t, adminURL, name)}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv(EnvTemporary) == "" {
			t.Logf("the test's database is kept, open it with: psql '%s'", db.url)
			return
		}
		db.drop(t, adminURL, name)
	})
	return db
}

// drop drops the database on a new connection, because a test may run for long. It drops logical
// replication slots first, because Postgres does not drop a database that has one.
func (db *DB) drop(t testing.TB, adminURL, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	admin, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		t.Errorf("drop the test database: %v", err)
		return
	}
	defer admin.Close(ctx)
	_, err = admin.Exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1 and not active", name)
	if err == nil {
		_, err = admin.Exec(ctx, "drop database "+name+" with (force)")
	}
	if err != nil {
		t.Errorf("drop the test database: %v", err)
	}
}

// withDatabase returns a connection URL with another database's name.
func withDatabase(t testing.TB, rawURL, name string) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	require.NotEmpty(t, u.Scheme, "%s must be a URL, such as postgres://user:password@host:5432/postgres", EnvURL)
	u.Path = "/" + name
	return u.String()
}

// ensureTemplate makes the run's template, unless another test has made it.
func ensureTemplate(ctx context.Context, admin *pgx.Conn, template string) error {
	const ready = "select exists (select from pg_database where datname = $1 and datistemplate)"
	var exists bool
	if err := admin.QueryRow(ctx, ready, template).Scan(&exists); err != nil || exists {
		return err
	}
	h := fnv.New64a()
	h.Write([]byte(template))
	key := int64(h.Sum64())
	if _, err := admin.Exec(ctx, "select pg_advisory_lock($1)", key); err != nil {
		return fmt.Errorf("lock the template database: %w", err)
	}
	defer admin.Exec(context.WithoutCancel(ctx), "select pg_advisory_unlock($1)", key) //nolint:errcheck // the end of the session releases the lock, too
	if err := admin.QueryRow(ctx, ready, template).Scan(&exists); err != nil || exists {
		return err
	}
	for _, sql := range []string{"drop database if exists " + template + " with (force)", "create database " + template + " template template0"} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the template database: %w", err)
		}
	}
	if err := migrateTemplate(ctx, admin, template); err != nil {
		return err
	}
	// The mark comes last: it says that the template is complete. It forbids connections, because
	// cloning a database fails while a session is connected to it.
	if _, err := admin.Exec(ctx, "alter database "+template+" is_template true allow_connections false"); err != nil {
		return fmt.Errorf("finish the template database: %w", err)
	}
	return nil
}

func migrateTemplate(ctx context.Context, admin *pgx.Conn, template string) (err error) {
	config := admin.Config()
	config.Database = template
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to the template database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := sqlschema.Migrate(ctx, conn, slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("migrate the template database: %w", err)
	}
	return nil
}

func dropTemplate(ctx context.Context) error {
	admin, err := pgx.Connect(ctx, os.Getenv(EnvURL))
	if err != nil {
		return fmt.Errorf("drop the template database: %w", err)
	}
	defer admin.Close(ctx)
	return dropDatabase(ctx, admin, os.Getenv(envTemplate))
}

func dropDatabase(ctx context.Context, admin *pgx.Conn, name string) error {
	var isTemplate bool
	err := admin.QueryRow(ctx, "select datistemplate from pg_database where datname = $1", name).Scan(&isTemplate)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err == nil && isTemplate {
		_, err = admin.Exec(ctx, "alter database "+name+" is_template false")
	}
	if err == nil {
		_, err = admin.Exec(ctx, "drop database if exists "+name+" with (force)")
	}
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// dropLeftovers drops databases of runs that are older than leftoverAge, on a server that outlives
// the run.
func dropLeftovers(ctx context.Context) error {
	if os.Getenv(EnvTemporary) != "" {
		return nil
	}
	admin, err := pgx.Connect(ctx, os.Getenv(EnvURL))
	if err != nil {
		return fmt.Errorf("connect to the server in %s: %w", EnvURL, err)
	}
	defer admin.Close(ctx)
	rows, err := admin.Query(ctx, "select datname from pg_database where datname ~ '^rowhook_(template|test)_[0-9]+_' "+
		"and split_part(datname, '_', 3)::numeric < $1", time.Now().Add(-leftoverAge).Unix())
	if err != nil {
		return fmt.Errorf("look for old test databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for old test databases: %w", err)
	}
	for _, name := range names {
		if err := dropDatabase(ctx, admin, name); err != nil {
			return err
		}
	}
	return nil
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

// Role makes a role for this test that may log in and nothing else. At the end of the test it drops
// the role and what it owns in this database. It returns the role's name and the database's
// connection string for it.
func (db *DB) Role(t testing.TB) (name, connString string) {
	t.Helper()
	name, password := "rowhook_role_"+strings.ToLower(rand.Text()[:12]), rand.Text()
	db.Exec(t, fmt.Sprintf("create role %s login password '%s'", name, password))
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
		if _, err := conn.Exec(ctx, fmt.Sprintf("drop owned by %s cascade; drop role %[1]s", name)); err != nil {
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

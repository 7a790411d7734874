package cli_test

import (
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

// place returns the host and the name of a database.
func place(t testing.TB, db *pgtest.DB) (host, database string) {
	t.Helper()
	u, err := url.Parse(db.URL())
	require.NoError(t, err)
	return u.Hostname(), strings.TrimPrefix(u.Path, "/")
}

// landlord is a database with a table of tenants, and a configuration that follows it.
func landlord(t testing.TB, receiver string) (*pgtest.DB, sourced) {
	t.Helper()
	main := shop(t)
	main.Exec(t, "create table tenants (name text, host text, database text)")
	host, _ := place(t, main)
	var s sourced
	s.file = write(t, "rowhook.yaml", fmt.Sprintf(`
sources:
  main: {url: "${MAIN_URL}"}
  from: {source: main, query: "select name, host, database from tenants;", url: "${TENANT_URL}", every: 1s}
  allow: ["%s"]
`, host)+fmt.Sprintf(orderTrigger, receiver))
	s.env = []string{"MAIN_URL=" + main.URL(), "TENANT_URL=" + main.URL(), "ROWHOOK_SOURCES=" + s.file}
	return main, s
}

func TestTenantsComeAndGoWithoutARestart(t *testing.T) {
	t.Parallel()
	s, receiverURL := receiver(t)
	main, many := landlord(t, receiverURL)
	a, b := shop(t), shop(t)
	rent := func(name string, db *pgtest.DB) {
		host, database := place(t, db)
		main.Exec(t, "insert into tenants values ($1, $2, $3)", name, host, database)
	}
	rent("tenant_a", a)
	p := start(t, many.env, "run", "-f", many.file, "--http", "off")
	p.stderr.waitFor(t, `ready.*source=main`)
	p.stderr.waitFor(t, `ready.*source=tenant_a`)
	a.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)

	rent("tenant_b", b)
	p.stderr.waitFor(t, `ready.*source=tenant_b`)
	b.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 2)
	code, stdout, stderr := rowhook(t, many.env, "status")
	require.Zero(t, code, stderr)
	require.Regexp(t, `(?s)main\n.*\ntenant_a\n.*\ntenant_b\n`, stdout)
	code, _, stderr = rowhook(t, many.env, "pause", "--all", "--source", "tenant_b")
	require.Zero(t, code, stderr)

	main.Exec(t, "alter table tenants rename to renters")
	p.stderr.waitFor(t, `tenants stay as they were.*relation \\?"tenants\\?" does not exist`)
	code, stdout, stderr = rowhook(t, many.env, "status")
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "main\n", "what is known is shown")
	require.Contains(t, stderr, "ask the source main for tenants")
	a.Exec(t, "insert into orders values (2, 1, 'a')")
	arrived(t, s, 3)
	main.Exec(t, "alter table renters rename to tenants")

	main.Exec(t, "delete from tenants where name = 'tenant_a'")
	p.stderr.waitFor(t, `stopped: all events are settled or given back.*source=tenant_a`)
	require.Zero(t, count(t, a, "rowhook.instance"))
	require.Equal(t, 1, count(t, b, "rowhook.instance"))
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

func TestRowsOfTenantsChooseNoOtherHostAndNoCredentials(t *testing.T) {
	t.Parallel()
	main, many := landlord(t, "http://127.0.0.1:1")
	good := shop(t)
	host, database := place(t, good)
	main.Exec(t, `insert into tenants values ('good', $1, $2), ('elsewhere', 'db.evil.example', 'd'), ('user', 'u:p@`+host+`', 'd'),
		('socket', '/tmp', 'd'), ('many', '`+host+`,db.evil.example', 'd'), ('no_database', $1, ''), ('nothing', null, null), ('main', $1, $2), ('a b', $1, $2), ('twin', $1, $2)`, host, database)
	code, stdout, stderr := rowhook(t, many.env, "apply", "-f", many.file)
	require.Equal(t, 1, code)
	require.Regexp(t, `(?s)^main\n.*\ngood\n`, stdout)
	for _, refused := range []string{
		`"elsewhere" is refused: the host "db.evil.example" is not allowed: sources.allow has ` + host,
		`"user" is refused: "u:p@` + host + `" is not the name or the address of one host`,
		`"socket" is refused: "/tmp" is not the name or the address of one host`, `"many" is refused: `, `"nothing" is refused: "" is not the name`,
		`"no_database" is refused: "" is not the name of a database`, `"main" is refused: another source has this name`, `"a b" is refused: "a b" is not a name for a source`,
		`"twin" is refused: names the database of the source "good"`,
	} {
		require.Contains(t, stderr, refused)
	}
	require.Equal(t, 1, count(t, good, "rowhook.trigger"))
	code, stdout, _ = rowhook(t, nil, "check", many.file)
	require.Zero(t, code)
	require.Contains(t, stdout, "for 1 source and its tenants")
	code, _, stderr = rowhook(t, many.env, "status", "--source", "elsewhere")
	require.Equal(t, 2, code, stderr)
	require.Contains(t, stderr, `has no source "elsewhere"`)
	require.Contains(t, stderr, `"elsewhere" is refused: the host "db.evil.example" is not allowed`)
}

func TestAQueryForTenantsOnlyReadsAndHasLittleTime(t *testing.T) {
	t.Parallel()
	main, many := landlord(t, "http://127.0.0.1:1")
	main.Exec(t, `create function rob() returns text language sql as $$ insert into tenants values ('x', 'y', 'z'); select 'a' $$`)
	for query, want := range map[string]string{
		"select rob() as name, 'h' as host, 'd' as database": "read-only transaction",
		"select 1 as name":              "column \"host\" does not exist",
		"select 1; delete from tenants": "syntax error",
		"select pg_sleep(60)::text as name, '' as host, '' as database": "statement timeout",
	} {
		text := strings.NewReplacer("select name, host, database from tenants;", query).Replace(textOf(t, many.file))
		file := write(t, "rowhook.yaml", text)
		code, _, stderr := rowhook(t, append(many.env, "ROWHOOK_SOURCES="+file), "status")
		require.Equal(t, 1, code)
		require.Contains(t, stderr, want)
	}
	require.Zero(t, count(t, main, "tenants"))
}

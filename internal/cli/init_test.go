package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestInitWritesAFileThatCheckAccepts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(args ...string) (code int, stdout, stderr string) {
		p := prepare(t, elsewhere(t), args...)
		p.cmd.Dir = dir
		require.NoError(t, p.cmd.Start())
		code = p.exit(t)
		return code, p.stdout.String(), p.stderr.String()
	}
	code, stdout, stderr := in("init")
	require.Zero(t, code, stderr)
	require.Regexp(t, "^Wrote rowhook.yaml, with an example", stdout)
	require.Contains(t, stdout, "\n  rowhook check\n")
	code, stdout, stderr = in("check", "--strict")
	require.Zero(t, code, stderr)
	require.Equal(t, "rowhook.yaml: 1 trigger, no problem\n", stdout)

	file := filepath.Join(dir, "rowhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	code, _, stderr = in("init")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "rowhook.yaml exists already: give -f another file, - to print it, or --force to overwrite it")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))
	code, _, stderr = in("init", "--force")
	require.Zero(t, code, stderr)
	written, err := os.ReadFile(file)
	require.NoError(t, err)

	code, stdout, stderr = in("init", "-f", "-")
	require.Zero(t, code, stderr)
	require.Equal(t, string(written), stdout)

	code, stdout, stderr = in("init", "-f", "it's.yaml")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `rowhook check -f 'it'\''s.yaml'`)
	code, _, stderr = in("init", "-f", ".")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, ". is a directory: give -f the file to write, such as rowhook.yaml")
	code, _, stderr = in("init", "-f", "nowhere/rowhook.yaml")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "there is no directory nowhere; make it first")
	code, _, stderr = in("init", "--table", "orders", "--connect-timeout", "0", "-f", "other.yaml")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "connection refused")
	require.NoFileExists(t, filepath.Join(dir, "other.yaml"))
}

func TestInitWritesTriggersForTables(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	db.Exec(t, `create schema "Sales"; create table "Sales"."Order Items" ("Item" int primary key, "the price" int) partition by range ("Item")`)
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	env := append(database(db.URL()), "ROWHOOK_FILE="+file)
	code, stdout, stderr := rowhook(t, env, "init", "--table", "orders", "--table", `"Sales"."Order Items"`, "--table", "public.orders")
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	require.Contains(t, stdout, `, with a trigger on the tables public.orders, "Sales"."Order Items".`)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), "  - name: orders_changed\n    table: public.orders\n")
	require.Contains(t, string(text), "  - name: Order_Items_changed\n    table: '\"Sales\".\"Order Items\"'\n")
	require.Contains(t, string(text), "      update: {columns: ['the price']}\n")
	require.Contains(t, string(text), "    #payload: {columns: [Item, 'the price']}\n")
	code, stdout, stderr = rowhook(t, env, "apply")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "Applied ")

	code, stdout, stderr = rowhook(t, env, "init", "-f", "-", "--table", "public.orders")
	require.Zero(t, code, stderr)
	require.Regexp(t, "^# The configuration", stdout)
	require.Contains(t, stderr, `"rowhook apply" removes them: Order_Items_changed`)
}

func TestInitSaysWhyATableCannotBeWatched(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	db.Exec(t, `create view paid as select * from orders; create extension if not exists file_fdw; create server files foreign data wrapper file_fdw;
create foreign table imported (id int) server files options (filename '/dev/null')`)
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	refused := func(env []string, tables ...string) string {
		t.Helper()
		args := []string{"init", "-f", file}
		for _, table := range tables {
			args = append(args, "--table", table)
		}
		code, _, stderr := rowhook(t, env, args...)
		require.Equal(t, 2, code, stderr)
		require.NoFileExists(t, file)
		return stderr
	}
	env := database(db.URL())
	stderr := refused(env, "public.ordres", "paid", "orders", "imported", "a.b.c.d", "pg_class", `"`)
	require.Contains(t, stderr, "--table public.ordres: there is no table public.ordres in this database; did you mean public.orders?")
	require.Contains(t, stderr, "--table paid: public.paid is a view, and rows change in the tables that it reads")
	require.Contains(t, stderr, "--table imported: public.imported is a foreign table")
	require.Contains(t, stderr, "--table pg_class: pg_catalog.pg_class belongs to Postgres itself")
	require.Contains(t, stderr, "--table a.b.c.d: ")
	require.Contains(t, stderr, `--table ": `)
	require.NotContains(t, stderr, "--table orders:")

	role, url := db.Role(t)
	require.Contains(t, refused(database(url), "public.orders"), "the role "+role+" may not create triggers on public.orders: grant trigger on public.orders to "+role)
	db.Exec(t, "grant trigger on orders to "+role)
	code, _, stderr := rowhook(t, database(url), "init", "-f", file, "--table", "public.orders")
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, `"rowhook apply" as this role fails: `)
}

package cli_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/sink"
)

// replaceFile replaces a file at once.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// configuration writes a rowhook.yaml of one trigger with this webhook.
func configuration(t *testing.T, webhook string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rowhook.yaml")
	require.NoError(t, os.WriteFile(path, []byte("triggers:\n  - name: order_changed\n    table: public.orders\n    on: {insert: true}\n    webhook: "+webhook+"\n"), 0o600))
	return path
}

func TestThePasswordOfTheDatabaseAndTokensComeFromFilesThatChange(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s, receiverURL := receiver(t)
	dir := t.TempDir()
	name := db.Conn(t).Config().Database
	role := "r_" + name
	db.Exec(t, `create role "`+role+`" login superuser password 'first-password'`)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), db.URL())
		require.NoError(t, err)
		_, err = conn.Exec(context.Background(), `alter role "`+role+`" nologin`) // it owns what was installed
		require.NoError(t, errors.Join(err, conn.Close(context.Background())))
	})
	at, err := url.Parse(db.URL())
	require.NoError(t, err)
	databaseFile, tokenFile := filepath.Join(dir, "database_url"), filepath.Join(dir, "token")
	as := func(password string) string {
		u := *at
		u.User = url.UserPassword(role, password)
		return u.String() + "\n"
	}
	replaceFile(t, databaseFile, as("first-password"))
	replaceFile(t, tokenFile, "first-token-0123456789\n")
	env := []string{"DATABASE_URL_FILE=" + databaseFile, "ROWHOOK_HTTP_TOKEN_FILE=" + tokenFile, "ROWHOOK_SECRETS_DIR=" + dir}
	// The files are in the directory whose files are given out, as in /run/secrets.
	stolen := configuration(t, `{url: "`+receiverURL+`", headers: {X: "${file:`+databaseFile+`}"}}`)
	code, _, stderr := rowhook(t, env, "apply", "-f", stolen)
	require.Zero(t, code, stderr)
	code, _, stderr = rowhook(t, env, "test", "order_changed")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "the dispatcher does not give out the file "+databaseFile+": it holds a password or a token of Rowhook itself")
	require.NotContains(t, stderr, "first-password")

	p := start(t, env, "run", "-f", ordersConfig(t, receiverURL), "--http", "127.0.0.1:0")
	address := served(t, p)
	p.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)

	db.Exec(t, `alter role "`+role+`" password 'second-password'`)
	replaceFile(t, databaseFile, as("second-password"))
	db.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where usename = '"+role+"'")
	db.Exec(t, "insert into orders values (2, 1, 'a')")
	arrived(t, s, 2)
	require.NotContains(t, p.stderr.String(), "password authentication failed")

	status, _ := ask(t, "GET", address, "/api/v1/status", "first-token-0123456789", "")
	require.Equal(t, http.StatusOK, status)
	replaceFile(t, tokenFile, "second-token-0123456789")
	require.Eventually(t, func() bool {
		status, _ := ask(t, "GET", address, "/api/v1/status", "second-token-0123456789", "")
		return status == http.StatusOK
	}, patience, 20*time.Millisecond)
	status, _ = ask(t, "GET", address, "/api/v1/status", "first-token-0123456789", "")
	require.Equal(t, http.StatusUnauthorized, status)
	replaceFile(t, tokenFile, "short")
	status, _ = ask(t, "GET", address, "/api/v1/status", "second-token-0123456789", "")
	require.Equal(t, http.StatusOK, status, "what was read last stays")
	p.stderr.waitFor(t, "is too short")
	for _, hidden := range []string{"first-password", "second-password", "first-token", "second-token"} {
		require.NotContains(t, p.stderr.String(), hidden)
	}
}

func TestASecretAndItsFileExcludeEachOther(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "url")
	replaceFile(t, file, "postgres://a:hidden@127.0.0.1:1/b")
	for want, env := range map[string][]string{
		"DATABASE_URL and DATABASE_URL_FILE are both set: remove one of them":             {"DATABASE_URL=postgres://b", "DATABASE_URL_FILE=" + file},
		"ROWHOOK_LISTEN_URL and ROWHOOK_LISTEN_URL_FILE are both set: remove one of them": {"ROWHOOK_LISTEN_URL=postgres://b", "ROWHOOK_LISTEN_URL_FILE=" + file},
		"/gone does not exist": {"DATABASE_URL_FILE=/gone"},
	} {
		code, _, stderr := rowhook(t, env, "status", "--connect-timeout", "0")
		require.Equal(t, 2, code)
		require.Contains(t, stderr, want)
	}
	code, _, stderr := rowhook(t, []string{"ROWHOOK_HTTP_TOKEN=0123456789abcdefgh", "ROWHOOK_HTTP_TOKEN_FILE=" + file}, "run", "--http", "127.0.0.1:0")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "ROWHOOK_HTTP_TOKEN and ROWHOOK_HTTP_TOKEN_FILE are both set")
	code, _, stderr = rowhook(t, []string{"DATABASE_URL_FILE=" + file}, "status", "--connect-timeout", "0")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "127.0.0.1:1")
	require.NotContains(t, stderr, "hidden")
}

func TestReferencesThatAreNotGivenOutAreWarnedOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := configuration(t, `{url: "https://e.com/${PGPASSWORD}", headers: {A: "${ORDERS_KEY}", B: "${file:`+dir+`/b}", C: "${file:/etc/passwd}"}}`)
	code, stdout, stderr := rowhook(t, nil, "check", file)
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "rowhook.yaml:5:20: warning: triggers[0].webhook.url: the dispatcher does not give out PGPASSWORD: names that begin with ROWHOOK_ or PG")
	require.Contains(t, stdout, "1 warning")

	env := []string{"ROWHOOK_ENV=STRIPE_*", "ROWHOOK_SECRETS_DIR=" + dir}
	code, stdout, stderr = rowhook(t, env, "check", file)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "3 warnings")
	require.Contains(t, stderr, "the dispatcher does not give out ORDERS_KEY: --env names only STRIPE_*")
	require.Contains(t, stderr, "the dispatcher does not give out the file /etc/passwd: it is not in "+dir)
	code, stdout, _ = rowhook(t, env, "check", file, "--json")
	require.Zero(t, code)
	require.Contains(t, stdout, `"secret_files": [`)

	for _, bad := range [][]string{{"ROWHOOK_ENV=A-B"}, {"ROWHOOK_SECRETS_DIR=/"}, {"ROWHOOK_SECRETS_DIR=secrets"}} {
		code, _, stderr = rowhook(t, bad, "check", file)
		require.Equal(t, 2, code)
		require.Contains(t, stderr, strings.SplitN(bad[0], "=", 2)[0])
	}
}

func TestTheTestOfATriggerShowsThePublicKey(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	var shown atomic.Value // the key for the receiver
	s := &sink.Sink{SecretOf: func(string) string { key, _ := shown.Load().(string); return key }}
	receiverURL := serve(t, s)
	const private, public = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=", "whpk_"
	file := configuration(t, `{url: "`+receiverURL+`", secret: "${KEY}"}`)
	env := append(database(db.URL()), "KEY="+private)
	code, _, stderr := rowhook(t, env, "apply", "-f", file)
	require.Zero(t, code, stderr)
	code, stdout, stderr := rowhook(t, env, "test", "order_changed", "--dry-run")
	require.Zero(t, code, stderr)
	require.Regexp(t, `verifies the signature with whpk_[A-Za-z0-9+/]{43}=`, stdout)
	require.NotContains(t, stdout, strings.TrimPrefix(private, "whsk_"))
	shown.Store(public + strings.SplitN(strings.SplitN(stdout, "whpk_", 2)[1], "\n", 2)[0])
	code, stdout, stderr = rowhook(t, env, "test", "order_changed")
	require.Zero(t, code, stdout+stderr)
	require.Contains(t, stdout, "200 OK")
	require.Equal(t, sink.Valid, arrived(t, s, 1)[0].Signature)
}

package sandbox_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestScriptsAreReadInTheOrderThatWasGivenAndDirectoriesByName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	last := write(t, t.TempDir(), "0.sql", "select 3")
	write(t, dir, "b.sql", "select 2")
	write(t, dir, "A.SQL", "\uFEFFselect 1")
	write(t, dir, "readme.md", "no SQL")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub.sql"), 0o700))
	scripts, err := sandbox.ReadScripts(dir, last)
	require.NoError(t, err)
	require.Equal(t, []sandbox.Script{
		{File: filepath.Join(dir, "A.SQL"), Text: "select 1"}, {File: filepath.Join(dir, "b.sql"), Text: "select 2"}, {File: last, Text: "select 3"},
	}, scripts)
	_, err = sandbox.ReadScripts(t.TempDir())
	require.ErrorContains(t, err, "no file whose name ends in .sql")
	_, err = sandbox.ReadScripts(filepath.Join(dir, "nosuch.sql"))
	require.ErrorContains(t, err, "does not exist")
}

func TestAScriptLeavesNothingButItsTables(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	require.NoError(t, sandbox.RunScripts(t.Context(), db.URL(),
		sandbox.Script{File: "a.sql", Text: "create schema app; set search_path = app; create table t (id int)"},
		sandbox.Script{File: "b.sql"},
		sandbox.Script{File: "c.sql", Text: "begin; create table t (id int); commit; insert into app.t values (1); insert into public.t values (1)"}))
}

func TestTheErrorOfAScriptNamesTheLineAndTheRemedy(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	for text, want := range map[string]string{
		"create table ä (id int);\ncreate tabel b (id int);":    `s.sql:2: syntax error at or near "tabel" (SQLSTATE 42601)`,
		"create table c (id int);\n\\connect other":             "commands of psql",
		"create table d (id int); vacuum d":                     "a file of its own",
		"create table e (id int); copy e from stdin;\n1\n\\.\n": "s.sql",
		"begin; create table f (id int)":                        "add commit at its end",
		"select 1/0":                                            "s.sql: division by zero",
	} {
		err := sandbox.RunScripts(t.Context(), db.URL(), sandbox.Script{File: "s.sql", Text: text})
		var wrong *sandbox.ScriptError
		require.ErrorAs(t, err, &wrong, text)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestPointedTriggersSendToTheReceiverThatTheLookupNames(t *testing.T) {
	t.Parallel()
	env := func(name string) (string, bool) {
		value, ok := map[string]string{"GIVEN": "whsec_" + strings.Repeat("A", 40), "EMPTY": ""}[name]
		return value, ok
	}
	spec := func(name, secret string) trigger.Spec {
		s := trigger.DefaultSpec()
		s.Name = name
		s.Webhook.URL = "https://${NOWHERE}/x"
		s.Webhook.Headers = map[string]string{"X-Token": "Bearer ${TOKEN}", "Host": "${HOST_NAME}"}
		s.Webhook.Secret = secret
		s.Webhook.TLS.CAFile = "/ca.pem"
		return s
	}
	given := []trigger.Spec{spec("own", "${GIVEN}"), spec("unset", "whsec_${UNSET}"), spec("empty", "${EMPTY}"), spec("plain", "abc"), spec("none", "")}
	pointed := sandbox.Point(given, trigger.Variables(env))
	require.Equal(t, "https://${NOWHERE}/x", given[0].Webhook.URL, "the caller's triggers do not change")

	secret := sandbox.MakeSecret()
	require.NotEqual(t, secret, sandbox.MakeSecret())
	for _, receiver := range []string{"http://127.0.0.1:1", "http://127.0.0.1:2"} {
		lookup := sandbox.Variables(receiver, secret, trigger.Variables(env))
		for _, s := range pointed {
			ep, err := webhook.NewEndpointFrom(s.Webhook, lookup)
			require.NoError(t, err, s.Name)
			require.Equal(t, receiver+"/"+s.Name, ep.String())
		}
		require.Equal(t, map[string]string{"own": "whsec_" + strings.Repeat("A", 40), "unset": secret, "empty": secret, "plain": "abc"},
			sandbox.Secrets(pointed, lookup))
	}
}

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const soundConfig = `triggers:
  - name: one
    table: public.orders
    on: {insert: true}
    webhook: {url: "${ORDERS_URL}/x"}
`

// elsewhere is an environment in which no database can be reached.
func elsewhere(t *testing.T) []string { return database("postgres://" + closedPort(t)) }

func TestCheckTellsWithoutADatabaseWhetherAFileIsValid(t *testing.T) {
	t.Parallel()
	file := write(t, "rowhook.yaml", soundConfig)
	code, stdout, stderr := rowhook(t, elsewhere(t), "check", "-f", file)
	require.Zero(t, code, stderr)
	require.Equal(t, file+": 1 trigger, no problem\n", stdout)
	require.Empty(t, stderr)

	wrong := write(t, "rowhook.yaml", soundConfig+"    notify: x\n")
	code, stdout, stderr = rowhook(t, elsewhere(t), "check", file, wrong)
	require.Equal(t, 2, code)
	require.Equal(t, file+": 1 trigger, no problem\n", stdout, "the other file is checked, too")
	require.Regexp(t, "^"+wrong+":6:13: triggers\\[0\\].notify: \"x\" is not a valid value; write auto or never\n     6 \\| ", stderr)

	for _, args := range [][]string{{"check", "-"}, {"check", "-f", "-"}} {
		code, stdout, stderr = rowhookReading(t, soundConfig, elsewhere(t), args...)
		require.Zero(t, code, stderr)
		require.Equal(t, "<stdin>: 1 trigger, no problem\n", stdout)
	}
}

func TestCheckWarnsAndStrictMakesWarningsCount(t *testing.T) {
	t.Parallel()
	file := write(t, "rowhook.yaml", soundConfig+"    payload: {columns: [id]}\ndefaults: {webhook: {secret: 0123456789abcdefghijklmnopqrstuv}}\n")
	warning := file + ":7:30: warning: defaults.webhook.secret: is plain text here, so the database stores it, too; "
	code, stdout, stderr := rowhook(t, elsewhere(t), "check", file)
	require.Zero(t, code)
	require.Equal(t, file+": 1 trigger, no problem, 1 warning\n", stdout)
	require.Contains(t, stderr, warning)

	code, stdout, stderr = rowhook(t, elsewhere(t), "check", "--strict", file)
	require.Equal(t, 2, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, warning)
	require.Contains(t, stderr, file+": 1 trigger, and 1 warning (--strict)\n")

	code, _, stderr = rowhook(t, elsewhere(t), "check", "--env", file)
	require.Zero(t, code)
	require.Contains(t, stderr, ":5:20: warning: triggers[0].webhook.url: environment variable ORDERS_URL is not set here; ")
	require.Equal(t, 1, strings.Count(stderr, "ORDERS_URL"), "it is said once")
	code, _, stderr = rowhook(t, append(elsewhere(t), "ORDERS_URL=ftp://x"), "check", file)
	require.Zero(t, code)
	require.NotContains(t, stderr, "ORDERS_URL", "the environment is not looked at without --env")
}

func TestCheckTakesDirectories(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	put("a.yaml", soundConfig)
	put("b.yml", "network: {deny: [private]}\n")
	put("notes.md", "")
	code, stdout, stderr := rowhook(t, elsewhere(t), "check", "-f", dir)
	require.Zero(t, code, stderr)
	require.Equal(t, dir+": 1 trigger in 2 files, no problem (ignored: notes.md)\n", stdout)
	require.NoError(t, os.Remove(filepath.Join(dir, "a.yaml")))
	require.NoError(t, os.Remove(filepath.Join(dir, "b.yml")))
	code, _, stderr = rowhook(t, elsewhere(t), "check", "-f", dir)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, dir+": the directory has no file *.yaml or *.yml directly in it (it has notes.md); ")
}

func TestCheckPrintsAStableDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "good.yaml"), []byte(soundConfig+"    retry: {limit: 1}\ndefaults: {webhook: {headers: {Authorization: hunter2}}}\nalerts: [{url: '${ALERT_URL}', secret: '${KEY}'}]\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte("triggers: {}\n"), 0o600))
	p := prepare(t, elsewhere(t), "check", "--json", "good.yaml", "bad.yaml", "none.yaml")
	p.cmd.Dir = dir
	require.NoError(t, p.cmd.Start())
	require.Equal(t, 2, p.exit(t))
	require.Empty(t, p.stderr.String())
	require.NotContains(t, p.stdout.String(), "hunter2")
	require.JSONEq(t, `{
  "ok": false,
  "files": ["good.yaml", "bad.yaml", "none.yaml"],
  "triggers": [{"name": "one", "table": "public.orders", "file": "good.yaml", "line": 2, "column": 5, "variables": ["ORDERS_URL"], "secret_files": []}],
  "alerts": [{"file": "good.yaml", "line": 8, "column": 10, "variables": ["ALERT_URL", "KEY"], "secret_files": []}],
  "problems": [
    {"file": "bad.yaml", "line": 1, "column": 11, "key": "triggers", "message": "is a group of keys where a list is needed; start each entry under it with a dash and a space, as in - name: order_placed, or write triggers: [] for none"},
    {"file": "none.yaml", "line": 0, "column": 0, "key": "", "message": "the file does not exist; check the path, or write one with rowhook init"}
  ],
  "warnings": [{"file": "good.yaml", "line": 7, "column": 47, "key": "defaults.webhook.headers.Authorization", "message": "is plain text here, so the database stores it, too; write ${NAME} instead, and set NAME where the dispatcher runs"}]
}`, p.stdout.String())

	code, stdout, _ := rowhookReading(t, "triggers: []\n", elsewhere(t), "check", "--json", "-")
	require.Zero(t, code)
	require.JSONEq(t, `{"ok": true, "files": ["<stdin>"], "triggers": [], "alerts": [], "problems": [], "warnings": []}`, stdout)
	code, stdout, _ = rowhookReading(t, soundConfig+"    webhok: 1\n", elsewhere(t), "check", "--json", "--strict", "-")
	require.Equal(t, 2, code)
	require.True(t, json.Valid([]byte(stdout)), stdout)
}

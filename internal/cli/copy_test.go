package cli_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestACopyOfTheStructureIsNamedAndMadeWhole(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s, url := receiver(t)
	config := ordersConfig(t, url)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", config)
	require.Zero(t, code, stderr)
	dup := pgtest.NewEmpty(t)
	dup.Load(t, db.Dump(t, "--schema-only"))
	dup.Exec(t, "insert into orders values (1, 1, null)")
	for _, args := range [][]string{{"run"}, {"status"}, {"events", "list"}, {"redeliver", "--trigger", "order_changed", "--yes"}} {
		code, _, stderr := rowhook(t, database(dup.URL()), append(args, "--connect-timeout", "1s")...)
		require.Equal(t, 1, code, "%v", args)
		require.Contains(t, stderr, "this database has the schema rowhook without its rows", "%v", args)
		require.Contains(t, stderr, `run "rowhook apply"`, "%v", args)
	}
	code, stdout, stderr := rowhook(t, database(dup.URL()), "apply", "-f", config, "--dry-run")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "~ schema rowhook: it is a copy of the structure without its rows, and is completed")
	code, stdout, stderr = rowhook(t, database(dup.URL()), "apply", "-f", config)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "Applied")
	code, stdout, stderr = rowhook(t, database(dup.URL()), "apply", "-f", config)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "Nothing to do")

	p := start(t, database(dup.URL()), "run", "--http", "off")
	dup.Exec(t, "insert into orders values (2, 2, null)")
	require.Contains(t, string(arrived(t, s, 1)[0].New()), `"id":2`)
	require.NotContains(t, p.stderr.String(), "rowhook apply")
}

func TestSequencesThatAreBehindAreNamed(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	_, url := receiver(t)
	config := ordersConfig(t, url)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", config)
	require.Zero(t, code, stderr)
	db.Exec(t, "select setval('rowhook.trigger_id_seq', 1, false)")
	p := start(t, database(db.URL()), "run", "--http", "off")
	p.stderr.waitFor(t, "the sequence rowhook.trigger_id_seq is at 0, and 1 is in use: run .*rowhook apply")
	code, stdout, stderr := rowhook(t, database(db.URL()), "status", "--json")
	require.Zero(t, code, stderr)
	var status struct {
		Warnings []struct{ Code, Problem string }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &status))
	require.Contains(t, fmt.Sprint(status.Warnings), "incomplete the sequence rowhook.trigger_id_seq")
	code, stdout, stderr = rowhook(t, database(db.URL()), "apply", "-f", config)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "~ sequence rowhook.trigger_id_seq: 0 becomes 1")
}

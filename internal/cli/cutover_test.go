package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/doctor"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// hasuraOrders is what Hasura has in a database for an event trigger on inserts, updates and deletes.
const hasuraOrders = `
create schema hdb_catalog;
create table hdb_catalog.event_log (
  id text default gen_random_uuid() primary key, schema_name text not null, table_name text not null, trigger_name text not null, payload jsonb not null,
  delivered boolean not null default false, error boolean not null default false, tries integer not null default 0, created_at timestamp default now(),
  locked timestamptz, next_retry_at timestamp, archived boolean not null default false);
create function hdb_catalog.insert_event_log(schema_name text, table_name text, trigger_name text, op text, row_data json) returns text language sql as $$
  insert into hdb_catalog.event_log (schema_name, table_name, trigger_name, payload)
  values (schema_name, table_name, trigger_name, jsonb_build_object('op', op, 'data', row_data)) returning id $$;
do $do$
declare op text;
begin
  foreach op in array array['INSERT', 'UPDATE', 'DELETE'] loop
    execute format($f$create function hdb_catalog.%I() returns trigger language plpgsql as $$ begin
      perform hdb_catalog.insert_event_log('public', 'orders', 'order_changed', TG_OP,
        json_build_object('old', case when TG_OP <> 'INSERT' then row_to_json(old) end, 'new', case when TG_OP <> 'DELETE' then row_to_json(new) end));
      return null; end $$$f$, 'notify_hasura_order_changed_' || op);
    execute format('create trigger %1$I after %2$s on orders for each row execute function hdb_catalog.%1$I()', 'notify_hasura_order_changed_' || op, op);
  end loop;
end $do$`

func TestCutoverSaysWhatItDoesAndDoesIt(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	db.Exec(t, hasuraOrders)
	s, url := receiver(t)
	file := ordersConfig(t, url)

	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", write(t, "none.yaml", "triggers: []\n"))
	require.Zero(t, code, stderr)
	code, _, stderr = rowhook(t, database(db.URL()), "cutover", "hasura", "order_changed", "--dry-run")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "rowhook cutover hasura order_changed -f rowhook.yaml")
	code, _, stderr = rowhook(t, database(db.URL()), "cutover", "hasura", "order_changed", "-f", file)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "Triggers that are new and that Hasura delivers start paused.")

	db.Exec(t, "insert into orders values (1)") // Hasura's alone
	code, stdout, stderr := rowhook(t, database(db.URL()), "cutover", "hasura", "order_changed", "-f", file, "--with-pending", "--yes")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "order_changed (public.orders):\n  1. put a fence before hdb_catalog.event_log")
	require.Contains(t, stdout, "order_changed: dropped 3 SQL triggers of Hasura, and discarded 0 events that Hasura has as well")
	require.Contains(t, stdout, "one thing is left: delete the event trigger order_changed of public.orders in Hasura")

	// What Hasura would have delivered, and what came later.
	db.Exec(t, "insert into orders values (2)")
	p := start(t, database(db.URL()), "run")
	p.stderr.waitFor(t, "ready")
	arrived(t, s, 2)

	code, stdout, stderr = rowhook(t, database(db.URL()), "cutover", "hasura", "--status", "--json")
	require.Zero(t, code, stderr)
	var status struct {
		Triggers []struct {
			Trigger, Step, Remaining string
			TakenOver                int `json:"taken_over"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &status))
	require.Len(t, status.Triggers, 1)
	require.Equal(t, "resumed", status.Triggers[0].Step)
	require.Equal(t, 1, status.Triggers[0].TakenOver)
	require.Contains(t, status.Triggers[0].Remaining, "pg_delete_event_trigger")

	for _, op := range []string{"INSERT", "UPDATE", "DELETE"} { // as Hasura does
		db.Exec(t, `drop function hdb_catalog."notify_hasura_order_changed_`+op+`"() cascade`)
	}
	code, stdout, stderr = rowhook(t, database(db.URL()), "cutover", "hasura", "order_changed", "--yes")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "order_changed: done: Rowhook delivers, and Hasura knows the trigger no more")

	code, stdout, stderr = rowhook(t, database(db.URL()), "audit", "--action", "cutover")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "order_changed")
}

func TestCutoverBackSaysThatNoDispatcherRuns(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	db.Exec(t, hasuraOrders)
	_, url := receiver(t)
	file := ordersConfig(t, url)
	db.Exec(t, "insert into orders values (1)")
	code, _, stderr := rowhook(t, database(db.URL()), "cutover", "hasura", "order_changed", "-f", file, "--with-pending", "--yes")
	require.Zero(t, code, stderr)
	back := start(t, database(db.URL()), "cutover", "hasura", "--back", "order_changed", "--yes")
	back.stdout.waitFor(t, "still to deliver 1 event, and no dispatcher runs: start one with rowhook run")
	// Meanwhile nobody is told to have Rowhook record again, and nothing does it.
	const how = "wait for the command that moves it; if that is interrupted, \"rowhook cutover hasura --back order_changed\" goes on behind this step"
	code, stdout, _ := rowhook(t, database(db.URL()), "status")
	require.Zero(t, code)
	require.Contains(t, oneLine(stdout), "it is being moved back to Hasura (step back-switched); Hasura records its changes")
	require.Contains(t, oneLine(stdout), how)
	require.NotContains(t, stdout, "rowhook apply")
	r := examine(t, database(db.URL()), "-f", file)
	require.True(t, r.OK)
	r.says("schema", doctor.Warn, "order_changed: it is being moved back to Hasura (step back-switched)", how)
	for _, f := range r.Findings {
		require.NotContains(t, f.Detail, "Hasura's event triggers capture these tables, too")
	}
	code, stdout, stderr = rowhook(t, database(db.URL()), "apply", "-f", file)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "Nothing to do")
	require.Contains(t, stderr, "so this apply does not touch it")
	run := start(t, database(db.URL()), "run", "-f", file, "--http", "127.0.0.1:0")
	run.stderr.waitFor(t, "ready")
	require.Zero(t, back.exit(t))
	code, stdout, _ = rowhook(t, database(db.URL()), "cutover", "hasura", "--status", "--json")
	require.Zero(t, code)
	require.NotContains(t, stdout, "recaught", "rowhook run -f has not made captures again")
}

// oneLine undoes the wrapping of lines.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestCutoverRefusesFlagsThatDoNotGoTogether(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{}, {"--back", "--abort", "a"}, {"a", "--back", "--with-pending"}, {"a", "-f", "x.yaml", "--back"}, {"a", "-f", "x.yaml", "--dry-run"}, {"a", "--patience", "0s"},
	} {
		code, _, stderr := rowhook(t, nil, append([]string{"cutover", "hasura"}, args...)...)
		require.Equal(t, 2, code, "%v: %s", args, stderr)
	}
}

package cli_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
)

func TestApplyTellsByItsExitCodeWhetherChangesArePending(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	file := ordersConfig(t, "http://localhost:1")
	asked := []string{"apply", "-f", file, "--dry-run", "--exit-code"}
	code, stdout, _ := rowhook(t, database(db.URL()), asked...)
	require.Equal(t, 3, code)
	require.Contains(t, stdout, "Nothing was changed")
	code, stdout, stderr := rowhook(t, database(db.URL()), append(asked, "--json")...)
	require.Equal(t, 3, code)
	require.True(t, json.Valid([]byte(stdout)), stdout)
	require.Empty(t, stderr)
	code, _, _ = rowhook(t, database(db.URL()), "apply", "-f", file, "--dry-run")
	require.Zero(t, code, "only --exit-code tells")
	code, _, stderr = rowhook(t, database(db.URL()), "apply", "-f", file)
	require.Zero(t, code, stderr)
	code, _, stderr = rowhook(t, database(db.URL()), asked...)
	require.Zero(t, code, stderr)
	code, _, _ = rowhook(t, database("postgres://"+closedPort(t)), append(asked, "--connect-timeout", "0")...)
	require.Equal(t, 1, code, "a failure is not a pending change")
}

// document is the JSON of apply with the names that are promised.
type document struct {
	Configuration, Database string
	DryRun                  bool `json:"dry_run"`
	Pending                 bool
	Schema                  struct{ From, To int32 }
	Changes                 []map[string]any
	Warnings                []map[string]any
}

func applyJSON(t *testing.T, db *pgtest.DB, args ...string) (document, string) {
	t.Helper()
	code, stdout, stderr := rowhook(t, database(db.URL()), append([]string{"apply", "--json"}, args...)...)
	require.Zero(t, code, stderr)
	var d document
	require.NoError(t, json.Unmarshal([]byte(stdout), &d), stdout)
	return d, stdout
}

func TestApplyPrintsItsPlanAndWhatItHasDoneAsTheSameJSON(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	_, newest, err := sqlschema.Version(t.Context(), db.Conn(t))
	require.NoError(t, err)
	file := write(t, "rowhook.yaml", `triggers:
  - name: stays
    table: public.orders
    on: {insert: true, manual: true}
    payload: {columns: [id]}
    webhook: {url: "http://u:hunter2@${HOST}/a", secret: hunter2-hunter2-hunter2, headers: {X-A: hunter2}}
  - {name: goes, table: public.orders, on: {manual: true}, webhook: {url: "http://localhost"}}
`)
	plan, _ := applyJSON(t, db, "-f", file, "--dry-run")
	require.Equal(t, file, plan.Configuration)
	require.True(t, plan.DryRun && plan.Pending)
	require.Zero(t, plan.Schema.From)
	require.Equal(t, newest, plan.Schema.To)
	require.Equal(t, map[string]any{"action": "create", "object": "schema", "name": "rowhook", "waiting_events": 0.0, "differences": []any{}}, plan.Changes[0])
	require.Contains(t, plan.Changes, map[string]any{
		"action": "create", "object": "capture_trigger", "name": "rowhook_stays_insert", "table": "public.orders", "trigger": "stays",
		"lock": "SHARE ROW EXCLUSIVE", "waiting_events": 0.0, "differences": []any{},
	})
	require.Len(t, plan.Warnings, 3)
	require.Equal(t, "triggers[0].webhook.url", plan.Warnings[0]["key"])

	done, _ := applyJSON(t, db, "-f", file)
	require.False(t, done.DryRun || done.Pending)
	done.DryRun, done.Pending = true, true
	require.Equal(t, plan, done)

	db.Exec(t, "select rowhook.emit('goes', '{}')")
	text, err := os.ReadFile(write(t, "rowhook.yaml", `triggers:
  - name: stays
    table: public.orders
    on: {insert: true}
    payload: {columns: [id]}
    retry: {limit: 3}
    concurrency: {each: 7, total: 9}
    order: row
    batch: {max: 5}
    rate: {limit: 50/s}
    breaker: off
    webhook: {url: "http://u:hunter3@${HOST}/a", secret: hunter3-hunter3-hunter3, headers: {X-B: hunter3}}
`))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	plan, raw := applyJSON(t, db, "-f", file, "--dry-run")
	require.NotContains(t, raw, "hunter")
	require.Contains(t, plan.Changes, map[string]any{"action": "remove", "object": "trigger", "name": "goes", "detail": "no longer configured", "waiting_events": 1.0, "differences": []any{}})
	require.Contains(t, plan.Changes, map[string]any{
		"action": "change", "object": "trigger", "name": "stays", "waiting_events": 0.0,
		"differences": []any{
			map[string]any{"key": "batch.bytes", "action": "create", "new": "1MiB"},
			map[string]any{"key": "batch.max", "action": "create", "new": 5.0},
			map[string]any{"key": "breaker", "action": "create", "new": "off"},
			map[string]any{"key": "concurrency", "action": "create", "new": 7.0},
			map[string]any{"key": "concurrency.total", "action": "create", "new": 9.0},
			map[string]any{"key": "on.manual", "action": "remove", "old": true},
			map[string]any{"key": "order", "action": "create", "new": "row"},
			map[string]any{"key": "rate.limit", "action": "create", "new": "50/s"},
			map[string]any{"key": "retry.limit", "action": "change", "old": 12.0, "new": 3.0},
			map[string]any{"key": "webhook.headers.X-A", "action": "remove", "secret": true},
			map[string]any{"key": "webhook.headers.X-B", "action": "create", "secret": true},
			map[string]any{"key": "webhook.secret", "action": "change", "secret": true},
			map[string]any{"key": "webhook.url", "action": "change", "old": "http://u:xxxxx@${HOST}/a", "new": "http://u:xxxxx@${HOST}/a"},
		},
	})
}

func TestApplyPrintsRightsAsJSON(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	role, _ := db.Role(t)
	plan, _ := applyJSON(t, db, "-f", ordersConfig(t, "http://localhost:1"), "--dry-run", "--grant-to", role)
	last := plan.Changes[len(plan.Changes)-1]
	require.Equal(t, "rights", last["object"])
	require.Equal(t, role, last["name"])
	require.Contains(t, last["rights"], "usage on schema rowhook")
	require.NotContains(t, last, "detail")
}

package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/sqlschema"
)

// manualConfig is a trigger of the table orders that takes manual events, beside one that does not.
func manualConfig(t testing.TB, url string) string {
	t.Helper()
	return write(t, "rowhook.yaml", `
triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true, manual: true}
    webhook: {url: "`+url+`/orders"}
    retry: {limit: 0}
  - name: order_deleted
    table: public.orders
    on: {delete: true}
    webhook: {url: "`+url+`/deleted"}
`)
}

// decode reads the JSON that a command printed.
func decode[T any](t testing.TB, text string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&v), text)
	return v
}

func TestAnOperatorSeesAndMendsAnOutageWithoutSQL(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s := &sink.Sink{Behaviour: sink.Behaviour{Fail: 1}} // the first attempt of each event
	url := serve(t, s)
	env := database(db.URL())
	file := manualConfig(t, url)
	run := start(t, env, "run", "-f", file)
	run.stderr.waitFor(t, "ready")
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := rowhook(t, env, args...)
		require.Zero(t, code, stderr)
		return stdout
	}

	db.Exec(t, "insert into orders select i, 1.10, E'\\x1b[2Jevil' from generate_series(1, 3) i")
	must("drain", "--timeout", "30s") // with a limit of 0 they are dead at once
	text := must("status")
	require.Regexp(t, `(?m)^TRIGGER +WAITING +IN FLIGHT +RETRYING +DEAD `, text)
	require.Regexp(t, `(?m)^order_changed +0 +0 +0 +3 `, text)
	require.Regexp(t, `(?m)^schema +version \d+$`, text)
	require.NotContains(t, text, "\x1b", "no colour where it is no terminal")
	status := decode[operate.Status](t, must("status", "--json"))
	require.Len(t, status.Triggers, 2)
	require.EqualValues(t, 3, status.Triggers[0].Dead)
	require.Len(t, status.Instances, 1)
	require.True(t, status.Instances[0].Alive)

	page := decode[operate.Page](t, must("events", "list", "--state", "dead", "--limit", "2", "--json"))
	require.Len(t, page.Events, 2)
	rest := decode[operate.Page](t, must("events", "list", "--state", "dead", "--cursor", page.Next, "--json"))
	require.Len(t, rest.Events, 1)
	require.Empty(t, rest.Next)
	shown := must("events", "show", page.Events[0].ID)
	require.Contains(t, shown, "nothing, until someone sends it again (rowhook redeliver "+page.Events[0].ID+")")
	require.Contains(t, shown, "POST "+url+"/orders")
	require.NotContains(t, shown, "\x1b", "nor what a row holds")
	detail := decode[operate.Detail](t, must("events", "show", page.Events[0].ID, "--json"))
	require.Len(t, detail.Log, 1)

	code, _, stderr := rowhook(t, env, "redeliver", "--trigger", "order_changed")
	require.Equal(t, 2, code, "nobody there to ask")
	require.Contains(t, stderr, "Redeliver 3 events (dead) of order_changed?")
	require.Equal(t, "1 event back in the queue.\n", must("redeliver", page.Events[0].ID), "an event by its id needs no question")
	out := decode[operate.Bulk](t, must("redeliver", "--trigger", "order_changed", "--yes", "--json"))
	require.EqualValues(t, 2, out.Changed)
	require.Equal(t, "No events are left.\n", must("drain", "--timeout", "30s"))
	require.Empty(t, decode[operate.Page](t, must("events", "list", "--state", "dead", "--json")).Events)
	require.Len(t, decode[operate.Page](t, must("events", "list", "--state", "delivered", "--json", "--payload", "new.id=2")).Events, 1)

	id := strings.TrimSpace(must("invoke", "order_changed", "--payload", "@"+write(t, "payload.json", `{"n": 1.10}`)))
	must("drain")
	deliveries := s.Deliveries()
	last := deliveries[len(deliveries)-1]
	require.Equal(t, []string{id, "MANUAL", `{"n": 1.10}`}, []string{last.ID, last.Op, string(last.New())})
	code, _, stderr = rowhook(t, env, "invoke", "order_deleted", "--payload", "1")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "manual: true")

	require.Equal(t, "Paused order_changed.\n", must("pause", "order_changed"))
	db.Exec(t, "insert into orders values (4, 1, 'x')")
	code, _, stderr = rowhook(t, env, "drain", "order_changed", "--timeout", "100ms")
	require.Equal(t, 1, code)
	require.Regexp(t, `order_changed: \d waiting, \d in flight, 0 to be retried.* \(paused\)`, stderr)
	require.Equal(t, "Resumed order_changed.\n", must("resume", "--all"))
	must("drain")
	require.Contains(t, must("backfill", "order_changed", "--where", "id <= 2", "--yes"), "4 rows of order_changed read, 2 events recorded")
	must("drain")
	require.Len(t, decode[operate.Page](t, must("events", "list", "--payload", "$.session_variables.rowhook_backfill", "--json")).Events, 2)
	code, _, stderr = rowhook(t, env, "replay", "order_changed", "--from", "1h")
	require.Equal(t, 2, code, "nobody there to ask")
	require.Contains(t, stderr, "Send 3 events of order_changed, recorded from ")
	require.Contains(t, stderr, "The archive reaches back to ")
	replayed := decode[operate.ReplayStatus](t, must("replay", "order_changed", "--from", "1h", "--op", "insert", "--yes", "--json"))
	require.EqualValues(t, 3, replayed.Replayed)
	must("drain")
	require.Contains(t, must("replay", "order_changed", "--from", "1h", "--as-new", "--yes"), "3 events of order_changed back in the queue (replay 2).")
	must("drain")
	code, stdout, stderr := rowhook(t, env, "replay", "order_changed", "--from", "2h", "--to", "1h", "--yes")
	require.Equal(t, []any{0, ""}, []any{code, stdout})
	require.Contains(t, stderr, "No events match.")
	away := []string{"replay", "order_changed", "--from", "1h", "--url", url + "/elsewhere", "--yes"}
	code, stdout, _ = rowhook(t, env, away...) // the first attempt there
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "with the trigger's headers and signature: 0 delivered, 3 failed.\n  ")
	require.Contains(t, must(away...), "3 delivered, 0 failed.")
	must("invoke", "order_changed", "--payload", "1", "--session", "@"+write(t, "session.json", `{"x-hasura-user-id": "7"}`))
	must("drain")
	deliveries = s.Deliveries()
	require.Contains(t, string(deliveries[len(deliveries)-1].Body), `"session_variables":{"x-hasura-user-id": "7"}`)
	for _, wrong := range [][]string{
		{"invoke", "order_changed", "--payload", "1", "--session", "[7]"}, {"invoke", "order_changed", "--payload", "-", "--session", "-"},
		{"replay", "order_changed"}, {"replay", "order_changed", "--from", "x"}, {"replay", "order_changed", "--continue", "--from", "1h"},
		{"replay", "order_changed", "--from", "1h", "--after", "x"}, {"replay", "order_changed", "--from", "1h", "--url", url, "--restart"},
		{"events", "list", "--state", "lost"}, {"events", "list", "--since", "yesterday"}, {"events", "list", "--limit", "1001"}, {"events", "show", "7"},
		{"redeliver"}, {"discard", "--state", "delivered", "--yes"}, {"pause"}, {"resume", "--all", "x"}, {"invoke", "order_changed", "--payload", "{"}, {"migrate", "--to", "99"},
	} {
		code, _, stderr := rowhook(t, env, wrong...)
		require.Equal(t, 2, code, "%s: %s", wrong, stderr)
	}
}

func TestTailPrintsEventsAsTheyCome(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	_, url := receiver(t)
	run := start(t, database(db.URL()), "run", "-f", manualConfig(t, url))
	run.stderr.waitFor(t, "ready")
	tail := start(t, database(db.URL()), "events", "tail", "--json", "--since", "1h")
	db.Exec(t, "insert into orders values (1, 1, 'x')")
	tail.stdout.waitFor(t, `"trigger":"order_changed".*"state":"delivered"`)
	tail.signal(t, os.Interrupt)
	require.Zero(t, tail.exit(t))
}

func TestTailSaysThatItsConnectionWasLost(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	execOn(t, server.URL("postgres"), orders)
	code, _, stderr := rowhook(t, database(server.URL("postgres")), "apply", "-f", ordersConfig(t, "http://127.0.0.1:1"))
	require.Zero(t, code, stderr)
	tail := start(t, database(server.URL("postgres")), "events", "tail", "--since", "1h")
	execOn(t, server.URL("postgres"), "insert into orders values (1, 1, 'x')")
	tail.stdout.waitFor(t, "waiting")
	require.NoError(t, server.Halt(t.Context(), localpg.Immediate))
	require.Equal(t, 1, tail.exit(t))
	require.Regexp(t, "(repeat the command|try again) when (the server|it) is back", tail.stderr.String())
}

func TestHangupAppliesTheFileAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s, url := receiver(t)
	file := manualConfig(t, url)
	p := start(t, database(db.URL()), "run", "-f", file)
	p.stderr.waitFor(t, "ready")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte("triggers: [}"), 0o600))
	p.signal(t, syscall.SIGHUP)
	p.stderr.waitFor(t, "configuration not applied")
	require.NoError(t, os.WriteFile(file, regexp.MustCompile(`/orders"`).ReplaceAll(text, []byte(`/elsewhere"`)), 0o600))
	p.signal(t, syscall.SIGHUP)
	p.stderr.waitFor(t, "configuration loaded")
	db.Exec(t, "insert into orders values (1, 1, 'x')")
	require.Equal(t, "/elsewhere", arrived(t, s, 1)[0].Path)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))

	bare := start(t, database(db.URL()), "run")
	bare.stderr.waitFor(t, "ready")
	bare.signal(t, syscall.SIGHUP)
	bare.stderr.waitFor(t, "-f is not set")
}

func TestMigrateGoesDownAndUp(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	env := database(db.URL())
	code, stdout, _ := rowhook(t, env, "migrate")
	require.Zero(t, code)
	require.Contains(t, stdout, "Nothing to do")
	code, _, stderr := rowhook(t, env, "migrate", "--to", "1")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "--yes")
	code, stdout, _ = rowhook(t, env, "migrate", "--to", "1", "--yes")
	require.Zero(t, code)
	require.Contains(t, stdout, "is at version 1")
	code, _, stderr = rowhook(t, env, "status")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `run "rowhook migrate"`)
	code, _, _ = rowhook(t, env, "migrate")
	require.Zero(t, code)
	code, _, stderr = rowhook(t, env, "migrate", "--to", fmt.Sprint(sqlschema.OldestSchema), "--yes")
	require.Zero(t, code, stderr)
	run := start(t, env, "run")
	run.stderr.waitFor(t, "ready")
	require.Contains(t, run.stderr.String(), "has another version than this program; the two are compatible")
	code, _, _ = rowhook(t, env, "migrate")
	require.Zero(t, code)
	require.NotZero(t, schemaVersion(t, db))
}

func TestStatusWorksOnTheSchemaOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	env := database(db.URL())
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := rowhook(t, env, args...)
		require.Zero(t, code, stderr)
		return stdout
	}
	must("apply", "-f", manualConfig(t, "http://127.0.0.1:1"))
	must("pause", "--all", "--reason", "a migration")
	require.Contains(t, strings.Join(strings.Fields(must("status")), " "), ", role ", "wherever the line is broken")
	require.Contains(t, must("audit"), "reason: a migration")
	before := fmt.Sprint(sqlschema.OldestSchema)
	must("migrate", "--to", before, "--yes")
	require.Contains(t, must("status", "--tables"), "! the schema rowhook is at version "+before)
	must("migrate", "--to", fmt.Sprint(sqlschema.OldestSchema-1), "--yes") // too old
	code, _, stderr := rowhook(t, env, "audit")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "rowhook migrate")
}

func TestApplyTellsWhatIsWrongInTheFileAndInTheDatabaseAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`triggers:
  - {name: "bad name", table: nowhere, on: {insert: true}, webhook: {url: "http://127.0.0.1:1"}}
  - {name: other, table: orders, on: {update: {columns: [nocolumn]}}, webhook: {url: "ftp://x"}}
`), 0o600))
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", file)
	require.Equal(t, 2, code)
	for _, want := range []string{"bad name", "nowhere", "nocolumn", "ftp"} {
		require.Contains(t, stderr, want)
	}
}

// TestCommandsSilenceABellThatRingsForNobody kills the dispatcher that asked for rings.
func TestCommandsSilenceABellThatRingsForNobody(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	_, url := receiver(t)
	env := database(db.URL())
	conn := db.Conn(t)
	bell := func() (value int64) {
		require.NoError(t, conn.QueryRow(t.Context(), "select coalesce(pg_sequence_last_value('rowhook.doorbell'), 0)").Scan(&value))
		return value
	}
	status := func() operate.Status {
		code, stdout, stderr := rowhook(t, env, "status", "--json")
		require.Zero(t, code, stderr)
		return decode[operate.Status](t, stdout)
	}
	run := start(t, env, "run", "-f", manualConfig(t, url), "--http", "off")
	run.stderr.waitFor(t, "ready")
	require.Eventually(t, func() bool { return bell() == queue.Ringing }, patience, 5*time.Millisecond)
	require.Equal(t, "ringing", status().Doorbell.State, "somebody listens")
	require.EqualValues(t, queue.Ringing, bell())
	run.signal(t, syscall.SIGKILL)
	run.exit(t)

	require.Eventually(t, func() bool { return status().Doorbell == (operate.Doorbell{State: "silent"}) }, patience, 50*time.Millisecond, "as soon as the server knows that it is gone")
	require.EqualValues(t, queue.Nobody, bell())
}

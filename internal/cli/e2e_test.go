package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/sqlschema"
)

// binaryVariable tells the tests where TestMain built the program.
const binaryVariable = "ROWHOOK_TEST_BINARY"

// patience is how long a test waits for what should come at once.
const patience = 60 * time.Second

// longest is how long a process may live.
const longest = 10 * patience

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "rowhook-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	if err := os.Chmod(dir, 0o755); err == nil {
		code = buildAndRun(m, filepath.Join(dir, "rowhook"))
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func buildAndRun(m *testing.M, binary string) int {
	build := exec.Command("go", append(append([]string{"build"}, raceFlags()...), "-o", binary, "github.com/rowhook/rowhook")...)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	if err := os.Setenv(binaryVariable, binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return pgtest.Main(m)
}

// process is a running rowhook.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *output
}

// output collects what a process writes.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// waitFor returns the groups of a regular expression once the output matches it.
func (o *output) waitFor(t testing.TB, pattern string) []string {
	t.Helper()
	re, deadline := regexp.MustCompile(pattern), time.After(patience)
	for {
		o.mu.Lock()
		text, changed := o.text.String(), o.changed
		o.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-changed:
		case <-deadline:
			require.FailNow(t, "the output never matched "+pattern, text)
		}
	}
}

// start runs the program with nothing in its environment but PATH and env.
func start(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	p := prepare(t, env, args...)
	require.NoError(t, p.cmd.Start())
	return p
}

// prepare makes the process that start starts.
func prepare(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	// One that runs beside its test lives as long as that. The bound is for one that hangs.
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	t.Cleanup(cancel)
	p := &process{
		cmd:    exec.CommandContext(ctx, os.Getenv(binaryVariable), args...),
		stdout: &output{changed: make(chan struct{})},
		stderr: &output{changed: make(chan struct{})},
	}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	p.cmd.Dir = t.TempDir()
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	t.Cleanup(func() {
		if p.cmd.Process != nil && p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("rowhook %s was ended after %s", strings.Join(args, " "), longest)
		}
		if t.Failed() {
			t.Logf("rowhook %s\n%s%s", strings.Join(args, " "), p.stdout, p.stderr)
		}
	})
	return p
}

// exit waits for the end of the program and returns its exit code.
func (p *process) exit(t testing.TB) int {
	t.Helper()
	if err := p.cmd.Wait(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(t testing.TB, s os.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(s))
}

// rowhookReading runs the program to its end, with this text as its standard input.
func rowhookReading(t testing.TB, input string, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := prepare(t, env, args...)
	p.cmd.Stdin = strings.NewReader(input)
	require.NoError(t, p.cmd.Start())
	code = p.exit(t)
	return code, p.stdout.String(), p.stderr.String()
}

// rowhook runs the program to its end.
func rowhook(t testing.TB, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := start(t, env, args...)
	code = p.exit(t)
	return code, p.stdout.String(), p.stderr.String()
}

func database(url string) []string { return []string{"DATABASE_URL=" + url} }

// receiver is a sink on a loopback port.
func receiver(t testing.TB) (*sink.Sink, string) {
	t.Helper()
	s := &sink.Sink{}
	return s, serve(t, s)
}

// serve serves a receiver, whose fields nobody may set from now on, and returns its URL.
func serve(t testing.TB, s *sink.Sink) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

func arrived(t testing.TB, s *sink.Sink, events int) []sink.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.Wait(ctx, func(c sink.Counts) bool { return c.Events >= events }))
	return s.Deliveries()
}

// write makes a file in the test's directory.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const orders = "create table orders (id bigint primary key, amount numeric, note text)"

// ordersConfig captures everything of the table orders.
func ordersConfig(t testing.TB, url string) string {
	t.Helper()
	return write(t, "rowhook.yaml", `
triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true, update: true, delete: true}
    webhook: {url: "`+url+`/orders"}
    retry: {limit: 2, interval: 100ms}
`)
}

func TestRunAppliesTheFileAndDeliversUntilStopped(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s, url := receiver(t)
	p := start(t, database(db.URL()), "run", "-f", ordersConfig(t, url), "--poll-interval", "1h")
	p.stderr.waitFor(t, "ready")

	db.Exec(t, "insert into orders values (1, 1.10, 'a'), (2, 123456789012345678901234567890.5, 'b')")
	db.Exec(t, "update orders set note = 'c' where id = 1")
	db.Exec(t, "delete from orders where id = 2")
	var changes []string
	for _, d := range arrived(t, s, 4) {
		require.Equal(t, "/orders", d.Path)
		changes = append(changes, fmt.Sprintf("%s %s %s", d.Op, d.Old(), d.New()))
	}
	require.ElementsMatch(t, []string{
		`INSERT  {"id":1,"amount":1.10,"note":"a"}`,
		`INSERT  {"id":2,"amount":123456789012345678901234567890.5,"note":"b"}`,
		`UPDATE {"id":1,"amount":1.10,"note":"a"} {"id":1,"amount":1.10,"note":"c"}`,
		`DELETE {"id":2,"amount":123456789012345678901234567890.5,"note":"b"} `,
	}, changes)

	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	var left int
	require.NoError(t, db.Conn(t).QueryRow(t.Context(), "select count(*) from rowhook.event_log").Scan(&left))
	require.Zero(t, left)
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s := &sink.Sink{Behaviour: sink.Behaviour{Hang: true}}
	url := serve(t, s)
	p := start(t, database(db.URL()), "run", "-f", ordersConfig(t, url), "--grace-period", "1h")
	p.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)
	p.signal(t, syscall.SIGTERM)
	p.stderr.waitFor(t, "stopping")
	again := time.NewTicker(50 * time.Millisecond) // too soon after the first it counts as the same
	defer again.Stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.cmd.Wait() // its exit code is looked at below
	}()
	for running := true; running; {
		select {
		case <-again.C:
			_ = p.cmd.Process.Signal(syscall.SIGINT) // it may have ended
		case <-ended:
			running = false
		}
	}
	require.Equal(t, 1, p.cmd.ProcessState.ExitCode())
	require.Contains(t, p.stderr.String(), "stopped at once by a second signal")
}

func TestJSONLogsAreObjectsAndTellOfEachFailedAttempt(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s := &sink.Sink{Behaviour: sink.Behaviour{Fail: 1}}
	url := serve(t, s)
	p := start(t, append(database(db.URL()), "ROWHOOK_LOG_FORMAT=json"), "run", "-f", ordersConfig(t, url))
	p.stderr.waitFor(t, `"ready"`)
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.Wait(ctx, func(c sink.Counts) bool { return c.Accepted == 1 }))
	p.signal(t, os.Interrupt)
	require.Zero(t, p.exit(t))

	failed := 0
	for line := bufio.NewScanner(strings.NewReader(p.stderr.String())); line.Scan(); {
		var entry map[string]any
		require.NoError(t, json.Unmarshal(line.Bytes(), &entry), line.Text())
		for _, key := range []string{"time", "level", "msg"} {
			require.Contains(t, entry, key)
		}
		if entry["trigger"] == "order_changed" && entry["level"] == "WARN" {
			failed++
		}
	}
	require.Equal(t, 1, failed, "lines about failed attempts")
}

func TestApplyPlansThenAppliesThenHasNothingToDo(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	file := ordersConfig(t, "http://localhost:1")
	env := append(database(db.URL()), "ROWHOOK_FILE="+file)

	code, stdout, stderr := rowhook(t, env, "apply", "--dry-run")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "+ schema rowhook")
	require.Contains(t, stdout, "+ trigger order_changed")
	require.Contains(t, stdout, "Nothing was changed")
	require.Zero(t, schemaVersion(t, db))

	code, stdout, stderr = rowhook(t, env, "apply")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "+ trigger order_changed")
	require.Contains(t, stdout, "Applied "+file)
	require.NotZero(t, schemaVersion(t, db))

	for _, args := range [][]string{{"apply"}, {"apply", "--dry-run"}} {
		code, stdout, stderr = rowhook(t, env, args...)
		require.Zero(t, code, stderr)
		require.Regexp(t, "^Nothing to do: ", stdout)
	}
}

func TestApplyTakesADirectoryAndStandardInput(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	trigger := func(name, more string) string {
		return "  - {name: " + name + ", table: public.orders, on: {insert: true}" + more + "}\n"
	}
	all := "defaults: {webhook: {url: http://localhost:1}, payload: {columns: [id]}}\ntriggers:\n" + trigger("one", "") + trigger("two", "")
	code, stdout, stderr := rowhookReading(t, all, database(db.URL()), "apply", "-f", "-")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "Applied <stdin> to the database")

	dir := t.TempDir()
	put := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	put("b.yaml", "defaults: {webhook: {url: http://localhost:1}}\ntriggers:\n"+trigger("two", ", payload: {columns: [id]}"))
	put("a.yml", "triggers:\n"+trigger("one", ", payload: {columns: [id]}"))
	code, stdout, stderr = rowhook(t, database(db.URL()), "apply", "-f", dir)
	require.Zero(t, code, stderr)
	require.Regexp(t, "^Nothing to do: ", stdout, "the database knows nothing of defaults and files")

	put("b.yaml", "defaults: {webhook: {url: http://localhost:1}, payload: {columns: [id, idd]}}\ntriggers:\n"+trigger("two", ""))
	put("a.yml", "triggers:\n"+trigger("one", ", payload: {columns: [id]}")+trigger("three", ", when: new.x > 1"))
	code, _, stderr = rowhook(t, database(db.URL()), "apply", "-f", dir)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, filepath.Join(dir, "a.yml")+":3:67: triggers[1].when: ")
	require.Contains(t, stderr, filepath.Join(dir, "b.yaml")+`:1:72: defaults.payload.columns[1]: for the triggers "three" and "two": the table public.orders has no column "idd"`)
}

func schemaVersion(t testing.TB, db *pgtest.DB) int32 {
	t.Helper()
	have, _, err := sqlschema.Version(t.Context(), db.Conn(t))
	require.NoError(t, err)
	return have
}

func TestApplyPointsToTheLineThatTheDatabaseRefuses(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	file := write(t, "rowhook.yaml", `triggers:
  - name: one
    table: public.nowhere
    on: {insert: true}
    webhook: {url: "http://localhost:1"}
  - name: two
    table: public.orders
    on:
      update: {columns: [amounts]}
    webhook: {url: "http://localhost:1"}
`)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", file)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, file+":3:12: triggers[0].table: ")
	require.Contains(t, stderr, file+":9:26: triggers[1].on.update.columns[0]: ")
	require.Contains(t, stderr, "amount", "the remedy names the column that is meant")
}

func TestUninstallAsksAndRemovesEverything(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", ordersConfig(t, "http://localhost:1"))
	require.Zero(t, code, stderr)
	db.Exec(t, "insert into orders values (1, 1, 'a')")

	code, stdout, stderr := rowhook(t, database(db.URL()), "uninstall")
	require.Equal(t, 2, code)
	require.Contains(t, stdout, "1 event that waits")
	require.Contains(t, stderr, "--yes")
	require.NotZero(t, schemaVersion(t, db))

	code, stdout, stderr = rowhook(t, database(db.URL()), "uninstall", "--yes")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "Removed.")
	var rest int
	require.NoError(t, db.Conn(t).QueryRow(t.Context(), `
select (select count(*) from pg_namespace where nspname = 'rowhook') + (select count(*) from pg_trigger where not tgisinternal)
     + (select count(*) from pg_proc where proname like '%rowhook%')`).Scan(&rest))
	require.Zero(t, rest)
	db.Exec(t, "insert into orders values (2, 1, 'a')")

	code, stdout, _ = rowhook(t, database(db.URL()), "uninstall", "--yes")
	require.Zero(t, code)
	require.Contains(t, stdout, "Nothing to do")
}

func TestRunWaitsForADatabaseThatStartsLater(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	require.NoError(t, server.Halt(t.Context(), localpg.Fast))
	p := start(t, database(server.URL("postgres")), "run")
	p.stderr.waitFor(t, "waiting for Postgres.*refused")
	require.NoError(t, server.Start(t.Context()))
	require.Equal(t, 1, p.exit(t), "it gets through, and finds no schema")
	require.Contains(t, p.stderr.String(), "has no schema rowhook")
}

func TestRunIsStoppedWhileItWaitsForADatabase(t *testing.T) {
	t.Parallel()
	p := start(t, database("postgres://u:hunter2@"+closedPort(t)+"/d"), "run")
	p.stderr.waitFor(t, "waiting for Postgres")
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

func TestStandbyIsRefused(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, discard()))
	require.NoError(t, conn.Close(t.Context()))
	require.NoError(t, server.Halt(t.Context(), localpg.Fast))
	require.NoError(t, os.WriteFile(filepath.Join(server.DataDir(), "standby.signal"), nil, 0o644))
	require.NoError(t, server.Start(t.Context()))
	file := write(t, "rowhook.yaml", "triggers: []")
	for _, args := range [][]string{{"run"}, {"run", "-f", file}, {"apply", "-f", file}} {
		code, _, stderr := rowhook(t, database(server.URL("postgres")), args...)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "in recovery (a standby)", "rowhook %s", args)
		require.Contains(t, stderr, "connect to the primary")
	}
}

func startServer(t testing.TB) *localpg.Server {
	t.Helper()
	server, err := localpg.Start(t.Context(), localpg.Config{BinDir: os.Getenv(pgtest.EnvBinDir)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background(), localpg.Immediate)) })
	return server
}

// closedPort is an address at which nothing listens.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func TestDatabaseProblemsEndInMessagesToActOn(t *testing.T) {
	t.Parallel()
	ready, empty, newer, readOnly := pgtest.New(t), pgtest.NewEmpty(t), pgtest.New(t), pgtest.New(t)
	newer.Exec(t, "update rowhook.schema_version set version = 999; update rowhook.setting set value = '999' where name = 'compatible'")
	readOnly.Exec(t, "alter database "+name(t, readOnly.URL())+" set default_transaction_read_only = on")
	role, password := "stranger_"+name(t, ready.URL()), "hunter2"
	ready.Exec(t, "create role "+role+" login password '"+password+"'")
	crowded := "crowded_" + name(t, ready.URL())
	ready.Exec(t, "create role "+crowded+" login password '"+password+"' connection limit 0")
	admin, err := pgx.Connect(t.Context(), ready.URL())
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "drop role "+role+", "+crowded)
		require.NoError(t, err)
		require.NoError(t, admin.Close(context.Background()))
	})
	nobody := url.UserPassword("nobody_"+role, password)
	with := func(raw string, change func(*url.URL)) string {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		change(u)
		return u.String()
	}
	refused := closedPort(t)
	nothing := write(t, "rowhook.yaml", "triggers: []")

	for _, c := range []struct {
		name, url string
		args      []string
		code      int
		want      []string
	}{
		{"nothing listens", "postgres://u:hunter2@" + refused + "/d", []string{"run"}, 1, []string{refused, `user "u"`, `database "d"`, "connection refused", "start Postgres", "DATABASE_URL"}},
		{"no such host", "postgres://u:hunter2@nowhere.invalid/d", []string{"apply", "-f", nothing}, 1, []string{"nowhere.invalid", "DNS"}},
		{"no such socket", "host=/nowhere user=u dbname=d", []string{"run"}, 1, []string{"/nowhere/.s.PGSQL.5432", "no such socket"}},
		{"wrong password", with(ready.URL(), func(u *url.URL) { u.User = url.UserPassword(role, "hunter3") }), []string{"run"}, 1, []string{"wrong password", "PGPASSWORD"}},
		{"no such role", with(ready.URL(), func(u *url.URL) { u.User = nobody }), []string{"run"}, 1, []string{"nobody_", "no such user"}},
		{"no such database", with(ready.URL(), func(u *url.URL) { u.Path = "/nowhere" }), []string{"uninstall"}, 1, []string{"no such database", "createdb"}},
		{"TLS where there is none", with(ready.URL(), func(u *url.URL) { u.RawQuery = "sslmode=require" }), []string{"run"}, 1, []string{"does not support TLS", "sslmode=disable"}},
		{"too many connections", with(ready.URL(), func(u *url.URL) { u.User = url.UserPassword(crowded, password) }), []string{"run"}, 1, []string{"no free connection", "max_connections"}},
		{"schema missing", empty.URL(), []string{"run"}, 1, []string{"no schema rowhook", "rowhook apply", "-f rowhook.yaml"}},
		{"schema newer, run", newer.URL(), []string{"run"}, 1, []string{"version 999", "newer Rowhook"}},
		{"schema newer, apply", newer.URL(), []string{"apply", "-f", nothing}, 1, []string{"version 999", "newer Rowhook"}},
		{"read-only, run", readOnly.URL(), []string{"run"}, 1, []string{"default_transaction_read_only", "turn it off"}},
		{"read-only, apply", readOnly.URL(), []string{"apply", "-f", nothing}, 1, []string{"default_transaction_read_only", "turn it off"}},
		{"no privilege, run", with(ready.URL(), func(u *url.URL) { u.User = url.UserPassword(role, password) }), []string{"run"}, 1, []string{"lacks rights that a dispatcher needs (usage on schema rowhook", "rowhook apply --grant-to", "role that installed Rowhook"}},
		{"no privilege, apply", with(empty.URL(), func(u *url.URL) { u.User = url.UserPassword(role, password) }), []string{"apply", "-f", nothing}, 1, []string{"may not create the schema rowhook", "grant create on database"}},
		{"no URL at all", "postgres://u:hunter2@h:99999/d", []string{"run"}, 2, []string{"connection string", "DATABASE_URL", "port"}},
		{"password that needs encoding", "postgres://u:hunter2 %zz@h/d", []string{"run"}, 2, []string{"connection string", "percent-encoded"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, _, stderr := rowhook(t, append(database(c.url), "ROWHOOK_CONNECT_TIMEOUT=200ms"), c.args...)
			require.Equal(t, c.code, code, stderr)
			for _, want := range c.want {
				require.Contains(t, stderr, want)
			}
			require.NotContains(t, stderr, "hunter")
		})
	}
}

// name is the database's name.
func name(t testing.TB, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return strings.TrimPrefix(u.Path, "/")
}

func TestWrongUsageNamesTheFlagOrVariableAndWhatItTakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args, env []string
		want      []string
	}{
		{[]string{"deliver"}, nil, []string{`unknown command "rowhook deliver"`, "See rowhook --help"}},
		{[]string{"stats"}, nil, []string{`unknown command "rowhook stats"; did you mean "rowhook status"?`}},
		{[]string{"events", "lst"}, nil, []string{`unknown command "rowhook events lst"; did you mean "rowhook events list"?`}},
		{[]string{"run", "now"}, nil, []string{`unexpected argument "now": write rowhook run`, "See rowhook run --help"}},
		{[]string{"apply", "rowhook.yaml"}, nil, []string{`unexpected argument "rowhook.yaml"`, "the value of -f"}},
		{[]string{"events", "show"}, nil, []string{"missing argument: write rowhook events show ID"}},
		{[]string{"backfill", "a", "b"}, nil, []string{`unexpected argument "b": write rowhook backfill TRIGGER [flags]`}},
		{[]string{"invoke", "a"}, nil, []string{"missing --payload"}},
		{[]string{"events", "list", "--limit", "0"}, nil, []string{"--limit must be 1 to 1000", "got 0"}},
		{[]string{"events", "list", "--with-payload"}, nil, []string{"--with-payload needs --json"}},
		{[]string{"run", "--pol-interval", "1s"}, nil, []string{"unknown flag: --pol-interval", "rowhook run --help"}},
		{[]string{"run", "--poll-interval", "5"}, nil, []string{"--poll-interval", "no unit", "250ms"}},
		{[]string{"run", "--poll-interval", "0"}, nil, []string{"--poll-interval", "too short"}},
		{[]string{"run", "--batch-size", "0"}, nil, []string{"--batch-size", "1 to 10000"}},
		{[]string{"run", "--payload-memory", "12"}, nil, []string{"--payload-memory", "64MiB"}},
		{[]string{"run", "--deny-addresses", "office"}, nil, []string{"--deny-addresses", "loopback"}},
		{[]string{"run", "--listen-url", "postgres://u:hunter2@h:x/d"}, nil, []string{"ROWHOOK_LISTEN_URL"}},
		{[]string{"run", "--log-format", "xml"}, nil, []string{"--log-format", "auto, text, json"}},
		{[]string{"run"}, []string{"ROWHOOK_LOG_LEVEL=loud"}, []string{"ROWHOOK_LOG_LEVEL", "debug, info, warn, error"}},
		{[]string{"run"}, []string{"ROWHOOK_NO_LISTEN=perhaps", "ROWHOOK_CONCURRENCY=many"}, []string{"ROWHOOK_NO_LISTEN", "true or false", "ROWHOOK_CONCURRENCY", "whole number"}},
		{[]string{"check", "a.yaml", "-f", "b.yaml"}, nil, []string{"both as arguments and by -f"}},
		{[]string{"init", "orders"}, nil, []string{`unexpected argument "orders": write rowhook init`}},
		{[]string{"init", "--table"}, nil, []string{"flag needs an argument: --table", "rowhook init --help"}},
		{[]string{"check", "-", "-"}, nil, []string{"- is given twice"}},
		{[]string{"check"}, nil, []string{"rowhook.yaml: the file does not exist"}},
		{[]string{"check", "--json=x"}, nil, []string{"--json", "rowhook check --help"}},
		{[]string{"run", "-f", "-"}, nil, []string{"SIGHUP", "give -f a file or a directory"}},
		{[]string{"run", "-f", "nowhere.yaml"}, nil, []string{"nowhere.yaml: the file does not exist"}},
		{[]string{"apply", "--exit-code"}, nil, []string{"add --dry-run, or leave out --exit-code"}},
		{[]string{"apply"}, nil, []string{"rowhook.yaml: the file does not exist"}},
		{[]string{"sink", "--listen", "here"}, nil, []string{`"here"`, "127.0.0.1:8080"}},
		{[]string{"sink", "--failure", "200"}, nil, []string{"--failure", "hang, close, or redirect:URL"}},
		{[]string{"sink", "--fail-rate", "2"}, nil, []string{"--fail-rate", "0 to 1"}},
		{[]string{"sink", "--retry-after", "500ms"}, nil, []string{"--retry-after", "whole number of seconds"}},
		{[]string{"dev", "--once", "-f", "rowhook.yaml"}, nil, []string{"--once", "-f"}},
		{[]string{"dev", "--init", "schema.sql"}, nil, []string{"--init needs -f"}},
		{[]string{"dev", "--sink"}, nil, []string{"--sink needs -f"}},
		{[]string{"dev", "--database-url", "postgres://localhost"}, nil, []string{"private Postgres", "rowhook run"}},
		{[]string{"completion", "tcsh"}, nil, []string{"bash, zsh, fish or powershell"}},
	} {
		t.Run(strings.Join(append(c.args, c.env...), " "), func(t *testing.T) {
			t.Parallel()
			code, _, stderr := rowhook(t, append(database("postgres://"+closedPort(t)), c.env...), c.args...)
			require.Equal(t, 2, code, stderr)
			for _, want := range c.want {
				require.Contains(t, stderr, want)
			}
			require.NotContains(t, stderr, "hunter2")
		})
	}
}

func TestConfigurationErrorsAreAllPrintedWithTheirPlaces(t *testing.T) {
	t.Parallel()
	file := write(t, "rowhook.yaml", "triggers:\n  - name: a b\n    table: t\n    onn: {insert: true}\n    webhook: {url: \"ftp://x\"}\n")
	code, _, stderr := rowhook(t, database("postgres://"+closedPort(t)), "run", "-f", file)
	require.Equal(t, 2, code)
	for _, place := range []string{":2:", ":4:", ":5:"} {
		require.Contains(t, stderr, file+place)
	}
}

func TestMisspelledVariableIsPointedOut(t *testing.T) {
	t.Parallel()
	env := append(database("postgres://"+closedPort(t)), "ROWHOOK_POL_INTERVAL=1s", "ROWHOOK_OF_SOMEONE_ELSE=1", "ROWHOOK_CONNECT_TIMEOUT=0")
	_, _, stderr := rowhook(t, env, "run")
	require.Contains(t, stderr, "variable=ROWHOOK_POL_INTERVAL nearest=ROWHOOK_POLL_INTERVAL")
	require.NotContains(t, stderr, "SOMEONE_ELSE")
}

func TestFlagWinsOverItsVariable(t *testing.T) {
	t.Parallel()
	one, two := closedPort(t), closedPort(t)
	env := append(database("postgres://"+one), "ROWHOOK_CONNECT_TIMEOUT=1h")
	code, _, stderr := rowhook(t, env, "run", "--connect-timeout", "0", "--database-url", "postgres://"+two)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, two)
	require.Contains(t, stderr, "--database-url")
	require.NotContains(t, stderr, one)
}

func TestSinkReceivesAndAnswersItsHealthcheck(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "sink", "--listen", "127.0.0.1:0")
	at := p.stderr.waitFor(t, `receiving at=(http://\S+)`)[1]
	code, _, stderr := rowhook(t, nil, "healthcheck", at+"/healthz")
	require.Zero(t, code, stderr)
	code, _, stderr = rowhook(t, nil, "healthcheck", at+"/nowhere")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "404")

	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	// The default address may be that of another test's dispatcher.
	env := append(database(db.URL()), "ROWHOOK_HTTP="+closedPort(t))
	run := start(t, env, "run", "-f", ordersConfig(t, at))
	run.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	p.stdout.waitFor(t, `INSERT  public\.orders  order_changed`)

	code, _, stderr = rowhook(t, env, "healthcheck")
	require.Zero(t, code, stderr)
	run.signal(t, syscall.SIGTERM)
	require.Zero(t, run.exit(t))
	code, _, stderr = rowhook(t, env, "healthcheck")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no dispatcher")
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

func TestDevOnceShowsThreeDeliveries(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := rowhook(t, postgresBin(), "dev", "--once")
	require.Zero(t, code, stderr)
	require.Equal(t, 3, strings.Count(stdout, "the body is as expected"), stdout)
}

// postgresBin has dev use the programs that the tests use.
func postgresBin() []string { return []string{"ROWHOOK_POSTGRES_BIN=" + os.Getenv(pgtest.EnvBinDir)} }

func TestDevShowsWhatArrivesAndKeepsItsData(t *testing.T) {
	t.Parallel()
	data := dataDir(t)
	p := start(t, postgresBin(), "dev", "--data", data)
	first := p.stdout.waitFor(t, `psql '(postgres://[^']+)'`)[1]
	p.stdout.waitFor(t, "Ctrl-C")
	execOn(t, first, "insert into orders (customer, amount) values ('Ada', 12.50)")
	p.stdout.waitFor(t, `INSERT  public\.orders  order_changed .* ms  \{"id":1,"customer":"Ada","amount":12\.50`)
	p.signal(t, os.Interrupt)
	require.Zero(t, p.exit(t))
	require.Contains(t, p.stdout.String(), "The data is kept in "+data)
	_, err := pgx.Connect(t.Context(), first)
	require.Error(t, err, "Postgres is stopped")

	p = start(t, postgresBin(), "dev", "--data", data)
	again := p.stdout.waitFor(t, `psql '(postgres://[^']+)'`)[1]
	p.stdout.waitFor(t, "Ctrl-C")
	execOn(t, again, "delete from orders")
	p.stdout.waitFor(t, `DELETE  public\.orders`)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

// dataDir is a path that another user, to whom Postgres falls back from root, can reach.
func dataDir(t testing.TB) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "rowhook-dev-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(parent)) })
	require.NoError(t, os.Chmod(parent, 0o777))
	return filepath.Join(parent, "data")
}

func execOn(t testing.TB, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

func TestDevAppliesAConfigurationToTablesOfTheInitFile(t *testing.T) {
	t.Parallel()
	file := ordersConfig(t, "http://${NOT_SET_HERE}")
	code, _, stderr := rowhook(t, postgresBin(), "dev", "-f", file)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "public.orders")
	require.Contains(t, stderr, "--init")

	broken := write(t, "schema.sql", "create table a (id int);\ncreate tabel b (id int);\n")
	code, _, stderr = rowhook(t, postgresBin(), "dev", "-f", file, "--init", broken)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, broken+":2: ")

	p := start(t, postgresBin(), "dev", "-f", file, "--init", write(t, "schema.sql", orders), "--sink")
	url := p.stdout.waitFor(t, `psql '(postgres://[^']+)'`)[1]
	p.stdout.waitFor(t, "Ctrl-C")
	execOn(t, url, "insert into orders values (1, 2.50, 'a')")
	p.stdout.waitFor(t, `INSERT  public\.orders  order_changed .* ms  \{"id":1,"amount":2\.50`)
	p.signal(t, os.Interrupt)
	require.Zero(t, p.exit(t))
}

func TestDevShowsAttemptsAtConfiguredURLs(t *testing.T) {
	t.Parallel()
	url := serve(t, &sink.Sink{Behaviour: sink.Behaviour{Fail: 1, FailStatus: 503}})
	p := start(t, postgresBin(), "dev", "-f", ordersConfig(t, url), "--init", write(t, "schema.sql", orders))
	database := p.stdout.waitFor(t, `psql '(postgres://[^']+)'`)[1]
	p.stdout.waitFor(t, "Ctrl-C")
	execOn(t, database, "insert into orders values (1, 2.50, 'a')")
	p.stdout.waitFor(t, `INSERT  public\.orders  order_changed  attempt 1: answered 503; again in \d+ms`)
	p.stdout.waitFor(t, `INSERT  public\.orders  order_changed  sent after .* ms, answered 200 in .* ms`)
	p.signal(t, os.Interrupt)
	require.Zero(t, p.exit(t))
}

func TestKilledDevLeavesNoPostgresBehind(t *testing.T) {
	t.Parallel()
	p := start(t, postgresBin(), "dev")
	url := p.stdout.waitFor(t, `psql '(postgres://[^']+)'`)[1]
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	var pid int
	require.NoError(t, conn.QueryRow(t.Context(), "select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int").Scan(&pid))
	p.signal(t, syscall.SIGKILL)
	p.exit(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = conn.Exec(ctx, "select pg_sleep(3600)")
	require.Error(t, err, "the watchdog ends the session")
	require.NoError(t, ctx.Err())
	require.Eventually(t, func() bool { return isGone(pid) }, patience, 20*time.Millisecond, "postmaster %d", pid)
}

func TestVersionAndCompletionArePrinted(t *testing.T) {
	t.Parallel()
	code, stdout, _ := rowhook(t, nil, "version")
	require.Zero(t, code)
	require.Regexp(t, `^rowhook \S+ \(go1\.`, stdout)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, stdout, _ := rowhook(t, nil, "completion", shell)
		require.Zero(t, code)
		require.Contains(t, stdout, "rowhook")
	}
}

func TestHelpShowsEachFlagWithItsVariable(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"run", "apply", "sink"} {
		code, stdout, _ := rowhook(t, nil, command, "--help")
		require.Zero(t, code)
		for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`).FindAllStringSubmatch(stdout, -1) {
			switch flag := m[1]; flag {
			case "help", "dry-run", "exit-code", "json", "verbose": // one asks for these each time
			case "database-url":
				require.Contains(t, stdout, "[$DATABASE_URL, $DATABASE_URL_FILE]")
			default:
				require.Regexp(t, `\[\$ROWHOOK_`+strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))+`(?:\]|, \$ROWHOOK_\w+_FILE\])`, stdout)
			}
		}
		for line := range strings.Lines(stdout) {
			require.LessOrEqual(t, len(line), 121, line)
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestInterruptedDevOnceIsNoSuccess(t *testing.T) {
	t.Parallel()
	p := start(t, postgresBin(), "dev", "--once")
	p.stdout.waitFor(t, "PostgreSQL")
	p.signal(t, os.Interrupt)
	if p.exit(t) == 0 {
		require.Contains(t, p.stdout.String(), "arrived, each once", "it was faster than the signal")
	} else {
		require.Contains(t, p.stderr.String(), "interrupted before")
	}
}

// newServer serves a handler on a loopback port and returns its URL.
func newServer(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

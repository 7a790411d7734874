//go:build unix

package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/webhook"
)

// guest is a command that rowhook dev runs: it prints its environment, and ends when it is told to.
type guest struct {
	*process
	input io.WriteCloser
	env   map[string]string
}

const guestScript = "env; echo READY; read -r code; exit $code"

// host starts rowhook dev with a guest, and waits until the guest runs.
func host(t *testing.T, env []string, flags ...string) *guest {
	t.Helper()
	g := &guest{process: prepare(t, append(postgresBin(), env...), append(append([]string{"dev"}, flags...), "--", "sh", "-c", guestScript)...)}
	g.begin(t)
	g.wait(t)
	return g
}

func (g *guest) begin(t *testing.T) {
	t.Helper()
	var err error
	g.input, err = g.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, g.cmd.Start())
}

// wait waits until the guest runs, and takes its environment.
func (g *guest) wait(t *testing.T) {
	t.Helper()
	g.stdout.waitFor(t, "READY")
	g.env = map[string]string{}
	for line := range strings.Lines(g.stdout.String()) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		g.env[name] = value
	}
}

// end ends the guest with an exit code.
func (g *guest) end(t *testing.T, code string) int {
	t.Helper()
	_, err := io.WriteString(g.input, code+"\n")
	require.NoError(t, err)
	return g.exit(t)
}

// signedOrders is a configuration that needs variables which are not set.
const signedOrders = `
network: {deny: [loopback]}
triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true}
    webhook: {url: "${APP_URL}/hooks/orders?source=shop", secret: "${ORDERS_SECRET}", headers: {X-Tenant: "${TENANT}"}}
    retry: {limit: 2, interval: 100ms}
  - name: note_changed
    table: public.orders
    on: {insert: true}
    webhook: {url: "https://notes.invalid"}
    retry: {limit: 2, interval: 100ms}
`

// deliveriesOf asks a receiver for what has arrived, until there are n.
func deliveriesOf(t *testing.T, receiver string, n int) []sink.Delivery {
	t.Helper()
	var list struct{ Deliveries []sink.Delivery }
	require.Eventually(t, func() bool {
		resp, err := http.Get(receiver + "/deliveries")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		list.Deliveries = nil
		return json.NewDecoder(resp.Body).Decode(&list) == nil && len(list.Deliveries) >= n
	}, patience, patience/1000)
	return list.Deliveries
}

func TestDevRunsACommandWithAllThatItStarts(t *testing.T) {
	t.Parallel()
	g := host(t, []string{"PGHOST=nowhere.invalid", "PGSERVICE=none", "PGBOSS_SCHEMA=mine", "ROWHOOK_LISTEN_URL=postgres://nowhere.invalid/x", "TENANT=acme"},
		"-f", write(t, "rowhook.yaml", signedOrders), "--init", write(t, "schema.sql", orders))
	require.Regexp(t, `^postgresql://postgres:\w+@127\.0\.0\.1:\d+/app\?sslmode=disable$`, g.env["DATABASE_URL"])
	require.Contains(t, g.env["DATABASE_URL"], "@"+g.env["PGHOST"]+":"+g.env["PGPORT"]+"/"+g.env["PGDATABASE"])
	require.Equal(t, "mine", g.env["PGBOSS_SCHEMA"])
	for _, name := range []string{"PGSERVICE", "ROWHOOK_LISTEN_URL"} {
		require.NotContains(t, g.env, name)
	}

	resp, err := http.Get(g.env["ROWHOOK_SINK_URL"] + "/deliveries?trigger=note_chnged&wait=1m")
	require.NoError(t, err)
	defer resp.Body.Close()
	refusal, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(refusal), `there is no trigger \"note_chnged\"; did you mean note_changed?`)

	execOn(t, g.env["DATABASE_URL"], "insert into orders values (7, 1.10, 'a')")
	for _, d := range deliveriesOf(t, g.env["ROWHOOK_SINK_URL"], 2) {
		require.Equal(t, 200, d.Status)
		require.Contains(t, string(d.Body), `"amount": 1.10`)
		if d.Trigger == "note_changed" {
			require.Equal(t, sink.None, d.Signature)
			continue
		}
		require.Equal(t, sink.Valid, d.Signature)
		require.Equal(t, "acme", d.Header.Get("X-Tenant"))
		require.Equal(t, g.env["ROWHOOK_SINK_SECRET"], g.env["ORDERS_SECRET"], "the app finds it where it looks for its own")
	}
	resp, err = http.Get(g.env["ROWHOOK_URL"] + "/readyz")
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.NoError(t, resp.Body.Close())

	require.Equal(t, 7, g.end(t, "7"))
	require.Empty(t, g.stderr.String())
	require.True(t, strings.HasSuffix(g.stdout.String(), "READY\n"), "standard output is the command's")
	require.Error(t, dial(t, strings.TrimPrefix(g.env["ROWHOOK_URL"], "http://")))
	require.Error(t, dial(t, g.env["PGHOST"]+":"+g.env["PGPORT"]))
}

func TestDevSendsToTheConfiguredURLsOnRequest(t *testing.T) {
	t.Parallel()
	s, url := receiver(t)
	g := host(t, nil, "-f", ordersConfig(t, url), "--init", write(t, "schema.sql", orders), "--sink=false")
	execOn(t, g.env["DATABASE_URL"], "insert into orders values (7, 1.10, 'a')")
	arrived(t, s, 1)
	require.Zero(t, g.end(t, "0"))
}

func TestDevMigratesBeforeItAppliesTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := ordersConfig(t, "http://127.0.0.1:1")
	code, stdout, stderr := rowhook(t, postgresBin(), "dev", "-f", file, "--init", write(t, "schema.sql", orders),
		"--migrate", "echo migrating; env >"+filepath.Join(dir, "env"), "--migrate", "echo again; exit 3", "--", "echo", "never")
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "migrating\nagain\n")
	require.Contains(t, stderr, "exit code 3: echo again")
	env, err := os.ReadFile(filepath.Join(dir, "env"))
	require.NoError(t, err)
	require.Contains(t, string(env), "DATABASE_URL=postgresql://")
}

func TestDevEndsWithTheExitCodeOfACommandThatCanNotRun(t *testing.T) {
	t.Parallel()
	for code, command := range map[int][]string{
		127: {"--", "no-such-command-anywhere"}, 126: {"--", t.TempDir()}, 2: {"--"}, 137: {"--", "sh", "-c", "kill -KILL $$"},
	} {
		got, stdout, stderr := rowhook(t, postgresBin(), append([]string{"dev"}, command...)...)
		require.Equal(t, code, got, "%v", command)
		require.Empty(t, stdout)
		require.Equal(t, code == 137, !strings.Contains(stderr, "rowhook: "), stderr)
	}
}

func TestSignalsToDevAreTheCommands(t *testing.T) {
	t.Parallel()
	for s, name := range map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGINT: "INT", syscall.SIGHUP: "HUP"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := prepare(t, postgresBin(), "dev", "--", "sh", "-c", "trap 'echo got; exit 9' "+name+"; echo READY $PGPORT; while :; do sleep 0.05; done")
			p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without the terminal of who runs the tests
			require.NoError(t, p.cmd.Start())
			port := p.stdout.waitFor(t, `READY (\d+)`)[1]
			p.signal(t, s)
			require.Equal(t, 9, p.exit(t), "%s", p.stderr.String())
			require.Contains(t, p.stdout.String(), "got\n")
			require.Error(t, dial(t, "127.0.0.1:"+port))
		})
	}
}

func TestReadyFileTellsWhereAllIsUntilTheEnd(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		path := filepath.Join(t.TempDir(), "ready file.json")
		require.NoError(t, os.WriteFile(path, nil, 0o600), "mktemp has made it")
		p := start(t, postgresBin(), "dev", "-f", write(t, "rowhook.yaml", signedOrders), "--init", write(t, "schema.sql", orders), "--ready-file", path, "--output", "json")
		line := p.stdout.waitFor(t, `\{.*\}\n`)[0]
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, line, string(content))
		var ready struct {
			DatabaseURL string `json:"database_url"`
			SinkURL     string `json:"sink_url"`
			URL         string
			Secret      string
			PIDs        struct{ Dev, Postgres int }
			Triggers    []struct {
				Name, Table, URL, Secret string
				Signed                   bool
			}
		}
		require.NoError(t, json.Unmarshal(content, &ready))
		require.Equal(t, p.cmd.Process.Pid, ready.PIDs.Dev)
		require.False(t, isGone(ready.PIDs.Postgres))
		require.Len(t, ready.Triggers, 2)
		require.Equal(t, ready.SinkURL+"/order_changed", ready.Triggers[0].URL)
		require.True(t, ready.Triggers[0].Signed)
		require.Equal(t, ready.Secret, ready.Triggers[0].Secret)
		execOn(t, ready.DatabaseURL, "insert into orders values (1, 1, 'a')")
		deliveriesOf(t, ready.SinkURL, 2)
		p.signal(t, s)
		p.exit(t)
		require.Equal(t, line, p.stdout.String(), "one line")
		require.Eventually(t, func() bool { _, err := os.Stat(path); return os.IsNotExist(err) }, patience, patience/1000)
		require.Eventually(t, func() bool { return isGone(ready.PIDs.Postgres) }, patience, patience/1000)
	}
	kept := write(t, "schema.sql", orders)
	code, _, stderr := rowhook(t, postgresBin(), "dev", "--ready-file", kept)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "name another file")
	content, err := os.ReadFile(kept)
	require.NoError(t, err)
	require.Equal(t, orders, string(content))
}

func TestForwardedDeliveriesReachTheAppAndItsAnswersTheDispatcher(t *testing.T) {
	t.Parallel()
	type request struct {
		uri, tenant string
		verified    error
	}
	var secret string
	requests := make(chan request, 8)
	answers := make(chan int, 2)
	answers <- 503
	answers <- 201
	app := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		requests <- request{r.RequestURI, r.Header.Get("X-Tenant"), errors.Join(err, webhook.Verify(secret, r.Header, body, time.Now()))}
		w.WriteHeader(<-answers)
		_, _ = io.WriteString(w, "the app's words \x1b[2J")
	}))
	p := start(t, append(postgresBin(), "TENANT=acme"), "dev", "-f", write(t, "rowhook.yaml", signedOrders), "--init", write(t, "schema.sql", orders),
		"--forward-to", app+"/base/", "--trigger", "order_changed")
	secret = p.stdout.waitFor(t, `(whsec_\S+)`)[1]
	url := p.stdout.waitFor(t, `psql '(postgres://[^']+)'`)[1]
	p.stdout.waitFor(t, "Ctrl-C")
	execOn(t, url, "insert into orders values (1, 2.50, 'a')")
	for range 2 {
		got := <-requests
		require.Equal(t, "/base/hooks/orders?source=shop", got.uri)
		require.Equal(t, "acme", got.tenant)
		require.NoError(t, got.verified)
	}
	p.stdout.waitFor(t, `order_changed  attempt 1  http://\S+/base/hooks/orders\?source=shop  answered 503 in .* ms\n  answer the app's words \\x1b`)
	p.stdout.waitFor(t, `order_changed  attempt 2  \S+  answered 201 in`)
	p.stdout.waitFor(t, `note_changed  attempt 1  kept by the receiver`)
	p.signal(t, os.Interrupt)
	require.Zero(t, p.exit(t))
}

func TestAnAppThatIsNotUpYetGetsTheDeliveryLater(t *testing.T) {
	t.Parallel()
	p := start(t, postgresBin(), "dev", "-f", ordersConfig(t, "https://shop.example"), "--init", write(t, "schema.sql", orders), "--forward-to", "http://"+closedPort(t))
	url := p.stdout.waitFor(t, `psql '(postgres://[^']+)'`)[1]
	p.stdout.waitFor(t, "Ctrl-C")
	execOn(t, url, "insert into orders values (1, 2.50, 'a')")
	p.stdout.waitFor(t, `attempt 1  http://127\.0\.0\.1:\d+/orders  connection refused: is the app running\?`)
	p.stdout.waitFor(t, `attempt 2  http://127\.0\.0\.1:\d+/orders  connection refused`)
	p.stderr.waitFor(t, `attempts are failing.* endpoint=http://127\.0\.0\.1:\d+/orders `)
	p.signal(t, os.Interrupt)
	require.Zero(t, p.exit(t))
}

func TestMisusedDevFlagsNameTheRemedy(t *testing.T) {
	t.Parallel()
	file := ordersConfig(t, "http://127.0.0.1:1")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--"}, "write one"},
		{[]string{"pytest", "-x"}, "rowhook dev -- pytest -x"},
		{[]string{"--ready-file", "/nowhere/x"}, "a directory that exists"},
		{[]string{"--ready-file", os.TempDir()}, "name one"},
		{[]string{"--output", "json", "--", "true"}, "--ready-file"},
		{[]string{"-f", "-", "--", "true"}, "name a file"},
		{[]string{"-f", file, "--trigger", "x"}, "--forward-to"},
		{[]string{"-f", file, "--forward-to", "localhost:3000"}, "http://localhost:3000"},
		{[]string{"-f", file, "--forward-to", "http://localhost:3000", "--trigger", "order_change"}, "did you mean order_changed"},
		{[]string{"-f", file, "--forward-to", "http://localhost:3000", "--trigger", "nope"}, "the triggers are order_changed"},
		{[]string{"-f", file, "--forward-to", "http://localhost:3000", "--sink=false"}, "leave one of them out"},
		{[]string{"--sink=false", "--", "true"}, "needs -f"},
		{[]string{"--migrate", "true"}, "needs -f"},
		{[]string{"--once", "--", "true"}, "--once"},
		{[]string{"-f", file, "--init", t.TempDir()}, ".sql"},
	} {
		code, _, stderr := rowhook(t, postgresBin(), append([]string{"dev"}, c.args...)...)
		require.Equal(t, 2, code, "%v: %s", c.args, stderr)
		require.Contains(t, stderr, c.want)
	}
}

func TestSeveralDevsRunSideBySide(t *testing.T) {
	t.Parallel()
	file, schema := write(t, "rowhook.yaml", signedOrders), write(t, "schema.sql", orders)
	var guests []*guest
	for range 5 {
		g := &guest{process: prepare(t, postgresBin(), "dev", "-f", file, "--init", schema, "--", "sh", "-c", guestScript)}
		g.begin(t)
		guests = append(guests, g)
	}
	seen := map[string]bool{}
	for i, g := range guests {
		g.wait(t)
		execOn(t, g.env["DATABASE_URL"], fmt.Sprintf("insert into orders values (%d, 1, 'a')", i))
		for _, name := range []string{"DATABASE_URL", "ROWHOOK_SINK_URL", "ROWHOOK_URL"} {
			require.False(t, seen[g.env[name]], "another one has it")
			seen[g.env[name]] = true
		}
	}
	for i, g := range guests {
		got := deliveriesOf(t, g.env["ROWHOOK_SINK_URL"], 2)
		require.Len(t, got, 2)
		require.Contains(t, string(got[0].Body), fmt.Sprintf(`"id": %d`, i))
		require.Zero(t, g.end(t, "0"))
	}
}

func TestDevEndsItsCommandIfPostgresEnds(t *testing.T) {
	t.Parallel()
	ready := filepath.Join(t.TempDir(), "ready.json")
	p := start(t, postgresBin(), "dev", "--ready-file", ready, "--", "sh", "-c", "echo READY; sleep 7100; sleep 7100")
	p.stdout.waitFor(t, "READY")
	content, err := os.ReadFile(ready)
	require.NoError(t, err)
	var about struct{ PIDs struct{ Postgres int } }
	require.NoError(t, json.Unmarshal(content, &about))
	require.NoError(t, syscall.Kill(about.PIDs.Postgres, syscall.SIGQUIT))
	require.Equal(t, 1, p.exit(t))
	require.Regexp(t, `(?s)the command was ended: the private Postgres has ended; the end of its log:.*immediate shutdown`, p.stderr.String())
}

func TestDevEndsBeforeTheCommandIfAWebhookCanNotBeCalled(t *testing.T) {
	t.Parallel()
	file := write(t, "rowhook.yaml", signedOrders)
	for want, c := range map[string]struct {
		env   []string
		flags []string
	}{
		":7:14: triggers[0].webhook: can't be called with the values of ORDERS_SECRET here: secret begins with whsec_, but ": {env: []string{"ORDERS_SECRET=whsec_x"}},
		`header "X-Tenant" has a value with a line break`:                                                                    {env: []string{"TENANT=a\nb"}},
		"environment variable APP_URL is not set":                                                                            {env: []string{"TENANT=a", "ORDERS_SECRET=a-long-secret-of-ours-for-orders"}, flags: []string{"--sink=false"}},
	} {
		code, stdout, stderr := rowhook(t, append(postgresBin(), c.env...),
			append(append([]string{"dev", "-f", file, "--init", write(t, "schema.sql", orders)}, c.flags...), "--", "echo", "never")...)
		require.Equal(t, 2, code, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
		require.Equal(t, 1, strings.Count(stderr, "can't be called"), stderr)
	}
}

func TestTheMadeUpSecretIsToldOnlyIfATriggerSignsWithIt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ready.json")
	g := host(t, []string{"ORDERS_SECRET=a-long-secret-of-ours-for-orders", "ROWHOOK_SINK_SECRET=of-another"},
		"-f", write(t, "rowhook.yaml", signedOrders), "--init", write(t, "schema.sql", orders), "--ready-file", path)
	require.NotContains(t, g.env, "ROWHOOK_SINK_SECRET")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(content), `"secret":"","pids"`)
	require.Zero(t, g.end(t, "0"))
}

func TestCommandsOfRowhookWorkInsideOfDevAndWithWhatItPrints(t *testing.T) {
	t.Parallel()
	file, schema := write(t, "rowhook.yaml", signedOrders), write(t, "schema.sql", orders)
	tried := func(env []string) {
		t.Helper()
		code, stdout, stderr := rowhook(t, env, "test", "order_changed")
		require.Zero(t, code, stderr)
		require.Empty(t, stderr, "its variables are no misspelled ones")
		require.Contains(t, stdout, "X-Tenant: ${TENANT}")
		require.Contains(t, stdout, "200 OK")
	}
	g := host(t, []string{"ROWHOOK_TEST_SERVER=x"}, "-f", file, "--init", schema)
	var inside []string
	for name, value := range g.env {
		inside = append(inside, name+"="+value)
	}
	tried(inside)
	d := deliveriesOf(t, g.env["ROWHOOK_SINK_URL"], 1)[0]
	require.Equal(t, sink.Valid, d.Signature)
	require.Equal(t, "TENANT-is-not-set", d.Header.Get("X-Tenant"))
	_, _, stderr := rowhook(t, database(g.env["DATABASE_URL"]), "test", "order_changed")
	require.Contains(t, stderr, "ROWHOOK_SINK_URL is not set")
	require.Contains(t, stderr, "rowhook dev, which prints the variables")
	require.Zero(t, g.end(t, "0"))

	p := start(t, postgresBin(), "dev", "-f", file, "--init", schema, "--sink")
	require.NotEmpty(t, p.stderr.waitFor(t, `a placeholder is sent for each, such as TENANT-is-not-set variables=TENANT\n`))
	var outside []string
	for _, pair := range strings.Fields(p.stdout.waitFor(t, `  export (.*)\n`)[1]) {
		outside = append(outside, strings.ReplaceAll(pair, "'", ""))
	}
	tried(outside)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

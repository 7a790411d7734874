package natsdev_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/cli"
	"github.com/rowhook/rowhook/internal/jetstream"
	"github.com/rowhook/rowhook/internal/natsdev"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// with are the parts of rowhook-nats.
func with() cli.Parts {
	return cli.Parts{NATS: new(jetstream.Connections).Destination, NATSServer: func(show func(cli.NATSMessage)) (cli.NATSServer, error) {
		s, err := natsdev.Start(func(m natsdev.Message) { show(cli.NATSMessage(m)) })
		if err != nil {
			return nil, err
		}
		return s, nil
	}}
}

// output is what a program writes, on several goroutines.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// run runs a command to its end.
func run(t *testing.T, parts cli.Parts, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, log output
	code = cli.RunWith(ctx, parts, args, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...), strings.NewReader(""), &out, &log)
	return code, out.String(), log.String()
}

// TestTheCommandsKnowTriggersOfNATS is not parallel: the program sets the log of libraries.
func TestTheCommandsKnowTriggersOfNATS(t *testing.T) { //nolint:paralleltest // see above
	seen := make(chan natsdev.Message, 100)
	server, err := natsdev.Start(func(m natsdev.Message) { seen <- m })
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	db := pgtest.New(t)
	db.Exec(t, "create table orders (id bigint primary key, amount numeric, note text)")
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
triggers:
  - name: order_placed
    table: public.orders
    on: {insert: true}
    nats: {url: "${NATS_URL}", subject: "orders.$new.id", stream: ORDERS, user: me, password: plain-password, headers: {X-Key: plain-key}}
`), 0o600))
	env := []string{"DATABASE_URL=" + db.URL(), "NATS_URL=" + server.URL()}

	for _, command := range [][]string{{"check", file}, {"apply", "-f", file}} {
		code, _, stderr := run(t, cli.Parts{}, env, command...)
		require.Equal(t, 2, code, command)
		require.Contains(t, stderr, "rowhook.yaml:6:11: triggers[0].nats: this program can't publish to NATS: use rowhook-nats")
	}
	code, _, stderr := run(t, with(), env, "check", file)
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "nats.password: is plain text here")
	code, stdout, stderr := run(t, with(), env, "apply", "-f", file, "--dry-run")
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, "plain-password")
	code, _, stderr = run(t, with(), env, "apply", "-f", file)
	require.Zero(t, code, stderr)

	for _, parts := range []cli.Parts{{}, with()} { // looking needs no NATS
		code, stdout, stderr = run(t, parts, env, "triggers")
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "orders.$new.id")
		code, stdout, stderr = run(t, parts, env, "triggers", "order_placed", "--json")
		require.Zero(t, code, stderr)
		var shown struct {
			URL    string
			NATS   struct{ Subject, Stream, Login string }
			Signed bool
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &shown))
		require.Equal(t, "${NATS_URL} orders.$new.id", shown.URL)
		require.Equal(t, struct{ Subject, Stream, Login string }{"orders.$new.id", "ORDERS", "user"}, shown.NATS)
		require.NotContains(t, stdout, "plain-")
		code, _, stderr = run(t, parts, env, "status")
		require.Zero(t, code, stderr)
		code, stdout, stderr = run(t, parts, env, "test", "order_placed", "--print")
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "PUBLISH "+server.URL()+" orders.")
		require.Contains(t, stdout, "Nats-Expected-Stream: ORDERS")
		require.Contains(t, stdout, "nothing was sent")
	}
	code, stdout, stderr = run(t, with(), env, "export")
	require.Zero(t, code, stderr)
	again := filepath.Join(t.TempDir(), "again.yaml")
	require.NoError(t, os.WriteFile(again, []byte(stdout), 0o600))
	code, _, stderr = run(t, with(), env, "apply", "-f", again, "--dry-run")
	require.Zero(t, code, stderr)

	code, _, stderr = run(t, cli.Parts{}, env, "test", "order_placed")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "use rowhook-nats")
	code, _, stderr = run(t, with(), env, "test", "order_placed")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no stream takes the subject")
	require.NoError(t, server.Stream(t.Context(), "ORDERS", []string{"orders.*"}))
	code, stdout, stderr = run(t, with(), env, "test", "order_placed")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `{"stream":"ORDERS","seq":1}`)
	var last natsdev.Message
	select {
	case last = <-seen:
	case <-time.After(time.Minute):
		require.FailNow(t, "the message is not shown")
	}
	require.Equal(t, []string{"1"}, last.Header["Rowhook-Test"])
	require.Contains(t, string(last.Data), `"test":true`)
}

// TestDevShowsWhatArrivesAtItsServer runs dev with a command.
func TestDevShowsWhatArrivesAtItsServer(t *testing.T) { //nolint:paralleltest // see above
	dir := t.TempDir()
	file, tables := filepath.Join(dir, "rowhook.yaml"), filepath.Join(dir, "schema.sql")
	require.NoError(t, os.WriteFile(tables, []byte("create table orders (id bigint primary key, v text)"), 0o600))
	require.NoError(t, os.WriteFile(file, []byte(`
triggers:
  - name: order_placed
    table: public.orders
    on: {insert: true}
    nats: {url: "nats://nats.example.com", subject: "shop.${new.v}.placed-$new.id", creds: "${file:/run/secrets/none}", body: {order: $new.id}}
`), 0o600))
	code, _, stderr := run(t, cli.Parts{}, nil, "dev", "-f", file, "--nats")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "--nats: this program can't publish to NATS: use rowhook-nats")
	psql := filepath.Join(os.Getenv(pgtest.EnvBinDir), "psql")
	if _, err := os.Stat(psql); err != nil {
		t.Skip("there is no psql beside the PostgreSQL of the tests")
	}
	shown := filepath.Join(dir, "shown")
	script := psql + ` -qc "insert into orders values (7, 'a.b')" && until [ -e "` + shown + `" ]; do sleep 0.05; done; echo "$ROWHOOK_NATS_URL"`
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, log output
	ended := make(chan int, 1)
	go func() {
		ended <- cli.RunWith(ctx, with(), []string{"dev", "-f", file, "--init", tables, "--nats", "--show", "--", "sh", "-c", script},
			[]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "ROWHOOK_POSTGRES_BIN=" + os.Getenv(pgtest.EnvBinDir)}, strings.NewReader(""), &out, &log)
	}()
	line := regexp.MustCompile(`published  shop\.a%2Eb\.placed-7  [0-9a-f-]{36}`)
	require.Eventually(t, func() bool { return line.MatchString(log.String()) }, 2*time.Minute, 50*time.Millisecond)
	require.NoError(t, os.WriteFile(shown, nil, 0o600))
	require.Zero(t, <-ended, log.String())
	require.Contains(t, out.String(), "nats://127.0.0.1:")
	require.Contains(t, log.String(), `{"order":7}`)
}

// TestRunPublishesForEachSource runs a dispatcher of two databases.
func TestRunPublishesForEachSource(t *testing.T) { //nolint:paralleltest // see above
	seen := make(chan natsdev.Message, 100)
	server, err := natsdev.Start(func(m natsdev.Message) { seen <- m })
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	require.NoError(t, server.Stream(t.Context(), "ORDERS", []string{"orders.*"}))
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
sources:
  eu: {url: "${EU_DATABASE_URL}", env: [NATS_URL]}
  us: {url: "${US_DATABASE_URL}", env: [NATS_URL]}
triggers:
  - {name: order_placed, table: public.orders, on: {insert: true}, nats: {url: "${NATS_URL}", subject: "orders.$new.id"}}
`), 0o600))
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "NATS_URL=" + server.URL()}
	databases := map[string]*pgtest.DB{"eu": pgtest.New(t), "us": pgtest.New(t)}
	for name, db := range databases {
		db.Exec(t, "create table orders (id bigint primary key)")
		env = append(env, strings.ToUpper(name)+"_DATABASE_URL="+db.URL())
	}
	code, _, stderr := run(t, with(), env, "apply", "-f", file)
	require.Zero(t, code, stderr)
	for _, db := range databases {
		db.Exec(t, "insert into orders values (7)")
	}

	ctx, stop := context.WithCancel(t.Context())
	var out output
	ended := make(chan int, 1)
	go func() {
		ended <- cli.RunWith(ctx, with(), []string{"run", "-f", file, "--http", "off"}, env, strings.NewReader(""), &out, &out)
	}()
	got := map[string]bool{}
	for range databases {
		select {
		case m := <-seen:
			var body struct{ Source string }
			require.NoError(t, json.Unmarshal(m.Data, &body))
			got[body.Source] = true
		case <-time.After(time.Minute):
			require.FailNow(t, "no message arrived", out.String())
		}
	}
	require.Equal(t, map[string]bool{"eu": true, "us": true}, got)
	stop()
	require.Zero(t, <-ended, out.String())
}

package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/sink"
)

const devToken = "rwh_of-rowhook-dev"

// devOperations are the operations that only rowhook dev has.
var devOperations = []string{"dev", "devDeliveries", "devAnswers", "setDevAnswer", "removeDevAnswer", "devSQL", "devConfig", "changeDevConfig"}

// devDesk is a desk of rowhook dev, with a receiver at url.
type devDesk struct {
	*desk
	sink     *sink.Sink
	receiver string
}

func newDevDesk(t *testing.T) *devDesk {
	t.Helper()
	s := &sink.Sink{SecretOf: func(trigger string) string {
		return map[string]string{"orders": "whsec_" + strings.Repeat("A", 32)}[trigger]
	}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	var roleURL string
	path, text := "rowhook.yaml", "triggers: []\n"
	dev := &httpapi.Dev{
		Token: devToken, Sink: s,
		About: func() httpapi.DevAbout {
			return httpapi.DevAbout{SinkURL: server.URL, ToSink: true, Config: &path, Triggers: []httpapi.DevTrigger{{Name: "orders", Table: "public.orders", URL: "x"}}}
		},
		Connect: func(ctx context.Context, notice func(*pgconn.Notice)) (*pgx.Conn, error) {
			cfg, err := pgx.ParseConfig(roleURL)
			if err != nil {
				return nil, err
			}
			cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice(n) }
			cfg.RuntimeParams["statement_timeout"] = "2000"
			return pgx.ConnectConfig(ctx, cfg)
		},
		Config: func(context.Context) (*httpapi.DevConfig, error) {
			return &httpapi.DevConfig{Path: &path, Text: &text, ETag: "1", Problems: []httpapi.DevProblem{}, Warnings: []httpapi.DevProblem{}, Plan: json.RawMessage(`{"changes": []}`)}, nil
		},
		Change: func(_ context.Context, to httpapi.DevChange) (*httpapi.DevConfig, error) {
			if to.ETag != "1" {
				return nil, httpapi.DevConflict(path)
			}
			return &httpapi.DevConfig{Path: &path, Text: &to.Text, ETag: "2", Problems: []httpapi.DevProblem{{Line: 1, Column: 2, Message: "wrong"}}, Warnings: []httpapi.DevProblem{}, Applied: to.Apply}, nil
		},
	}
	d := &devDesk{desk: newDesk(t, func(c *httpapi.Config) { c.Dev = dev }), sink: s, receiver: server.URL}
	role, url := d.Role(t)
	roleURL = url
	d.Exec(t, "grant all on orders to "+role)
	return d
}

func TestOnlyRowhookDevHasItsRoutes(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, path := range []string{"/api/v1/dev", "/api/v1/dev/deliveries", "/api/v1/dev/answer", "/api/v1/dev/config"} {
		require.Equal(t, "404 not_found", d.problem(t, "GET", path, nil))
	}
	require.Equal(t, "404 not_found", d.problem(t, "POST", "/api/v1/dev/sql", map[string]any{"sql": "select 1"}))
	require.False(t, d.me(t).Dev)
}

func TestTheTokenOfDevAllowsMoreThanNone(t *testing.T) {
	t.Parallel()
	d := newDevDesk(t)
	me := d.me(t)
	require.True(t, me.Dev)
	require.NotContains(t, me.May, "dev")
	for _, c := range []struct {
		method, path string
		body         any
	}{{"POST", "/api/v1/dev/sql", map[string]any{"sql": "select 1"}}, {"GET", "/api/v1/dev/config", nil}, {"PUT", "/api/v1/dev/config", map[string]any{"text": ""}}} {
		require.Equal(t, "403 sql_needs_token", d.problem(t, c.method, c.path, c.body), c.path)
	}
	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/api/v1/dev", nil).StatusCode)
	d.token = "rwh_of-an-earlier-start"
	require.Equal(t, "401 unauthorized", d.problem(t, "GET", "/api/v1/me", nil))
	d.token = devToken
	me = d.me(t)
	require.Contains(t, me.May, "dev")
	require.Equal(t, []string{"status", "payloads", "steer", "admin"}, me.Scopes)
	require.False(t, me.Tokens)
}

func TestDevShowsMethodAndQueryOfARequestWithoutABody(t *testing.T) {
	t.Parallel()
	d := newDevDesk(t)
	d.token = devToken
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.receiver+"/orders/o/7?note=a%20b", nil)
	require.NoError(t, err)
	for name, value := range map[string]string{
		sink.HeaderEvent: "0199a000-0000-7000-8000-000000000001", sink.HeaderTrigger: "orders", sink.HeaderOp: "INSERT", sink.HeaderSchema: "public",
		sink.HeaderTable: "orders", sink.HeaderCreatedAt: "2026-11-26T00:00:00Z", sink.HeaderAttempt: "1",
	} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	var page struct {
		Deliveries []struct{ Method, Path string }
	}
	a := d.ask(t, "GET", "/api/v1/dev/deliveries", nil)
	a.into(t, &page)
	require.Len(t, page.Deliveries, 1)
	require.Equal(t, "GET /orders/o/7?note=a%20b", page.Deliveries[0].Method+" "+page.Deliveries[0].Path)
}

func TestDevShowsWhatTheReceiverGotAndSetsItsAnswer(t *testing.T) {
	t.Parallel()
	d := newDevDesk(t)
	d.token = devToken
	send := func(n int) int {
		body := fmt.Sprintf(`{"id":"0199a000-0000-7000-8000-%012d","created_at":"2026-11-26T00:00:00Z","table":{"schema":"public","name":"orders"},"trigger":{"name":"orders"},`+
			`"event":{"op":"INSERT","data":{"old":null,"new":{"n":1.10}},"session_variables":null,"trace_context":null},"delivery_info":{"current_retry":0,"max_retries":5}}`, n)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.receiver+"/orders?x=1", strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer secret-of-the-app")
		req.Header.Set("X-Test", "1")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	type delivery struct {
		Sequence              uint64
		Trigger, Path, Method string
		EventID               string `json:"event_id"`
		Attempt               int
		Headers               map[string][]string
		Body, Signature       string
		Status                *int
	}
	var page struct {
		Deliveries   []delivery
		Cursor, Next uint64
	}
	read := func(query string) {
		page.Deliveries, page.Next = nil, 0
		a := d.ask(t, "GET", "/api/v1/dev/deliveries"+query, nil)
		require.NotContains(t, a.text, "secret-of-the-app")
		a.into(t, &page)
	}
	read("")
	require.Empty(t, page.Deliveries)
	require.Equal(t, 200, send(1))

	answers := func(method string, body any, query string) string {
		return d.ask(t, method, "/api/v1/dev/answer"+query, body).text
	}
	require.JSONEq(t, `{"answers": [{"trigger": null, "status": 503}]}`, answers("PUT", map[string]any{"status": 503}, ""))
	require.Equal(t, 503, send(1))
	require.JSONEq(t, `{"answers": [{"trigger": "orders", "status": 202, "delay": "1ms"}, {"trigger": null, "status": 503}]}`,
		answers("PUT", map[string]any{"trigger": "orders", "status": 202, "delay": "1ms"}, ""))
	require.Equal(t, 202, send(2), "the trigger's own goes first")
	require.JSONEq(t, `{"answers": [{"trigger": null, "status": 503}]}`, answers("DELETE", nil, "?trigger=orders"))
	require.JSONEq(t, `{"answers": [{"trigger": null, "status": 500, "share": 0.5}]}`, answers("PUT", map[string]any{"status": 500, "share": 0.5}, ""))
	seen := map[int]bool{}
	for n := 100; len(seen) < 2; n++ {
		seen[send(n)] = true
	}
	require.Equal(t, map[int]bool{200: true, 500: true}, seen)
	require.JSONEq(t, `{"answers": []}`, answers("DELETE", nil, ""))
	require.JSONEq(t, `{"answers": []}`, answers("GET", nil, ""))

	read("?trigger=orders&limit=1&before=3")
	require.Equal(t, "orders", page.Deliveries[0].Trigger)
	first := page.Deliveries[0]
	require.Equal(t, []any{uint64(2), 2, "/orders", "POST", "none", 503}, []any{first.Sequence, first.Attempt, first.Path, first.Method, first.Signature, *first.Status})
	require.Equal(t, []string{"1"}, first.Headers["X-Test"])
	require.Contains(t, first.Body, `"n":1.10`, "digits are kept")
	require.Equal(t, uint64(2), page.Next, "there is an older one")
	read("?before=2")
	require.Len(t, page.Deliveries, 1)
	require.Zero(t, page.Next)
	newest := page.Cursor
	send(7)
	read(fmt.Sprintf("?after=%d", newest))
	require.Len(t, page.Deliveries, 1)
	require.Equal(t, newest+1, page.Cursor)

	for want, body := range map[string]map[string]any{
		"write one from 200 to 599":     {"status": 99},
		"hang means":                    {"status": 500, "hang": true},
		"a number above 0":              {"status": 500, "share": 2},
		"it is the share of failures":   {"share": 0.5},
		"up to 10m":                     {"delay": "11m"},
		"GET /api/v1/dev lists":         {"trigger": "order"},
		"leave it out: it is only in a": {"more": true},
	} {
		require.Contains(t, d.ask(t, "PUT", "/api/v1/dev/answer", body).text, want)
	}
	require.Equal(t, "404 not_found", d.problem(t, "GET", "/api/v1/dev/deliveries?trigger=nope", nil))
}

func TestDevRunsSQLAsARoleWithLittleRights(t *testing.T) {
	t.Parallel()
	d := newDevDesk(t)
	d.token = devToken
	type answer struct {
		Results []struct {
			Tag       string
			Columns   []struct{ Name, Type string }
			Rows      [][]*string
			Truncated bool
		}
		Notices []string
		Error   *struct {
			Code, Message, Hint string
			Position            int
		}
		RolledBack bool `json:"rolled_back"`
	}
	run := func(sql string) (out answer) {
		a := d.ask(t, "POST", "/api/v1/dev/sql", map[string]any{"sql": sql})
		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		a.into(t, &out)
		return out
	}
	out := run("insert into orders (v) values ('a'), (null); select id, v, 1234567890123456789.10::numeric(30,2) as n, '{1,2}'::int[] as many from orders order by id")
	require.Nil(t, out.Error)
	require.Equal(t, []string{"INSERT 0 2", "SELECT 2"}, []string{out.Results[0].Tag, out.Results[1].Tag})
	require.Equal(t, "bigint text numeric(30,2) integer[]", fmt.Sprint(out.Results[1].Columns[0].Type, " ", out.Results[1].Columns[1].Type, " ", out.Results[1].Columns[2].Type, " ", out.Results[1].Columns[3].Type))
	require.Equal(t, "1234567890123456789.10", *out.Results[1].Rows[0][2])
	require.Nil(t, out.Results[1].Rows[1][1])
	require.Len(t, d.ids(t, "select id::text from orders"), 2)

	out = run("select * frm orders")
	require.Equal(t, "42601", out.Error.Code)
	require.Equal(t, 10, out.Error.Position)
	out = run("insert into orders (v) values ('x'); select 1/0")
	require.Equal(t, "22012", out.Error.Code)
	require.Len(t, out.Results, 1)
	out = run("begin; delete from orders")
	require.True(t, out.RolledBack)
	out = run("do $$ begin raise notice 'look'; end $$")
	require.Equal(t, []string{"NOTICE: look"}, out.Notices)
	out = run("select pg_sleep(60)")
	require.Equal(t, "57014", out.Error.Code)
	require.Len(t, d.ids(t, "select id::text from orders"), 2, "what failed has changed nothing")

	out = run("select i, repeat('x', 10) from generate_series(1, 5000) i")
	require.Len(t, out.Results[0].Rows, 1000)
	require.True(t, out.Results[0].Truncated)
	require.Equal(t, "SELECT 5000", out.Results[0].Tag)
	out = run("select repeat('ä', 3000000)")
	require.Len(t, *out.Results[0].Rows[0][0], 4<<20)
	require.True(t, out.Results[0].Truncated)
	for _, sql := range []string{"copy (select 1) to program 'true'", "select pg_read_file('PG_VERSION')", "create role x superuser", "select * from rowhook.trigger", "alter role current_user superuser"} {
		require.Equal(t, "42501", run(sql).Error.Code, sql)
	}
	require.Equal(t, "400 invalid", d.problem(t, "POST", "/api/v1/dev/sql", map[string]any{"sql": " "}))
}

func TestDevShowsAndChangesTheConfiguration(t *testing.T) {
	t.Parallel()
	d := newDevDesk(t)
	d.token = devToken
	d.ask(t, "GET", "/api/v1/dev", nil)
	require.Contains(t, d.ask(t, "GET", "/api/v1/dev/config", nil).text, `"etag":"1"`)
	require.Contains(t, d.ask(t, "PUT", "/api/v1/dev/config", map[string]any{"text": "x", "etag": "1", "apply": true}).text, `"applied":true`)
	require.Equal(t, "409 conflict", d.problem(t, "PUT", "/api/v1/dev/config", map[string]any{"text": "x", "etag": "0", "apply": true}))
	require.Equal(t, "400 invalid", d.problem(t, "PUT", "/api/v1/dev/config", map[string]any{"text": "x", "apply": true}))

	d.ask(t, "GET", "/api/v1/dev/deliveries", nil)
	d.ask(t, "GET", "/api/v1/dev/answer", nil)
	d.ask(t, "PUT", "/api/v1/dev/answer", map[string]any{"hang": true})
	d.ask(t, "DELETE", "/api/v1/dev/answer", nil)
	d.ask(t, "POST", "/api/v1/dev/sql", map[string]any{"sql": "select 1"})
	for _, id := range devOperations {
		require.NotContains(t, d.doc.Unseen(), id)
	}
}

package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/webapi/apitest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const patience = dispatchtest.Patience

// desk is a server for a database with two triggers, orders and manual.
type desk struct {
	*pgtest.DB
	conn  *pgx.Conn
	url   string
	token string // sent with each request; "": none
	doc   *apitest.Document
	mu    sync.Mutex
	stats dispatcher.Stats
	stop  func() error
}

func newDesk(t *testing.T, change ...func(*httpapi.Config)) *desk {
	t.Helper()
	db := pgtest.New(t)
	d := &desk{DB: db, conn: db.Conn(t), stats: dispatcher.Stats{Instance: 2, Started: true, Registered: true, Listens: true}}
	d.Exec(t, "create table orders (id bigint generated always as identity primary key, v text)")
	var specs []trigger.Spec
	for _, name := range []string{"orders", "manual"} {
		s := trigger.DefaultSpec()
		s.Name, s.Table, s.Webhook.URL = name, "public.orders", "https://user:secret@example.com/"+name
		s.Webhook.Headers = map[string]string{"authorization": "Bearer of-all", "X-From": "${FROM}"}
		s.On.Insert, s.On.Manual, s.On.Update = true, name == "manual", trigger.UpdateOn{Enabled: true, Columns: []string{"v"}}
		specs = append(specs, s)
	}
	dispatchtest.Apply(t, db, specs...)
	pool := db.Pool(t)
	cfg := httpapi.Config{
		DB: pool, Version: "v1", Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "rowhook_build_info 1") }),
		Stats: func() dispatcher.Stats {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.stats
		},
		Schema: func(ctx context.Context) error {
			conn, err := pool.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			_, _, err = sqlschema.Compatible(ctx, conn.Conn())
			return err
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	d.token = cfg.WriteToken
	d.serve(t, httpapi.New(cfg))
	d.doc = document(t)
	return d
}

func (d *desk) serve(t *testing.T, s *httpapi.Server) {
	t.Helper()
	l := httptest.NewUnstartedServer(nil).Listener // a free port on loopback
	d.url = "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	d.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = d.stop() })
}

// document returns the served document.
func document(t *testing.T) *apitest.Document {
	t.Helper()
	text, err := httpapi.Document()
	require.NoError(t, err)
	return apitest.NewDocument(t, text)
}

// answer is a response with its body.
type answer struct {
	*http.Response
	text string
}

// into decodes the body into v.
func (a answer) into(t *testing.T, v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(a.text), v), a.text)
}

// ask sends a request with body as JSON, unless it is nil. It checks the response against the
// document.
func (d *desk) ask(t *testing.T, method, path string, body any, header ...string) answer {
	t.Helper()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			require.NoError(t, err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, d.url+path, bytes.NewReader(data))
	require.NoError(t, err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	require.Equal(t, "same-origin", resp.Header.Get("Cross-Origin-Resource-Policy"))
	require.Equal(t, "default-src 'none'; frame-ancestors 'none'", resp.Header.Get("Content-Security-Policy"))
	require.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"))
	d.doc.Check(t, req, data, resp, text)
	return answer{resp, string(text)}
}

// problem sends a request that must fail. It returns the status and the code of the problem.
func (d *desk) problem(t *testing.T, method, path string, body any, header ...string) string {
	t.Helper()
	a := d.ask(t, method, path, body, header...)
	require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"), a.text)
	var p httpapi.Problem
	a.into(t, &p)
	require.Equal(t, a.StatusCode, p.Status)
	return fmt.Sprintf("%d %s", p.Status, p.Code)
}

func (d *desk) set(change func(*dispatcher.Stats)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.stats)
}

// ids runs a statement that returns ids.
func (d *desk) ids(t *testing.T, sql string, args ...any) []string {
	t.Helper()
	rows, err := d.conn.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return out
}

// bury inserts dead letters of the trigger orders.
func (d *desk) bury(t *testing.T, n int) []string {
	t.Helper()
	return d.ids(t, `
insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, new)
select rowhook.uuid7(), now(), now(), (select id from rowhook.trigger where name = 'orders'), 6, 'I', 'the receiver answered 500', json_build_object('v', i)
  from generate_series(1, $1) i returning id::text`, n)
}

// wait inserts waiting or in-flight events of the trigger orders.
func (d *desk) wait(t *testing.T, n int, claimed bool) []string {
	t.Helper()
	return d.ids(t, `
insert into rowhook.event_log (id, trigger_id, op, new, due_at, claimed_by, tries)
select rowhook.uuid7(), (select id from rowhook.trigger where name = 'orders'), 'I', json_build_object('v', i),
       clock_timestamp() + case when $2 then interval '1 minute' else interval '0' end, case when $2 then 2 end, case when $2 then 1 else 0 end
  from generate_series(1, $1) i returning id::text`, n, claimed)
}

func (d *desk) archive(t *testing.T) string {
	t.Helper()
	return d.ids(t, `
with e as (
  insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new, session, trace)
  select rowhook.uuid7(), now(), now(), (select id from rowhook.trigger where name = 'orders'), 2, 'U', '{"v": "x"}', '{"user": 7}', '"trace"' returning id),
l as (
  insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, error_kind, error, response_headers, response_body)
  select id, now(), 1, 2, 1500, n, case n when 2 then 200 end, case n when 1 then 'refused' end, case n when 1 then 'refused it' end,
         case n when 2 then '{"Content-Type": "text/plain"}'::json end, case n when 2 then 'ok' end from e, generate_series(1, 2) n)
select id::text from e`)[0]
}

package cutover

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// atOnce is how many events the worker claims at once.
const atOnce = 20

// hasura stands in for Hasura: it has its tables, functions, SQL triggers and statements, a worker and
// the interface of its metadata. It works as graphql-engine 2 does.
type hasura struct {
	db       *pgtest.DB
	receiver string
	secret   string

	mu       sync.Mutex
	metadata map[string]eventTrigger
}

// eventTrigger is one in its metadata.
type eventTrigger struct {
	Name, Schema, Table string
	On                  map[string][]string // the columns that it listens to, by INSERT, UPDATE or DELETE
	Always              bool
}

// catalog are the objects that Hasura makes in a source, with version 2's column locked.
const catalog = `
create schema hdb_catalog;
create function hdb_catalog.gen_hasura_uuid() returns uuid language sql as 'select gen_random_uuid()';
create table hdb_catalog.event_log (
  id text default hdb_catalog.gen_hasura_uuid() primary key, schema_name text not null, table_name text not null, trigger_name text not null, payload jsonb not null,
  delivered boolean not null default false, error boolean not null default false, tries integer not null default 0, created_at timestamp default now(),
  locked timestamptz, next_retry_at timestamp, archived boolean not null default false);
create index on hdb_catalog.event_log (trigger_name);
create index event_log_fetch_events on hdb_catalog.event_log (locked nulls first, next_retry_at nulls first, created_at) where delivered = 'f' and error = 'f' and archived = 'f';
create table hdb_catalog.event_invocation_logs (
  id text default hdb_catalog.gen_hasura_uuid() primary key, trigger_name text, event_id text, status integer, request json, response json, created_at timestamp default now());
create function hdb_catalog.insert_event_log(schema_name text, table_name text, trigger_name text, op text, row_data json) returns text language plpgsql as $$
declare
  id text;
  payload json;
begin
  id := gen_random_uuid();
  payload := json_build_object('op', op, 'data', row_data, 'session_variables', current_setting('hasura.user', 't')::json, 'trace_context', current_setting('hasura.tracecontext', 't')::json);
  insert into hdb_catalog.event_log (id, schema_name, table_name, trigger_name, payload) values (id, schema_name, table_name, trigger_name, payload);
  return id;
end $$`

func newHasura(t testing.TB, db *pgtest.DB, receiver string) *hasura {
	t.Helper()
	db.Exec(t, catalog)
	return &hasura{db: db, receiver: receiver, secret: "admin", metadata: map[string]eventTrigger{}}
}

// make makes the functions of a trigger, and its SQL triggers where they are missing.
func (h *hasura) make(ctx context.Context, tx pgx.Tx, e eventTrigger) error {
	all, err := pg.Collect[struct{ Name string }](ctx, tx, "select attname::text as name from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped order by attnum", pg.QuoteName(e.Schema, e.Table))
	if err != nil {
		return err
	}
	row := func(v string, columns []string) string {
		if len(columns) == 0 {
			for _, a := range all {
				columns = append(columns, a.Name)
			}
		}
		parts := make([]string, len(columns))
		for i, c := range columns {
			parts[i] = v + "." + pgx.Identifier{c}.Sanitize()
		}
		return `(SELECT  "e"  FROM  (SELECT  ` + strings.Join(parts, " , ") + `        ) AS "e"      ) `
	}
	for _, op := range operations {
		columns, ok := e.On[op]
		if !ok {
			continue
		}
		old, now := "row_to_json("+row("OLD", nil)+")", "row_to_json("+row("NEW", nil)+")"
		switch op {
		case "INSERT":
			old = "NULL"
		case "DELETE":
			now = "NULL"
		}
		name := pgx.Identifier{nameOf(e.Name, op)}.Sanitize()
		record := fmt.Sprintf("PERFORM hdb_catalog.insert_event_log(CAST('%s' AS text), CAST('%s' AS text), CAST('%s' AS text), TG_OP, _data);", e.Schema, e.Table, e.Name)
		_, err := tx.Exec(ctx, `CREATE OR REPLACE function hdb_catalog.`+name+`() RETURNS trigger
  LANGUAGE plpgsql
  AS $$
  DECLARE
    _old record;
    _new record;
    _data json;
  BEGIN
    IF TG_OP = 'UPDATE' THEN
      _old := row(`+row("OLD", columns)+`);
      _new := row(`+row("NEW", columns)+`);
    ELSE
    /* initialize _old and _new with dummy values for INSERT and UPDATE events*/
      _old := row((select 1));
      _new := row((select 1));
    END IF;
    _data := json_build_object(
      'old', `+old+`,
      'new', `+now+`
    );
    BEGIN
      IF (TG_OP <> 'UPDATE') OR (_old <> _new) THEN
        `+record+`
      END IF;
      EXCEPTION WHEN undefined_function THEN
        IF (TG_OP <> 'UPDATE') OR (_old *<> _new) THEN
          `+record+`
        END IF;
    END;

    RETURN NULL;
  END;
$$`)
		if err != nil {
			return err
		}
		var exists bool
		table := pg.QuoteName(e.Schema, e.Table)
		if err := tx.QueryRow(ctx, "select exists (select from pg_trigger where not tgisinternal and tgname = $1 and tgrelid = $2::text::regclass)", nameOf(e.Name, op), table).Scan(&exists); err != nil {
			return err
		}
		if exists {
			continue
		}
		if _, err := tx.Exec(ctx, "CREATE TRIGGER "+name+" AFTER "+op+" ON "+table+" FOR EACH ROW EXECUTE PROCEDURE hdb_catalog."+name+"()"); err != nil {
			return err
		}
		if e.Always {
			if _, err := tx.Exec(ctx, "ALTER TABLE "+table+" ENABLE ALWAYS TRIGGER "+name); err != nil {
				return err
			}
		}
	}
	return nil
}

// create is pg_create_event_trigger.
func (h *hasura) create(ctx context.Context, conn *pgx.Conn, e eventTrigger) error {
	if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return h.make(ctx, tx, e) }); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.metadata[e.Name] = e
	return nil
}

// drop is pg_delete_event_trigger.
func (h *hasura) drop(ctx context.Context, conn *pgx.Conn, name string) error {
	h.mu.Lock()
	delete(h.metadata, name)
	h.mu.Unlock()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, op := range operations {
			if _, err := tx.Exec(ctx, "DROP FUNCTION IF EXISTS hdb_catalog."+pgx.Identifier{nameOf(name, op)}.Sanitize()+"() CASCADE"); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "UPDATE hdb_catalog.event_log SET archived = 't' WHERE trigger_name = $1", name)
		return err
	})
}

// reload is reload_metadata with recreate_event_triggers.
func (h *hasura) reload(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	h.mu.Lock()
	var all []eventTrigger
	for _, e := range h.metadata {
		all = append(all, e)
	}
	h.mu.Unlock()
	for _, e := range all {
		require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error { return h.make(t.Context(), tx, e) }))
	}
}

func (h *hasura) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := []string{}
	for name := range h.metadata {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ServeHTTP is the interface of the metadata.
func (h *hasura) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	var call struct {
		Type string
		Args struct {
			Name           string
			Source         string
			Table          struct{ Schema, Name string }
			Insert, Delete *struct{ Columns any }
			Update         *struct{ Columns any }
			WebhookFromEnv string `json:"webhook_from_env"`
		}
	}
	switch {
	case r.URL.Path != "/v1/metadata":
		answer(http.StatusNotFound, map[string]string{"code": "not-found", "error": "resource does not exist"})
		return
	case r.Header.Get("X-Hasura-Admin-Secret") != h.secret:
		answer(http.StatusUnauthorized, map[string]string{"code": "access-denied", "error": "invalid \"x-hasura-admin-secret\""})
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		answer(http.StatusBadRequest, map[string]string{"code": "parse-failed", "error": err.Error()})
		return
	}
	ctx := context.WithoutCancel(r.Context()) // a killed client does not keep Hasura from doing it
	conn, err := pgx.Connect(ctx, h.db.URL())
	if err != nil {
		answer(http.StatusInternalServerError, map[string]string{"code": "unexpected", "error": err.Error()})
		return
	}
	defer conn.Close(ctx)
	switch call.Type {
	case "export_metadata":
		answer(http.StatusOK, h.export())
	case "pg_delete_event_trigger":
		if call.Args.Source != "default" || !slices.Contains(h.names(), call.Args.Name) {
			answer(http.StatusBadRequest, map[string]string{"code": "not-exists", "error": "event trigger with name " + call.Args.Name + " does not exist"})
			return
		}
		err = h.drop(ctx, conn, call.Args.Name)
	case "pg_create_event_trigger":
		if slices.Contains(h.names(), call.Args.Name) {
			answer(http.StatusBadRequest, map[string]string{"code": "already-exists", "error": "event trigger already exists"})
			return
		}
		e := eventTrigger{Name: call.Args.Name, Schema: call.Args.Table.Schema, Table: call.Args.Table.Name, On: map[string][]string{}}
		if call.Args.Insert != nil {
			e.On["INSERT"] = nil
		}
		if call.Args.Delete != nil {
			e.On["DELETE"] = nil
		}
		if call.Args.Update != nil {
			e.On["UPDATE"] = nil
			if list, ok := call.Args.Update.Columns.([]any); ok {
				for _, c := range list {
					e.On["UPDATE"] = append(e.On["UPDATE"], c.(string))
				}
			}
		}
		if call.Args.WebhookFromEnv == "" {
			answer(http.StatusBadRequest, map[string]string{"code": "parse-failed", "error": "one of webhook, webhook_from_env is required"})
			return
		}
		err = h.create(ctx, conn, e)
	default:
		answer(http.StatusBadRequest, map[string]string{"code": "parse-failed", "error": "unknown type " + call.Type})
		return
	}
	if err != nil {
		answer(http.StatusInternalServerError, map[string]string{"code": "postgres-error", "error": err.Error()})
		return
	}
	if call.Type != "export_metadata" {
		answer(http.StatusOK, map[string]string{"message": "success"})
	}
}

// export is the answer to export_metadata.
func (h *hasura) export() any {
	h.mu.Lock()
	defer h.mu.Unlock()
	tables := []any{}
	for _, e := range h.metadata {
		on := map[string]any{"enable_manual": true}
		for op, columns := range e.On {
			var listed any = "*"
			if len(columns) > 0 {
				listed = columns
			}
			on[strings.ToLower(op)] = map[string]any{"columns": listed}
		}
		tables = append(tables, map[string]any{"table": map[string]string{"schema": e.Schema, "name": e.Table}, "event_triggers": []any{
			map[string]any{"name": e.Name, "definition": on, "webhook_from_env": "HOOK", "retry_conf": map[string]int{"num_retries": 5, "interval_sec": 1, "timeout_sec": 60}}}})
	}
	return map[string]any{"resource_version": 1, "metadata": map[string]any{"version": 3, "sources": []any{map[string]any{"name": "default", "kind": "postgres", "tables": tables}}}}
}

// work is the worker: it claims, sends and settles as Hasura does, until ctx ends.
func (h *hasura) work(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := pgx.Connect(ctx, h.db.URL())
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- h.run(ctx, conn) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			err := <-done
			_ = conn.Close(context.Background())
			if ctx.Err() == nil {
				require.NoError(t, err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func (h *hasura) run(ctx context.Context, conn *pgx.Conn) error {
	type event struct {
		ID, Schema, Table, Trigger string
		Payload                    json.RawMessage
		Tries                      int
		CreatedAt                  time.Time
	}
	for {
		// A claim that has begun is finished, as a graceful stop of Hasura does it.
		whole := context.WithoutCancel(ctx)
		events, err := pg.Collect[event](whole, conn, `
UPDATE hdb_catalog.event_log
SET locked = NOW()
WHERE id IN ( SELECT l.id
              FROM hdb_catalog.event_log l
              WHERE l.delivered = 'f' and l.error = 'f'
                    and (l.locked IS NULL or l.locked < (NOW() - interval '30 minute'))
                    and (l.next_retry_at is NULL or l.next_retry_at <= now())
                    and l.archived = 'f'
                    and l.trigger_name = ANY($2)
              ORDER BY locked NULLS FIRST, next_retry_at NULLS FIRST, created_at
              LIMIT $1
              FOR UPDATE SKIP LOCKED )
RETURNING id, schema_name as schema, table_name as table, trigger_name as trigger, payload::json, tries, created_at`, atOnce, h.names())
		if err != nil {
			return err
		}
		for _, e := range events {
			body, err := json.Marshal(map[string]any{
				"id": e.ID, "created_at": e.CreatedAt, "table": map[string]string{"schema": e.Schema, "name": e.Table}, "trigger": map[string]string{"name": e.Trigger},
				"event": e.Payload, "delivery_info": map[string]int{"current_retry": e.Tries, "max_retries": 5},
			})
			if err != nil {
				return err
			}
			request, err := http.NewRequestWithContext(whole, http.MethodPost, h.receiver+"/hasura", bytes.NewReader(body))
			if err != nil {
				return err
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			response.Body.Close()
			err = pgx.BeginFunc(whole, conn, func(tx pgx.Tx) error {
				settle := "UPDATE hdb_catalog.event_log SET delivered = 't', next_retry_at = NULL, locked = NULL WHERE id = $1"
				if response.StatusCode >= 300 {
					settle = "UPDATE hdb_catalog.event_log SET next_retry_at = now() + interval '100 ms', locked = NULL WHERE id = $1"
				}
				b := &pgx.Batch{}
				b.Queue("INSERT INTO hdb_catalog.event_invocation_logs (event_id, trigger_name, status) VALUES ($1, $2, $3)", e.ID, e.Trigger, response.StatusCode)
				b.Queue("UPDATE hdb_catalog.event_log SET tries = tries + 1 WHERE id = $1", e.ID)
				b.Queue(settle, e.ID)
				return tx.SendBatch(whole, b).Close()
			})
			if err != nil {
				return err
			}
		}
		if len(events) > 0 && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// receiver counts for each change how many times it was delivered. A tenth of the events fail at their
// first attempt.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	counts map[string]int
	ids    map[string]string // of the event, by the change
	paths  map[string]string
	failed map[string]bool
	gate   chan struct{} // what Hasura sends waits until it is closed; nil: it does not
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{counts: map[string]int{}, ids: map[string]string{}, paths: map[string]string{}, failed: map[string]bool{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

type delivery struct {
	ID    string
	Event struct {
		Op   string
		Data struct{ Old, New *struct{ ID, Rev int } }
	}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var d delivery
	if err := json.NewDecoder(q.Body).Decode(&d); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.gate != nil && q.URL.Path == "/hasura" {
		<-r.gate
	}
	row := d.Event.Data.New
	if row == nil {
		row = d.Event.Data.Old
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.ID[len(d.ID)-1] == '7' && !r.failed[d.ID] {
		r.failed[d.ID] = true
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	key := change(d.Event.Op, row.ID, row.Rev)
	r.counts[key]++
	r.ids[key], r.paths[key] = d.ID, q.URL.Path
}

func change(op string, id, rev int) string { return fmt.Sprintf("%s %d %d", op, id, rev) }

// from counts the deliveries by path.
func (r *receiver) from(path string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.paths {
		if p == path {
			n++
		}
	}
	return n
}

// missing returns up to ten of the changes that were not delivered.
func (r *receiver) missing(l *ledger) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range l.changes {
		if r.counts[key] == 0 && len(out) < 10 {
			out = append(out, key)
		}
	}
	return out
}

// doubled returns up to ten of the deliveries that there should not have been.
func (r *receiver) doubled(l *ledger) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, n := range r.counts {
		if len(out) == 10 {
			break
		}
		if n > 1 {
			out = append(out, fmt.Sprintf("%s: %d times", key, n))
		}
		if !l.changes[key] {
			out = append(out, key+": never committed")
		}
	}
	return out
}

// eventually waits until check returns "". It gives up when check has returned the same for the
// patience of tests.
func eventually(t testing.TB, check func() string) {
	t.Helper()
	last, deadline := "", time.Now().Add(dispatchtest.Patience)
	for {
		problem := check()
		if problem == "" {
			return
		}
		if problem != last {
			last, deadline = problem, time.Now().Add(dispatchtest.Patience)
		}
		if time.Now().After(deadline) {
			require.FailNow(t, problem)
		}
		require.NoError(t, operate.Rest(t.Context(), 10*time.Millisecond))
	}
}

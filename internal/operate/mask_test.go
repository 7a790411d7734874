package operate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// echo is a receiver that repeats what it gets in its status line, its headers and its body.
func echo(t *testing.T, got chan<- string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		select {
		case got <- string(body):
		default:
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 422 no %s\r\nX-Echo: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", body, body, len(body), body)
	}))
	t.Cleanup(s.Close)
	return s
}

// shows returns everything that operators are shown, as JSON.
func shows(t *testing.T, db operate.DB) string {
	t.Helper()
	var all strings.Builder
	add := func(v any, err error) {
		t.Helper()
		require.NoError(t, err)
		e := json.NewEncoder(&all)
		e.SetEscapeHTML(false)
		require.NoError(t, e.Encode(v))
	}
	page, err := operate.List(t.Context(), db, operate.Filter{}, operate.ListOptions{Payload: true, Last: true, Limit: 1000})
	add(page, err)
	for i := range page.Events {
		d, err := operate.Show(t.Context(), db, page.Events[i].ID)
		add(d, err)
	}
	require.NoError(t, operate.Export(t.Context(), db, operate.Filter{}, func(e operate.Event) error { add(e, nil); return nil }))
	ctx, stop := context.WithCancel(t.Context())
	n := 0
	require.NoError(t, operate.Tail(ctx, db, operate.Filter{Since: time.Now().Add(-time.Hour)}, func(e operate.Event) error {
		add(e, nil)
		if n++; n == len(page.Events) {
			stop()
		}
		return nil
	}, nil))
	stop()
	for _, by := range [][]string{{"error"}, {"trigger", "state", "error", "status", "kind"}} {
		for _, f := range []operate.Filter{{}, {States: []operate.State{operate.Dead}}} {
			groups, err := operate.GroupBy(t.Context(), db, f, by, 0)
			add(groups, err)
		}
	}
	s, err := operate.ReadStatus(t.Context(), db)
	add(s, err)
	list, err := operate.ListTriggers(t.Context(), db)
	add(list, err)
	for i := range list {
		d, err := operate.ShowTrigger(t.Context(), db, list[i].Name)
		add(d, err)
	}
	activity, err := operate.ReadActivity(t.Context(), db, operate.ActivityOptions{})
	add(activity, err)
	audit, err := operate.Audit(t.Context(), db, operate.AuditOptions{})
	add(audit, err)
	return all.String()
}

func TestWhatATriggerMasksIsShownNowhereButToTheReceiver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*trigger.Spec)
		state  operate.State
	}{
		{"retried", func(*trigger.Spec) {}, operate.Retrying},
		{"dead", func(s *trigger.Spec) { s.Retry.Limit = 0 }, operate.Dead},
		{"dead of a batch", func(s *trigger.Spec) {
			s.Retry.Limit, s.Batch = 0, trigger.Batch{Max: 10, Wait: trigger.Duration(300 * time.Millisecond)}
		}, operate.Dead},
		{"dead, and holds its key", func(s *trigger.Spec) {
			s.Retry.Limit, s.Order = 0, trigger.Order{By: []string{"id", "email"}, OnDead: trigger.OnDeadBlock}
		}, operate.Dead},
		{"retried in the order of a primary key", func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} }, operate.Retrying},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			got := make(chan string, 100)
			receiver := echo(t, got)
			db.Exec(t, "create table people (id bigint, email text, profile jsonb, tags text[], note text, primary key (id, email))")
			spec := dispatchtest.Spec("people", receiver.URL, c.change)
			spec.Breaker = trigger.BreakerOff
			spec.Payload.Mask = []string{"email", "profile.city", "tags.*"}
			dispatchtest.Apply(t, db, spec)
			var log lockedBuffer
			var told lockedBuffer
			dispatchtest.Run(t, dispatcher.Config{
				DatabaseURL: db.URL(), Version: "v1", Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
				Observers: []dispatcher.Observer{{Attempted: func(a dispatcher.Attempt) { fmt.Fprintln(&told, a.Result.Err) }}},
			})
			conn := db.Conn(t)
			db.Exec(t, `insert into people values (7, 'secret1@example.com', '{"city": "secret2", "zip": "open1"}', '{secret3, secret3}', 'open2'), (8, 'secret4@example.com', null, null, null)`)
			body := ""
			for !strings.Contains(body, `"id":7`) || !strings.Contains(body, `"id":8`) {
				body += <-got
			}
			for _, sent := range []string{"secret1@example.com", `"secret2"`, `"secret3","secret3"`, "open1", "open2"} {
				require.Contains(t, body, sent, "the receiver gets all of it")
			}
			require.Eventually(t, func() bool {
				page, err := operate.List(t.Context(), conn, operate.Filter{States: []operate.State{c.state}}, operate.ListOptions{})
				var kept bool
				known := conn.QueryRow(t.Context(), `select exists (select from rowhook.invocation_log where response_body like '%secret1%')
					and exists (select from rowhook.activity where error is not null)`).Scan(&kept)
				return err == nil && len(page.Events) == 2 && known == nil && kept
			}, patience, 20*time.Millisecond, "the attempts are in the log")
			// As an earlier version, or one without the mask, has written it.
			db.Exec(t, "update rowhook.invocation_log set error = 'answered 422 no secret1@example.com'")
			db.Exec(t, "update rowhook.dead_letter set reason = 'answered 422 no secret1@example.com'")
			db.Exec(t, "update rowhook.activity set error = 'answered 422 no secret1@example.com' where error is not null")
			db.Exec(t, `insert into rowhook.health (target, trigger_id, triggers, endpoint, webhook, state, since, reason, probe_at)
				select 'http://x', null, array[id], 'http://x', null, 'failing', now(), 'malformed HTTP response "secret1"', now() + interval '1 hour' from rowhook.trigger`)
			db.Exec(t, `insert into rowhook.alert (destination, kind, subject, endpoint, active, begun_at, facts, told, told_at, again, pending, attempts)
				values ('d', 'dead', 'people', 'http://x', true, now(), '{"reason": "answered 422 no secret1"}', 'begun', now(), 0, '', 0)`)

			text := shows(t, conn)
			require.NotContains(t, text, "secret", "what is masked is shown")
			for _, shown := range []string{"open1", "open2", `"email":"<masked>"`, `"city":"<masked>"`, `["<masked>","<masked>"]`, "answered 422", `"masked":["email","profile.city","tags.*"]`} {
				require.Contains(t, text, shown)
			}
			require.NotContains(t, log.String(), "secret", "the log shows it")
			require.Contains(t, log.String(), "answered 422")
			require.NotContains(t, told.String(), "secret", "traces and other observers are told it")

			// A removed trigger keeps its mask, and a trigger whose mask is taken away shows what it masked.
			dispatchtest.Apply(t, db)
			require.NotContains(t, shows(t, conn), "secret")
			spec.Payload.Mask = nil
			dispatchtest.Apply(t, db, spec)
			require.Contains(t, shows(t, conn), "secret1@example.com")
		})
	}
}

func TestAMaskChangesNoSQLTrigger(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	made := func() string {
		return d.ids(t, "select string_agg(pg_get_triggerdef(t.oid) || t.xmin::text, '' order by t.oid) from pg_trigger t where tgrelid = 'a'::regclass")[0]
	}
	before := made()
	a := d.Spec("a")
	a.Payload.Mask = []string{"v"}
	d.Apply(t, a)
	require.Equal(t, before, made())
}

func TestFiltersCanNotTellWhatIsMasked(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	a := d.Spec("a")
	a.Payload.Mask = []string{"v", "n.city"}
	d.Apply(t, a, d.Spec("b"))
	ids := d.bury(t, "a", 2)
	d.bury(t, "b", 3)
	d.do(t, "update rowhook.dead_letter set reason = 'answered 422 secret of it' where id = $1::text::uuid", ids[0])
	for filter, want := range map[string]string{
		"new.v=1": "masks it", "old.v=1": "masks it", "new.n=1": "masks it", "new.n.city=x": "masks it", "new.v.x=1": "masks it",
		"$.new ? (@.kind == \"dead\")": "a JSON path could reach", "$.trace_context": "a JSON path could reach",
	} {
		f := operate.Filter{Payload: filter}
		_, err := operate.List(t.Context(), d.conn, f, operate.ListOptions{})
		require.ErrorIs(t, err, operate.ErrRefused, filter)
		require.ErrorContains(t, err, want, filter)
		_, err = operate.Count(t.Context(), d.conn, f, 0)
		require.ErrorIs(t, err, operate.ErrRefused, filter)
		_, err = operate.GroupBy(t.Context(), d.conn, f, []string{"trigger"}, 0)
		require.ErrorIs(t, err, operate.ErrRefused, filter)
		_, err = operate.Discard(t.Context(), d.conn, f, operate.BulkOptions{})
		require.ErrorIs(t, err, operate.ErrRefused, filter)
		_, err = operate.Redeliver(t.Context(), d.conn, f, operate.BulkOptions{})
		require.ErrorIs(t, err, operate.ErrRefused, filter)
		require.ErrorIs(t, operate.Tail(t.Context(), d.conn, f, func(operate.Event) error { return nil }, nil), operate.ErrRefused, filter)
		f.Triggers = []string{"b"}
		_, err = operate.List(t.Context(), d.conn, f, operate.ListOptions{})
		require.NoError(t, err, "another trigger masks nothing")
	}
	count := func(f operate.Filter) int64 {
		n, err := operate.Count(t.Context(), d.conn, f, 0)
		require.NoError(t, err)
		return n.Events
	}
	require.EqualValues(t, 5, count(operate.Filter{Payload: "new.kind=dead"}), "what is not masked is found")
	require.Zero(t, count(operate.Filter{Error: "secret of it"}), "an error is searched as it is shown")
	require.EqualValues(t, 1, count(operate.Filter{Error: "answered 422"}))
	require.EqualValues(t, 4, count(operate.Filter{Error: "answered 500"}))
	require.Equal(t, 3, d.count(t, "rowhook.dead_letter where trigger_id = (select id from rowhook.trigger where name = 'b')"), "nothing was changed")
}

func TestAMaskThatCanNotBeReadMasksEverything(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	id := d.bury(t, "a", 1)[0]
	d.do(t, `update rowhook.trigger set spec = jsonb_set(spec, '{payload}', '{"mask": "v"}')`)
	_, err := operate.Show(t.Context(), d.conn, id)
	require.Error(t, err, "a spec that is no spec is told")
	d.do(t, `update rowhook.trigger set spec = jsonb_set(spec, '{payload}', '{"mask": ["v*"]}')`)
	got, err := operate.Show(t.Context(), d.conn, id)
	require.NoError(t, err)
	require.JSONEq(t, `{"v": "<masked>", "kind": "<masked>"}`, string(got.Payload.New))
}

func TestATestOfATriggerShowsTheRequestWithItsMask(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	got := make(chan string, 10)
	receiver := echo(t, got)
	dispatchtest.Apply(t, db) // the schema
	db.Exec(t, "create table people (id bigint primary key, email text)")
	spec := dispatchtest.Spec("people", receiver.URL)
	spec.Payload.Mask = []string{"email"}
	dispatchtest.Apply(t, db, spec)
	o := operate.Trial{Trigger: "people", Payload: json.RawMessage(`{"id": 7, "email": "secret@example.com"}`), Source: variables(nil)}
	r, err := operate.Try(t.Context(), db.Conn(t), o)
	require.NoError(t, err)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.NotContains(t, string(text), "secret")
	require.Contains(t, string(r.Request.Body), `"email": "<masked>"`)
	require.Equal(t, "answered 422", r.Error)
	require.Contains(t, <-got, "secret@example.com", "the receiver gets it")
}

func TestWhatATemplateTakesOfAMaskedColumnIsMasked(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	got := make(chan string, 10)
	receiver := echo(t, got)
	dispatchtest.Apply(t, db) // the schema
	db.Exec(t, "create table people (id bigint primary key, email text)")
	spec := dispatchtest.Spec("people", receiver.URL)
	spec.Payload.Mask, spec.Retry.Limit = []string{"email"}, 0
	spec.Webhook.URL += "/$new.email/x"
	spec.Webhook.Headers = map[string]string{"X-Person": "$new.email"}
	spec.Webhook.Query = map[string]string{"q": "${new.email}"}
	spec.Webhook.Body = trigger.Body(`{"text": "${new.email} has ${new.id}", "email": "$new.email"}`)
	dispatchtest.Apply(t, db, spec)
	dispatchtest.Run(t, dispatcher.Config{DatabaseURL: db.URL(), Version: "v1"})
	conn := db.Conn(t)
	db.Exec(t, "insert into people values (7, 'secret@example.com')")
	require.Contains(t, <-got, "secret@example.com has 7")
	require.Eventually(t, func() bool {
		page, err := operate.List(t.Context(), conn, operate.Filter{States: []operate.State{operate.Dead}}, operate.ListOptions{})
		return err == nil && len(page.Events) == 1
	}, patience, 20*time.Millisecond)
	text := shows(t, conn)
	require.NotContains(t, text, "secret")
	require.Contains(t, text, `"text":"<masked> has 7","email":"<masked>"`)
	require.Contains(t, text, `"X-Person":"<masked>"`)
	r, err := operate.Try(t.Context(), conn, operate.Trial{Trigger: "people", Source: variables(nil), Unsent: true, Real: true})
	require.NoError(t, err)
	require.Equal(t, operate.DataEvent, r.Data)
	shown, err := json.Marshal(r)
	require.NoError(t, err)
	require.NotContains(t, string(shown), "secret")
}

func TestARequestIsTrimmedBeforeItIsMasked(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	a := d.Spec("a")
	a.Payload.Mask, a.Payload.Old, a.Payload.Changed = []string{"v"}, trigger.OldChanged, true
	d.Apply(t, a)
	id := d.bury(t, "a", 1)[0]
	d.do(t, `update rowhook.dead_letter set op = 'U', old = '{"id": 1, "v": "secret1", "n": 2}', new = '{"id": 1, "v": "secret2", "n": 2}'`)
	got, err := operate.Show(t.Context(), d.conn, id)
	require.NoError(t, err)
	require.Contains(t, string(got.Request.Body), `"changed":["v"],"data":{"old":{"v":"<masked>"},"new":{"id": 1, "v": "<masked>", "n": 2}}`)
	require.NotContains(t, string(got.Request.Body), "secret")
	r, err := operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "a", Source: variables(nil), Unsent: true, Real: true})
	require.NoError(t, err)
	require.Contains(t, string(r.Request.Body), `"changed":["v"],"data":{"old":{"v":"<masked>"},"new":{"id": 1, "v": "<masked>", "n": 2}}`)
}

func TestAReplayToAnotherURLShowsNothingOfWhatIsMasked(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	a := d.Spec("a")
	a.Payload.Mask = []string{"v"}
	d.Apply(t, a)
	d.archive(t, "a", 1)
	d.do(t, `update rowhook.event_archive set new = '{"v": "secret"}'`)
	got := make(chan string, 1)
	o := operate.ReplayTo{Trigger: "a", From: time.Now().Add(-time.Hour), URL: echo(t, got).URL, Source: variables(nil)}
	r, err := o.Send(t.Context(), d.conn)
	require.NoError(t, err)
	require.Contains(t, <-got, "secret")
	require.Len(t, r.Failures, 1)
	require.Equal(t, "answered 422", r.Failures[0].Error)
}

func TestKeysAreMaskedIfTheKeyOfAnyTableIs(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	dispatchtest.Apply(t, db) // the schema
	db.Exec(t, "create table a (id bigint primary key, email text); create table b (id bigint, email text primary key)")
	var specs []trigger.Spec
	masked := map[string]bool{"both_email": true, "both_id": true, "both_note": false, "one_email": false, "one_id": true}
	for _, name := range slices.Sorted(maps.Keys(masked)) {
		tables, column, _ := strings.Cut(name, "_")
		specs = append(specs, dispatchtest.Spec(name, "http://127.0.0.1:9", func(s *trigger.Spec) {
			s.Table, s.Order.By, s.Payload.Mask = "public.a", []string{trigger.OrderByRow}, []string{column}
			if tables == "both" {
				s.Table, s.Tables = "", []string{"public.a", "public.b"}
			}
		}))
	}
	db.Exec(t, "alter table a add note text")
	dispatchtest.Apply(t, db, specs...)
	db.Exec(t, "insert into a values (7, 'x')")
	page, err := operate.List(t.Context(), db.Conn(t), operate.Filter{}, operate.ListOptions{})
	require.NoError(t, err)
	require.Len(t, page.Events, len(masked))
	for _, e := range page.Events {
		if masked[e.Trigger] {
			require.Equal(t, `"<masked>"`, e.Key, e.Trigger)
		} else {
			require.Contains(t, e.Key, "7]", e.Trigger)
		}
	}
}

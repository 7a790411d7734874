package dispatcher_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestDeliversChangesByteForByte(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	conn := b.Conn(t)
	for i, sql := range []string{
		`insert into orders (v, n) values ('Zoë "x"', 1.10)`,
		`update orders set n = 123456789012345678901234567890.5`,
		`delete from orders`,
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err)
		b.receiver.await(t, "orders", i+1)
	}
	rows := []string{"null", `{"id":1,"v":"Zoë \"x\"","n":1.10}`, `{"id":1,"v":"Zoë \"x\"","n":123456789012345678901234567890.5}`, "null"}
	for i, d := range b.receiver.await(t, "orders", 3) {
		var created struct {
			At string `json:"created_at"`
		}
		require.NoError(t, json.Unmarshal([]byte(d.body), &created))
		require.Equal(t, `{"id":"`+d.id+`","created_at":"`+created.At+`","table":{"schema":"public","name":"orders"},`+
			`"trigger":{"name":"orders"},"event":{"op":"`+[]string{"INSERT", "UPDATE", "DELETE"}[i]+`","data":{"old":`+rows[i]+`,"new":`+rows[i+1]+`},`+
			`"session_variables":null,"trace_context":null},"delivery_info":{"current_retry":0,"max_retries":12}}`, d.body)
		at, err := time.Parse("2006-01-02T15:04:05.000000Z", created.At)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at, time.Minute)
		require.Equal(t, "application/json", d.header.Get("Content-Type"))
	}
	b.settled(t)
	require.Equal(t, 3, one[int](t, conn, "select count(*) from rowhook.event_archive"))
	require.Equal(t, 3, one[int](t, conn, "select count(*) from rowhook.invocation_log where status = 200 and attempt = 1"))
}

// A test that rolls back looks at the body that it would have got otherwise.
func TestRecordedTellsTheBodyThatIsSentByteForByte(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Limit, s.On.Manual = 7, true })
	b.start(t)
	conn := b.Conn(t)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	for _, sql := range []string{
		"set local timezone to 'Asia/Kathmandu'", `set local rowhook.session = '{"x":  1}'`, "set local rowhook.trace_context = 'plain \"text\"'",
		`insert into orders (v, n) values (E'Zoë "x" \\ \t', 1.10)`, "update orders set n = 123456789012345678901234567890.5", "delete from orders",
		`select rowhook.emit('orders', '{ "a" : 1.0 }')`,
	} {
		_, err := tx.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	rows, err := tx.Query(t.Context(), "select body::text from rowhook.recorded('orders')")
	require.NoError(t, err)
	bodies, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	var sent []string
	for _, d := range b.receiver.await(t, "orders", 4) {
		sent = append(sent, d.body)
	}
	require.ElementsMatch(t, bodies, sent)
}

func TestCarriesSessionVariablesAndTraceContext(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	conn := b.Conn(t)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	for _, sql := range []string{`set local rowhook.session = '{"x-hasura-role": "user"}'`, `set local hasura.tracecontext = '{"trace_id": "1"}'`, "insert into orders default values"} {
		_, err := tx.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit(t.Context()))
	require.Contains(t, b.receiver.await(t, "orders", 1)[0].body, `"session_variables":{"x-hasura-role": "user"},"trace_context":{"trace_id": "1"}}`)
}

func TestNothingWaitsForThePollWhileTheDoorbellGoesSilentAndBack(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	conn := b.Conn(t)
	var wg sync.WaitGroup
	const writers, each = 8, 300
	ended := make(chan error, writers)
	for range writers {
		wg.Go(func() {
			pool := b.Conn(t)
			// Its insert is silent or not, whatever the doorbell says just then; its commit comes
			// seconds after the others'.
			if _, err := pool.Exec(t.Context(), "begin; insert into orders (v) values ('late')"); err != nil {
				ended <- err
				return
			}
			busy := b.Conn(t)
			for range each {
				if _, err := busy.Exec(t.Context(), "insert into orders default values"); err != nil {
					ended <- err
					return
				}
			}
			_, err := pool.Exec(t.Context(), "select pg_sleep(1.5); insert into orders (v) values ('late'); commit")
			ended <- err
		})
	}
	wg.Wait()
	for range writers {
		require.NoError(t, <-ended)
	}
	b.receiver.await(t, "orders", writers*(each+2))
	b.settled(t)
	require.Equal(t, writers*(each+2), b.receiver.unique("orders"))
	require.Len(t, b.receiver.on("orders"), writers*(each+2), "none was sent twice")
	eventually(t, conn, 1, "select last_value::integer from rowhook.doorbell")
	late := one[time.Duration](t, conn, `
select max(l.started_at - pg_xact_commit_timestamp(o.xmin))
  from orders o
  join rowhook.event_archive a on (a.new->>'id')::bigint = o.id
  join rowhook.invocation_log l on l.event_id = a.id`)
	t.Logf("the latest was sent %s after its commit", late) // within 250 ms on a machine that does nothing else
	require.Less(t, late, patience, "the interval poll, of an hour, is not what finds it")
}

func TestATransactionThatReadSilenceIsFoundWhenItCommits(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	conn, writer := b.Conn(t), b.Conn(t)
	eventually(t, conn, 1, "select last_value::integer from rowhook.doorbell")
	// Silence in this dispatcher's own name, unknown to it: the transaction reads silence and then
	// waits.
	_, err := conn.Exec(t.Context(), "select setval('rowhook.doorbell', (select id from rowhook.instance))")
	require.NoError(t, err)
	tx, err := writer.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into orders default values")
	require.NoError(t, err)
	eventually(t, conn, 1, "select last_value::integer from rowhook.doorbell") // its watch found out
	// Now armed: a dispatcher that took the snapshot's xmax for the horizon would be asleep, for
	// this is the latest transaction.
	_, err = conn.Exec(t.Context(), "select pg_sleep(0.5)")
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	b.receiver.await(t, "orders", 1)
}

func TestRetriesOnScheduleAndLogsEachAttempt(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	second := func(s *trigger.Spec) {
		s.Retry = trigger.Retry{Limit: 2, Interval: trigger.Duration(time.Second), Backoff: trigger.BackoffFixed, MaxInterval: trigger.Duration(time.Minute)}
		s.Webhook.Timeout = trigger.Duration(patience)
	}
	status := func(code int, header ...string) func(int, delivery, http.ResponseWriter, *http.Request) {
		return func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) {
			if len(header) == 2 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(code)
		}
	}
	for name, c := range map[string]struct {
		change   func(*trigger.Spec)
		answer   func(int, delivery, http.ResponseWriter, *http.Request)
		attempts string // status or kind of each
		spacing  time.Duration
		dead     string // reason
	}{
		"fails_then_works": {second, func(n int, _ delivery, w http.ResponseWriter, _ *http.Request) {
			if n < 2 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}, "500,500,200", time.Second, ""},
		"always_fails": {second, status(503), "503,503,503", time.Second, "503"},
		"retry_after": {second, func(n int, _ delivery, w http.ResponseWriter, _ *http.Request) {
			if n == 0 {
				w.Header().Set("Retry-After", "2")
				w.WriteHeader(http.StatusTooManyRequests)
			}
		}, "429,200", 2 * time.Second, ""},
		"retry_after_date": {second, func(n int, _ delivery, w http.ResponseWriter, _ *http.Request) {
			if n == 0 {
				now := time.Now().UTC()
				w.Header().Set("Date", now.Format(http.TimeFormat))
				w.Header().Set("Retry-After", now.Add(2*time.Second).Format(http.TimeFormat))
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}, "503,200", 2 * time.Second, ""},
		"retry_after_nothing": {second, func(n int, _ delivery, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", []string{"0", "Mon, 23 Nov 2015 12:00:00 GMT"}[n%2])
			w.WriteHeader(http.StatusServiceUnavailable)
		}, "503,503,503", time.Second, "503"},
		"broken_body": {second, func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("abc"))
		}, "200", 0, ""},
		"hangs": {func(s *trigger.Spec) {
			second(s)
			s.Webhook.Timeout = trigger.Duration(300 * time.Millisecond)
		}, func(_ int, _ delivery, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "timeout,timeout,timeout", 1300 * time.Millisecond, "no response within 300ms"},
		"redirects": {second, status(302, "Location", "/elsewhere"), "302,302,302", time.Second, "302"},
		"down": {func(s *trigger.Spec) {
			second(s)
			s.Webhook.URL = "http://127.0.0.1:1/"
		}, nil, "refused,refused,refused", time.Second, "refused"},
		"no_retries": {func(s *trigger.Spec) {
			second(s)
			s.Retry.Limit = 0
		}, status(500), "500", 0, "500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.receiver.respond(c.answer)
			b.watch(t, name, c.change)
			waits := make(chan time.Duration, 10) // until the next attempt, as each attempt that failed decided
			r := b.start(t, observing(dispatcher.Observer{Attempted: func(a dispatcher.Attempt) {
				if a.Outcome == dispatcher.Retried {
					waits <- a.RetryIn
				}
			}}))
			b.Exec(t, "insert into "+name+" default values")
			conn := b.Conn(t)
			b.settled(t)
			require.Equal(t, c.attempts, one[string](t, conn,
				"select string_agg(coalesce(status::text, error_kind), ',' order by attempt) from rowhook.invocation_log"))
			rows, err := conn.Query(t.Context(), "select extract(epoch from started_at - lag(started_at) over (order by attempt))::float8 from rowhook.invocation_log order by attempt offset 1")
			require.NoError(t, err)
			for rows.Next() {
				var gap float64
				require.NoError(t, rows.Scan(&gap))
				require.GreaterOrEqual(t, gap, c.spacing.Seconds()-0.01)
				wait := <-waits
				require.LessOrEqual(t, wait.Seconds(), gap+0.01)
				// A timeout of 300 ms is in the gap and not in the wait.
				require.GreaterOrEqual(t, wait, c.spacing-300*time.Millisecond)
				require.LessOrEqual(t, wait, c.spacing+time.Second)
			}
			require.NoError(t, rows.Err())
			require.Empty(t, waits)
			require.Equal(t, c.dead == "", one[bool](t, conn, "select exists (select from rowhook.event_archive)"))
			if c.dead != "" {
				require.Contains(t, one[string](t, conn, "select reason from rowhook.dead_letter"), c.dead)
			}
			for i, d := range b.receiver.on(name) {
				require.Equal(t, i, d.retry)
			}
			require.Empty(t, b.receiver.on("elsewhere"))
			failures := strings.Count(c.attempts, ",") + 1
			if c.dead == "" {
				failures--
			}
			require.Equal(t, min(failures, 1), strings.Count(r.log.String(), "a trigger's attempts are failing: counts follow"), r.log.String())
		})
	}
}

// No hanging attempt ends before all events of the other trigger are delivered. An event that waited
// for one would come after the test's patience.
func TestAnEndpointThatHangsDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.receiver.respond(func(_ int, d delivery, _ http.ResponseWriter, r *http.Request) {
		if d.path == "hangs" {
			<-r.Context().Done()
		}
	})
	b.watch(t, "hangs", func(s *trigger.Spec) { s.Webhook.Timeout = trigger.Duration(10 * time.Minute) })
	b.watch(t, "works")
	var ended atomic.Int32
	r := b.start(t, func(c *dispatcher.Config) { c.GracePeriod = time.Millisecond }, observing(dispatcher.Observer{Attempted: func(a dispatcher.Attempt) {
		if a.Event.Trigger == "hangs" {
			ended.Add(1)
		}
	}}))
	b.Exec(t, "insert into hangs (v) select 'x' from generate_series(1, 20000)")
	b.receiver.await(t, "hangs", 100)
	conn := b.Conn(t)
	for i := range 50 {
		_, err := conn.Exec(t.Context(), "insert into works default values")
		require.NoError(t, err)
		b.receiver.await(t, "works", i+1)
	}
	require.Zero(t, ended.Load())
	require.Len(t, b.receiver.on("hangs"), 100, "a hanging endpoint gets no further slots")
	r.Stop(t)
}

func TestStopUnderLoadLosesNothingAndSendsNothingTwice(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.receiver.respond(func(_ int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	b.watch(t, "orders")
	const events = 3000
	conn := b.Conn(t)
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, $1)", events)
	for i := range 4 {
		r := b.start(t)
		b.receiver.await(t, "orders", min((i+1)*400, events))
		r.Stop(t)
		require.Zero(t, one[int](t, conn, "select count(*) from rowhook.event_log where claimed_by is not null"), "an event is left claimed")
		require.Zero(t, one[int](t, conn, "select count(*) from rowhook.event_log where tries > 0"), "an event that was not sent is counted")
		require.Zero(t, one[int](t, conn, "select count(*) from rowhook.instance"))
	}
	b.start(t)
	b.settled(t)
	require.Equal(t, events, b.receiver.unique("orders"))
	require.Len(t, b.receiver.on("orders"), events)
}

func TestStopGivesUpWhatHangsAfterTheGracePeriodAndItIsSentAgain(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.receiver.respond(func(n int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		if n == 0 {
			<-r.Context().Done()
		}
	})
	b.watch(t, "orders")
	r := b.start(t, func(c *dispatcher.Config) { c.GracePeriod = 200 * time.Millisecond })
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 1)
	r.Stop(t)
	conn := b.Conn(t)
	require.Equal(t, "canceled", one[string](t, conn, "select error_kind from rowhook.invocation_log"))
	require.Zero(t, one[int](t, conn, "select count(*) from rowhook.event_log where claimed_by is not null"))
	b.start(t)
	b.receiver.await(t, "orders", 2)
	b.settled(t)
}

func TestDispatchersShareADatabaseWithoutSendingTwice(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	for range 4 {
		b.start(t, func(c *dispatcher.Config) { c.Concurrency = 20 })
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			conn := b.Conn(t)
			for range 500 {
				if _, err := conn.Exec(t.Context(), "insert into orders default values"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 3000)")
	wg.Wait()
	b.receiver.await(t, "orders", 5000)
	b.settled(t)
	require.Equal(t, 5000, b.receiver.unique("orders"))
	require.Len(t, b.receiver.on("orders"), 5000)
	require.Equal(t, 5000, one[int](t, b.Conn(t), "select count(*) from rowhook.invocation_log"))
}

func TestClaimsOfADeadInstanceComeBackWithinSeconds(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 10)")
	conn := b.Conn(t)
	require.NoError(t, queue.Register(t.Context(), conn, 999, "dead", "v", true))
	got, err := queue.Claim(t.Context(), conn, queue.Claimant{Instance: 999, Number: 1}, []queue.Want{{Trigger: 1, Limit: 10, Lease: time.Hour}})
	require.NoError(t, err)
	require.Len(t, got, 10)
	b.start(t)
	for _, d := range b.receiver.await(t, "orders", 10) { // the lease, of an hour, is not what brings them back
		require.Equal(t, 1, d.retry, "the interrupted attempt counts")
	}
	eventually(t, conn, 1, "select count(*)::integer from rowhook.instance")
}

func TestClaimsOfAnInstanceWithoutALockComeBackWhenTheirLeaseEnds(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.Exec(t, "insert into orders default values")
	conn := b.Conn(t)
	require.NoError(t, queue.Register(t.Context(), conn, 999, "polls", "v", false))
	_, err := queue.Claim(t.Context(), conn, queue.Claimant{Instance: 999, Number: 1}, []queue.Want{{Trigger: 1, Limit: 1, Lease: 3 * time.Second}})
	require.NoError(t, err)
	claimed := time.Now()
	b.start(t)
	require.GreaterOrEqual(t, b.receiver.await(t, "orders", 1)[0].at.Sub(claimed), 2900*time.Millisecond)
}

func TestALostDoorbellIsFoundBySilentInstancesThatDied(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	conn := b.Conn(t)
	eventually(t, conn, 1, "select last_value::integer from rowhook.doorbell")
	_, err := conn.Exec(t.Context(), "select setval('rowhook.doorbell', 999)") // no such instance
	require.NoError(t, err)
	b.Exec(t, "insert into orders default values") // rings for nobody
	b.receiver.await(t, "orders", 1)
	eventually(t, conn, 1, "select last_value::integer from rowhook.doorbell")
}

func TestConfigurationChangesReachARunningDispatcher(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	conn := b.Conn(t)

	// A trigger that it does not know.
	b.watch(t, "bills")
	b.Exec(t, "insert into bills default values")
	b.receiver.await(t, "bills", 1)

	// A new URL, also for what waits.
	b.apply(t, b.Spec("orders", func(s *trigger.Spec) { s.Webhook.URL = b.receiver.URL + "/moved" }))
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "moved", 1)
	require.Empty(t, b.receiver.on("orders"))

	// Paused: recorded, not sent. Resumed: sent at once.
	pause := func(paused bool) {
		b.Exec(t, "update rowhook.trigger set paused = $1 where name = 'orders'", paused)
		b.Exec(t, "update rowhook.setting set value = to_jsonb((value #>> '{}')::bigint + 1) where name = 'generation'")
		b.Exec(t, "select pg_notify('rowhook', 'config')")
	}
	pause(true)
	b.Exec(t, "insert into bills default values") // when this has arrived the pause was loaded
	b.receiver.await(t, "bills", 2)
	b.Exec(t, "insert into orders default values")
	b.Exec(t, "insert into bills default values")
	b.receiver.await(t, "bills", 3)
	require.Len(t, b.receiver.on("moved"), 1)
	eventually(t, conn, 1, "select count(*)::integer from rowhook.event_log")
	pause(false)
	b.receiver.await(t, "moved", 2)

	// A renamed table.
	b.Exec(t, `alter table orders rename to "Ord ers"`)
	b.Exec(t, `insert into "Ord ers" default values`)
	require.Contains(t, b.receiver.await(t, "moved", 3)[2].body, `"table":{"schema":"public","name":"Ord ers"}`)
}

func TestGenerationIsNoticedWhereTheNotificationWasLost(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	b.Exec(t, "update rowhook.trigger set spec = jsonb_set(spec, '{webhook,url}', to_jsonb($1::text))", b.receiver.URL+"/moved")
	b.Exec(t, "update rowhook.setting set value = to_jsonb((value #>> '{}')::bigint + 1) where name = 'generation'")
	conn := b.Conn(t)
	require.Eventually(t, func() bool {
		_, err := conn.Exec(t.Context(), "insert into orders default values")
		return err == nil && len(b.receiver.on("moved")) > 0
	}, patience, 50*time.Millisecond)
}

func TestLargePayloadsAreDeliveredWhole(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t, func(c *dispatcher.Config) { c.PayloadMemory = 1 << 20 }) // less than one of them
	b.Exec(t, "insert into orders (v) select string_agg(md5(random()::text), '') from generate_series(1, 50000) i, generate_series(1, 6) e group by e")
	got := b.receiver.await(t, "orders", 6)
	conn := b.Conn(t)
	for _, d := range got {
		var row struct {
			ID int
			V  string
		}
		raw, err := json.Marshal(d.new)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(raw, &row))
		require.Equal(t, one[string](t, conn, "select v from orders where id = $1", row.ID), row.V)
	}
	b.settled(t)
}

func TestManualEventsAreDelivered(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	b.Exec(t, `select rowhook.emit('orders', '{"hello": 1.0}')`)
	require.Equal(t, `MANUAL null {"hello": 1.0}`, b.receiver.await(t, "orders", 1)[0].event)
}

func TestMissingPartitionsAreMadeWhenTheyAreNeeded(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	today := time.Now().UTC().Format("20060102")
	b.Exec(t, fmt.Sprintf("drop table rowhook.event_archive_%s, rowhook.invocation_log_%s", today, today))
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 1)
	b.settled(t)
	require.Equal(t, 1, one[int](t, b.Conn(t), "select count(*) from rowhook.event_archive"))
	require.Equal(t, 1, one[int](t, b.Conn(t), "select count(*) from rowhook.invocation_log"))
}

func TestPollingAloneDeliversToo(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	r := b.start(t, func(c *dispatcher.Config) { c.NoListen, c.PollInterval = true, 50*time.Millisecond })
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 300)")
	b.receiver.await(t, "orders", 300)
	b.settled(t)
	require.Contains(t, r.log.String(), "found by polling")
	require.Len(t, b.receiver.on("orders"), 300)
}

func TestFallingBehindIsSaidOnceAndSoIsCatchingUp(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.receiver.respond(func(_ int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(40 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	b.watch(t, "orders")
	r := b.start(t, func(c *dispatcher.Config) { c.Concurrency, c.BatchSize = 4, 5 })
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 400)")
	b.receiver.await(t, "orders", 400)
	r.says(t, "caught up")
	require.Equal(t, 1, strings.Count(r.log.String(), "falling behind"))
	require.Equal(t, 1, strings.Count(r.log.String(), "caught up"))
	require.Regexp(t, "raise --(concurrency|batch-size)", r.log.String()) // which, depends on what else the machine does
}

func TestRunSaysWhyItCantStart(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	run := func(url string) error {
		d, err := dispatcher.New(dispatcher.Config{DatabaseURL: url})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return d.Run(ctx)
	}
	b.Exec(t, "update rowhook.schema_version set version = 99; update rowhook.setting set value = '99' where name = 'compatible'")
	var newer *sqlschema.NewerSchemaError
	require.ErrorAs(t, run(b.URL()), &newer)
	b.Exec(t, "drop schema rowhook cascade")
	require.ErrorContains(t, run(b.URL()), `run "rowhook apply"`)
	_, err := dispatcher.New(dispatcher.Config{Concurrency: -1})
	require.ErrorContains(t, err, "negative")
}

func TestEventsOfRemovedTriggersBecomeDeadLetters(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	conn, late := b.Conn(t), b.Conn(t)
	tx, err := late.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select rowhook.emit('orders', '1')") // takes no lock on the table
	require.NoError(t, err)
	_, err = sqlschema.Apply(t.Context(), conn, nil, trigger.DefaultSettings(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	b.start(t)
	eventually(t, conn, 1, "select count(*)::integer from rowhook.dead_letter where reason = 'trigger removed'")
	require.Empty(t, b.receiver.on("orders"))
}

func TestNetworkRulesOfTheConfigurationReachARunningDispatcher(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) {
		s.Retry.Interval = trigger.Duration(50 * time.Millisecond)
		s.Retry.Limit = 1000
	})
	b.start(t)
	conn := b.Conn(t)
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 1)

	settings := trigger.DefaultSettings()
	network := func(deny, allow []string) {
		settings.Network = trigger.Network{Deny: deny, Allow: allow}
		_, err := sqlschema.Apply(t.Context(), conn, []trigger.Spec{b.Spec("orders", func(s *trigger.Spec) {
			s.Retry.Interval = trigger.Duration(50 * time.Millisecond)
			s.Retry.Limit = 1000
		})},
			settings, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
	}
	network([]string{"loopback"}, nil)
	generation := one[int](t, conn, "select (value #>> '{}')::integer from rowhook.setting where name = 'generation'")
	require.Positive(t, generation)
	require.Eventually(t, func() bool { // the connection that is open is not used any more, once the configuration is loaded
		b.Exec(t, "insert into orders default values")
		return one[int](t, conn, "select count(*) from rowhook.invocation_log where error_kind = 'denied'") > 0
	}, patience, 50*time.Millisecond)
	denied := len(b.receiver.on("orders"))
	network([]string{"loopback"}, []string{"127.0.0.1"})
	b.receiver.await(t, "orders", denied+1)
	b.settled(t)
}

package dispatcher_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// statuses makes rules: "404", "dead", "500-599", "retry".
func statuses(t *testing.T, pairs ...string) trigger.Statuses {
	t.Helper()
	var s trigger.Statuses
	for pair := range slices.Chunk(pairs, 2) {
		r, err := trigger.ParseStatuses(pair[0])
		require.NoError(t, err)
		r.Then = pair[1]
		s = s.Set(r)
	}
	return s
}

// quick retries soon.
func quick(limit int, change ...func(*trigger.Spec)) func(*trigger.Spec) {
	return func(s *trigger.Spec) {
		s.Retry.Limit, s.Retry.Interval, s.Retry.Backoff = limit, trigger.Duration(10*time.Millisecond), trigger.BackoffFixed
		for _, f := range change {
			f(s)
		}
	}
}

// answerN answers an event with the status that is its column n.
func answerN(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
	if n, err := strconv.Atoi(string(d.new["n"])); err == nil && n > 0 {
		w.WriteHeader(n)
	}
}

func TestAnAnswerEndsTheRetries(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "ends", quick(2, func(s *trigger.Spec) {
		s.Retry.Statuses = statuses(t, "400-499", "dead", "408", "retry", "503", "dead", "429", "retry")
		s.Breaker = trigger.BreakerOff
	}))
	b.receiver.respond(answerN)
	b.start(t)
	b.Exec(t, "insert into ends (n) values (404), (499), (408), (503), (500), (0)")
	b.settled(t)
	conn := b.Conn(t)
	dead := func(n int) string {
		return one[string](t, conn, "select tries::text || ' ' || reason from rowhook.dead_letter where new ->> 'n' = $1::text", strconv.Itoa(n))
	}
	require.Contains(t, dead(404), "1 answered 404 Not Found, which retry.statuses calls dead")
	require.Contains(t, dead(499), "1 ")
	require.Contains(t, dead(503), "1 ")
	require.Contains(t, dead(408), "3 ")
	require.NotContains(t, dead(408), "retry.statuses")
	require.Contains(t, dead(500), "3 ")
	require.Equal(t, 5, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter"))
}

func TestABatchIsTakenApartBeforeAnAnswerEndsItsRetries(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "apart", batchOf(64, func(s *trigger.Spec) {
		s.Retry.Statuses = statuses(t, "422", "dead", "503", "dead")
		s.Breaker = trigger.BreakerOff
	}))
	takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		for _, e := range r.events {
			if n := e.Event.Data.New.N; n == 422 || n == 503 {
				w.WriteHeader(n)
				return
			}
		}
	})
	b.Exec(t, "insert into apart (n) select case g when 17 then 422 when 40 then 503 else g end from generate_series(1, 64) g")
	b.start(t)
	b.settled(t)
	conn := b.Conn(t)
	require.Equal(t, []int{422, 503}, numbersOf(t, b, "select (new ->> 'n')::integer from rowhook.dead_letter order by 1"))
	require.Equal(t, 62, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"))
}

func numbersOf(t *testing.T, b *fixture, sql string) (all []int) {
	t.Helper()
	rows, err := b.Conn(t).Query(t.Context(), sql)
	require.NoError(t, err)
	for rows.Next() {
		var n int
		require.NoError(t, rows.Scan(&n))
		all = append(all, n)
	}
	require.NoError(t, rows.Err())
	return all
}

func TestAnAnswerPausesTheTriggerAndTheEventWaitsUncounted(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*trigger.Spec){
		"single":  quick(0),
		"ordered": quick(0, func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} }),
		"batched": batchOf(10, func(s *trigger.Spec) { s.Retry.Limit = 0 }),
		"both": batchOf(10, func(s *trigger.Spec) {
			s.Retry.Limit, s.Order = 0, trigger.Order{By: []string{trigger.OrderByRow}, OnDead: trigger.OnDeadBlock}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "gone", change, func(s *trigger.Spec) { s.Retry.Statuses = statuses(t, "400-499", "dead", "410", "pause") })
			var answer atomic.Int32
			answer.Store(410)
			b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(answer.Load())) })
			first, second := b.start(t), b.start(t)
			b.Exec(t, "insert into gone (n) select generate_series(1, 20)")
			conn := b.Conn(t)
			eventually(t, conn, true, "select paused from rowhook.trigger where name = 'gone'")
			eventually(t, conn, 0, "select count(*)::integer from rowhook.event_log where claimed_by is not null")
			require.Equal(t, 20, one[int](t, conn, "select count(*)::integer from rowhook.event_log where tries = 0"), "no attempt counts, and none is dead")
			eventually(t, conn, true, "select count(*) > 0 from rowhook.invocation_log where status = 410") // the attempts are logged
			pauses, err := queue.ReadPauses(t.Context(), conn)
			require.NoError(t, err)
			require.Len(t, pauses.Triggers, 1)
			for _, p := range pauses.Triggers {
				require.Equal(t, "the receiver answered 410", p.Reason)
				require.Equal(t, 410, p.Status)
				require.Contains(t, p.By, "the dispatcher ")
				require.Contains(t, p.By, ", role ")
				require.WithinDuration(t, time.Now(), p.At, time.Minute)
			}
			require.Equal(t, 1, one[int](t, conn, "select count(*)::integer from rowhook.audit where action = 'pause' and target = '{gone}'"), "several dispatchers pause it once")
			require.Equal(t, 1, strings.Count(first.log.String()+second.log.String(), "a trigger is paused"))

			answer.Store(200)
			_, err = operate.Resume(t.Context(), b.Pool(t), "gone")
			require.NoError(t, err)
			b.settled(t)
			require.Equal(t, 20, one[int](t, conn, "select count(*)::integer from rowhook.event_archive where tries = 1"))
		})
	}
}

func TestAPauseWaitsForWhatMayPass(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*trigger.Spec){"single": quick(0), "batched": batchOf(10, func(s *trigger.Spec) { s.Retry.Limit = 0 })} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "waits", change, func(s *trigger.Spec) { s.Retry.Statuses = statuses(t, "410", "pause") })
			b.Exec(t, `
create sequence public.failures;
grant usage on sequence public.failures to public;
create function public.fails() returns trigger language plpgsql as $$
declare
  states text[] := '{40001,40P01,53200,53100,55P03,57014,25006}';
  state  text := states[nextval('public.failures')];
begin
  if state is not null then
    raise exception 'this will pass' using errcode = state;
  end if;
  return new;
end $$;
create trigger fails before update of paused on rowhook.trigger for each row execute function public.fails()`)
			b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(410) })
			r := b.start(t)
			b.Exec(t, "insert into waits (n) values (1)")
			conn := b.Conn(t)
			eventually(t, conn, true, "select paused from rowhook.trigger where name = 'waits'")
			eventually(t, conn, 1, "select count(*)::integer from rowhook.event_log where claimed_by is null and tries = 0")
			require.Equal(t, 8, one[int](t, conn, "select last_value::integer from public.failures"))
			require.Equal(t, 1, strings.Count(r.log.String(), "can't pause a trigger"), "it is said once")
			require.Contains(t, r.log.String(), "a trigger is paused")
			require.Equal(t, 1, one[int](t, conn, "select count(*)::integer from rowhook.audit where action = 'pause'"))
		})
	}
}

func TestAPauseThatTheDatabaseRefusesForGoodIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "refused", quick(1, func(s *trigger.Spec) {
		s.Retry.Statuses, s.Breaker = statuses(t, "410", "pause"), trigger.BreakerOff
	}))
	b.Exec(t, `
create function public.refuses() returns trigger language plpgsql as $$ begin raise exception 'not here' using errcode = 'insufficient_privilege'; end $$;
create trigger refuses before update of paused on rowhook.trigger for each row execute function public.refuses()`)
	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(410) })
	r := b.start(t)
	b.Exec(t, "insert into refused (n) values (1)")
	b.settled(t)
	conn := b.Conn(t)
	require.Equal(t, 2, one[int](t, conn, "select tries from rowhook.dead_letter"))
	require.False(t, one[bool](t, conn, "select paused from rowhook.trigger"))
	require.Contains(t, r.log.String(), "a trigger can't be paused")
}

func TestAnAnswerDoesNotOverruleWhoHasResumedOrChangedTheTriggerSince(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "since", quick(0, func(s *trigger.Spec) { s.Retry.Statuses = statuses(t, "410", "pause") }))
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if d.path == "since" {
			asked <- struct{}{}
			<-answer
			w.WriteHeader(410)
		}
	})
	b.start(t)
	b.Exec(t, "insert into since (n) values (1)")
	<-asked
	b.apply(t, b.Spec("since", quick(0, func(s *trigger.Spec) {
		s.Retry.Statuses = statuses(t, "410", "pause")
		s.Webhook.URL = b.receiver.URL + "/moved"
	})))
	close(answer)
	b.receiver.await(t, "moved", 1)
	b.settled(t)
	conn := b.Conn(t)
	require.False(t, one[bool](t, conn, "select paused from rowhook.trigger where name = 'since'"))
	require.Equal(t, 1, one[int](t, conn, "select tries from rowhook.event_archive"))
}

func TestADispatcherPausesOnlyWhatIsConfiguredForIt(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "never", quick(0))
	conn := b.Conn(t)
	cfg, err := queue.Load(t.Context(), conn)
	require.NoError(t, err)
	_, err = queue.PauseByAnswer(t.Context(), conn, &cfg.Triggers[0], 410)
	require.ErrorContains(t, err, "no answer of its receiver pauses")
	require.False(t, one[bool](t, conn, "select paused from rowhook.trigger"))
}

func TestASchedulesWaitsComeOneAfterAnother(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "waits", func(s *trigger.Spec) {
		s.Retry.Schedule = []trigger.Duration{0, trigger.Duration(300 * time.Millisecond), trigger.Duration(20 * time.Millisecond)}
		s.Retry.Limit, s.Retry.Interval, s.Retry.Backoff = 4, 0, ""
	})
	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	b.start(t)
	b.Exec(t, "insert into waits (n) values (1)")
	got := b.receiver.await(t, "waits", 5)
	b.settled(t)
	require.Len(t, b.receiver.on("waits"), 5)
	require.GreaterOrEqual(t, got[2].at.Sub(got[1].at), 300*time.Millisecond)
	require.Equal(t, 5, one[int](t, b.Conn(t), "select tries from rowhook.dead_letter"))
}

func TestAnEventPastItsAgeIsADeadLetterWithoutAnAttempt(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*trigger.Spec){
		"single":  quick(5),
		"ordered": quick(5, func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} }),
		"latest":  quick(5, func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}, Latest: true} }),
		"batched": batchOf(10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "old", change, func(s *trigger.Spec) { s.Retry.MaxAge = trigger.Duration(time.Hour) })
			b.Exec(t, "insert into old (n) select generate_series(1, 10)")
			b.Exec(t, "update rowhook.event_log set created_at = created_at - interval '2 hours', due_at = due_at - interval '2 hours'")
			b.Exec(t, "insert into old (n) values (11)")
			b.start(t)
			b.settled(t)
			conn := b.Conn(t)
			require.Len(t, b.receiver.on("old"), 1, "the one that is not too old")
			require.Equal(t, 10, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter where tries = 0 and reason = 'expired: it was not delivered within max_age (1h)'"))
			require.Equal(t, 0, one[int](t, conn, "select count(*)::integer from rowhook.invocation_log where event_id in (select id from rowhook.dead_letter)"))

			_, err := operate.Redeliver(t.Context(), b.Pool(t), operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
			require.NoError(t, err)
			b.settled(t)
			require.Equal(t, 0, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter"), "its age counts from the redelivery")
			require.Equal(t, 11, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"))
		})
	}
}

func TestAnExpiredEventHoldsItsKeyWhereDeadLettersDo(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "holds", quick(5, func(s *trigger.Spec) {
		s.Order, s.Retry.MaxAge = trigger.Order{By: []string{trigger.OrderByRow}, OnDead: trigger.OnDeadBlock}, trigger.Duration(time.Hour)
	}))
	b.Exec(t, "insert into holds (n) values (1)")
	b.Exec(t, "update rowhook.event_log set created_at = created_at - interval '2 hours'")
	b.Exec(t, "update holds set n = 2")
	b.start(t)
	conn := b.Conn(t)
	eventually(t, conn, 1, "select count(*)::integer from rowhook.dead_letter where blocks and reason like 'expired: %'")
	require.Equal(t, 1, one[int](t, conn, "select count(*)::integer from rowhook.event_log"))
	_, err := operate.Redeliver(t.Context(), b.Pool(t), operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
	require.NoError(t, err)
	b.settled(t)
	got := b.receiver.on("holds")
	require.Len(t, got, 2)
	require.Contains(t, got[0].event, "INSERT")
	require.Contains(t, got[1].event, "UPDATE")
}

// expiry is an age before which a busy machine makes the first attempts.
const expiry = trigger.Duration(15 * time.Second)

func TestARetryThatWouldComeTooLateExpiresInTime(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "late", func(s *trigger.Spec) {
		s.Retry.Interval, s.Retry.Backoff, s.Retry.MaxAge = trigger.Duration(time.Hour), trigger.BackoffFixed, expiry
	})
	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	b.start(t)
	b.Exec(t, "insert into late (n) values (1)")
	b.settled(t)
	require.Len(t, b.receiver.on("late"), 1)
	require.Equal(t, "1 true", one[string](t, b.Conn(t), "select tries || ' ' || (died_at - created_at < interval '30 min') from rowhook.dead_letter where reason like 'expired: %'"))
}

func TestEventsExpireWhileTheirEndpointFailsButNotWhilePaused(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	fails := func(s *trigger.Spec) { s.Retry.MaxAge = expiry }
	b.watch(t, "down", fails)
	b.watch(t, "sorted", fails, func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} })
	b.watch(t, "held", fails)
	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	b.start(t)
	pool := b.Pool(t)
	_, err := operate.Pause(t.Context(), pool, "held")
	require.NoError(t, err)
	for _, name := range []string{"down", "sorted", "held"} {
		b.Exec(t, "insert into "+name+" (n) select generate_series(1, 12)")
	}
	conn := b.Conn(t)
	eventually(t, conn, 2, "select count(*)::integer from rowhook.health where state = 'failing'")
	requests := len(b.receiver.on("down")) + len(b.receiver.on("sorted"))
	for _, name := range []string{"down", "sorted", "held"} {
		b.Exec(t, "insert into "+name+" (n) select generate_series(101, 150)")
	}
	eventually(t, conn, 124, "select count(*)::integer from rowhook.dead_letter where reason like 'expired: %'")
	// Of the first twelve, two need not have been tried: ten failures in a row hold the trigger.
	require.Equal(t, 100, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter where tries = 0 and (new ->> 'n')::integer > 100"))
	require.Less(t, len(b.receiver.on("down"))+len(b.receiver.on("sorted"))-requests, 60, "they are not tried before")
	require.Equal(t, 62, one[int](t, conn, "select count(*)::integer from rowhook.event_log"))
	_, err = operate.Resume(t.Context(), pool, "held")
	require.NoError(t, err)
	eventually(t, conn, 186, "select count(*)::integer from rowhook.dead_letter where reason like 'expired: %'")
}

func TestADelayedEventIsSentWhenItIsDue(t *testing.T) {
	t.Parallel()
	const delay = 1500 * time.Millisecond
	for name, change := range map[string]func(*trigger.Spec){
		"single":   quick(5),
		"ordered":  quick(5, func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} }),
		"columns":  quick(5, func(s *trigger.Spec) { s.Payload.Columns = []string{"id", "n"} }),
		"rows":     quick(5, func(s *trigger.Spec) { s.Capture = trigger.CaptureRows }),
		"batched":  batchOf(10),
		"by hand":  quick(5),
		"retrying": quick(5),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "later", change, func(s *trigger.Spec) { s.Delay = trigger.Duration(delay) })
			b.start(t)
			conn := b.Conn(t)
			if name == "retrying" { // another event is due long after the delayed one
				b.Exec(t, "insert into later (n) values (0)")
				b.Exec(t, "update rowhook.event_log set tries = 1, due_at = clock_timestamp() + interval '1 hour'")
				b.Exec(t, "notify rowhook, 'config'")
			}
			b.Exec(t, "insert into later (n) values (100)") // when this one is sent, the dispatcher knows of no other
			b.receiver.await(t, "later", 1)
			eventually(t, conn, true, "select count(*) = $1 from rowhook.event_log", map[bool]int{true: 1}[name == "retrying"])
			if name == "by hand" {
				b.Exec(t, `select rowhook.emit('later', '{"n": 1}')`)
			} else {
				b.Exec(t, "insert into later (n) values (1)")
			}
			got := b.receiver.await(t, "later", 2) // and not by the poll, which is an hour away
			eventually(t, conn, 2, "select count(*)::integer from rowhook.event_archive")
			wait := got[1].at.Sub(one[time.Time](t, conn, "select max(created_at) from rowhook.event_archive"))
			require.GreaterOrEqual(t, wait, delay-20*time.Millisecond)
			t.Logf("sent %v after it was due", wait-delay) // some 10 ms on a machine that is not busy
		})
	}
}

func TestATransactionSeesTheDelayedEventsThatItHasRecorded(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "mine", func(s *trigger.Spec) { s.Delay = trigger.Duration(36*time.Hour + 250*time.Millisecond) })
	b.watch(t, "sorted", func(s *trigger.Spec) {
		s.Delay, s.Order = trigger.Duration(90*time.Second), trigger.Order{By: []string{trigger.OrderByRow}}
	})
	tx, err := b.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into mine (n) values (1); insert into sorted (n) values (2)")
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRow(t.Context(), `select count(*) from rowhook.recorded()`).Scan(&n))
	require.Equal(t, 2, n)
	require.NoError(t, tx.QueryRow(t.Context(), `select count(*) from rowhook.event_log where due_at - created_at between interval '36 hours' and interval '36 hours 1 second'`).Scan(&n))
	require.Equal(t, 1, n)
	require.NoError(t, tx.Rollback(t.Context()))
}

func TestATriggerKeepsHistoryForATimeOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	none, day := trigger.Duration(0), trigger.Duration(24*time.Hour)
	b.watch(t, "nothing", func(s *trigger.Spec) { s.Retention = trigger.OwnRetention{Delivered: &none, Attempts: &none} })
	b.watch(t, "sorted", func(s *trigger.Spec) {
		s.Retention = trigger.OwnRetention{Delivered: &none}
		s.Order = trigger.Order{By: []string{trigger.OrderByRow}}
	})
	b.watch(t, "usual")
	b.watch(t, "other", func(s *trigger.Spec) { s.Retention.Attempts = &day })
	b.start(t)
	for _, name := range []string{"nothing", "sorted", "usual", "other"} {
		b.Exec(t, "insert into "+name+" (n) select generate_series(1, 10)")
	}
	b.settled(t)
	conn := b.Conn(t)
	kept := func(table string) string {
		return one[string](t, conn, `select coalesce(json_object_agg(name, n), '{}')::text from (select t.name, count(*) as n from rowhook.`+table+` h join rowhook.trigger t on t.id = h.trigger_id group by 1) as k`)
	}
	require.JSONEq(t, `{"usual": 10, "other": 10}`, kept("event_archive"))
	require.JSONEq(t, `{"sorted": 10, "usual": 10, "other": 10}`, kept("invocation_log"))
}

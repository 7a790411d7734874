package operate_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// past is the time at which the events of delivered were recorded.
var past = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// idAt is SQL for an id of the millisecond $2 + n milliseconds.
const idAt = `(lpad(to_hex((extract(epoch from $2::timestamptz) * 1000)::bigint + %s), 12, '0') || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid`

// delivered archives n events, one for each millisecond from past on. Key v of the payload is the
// number of the event. They were delivered some time ago. It returns the ids, oldest first.
func (d *desk) delivered(t *testing.T, trigger string, n int) []string {
	t.Helper()
	return d.ids(t, `
with put as (
  insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new, session, seq)
  select `+fmt.Sprintf(idAt, "i")+`, $2::timestamptz + i * interval '1 ms', now() - interval '1 minute', (select id from rowhook.trigger where name = $1), 3,
         case when i % 2 = 0 then 'I' else 'U' end::"char", json_build_object('v', i), '{"user": 7}', null
    from generate_series(0, $3::integer - 1) i returning id)
select id::text from put order by id`, trigger, past, n)
}

func all(change ...func(*operate.ReplayOptions)) operate.ReplayOptions {
	o := operate.ReplayOptions{From: past, To: past.Add(time.Hour)}
	for _, c := range change {
		c(&o)
	}
	return o
}

func asNew(o *operate.ReplayOptions)       { o.AsNew = true }
func unthrottled(o *operate.ReplayOptions) { o.Unthrottled = true }
func goOn(o *operate.ReplayOptions) {
	*o = operate.ReplayOptions{Continue: true, Unthrottled: o.Unthrottled}
}

func TestReplayPutsBackWhatWasRecordedInTheRange(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	ids := d.delivered(t, "a", 10)
	d.delivered(t, "b", 3)
	o := operate.ReplayOptions{From: past.Add(2 * time.Millisecond), To: past.Add(5 * time.Millisecond)}
	p, err := operate.PlanReplay(t.Context(), d.conn, "a", o)
	require.NoError(t, err)
	require.Equal(t, operate.Tally{Events: 3}, p.Tally)
	require.Equal(t, past, p.ReachesBackTo.UTC())
	require.Nil(t, p.Unfinished)
	s, err := operate.Replay(t.Context(), d.conn, "a", o)
	require.NoError(t, err)
	require.Equal(t, []int64{3, 3}, []int64{s.Expected, s.Replayed})
	require.NotNil(t, s.FinishedAt)
	require.Equal(t, ids[2:5], d.ids(t, "select id::text from rowhook.event_log order by id"))
	require.Equal(t, 3, d.count(t, `rowhook.event_log where tries = 0 and session->>'user' = '7' and created_at = $1::timestamptz + (new->>'v')::integer * interval '1 ms' and due_at <= now()`, past))
	require.Equal(t, 7+3, d.count(t, "rowhook.event_archive"), "an event is in one place")
	status, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), *status.Triggers[0].OldestAt, time.Minute, "what is old is the change, not the wait")
	audit, err := operate.Audit(t.Context(), d.conn, operate.AuditOptions{Actions: []string{"replay"}})
	require.NoError(t, err)
	require.Len(t, audit.Entries, 1)
	require.Equal(t, []string{"a"}, audit.Entries[0].Target)
	require.JSONEq(t, fmt.Sprintf(`{"replay": %d, "from": "2026-11-01T12:00:00.002Z", "to": "2026-11-01T12:00:00.005Z", "as_new": false, "replayed": 3, "expected": 3}`, s.ID), string(audit.Entries[0].Detail))
}

func TestReplayAsNewSendsCopies(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.delivered(t, "a", 5)
	s, err := operate.Replay(t.Context(), d.conn, "a", all(asNew, func(o *operate.ReplayOptions) { o.Ops = []string{"UPDATE"} }))
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Replayed)
	require.Equal(t, ids, d.ids(t, "select id::text from rowhook.event_archive order by id"))
	require.Equal(t, 2, d.count(t, `rowhook.event_log where id <> all($1::text[]::uuid[]) and op = 'U' and created_at < now() - interval '1 day'`, ids))
	s, err = operate.Replay(t.Context(), d.conn, "a", all(asNew, func(o *operate.ReplayOptions) { o.Payload = "new.v=4" }))
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Replayed)
	p, err := operate.PlanReplay(t.Context(), d.conn, "a", operate.ReplayOptions{From: past})
	require.NoError(t, err)
	require.EqualValues(t, 3, p.Copies)
}

func TestReplayPassesOverWhatWasNotSentItself(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.delivered(t, "a", 5)
	d.do(t, "update rowhook.event_archive set merged_into = $1::text::uuid where id = $2::text::uuid", ids[2], ids[1])
	d.do(t, "update rowhook.event_archive set delivered_at = now() + interval '1 minute' where id = $1::text::uuid", ids[3])
	_, err := operate.Erase(t.Context(), d.conn, operate.EraseOptions{Payload: []string{"new.v=4"}})
	require.NoError(t, err)
	s, err := operate.Replay(t.Context(), d.conn, "a", all())
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Replayed)
	require.Equal(t, []string{ids[0], ids[2]}, d.ids(t, "select id::text from rowhook.event_log order by id"))
}

// Each event once, whether the events are moved or copied, and however the replay ended.
func TestAReplayGoesOnWhereItWasInterrupted(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][]func(*operate.ReplayOptions){"under old ids": {unthrottled}, "as new": {unthrottled, asNew}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, "a", "b")
			d.delivered(t, "a", 3000)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := all(change...)
			o.Progress = func(s operate.ReplayStatus) {
				if s.Replayed >= 1000 {
					cancel()
				}
			}
			part, err := operate.Replay(ctx, d.conn, "a", o)
			require.ErrorIs(t, err, context.Canceled)
			require.EqualValues(t, 1000, part.Replayed)
			s, err := operate.ReadStatus(t.Context(), d.conn)
			require.NoError(t, err)
			require.Len(t, s.Replays, 1)
			require.False(t, s.Replays[0].Running, "it has said that it ends")
			_, err = operate.Replay(t.Context(), d.conn, "a", all(func(o *operate.ReplayOptions) { o.From = past.Add(time.Second) }))
			require.ErrorIs(t, err, operate.ErrRefused, "another range is another replay")
			require.ErrorContains(t, err, "--continue")

			// The second process dies.
			dies, pid := d.Conn(t), uint32(0)
			pid = dies.PgConn().PID()
			again := all(append(change, goOn)...)
			again.Progress = func(s operate.ReplayStatus) {
				if s.Replayed >= 2000 {
					d.do(t, "select pg_terminate_backend($1)", pid)
				}
			}
			_, err = operate.Replay(t.Context(), dies, "a", again)
			require.Error(t, err)
			_, err = operate.Replay(t.Context(), d.conn, "a", all(append(change, goOn)...))
			require.ErrorIs(t, err, operate.ErrBusy, "nobody knows yet that it died")
			d.do(t, "update rowhook.replay set touched_at = touched_at - interval '16 seconds'")
			whole, err := operate.Replay(t.Context(), d.conn, "a", all(append(change, goOn)...))
			require.NoError(t, err)
			require.Equal(t, part.ID, whole.ID)
			require.Equal(t, []int64{3000, 3000}, []int64{whole.Expected, whole.Replayed})
			require.Equal(t, 3000, d.count(t, "rowhook.event_log"))
			require.Equal(t, 3000, d.count(t, "(select distinct new->>'v' from rowhook.event_log) as x"))
			_, err = operate.Replay(t.Context(), d.conn, "a", all(goOn))
			require.ErrorIs(t, err, operate.ErrNotFound)
		})
	}
}

func TestATriggerHasOneReplayAtATime(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.delivered(t, "a", 1500)
	d.delivered(t, "b", 1)
	other := d.Conn(t)
	tried := false
	_, err := operate.Replay(t.Context(), d.conn, "a", all(unthrottled, func(o *operate.ReplayOptions) {
		o.Progress = func(s operate.ReplayStatus) {
			if tried || s.FinishedAt != nil {
				return
			}
			tried = true
			for _, o := range []operate.ReplayOptions{all(), all(goOn), all(func(o *operate.ReplayOptions) { o.Restart = true })} {
				_, err := operate.Replay(t.Context(), other, "a", o)
				require.ErrorIs(t, err, operate.ErrBusy)
				require.ErrorContains(t, err, "is running")
			}
			_, err := operate.Replay(t.Context(), other, "b", all())
			require.NoError(t, err)
		}
	}))
	require.NoError(t, err)
	require.True(t, tried)
	require.Equal(t, 1501, d.count(t, "rowhook.event_log"))
}

// A process that was taken for dead does not go on beside its successor.
func TestAReplayThatWasTakenUpByAnotherProcessEnds(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.delivered(t, "a", 2000)
	other := d.Conn(t)
	var second *operate.ReplayStatus
	first, err := operate.Replay(t.Context(), d.conn, "a", all(unthrottled, asNew, func(o *operate.ReplayOptions) {
		o.Progress = func(operate.ReplayStatus) {
			var err error
			_, err = other.Exec(t.Context(), "update rowhook.replay set touched_at = touched_at - interval '16 seconds'")
			require.NoError(t, err)
			second, err = operate.Replay(t.Context(), other, "a", all(unthrottled, goOn))
			require.NoError(t, err)
		}
	}))
	require.ErrorIs(t, err, operate.ErrBusy)
	require.EqualValues(t, 500, first.Replayed)
	require.EqualValues(t, 2000, second.Replayed)
	require.Equal(t, 2000, d.count(t, "rowhook.event_log"))
}

func TestAnAbandonedReplayBeginsAnew(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.delivered(t, "a", 1000)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := operate.Replay(ctx, d.conn, "a", all(unthrottled, asNew, func(o *operate.ReplayOptions) { o.Progress = func(operate.ReplayStatus) { cancel() } }))
	require.ErrorIs(t, err, context.Canceled)
	s, err := operate.Replay(t.Context(), d.conn, "a", all(unthrottled, asNew, func(o *operate.ReplayOptions) { o.Restart = true }))
	require.NoError(t, err)
	require.EqualValues(t, 1000, s.Replayed)
	require.Equal(t, 1500, d.count(t, "rowhook.event_log"))
	require.Equal(t, 2, d.count(t, "rowhook.replay where finished_at is not null"))
}

// Retention takes events away while a replay runs.
func TestAReplayEndsThoughItsEventsAreDropped(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.delivered(t, "a", 2000)
	dropped := false
	s, err := operate.Replay(t.Context(), d.conn, "a", all(unthrottled, asNew, func(o *operate.ReplayOptions) {
		o.Progress = func(operate.ReplayStatus) {
			if !dropped {
				dropped = true
				d.Exec(t, "select rowhook.remove_partition(c.relname::text) from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'rowhook.event_archive'::regclass")
			}
		}
	}))
	require.NoError(t, err)
	require.Equal(t, []int64{2000, 500}, []int64{s.Expected, s.Replayed})
	require.NotNil(t, s.FinishedAt)
}

func TestAnEventThatCanNotBePutBackCostsAReplayThatEventAlone(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.delivered(t, "a", 700)
	d.do(t, `create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'bad' using errcode = '22P05'; end $$;
create trigger refuse before insert on rowhook.event_log for each row when (new.new->>'v' in ('0', '333', '699')) execute function public.refuse()`)
	s, err := operate.Replay(t.Context(), d.conn, "a", all())
	require.NoError(t, err)
	require.Equal(t, []int64{697, 3}, []int64{s.Replayed, s.Damaged})
	require.Equal(t, 3, d.count(t, "rowhook.event_archive"))
}

func TestReplayRefuses(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	for text, o := range map[string]operate.ReplayOptions{
		"no beginning": {}, "is empty": {From: past, To: past}, "not an operation": all(func(o *operate.ReplayOptions) { o.Ops = []string{"X"} }),
		"is not understood": all(func(o *operate.ReplayOptions) { o.Payload = "v=1" }),
	} {
		_, err := operate.PlanReplay(t.Context(), d.conn, "a", o)
		require.ErrorIs(t, err, operate.ErrInvalid)
		require.ErrorContains(t, err, text)
		_, err = operate.Replay(t.Context(), d.conn, "a", o)
		require.ErrorContains(t, err, text)
	}
	_, err := operate.Replay(t.Context(), d.conn, "x", all())
	require.ErrorIs(t, err, operate.ErrNotFound)
	p, err := operate.PlanReplay(t.Context(), d.conn, "a", all())
	require.NoError(t, err)
	require.Nil(t, p.ReachesBackTo)
	require.Zero(t, p.Events)

	require.NoError(t, sqlschema.MigrateTo(t.Context(), d.Conn(t), 6, slog.New(slog.DiscardHandler)))
	for _, f := range []func() error{
		func() error { _, err := operate.PlanReplay(t.Context(), d.conn, "a", all()); return err },
		func() error { _, err := operate.Replay(t.Context(), d.conn, "a", all()); return err },
	} {
		err := f()
		require.ErrorIs(t, err, operate.ErrRefused)
		require.ErrorContains(t, err, "rowhook migrate")
	}
	_, err = operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
}

// Events of one key arrive one after another, in the order of their sequence, though their ids are
// in no order, and beside live events of the same keys.
func TestAReplayOfAnOrderedTriggerKeepsTheOrderOfEachKey(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][]func(*operate.ReplayOptions){"under old ids": nil, "as new": {asNew}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, "a")
			d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.Order.By = []string{trigger.OrderByRow} }))
			const n, keys = 200, 5
			d.do(t, `
insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, old, new, seq)
select `+fmt.Sprintf(idAt, "i / 100")+`, $2::timestamptz, now() - interval '1 minute', (select id from rowhook.trigger where name = $1), 1, 'U', json_build_object('id', i % $3, 'v', i - $3), json_build_object('id', i % $3, 'v', i), i + 1
  from generate_series(0, $4::integer - 1) i`, "a", past, keys, n)
			d.Run(t)
			d.do(t, "insert into a (id, v) overriding system value select i, 'live' from generate_series(0, $1::integer - 1) i", keys)
			s, err := operate.Replay(t.Context(), d.conn, "a", all(append(change, unthrottled)...))
			require.NoError(t, err)
			require.EqualValues(t, n, s.Replayed)
			until(t, "all are delivered", func() bool { return d.receiver.unique() == n+keys && d.count(t, "rowhook.event_log") == 0 })
			seqs := map[string]int64{}
			rows, err := d.conn.Query(t.Context(), "select id::text, seq from rowhook.event_archive where new->>'v' <> 'live'")
			require.NoError(t, err)
			for rows.Next() {
				var id string
				var seq int64
				require.NoError(t, rows.Scan(&id, &seq))
				seqs[id] = seq
			}
			require.NoError(t, rows.Err())
			last := map[int64]int64{}
			d.receiver.mu.Lock()
			defer d.receiver.mu.Unlock()
			got := slices.DeleteFunc(slices.Clone(d.receiver.order), func(id string) bool { return seqs[id] == 0 })
			require.Len(t, got, n)
			for _, id := range got {
				key := (seqs[id] - 1) % keys
				require.Greater(t, seqs[id], last[key], "key %d", key)
				last[key] = seqs[id]
			}
		})
	}
}

// Without the columns of the key all events are taken for those of one key.
func TestAReplayKeepsTheOrderWhereThePayloadLacksTheKey(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.Order.By = []string{trigger.OrderByRow} }))
	ids := d.delivered(t, "a", 20)
	d.do(t, "update rowhook.event_archive set seq = 100 - (new->>'v')::integer")
	_, err := operate.Pause(t.Context(), d.conn, "a")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	steps := 0
	_, err = operate.Replay(ctx, d.conn, "a", all(unthrottled, func(o *operate.ReplayOptions) {
		o.Progress = func(operate.ReplayStatus) {
			if steps++; steps == 5 {
				cancel()
			}
		}
	}))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{ids[19]}, d.ids(t, "select id::text from rowhook.event_log"), "the next one waits for it")
	_, err = operate.Resume(t.Context(), d.conn, "a")
	require.NoError(t, err)
	d.Run(t)
	s, err := operate.Replay(t.Context(), d.conn, "a", all(goOn))
	require.NoError(t, err)
	require.EqualValues(t, 20, s.Replayed)
	until(t, "all are delivered", func() bool { return d.receiver.unique() == 20 })
	slices.Reverse(ids)
	require.Equal(t, ids, d.receiver.order)
}

// A key of named columns is the same in all tables of a trigger, and a row's is not.
func TestAReplayKeepsTheOrderOfAKeyAcrossTheTablesOfATrigger(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		by        string
		atOnce    int // events that the first step puts back
		different string
	}{"of a column": {"v", 1, "a key of both tables"}, "of the row": {trigger.OrderByRow, 2, "rows of two tables"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, "a", "b")
			d.Apply(t, d.Spec("both", func(s *trigger.Spec) {
				s.Table, s.Tables, s.Order.By = "", []string{"public.a", "public.b"}, []string{c.by}
			}))
			d.do(t, `
insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new, seq, relation_id)
select `+fmt.Sprintf(idAt, "i")+`, $2::timestamptz, now() - interval '1 minute', (select id from rowhook.trigger where name = $1), 1, 'U', json_build_object('id', 7, 'v', 'x'), i,
       (select id from rowhook.relation where table_name = case when i % 2 = 0 then 'a' else 'b' end)
  from generate_series(1, 4) i`, "both", past)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := operate.Replay(ctx, d.conn, "both", all(unthrottled, func(o *operate.ReplayOptions) { o.Progress = func(operate.ReplayStatus) { cancel() } }))
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, c.atOnce, d.count(t, "rowhook.event_log"), c.different)
		})
	}
}

func TestAReplayOfManyEventsPutsEachBackOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	const n = 100_000
	d.delivered(t, "a", n)
	d.do(t, "analyze rowhook.event_archive")
	s, err := operate.Replay(t.Context(), d.conn, "a", all(unthrottled, func(o *operate.ReplayOptions) { o.To = past.Add(time.Hour) }))
	require.NoError(t, err)
	require.EqualValues(t, n, s.Replayed)
	require.Equal(t, n, d.count(t, "rowhook.event_log"))
	require.Zero(t, d.count(t, "rowhook.event_archive"))
}

// A receiver gets what a replay sends.
func TestReplayedEventsAreDelivered(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.Run(t)
	ids := d.delivered(t, "a", 300)
	s, err := operate.Replay(t.Context(), d.conn, "a", all())
	require.NoError(t, err)
	require.EqualValues(t, 300, s.Replayed)
	until(t, "all are delivered", func() bool { return d.receiver.unique() == 300 && d.count(t, "rowhook.event_archive") == 300 })
	for _, id := range ids {
		require.Equal(t, 1, d.receiver.got(id))
	}
	require.Zero(t, d.count(t, "rowhook.dead_letter"))
}

package operate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// remains returns the tables of the schema rowhook in which a text is.
func (d *desk) remains(t *testing.T, text string) (tables []string) {
	t.Helper()
	for _, table := range d.ids(t, "select c.relname::text from pg_class c where relnamespace = 'rowhook'::regnamespace and relkind in ('r', 'p') and not relispartition order by 1") {
		if d.count(t, "rowhook."+table+" x where position($1 in lower(x::text)) > 0", text) > 0 {
			tables = append(tables, table)
		}
	}
	return tables
}

// person puts events of a person everywhere, and as many of somebody else. It returns the ids of
// the person's: waiting, dead, delivered.
func (d *desk) person(t *testing.T, email string) (waiting, dead, delivered []string) {
	t.Helper()
	row := func(side string) string {
		return fmt.Sprintf(`%s = '{"id": 7, "customer": {"email": "%s"}}'`, side, email)
	}
	waiting = d.wait(t, "a", 2, "session = '{\"user\": \""+email+"\"}'")
	waiting = append(waiting, d.wait(t, "b", 1, "tries = 2, due_at = now() + interval '1 hour'")...)
	dead, delivered = d.bury(t, "a", 2), d.archive(t, "a", 3)
	for table, ids := range map[string][]string{"event_log": waiting, "dead_letter": dead, "event_archive": delivered} {
		d.do(t, "update rowhook."+table+" set "+row("new")+" where id = any($1::text[]::uuid[])", ids)
		d.do(t, "update rowhook."+table+" set new = null, "+row("old")+" where id = $1::text::uuid", ids[0])
	}
	d.do(t, "update rowhook.dead_letter set reason = 'answered 422 no ' || $2, key = '[\"' || $2 || '\"]' where id = any($1::text[]::uuid[])", dead, email)
	d.do(t, `
insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, error, response_headers, response_body, batch)
select id::uuid, date_trunc('hour', now()), 1, 2, 1500, 1, 422, 'answered 422 no ' || $2, json_build_object('X-Echo', $2), 'no ' || $2, 'batch_1' from unnest($1::text[]) id`,
		append(append([]string{}, dead...), delivered...), email)
	return waiting, dead, delivered
}

func TestEraseTakesAPersonOutOfQueueArchiveDeadLettersAndAttempts(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	masked := d.Spec("a")
	masked.Payload.Mask = []string{"customer.email"} // which is no hindrance
	d.Apply(t, masked, d.Spec("b"))
	const ann, ben = "ann@example.com", "ben@example.com"
	d.person(t, ben)
	waiting, dead, delivered := d.person(t, ann)
	// An event of Ben was in a batch with one of Ann, whose response names both.
	other := d.archive(t, "a", 1)[0]
	d.do(t, `insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, error, response_body, batch)
		select $1::text::uuid, date_trunc('hour', now()), 1, 2, 1500, 1, 207, null, $2, 'batch_1'`, other, ann+" and others")
	d.do(t, `insert into rowhook.activity (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error)
		values (date_trunc('minute', now()), 1, 1, 0, 1, 0, '{}', now(), 'malformed HTTP response ' || $1)`, ann)
	d.do(t, `insert into rowhook.health (target, triggers, endpoint, state, since, reason, probe_at) values ('h', '{1}', 'h', 'failing', now(), $1, now())`, "no ANN@example.com")
	d.do(t, `insert into rowhook.alert (destination, kind, subject, endpoint, active, begun_at, facts, told, told_at, again, pending, attempts)
		values ('d', 'dead', 'a', 'e', true, now(), json_build_object('reason', $1::text, 'counts', 1), 'begun', now(), 0, '', 0)`, "answered 422 no "+ann)
	odd := d.archive(t, "b", 1)[0]
	d.do(t, `update rowhook.event_archive set new = '{"a": "\u0000"}' where id = $1::text::uuid`, odd)

	o := operate.EraseOptions{Payload: []string{"new.customer.email=" + ann, "new.customer.email=nobody"}}
	plan, err := operate.PlanErase(t.Context(), d.conn, o)
	require.NoError(t, err)
	want := operate.Erasure{
		Waiting: 3, Dead: 2, Delivered: 3, Attempts: 5, Triggers: map[string]int64{"a": 7, "b": 1}, Unsearchable: 1, UnsearchableIDs: []string{odd},
	}
	require.Equal(t, want, *plan)
	require.NotEmpty(t, d.remains(t, ann), "a plan changes nothing")

	done, err := operate.Erase(t.Context(), d.conn, o)
	require.NoError(t, err)
	require.ErrorContains(t, plan.Err(), odd)
	want.Attempts = 11 // with those of the other events of the batch
	want.Unsearchable, want.UnsearchableIDs = 0, []string{}
	require.Equal(t, want, *done)
	require.Empty(t, d.remains(t, ann))
	require.Zero(t, d.count(t, "rowhook.event_log where id = any($1::text[]::uuid[])", waiting))
	require.Zero(t, d.count(t, "rowhook.dead_letter where id = any($1::text[]::uuid[])", dead))
	require.Equal(t, []string{"dead_letter", "event_archive", "event_log"}, d.remains(t, ben), "others keep their data; the responses of a batch name several")
	require.Equal(t, 3, d.count(t, "rowhook.event_archive where id = any($1::text[]::uuid[]) and old is null and new is null", delivered), "what was delivered when stays")
	require.Equal(t, 5, d.count(t, "rowhook.invocation_log where event_id = any($1::text[]::uuid[]) and status = 422 and error = 'answered 422'", append(dead, delivered...)))

	got, err := operate.Show(t.Context(), d.conn, delivered[0])
	require.NoError(t, err)
	require.Nil(t, got.Payload)
	require.Contains(t, got.PayloadProblem, "its data were erased at 2")
	require.Nil(t, got.Request.Body)
	_, err = operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: delivered[:1]}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "were erased, so it can't be sent again")
	bulk, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: delivered}, operate.BulkOptions{})
	require.NoError(t, err)
	require.Equal(t, map[string]int64{operate.SkipErased: 3}, bulk.Skipped)
	require.Equal(t, 3, d.count(t, "rowhook.event_archive where id = any($1::text[]::uuid[])", delivered))

	page, err := operate.Audit(t.Context(), d.conn, operate.AuditOptions{Actions: []string{"erase"}})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
	require.JSONEq(t, `{"keys": ["new.customer.email", "new.customer.email"], "deleted": 5, "erased": 3, "attempts": 11}`, string(page.Entries[0].Detail))

	// Once more there is nothing to do, but for the event that can't be searched.
	again, err := operate.Erase(t.Context(), d.conn, o)
	require.NoError(t, err)
	require.Zero(t, again.Events()+again.Attempts)
	ids, err := operate.Erase(t.Context(), d.conn, operate.EraseOptions{IDs: []string{odd}})
	require.NoError(t, err)
	require.EqualValues(t, 1, ids.Delivered)
	require.NoError(t, ids.Err())
	require.Equal(t, 1, d.count(t, "rowhook.event_archive where id = $1::text::uuid and new is null", odd))
}

func TestEraseLeavesWaitingEventsAloneOnRequest(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	waiting, dead, _ := d.person(t, "ann@example.com")
	o := operate.EraseOptions{Payload: []string{"old.customer.email=ann@example.com"}, KeepWaiting: true}
	plan, err := operate.PlanErase(t.Context(), d.conn, o)
	require.NoError(t, err)
	require.Equal(t, []int64{0, 0, 0, 3, 5}, []int64{plan.Waiting, plan.InFlight, plan.Dead, plan.Delivered, plan.Kept})
	done, err := operate.Erase(t.Context(), d.conn, o)
	require.NoError(t, err)
	require.EqualValues(t, 3, done.Events())
	require.Equal(t, 3, d.count(t, "rowhook.event_log where id = any($1::text[]::uuid[])", waiting))
	require.Equal(t, 2, d.count(t, "rowhook.dead_letter where id = any($1::text[]::uuid[])", dead))
}

func TestEraseFindsAValueOfSeveralLines(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.archive(t, "a", 2)
	d.do(t, `update rowhook.event_archive set new = '{"address": "Elm St 1\nOslo"}' where id = $1::text::uuid`, ids[0])
	done, err := operate.Erase(t.Context(), d.conn, operate.EraseOptions{Payload: []string{"new.address=Elm St 1\nOslo"}})
	require.NoError(t, err)
	require.EqualValues(t, 1, done.Delivered)
	require.Equal(t, 1, d.count(t, "rowhook.event_archive where id = $1::text::uuid and new is null", ids[0]))
}

func TestEraseBoundsWhatItLooksAt(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.person(t, "ann@example.com")
	for name, o := range map[string]operate.EraseOptions{
		"another trigger": {Triggers: []string{"b"}}, "later": {Since: time.Now().Add(time.Hour)}, "earlier": {Until: time.Now().Add(-time.Hour)}, "another table": {Table: "public.b"},
	} {
		o.Payload = []string{"new.customer.email=ann@example.com"}
		plan, err := operate.PlanErase(t.Context(), d.conn, o)
		require.NoError(t, err, name)
		want := int64(0)
		if name == "another trigger" || name == "another table" {
			want = 1
		}
		require.Equal(t, want, plan.Events(), name)
	}
	for text, o := range map[string]operate.EraseOptions{
		"nothing was chosen":  {},
		"is not understood":   {Payload: []string{"email"}},
		"both conditions and": {Payload: []string{"new.a=1"}, IDs: []string{"x"}},
		"not an event id":     {IDs: []string{"x"}},
	} {
		_, err := operate.Erase(t.Context(), d.conn, o)
		require.ErrorIs(t, err, operate.ErrInvalid, text)
		require.ErrorContains(t, err, text)
	}
	_, err := operate.Erase(t.Context(), d.conn, operate.EraseOptions{Payload: []string{"new.a=1"}, Triggers: []string{"c"}})
	require.ErrorIs(t, err, operate.ErrNotFound)
}

func TestEraseWaitsForEventsInFlightAndSaysWhichItLeaves(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.receiver.hold = make(chan struct{})
	d.Run(t)
	d.do(t, "insert into a (v) values ('ann@example.com')")
	until(t, "it is being sent", func() bool { return d.receiver.unique() == 1 })
	o := operate.EraseOptions{Payload: []string{"new.v=ann@example.com"}, Wait: time.Millisecond}
	left, err := operate.Erase(t.Context(), d.conn, o)
	require.NoError(t, err)
	require.EqualValues(t, 1, left.InFlight)
	require.ErrorIs(t, left.Err(), operate.ErrBusy)
	require.ErrorContains(t, left.Err(), "1 events are being sent")
	o.Wait = patience
	ended := erasing(t, d.Conn(t), o)
	until(t, "the erasure has begun", func() bool { return d.count(t, "rowhook.audit where action = 'erase'") == 2 })
	close(d.receiver.hold)
	done := <-ended
	require.NotNil(t, done)
	require.Equal(t, []int64{1, 0}, []int64{done.Delivered, done.InFlight})
	require.NoError(t, done.Err())
	require.Empty(t, d.remains(t, "ann@example.com"))
}

func TestEraseRemovesTheResponseToAnOrderedEventThatWasBeingSent(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	a := d.Spec("a")
	a.Order = trigger.Order{By: []string{trigger.OrderByRow}}
	d.Apply(t, a)
	d.receiver.hold = make(chan struct{})
	d.receiver.status.Store(422) // with a body
	d.Run(t)
	d.do(t, "insert into a (v) values ('ann@example.com')")
	until(t, "it is being sent", func() bool { return d.receiver.unique() == 1 })
	done := erasing(t, d.Conn(t), operate.EraseOptions{Payload: []string{"new.v=ann@example.com"}})
	until(t, "it is deleted, or waited for", func() bool {
		return d.count(t, "rowhook.event_log") == 0 || d.count(t, "rowhook.instance where trouble->'hanging' is not null") > 0
	})
	close(d.receiver.hold)
	require.NoError(t, (<-done).Err())
	until(t, "the attempt is in the log", func() bool { return d.count(t, "rowhook.invocation_log") > 0 })
	require.Zero(t, d.count(t, "rowhook.event_log"))
	require.Zero(t, d.count(t, "rowhook.invocation_log where response_body is not null"))
}

// erasing erases in the background. The result is nil after an error.
func erasing(t *testing.T, db operate.DB, o operate.EraseOptions) <-chan *operate.Erasure {
	ended := make(chan *operate.Erasure, 1)
	ctx := t.Context()
	go func() {
		done, err := operate.Erase(ctx, db, o)
		if err != nil {
			done = nil
		}
		ended <- done
	}()
	return ended
}

func TestEraseNeedsTheRightsOfTheOwner(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, "set role pg_read_all_data")
	_, err := operate.Erase(t.Context(), d.conn, operate.EraseOptions{Payload: []string{"new.v=1"}})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "may not erase data")
}

func TestAnInterruptedEraseGoesOn(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.archive(t, "a", 1500)
	ctx, stop := context.WithCancel(t.Context())
	_, err := operate.Erase(ctx, d.Conn(t), operate.EraseOptions{Payload: []string{"new.kind=done"}, Progress: func(n int64) {
		if n > 0 {
			stop()
		}
	}})
	stop()
	require.ErrorIs(t, err, context.Canceled)
	left := d.count(t, "rowhook.event_archive where new is not null")
	require.Less(t, left, 1500)
	require.Positive(t, left)
	done, err := operate.Erase(t.Context(), d.conn, operate.EraseOptions{Payload: []string{"new.kind=done"}})
	require.NoError(t, err)
	require.EqualValues(t, left, done.Delivered)
	require.Zero(t, d.count(t, "rowhook.event_archive where new is not null"))
	text, err := json.Marshal(done)
	require.NoError(t, err)
	require.Contains(t, string(text), `"unsearchable_ids":[]`)
}

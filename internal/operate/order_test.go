package operate_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// newOrderedDesk makes two triggers, of which the first has an order.
func newOrderedDesk(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t, "a", "b")
	a := d.Spec("a")
	a.Order = trigger.Order{By: []string{trigger.OrderByRow}, OnDead: trigger.OnDeadBlock}
	d.Apply(t, a, d.Spec("b"))
	return d
}

// park puts events into the lanes of the trigger a, one for each key, and returns their ids.
func (d *desk) park(t *testing.T, n int, set ...string) []string {
	t.Helper()
	ids := d.ids(t, `
insert into rowhook.event_log (id, trigger_id, op, new, due_at, key, lane, seq)
select rowhook.uuid7(), 1, 'U', json_build_object('v', i), clock_timestamp() + interval '1752000 hours', k, rowhook.lane_of(k), nextval('rowhook.event_seq')
  from generate_series(1, $1) i cross join lateral (select '[' || i || ']' as k) k returning id::text`, n)
	for _, s := range set {
		d.do(t, "update rowhook.event_log set "+s+" where id = any($1::text[]::uuid[])", ids)
	}
	return ids
}

// buryInPlace makes a dead letter of a parked event. It holds its key.
func (d *desk) buryInPlace(t *testing.T, id string) {
	t.Helper()
	d.do(t, `
with gone as (delete from rowhook.event_log where id = $1::text::uuid returning *)
insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, new, key, lane, seq, blocks)
select id, created_at, now() - interval '1 minute', trigger_id, 6, op, 'the receiver answered 500', new, key, lane, seq, true from gone`, id)
}

func TestStatusCountsParkedEventsByTheTimeAtWhichTheyAreDue(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	d.park(t, 3)
	d.park(t, 2, "tries = 1")
	d.park(t, 1, "tries = 1", "due_at = due_at + interval '1 hour'")
	d.park(t, 1, "tries = 1", "due_at = due_at + interval '1 hour'", "created_at = created_at - interval '1 hour'")
	d.park(t, 1, "due_at = due_at + interval '1 hour'", "created_at = created_at - interval '2 hours'") // it is delayed
	d.wait(t, "a", 1, "due_at = now() + interval '1 hour'", "claimed_by = 5, tries = 1")
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	a := s.Triggers[0]
	require.EqualValues(t, 4, a.Waiting, "one of them is delayed")
	require.EqualValues(t, 4, a.Retrying, "two of them due, two later")
	require.EqualValues(t, 1, a.InFlight)
	require.NotNil(t, a.OldestAt)
	require.WithinDuration(t, s.Now.Add(-time.Hour), *a.OldestAt, time.Minute)
	left, err := operate.Drain(canceled(t), d.conn, []string{"a"}, nil)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.EqualValues(t, 9, left[0].Events())
	require.EqualValues(t, 4, left[0].Retrying)
}

func TestStatusOfAManyParkedEventsReadsABoundedNumber(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	d.do(t, "alter table rowhook.event_log set (autovacuum_enabled = off)")
	d.park(t, 40_000)
	const read = `select sum(pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid))::bigint
		from pg_class c where relnamespace = 'rowhook'::regnamespace and relname in ('event_log_due', 'event_log_pkey', 'event_log_lane')`
	tx, err := d.conn.Begin(t.Context())
	require.NoError(t, err)
	s, err := operate.ReadStatus(t.Context(), tx)
	require.NoError(t, err)
	require.InDelta(t, 40_000, s.Triggers[0].Waiting, 15_000)
	require.Contains(t, s.Triggers[0].Estimated, "waiting")
	var n int64
	require.NoError(t, tx.QueryRow(t.Context(), read).Scan(&n))
	require.Less(t, n, int64(30_000))
	require.NoError(t, tx.Rollback(t.Context()))
	page, err := operate.List(t.Context(), d.conn, operate.Filter{Triggers: []string{"a"}, States: []operate.State{operate.InFlight}}, operate.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, page.Events)
}

func TestEventsShowTheirPlace(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	ids := d.park(t, 2)
	page, err := operate.List(t.Context(), d.conn, operate.Filter{}, operate.ListOptions{})
	require.NoError(t, err)
	require.Len(t, page.Events, 2)
	// Ids of one millisecond are in no order.
	at := slices.IndexFunc(page.Events, func(e operate.Event) bool { return e.ID == ids[0] })
	require.GreaterOrEqual(t, at, 0)
	e := page.Events[at]
	require.Equal(t, operate.Waiting, e.State)
	require.Equal(t, "[1]", e.Key)
	require.EqualValues(t, 1, e.Sequence)
	require.WithinDuration(t, time.Now(), *e.DueAt, time.Minute)
	shown, err := operate.Show(t.Context(), d.conn, ids[0])
	require.NoError(t, err)
	require.Contains(t, shown.Next, "as soon as the earlier events of its key are settled")

	d.buryInPlace(t, ids[0])
	shown, err = operate.Show(t.Context(), d.conn, ids[0])
	require.NoError(t, err)
	require.True(t, shown.Blocks)
	require.Equal(t, "[1]", shown.Key)
	require.Contains(t, shown.Next, "later events of its key wait, until someone sends it again")
	archived := d.archive(t, "a", 1)
	d.do(t, "update rowhook.event_archive set seq = 9, merged_into = $1::text::uuid", ids[1])
	shown, err = operate.Show(t.Context(), d.conn, archived[0])
	require.NoError(t, err)
	require.EqualValues(t, 9, shown.Sequence)
	require.Contains(t, shown.Next, "it was not sent itself. A later event of its key was sent in its stead, "+ids[1])
	require.False(t, shown.Unsent)

	sent := d.archive(t, "a", 1)[0]
	chosen := func(states ...operate.State) (all []string) {
		page, err := operate.List(t.Context(), d.conn, operate.Filter{States: states}, operate.ListOptions{})
		require.NoError(t, err)
		for _, e := range page.Events {
			all = append(all, e.ID)
			require.Equal(t, operate.Delivered, e.State)
		}
		return all
	}
	require.Equal(t, archived, chosen(operate.Merged))
	require.ElementsMatch(t, []string{archived[0], sent}, chosen(operate.Delivered))
	require.ElementsMatch(t, []string{archived[0], sent}, chosen(operate.Merged, operate.Delivered))
	_, err = operate.Discard(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Merged}}, operate.BulkOptions{})
	require.ErrorContains(t, err, "can't be discarded")
}

func TestEventsOfARowThatCameAndWentSayThatNothingWasSent(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	ids := d.archive(t, "a", 3)
	d.do(t, "update rowhook.event_archive set delivered_at = now(), merged_into = $1::text::uuid", ids[2])
	page, err := operate.List(t.Context(), d.conn, operate.Filter{}, operate.ListOptions{})
	require.NoError(t, err)
	require.Len(t, page.Events, 3)
	for _, e := range page.Events {
		require.True(t, e.Unsent)
		shown, err := operate.Show(t.Context(), d.conn, e.ID)
		require.NoError(t, err)
		require.Equal(t, "nothing: its row came and went before anything of it was sent, so that nothing was", shown.Next)
	}
}

func TestAnEventBehindADeadLetterNamesIt(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	first := d.park(t, 2)
	behind := d.park(t, 1)[0]
	d.buryInPlace(t, first[0])
	page, err := operate.List(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Waiting}}, operate.ListOptions{})
	require.NoError(t, err)
	waits := map[string][2]string{}
	for _, e := range page.Events {
		waits[e.ID] = [2]string{e.WaitsFor, e.WaitsOn}
	}
	require.Equal(t, map[string][2]string{behind: {operate.WaitsForDeadLetter, first[0]}, first[1]: {}}, waits, "the other one has another key")
	shown, err := operate.Show(t.Context(), d.conn, behind)
	require.NoError(t, err)
	require.Contains(t, shown.Next, "rowhook redeliver "+first[0]+" or rowhook discard "+first[0])
}

func TestAnEventWithAStrictOrderNamesTheTransactionThatItWaitsFor(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	a := d.Spec("a")
	a.Order = trigger.Order{By: []string{"v"}, Strict: true}
	d.Apply(t, a, d.Spec("b"))
	open, err := d.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	var pid int
	require.NoError(t, open.QueryRow(t.Context(), "select pg_backend_pid() where pg_current_xact_id() is not null").Scan(&pid))
	id := d.park(t, 1)[0]
	var shown *operate.Detail
	require.Eventually(t, func() bool { // transactions of other tests hold the server's horizon, too
		shown, err = operate.Show(t.Context(), d.conn, id)
		require.NoError(t, err)
		require.Equal(t, operate.WaitsForTransaction, shown.WaitsFor)
		return strings.Contains(shown.WaitsOn, fmt.Sprintf("(pid %d, ", pid))
	}, patience, 10*time.Millisecond)
	require.Contains(t, shown.WaitsOn, "open since ")
	require.Contains(t, shown.Next, "since the order is strict: "+shown.WaitsOn)
	require.NoError(t, open.Rollback(t.Context()))
	require.Eventually(t, func() bool {
		shown, err = operate.Show(t.Context(), d.conn, id)
		require.NoError(t, err)
		return shown.WaitsFor == ""
	}, patience, 10*time.Millisecond)
}

func TestRetryNowMakesAParkedRetryDueInItsPlace(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	ids := d.park(t, 3, "tries = 2", "due_at = due_at + interval '1 hour'")
	d.park(t, 1)
	out, err := operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "a", IDs: ids[:1]})
	require.NoError(t, err)
	require.Equal(t, ids[:1], out.IDs)
	out, err = operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "a"})
	require.NoError(t, err)
	require.EqualValues(t, 2, out.Events)
	require.Equal(t, 3, d.count(t, "rowhook.event_log where tries = 2 and lane is not null and due_at - interval '1752000 hours' between now() - interval '1 minute' and clock_timestamp()"))

	d.park(t, 1, "tries = 2", "due_at = due_at + interval '1 hour'")
	bulk, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Retrying}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 4, bulk.Changed)
	require.Equal(t, 4, d.count(t, "rowhook.event_log where tries = 2 and lane is not null and due_at - interval '1752000 hours' <= clock_timestamp()"))
}

func TestARedeliveredDeadLetterGoesBackInItsPlaceOnlyIfItHoldsItsKey(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	ids := d.park(t, 3)
	for _, id := range ids {
		d.buryInPlace(t, id)
	}
	d.do(t, "update rowhook.dead_letter set blocks = null where id = $1::text::uuid", ids[0])
	bulk, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: ids[:2]}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 2, bulk.Changed)
	require.Equal(t, 1, d.count(t, "rowhook.event_log where id = $1::text::uuid and key is null and lane is null and seq = 1 and due_at <= clock_timestamp() and tries = 0", ids[0]))
	require.Equal(t, 1, d.count(t, "rowhook.event_log where id = $1::text::uuid and key = '[2]' and lane = rowhook.lane_of(key) and seq = 2 and due_at - interval '1752000 hours' <= clock_timestamp() and tries = 0", ids[1]))

	// The owners look for it there only while the trigger asks for that.
	d.do(t, "update rowhook.trigger set spec = spec #- '{order,on_dead}' where name = 'a'")
	shown, err := operate.Show(t.Context(), d.conn, ids[2])
	require.NoError(t, err)
	require.False(t, shown.Blocks)
	status, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Empty(t, status.Blocked)
	require.Zero(t, status.Triggers[0].BlockedKeys)
	_, err = operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: ids[2:]}, operate.BulkOptions{})
	require.NoError(t, err)
	require.Equal(t, 2, d.count(t, "rowhook.event_log where lane is null and due_at <= clock_timestamp()"))
}

func TestAnApplyThatTakesBlockAwayLetsGoTheKeysOfDeadLetters(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	ids := d.park(t, 2)
	d.buryInPlace(t, ids[0])
	a := d.Spec("a")
	a.Order = trigger.Order{By: []string{trigger.OrderByRow}, OnDead: trigger.OnDeadBlock}
	a.Retry.Limit = 7
	d.Apply(t, a, d.Spec("b"))
	require.Equal(t, 1, d.count(t, "rowhook.dead_letter where blocks"), "it goes on to hold its key")
	a.Order.OnDead = ""
	d.Apply(t, a, d.Spec("b"))
	require.Zero(t, d.count(t, "rowhook.dead_letter where blocks"))
	d.buryInPlace(t, ids[1]) // by a dispatcher that does not know yet
	a.Order.OnDead = trigger.OnDeadBlock
	d.Apply(t, a, d.Spec("b"))
	require.Zero(t, d.count(t, "rowhook.dead_letter where blocks"))
}

func TestARedeliveredDeliveredEventKeepsItsSequence(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	ids := d.archive(t, "a", 1)
	d.do(t, "update rowhook.event_archive set seq = 9")
	_, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: ids}, operate.BulkOptions{})
	require.NoError(t, err)
	require.Equal(t, 1, d.count(t, "rowhook.event_log where seq = 9 and lane is null and due_at <= clock_timestamp()"))
}

func TestDiscardDeletesParkedEventsAndDeadLettersThatHoldTheirKeys(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	ids := d.park(t, 2)
	d.buryInPlace(t, ids[0])
	_, err := operate.Discard(t.Context(), d.conn, operate.Filter{IDs: ids[:1]}, operate.BulkOptions{})
	require.NoError(t, err)
	_, err = operate.Discard(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Waiting}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.Zero(t, d.count(t, "rowhook.event_log")+d.count(t, "rowhook.dead_letter"))
}

func TestAnOwnerSeesWhatWasDoneWithTheEventsThatItRemembers(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	ids := d.park(t, 2, "tries = 2", "due_at = due_at + interval '1 hour'")
	_, err := operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "a", IDs: ids[:1]})
	require.NoError(t, err)
	_, err = operate.Discard(t.Context(), d.conn, operate.Filter{IDs: ids[1:]}, operate.BulkOptions{})
	require.NoError(t, err)
	rows := d.ids(t, "select id::text from rowhook.event_log")
	require.Equal(t, ids[:1], rows)
	var id [16]byte
	require.NoError(t, d.conn.QueryRow(t.Context(), "select id from rowhook.event_log").Scan(&id))
	now, err := queue.ReadRemembered(t.Context(), d.conn, [][16]byte{id, {1}})
	require.NoError(t, err)
	require.Len(t, now, 1)
	require.EqualValues(t, 2, now[0].Tries)
	require.LessOrEqual(t, now[0].In, time.Duration(0))
}

func TestParkedEventsOfARemovedTriggerBecomeDeadLetters(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	d.park(t, 2)
	d.Apply(t, d.Spec("b"))
	require.Equal(t, 2, d.count(t, "rowhook.dead_letter where seq is not null and blocks is null"))
}

func TestParkedEventsAreNeverTheNextThatIsDue(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	d.park(t, 1)
	next, err := queue.NextDue(t.Context(), d.conn, []int32{1}, []time.Duration{time.Hour})
	require.NoError(t, err)
	require.Empty(t, next)
	d.wait(t, "a", 1, "due_at = now() + interval '1 hour'")
	next, err = queue.NextDue(t.Context(), d.conn, []int32{1}, []time.Duration{time.Hour})
	require.NoError(t, err)
	require.Len(t, next, 1, fmt.Sprint(next))
}

// canceled returns a context that has ended.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestStatusListsTheKeysThatDeadLettersHold(t *testing.T) {
	t.Parallel()
	d := newOrderedDesk(t)
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Empty(t, s.Blocked)
	ids := d.park(t, 25)
	for i, id := range ids {
		d.buryInPlace(t, id)
		d.do(t, "update rowhook.dead_letter set died_at = now() - $2 * interval '1 minute' where id = $1::text::uuid", id, 100-i)
	}
	d.park(t, 3) // behind the first three
	d.park(t, 1)
	d.bury(t, "a", 1)
	s, err = operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.EqualValues(t, 25, s.Triggers[0].BlockedKeys)
	require.EqualValues(t, 26, s.Triggers[0].Dead)
	require.Zero(t, s.Triggers[1].BlockedKeys)
	require.Len(t, s.Blocked, 20)
	b := s.Blocked[0]
	require.WithinDuration(t, s.Now.Add(-100*time.Minute), b.Since, time.Minute)
	b.Since = time.Time{}
	require.Equal(t, operate.BlockedKey{
		Trigger: "a", Key: "[1]", EventID: ids[0], Waiting: 2,
		Remedy: "to send it again and go on: rowhook redeliver " + ids[0] + "; to go on without it: rowhook discard " + ids[0],
	}, b)
	require.EqualValues(t, 1, s.Blocked[1].Waiting)
	require.Zero(t, s.Blocked[5].Waiting)

	// The number behind a key is counted in a bounded number of events.
	d.do(t, `insert into rowhook.event_log (id, trigger_id, op, due_at, key, lane, seq)
		select rowhook.uuid7(), 1, 'U', now() + interval '1752000 hours', '[1]', rowhook.lane_of('[1]'), nextval('rowhook.event_seq') from generate_series(1, 3000)`)
	s, err = operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.True(t, s.Blocked[0].More)
	require.LessOrEqual(t, s.Blocked[0].Waiting, int64(1000))

	d.Apply(t, d.Spec("a"), d.Spec("b"))
	s, err = operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Empty(t, s.Blocked, "without order no key waits")
	require.Zero(t, s.Triggers[0].BlockedKeys)
}

package operate_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
)

func eventID(r *http.Request) string {
	var e struct{ ID string }
	if json.NewDecoder(r.Body).Decode(&e) != nil {
		return "no JSON"
	}
	return e.ID
}

// all reads every page of a list.
func (d *desk) all(t *testing.T, f operate.Filter, o operate.ListOptions) (ids []string) {
	t.Helper()
	for {
		p, err := operate.List(t.Context(), d.conn, f, o)
		require.NoError(t, err)
		for _, e := range p.Events {
			ids = append(ids, e.ID)
		}
		if p.Next == "" {
			return ids
		}
		o.Cursor = p.Next
	}
}

func newestFirst(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	slices.Reverse(all)
	return all
}

func TestEventsAreListedFromEveryTableInPagesNewestFirst(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	var want [][]string
	for range 3 {
		want = append(want, d.wait(t, "a", 7), d.bury(t, "b", 7), d.archive(t, "a", 7))
	}
	for _, limit := range []int{1, 2, 5, 62, 63, 64, 100} {
		require.Equal(t, newestFirst(want...), d.all(t, operate.Filter{}, operate.ListOptions{Limit: limit}), "limit %d", limit)
	}
	// A filter whose budget is spent after each step still finds all events.
	require.Equal(t, newestFirst(want[0], want[3], want[6]),
		d.all(t, operate.Filter{Payload: "new.kind=wait"}, operate.ListOptions{Limit: 2, Budget: time.Nanosecond}))
}

// moving is a database that calls a function before each query that contains a text.
type moving struct {
	*pgx.Conn
	before string
	happen func()
}

type movingTx struct {
	pgx.Tx
	before string
	happen func()
}

func (m moving) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	tx, err := m.Conn.BeginTx(ctx, options)
	return movingTx{tx, m.before, m.happen}, err
}

func (m movingTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if strings.Contains(sql, m.before) {
		m.happen()
	}
	return m.Tx.Query(ctx, sql, args...)
}

func TestAnEventThatMovesMeanwhileIsListedOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.wait(t, "a", 3)
	other := d.Conn(t)
	db := moving{d.conn, "from rowhook.dead_letter", func() {
		_, err := other.Exec(t.Context(), `with e as (delete from rowhook.event_log returning *)
			insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new) select id, created_at, clock_timestamp(), trigger_id, 1, op, new from e`)
		require.NoError(t, err)
	}}
	p, err := operate.List(t.Context(), db, operate.Filter{}, operate.ListOptions{})
	require.NoError(t, err)
	require.Len(t, p.Events, 3)
	require.Equal(t, 3, d.count(t, "rowhook.event_archive"))
	require.Len(t, d.all(t, operate.Filter{IDs: ids}, operate.ListOptions{}), 3)

	// Another operator puts an event back after the queue was searched. The event must not be "not
	// found".
	again := d.archive(t, "a", 1)
	back := moving{d.conn, "from rowhook.dead_letter", func() {
		_, err := other.Exec(t.Context(), `with e as (delete from rowhook.event_archive where id = $1::text::uuid returning *)
			insert into rowhook.event_log (id, trigger_id, op, new) select id, trigger_id, op, new from e`, again[0])
		require.NoError(t, err)
	}}
	_, err = operate.Redeliver(t.Context(), back, operate.Filter{IDs: again}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrBusy)
	require.ErrorContains(t, err, "changed in the meantime")
}

func TestADatabaseWhoseTransactionsAreSerializableIsSteeredLikeAnyOther(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.bury(t, "a", 3)
	d.do(t, "set default_transaction_isolation = serializable")
	other := d.Conn(t)
	_, err := operate.Redeliver(t.Context(), moving{d.conn, "delete from rowhook.dead_letter", func() {
		_, err := other.Exec(t.Context(), "delete from rowhook.dead_letter where id = $1::text::uuid", ids[0])
		require.NoError(t, err)
	}}, operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.Equal(t, 2, d.count(t, "rowhook.event_log"))
}

func TestAListWhoseBudgetIsOverSaysHowFarItLooked(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	old := d.wait(t, "a", 1)
	d.do(t, "update rowhook.event_log set new = '{\"v\": \"needle\"}'")
	d.wait(t, "a", 1200)
	f := operate.Filter{Payload: "new.v=needle"}
	p, err := operate.List(t.Context(), d.conn, f, operate.ListOptions{Limit: 10, Budget: time.Nanosecond})
	require.NoError(t, err)
	require.Empty(t, p.Events)
	require.NotNil(t, p.LookedBackTo)
	require.WithinDuration(t, time.Now(), *p.LookedBackTo, time.Minute)
	require.Equal(t, old, d.all(t, f, operate.ListOptions{Limit: 10, Budget: time.Nanosecond}))
}

func TestEachFilterChoosesItsEvents(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	waitA, deadB, doneA, doneB := d.wait(t, "a", 3), d.bury(t, "b", 3), d.archive(t, "a", 3), d.archive(t, "b", 2)
	flying := d.wait(t, "a", 2, "claimed_by = 7, tries = 1, due_at = now() + interval '1 minute'")
	lapsed := d.wait(t, "a", 1, "claimed_by = 7, tries = 1, due_at = now() - interval '1 second'")
	retrying := d.wait(t, "b", 2, "tries = 2, due_at = now() + interval '1 minute'")
	retryDue := d.wait(t, "b", 1, "tries = 2, due_at = now() - interval '1 minute'")
	everything := newestFirst(waitA, deadB, doneA, doneB, flying, lapsed, retrying, retryDue)
	for name, c := range map[string]struct {
		f    operate.Filter
		want []string
	}{
		"trigger":              {operate.Filter{Triggers: []string{"b"}}, newestFirst(deadB, doneB, retrying, retryDue)},
		"two triggers":         {operate.Filter{Triggers: []string{"b", "a"}}, everything},
		"waiting":              {operate.Filter{States: []operate.State{operate.Waiting}}, newestFirst(waitA)},
		"in flight":            {operate.Filter{States: []operate.State{operate.InFlight}}, newestFirst(flying)},
		"retrying":             {operate.Filter{States: []operate.State{operate.Retrying}}, newestFirst(lapsed, retrying, retryDue)},
		"retrying of one":      {operate.Filter{Triggers: []string{"b"}, States: []operate.State{operate.Retrying}}, newestFirst(retrying, retryDue)},
		"in flight of none":    {operate.Filter{Triggers: []string{"b"}, States: []operate.State{operate.InFlight}}, nil},
		"delivered":            {operate.Filter{States: []operate.State{operate.Delivered}}, newestFirst(doneA, doneB)},
		"dead or in flight":    {operate.Filter{States: []operate.State{operate.Dead, operate.InFlight}}, newestFirst(deadB, flying)},
		"table":                {operate.Filter{Table: "b"}, newestFirst(deadB, doneB, retrying, retryDue)},
		"op":                   {operate.Filter{Ops: []string{"UPDATE", "INSERT"}, States: []operate.State{operate.Dead}}, newestFirst(deadB)},
		"op of none":           {operate.Filter{Ops: []string{"DELETE", "MANUAL"}}, nil},
		"qualified table":      {operate.Filter{Table: `public."b"`, Triggers: []string{"a"}}, nil},
		"ids":                  {operate.Filter{IDs: []string{waitA[0], deadB[1], doneA[2]}}, newestFirst(waitA[:1], deadB[1:2], doneA[2:])},
		"payload":              {operate.Filter{Payload: "new.v=1", Triggers: []string{"a"}, States: []operate.State{operate.Waiting}}, newestFirst(waitA[:1])},
		"payload as a path":    {operate.Filter{Payload: `$.new ? (@.v >= 2 && @.kind == "done")`}, newestFirst(doneA[1:], doneB[1:])},
		"since":                {operate.Filter{Since: time.Now().Add(-time.Hour)}, everything},
		"since then":           {operate.Filter{Since: time.Now().Add(time.Hour)}, nil},
		"until":                {operate.Filter{Until: time.Now().Add(-time.Hour)}, nil},
		"until in an hour":     {operate.Filter{Until: time.Now().Add(time.Hour), States: []operate.State{operate.Dead}}, newestFirst(deadB)},
		"nothing of a payload": {operate.Filter{Payload: "old.v=1"}, nil},
	} {
		require.Equal(t, c.want, d.all(t, c.f, operate.ListOptions{Limit: 2}), name)
		n, err := operate.Count(t.Context(), d.conn, c.f, 0)
		require.NoError(t, err)
		require.Equal(t, operate.Tally{Events: int64(len(c.want))}, n, name)
	}
	for name, c := range map[string]struct {
		f    operate.Filter
		kind error
	}{
		"id":            {operate.Filter{IDs: []string{"7"}}, operate.ErrInvalid},
		"state":         {operate.Filter{States: []operate.State{"lost"}}, operate.ErrInvalid},
		"op":            {operate.Filter{Ops: []string{"insert"}}, operate.ErrInvalid},
		"trigger":       {operate.Filter{Triggers: []string{"c"}}, operate.ErrNotFound},
		"table":         {operate.Filter{Table: "c"}, operate.ErrNotFound},
		"range":         {operate.Filter{Since: time.Now(), Until: time.Now().Add(-time.Hour)}, operate.ErrInvalid},
		"payload":       {operate.Filter{Payload: "v=1"}, operate.ErrInvalid},
		"path":          {operate.Filter{Payload: "$.new ? (@."}, operate.ErrInvalid},
		"path function": {operate.Filter{Payload: "$.new.foo()"}, operate.ErrInvalid},
	} {
		_, err := operate.List(t.Context(), d.conn, c.f, operate.ListOptions{})
		require.ErrorIs(t, err, c.kind, name)
	}
}

func TestAPayloadThatJSONBCanNotHoldMatchesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.wait(t, "a", 1)
	d.do(t, `update rowhook.event_log set new = '{"v": "\u0000"}'`)
	good := d.wait(t, "a", 1)
	require.Equal(t, good, d.all(t, operate.Filter{Payload: "$.new.v"}, operate.ListOptions{}))
}

func TestTheFilterKnowsTheQueueToBeLong(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	first := d.wait(t, "a", 3)
	d.wait(t, "b", 21_000)
	last := d.wait(t, "a", 3)
	require.Equal(t, newestFirst(first, last), d.all(t, operate.Filter{Triggers: []string{"a"}}, operate.ListOptions{}))
	f := operate.Filter{Triggers: []string{"b"}, States: []operate.State{operate.Waiting}}
	require.Len(t, d.all(t, f, operate.ListOptions{Limit: 1000}), 21_000)
}

func TestListsAndTailsTellHowTheLastAttemptEnded(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.wait(t, "a", 4, "tries = 2, due_at = now() + interval '1 minute'")
	for i, last := range []string{"503, null", "null, 'timeout'", "200, 'rejected'"} {
		d.do(t, "insert into rowhook.invocation_log (event_id, trigger_id, instance_id, attempt, started_at, duration_us, status, error_kind) values "+
			"($1, 1, 7, 1, now() - interval '1 minute', 5, 500, null), ($1, 1, 7, 2, now(), 5, "+last+")", ids[i])
	}
	check := func(events map[string]operate.Event) {
		require.EqualValues(t, 503, *events[ids[0]].Last.Status)
		require.Empty(t, events[ids[0]].Last.Kind)
		require.Nil(t, events[ids[1]].Last.Status)
		require.Equal(t, "timeout", events[ids[1]].Last.Kind)
		require.EqualValues(t, 200, *events[ids[2]].Last.Status)
		require.Equal(t, "rejected", events[ids[2]].Last.Kind)
		require.Nil(t, events[ids[3]].Last)
	}
	page, err := operate.List(t.Context(), d.conn, operate.Filter{}, operate.ListOptions{Last: true})
	require.NoError(t, err)
	listed := map[string]operate.Event{}
	for _, e := range page.Events {
		listed[e.ID] = e
	}
	check(listed)
	told := map[string]operate.Event{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.NoError(t, operate.Tail(ctx, d.conn, operate.Filter{Since: time.Now().Add(-time.Hour)}, func(e operate.Event) error {
		if told[e.ID] = e; len(told) == len(ids) {
			cancel()
		}
		return nil
	}, nil))
	check(told)
}

func TestShowTellsEverythingOfAnEvent(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.receiver.status.Store(500)
	d.Apply(t, d.Spec("a"))
	d.Run(t)
	d.do(t, "begin; set local rowhook.session = '{\"user\": 1}'; insert into a (v, n) values ('x', 1.10); commit")
	var id string
	until(t, "a first attempt", func() bool {
		return d.conn.QueryRow(t.Context(), "select event_id::text from rowhook.invocation_log").Scan(&id) == nil
	})
	e, err := operate.Show(t.Context(), d.conn, id)
	require.NoError(t, err)
	require.Equal(t, operate.Retrying, e.State)
	require.Equal(t, "public.a", e.Table)
	require.Equal(t, 1, e.Attempts)
	require.Equal(t, 13, e.MaxAttempts)
	require.JSONEq(t, `{"user": 1}`, string(e.Payload.SessionVariables))
	require.JSONEq(t, `{"id":1,"v":"x","n":1.10}`, string(e.Payload.New))
	require.Equal(t, d.receiver.URL+"/a", e.Request.URL)
	require.Contains(t, string(e.Request.Body), `"n":1.10`)
	require.Contains(t, string(e.Request.Body), `"current_retry":1`)
	require.Len(t, e.Log, 1)
	require.Equal(t, 500, *e.Log[0].Status)
	require.Equal(t, "no thanks", e.Log[0].ResponseBody)
	require.Contains(t, e.Next, "attempt 2 of 13 at ")

	_, err = operate.Show(t.Context(), d.conn, "0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90")
	require.ErrorIs(t, err, operate.ErrNotFound)
}

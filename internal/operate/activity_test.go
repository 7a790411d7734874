package operate_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

func TestActivityHasAnElementForEachMinuteAndSumsTheDispatchers(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b", "idle")
	// Bucket 40 ends at 0.1 ms * 2^(40/4), and bucket 60 at 0.1 ms * 2^(60/4).
	d.do(t, `
insert into rowhook.activity (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error, outcomes)
select date_trunc('minute', now()) - make_interval(mins => ago), t.id, instance, delivered, failed, died, array_fill(0, array[bucket - 1]) || delivered, null, null, outcomes::jsonb
  from (values ('a', 1, 0, 60, 0, 0, 40, '{"2xx": 60}'), ('a', 2, 0, 60, 3, 1, 40, '{"2xx": 60, "429": 1, "timeout": 2}'), ('a', 1, 5, 10, 0, 0, 60, null),
               ('a', 1, 59, 1, 0, 0, 40, '{"2xx": 1}'), ('a', 1, 60, 1, 0, 0, 40, '{"2xx": 1}'), ('b', 1, 2, 0, 7, 0, 1, 'null')) as v(name, instance, ago, delivered, failed, died, bucket, outcomes)
  join rowhook.trigger t using (name)`)
	now := time.Now()
	a, err := operate.ReadActivity(t.Context(), d.conn, operate.ActivityOptions{})
	require.NoError(t, err)
	require.WithinDuration(t, now.Truncate(time.Minute).Add(-59*time.Minute), a.From, time.Minute)
	skew := int(now.Truncate(time.Minute).Add(-59*time.Minute).Sub(a.From) / time.Minute) // a minute has begun meanwhile
	require.Len(t, a.Triggers, 2, "an idle one is left out")
	one := a.Triggers[0]
	require.Equal(t, "a", one.Name)
	require.Len(t, one.Delivered, 60)
	require.EqualValues(t, 120, one.Delivered[59+skew])
	require.EqualValues(t, 3, one.Failed[59+skew])
	require.EqualValues(t, 1, one.Died[59+skew])
	require.EqualValues(t, 10, one.Delivered[54+skew])
	require.InDelta(t, 95, *one.P50MS[59+skew], 8)
	require.InDelta(t, 3040, *one.P50MS[54+skew], 250)
	require.Nil(t, one.P50MS[50])
	require.Equal(t, map[string]int64{"2xx": 120 + 1, "429": 1, "timeout": 2}, one.Outcomes)
	require.EqualValues(t, 7, a.Triggers[1].Failed[57+skew])

	a, err = operate.ReadActivity(t.Context(), d.conn, operate.ActivityOptions{Triggers: []string{"b"}, Minutes: 2})
	require.NoError(t, err)
	require.Empty(t, a.Triggers, "it is of an earlier minute")
	for _, o := range []operate.ActivityOptions{{Minutes: -1}, {Minutes: operate.MaxMinutes + 1}} {
		_, err = operate.ReadActivity(t.Context(), d.conn, o)
		require.ErrorIs(t, err, operate.ErrInvalid)
	}
	_, err = operate.ReadActivity(t.Context(), d.conn, operate.ActivityOptions{Triggers: []string{"none"}})
	require.ErrorIs(t, err, operate.ErrNotFound)

	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.InDelta(t, 2, s.Rates.DeliveredPerS, 0.01, "none in the minute before")
	require.InDelta(t, 0.05, s.Rates.FailedPerS, 0.01)
	require.InDelta(t, 95, *s.Rates.P50MS, 8)
	require.EqualValues(t, 131, statusOf(t, s, "a").DeliveredLastHour)

	require.NoError(t, sqlschema.MigrateTo(t.Context(), d.conn, sqlschema.OldestSchema, nil))
	a, err = operate.ReadActivity(t.Context(), d.conn, operate.ActivityOptions{Triggers: []string{"a"}})
	require.NoError(t, err, "of the version before")
	require.NotEmpty(t, a.Triggers[0].Delivered)
}

func TestWhatWasDoneIsKeptForADayAndTheLastErrorOfATriggerForever(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.do(t, `
insert into rowhook.activity (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error)
select date_trunc('minute', now()) - make_interval(hours => hours), t.id, 1, 1, 0, 0, '{}', case when error then now() - make_interval(hours => hours) end, 'x'
  from (values ('a', 1, false), ('a', 24, false), ('a', 26, false), ('a', 30, true), ('a', 40, true), ('b', 30, true), ('b', 2, true)) as v(name, hours, error) join rowhook.trigger t using (name)`)
	require.NoError(t, pgx.BeginFunc(t.Context(), d.conn, func(tx pgx.Tx) error { return queue.ForgetActivity(t.Context(), tx) }))
	var left string
	require.NoError(t, d.conn.QueryRow(t.Context(), `
select string_agg(t.name || ' ' || round(extract(epoch from date_trunc('minute', now()) - minute) / 3600), ', ' order by t.name, minute desc)
  from rowhook.activity a join rowhook.trigger t on t.id = a.trigger_id`).Scan(&left))
	require.Equal(t, "a 1, a 24, a 30, b 2", left)
}

package queue_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// day returns a day from today on, in the form of partitions' names.
func day(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format("20060102") }

func names(dropped []queue.Dropped) []string {
	out := []string{}
	for _, d := range dropped {
		out = append(out, d.Name)
	}
	return out
}

// fill puts delivered events and attempts into some days before today.
func (q fixture) fill(t *testing.T, rows int, days ...int) {
	t.Helper()
	for _, n := range days {
		at := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, n).Add(time.Second)
		q.Exec(t, "select rowhook.ensure_partitions($1, $1)", at)
		q.Exec(t, `
insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new)
select rowhook.uuid7(), $1, $1, 1, 1, 'I', to_json(repeat('x', 500)) from generate_series(1, $2)`, at, rows)
		q.Exec(t, `
insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status)
select rowhook.uuid7(), $1, 1, 2, 1000, 1, 200 from generate_series(1, $2)`, at, rows)
	}
	q.Exec(t, "analyze rowhook.event_archive, rowhook.invocation_log")
}

func (q fixture) tidy(t *testing.T, keep trigger.Retention) []queue.Dropped {
	t.Helper()
	tx, err := q.conn.Begin(t.Context())
	require.NoError(t, err)
	dropped, err := queue.DropExpired(t.Context(), tx, keep)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	return dropped
}

func (q fixture) historySize(t *testing.T) (n int64) {
	t.Helper()
	require.NoError(t, q.conn.QueryRow(t.Context(), `
select sum(pg_total_relation_size(inhrelid)) from pg_inherits where inhparent in ('rowhook.event_archive'::regclass, 'rowhook.invocation_log'::regclass)`).Scan(&n))
	return n
}

func TestHistoryThatIsTooLargeLosesItsOldestDays(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.fill(t, 1000, -3, -2, -1, 0)
	require.NoError(t, queue.EnsurePartitions(t.Context(), q.conn)) // around midnight the database may be one of the day before
	week := trigger.Duration(7 * 24 * time.Hour)
	keep := trigger.Retention{Delivered: week, Attempts: week, MaxSize: trigger.Size(q.historySize(t))}
	require.Empty(t, q.tidy(t, keep), "it just fits")
	keep.MaxSize -= 500_000
	gone := q.tidy(t, keep)
	require.Equal(t, []string{"event_archive_" + day(-3)}, names(gone))
	require.EqualValues(t, 1000, gone[0].Rows)
	require.Greater(t, gone[0].Bytes, int64(500_000))
	require.LessOrEqual(t, q.historySize(t), int64(keep.MaxSize))
	keep.MaxSize = 1
	gone = q.tidy(t, keep)
	require.Contains(t, names(gone), "event_archive_"+day(-1))
	require.Contains(t, names(gone), "event_archive_"+day(0))
	for _, d := range gone {
		require.Equal(t, d.Name[len(d.Name)-8:] == day(0), d.Emptied, "%s: today's stays, empty", d.Name)
	}
	require.Zero(t, q.count(t, "rowhook.event_archive"))
	q.fill(t, 1, 0)
}

func TestNoRetentionEmptiesTodayToo(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.fill(t, 10, -1, 0)
	gone := q.tidy(t, trigger.Retention{Delivered: 0, Attempts: trigger.Duration(time.Hour)})
	require.Zero(t, q.count(t, "rowhook.event_archive"))
	require.Contains(t, names(gone), "event_archive_"+day(-1))
	require.Equal(t, 10, q.count(t, "rowhook.invocation_log where started_at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'"))
}

func TestAPartitionInUseIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.fill(t, 10, -9, -8)
	holder := q.Conn(t)
	_, err := holder.Exec(t.Context(), fmt.Sprintf("begin; select from rowhook.event_archive_%s limit 1", day(-9)))
	require.NoError(t, err)
	week := trigger.Duration(7 * 24 * time.Hour)
	gone := names(q.tidy(t, trigger.Retention{Delivered: week, Attempts: week}))
	require.NotContains(t, gone, "event_archive_"+day(-9))
	require.Contains(t, gone, "event_archive_"+day(-8), "the others go")
	_, err = holder.Exec(t.Context(), "commit")
	require.NoError(t, err)
	require.Contains(t, names(q.tidy(t, trigger.Retention{Delivered: week, Attempts: week})), "event_archive_"+day(-9), "and it the next time")
}

func TestShedDropsOneDayAtATime(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.fill(t, 10, -2, -1, 0)
	for _, n := range []int{-2, -1, 0} {
		tx, err := q.conn.Begin(t.Context())
		require.NoError(t, err)
		gone, err := queue.DropOldest(t.Context(), tx)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(t.Context()))
		require.Equal(t, []string{"event_archive_" + day(n), "invocation_log_" + day(n)}, names(gone))
	}
}

func TestTheQueueIsFoundLateWhenFarTooMuchIsDead(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.Exec(t, "alter table rowhook.event_log set (autovacuum_enabled = off)")
	q.add(t, 1, 60_000)
	health, err := queue.ReadQueueHealth(t.Context(), q.conn)
	require.NoError(t, err)
	require.False(t, health.Late)
	q.Exec(t, "delete from rowhook.event_log")
	require.Eventually(t, func() bool {
		health, err = queue.ReadQueueHealth(t.Context(), q.conn)
		return err == nil && health.Late
	}, time.Minute, 20*time.Millisecond, "statistics come a little later")
	require.NoError(t, queue.VacuumQueue(t.Context(), q.conn))
	require.Eventually(t, func() bool {
		health, err = queue.ReadQueueHealth(t.Context(), q.conn)
		return err == nil && !health.Late && health.Dead < 1000
	}, time.Minute, 20*time.Millisecond)
}

func TestTheHolderOfTheHorizonIsNamed(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	holder, err := queue.FindHolder(t.Context(), q.conn, 0, 0)
	require.NoError(t, err)
	_ = holder // slots and standbys of other tests are of this server, too
	session := q.Conn(t)
	_, err = session.Exec(t.Context(), "set application_name = 'nightly report'; begin isolation level repeatable read; select 1")
	require.NoError(t, err)
	holder, err = queue.FindHolder(t.Context(), q.conn, 0, 1<<40)
	require.NoError(t, err)
	require.Equal(t, "session", holder.Kind)
	require.Equal(t, "nightly report", holder.Name)
	require.EqualValues(t, session.PgConn().PID(), holder.PID)
	require.NotNil(t, holder.Since)
	require.Contains(t, holder.String(), `session "nightly report" (pid `)
	require.Contains(t, holder.Remedy(), "pg_terminate_backend")
	holder, err = queue.FindHolder(t.Context(), q.conn, time.Hour, 1<<40)
	require.NoError(t, err)
	require.Nil(t, holder, "not for long")
	_, err = session.Exec(t.Context(), "rollback; begin; create table held (); prepare transaction 'two_phase_"+day(0)+"'")
	require.NoError(t, err)
	holder, err = queue.FindHolder(t.Context(), q.conn, 0, 1<<40)
	require.NoError(t, err)
	require.Equal(t, "prepared transaction", holder.Kind)
	require.Contains(t, holder.Remedy(), "rollback prepared E'two_phase_")
	_, err = session.Exec(t.Context(), "rollback prepared 'two_phase_"+day(0)+"'")
	require.NoError(t, err)
}

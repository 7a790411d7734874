package operate_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// recorded lists the payloads of the queue's events, in order.
func (d *desk) recorded(t *testing.T) []string {
	t.Helper()
	return d.ids(t, "select op::text || ' ' || new::text || ' ' || coalesce(session::text, '') from rowhook.event_log order by id")
}

func TestBackfillRecordsExistingRowsAsTheirEventsWouldHoldThem(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, `create type mood as enum ('good', 'bad'); create table shop (region text collate "C", no numeric(9,2), at timestamptz, m mood, primary key (region, no))`)
	d.do(t, `insert into shop values ('b', 1.50, '2026-01-01 00:00+02', 'good'), ('a', 2, '2026-01-01 00:00+02', 'good'), ('a', 10, '2026-01-01 00:00+02', 'bad'), ('ä''{,"', 1, null, 'good')`)
	shop := func(change ...func(*trigger.Spec)) trigger.Spec {
		return d.Spec("shop", append(change, func(s *trigger.Spec) { s.When = "new.m = 'good'::mood" })...)
	}
	d.Apply(t, d.Spec("a"), shop(func(s *trigger.Spec) { s.On = trigger.On{Insert: true} }))
	pinned := d.Conn(t) // like the program's sessions; the types of "when" are found by its user's search_path
	require.NoError(t, pg.Pin(t.Context(), pinned))
	b, err := operate.Backfill(t.Context(), pinned, "shop", operate.BackfillOptions{})
	require.NoError(t, err)
	require.Equal(t, []int64{4, 4, 3}, []int64{b.Expected, b.Scanned, b.Recorded})
	require.NotNil(t, b.FinishedAt)
	session := fmt.Sprintf(`{"rowhook_backfill":%d}`, b.ID)
	want := []string{
		`I {"region":"a","no":2.00,"at":"2025-12-31T22:00:00+00:00","m":"good"} ` + session,
		`I {"region":"b","no":1.50,"at":"2025-12-31T22:00:00+00:00","m":"good"} ` + session,
		`I {"region":"ä'{,\"","no":1.00,"at":null,"m":"good"} ` + session,
	}
	require.ElementsMatch(t, want, d.recorded(t))

	// The payload of a live event of the same row.
	d.do(t, "delete from rowhook.event_log; begin; delete from shop; insert into shop values ('b', 1.50, '2026-01-01 00:00+02', 'good'); commit")
	require.Equal(t, []string{`I {"region":"b","no":1.50,"at":"2025-12-31T22:00:00+00:00","m":"good"} `}, d.recorded(t))

	d.Apply(t, d.Spec("a"), shop(func(s *trigger.Spec) {
		s.On, s.Payload.Columns = trigger.On{Insert: true}, []string{"no", "region"}
	}))
	d.do(t, "delete from rowhook.event_log")
	b, err = operate.Backfill(t.Context(), d.conn, "shop", operate.BackfillOptions{Where: "no > 1 and region = 'b'"})
	require.NoError(t, err)
	require.Equal(t, []string{fmt.Sprintf(`I {"no":1.50,"region":"b"} {"rowhook_backfill":%d}`, b.ID)}, d.recorded(t))
}

func TestBackfillGoesOnWhereItWasInterrupted(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	_, err := operate.Pause(t.Context(), d.conn, "a")
	require.NoError(t, err)
	d.do(t, "insert into a (v) select 'x' from generate_series(1, 2500); delete from rowhook.event_log")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	conn := d.Conn(t)
	part, err := operate.Backfill(ctx, conn, "a", operate.BackfillOptions{Where: "id > 100", Progress: func(s operate.BackfillStatus) {
		if s.Scanned >= 1000 {
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.GreaterOrEqual(t, part.Scanned, int64(1000))
	require.Less(t, part.Scanned, int64(2500))
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Len(t, s.Backfills, 1)
	require.Equal(t, part.Scanned, s.Backfills[0].Scanned)

	_, err = operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{})
	require.ErrorIs(t, err, operate.ErrRefused, "another condition is another backfill")
	require.ErrorContains(t, err, "id > 100")
	d.do(t, "insert into a (v) select 'later' from generate_series(1, 7)")
	whole, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Where: "id > 100"})
	require.NoError(t, err)
	require.Equal(t, part.ID, whole.ID)
	require.Equal(t, []int64{2500, 2400}, []int64{whole.Scanned, whole.Recorded})
	require.Equal(t, 2407, d.count(t, "rowhook.event_log"), "later rows have only their own events")
	require.Equal(t, 2400, d.count(t, "(select distinct new->>'id' from rowhook.event_log where session is not null) as x"), "each row once")

	again, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{})
	require.NoError(t, err)
	require.NotEqual(t, whole.ID, again.ID)
	require.EqualValues(t, 2507, again.Recorded)
}

func TestABackfillThatIsGivenUpMeanwhileIsNotTakenForComplete(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	_, err := operate.Pause(t.Context(), d.conn, "a")
	require.NoError(t, err)
	d.do(t, "insert into a (v) select 'x' from generate_series(1, 1500)")
	restart := d.Conn(t)
	var second *operate.BackfillStatus
	first, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Progress: func(operate.BackfillStatus) {
		if second == nil {
			second, err = operate.Backfill(t.Context(), restart, "a", operate.BackfillOptions{Restart: true, Where: "id > 1400"})
			require.NoError(t, err)
		}
	}})
	require.ErrorIs(t, err, operate.ErrBusy)
	require.ErrorContains(t, err, "was abandoned after ")
	require.Less(t, first.Scanned, int64(1500))
	require.EqualValues(t, 100, second.Recorded)
}

// A change that an apply makes during a backfill holds for its later rows.
func TestBackfillFollowsWhatIsAppliedMeanwhile(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	_, err := operate.Pause(t.Context(), d.conn)
	require.NoError(t, err)
	d.do(t, "insert into a (v) select 'secret' from generate_series(1, 2500); delete from rowhook.event_log")
	narrow := d.Spec("a", func(s *trigger.Spec) { s.Payload.Columns = []string{"id"} })
	part, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true, Progress: func(s operate.BackfillStatus) {
		switch s.Scanned {
		case 500:
			d.Apply(t, narrow, d.Spec("b"))
		case 1000:
			d.Apply(t, d.Spec("b"))
		}
	}})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, `the trigger "a" was removed`)
	require.EqualValues(t, 1000, part.Scanned)
	require.Zero(t, d.count(t, "rowhook.event_log"), "those of the removed trigger are dead letters")
	require.Equal(t, 500, d.count(t, "rowhook.dead_letter where new::text like '%secret%'"))

	d.Apply(t, narrow, d.Spec("b"))
	whole, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Unthrottled: true, Progress: func(s operate.BackfillStatus) {
		if s.Scanned == 1500 {
			d.do(t, "update a set n = 0; alter table a drop constraint a_pkey, add primary key (id, n)")
			d.Apply(t, d.Spec("a"), d.Spec("b"))
		}
	}})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "primary key")
	require.EqualValues(t, 1500, whole.Scanned)
}

// A name may look like a part of the statement.
func TestBackfillReadsKeysOfAnyName(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, `create table odd ("a, new.""b" int, "c desc" int, primary key ("a, new.""b", "c desc")); insert into odd select i % 3, i from generate_series(1, 20) i`)
	d.Apply(t, d.Spec("a"), d.Spec("odd"))
	b, err := operate.Backfill(t.Context(), d.conn, "odd", operate.BackfillOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 20, b.Recorded)
}

func TestBackfillLeavesRoomForEventsThatComeMeanwhile(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.Concurrency = 8 }))
	d.do(t, "insert into a (v) select 'x' from generate_series(1, 300); delete from rowhook.event_log")
	d.Run(t)
	most := 0
	watch := d.Conn(t)
	b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{Progress: func(operate.BackfillStatus) {
		var n int
		require.NoError(t, watch.QueryRow(t.Context(), "select count(*) from rowhook.event_log").Scan(&n))
		most = max(most, n)
	}})
	require.NoError(t, err)
	require.EqualValues(t, 300, b.Recorded)
	require.LessOrEqual(t, most, 4, "half of the trigger's slots")
	until(t, "all arrive", func() bool { return d.receiver.unique() == 300 })
}

func TestBackfillSaysWhyItCanNot(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.do(t, "create table keyless (v text)")
	d.Apply(t, d.Spec("a"), d.Spec("keyless"), d.Spec("b", func(s *trigger.Spec) {
		s.On, s.When = trigger.On{Update: trigger.UpdateOn{Enabled: true}}, "old.v <> new.v"
	}))
	for name, c := range map[string]struct {
		trigger, where string
		kind           error
		want           string
	}{
		"no key":          {"keyless", "", operate.ErrRefused, "no primary key"},
		"no trigger":      {"c", "", operate.ErrNotFound, "no trigger"},
		"bad column":      {"a", "w = 1", operate.ErrInvalid, "the condition"},
		"more than one":   {"a", "true) or (true", operate.ErrInvalid, "the condition"},
		"more statements": {"a", "true; drop table a", operate.ErrInvalid, "the condition"},
		"no boolean":      {"a", "id", operate.ErrInvalid, "boolean"},
		"old in when":     {"b", "", operate.ErrRefused, "use another trigger for the backfill"},
	} {
		_, err := operate.Backfill(t.Context(), d.conn, c.trigger, operate.BackfillOptions{Where: c.where})
		require.ErrorIs(t, err, c.kind, name)
		require.ErrorContains(t, err, c.want, name)
	}
	b, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{})
	require.NoError(t, err, "an empty table")
	require.NotNil(t, b.FinishedAt)
}

func TestBackfillDoesNotRunTheCodeOfATablesOwner(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	role, _ := d.Role(t)
	d.do(t, "grant create on schema public to "+role)
	d.do(t, "alter table a owner to "+role)
	d.Apply(t, d.Spec("a"))
	_, err := operate.Backfill(t.Context(), d.conn, "a", operate.BackfillOptions{})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "belongs to "+role)
}

func TestBackfillOfAPartitionedTableReadsEveryPartition(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.do(t, "create table p (id int primary key, v text) partition by range (id); create table p1 partition of p for values from (0) to (1000); create table p2 partition of p for values from (1000) to (9000)")
	d.do(t, "insert into p select i, 'x' from generate_series(1, 1999) i")
	d.Apply(t, d.Spec("p"))
	b, err := operate.Backfill(t.Context(), d.conn, "p", operate.BackfillOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 1999, b.Recorded)
	require.Equal(t, 1999, d.count(t, "(select distinct new->>'id' from rowhook.event_log) as x"))
}

func TestDrainWaitsUntilNothingIsOwed(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	left, err := operate.Drain(t.Context(), d.conn, nil, nil)
	require.NoError(t, err)
	require.Empty(t, left)

	d.wait(t, "b", 2)
	d.receiver.hold = make(chan struct{})
	d.do(t, "insert into a (v) values ('x')")
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	left, err = operate.Drain(short, d.conn, []string{"b"}, nil)
	require.NoError(t, err)
	require.Equal(t, []operate.Left{{Trigger: "b", Waiting: 2}}, left)
	d.Run(t, func(c *dispatcher.Config) { c.Concurrency = 10 })
	seen := make(chan struct{})
	done := make(chan error, 1)
	conn := d.Conn(t)
	go func() {
		told := false
		left, err := operate.Drain(t.Context(), conn, nil, func(l []operate.Left) {
			if !told && l[0].InFlight == 1 {
				told = true
				close(seen)
			}
		})
		if err == nil && len(left) > 0 {
			err = errors.New("something is left")
		}
		done <- err
	}()
	<-seen
	close(d.receiver.hold)
	require.NoError(t, <-done)
	require.Zero(t, d.count(t, "rowhook.event_log"))
	_, err = operate.Drain(t.Context(), d.conn, []string{"c"}, nil)
	require.ErrorIs(t, err, operate.ErrNotFound)
}

func TestTailFollowsEachEventUntilItIsSettled(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.wait(t, "a", 1)
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.Retry.Limit, s.Retry.Interval = 1, trigger.Duration(time.Second) }), d.Spec("b"))
	d.do(t, "delete from rowhook.event_log")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := make(chan string, 100)
	conn := d.Conn(t)
	done := make(chan error, 1)
	go func() {
		done <- operate.Tail(ctx, conn, operate.Filter{Triggers: []string{"a"}}, func(e operate.Event) error {
			lines <- fmt.Sprintf("%s %d", e.State, e.Attempts)
			return nil
		}, nil)
	}()
	until(t, "it looks", func() bool {
		return d.count(t, "pg_stat_activity where pid = $1 and query ~ 'event_archive'", int(conn.PgConn().PID())) == 1
	})
	d.do(t, "insert into b (v) values ('not followed')")
	d.do(t, "insert into a (v) values ('x')")
	require.Equal(t, "waiting 0", <-lines)
	d.receiver.status.Store(500)
	d.Run(t)
	var last string
	for last != "dead 2" {
		last = <-lines
		require.Contains(t, []string{"in_flight 1", "retrying 1", "in_flight 2", "dead 2"}, last)
	}
	cancel()
	require.NoError(t, <-done)
}

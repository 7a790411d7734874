package dispatcher_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/faultproxy"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/timed"
	"github.com/rowhook/rowhook/trigger"
)

// byRow asks for order within the primary key.
func byRow(s *trigger.Spec) { s.Order = trigger.Order{By: []string{trigger.OrderByRow}} }

// inOrder is one delivery of an ordered trigger.
type inOrder struct {
	sequence int64
	id       string
	n        int64
	op       string
}

// sequences returns what came to a path, by the id of the row.
func sequences(t *testing.T, all []delivery) map[int64][]inOrder {
	t.Helper()
	got := map[int64][]inOrder{}
	for _, d := range all {
		var e struct {
			ID       string
			Sequence int64
			Event    struct {
				Op   string
				Data struct{ Old, New *struct{ ID, N int64 } }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(d.body), &e), d.body)
		row := e.Event.Data.New
		if row == nil {
			row = e.Event.Data.Old
		}
		got[row.ID] = append(got[row.ID], inOrder{e.Sequence, e.ID, row.N, e.Event.Op})
	}
	return got
}

// requireOrder checks that no event of a row came after a later one of it.
func requireOrder(t *testing.T, all []delivery) {
	t.Helper()
	for id, events := range sequences(t, all) {
		last := int64(0)
		for _, e := range events {
			require.GreaterOrEqual(t, e.sequence, last, "row %d: %v", id, events)
			require.NotZero(t, e.sequence)
			last = e.sequence
		}
	}
}

func TestEventsOfARowAreSentInOrderByManyDispatchers(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders", byRow)
			b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
				if len(d.id)%7 == 0 {
					w.WriteHeader(http.StatusInternalServerError)
				}
			})
			for range n {
				b.start(t)
			}
			b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 50)")
			for range 10 {
				b.Exec(t, "update orders set n = n + 1")
			}
			b.receiver.await(t, "orders", 550)
			b.settled(t)
			requireOrder(t, b.receiver.on("orders"))
			require.Equal(t, 550, b.receiver.unique("orders"))
		})
	}
}

func TestAFailingEventHoldsItsKeyAlone(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow, func(s *trigger.Spec) { s.Retry.Interval = trigger.Duration(time.Hour) })
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if n == 0 && string(d.new["id"]) == "1" && string(d.new["n"]) == "0" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	b.start(t)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 5)")
	b.receiver.await(t, "orders", 5)
	b.Exec(t, "update orders set n = 1")
	for _, d := range b.receiver.await(t, "orders", 9) {
		require.False(t, string(d.new["id"]) == "1" && string(d.new["n"]) == "1", "it waits for the one that failed")
	}
	conn := b.Conn(t)
	eventually(t, conn, 1, "select count(*)::integer from rowhook.event_log where tries = 1")
	_, err := operate.RetryNow(t.Context(), conn, operate.RetryOptions{Trigger: "orders"})
	require.NoError(t, err)
	b.receiver.await(t, "orders", 11)
	b.settled(t)
	requireOrder(t, b.receiver.on("orders"))
	row := sequences(t, b.receiver.on("orders"))[1]
	require.Equal(t, []int64{0, 0, 1}, []int64{row[0].n, row[1].n, row[2].n})
	require.Equal(t, 2, one[int](t, conn, "select tries from rowhook.event_archive where new->>'id' = '1' and new->>'n' = '0'"))
	require.Equal(t, 1, one[int](t, conn, "select tries from rowhook.event_archive where new->>'id' = '1' and new->>'n' = '1'"), "to wait is no attempt")
}

// byCustomer asks for order within a column that rows share.
func byCustomer(change ...func(*trigger.Order)) func(*trigger.Spec) {
	return func(s *trigger.Spec) {
		s.Order = trigger.Order{By: []string{"v"}}
		for _, c := range change {
			c(&s.Order)
		}
	}
}

func TestAnEventThatCommitsLateIsFoundAndDelivered(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprint("strict ", strict), func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders", byCustomer(func(o *trigger.Order) { o.Strict = strict }))
			b.start(t)
			conn := b.Conn(t)
			tx, err := conn.Begin(t.Context())
			require.NoError(t, err)
			_, err = tx.Exec(t.Context(), "insert into orders (v, n) values ('a', 1)")
			require.NoError(t, err)
			b.Exec(t, "insert into orders (v, n) values ('a', 2)")
			b.Exec(t, "insert into orders (v, n) values ('b', 3)")
			if strict {
				require.Never(t, func() bool { return len(b.receiver.on("orders")) > 0 }, time.Second, 20*time.Millisecond)
			} else {
				b.receiver.await(t, "orders", 2)
			}
			require.NoError(t, tx.Commit(t.Context()))
			got := b.receiver.await(t, "orders", 3)
			b.settled(t)
			if strict {
				var ofA []string
				for _, d := range got {
					if string(d.new["v"]) == `"a"` {
						ofA = append(ofA, string(d.new["n"]))
					}
				}
				require.Equal(t, []string{"1", "2"}, ofA)
			}
		})
	}
}

// TestReplicatedChangesAreSentInOrder writes as a logical replication worker does.
func TestReplicatedChangesAreSentInOrder(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byCustomer(), func(s *trigger.Spec) { s.OnReplication = true })
	conn := b.Conn(t)
	_, err := conn.Exec(t.Context(), "set session_replication_role = replica")
	require.NoError(t, err)
	write := func(sql string, args ...any) {
		t.Helper()
		_, err := conn.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	write("insert into orders (v, n) select 'k' || g % 3, 0 from generate_series(1, 6) g")
	write("update orders set n = 1")
	require.Equal(t, 12, one[int](t, conn, `select count(*)::integer from rowhook.event_log
		where key is not null and seq > 0 and lane between 0 and 63 and due_at > now() + interval '100 years'`), "they are parked")
	require.Equal(t, 3, one[int](t, conn, "select count(distinct (key, lane))::integer from rowhook.event_log"))
	b.start(t)
	for n := range 20 {
		write("update orders set n = $1", n+2)
	}
	write("update orders set v = 'moved', n = 22 where id <= 2")
	write("delete from orders where id > 2")
	b.receiver.await(t, "orders", 6*22+6)
	b.settled(t)
	requireOrder(t, b.receiver.on("orders"))
	require.Equal(t, 6*22+6, b.receiver.unique("orders"))
	for row, events := range sequences(t, b.receiver.on("orders")) {
		require.Len(t, events, 23, row)
		for i, e := range events[:22] {
			require.EqualValues(t, i, e.n, row)
		}
	}
	eventually(t, conn, 0, "select count(*)::integer from rowhook.key_move")
}

// TestATransactionThatStaysOpenHasLittleReadAgain counts the rows that are read of the lanes while they
// are drained. Nothing else uses their index. When the transaction ends, what waits then is read once
// more, and nothing before. It runs alone: transactions of other databases are open ones, too, and what
// may wait for each is read again when it ends.
func TestATransactionThatStaysOpenHasLittleReadAgain(t *testing.T) {
	timed.Alone(t)
	const keys, changes = 400, 10
	const all = keys * changes
	drain := func(commitsAfter int) (read, waited int) {
		b := newFixture(t)
		b.watch(t, "orders", byRow)
		conn := b.Conn(t)
		tx, err := conn.Begin(t.Context())
		require.NoError(t, err)
		late := 0
		if commitsAfter > 0 {
			late = 10
			_, err = tx.Exec(t.Context(), "insert into orders (n) select 0 from generate_series(1, 10)")
			require.NoError(t, err)
		}
		b.Exec(t, "insert into orders (n) select 0 from generate_series(1, $1::integer)", keys)
		for range changes - 1 {
			b.Exec(t, "update orders set n = n + 1")
		}
		r := b.start(t)
		b.receiver.await(t, "orders", commitsAfter)
		if commitsAfter > 0 {
			waited = one[int](t, b.Conn(t), "select count(*)::integer from rowhook.event_log")
		}
		require.NoError(t, tx.Commit(t.Context()))
		b.receiver.await(t, "orders", all+late)
		b.settled(t)
		r.Stop(t) // its sessions tell what they have read at their end
		requireOrder(t, b.receiver.on("orders"))
		require.Equal(t, all+late, b.receiver.unique("orders"))
		eventually(t, conn, 0, "select count(*)::integer from pg_stat_activity where datname = current_database() and application_name like 'rowhook %'")
		require.Eventually(t, func() bool {
			read = one[int](t, conn, "select idx_tup_fetch::integer from pg_stat_user_indexes where indexrelname = 'event_log_lane'")
			return read >= all+late
		}, patience, 10*time.Millisecond)
		return read, waited
	}
	alone, _ := drain(0)
	open, left := drain(all)
	require.Less(t, float64(open), 1.3*float64(alone), "it stays open until the end, when %d wait", left)
	half, left := drain(all / 2)
	require.Less(t, float64(half), 1.3*float64(alone)+float64(left), "%d wait when it ends", left)
	t.Logf("%d rows were read of %d events; %d beside a transaction, and %d if it ended when %d waited", alone, all, open, half, left)
}

func TestTheNextOwnerOfALaneGoesOnWhereADeadOneWas(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow)
	path, link := through(t, b.URL())
	b.receiver.respond(func(n int, d delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	b.start(t, func(c *dispatcher.Config) { c.DatabaseURL, c.Concurrency = link, 10 })
	b.start(t, func(c *dispatcher.Config) { c.Concurrency = 10 })
	conn := b.Conn(t)
	eventually(t, conn, 2, "select count(distinct owner)::integer from rowhook.lane where owner is not null")
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 40)")
	for range 30 {
		b.Exec(t, "update orders set n = n + 1")
	}
	b.receiver.await(t, "orders", 300)
	told := hear(t, b.Conn(t), queue.LanesPayload)
	path.Set(faultproxy.Refuse)
	path.Cut()
	b.settled(t)
	told()
	require.Equal(t, 40*31, b.receiver.unique("orders"))
	requireOrder(t, b.receiver.on("orders"))
	// On a slow machine all may have been settled before the path was cut, so that nothing waited for this.
	eventually(t, conn, 1, "select count(distinct owner)::integer from rowhook.lane where owner is not null")
}

func TestANewcomerGetsItsShareOfLanesAndAStopGivesThemBack(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow)
	conn := b.Conn(t)
	first := b.start(t)
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner is not null")
	second := b.start(t)
	eventually(t, conn, 32, "select count(*)::integer from rowhook.lane where owner = $1", second.Stats().Instance)
	first.Stop(t)
	require.Equal(t, 0, one[int](t, conn, "select count(*) from rowhook.lane where owner = $1", first.Stats().Instance))
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner = $1", second.Stats().Instance)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 20)")
	b.receiver.await(t, "orders", 20)
	b.settled(t)
	second.Stop(t)
	require.Equal(t, 0, one[int](t, conn, "select count(*) from rowhook.lane l join rowhook.instance i on i.id = l.owner"))
}

// TestANewcomerGetsItsLanesWithoutWaitingForAWatch: by the watch alone it takes 1.5 s, since the
// newcomer looks once before it is given any lanes.
func TestANewcomerGetsItsLanesWithoutWaitingForAWatch(t *testing.T) {
	timed.Alone(t)
	b := newFixture(t)
	b.watch(t, "orders", byRow)
	conn := b.Conn(t)
	const owned = "select count(*)::integer from rowhook.lane where owner = $1"
	first := b.start(t)
	eventually(t, conn, 64, owned, first.Stats().Instance)
	began := time.Now()
	second := b.start(t)
	eventually(t, conn, 32, owned, second.Stats().Instance)
	require.Less(t, time.Since(began), time.Second)
}

func TestOthersAreToldOfALaneThatIsGivenBackAfterItsLastAttempt(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow)
	answer := make(chan struct{})
	b.receiver.respond(func(_ int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	})
	conn := b.Conn(t)
	const owned = "select count(*)::integer from rowhook.lane where owner = $1"
	first := b.start(t)
	eventually(t, conn, 64, owned, first.Stats().Instance)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 80)")
	b.receiver.await(t, "orders", 80)
	busy := one[int](t, conn, "select count(distinct lane) from rowhook.event_log")
	require.Greater(t, busy, 32)
	second := b.start(t)
	eventually(t, conn, 64-busy, owned, second.Stats().Instance)
	told := hear(t, b.Conn(t), queue.LanesPayload)
	close(answer)
	told()
	eventually(t, conn, 32, owned, second.Stats().Instance)
	b.settled(t)
}

// TestAnAttemptThatHangsDoesNotHoldUpALaneThatIsToBeGivenBack: with it, the other keys of the lane would
// wait until the trigger's timeout.
func TestAnAttemptThatHangsDoesNotHoldUpALaneThatIsToBeGivenBack(t *testing.T) {
	t.Parallel()
	const hanging, others = 80, 120
	b := newFixture(t)
	b.watch(t, "orders", byRow, func(s *trigger.Spec) { s.Webhook.Timeout = trigger.Duration(10 * time.Minute) })
	answer := make(chan struct{})
	b.receiver.respond(func(_ int, d delivery, _ http.ResponseWriter, r *http.Request) {
		if id, _ := strconv.Atoi(string(d.new["id"])); id > hanging {
			return
		}
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	})
	conn := b.Conn(t)
	const owned = "select count(*)::integer from rowhook.lane where owner = $1"
	first := b.start(t)
	eventually(t, conn, 64, owned, first.Stats().Instance)
	b.Exec(t, fmt.Sprintf("insert into orders (n) select 0 from generate_series(1, %d)", hanging))
	b.receiver.await(t, "orders", hanging)
	busy := one[int](t, conn, "select count(distinct lane) from rowhook.event_log")
	require.Greater(t, busy, 32)
	second := b.start(t)
	eventually(t, conn, 64-busy, owned, second.Stats().Instance)
	b.Exec(t, fmt.Sprintf("insert into orders (n) select 0 from generate_series(1, %d)", others))
	b.receiver.await(t, "orders", hanging+others)
	close(answer)
	eventually(t, conn, 32, owned, second.Stats().Instance)
	b.settled(t)
}

// hear listens to what dispatchers and writers say. The function that it returns waits for a
// notification that was sent since.
func hear(t *testing.T, conn *pgx.Conn, payload string) (await func()) {
	t.Helper()
	_, err := conn.Exec(t.Context(), "listen "+queue.Channel)
	require.NoError(t, err)
	return func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for said := ""; said != payload; {
			n, err := conn.WaitForNotification(ctx)
			require.NoError(t, err)
			said = n.Payload
		}
	}
}

func TestAnInstanceThatWasTakenForDeadClaimsItsLanesAnew(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow)
	conn := b.Conn(t)
	r := b.start(t)
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner = $1 and epoch = 1", r.Stats().Instance)
	b.Exec(t, "delete from rowhook.instance")
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner = $1 and epoch > 1", r.Stats().Instance)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 20)")
	b.receiver.await(t, "orders", 20)
	b.settled(t)
	// Nor does it go on under the epoch of before when it has lost sight of its lanes only.
	b.Exec(t, "update rowhook.lane set epoch = epoch + 1")
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner = $1 and epoch > 3", r.Stats().Instance)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 20)")
	b.receiver.await(t, "orders", 40)
	b.settled(t)
}

func TestAnInstanceThatWasTakenForDeadWaitsForNoAttemptThatHangs(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow)
	conn := b.Conn(t)
	answer := make(chan struct{})
	b.receiver.respond(func(_ int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	})
	r := b.start(t)
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner = $1 and epoch = 1", r.Stats().Instance)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 20)")
	b.receiver.await(t, "orders", 20)
	b.Exec(t, "delete from rowhook.instance")
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner = $1 and epoch > 1", r.Stats().Instance)
	b.Exec(t, "delete from rowhook.event_log") // so that no outcome finds its event
	close(answer)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 200)")
	b.settled(t)
	require.Equal(t, 220, b.receiver.unique("orders"))
}

func TestAnInstanceThatComesBackTakesItsShareWhileItsOldAttemptsHang(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow, func(s *trigger.Spec) { s.Webhook.Timeout = trigger.Duration(10 * time.Minute) })
	conn := b.Conn(t)
	answer := make(chan struct{})
	b.receiver.respond(func(_ int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	})
	path, link := through(t, b.URL())
	away := b.start(t, func(c *dispatcher.Config) { c.DatabaseURL = link })
	stays := b.start(t)
	const lanesOf = "select count(*)::integer from rowhook.lane where owner = $1"
	eventually(t, conn, 32, lanesOf, away.Stats().Instance)
	eventually(t, conn, 32, lanesOf, stays.Stats().Instance)
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 20)")
	b.receiver.await(t, "orders", 20)
	path.Set(faultproxy.Stall)
	eventually(t, conn, 64, lanesOf, stays.Stats().Instance)
	path.Heal()
	eventually(t, conn, 32, lanesOf, away.Stats().Instance)
	close(answer)
	b.settled(t)
}

func TestADeadLetterHoldsItsKeyUntilSomebodyActs(t *testing.T) {
	t.Parallel()
	for _, act := range []string{"redeliver", "discard", "nothing, since it is skipped"} {
		t.Run(act, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders", func(s *trigger.Spec) {
				s.Order = trigger.Order{By: []string{trigger.OrderByRow}, OnDead: trigger.OnDeadBlock}
				if act != "redeliver" && act != "discard" {
					s.Order.OnDead = ""
				}
				s.Retry.Limit = 0
			})
			b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, _ *http.Request) {
				if n == 0 && string(d.new["id"]) == "1" && string(d.new["n"]) == "1" {
					w.WriteHeader(http.StatusInternalServerError)
				}
			})
			b.start(t)
			conn := b.Conn(t)
			b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 2)")
			b.Exec(t, "update orders set n = 1")
			b.Exec(t, "update orders set n = 2")
			if act != "redeliver" && act != "discard" {
				b.receiver.await(t, "orders", 6)
				b.settled(t)
				return
			}
			b.receiver.await(t, "orders", 5)
			eventually(t, conn, 1, "select count(*)::integer from rowhook.event_log")
			require.Never(t, func() bool { return len(b.receiver.on("orders")) > 5 }, 2*time.Second, 50*time.Millisecond)
			want := []int64{0, 1, 2}
			if act == "redeliver" {
				_, err := operate.Redeliver(t.Context(), conn, operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
				require.NoError(t, err)
				want = []int64{0, 1, 1, 2}
			} else {
				b.Exec(t, "delete from rowhook.dead_letter")
			}
			b.settled(t)
			var got []int64
			for _, e := range sequences(t, b.receiver.on("orders"))[1] {
				got = append(got, e.n)
			}
			require.Equal(t, want, got)
			requireOrder(t, b.receiver.on("orders"))
		})
	}
}

func TestARowThatMovesToAnotherKeyKeepsTheOrderOfBoth(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders", byCustomer())
			for range n {
				b.start(t)
			}
			b.Exec(t, "insert into orders (v, n) select 'k' || g, 0 from generate_series(1, 12) g")
			for i := range 12 {
				b.Exec(t, "update orders set n = n + 1")
				b.Exec(t, fmt.Sprintf("update orders set n = n + 1, v = 'k' || (1 + (id + %d) %% 12)", i))
			}
			b.receiver.await(t, "orders", 12*25)
			b.settled(t)
			requireOrder(t, b.receiver.on("orders"))
			eventually(t, b.Conn(t), 0, "select count(*)::integer from rowhook.key_move")
		})
	}
}

func TestPausedOrderedTriggersWaitAndGoOn(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow)
	conn := b.Conn(t)
	b.start(t)
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner is not null")
	_, err := operate.Pause(t.Context(), conn, "orders")
	require.NoError(t, err)
	eventually(t, conn, 0, "select count(*)::integer from rowhook.lane where owner is not null")
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 5)")
	b.Exec(t, "update orders set n = 1")
	require.Never(t, func() bool { return len(b.receiver.on("orders")) > 0 }, time.Second, 50*time.Millisecond)
	_, err = operate.Resume(t.Context(), conn, "orders")
	require.NoError(t, err)
	b.receiver.await(t, "orders", 10)
	b.settled(t)
	requireOrder(t, b.receiver.on("orders"))
}

func TestOrderIsTurnedOnAndOffWithEventsWaiting(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 30)")
	b.apply(t, b.Spec("orders", byRow))
	b.Exec(t, "update orders set n = 1")
	b.Exec(t, "update orders set n = 2")
	b.apply(t, b.Spec("orders"))
	b.Exec(t, "update orders set n = 3")
	b.start(t)
	b.receiver.await(t, "orders", 120)
	b.settled(t)
	b.apply(t, b.Spec("orders", byRow))
	b.Exec(t, "update orders set n = 4")
	b.Exec(t, "update orders set n = 5")
	b.receiver.await(t, "orders", 180)
	b.settled(t)
	require.Equal(t, 180, b.receiver.unique("orders"))
}

func TestAHotKeyDoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byCustomer())
	b.Exec(t, "insert into orders (v, n) select 'hot', g from generate_series(1, 5000) g")
	b.Exec(t, "insert into orders (v, n) select 'k' || g, 1 from generate_series(1, 200) g")
	b.receiver.respond(func(_ int, d delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	r := b.start(t)
	others := func() (n int) {
		for _, d := range b.receiver.on("orders") {
			if string(d.new["v"]) != `"hot"` {
				n++
			}
		}
		return n
	}
	require.Eventually(t, func() bool { return others() == 200 }, patience, 10*time.Millisecond)
	require.Less(t, len(b.receiver.on("orders")), 2000, "the hot key has most of its events before it")
	r.Cancel()
}

func TestOnlyTheNewestOfSeveralWaitingChangesIsSent(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) {
		s.Order = trigger.Order{By: []string{trigger.OrderByRow}, Latest: true}
		s.Retry.Interval, s.Webhook.Timeout = trigger.Duration(time.Second), trigger.Duration(patience)
	})
	conn := b.Conn(t)
	updated := make(chan struct{})
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, r *http.Request) {
		if n == 0 && string(d.new["n"]) == "0" {
			holdFirst(updated)(n, d, w, r)
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	b.start(t)
	eventually(t, conn, 64, "select count(*)::integer from rowhook.lane where owner is not null")
	b.Exec(t, "insert into orders (n) values (0)")
	b.receiver.await(t, "orders", 1)
	for range 20 {
		b.Exec(t, "update orders set n = n + 1")
	}
	close(updated)
	b.settled(t)
	got := b.receiver.on("orders")
	require.Less(t, len(got), 5, "the updates wait behind the insert that failed")
	require.Equal(t, "20", string(got[len(got)-1].new["n"]))
	require.Equal(t, 21, one[int](t, conn, "select count(*) from rowhook.event_archive"))
	require.Equal(t, len(got)-1, one[int](t, conn, "select count(*) from rowhook.event_archive where merged_into is null"))
}

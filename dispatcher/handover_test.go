package dispatcher_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// handedOver counts the events that a dispatcher was handed.
type handedOver struct{ n atomic.Int64 }

func (h *handedOver) observe(cfg *dispatcher.Config) {
	cfg.Observers = append(cfg.Observers, dispatcher.Observer{Claimed: func(events []dispatcher.ClaimedEvent, _ time.Duration) {
		for i := range events {
			if events[i].Handed {
				h.n.Add(1)
			}
		}
	}})
}

// handsOverTo waits until writers hand over to an instance.
func (b *fixture) handsOverTo(t *testing.T, instance int32) {
	t.Helper()
	conn := b.Conn(t)
	require.Eventually(t, func() bool {
		w, err := queue.ReadWatch(t.Context(), conn)
		require.NoError(t, err)
		return w.Doorbell == queue.Ringing && w.Handover.Instance == instance
	}, patience, 5*time.Millisecond)
}

// refuses waits until events of a trigger are handed over or not.
func (b *fixture) refuses(t *testing.T, name string, refused bool) {
	t.Helper()
	conn := b.Conn(t)
	require.Eventually(t, func() bool {
		w, err := queue.ReadWatch(t.Context(), conn)
		require.NoError(t, err)
		var id int32
		require.NoError(t, conn.QueryRow(t.Context(), "select id from rowhook.trigger where name = $1", name).Scan(&id))
		return w.Handover.Refused&queue.Bucket(id) != 0 == refused
	}, patience, 5*time.Millisecond)
}

// startHanded starts a dispatcher to which writers hand over.
func (b *fixture) startHanded(t *testing.T, change ...func(*dispatcher.Config)) (*running, *handedOver) {
	t.Helper()
	h := &handedOver{}
	r := b.start(t, append(change, h.observe)...)
	b.handsOverTo(t, r.Stats().Instance)
	return r, h
}

func TestSingleRowsAreHandedOverAndNotClaimed(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.watch(t, "shaped", func(s *trigger.Spec) { s.Payload.Columns = []string{"v"} })
	_, h := b.startHanded(t)
	for _, sql := range []string{
		"insert into orders (v) values ('x')", "update orders set v = 'y'", "delete from orders", "select rowhook.emit('orders', '{}')",
		"insert into shaped (v) values ('x')",
	} {
		b.Exec(t, sql)
	}
	b.receiver.await(t, "orders", 4)
	b.receiver.await(t, "shaped", 1)
	b.settled(t)
	require.EqualValues(t, 5, h.n.Load())
	var tries, attempts int
	require.NoError(t, b.Conn(t).QueryRow(t.Context(), "select sum(tries), (select count(*) from rowhook.invocation_log) from rowhook.event_archive").Scan(&tries, &attempts))
	require.Equal(t, []int{5, 5}, []int{tries, attempts})
}

// The owner of the table is not trusted, so another function writes for the capture.
func TestSingleRowsOfATableOfAnUntrustedOwnerAreHandedOver(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	owner, _ := b.Role(t)
	b.Table(t, "orders")
	b.Exec(t, "alter table orders owner to "+owner)
	b.apply(t, b.Spec("orders"))
	_, h := b.startHanded(t)
	for _, sql := range []string{"insert into orders (v) values ('x')", "update orders set v = 'y'", "delete from orders", "insert into orders (v) values ('a'), ('b')"} {
		b.Exec(t, sql)
	}
	b.receiver.await(t, "orders", 5)
	b.settled(t)
	require.EqualValues(t, 3, h.n.Load())
	require.Len(t, b.receiver.on("orders"), 5)
}

func TestWhatIsNotSentAtOnceIsNotHandedOver(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.watch(t, "ordered", func(s *trigger.Spec) { s.Order.By = []string{trigger.OrderByRow} })
	b.watch(t, "delayed", func(s *trigger.Spec) { s.Delay = trigger.Duration(time.Millisecond) })
	b.watch(t, "silent", func(s *trigger.Spec) { s.Notify = trigger.NotifyNever })
	_, h := b.startHanded(t, func(cfg *dispatcher.Config) { cfg.PollInterval = 100 * time.Millisecond })
	for _, sql := range []string{
		"insert into orders (v) values ('a'), ('b')", "update orders set v = 'c' where false",
		"insert into ordered (v) values ('a')", "insert into delayed (v) values ('a')", "insert into silent (v) values ('a')",
	} {
		b.Exec(t, sql)
	}
	b.receiver.await(t, "orders", 2)
	for _, path := range []string{"ordered", "delayed", "silent"} {
		b.receiver.await(t, path, 1)
	}
	b.settled(t)
	require.Zero(t, h.n.Load())
}

func TestATransactionHandsOverEightEventsAndNoMore(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	_, h := b.startHanded(t)
	conn := b.Conn(t)
	for range 2 {
		require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			for n := range 20 {
				if _, err := tx.Exec(t.Context(), "insert into orders (n) values ($1)", n); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	b.receiver.await(t, "orders", 40)
	b.settled(t)
	require.EqualValues(t, 16, h.n.Load())
	require.Len(t, b.receiver.on("orders"), 40)
}

func TestAForgedNotificationSendsNothingTwice(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	free := make(chan struct{})
	var once sync.Once
	release := func() { once.Do(func() { close(free) }) }
	defer release()
	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) {
		<-free
		w.WriteHeader(http.StatusOK)
	})
	r, h := b.startHanded(t)
	b.Exec(t, "insert into orders (v) values ('x')")
	id := b.receiver.await(t, "orders", 1)[0].id
	channel := queue.TakeChannel(r.Stats().Instance)
	conn := b.Conn(t)
	var name int32
	require.NoError(t, conn.QueryRow(t.Context(), "select id from rowhook.trigger").Scan(&name))
	forge := func() {
		for _, payload := range []string{
			fmt.Sprint(name, " ", id), fmt.Sprint(name+1, " ", id), "", "x", fmt.Sprint(name), fmt.Sprint(name, " x"),
			fmt.Sprint(name, " ", "00000000-0000-7000-8000-000000000000"), strings.Repeat("9", 7000),
		} {
			_, err := conn.Exec(t.Context(), "select pg_notify($1, $2)", channel, payload)
			require.NoError(t, err)
		}
	}
	for range 20 {
		forge()
	}
	b.Exec(t, "insert into orders (v) values ('y')")
	b.receiver.await(t, "orders", 2) // so all that came before was read
	release()
	for range 20 {
		forge()
	}
	b.settled(t)
	b.Exec(t, "insert into orders (v) values ('z')")
	b.receiver.await(t, "orders", 3)
	b.settled(t)
	require.Len(t, b.receiver.on("orders"), 3)
	require.LessOrEqual(t, h.n.Load(), int64(3), "so many rings may silence the writers")
}

func TestWhatMayNotBeSentIsGivenBackUncountedAndHandedOverNoMore(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.watch(t, "slow", func(s *trigger.Spec) { s.Webhook.Timeout = trigger.Duration(80 * time.Second) })
	b.watch(t, "batched", func(s *trigger.Spec) { s.Batch.Max = 10 })
	_, h := b.startHanded(t)
	conn := b.Conn(t)
	_, err := operate.Pause(t.Context(), conn, "orders")
	require.NoError(t, err)
	b.Exec(t, "insert into orders (v) values ('x')")
	b.refuses(t, "orders", true)
	var tries, claimed int
	require.Eventually(t, func() bool {
		require.NoError(t, conn.QueryRow(t.Context(), "select sum(tries), count(claimed_by) from rowhook.event_log").Scan(&tries, &claimed))
		return claimed == 0
	}, patience, 5*time.Millisecond)
	require.Zero(t, tries)
	before := h.n.Load()
	b.Exec(t, "insert into orders (v) values ('y')")
	_, err = operate.Resume(t.Context(), conn, "orders")
	require.NoError(t, err)
	b.receiver.await(t, "orders", 2)
	require.Equal(t, before, h.n.Load())
	b.refuses(t, "orders", false)
	b.Exec(t, "insert into orders (v) values ('z')")
	b.receiver.await(t, "orders", 3)
	require.Equal(t, before+1, h.n.Load())

	for _, name := range []string{"slow", "batched"} {
		b.Exec(t, "insert into "+name+" (v) values ('x')")
		b.receiver.await(t, name, 1)
		b.refuses(t, name, true)
		before = h.n.Load()
		b.Exec(t, "insert into "+name+" (v) values ('x')")
		b.receiver.await(t, name, 2)
		require.Equal(t, before, h.n.Load())
	}
	b.settled(t)
	var most int
	require.NoError(t, conn.QueryRow(t.Context(), "select max(tries) from rowhook.event_archive").Scan(&most))
	require.Equal(t, 1, most)
}

// TestWhatIsHandedOverAndNotAnnouncedIsFound has writers that did not notify: a notification may be lost
// with the session that listens.
func TestWhatIsHandedOverAndNotAnnouncedIsFound(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	r, _ := b.startHanded(t)
	other := b.Spec("orders").Name
	hand := func(to int32, due string) {
		b.Exec(t, fmt.Sprintf(`insert into rowhook.event_log (id, trigger_id, relation_id, op, new, due_at, claimed_by, tries, claim)
select rowhook.uuid7(), t.id, t.relation_id, 'M', '{}', now() + interval '%s', %d, 1, 1 from rowhook.trigger t where t.name = '%s'`, due, to, other))
	}
	hand(r.Stats().Instance, "90 seconds")
	hand(1_000_000, "90 seconds") // an instance that is not registered
	b.receiver.await(t, "orders", 2)
	b.settled(t)
	require.Equal(t, 2, b.receiver.unique("orders"))
	require.Len(t, b.receiver.on("orders"), 2)
}

// Others bury it by what they saw of its beat, and what was handed over to it after that counts as not
// sent.
func TestAnInstanceThatCannotBeatTakesNothingUntilItCan(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.startHanded(t)
	conn := b.Conn(t)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select from rowhook.instance for update")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		var stale bool
		require.NoError(t, b.Conn(t).QueryRow(t.Context(), "select bool_and(seen_at < clock_timestamp() - interval '"+queue.LockLostAfter.String()+"') from rowhook.instance").Scan(&stale))
		return stale
	}, patience, 50*time.Millisecond)
	b.Exec(t, "insert into orders (v) values ('x')")
	var handed int
	require.NoError(t, b.Conn(t).QueryRow(t.Context(), "select count(*) from rowhook.event_log where claim = 1").Scan(&handed))
	require.Equal(t, 1, handed)
	require.Never(t, func() bool { return len(b.receiver.on("orders")) > 0 }, time.Second, 50*time.Millisecond)
	require.NoError(t, tx.Rollback(t.Context()))
	b.receiver.await(t, "orders", 1)
	b.settled(t)
}

func TestATransactionThatEndsAfterTheInstanceToWhichItHandedOverIsFound(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	first, _ := b.startHanded(t)
	writer := b.Conn(t)
	tx, err := writer.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into orders (v) values ('x')")
	require.NoError(t, err)
	second, _ := b.startHanded(t)
	first.Stop(t)
	b.handsOverTo(t, second.Stats().Instance)
	require.NoError(t, tx.Commit(t.Context()))
	b.receiver.await(t, "orders", 1)
	b.settled(t)
	require.Len(t, b.receiver.on("orders"), 1)
}

func TestAnEventWhoseLeaseEndsBeforeItsTransactionIsClaimed(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	_, h := b.startHanded(t)
	require.NoError(t, pgx.BeginFunc(t.Context(), b.Conn(t), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "insert into orders (v) values ('x')"); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), "update rowhook.event_log set due_at = clock_timestamp()")
		return err
	}))
	b.receiver.await(t, "orders", 1)
	b.settled(t)
	require.Zero(t, h.n.Load())
}

func TestHandOverGoesToALiveInstanceWhenItsHolderStops(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	first, _ := b.startHanded(t)
	second, _ := b.startHanded(t)
	second.Stop(t)
	b.handsOverTo(t, first.Stats().Instance)
	first.Stop(t)
	w, err := queue.ReadWatch(t.Context(), b.Conn(t))
	require.NoError(t, err)
	require.Zero(t, w.Handover.Instance)
	b.Exec(t, "insert into orders (v) values ('x')")
	third, _ := b.startHanded(t)
	b.receiver.await(t, "orders", 1)
	third.Stop(t)
}

// TestWhatIsGivenBackIsSentByAnInstanceThatCan has the one that is awake lack a variable.
func TestWhatIsGivenBackIsSentByAnInstanceThatCan(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Webhook.Headers = map[string]string{"X-Key": "${KEY}"} })
	with := func(cfg *dispatcher.Config) {
		cfg.Lookup = func(name string) (string, bool) { return "k", name == "KEY" }
	}
	without := func(cfg *dispatcher.Config) { cfg.Lookup = func(string) (string, bool) { return "", false } }
	able, _ := b.startHanded(t, with)
	_, h := b.startHanded(t, without)
	b.Exec(t, "insert into orders (v) values ('x')")
	require.Equal(t, "k", b.receiver.await(t, "orders", 1)[0].header.Get("X-Key"))
	b.settled(t)
	require.EqualValues(t, 1, h.n.Load())
	b.refuses(t, "orders", true)
	require.NotZero(t, able.Stats().Instance)
}

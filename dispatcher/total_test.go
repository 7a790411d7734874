package dispatcher_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// countOpen has the receiver hold each request for a while, and count how
// many are open at once.
func countOpen(r *receiver, hold time.Duration) (most *atomic.Int64) {
	most = &atomic.Int64{}
	var mu sync.Mutex
	open := int64(0)
	r.respond(func(_ int, _ delivery, _ http.ResponseWriter, req *http.Request) {
		mu.Lock()
		open++
		most.Store(max(most.Load(), open))
		mu.Unlock()
		timer := time.NewTimer(hold)
		select {
		case <-timer.C:
		case <-req.Context().Done():
		}
		mu.Lock()
		open--
		mu.Unlock()
	})
	return most
}

func totalOf(n int) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.ConcurrencyTotal = n }
}

func TestATotalIsNeverExceededByInstancesThatComeAndGo(t *testing.T) {
	t.Parallel()
	for _, total := range []int{1, 3, 8} {
		b := newFixture(t)
		b.watch(t, "total", totalOf(total))
		most := countOpen(b.receiver, 10*time.Millisecond)
		b.Exec(t, "insert into total (n) select generate_series(1, 50 * $1)", total)
		first := b.start(t)
		b.receiver.await(t, "total", 5)
		second := b.start(t)
		b.start(t)
		conn := b.Conn(t)
		// The second one is taken for dead, and registers again.
		b.Exec(t, "delete from rowhook.instance where id = (select max(id) - 1 from rowhook.instance)")
		b.receiver.await(t, "total", 20*total)
		first.Stop(t)
		b.Exec(t, "insert into total (n) select generate_series(1, 200 * $1)", total)
		b.receiver.await(t, "total", 150*total)
		second.Stop(t)
		b.settled(t)
		require.LessOrEqual(t, most.Load(), int64(total))
		require.Equal(t, int64(total), most.Load(), "it is used")
		require.LessOrEqual(t, one[int](t, conn, "select sum(n)::integer from rowhook.share join rowhook.instance i on i.id = instance_id"), total)
	}
}

func TestAnInstanceThatIsKilledLeavesItsShareWhenItIsBuried(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "buried", totalOf(2))
	conn := b.Conn(t)
	// An instance that has all, and no longer beats.
	b.Exec(t, `insert into rowhook.instance (id, name, version, listens, seen_at) values (1000, 'killed', 'v', true, now());
insert into rowhook.share (trigger_id, instance_id, registered, n, busy) select t.id, 1000, i.started_at, 2, true from rowhook.trigger t, rowhook.instance i`)
	b.start(t)
	b.Exec(t, "insert into buried (n) select generate_series(1, 10)")
	b.settled(t)
	require.Zero(t, one[int](t, conn, "select count(*)::integer from rowhook.instance where id = 1000"))
	require.Len(t, b.receiver.on("buried"), 10)
}

func TestAnotherTotalAndNoneTakeEffect(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "changed", totalOf(1))
	b.start(t)
	b.Exec(t, "insert into changed (n) values (1)")
	b.settled(t)
	b.apply(t, b.Spec("changed", totalOf(4)))
	eventually(t, b.Conn(t), 4, "select n from rowhook.share")
	most := countOpen(b.receiver, 50*time.Millisecond)
	b.Exec(t, "insert into changed (n) select generate_series(1, 40)")
	b.settled(t)
	require.Equal(t, int64(4), most.Load())
	b.apply(t, b.Spec("changed"))
	most = countOpen(b.receiver, 50*time.Millisecond)
	b.Exec(t, "insert into changed (n) select generate_series(1, 40)")
	b.settled(t)
	require.Greater(t, most.Load(), int64(4))
	eventually(t, b.Conn(t), 0, "select count(*)::integer from rowhook.share")
}

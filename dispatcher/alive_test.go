package dispatcher_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/faultproxy"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// through returns a proxy to the database of a URL, and the URL that leads through it.
func through(t *testing.T, text string) (*faultproxy.Proxy, string) {
	t.Helper()
	u, err := url.Parse(text)
	require.NoError(t, err)
	p, err := faultproxy.Listen(t.Context(), u.Host)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	u.Host = p.Addr()
	return p, u.String()
}

// listeningThrough has a dispatcher listen through a proxy while its other sessions go straight.
func listeningThrough(link string, name string) func(*dispatcher.Config) {
	return func(c *dispatcher.Config) {
		c.ListenURL, c.Name, c.PollInterval = link, name, 100*time.Millisecond
	}
}

func TestLosingTheListenPathIsNoDeath(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders")
			conn := b.Conn(t)
			path, link := through(t, b.URL())
			var all []*running
			for i := range n {
				all = append(all, b.start(t, listeningThrough(link, fmt.Sprint("i", i))))
			}
			eventually(t, conn, n, "select count(*)::integer from rowhook.instance where listens")
			path.Set(faultproxy.Refuse)
			path.Cut()
			eventually(t, conn, n, "select count(*)::integer from rowhook.instance where not listens")
			// Longer than anything that the others wait for.
			require.Never(t, func() bool { return one[int](t, conn, "select count(*) from rowhook.instance") != n }, queue.UnseenAfter+3*time.Second, 100*time.Millisecond)
			b.Exec(t, "insert into orders default values")
			b.receiver.await(t, "orders", 1)
			for _, r := range all {
				require.NotContains(t, r.log.String(), "died")
				require.NotContains(t, r.log.String(), "considered this one dead")
				require.False(t, r.Stats().Listens)
				require.True(t, r.Stats().Registered)
			}
			path.Heal()
			eventually(t, conn, n, "select count(*)::integer from rowhook.instance where listens")
		})
	}
}

func TestWhoCanNotListenLooksSoonHoweverLongThePollInterval(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	path, link := through(t, b.URL())
	r := b.start(t, func(c *dispatcher.Config) { c.ListenURL, c.PollInterval = link, time.Hour })
	eventually(t, b.Conn(t), int64(queue.Ringing), "select coalesce(pg_sequence_last_value('rowhook.doorbell'), 0)")
	path.Set(faultproxy.Refuse)
	path.Cut()
	require.Eventually(t, func() bool { return !r.Stats().Listens }, patience, 10*time.Millisecond)
	for n := 1; n <= 3; n++ {
		b.Exec(t, "insert into orders default values")
		b.receiver.await(t, "orders", n) // the interval poll, of an hour, is not what finds it
	}
}

func TestEventsInFlightAreSentOnceWhateverBecomesOfTheListeningSession(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Webhook.Timeout = trigger.Duration(10 * time.Minute) })
	path, link := through(t, b.URL())
	held := make(chan struct{})
	b.receiver.respond(holdFirst(held))
	first, second := b.start(t, listeningThrough(link, "a")), b.start(t, listeningThrough(link, "b"))
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 20)")
	b.receiver.await(t, "orders", 20)
	for range 4 {
		path.Set(faultproxy.Refuse)
		path.Cut()
		require.Never(t, func() bool { return len(b.receiver.on("orders")) > 20 }, 5*time.Second, 50*time.Millisecond)
		path.Heal()
		require.Eventually(t, func() bool { return first.Stats().Listens && second.Stats().Listens }, patience, 10*time.Millisecond)
	}
	close(held)
	b.settled(t)
	require.Len(t, b.receiver.on("orders"), 20)
}

func TestWhoWasTakenForDeadRegistersAgainWithWhatIsTrue(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	conn := b.Conn(t)
	path, link := through(t, b.URL())
	r := b.start(t, listeningThrough(link, "a"))
	for _, listens := range []bool{true, false} {
		if !listens {
			path.Set(faultproxy.Refuse)
			path.Cut()
			require.Eventually(t, func() bool { return !r.Stats().Listens }, patience, 10*time.Millisecond)
		}
		b.Exec(t, "delete from rowhook.instance")
		require.Eventually(t, func() bool {
			var now bool
			err := conn.QueryRow(t.Context(), "select listens from rowhook.instance where id = $1", r.Stats().Instance).Scan(&now)
			return err == nil && now == listens
		}, patience, 10*time.Millisecond)
		require.Eventually(t, func() bool { return r.Stats().Registered }, patience, 10*time.Millisecond)
		before := len(b.receiver.on("orders"))
		b.Exec(t, "insert into orders default values")
		b.receiver.await(t, "orders", before+1)
	}
	require.Contains(t, r.log.String(), "this one has registered again")
}

func TestWhoIsInNoListSaysSo(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	r := b.start(t)
	require.True(t, r.Stats().Registered)
	b.Exec(t, `
create function refuse() returns trigger language plpgsql as $$ begin raise 'no more instances'; end $$;
create trigger refuse before insert on rowhook.instance for each row execute function refuse();
delete from rowhook.instance`)
	require.Eventually(t, func() bool { return !r.Stats().Registered }, patience, 10*time.Millisecond)
	b.Exec(t, "drop trigger refuse on rowhook.instance")
	require.Eventually(t, func() bool { return r.Stats().Registered }, patience, 10*time.Millisecond)
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 1)
}

func TestDeliveriesGoOnWhereALostListeningSessionCannotComeBack(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	conn := b.Conn(t)
	role, link := b.Role(t)
	_, err := sqlschema.Grant(t.Context(), conn, []string{role})
	require.NoError(t, err)
	var all []*running
	for _, name := range []string{"a", "b"} {
		all = append(all, b.start(t, func(c *dispatcher.Config) { c.DatabaseURL, c.Name, c.PollInterval = link, name, 100*time.Millisecond }))
	}
	eventually(t, conn, 2, "select count(*)::integer from rowhook.instance where listens")
	b.Exec(t, "alter role "+role+" connection limit 1")
	b.Exec(t, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()) and objsubid = 2")
	eventually(t, conn, 2, "select count(*)::integer from rowhook.instance where not listens")
	for n := 1; n <= 5; n++ {
		b.Exec(t, "insert into orders default values")
		b.receiver.await(t, "orders", n)
		require.Never(t, func() bool { return one[int](t, conn, "select count(*) from rowhook.instance") != 2 }, 2*time.Second, 100*time.Millisecond)
	}
	b.settled(t)
	for _, r := range all {
		require.NotContains(t, r.log.String(), "died")
	}
}

// ghost is an instance that has said that it lives, and then nothing more. With locked the server
// believes in its session for ever, as after its host died without a word.
func (b *fixture) ghost(t *testing.T, id int32, listens, locked bool) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.URL()+"&application_name=rowhook%20ghost")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) }) // it may have been ended
	if locked {
		require.NoError(t, queue.HoldLock(t.Context(), conn, id))
	}
	require.NoError(t, queue.Register(t.Context(), conn, id, "ghost", "v", listens))
	known, err := queue.Beat(t.Context(), conn, id, listens)
	require.NoError(t, err)
	require.True(t, known)
	got, err := queue.Claim(t.Context(), conn, queue.Claimant{Instance: id, Number: 1}, []queue.Want{{Trigger: 1, Limit: 10, Lease: time.Hour}})
	require.NoError(t, err)
	require.Len(t, got, 10)
}

func TestWhoSaysNothingMoreIsBuriedWhateverTheServerBelieves(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ listens, locked bool }{
		"crashed":                    {listens: true},
		"polls":                      {},
		"its host died without word": {listens: true, locked: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders")
			b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 10)")
			b.ghost(t, 999, c.listens, c.locked)
			b.start(t)
			b.receiver.await(t, "orders", 10)
			conn := b.Conn(t)
			eventually(t, conn, 1, "select count(*)::integer from rowhook.instance")
			if c.locked {
				eventually(t, conn, 0, "select count(*)::integer from pg_stat_activity where application_name = 'rowhook ghost' and datname = current_database()")
			}
		})
	}
}

func TestAnEarlierSessionThatTheServerBelievesInKeepsNobodyDeaf(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	path, link := through(t, b.URL())
	for _, name := range []string{"plain", "größe", strings.Repeat("long", 30)} {
		var lost atomic.Int32 // the next session may listen before anybody has looked
		r := b.start(t, func(c *dispatcher.Config) { c.ListenURL, c.Name = link, name }, observing(dispatcher.Observer{Listening: func(listens bool) {
			if !listens {
				lost.Add(1)
			}
		}}))
		for range 2 {
			before := lost.Load()
			path.Strand()
			require.Eventually(t, func() bool { return lost.Load() > before && r.Stats().Listens }, patience, 10*time.Millisecond)
		}
		before := len(b.receiver.on("orders"))
		b.Exec(t, "insert into orders default values")
		b.receiver.await(t, "orders", before+1)
		eventually(t, b.Conn(t), 1, "select count(*)::integer from pg_locks where locktype = 'advisory' and objsubid = 2 and database = (select oid from pg_database where datname = current_database())")
		path.Heal()
		r.Stop(t)
	}
}

// An immediate restart of the server loses the last beats, which nobody waits for, and so all of them of an
// instance that died just after it had registered.
func TestWhoDiesBeforeItsFirstBeatIsBuried(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	conn := b.Conn(t)
	require.NoError(t, queue.Register(t.Context(), conn, 1001, "at once", "v1", false))
	require.Positive(t, one[int64](t, conn, "select (extract(epoch from seen_at) * 1000)::bigint from rowhook.instance where id = 1001"))
	b.Exec(t, "insert into rowhook.instance (id, name, version, listens) values (1002, 'of a program before', 'v0', false)")
	b.Exec(t, "insert into orders default values")
	b.Exec(t, "update rowhook.event_log set claimed_by = 1002, claim = 2, tries = 1, due_at = now() + interval '1 hour'")
	b.start(t)
	b.receiver.await(t, "orders", 1)
	eventually(t, conn, 1, "select count(*)::integer from rowhook.instance")
}

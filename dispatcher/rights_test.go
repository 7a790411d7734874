package dispatcher_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// TestARoleWithTheGrantedRightsAloneDoesAllThatADispatcherDoes runs one by a role that owns
// nothing: deliveries, retries, a dead letter that dies again, large payloads, what a dead instance
// left, orphans, and partitions made and dropped.
func TestARoleWithTheGrantedRightsAloneDoesAllThatADispatcherDoes(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Limit, s.Retry.Interval = 1, trigger.Duration(50*time.Millisecond) })
	b.watch(t, "gone")
	conn := b.Conn(t)
	role, url := b.Role(t)
	_, err := sqlschema.Grant(t.Context(), conn, []string{role})
	require.NoError(t, err)

	// A dead instance holds an event, a removed trigger has left one, a partition is missing and
	// one is over its retention.
	b.Exec(t, "insert into orders (v) values ('held')")
	require.NoError(t, queue.Register(t.Context(), conn, 999, "dead", "v", true))
	got, err := queue.Claim(t.Context(), conn, queue.Claimant{Instance: 999, Number: 1}, []queue.Want{{Trigger: 1, Limit: 1, Lease: time.Hour}})
	require.NoError(t, err)
	require.Len(t, got, 1)
	b.Exec(t, "insert into gone default values; update rowhook.trigger set removed_at = now() where name = 'gone'")
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format("20060102") }
	b.Exec(t, "select rowhook.ensure_partitions(now() - interval '20 days', now() - interval '20 days'); "+
		"drop table rowhook.event_archive_"+day(0)+", rowhook.invocation_log_"+day(2))

	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if string(d.new["v"]) == `"dies"` || string(d.new["v"]) == `"fails once"` && n == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	asRole := func(c *dispatcher.Config) { c.DatabaseURL = url }
	r := b.start(t, asRole)
	b.Exec(t, "insert into orders (v) values ('fails once'), ('dies'), (repeat(md5('x'), 10000))")
	b.receiver.await(t, "orders", 6) // held, two of the one that fails once, two of the one that dies, the large one
	b.settled(t)
	require.Equal(t, "1 1", one[string](t, conn, "select concat_ws(' ', count(*) filter (where reason ~ '503'), count(*) filter (where reason = 'trigger removed')) from rowhook.dead_letter"))
	b.Exec(t, "insert into rowhook.event_log (id, created_at, trigger_id, op, old, new) select id, created_at, trigger_id, op, old, new from rowhook.dead_letter where reason ~ '503'")
	r.Stop(t) // the poll, which would find it, is an hour away
	r = b.start(t, asRole)
	b.receiver.await(t, "orders", 8)
	b.settled(t)
	require.Equal(t, 1, one[int](t, conn, "select count(*) from rowhook.dead_letter where reason ~ '503'"))
	eventually(t, conn, true, "select to_regclass('rowhook.event_archive_"+day(0)+"') is not null and to_regclass('rowhook.invocation_log_"+day(2)+"') is not null "+
		"and to_regclass('rowhook.event_archive_"+day(-20)+"') is null and to_regclass('rowhook.invocation_log_"+day(-20)+"') is null")
	require.Equal(t, 1, one[int](t, conn, "select count(*) from pg_stat_activity where application_name like 'rowhook %' and usename = $1 and state = 'idle' and query ~* '^listen'", role))

	// Its sessions can be ended, by itself among others, and are opened anew.
	b.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where usename = '"+role+"'")
	b.Exec(t, "insert into orders (v) values ('after')")
	b.receiver.await(t, "orders", 9)
	b.settled(t)
	r.Stop(t)
	eventually(t, conn, 0, "select count(*)::integer from rowhook.instance")
	require.NotContains(t, strings.ToLower(r.log.String()), "permission denied")
}

func TestRunSaysWhichRightsItsRoleLacks(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	role, url := b.Role(t)
	run := func() error {
		d, err := dispatcher.New(dispatcher.Config{DatabaseURL: url, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		return d.Run(t.Context())
	}
	require.ErrorContains(t, run(), "usage on schema rowhook; ")
	_, err := sqlschema.Grant(t.Context(), b.Conn(t), []string{role})
	require.NoError(t, err)
	b.Exec(t, "revoke update (tries) on rowhook.event_log from "+role)
	require.EqualError(t, run(), fmt.Sprintf("the role %s lacks rights that a dispatcher needs (update (due_at, claimed_by, tries) on rowhook.event_log): "+
		`run "rowhook apply --grant-to %[1]s" as the role that installed Rowhook`, role))
}

// TestForgedNotificationsDoNoMoreThanWakeTheDispatcher floods it, as any role that may connect can,
// while events are delivered.
func TestForgedNotificationsDoNoMoreThanWakeTheDispatcher(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	role, url := b.Role(t)
	forger, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = forger.Close(context.Background()) })
	var loads atomic.Int64
	r := b.start(t, observing(dispatcher.Observer{Configured: func([]dispatcher.TriggerRef) { loads.Add(1) }}))
	before, began := loads.Load(), time.Now()
	payloads := []string{"config", "help", "stopped", "1", "-1", "999999999999", "", "1; drop table orders", strings.Repeat("x", 7999)}
	for i := range 2000 {
		_, err := forger.Exec(t.Context(), "select pg_notify('rowhook', $1), pg_notify('rowhook_ping_2', $1)", payloads[i%len(payloads)])
		require.NoError(t, err)
		if i%10 == 0 {
			b.Exec(t, "insert into orders default values")
		}
	}
	b.receiver.await(t, "orders", 200)
	b.settled(t)
	require.Len(t, b.receiver.on("orders"), 200, "each event once")
	loaded := loads.Load() - before
	took := time.Since(began)
	t.Logf("%d loads of the configuration in %s", loaded, took)
	require.Positive(t, loaded)
	require.LessOrEqual(t, loaded, 11+int64(took/(100*time.Millisecond)), "ten at once, and one each tenth of a second")
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 201)
	r.Stop(t)
	require.NotContains(t, r.log.String(), "level=ERROR", role)
}

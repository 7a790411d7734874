package dispatcher_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// ledger writes rows one by one until it is stopped, and knows how many it has committed.
type ledger struct {
	stop chan struct{}
	done sync.WaitGroup
	rows int
	err  error
}

func (b *fixture) keepLedger(t *testing.T, table string) *ledger {
	t.Helper()
	l := &ledger{stop: make(chan struct{})}
	conn := b.Conn(t)
	l.done.Go(func() {
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			if _, l.err = conn.Exec(context.Background(), fmt.Sprintf("insert into %s (n) values ($1)", table), l.rows+1); l.err != nil {
				return
			}
			l.rows++
		}
	})
	return l
}

// close ends the writing and returns how many rows there are.
func (l *ledger) close(t *testing.T) int {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	require.NoError(t, l.err)
	return l.rows
}

// complete waits until each row has arrived.
func (b *fixture) complete(t *testing.T, path string, rows int) {
	t.Helper()
	b.settled(t)
	seen := map[string]bool{}
	for _, d := range b.receiver.on(path) {
		seen[string(d.new["n"])] = true
	}
	for n := 1; n <= rows; n++ {
		require.Contains(t, seen, fmt.Sprint(n), "row %d of %d", n, rows)
	}
}

func TestTheSchemaGoesDownAndUpUnderLoadAndNothingIsLost(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "a")
	b.Table(t, "f")
	b.Table(t, "g")
	specs, paths := b.newestFeatures()
	b.apply(t, specs...)
	var gone atomic.Bool
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if d.path == "gone" && gone.Load() {
			w.WriteHeader(http.StatusGone)
		}
	})
	first := b.start(t)
	b.start(t)
	l := b.keepLedger(t, "a")
	conn := b.Conn(t)
	_, newest, err := sqlschema.Version(t.Context(), conn)
	require.NoError(t, err)
	quiet := slog.New(slog.DiscardHandler)
	features := 0
	change := func(n int) { // its events are in all states while the schema is migrated
		b.Exec(t, "insert into f (n) select generate_series($1::integer, $2)", features+1, features+n)
		features += n
	}
	for _, version := range []int32{newest - 1, newest, newest - 1, newest} {
		before := len(b.receiver.on("a"))
		b.receiver.await(t, "a", before+100)
		change(5)
		require.NoError(t, sqlschema.MigrateTo(t.Context(), conn, version, quiet))
	}
	// On the older version the events of a trigger that an answer would pause wait for 30 s.
	require.Eventually(t, func() bool {
		log := first.log.String()
		return strings.LastIndex(log, fmt.Sprintf("from=%d to=%d", newest-1, newest)) >= strings.LastIndex(log, fmt.Sprintf("from=%d to=%d", newest, newest-1))
	}, time.Minute, 20*time.Millisecond, "the dispatcher knows the version")
	gone.Store(true)
	change(5)
	eventually(t, conn, true, "select paused from rowhook.trigger where name = 'gone'")
	gone.Store(false)
	require.NoError(t, sqlschema.MigrateTo(t.Context(), conn, newest-1, quiet))
	change(5)
	b.receiver.await(t, "a", len(b.receiver.on("a"))+100)
	first.Stop(t)
	b.start(t) // this program on the older schema
	b.receiver.await(t, "a", len(b.receiver.on("a"))+100)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, quiet))
	b.receiver.await(t, "a", len(b.receiver.on("a"))+100)
	rows := l.close(t)
	_, err = operate.Resume(t.Context(), conn, "gone")
	require.NoError(t, err)
	b.complete(t, "a", rows)
	for _, path := range paths {
		if path != "template" {
			b.complete(t, path, features)
		}
	}
	bodies := map[string]bool{}
	for _, d := range b.receiver.on("template") {
		bodies[d.body] = true
	}
	for n := range features {
		require.Contains(t, bodies, fmt.Sprintf(`{"n":%d}`, n+1))
	}
	require.Len(t, bodies, features, "nothing else was sent")
	require.Zero(t, one[int](t, conn, deadRows))
	require.Equal(t, rows+len(paths)*features, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"))
	for line := range strings.Lines(first.log.String()) {
		require.NotContains(t, line, "level=ERROR")
	}
}

// newestFeatures are triggers on the table f, each with a key that is new in the newest version of
// the schema, and their paths at the receiver. at: commit is not among them: with it there is no way
// down.
func (b *fixture) newestFeatures() (specs []trigger.Spec, paths []string) {
	hour := trigger.Duration(time.Hour)
	for path, change := range map[string]func(*trigger.Spec){
		"delayed": func(s *trigger.Spec) { s.Delay = trigger.Duration(50 * time.Millisecond) },
		"aged":    func(s *trigger.Spec) { s.Retry.MaxAge = hour },
		"gone": func(s *trigger.Spec) {
			s.Retry.Statuses = trigger.Statuses{{From: 410, To: 410, Then: trigger.StatusPause}}
		},
		"kept":     func(s *trigger.Spec) { s.Retention.Delivered = &hour },
		"many":     func(s *trigger.Spec) { s.Table, s.Tables = "", []string{"public.f", "public.g"} },
		"masked":   func(s *trigger.Spec) { s.Payload.Mask = []string{"v"} },
		"template": func(s *trigger.Spec) { s.Webhook.Body = `{"n":"$new.n"}` },
	} {
		specs, paths = append(specs, b.Spec("f", func(s *trigger.Spec) {
			s.Name, s.Webhook.URL = path, b.receiver.URL+"/"+path
			change(s)
		})), append(paths, path)
	}
	return specs, paths
}

func TestWhatIsDoneIsCountedByTheMinute(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "good")
	b.watch(t, "bad", func(s *trigger.Spec) { s.Retry.Limit, s.Retry.Interval = 1, 0 })
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if d.path == "bad" {
			http.Error(w, "out of order", http.StatusBadGateway)
		}
	})
	r := b.start(t)
	b.Exec(t, "insert into good (v) select 'x' from generate_series(1, 7); insert into bad (v) select 'x' from generate_series(1, 3)")
	conn := b.Conn(t)
	b.settled(t)
	const sums = `
select format('%s %s %s %s', sum(delivered), sum(failed), sum(died), coalesce(min(error), ''))
  from rowhook.activity a join rowhook.trigger t on t.id = a.trigger_id where name = $1`
	eventually(t, conn, "7 0 0 ", sums, "good") // while it runs
	b.Exec(t, "insert into good (v) values ('y')")
	b.receiver.await(t, "good", 8)
	r.Stop(t)
	require.Equal(t, "8 0 0 ", one[string](t, conn, sums, "good"), "and what was counted last when it stops")
	require.Equal(t, "0 6 3 answered 502 Bad Gateway", one[string](t, conn, sums, "bad"))
	require.Equal(t, 8, one[int](t, conn, "select sum(n)::integer from rowhook.activity a, unnest(latency) n where delivered > 0"))
}

func TestANewConfigurationReachesEveryInstanceAndWhatIsPending(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if d.path == "a" {
			http.Error(w, "moved", http.StatusGone)
		}
	})
	b.watch(t, "a", func(s *trigger.Spec) { s.Retry.Limit, s.Retry.Interval = 9, trigger.Duration(700*time.Millisecond) })
	var loads [2]atomic.Int32 // by instance: at the start, when its session listens, and by the apply
	loaded := func(n int32) func() bool {
		return func() bool { return loads[0].Load() >= n && loads[1].Load() >= n }
	}
	for i := range loads {
		b.start(t, func(c *dispatcher.Config) { c.BatchSize = 1 + 99*i },
			observing(dispatcher.Observer{Configured: func([]dispatcher.TriggerRef) { loads[i].Add(1) }}))
	}
	require.Eventually(t, loaded(2), patience, time.Millisecond)
	b.Exec(t, "insert into a (v) select 'x' from generate_series(1, 20)")
	b.receiver.await(t, "a", 20)
	b.apply(t, b.Spec("a", func(s *trigger.Spec) {
		s.Webhook.URL = b.receiver.URL + "/elsewhere"
		s.Webhook.Headers = map[string]string{"X-New": "yes"}
		s.Retry.Limit, s.Retry.Interval = 3, trigger.Duration(700*time.Millisecond)
	}))
	require.Eventually(t, loaded(3), patience, time.Millisecond)
	before := map[string]int{}
	for _, d := range b.receiver.on("a") {
		before[d.id]++
	}
	got := b.receiver.await(t, "elsewhere", 20)
	for _, d := range got {
		require.Equal(t, "yes", d.header.Get("X-New"))
		require.Contains(t, d.body, `"max_retries":3`)
	}
	after := map[string]int{}
	for _, d := range b.receiver.on("a") {
		after[d.id]++
	}
	for id, n := range after {
		require.LessOrEqual(t, n, before[id]+1, "an instance that has loaded the new configuration begins no attempt by the old one")
	}
	b.settled(t)
	require.Equal(t, 20, one[int](t, b.Conn(t), "select count(*)::integer from rowhook.event_archive"))
}

// fullUntil makes writing of deliveries fail as on a full disk, for as long as the history holds a
// partition.
func (b *fixture) fullUntil(t *testing.T, partition string) {
	t.Helper()
	b.Exec(t, `
create function public.full_disk() returns trigger language plpgsql as $$
begin
  if to_regclass('rowhook.`+partition+`') is not null then
    raise exception 'could not extend file: No space left on device' using errcode = 'disk_full';
  end if;
  return new;
end $$;
create trigger full_disk before insert on rowhook.event_archive for each row execute function public.full_disk()`)
}

func TestAFullDiskShedsTheOldestHistoryAndNothingElse(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "a")
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format("20060102") }
	b.Exec(t, "select rowhook.ensure_partitions(now() - interval '2 days', now())")
	b.Exec(t, `
insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op)
select rowhook.uuid7(), now(), now() - i * interval '1 day', 1, 1, 'I' from generate_series(0, 2) i`)
	b.fullUntil(t, "event_archive_"+day(-2))
	r := b.start(t)
	b.Exec(t, "insert into a (v) values ('x')")
	b.settled(t)
	conn := b.Conn(t)
	require.Equal(t, 3, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"), "yesterday's, today's and the new one")
	require.Contains(t, r.log.String(), "the database's disk is full: dropped the oldest history to make room")
	require.Equal(t, 1, b.receiver.unique("a"))
	require.Len(t, b.receiver.on("a"), 1)
}

// Truncating needs some pages anew, of which a full disk has none. That was the rule when Postgres
// had a file system of 400 MB for itself.
func TestADiskTooFullToEmptyTodaysHistoryLosesItsPartition(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "a")
	today := time.Now().UTC().Format("20060102")
	b.Exec(t, `
insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op)
select rowhook.uuid7(), now(), now(), 1, 1, 'I' from generate_series(1, 5) i`)
	before := one[uint32](t, b.Conn(t), "select 'rowhook.event_archive_"+today+"'::regclass::oid")
	b.Exec(t, `
create function public.no_room() returns trigger language plpgsql as $$
begin
  raise exception 'could not extend file: No space left on device' using errcode = 'disk_full';
end $$;
create trigger no_room before truncate on rowhook.event_archive_`+today+` for each statement execute function public.no_room();
create trigger no_room_to_insert before insert on rowhook.event_archive_`+today+` for each row execute function public.no_room()`)
	r := b.start(t)
	b.Exec(t, "insert into a (v) values ('x')")
	b.settled(t)
	require.Contains(t, r.log.String(), "the database's disk is full: dropped the oldest history to make room")
	require.Equal(t, 1, one[int](t, b.Conn(t), "select count(*)::integer from rowhook.event_archive"))
	require.NotEqual(t, before, one[uint32](t, b.Conn(t), "select 'rowhook.event_archive_"+today+"'::regclass::oid"))
	require.Len(t, b.receiver.on("a"), 1)
}

func TestUpkeepTellsWhatItDropped(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.Exec(t, "select rowhook.ensure_partitions(now() - interval '9 days', now())")
	told := make(chan dispatcher.Maintenance, 100)
	r := b.start(t, observing(dispatcher.Observer{Maintained: func(m dispatcher.Maintenance) { told <- m }}))
	u := <-told
	require.Len(t, u.Dropped, 4, "two days of both histories")
	require.Contains(t, r.log.String(), "dropped history that is past its retention")
}

func TestAMissingPartitionLosesNoEvent(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "a")
	b.start(t)
	today := time.Now().UTC().Format("20060102")
	b.Exec(t, "drop table rowhook.event_archive_"+today+", rowhook.invocation_log_"+today)
	b.Exec(t, "insert into a (v) select 'x' from generate_series(1, 50)")
	b.settled(t)
	require.Equal(t, 50, one[int](t, b.Conn(t), "select count(*)::integer from rowhook.event_archive"))
	require.Len(t, b.receiver.on("a"), 50)
}

func TestALateAutovacuumIsHelped(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.Exec(t, "alter table rowhook.event_log set (autovacuum_enabled = off)")
	b.Exec(t, "insert into rowhook.event_log (id, trigger_id, op) select rowhook.uuid7(), 1, 'I' from generate_series(1, 60000)")
	b.Exec(t, "delete from rowhook.event_log")
	conn := b.Conn(t)
	eventually(t, conn, true, "select coalesce((select n_dead_tup > 55000 from pg_stat_all_tables where relid = 'rowhook.event_log'::regclass), false)")
	r := b.start(t)
	eventually(t, conn, true, "select last_vacuum is not null from pg_stat_all_tables where relid = 'rowhook.event_log'::regclass")
	r.says(t, "vacuumed the queue")
}

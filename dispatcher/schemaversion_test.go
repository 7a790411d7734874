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

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// asVersion lets programs take the schema for one that a newer program has migrated, or no longer.
func asVersion(version, compatible int32) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, fmt.Sprintf("update rowhook.schema_version set version = %d; update rowhook.setting set value = '%d' where name = 'compatible'", version, compatible))
		return err
	}
}

func to(version int32) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		return sqlschema.MigrateTo(ctx, conn, version, slog.New(slog.DiscardHandler))
	}
}

func TestADispatcherStandsStillWhileItCantWorkOnTheSchema(t *testing.T) {
	t.Parallel()
	newest := newestSchema(t)
	for name, c := range map[string]struct {
		away, back func(context.Context, *pgx.Conn) error
		settles    bool // outcomes can be written to it
		says       string
	}{
		"one version too old": {to(sqlschema.OldestSchema - 1), to(newest), true, `run "rowhook migrate"`},
		"far too old":         {to(1), to(newest), false, `run "rowhook migrate"`},
		"too new":             {asVersion(newest+1, newest+1), asVersion(newest, newest-1), true, "a newer Rowhook migrated it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			var hold atomic.Bool
			var held atomic.Int32
			free := make(chan struct{})
			b.receiver.respond(func(_ int, d delivery, _ http.ResponseWriter, r *http.Request) {
				if d.path != "held" || !hold.Load() {
					return
				}
				held.Add(1)
				select {
				case <-free:
				case <-r.Context().Done():
				}
			})
			paths := []string{"plain", "ordered", "rated", "shared"}
			b.watch(t, "plain")
			b.watch(t, "ordered", byRow)
			b.watch(t, "rated", func(s *trigger.Spec) { s.Rate.Limit, _ = trigger.ParsePerTime("1000/s") })
			b.watch(t, "shared", totalOf(2))
			b.watch(t, "held", func(s *trigger.Spec) { s.Concurrency, s.Webhook.Timeout = 1, trigger.Duration(time.Hour) })
			both := []*running{b.start(t), b.start(t)}
			inMemory := func() (inFlight, queued int) {
				for _, r := range both {
					for _, s := range r.Stats().Triggers {
						inFlight, queued = inFlight+s.InFlight, queued+s.Queued
					}
				}
				return inFlight, queued
			}
			conn := b.Conn(t)
			write := func(from, to int) {
				for _, p := range paths {
					_, err := conn.Exec(t.Context(), fmt.Sprintf("insert into %s (n) select generate_series(%d, %d)", p, from, to))
					require.NoError(t, err)
				}
			}
			write(1, 20)
			for _, p := range paths {
				b.receiver.await(t, p, 20)
			}
			b.insert(t, "held", 20)
			b.settled(t) // attempts are known to be short, so that events are claimed ahead
			hold.Store(true)
			b.insert(t, "held", 40)
			require.Eventually(t, func() bool { return held.Load() > 0 }, patience, time.Millisecond)
			// Some are claimed ahead, unless attempts take longer, as on a loaded machine.
			for waited := 0; waited < 300; waited++ {
				if _, queued := inMemory(); queued > 0 {
					break
				}
				<-time.After(10 * time.Millisecond)
			}

			require.NoError(t, c.away(t.Context(), conn))
			for _, r := range both {
				require.Eventually(t, func() bool { return strings.Contains(r.Stats().Claiming, c.says) }, patience, time.Millisecond)
				require.Equal(t, 1, strings.Count(r.log.String(), "this program can't work on the schema rowhook"), r.log.String())
			}
			// What has begun may not have arrived yet. What has not begun is given back.
			var begun int
			require.Eventually(t, func() bool {
				var queued int
				begun, queued = inMemory()
				return queued == 0
			}, patience, time.Millisecond)
			close(free)
			write(21, 40)
			// The attempts in flight end, and no other one begins. What was claimed ahead is given back.
			require.Eventually(t, func() bool { inFlight, queued := inMemory(); return inFlight+queued == 0 }, patience, time.Millisecond)
			if c.settles {
				eventually(t, conn, 0, "select count(claimed_by)::integer from rowhook.event_log")
			}
			for _, p := range paths {
				for _, d := range b.receiver.on(p) {
					require.NotRegexp(t, "^(2[1-9]|[34].)$", string(d.new["n"]), p)
				}
			}
			require.EqualValues(t, begun, held.Load())

			require.NoError(t, c.back(t.Context(), conn))
			for _, p := range paths {
				b.complete(t, p, 40)
			}
			b.settled(t)
			require.Equal(t, 4*40+60, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"))
			require.Zero(t, one[int](t, conn, deadRows))
			for _, r := range both {
				require.Eventually(t, func() bool { return r.Stats().Claiming == "" }, patience, time.Millisecond)
				require.Equal(t, 1, strings.Count(r.log.String(), "can work on the schema rowhook again"), r.log.String())
				r.Stop(t)
			}
		})
	}
}

func TestADispatcherThatStandsStillStops(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "a", byRow)
	r := b.start(t)
	b.Exec(t, "insert into a (n) select generate_series(1, 20)")
	b.receiver.await(t, "a", 20)
	b.settled(t)
	require.NoError(t, to(sqlschema.OldestSchema-1)(t.Context(), b.Conn(t)))
	require.Eventually(t, func() bool { return r.Stats().Claiming != "" }, patience, time.Millisecond)
	r.Stop(t)
}

func TestADispatcherGoesOnWhenASchemaThatWasRemovedIsInstalledAgain(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "a")
	r := b.start(t)
	b.Exec(t, "insert into a (n) values (1)")
	b.receiver.await(t, "a", 1)
	b.settled(t)
	b.Exec(t, "drop schema rowhook cascade")
	require.Eventually(t, func() bool { return strings.Contains(r.Stats().Claiming, `run "rowhook apply"`) }, patience, time.Millisecond)
	conn := b.Conn(t)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, nil))
	b.Apply(t, b.Spec("a"))
	b.Exec(t, "insert into a (n) values (2)")
	b.complete(t, "a", 2)
}

// newestSchema is the version that this program knows.
func newestSchema(t *testing.T) int32 {
	t.Helper()
	_, newest, err := sqlschema.Version(t.Context(), newFixture(t).Conn(t))
	require.NoError(t, err)
	return newest
}

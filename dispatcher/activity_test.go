package dispatcher_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// activity is what rowhook.activity holds of a trigger, over all minutes and instances.
type activity struct {
	Delivered, Failed, Died int
	Measured                int // elements of latency
	Outcomes                map[string]int
}

func (b *fixture) activity(t *testing.T, name string) (a activity) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(one[string](t, b.Conn(t), `
with a as (select a.* from rowhook.activity a join rowhook.trigger t on t.id = a.trigger_id where t.name = $1)
select json_build_object('delivered', (select coalesce(sum(delivered), 0) from a), 'failed', (select coalesce(sum(failed), 0) from a), 'died', (select coalesce(sum(died), 0) from a),
                         'measured', (select coalesce(sum(n), 0) from a, unnest(latency) with ordinality as l(n, i) where i <= 120),
                         'outcomes', (select json_object_agg(key, n) from (select key, sum(value::integer) as n from a, jsonb_each_text(outcomes) group by 1) o))::text`, name)), &a))
	return a
}

func TestEveryAttemptIsCountedByItsOutcomeWhetherOrderedBatchedOrMerged(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	soon := func(s *trigger.Spec) { s.Retry.Limit, s.Retry.Interval = 1, 0 }
	b.watch(t, "plain", soon)
	b.watch(t, "row", soon, byRow)
	b.watch(t, "batch", soon, func(s *trigger.Spec) { s.Batch.Max = 10 })
	b.watch(t, "latest", soon, byRow, func(s *trigger.Spec) { s.Order.Latest = true })
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, _ *http.Request) {
		switch id := string(d.new["id"]); {
		case d.path == "batch":
		case id == "1":
			w.WriteHeader(http.StatusBadGateway)
		case id == "2" && n == 0:
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	for _, table := range []string{"plain", "row", "batch", "latest"} {
		b.Exec(t, "insert into "+table+" (v) select 'x' from generate_series(1, 20)")
	}
	b.Exec(t, "update latest set v = 'y' where id > 10; update latest set v = 'z' where id > 10")
	r := b.start(t)
	b.settled(t)
	r.Stop(t)
	mixed := map[string]int{"2xx": 19, "429": 1, "5xx": 2}
	require.Equal(t, activity{19, 3, 1, 19, mixed}, b.activity(t, "plain"))
	require.Equal(t, activity{19, 3, 1, 19, mixed}, b.activity(t, "row"))
	require.Equal(t, activity{20, 0, 0, 20, map[string]int{"2xx": 20}}, b.activity(t, "batch"))
	conn := b.Conn(t)
	sent := one[int](t, conn, "select count(*) from rowhook.event_archive a join rowhook.trigger t on t.id = a.trigger_id where t.name = 'latest' and merged_into is null")
	require.Less(t, sent, 39, "some of the 40 events were merged, and one is dead")
	require.Equal(t, activity{sent, 3, 1, sent, map[string]int{"2xx": sent, "429": 1, "5xx": 2}}, b.activity(t, "latest"), "an event is not counted in whose stead another one was sent")
	require.Equal(t, one[int](t, conn, "select count(*) from rowhook.invocation_log"), one[int](t, conn, "select sum(delivered + failed) from rowhook.activity"))
}

func TestTheLatencyOfARedeliveryBeginsWithIt(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "a", func(s *trigger.Spec) { s.Retry.Limit = 0 })
	b.receiver.respond(func(n int, _ delivery, w http.ResponseWriter, _ *http.Request) {
		if n == 0 {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	r := b.start(t)
	b.Exec(t, "insert into a default values")
	conn := b.Conn(t)
	eventually(t, conn, 1, "select count(*)::integer from rowhook.dead_letter")
	b.Exec(t, "update rowhook.dead_letter set created_at = created_at - interval '20 hours'")
	_, err := operate.Redeliver(t.Context(), conn, operate.Filter{Triggers: []string{"a"}}, operate.BulkOptions{})
	require.NoError(t, err)
	b.receiver.await(t, "a", 2)
	b.settled(t)
	r.Stop(t)
	require.Equal(t, activity{1, 1, 1, 1, map[string]int{"2xx": 1, "4xx": 1}}, b.activity(t, "a"))
	const minute = 77 // 0.1 ms * 2^(77/4) = 62 s
	require.Less(t, one[int](t, conn, "select max(i)::integer from rowhook.activity, unnest(latency) with ordinality as l(n, i) where n > 0 and i <= 120"), minute)
}

func TestWithoutFiguresDeliveriesGoOnAndThatIsSaid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ breaks, mends, why string }{
		"no rights":   {"revoke insert on rowhook.activity from %I", "grant insert on rowhook.activity to %I", "permission denied"},
		"a full disk": {"create function full_disk() returns trigger language plpgsql as $f$ begin raise exception 'no space left' using errcode = '53100'; end $f$; create trigger full_disk before insert on rowhook.activity execute function full_disk()", "drop trigger full_disk on rowhook.activity", "no space left"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "a")
			role, url := b.Role(t)
			conn := b.Conn(t)
			_, err := sqlschema.Grant(t.Context(), conn, []string{role})
			require.NoError(t, err)
			r := b.start(t, func(c *dispatcher.Config) { c.DatabaseURL = url })
			b.Exec(t, one[string](t, conn, "select format($1, $2::text)", c.breaks, role))
			b.Exec(t, "insert into a (v) select 'x' from generate_series(1, 50)")
			b.receiver.await(t, "a", 50)
			b.settled(t)
			require.Len(t, b.receiver.on("a"), 50)
			require.Equal(t, 50, one[int](t, conn, "select count(*) from rowhook.event_archive"))
			require.Eventually(t, func() bool { return b.lacksFigures(t, c.why) }, patience, 10*time.Millisecond)
			require.Contains(t, r.log.String(), "can't write the figures of the last hour")
			b.Exec(t, one[string](t, conn, "select format($1, $2::text)", c.mends, role))
			eventually(t, conn, 50, "select coalesce(sum(delivered), 0)::integer from rowhook.activity")
			require.Eventually(t, func() bool { return !b.lacksFigures(t, "") }, patience, 10*time.Millisecond)
			require.Contains(t, r.log.String(), "are written again")
		})
	}
}

// lacksFigures reports whether status warns of figures that can't be written, and says why.
func (b *fixture) lacksFigures(t *testing.T, why string) bool {
	t.Helper()
	st, err := operate.ReadStatus(t.Context(), b.Conn(t))
	require.NoError(t, err)
	for _, w := range st.Warnings {
		if w.Code == "no_activity" {
			require.Contains(t, w.Problem, why)
			return true
		}
	}
	return false
}

package cutover

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// stage is a database with a table that Hasura and Rowhook watch, and a receiver for both.
type stage struct {
	*pgtest.DB
	hasura   *hasura
	metadata *Metadata
	receiver *receiver
	spec     trigger.Spec
}

func newStage(t *testing.T, change ...func(*trigger.Spec)) *stage {
	t.Helper()
	s := &stage{DB: pgtest.New(t), receiver: newReceiver(t)}
	s.Exec(t, "create table public.orders (id bigint primary key, rev bigint not null, v text); create table public.elsewhere (id bigint generated always as identity)")
	s.hasura = newHasura(t, s.DB, s.receiver.URL)
	require.NoError(t, s.hasura.create(t.Context(), s.Conn(t), eventTrigger{Name: "orders", Schema: "public", Table: "orders", On: map[string][]string{"INSERT": nil, "UPDATE": nil, "DELETE": nil}}))
	api := httptest.NewServer(s.hasura)
	t.Cleanup(api.Close)
	s.metadata = &Metadata{URL: api.URL, Secret: "admin"}
	s.spec = dispatchtest.Spec("orders", s.receiver.URL, append([]func(*trigger.Spec){func(s *trigger.Spec) {
		s.Retry.Interval = trigger.Duration(time.Second)
	}}, change...)...)
	s.apply(t)
	return s
}

// apply applies as the command does: what Hasura delivers is paused.
func (s *stage) apply(t testing.TB) {
	t.Helper()
	_, err := sqlschema.Applier{Newcomers: PauseNewcomers, Returning: []string{"orders"}}.Apply(t.Context(), s.Conn(t), []trigger.Spec{s.spec}, trigger.DefaultSettings(), nil)
	require.NoError(t, err)
}

func (s *stage) cutover(t testing.TB) *Cutover {
	t.Helper()
	conn := s.Conn(t)
	require.NoError(t, pg.Pin(t.Context(), conn))
	return &Cutover{Conn: conn, Metadata: s.metadata, LockTimeout: 100 * time.Millisecond, Poll: 10 * time.Millisecond,
		Say: func(name, text string) { t.Logf("%s: %s", name, text) }}
}

var errKilled = errors.New("killed")

// killing runs do in sessions that are killed at each point once. visit is called at each point. It
// returns the points.
func (s *stage) killing(t testing.TB, visit func(point string), do func(*Cutover) error) map[string]bool {
	t.Helper()
	killed := map[string]bool{}
	deadline := time.Now().Add(dispatchtest.Patience) // since it came to another point
	for {
		c := s.cutover(t)
		c.at = func(point string) error {
			visit(point)
			if killed[point] {
				return nil
			}
			killed[point] = true
			deadline = time.Now().Add(dispatchtest.Patience)
			_ = c.Conn.PgConn().Conn().Close()
			return errKilled
		}
		err := do(c)
		switch {
		case err == nil:
			return killed
		case errors.Is(err, errKilled):
		case errors.Is(err, operate.ErrBusy): // the server has not noticed yet that the session is gone
			require.NoError(t, operate.Rest(t.Context(), 10*time.Millisecond))
		default:
			require.NoError(t, err)
		}
		require.True(t, errors.Is(err, errKilled) || time.Now().Before(deadline), "it does not come to its end: %v", err)
	}
}

// grow waits until n more changes were committed.
func grow(t testing.TB, l *ledger, n int) {
	t.Helper()
	want := l.size() + n
	eventually(t, func() string {
		if have := l.size(); have < want {
			return fmt.Sprintf("%d of %d changes", have, want)
		}
		return ""
	})
}

// settled waits until all is delivered, and compares.
func (s *stage) settled(t testing.TB, l *ledger) {
	t.Helper()
	conn := s.Conn(t)
	eventually(t, func() string {
		var theirs, ours int
		require.NoError(t, conn.QueryRow(t.Context(), `select (select count(*) from hdb_catalog.event_log where not delivered and not error and not archived), (select count(*) from rowhook.event_log)`).Scan(&theirs, &ours))
		if lost := s.receiver.missing(l); len(lost) > 0 || theirs+ours > 0 {
			return fmt.Sprintf("Hasura has still %d events, Rowhook %d; not delivered: %v", theirs, ours, lost)
		}
		return ""
	})
	require.Empty(t, s.receiver.doubled(l))
	t.Logf("%d changes: %d delivered by Hasura, %d by Rowhook", l.size(), s.receiver.from("/hasura"), s.receiver.from("/orders"))
}

// The promise: with 200 transactions a second, killed at each point and resumed, with SQL triggers that
// Hasura makes again, there and back, no change is lost and none is delivered twice.
func TestEachChangeIsDeliveredByOneOfTheTwoThereAndBack(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.hasura.work(t)
	dispatchtest.Run(t, dispatcherOf(s))
	l, stop := write(t, s.DB)
	grow(t, l, 100)

	reloads, side := 0, s.Conn(t)
	points := s.killing(t, func(point string) {
		switch point {
		case "after " + string(moving.Switched), "in the middle of " + string(moving.Drained), "after " + string(moving.Drained), "begun " + string(moving.Resumed), "after " + string(moving.Unregistered):
			s.hasura.reload(t, side)
			reloads++
		}
	}, func(c *Cutover) error {
		states, err := c.Forward(t.Context(), "orders")
		if err == nil {
			require.Equal(t, moving.Done, states[0].Step)
			require.Empty(t, states[0].Remaining)
			require.Positive(t, states[0].Discarded)
			require.Positive(t, states[0].MadeAgain)
		}
		return err
	})
	for _, step := range moving.Forward() {
		require.Contains(t, points, "before the commit of "+string(step))
	}
	require.Contains(t, points, "in the middle of "+string(moving.Switched))
	require.Positive(t, reloads)
	require.Empty(t, s.hasura.names())
	grow(t, l, 100)

	points = s.killing(t, func(string) {}, func(c *Cutover) error {
		_, err := c.Back(t.Context(), "orders")
		return err
	})
	for _, step := range moving.Back() {
		require.Contains(t, points, "before the commit of "+string(step))
	}
	require.Equal(t, []string{"orders"}, s.hasura.names())
	grow(t, l, 100)
	stop()
	s.settled(t, l)
	require.Positive(t, s.receiver.from("/hasura"))
	require.Positive(t, s.receiver.from("/orders"))
}

// What a Hasura that is down has not delivered is delivered by Rowhook, under the same ids.
func TestPendingEventsAreTakenOver(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dispatchtest.Run(t, dispatcherOf(s))
	l, stop := write(t, s.DB)
	grow(t, l, 100)
	s.killing(t, func(string) {}, func(c *Cutover) error {
		c.WithPending = true
		states, err := c.Forward(t.Context(), "orders")
		if err == nil {
			require.GreaterOrEqual(t, states[0].TakenOver, int64(100))
		}
		return err
	})
	grow(t, l, 50)
	stop()
	s.settled(t, l)
	require.Zero(t, s.receiver.from("/hasura"))
	conn := s.Conn(t)
	theirs, err := pg.Collect[struct {
		ID, Op   string
		Row, Rev int
		Same     bool
	}](t.Context(), conn, `
select l.id, l.payload ->> 'op' as op, coalesce(l.payload #>> '{data,new,id}', l.payload #>> '{data,old,id}')::integer as row,
       coalesce(l.payload #>> '{data,new,rev}', l.payload #>> '{data,old,rev}')::integer as rev,
       coalesce(a.created_at = l.created_at at time zone current_setting('TimeZone')
                and coalesce(a.new::jsonb, 'null') = l.payload #> '{data,new}' and coalesce(a.old::jsonb, 'null') = l.payload #> '{data,old}', false) as same
  from hdb_catalog.event_log l left join rowhook.event_archive a on a.id = l.id::uuid`)
	require.NoError(t, err)
	require.NotEmpty(t, theirs)
	for _, e := range theirs {
		require.Equal(t, e.ID, s.receiver.ids[change(e.Op, e.Row, e.Rev)])
		require.True(t, e.Same, "%s: its data and time", e.ID)
	}
}

// Hasura is sending some of them, and delivers these itself. It does not send the others any more.
func TestPendingEventsInFlightAreLeftToHasura(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.receiver.gate = make(chan struct{})
	dispatchtest.Run(t, dispatcherOf(s))
	l, stop := write(t, s.DB)
	grow(t, l, 100)
	s.hasura.work(t)
	conn := s.Conn(t)
	eventually(t, func() string {
		var sending int
		require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from hdb_catalog.event_log where locked is not null").Scan(&sending))
		if sending == 0 {
			return "Hasura sends nothing"
		}
		return ""
	})
	c := s.cutover(t)
	c.WithPending = true
	released := false
	c.at = func(point string) error {
		if point == "in the middle of "+string(moving.Drained) && !released {
			released = true
			close(s.receiver.gate)
		}
		return nil
	}
	_, err := c.Forward(t.Context(), "orders")
	require.NoError(t, err)
	require.True(t, released)
	grow(t, l, 50)
	stop()
	s.settled(t, l)
	require.Positive(t, s.receiver.from("/hasura")) // those that it had to retry Rowhook may have taken over
}

func dispatcherOf(s *stage) dispatcher.Config {
	return dispatcher.Config{DatabaseURL: s.URL(), PollInterval: time.Hour, Version: "v1"}
}

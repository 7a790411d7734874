package httpapi_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// tail opens a stream and passes a function to f that returns its next line, without empty ones.
func (d *desk) tail(t *testing.T, accept string, f func(next func() string)) {
	t.Helper()
	d.stream(t, "/api/v1/events/tail?trigger=orders", accept, f)
}

// stream is tail for any path.
func (d *desk) stream(t *testing.T, path, accept string, f func(next func() string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Accept", accept)
	req.Header.Set("Authorization", "Bearer "+d.token)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	want := "application/x-ndjson"
	if accept != "" {
		want = accept
	}
	require.Equal(t, want, resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	f(func() string {
		for lines.Scan() {
			if line := strings.TrimSpace(lines.Text()); line != "" && line != ":" {
				return line
			}
		}
		require.NoError(t, lines.Err(), "the stream is cut off")
		return ""
	})
}

func TestATailShowsEventsAsTheyComeAndChange(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.tail(t, "", func(next func() string) {
		id := d.wait(t, 1, false)[0]
		var e operate.Event
		answer{text: next()}.into(t, &e)
		require.Equal(t, id, e.ID)
		require.Equal(t, operate.Waiting, e.State)
		d.Exec(t, "update rowhook.event_log set tries = 1, claimed_by = 2, due_at = now() + interval '1 minute'")
		answer{text: next()}.into(t, &e)
		require.Equal(t, operate.InFlight, e.State)
	})
	d.tail(t, "text/event-stream", func(next func() string) {
		id := d.wait(t, 1, false)[0]
		require.Equal(t, "event: event", next())
		require.Equal(t, "id: "+id, next())
		require.Contains(t, next(), `data: {"id":"`+id+`"`)
	})
}

func TestTailsAreFewAndEndWithTheServer(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var open func(n int)
	open = func(n int) {
		if n == 0 {
			require.Equal(t, "429 too_many", d.problem(t, "GET", "/api/v1/events/tail", nil))
			require.NoError(t, d.stop())
			return
		}
		if n%2 == 0 { // those of the status are among them
			d.stream(t, "/api/v1/status/stream", "", func(next func() string) {
				open(n - 1)
				for next() != "" { // the status, and then the end
				}
			})
			return
		}
		d.tail(t, "", func(next func() string) {
			open(n - 1)
			require.Empty(t, next(), "the stream has ended")
		})
	}
	open(16)
}

// watchedDB counts the transactions, and fails if it is told to.
type watchedDB struct {
	*pgxpool.Pool
	begun atomic.Int32
	fails atomic.Bool
}

func (w *watchedDB) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	w.begun.Add(1)
	if w.fails.Load() {
		return nil, &pgconn.PgError{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: pgerrcode.AdminShutdown}
	}
	return w.Pool.BeginTx(ctx, o)
}

// liveMessage is a message of the stream of the status.
type liveMessage struct {
	Status   *operate.Status
	Activity *operate.Activity
	Problem  *httpapi.Problem
}

func (d *desk) live(t *testing.T, f func(next func() liveMessage)) {
	t.Helper()
	d.stream(t, "/api/v1/status/stream", "", func(next func() string) {
		f(func() (m liveMessage) {
			line := next()
			require.NotEmpty(t, line)
			answer{text: line}.into(t, &m)
			return m
		})
	})
}

func TestTheStatusIsSentWhenItChangesAndLookedAtOnceForAllStreams(t *testing.T) {
	t.Parallel()
	var db *watchedDB
	d := newDesk(t, func(c *httpapi.Config) {
		pool, ok := c.DB.(*pgxpool.Pool)
		require.True(t, ok)
		db = &watchedDB{Pool: pool}
		c.DB = db
	})
	began := time.Now()
	var open func(n int)
	open = func(n int) {
		if n > 0 {
			d.live(t, func(next func() liveMessage) {
				require.NotNil(t, next().Status, "at once, and first")
				require.NotNil(t, next().Activity)
				open(n - 1)
				for {
					if st := next().Status; st != nil && len(st.Triggers) == 2 && st.Triggers[1].Waiting == 3 {
						return
					}
				}
			})
			return
		}
		d.wait(t, 3, false)
	}
	open(8)
	looks := time.Since(began)/time.Second + 2
	require.LessOrEqual(t, db.begun.Load(), int32(looks+looks/10+2))
	d.stream(t, "/api/v1/status/stream", "text/event-stream", func(next func() string) {
		require.Equal(t, "event: status", next())
		require.Contains(t, next(), `data: {"status":{"now":`)
	})
}

func TestTheStreamOfTheStatusSaysWhenTheDatabaseIsAwayAndBack(t *testing.T) {
	t.Parallel()
	var db *watchedDB
	d := newDesk(t, func(c *httpapi.Config) {
		pool, ok := c.DB.(*pgxpool.Pool)
		require.True(t, ok)
		db = &watchedDB{Pool: pool}
		c.DB = db
	})
	d.live(t, func(next func() liveMessage) {
		require.NotNil(t, next().Status)
		require.NotNil(t, next().Activity)
		db.fails.Store(true)
		m := next()
		for m.Problem == nil { // the statistics of the server may change in between
			m = next()
		}
		require.Equal(t, "database", m.Problem.Code)
		db.fails.Store(false)
		require.NotNil(t, next().Status, "although nothing has changed")
	})
}

func TestAnOperationThatTakesLongGoesOnInTheBackground(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	dead := d.bury(t, 3)
	tx, err := d.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select from rowhook.dead_letter for update")
	require.NoError(t, err)
	redeliver := func() (httpapi.Operation, answer) {
		a := d.ask(t, "POST", "/api/v1/events/redeliver", map[string]any{"filter": map[string]any{"ids": dead[:2]}}, "Prefer", "wait=0")
		var op httpapi.Operation
		a.into(t, &op)
		return op, a
	}
	op, a := redeliver()
	require.Equal(t, http.StatusAccepted, a.StatusCode)
	require.Equal(t, "running", op.State)
	location := a.Header.Get("Location")
	require.Equal(t, "/api/v1/operations/"+op.ID, location)
	d.ask(t, "GET", location, nil).into(t, &op)
	require.Equal(t, "running", op.State)
	d.ask(t, "DELETE", location, nil).into(t, &op)
	require.Equal(t, "canceled", op.State)
	require.Len(t, d.ids(t, "select id::text from rowhook.dead_letter"), 3)

	op, a = redeliver()
	for range 3 {
		redeliver()
	}
	require.Equal(t, "429 too_many", d.problem(t, "POST", "/api/v1/events/redeliver", map[string]any{"filter": map[string]any{"ids": dead}}))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Eventually(t, func() bool {
		d.ask(t, "GET", a.Header.Get("Location"), nil).into(t, &op)
		return op.State == "done"
	}, patience, 10*time.Millisecond)
	require.Len(t, d.ids(t, "select id::text from rowhook.dead_letter"), 1)
	require.NoError(t, d.stop())
}

// crashable is a Postgres server that a test has to itself and may stop, with a pool.
type crashable struct {
	pool *pgxpool.Pool
	stop func()
}

func pgtestServer(t *testing.T) crashable {
	t.Helper()
	server := pgtest.NewServer(t)
	pool := server.New(t).Pool(t)
	return crashable{pool, func() { server.Stop(t, localpg.Immediate) }}
}

package operate_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const patience = dispatchtest.Patience

// desk is a database with triggers, and an operator's connection to it.
type desk struct {
	*dispatchtest.Site
	conn     *pgx.Conn
	receiver *receiver
}

// newDesk makes a table for each trigger, with the trigger's name.
func newDesk(t *testing.T, names ...string) *desk {
	t.Helper()
	db := pgtest.New(t)
	d := &desk{conn: db.Conn(t), receiver: newReceiver(t)}
	d.Site = &dispatchtest.Site{DB: db, Endpoint: d.receiver.URL}
	var specs []trigger.Spec
	for _, name := range names {
		d.Table(t, name)
		specs = append(specs, d.Spec(name))
	}
	d.Apply(t, specs...)
	return d
}

func (d *desk) do(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := d.conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// ids runs a statement that returns ids.
func (d *desk) ids(t *testing.T, sql string, args ...any) []string {
	t.Helper()
	rows, err := d.conn.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return out
}

func (d *desk) count(t *testing.T, from string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, d.conn.QueryRow(t.Context(), "select count(*) from "+from, args...).Scan(&n))
	return n
}

// wait, bury and archive insert events into the three tables. Key v of the payload is the number of
// the event. They return the ids, oldest first.
func (d *desk) wait(t *testing.T, trigger string, n int, set ...string) []string {
	t.Helper()
	ids := d.ids(t, `
insert into rowhook.event_log (id, trigger_id, op, new)
select rowhook.uuid7(), (select id from rowhook.trigger where name = $1), 'I', json_build_object('v', i, 'kind', 'wait') from generate_series(1, $2) i returning id::text`, trigger, n)
	for _, s := range set {
		d.do(t, "update rowhook.event_log set "+s+" where id = any($1::text[]::uuid[])", ids)
	}
	return ids
}

func (d *desk) bury(t *testing.T, trigger string, n int) []string {
	t.Helper()
	return d.ids(t, `
insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, new)
select rowhook.uuid7(), now(), now(), (select id from rowhook.trigger where name = $1), 6, 'I', 'the receiver answered 500', json_build_object('v', i, 'kind', 'dead') from generate_series(1, $2) i returning id::text`, trigger, n)
}

func (d *desk) archive(t *testing.T, trigger string, n int) []string {
	t.Helper()
	return d.ids(t, `
insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new)
select rowhook.uuid7(), now(), now(), (select id from rowhook.trigger where name = $1), 1, 'I', json_build_object('v', i, 'kind', 'done') from generate_series(1, $2) i returning id::text`, trigger, n)
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond, what)
}

// receiver counts what arrives, by event id.
type receiver struct {
	*httptest.Server
	status atomic.Int32 // the HTTP status of its responses; 0: 200
	mu     sync.Mutex
	ids    map[string]int
	order  []string
	hold   chan struct{} // not nil: it responds when this is closed
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{ids: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		id := eventID(req)
		r.mu.Lock()
		r.ids[id]++
		r.order = append(r.order, id)
		hold := r.hold
		r.mu.Unlock()
		if hold != nil {
			select {
			case <-hold:
			case <-req.Context().Done():
			}
		}
		if s := r.status.Load(); s != 0 {
			w.WriteHeader(int(s))
			fmt.Fprint(w, "no thanks")
		}
	}))
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

func (r *receiver) got(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids[id]
}

func (r *receiver) unique() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids)
}

package rowhooktest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/sink"
)

// Tx is a transaction, or a session that is in one: a [pgx.Tx], *[pgx.Conn] or pgxpool's, a
// *[sql.Tx] or *[sql.Conn], or what embeds one of these. Outside a transaction nothing is recorded
// that could be looked at, so that is an error.
type Tx any

// pgxQueryer and sqlQueryer are what a Tx may be.
type (
	pgxQueryer interface {
		Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	}
	sqlQueryer interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
)

// RequireRecorded returns the first event of a trigger that the matches choose, of those that the
// transaction itself has recorded so far. It fails the test if there is none. It is for suites that
// roll back: the event is seen inside the transaction, and nothing is sent. trigger may be "" for
// all.
//
// It calls the SQL function rowhook.recorded, for which the role of the transaction needs rights if
// it is not the role that made the database. No [Harness] is needed; [Install] installs Rowhook.
func RequireRecorded(t testing.TB, tx Tx, trigger string, matches ...Match) Event {
	t.Helper()
	found, all, c := mustRecorded(t, "RequireRecorded", tx, trigger, matches)
	if len(found) == 0 {
		t.Fatalf("rowhooktest: RequireRecorded: the transaction has recorded no event%s\n%s", about(&c), all.explain(&c))
	}
	return found[0]
}

// RequireNotRecorded fails the test if the transaction itself has recorded an event of the trigger
// that the matches choose. See [RequireRecorded].
func RequireNotRecorded(t testing.TB, tx Tx, trigger string, matches ...Match) {
	t.Helper()
	found, _, c := mustRecorded(t, "RequireNotRecorded", tx, trigger, matches)
	if len(found) > 0 {
		t.Fatalf("rowhooktest: RequireNotRecorded: the transaction has recorded an event%s\n  %s", about(&c), found[0])
	}
}

// RequireRecorded is the function [RequireRecorded].
func (h *Harness) RequireRecorded(t testing.TB, tx Tx, trigger string, matches ...Match) Event {
	t.Helper()
	h.mustMeet(t, "RequireRecorded", trigger, matches)
	return RequireRecorded(t, tx, trigger, matches...)
}

// RequireNotRecorded is the function [RequireNotRecorded].
func (h *Harness) RequireNotRecorded(t testing.TB, tx Tx, trigger string, matches ...Match) {
	t.Helper()
	h.mustMeet(t, "RequireNotRecorded", trigger, matches)
	RequireNotRecorded(t, tx, trigger, matches...)
}

func about(c *criteria) string {
	if text := c.String(); text != "" {
		return " " + text
	}
	return ""
}

func mustRecorded(t testing.TB, method string, tx Tx, trigger string, matches []Match) ([]Event, *collection, criteria) {
	t.Helper()
	c, err := meet(trigger, matches)
	if err != nil {
		t.Fatalf("rowhooktest: %s: %v", method, err)
	}
	bodies, err := recorded(t.Context(), tx, trigger)
	if err != nil {
		t.Fatalf("rowhooktest: %s: %v", method, err)
	}
	all, err := collectEvents(bodies)
	if err != nil {
		t.Fatalf("rowhooktest: %s: %v", method, err)
	}
	return all.choose(&c), all, c
}

// recorded returns the bodies of the events that a transaction has recorded. It makes sure that there
// is a transaction: a mark that ends with the transaction is still there for the next statement. That
// is so for all drivers, poolers and wrappers. A *sql.DB may be in a transaction, too: go-txdb's is.
func recorded(ctx context.Context, tx Tx, trigger string) ([]string, error) {
	argument, mark := any(trigger), rand.Text()
	if trigger == "" {
		argument = nil
	}
	query, err := queryOf(tx)
	if err != nil {
		return nil, err
	}
	if _, err := query(ctx, "select pg_catalog.set_config('rowhook.mark', $1, true), null::text", mark); err != nil {
		return nil, explainRecorded(err)
	}
	rows, err := query(ctx, `
select pg_catalog.current_setting('rowhook.mark', true), r.body::text
  from (values (1)) always left join rowhook.recorded($1) with ordinality r on true order by r.ordinality`, argument)
	if err != nil {
		return nil, explainRecorded(err)
	}
	var bodies []string
	for _, r := range rows {
		if r.Mark == nil || *r.Mark != mark {
			return nil, fmt.Errorf("the %T is in no transaction, so each statement is committed by itself and shows no event of another: "+
				"pass the transaction that changes the rows, such as a *sql.Tx or pgx.Tx, before it ends", tx)
		}
		if r.Body != nil {
			bodies = append(bodies, *r.Body)
		}
	}
	return bodies, nil
}

// markedRow is a row of recorded's queries.
type markedRow struct{ Mark, Body *string }

type markedQuery func(ctx context.Context, query string, argument any) ([]markedRow, error)

func queryOf(tx Tx) (markedQuery, error) {
	if v := reflect.ValueOf(tx); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, errors.New("the transaction is nil: pass the one that changes the rows")
	}
	switch tx := tx.(type) {
	case pgxQueryer:
		return func(ctx context.Context, query string, argument any) ([]markedRow, error) {
			rows, err := tx.Query(ctx, query, argument)
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, pgx.RowToStructByPos[markedRow])
		}, nil
	case sqlQueryer:
		return func(ctx context.Context, query string, argument any) ([]markedRow, error) {
			return queryMarked(ctx, tx, query, argument)
		}, nil
	}
	return nil, fmt.Errorf("a %T is no transaction that is known here: pass a pgx.Tx or *pgx.Conn of github.com/jackc/pgx/v5, or a *sql.Tx or *sql.Conn", tx)
}

func queryMarked(ctx context.Context, tx sqlQueryer, query string, argument any) (all []markedRow, err error) {
	rows, err := tx.QueryContext(ctx, query, argument)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r markedRow
		if err := rows.Scan(&r.Mark, &r.Body); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// explainRecorded adds the remedy to an error of rowhook.recorded, whichever driver it is from.
func explainRecorded(err error) error {
	const grants = "; grant it to the transaction's role: grant usage on schema rowhook to ROLE; grant execute on function rowhook.recorded to ROLE"
	switch {
	case err == nil:
		return nil
	case state(err, pgerrcode.InsufficientPrivilege):
		return fmt.Errorf("%w%s", err, grants)
	case state(err, pgerrcode.UndefinedFunction, pgerrcode.InvalidSchemaName):
		return fmt.Errorf("%w; Rowhook is not installed in this database: use that of a Harness, or call rowhooktest.Install", err)
	case state(err, pgerrcode.InFailedSQLTransaction):
		return fmt.Errorf("%w; an earlier statement of the transaction has failed", err)
	}
	return err
}

// state reports whether an error has one of these SQLSTATEs. Those of lib/pq and pgx have the method.
func state(err error, states ...string) bool {
	coded, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	return ok && slices.Contains(states, coded.SQLState())
}

// collection is events that were not sent, to be chosen from as from a receiver's deliveries.
type collection struct{ sink *sink.Sink }

func collectEvents(bodies []string) (*collection, error) {
	s := &sink.Sink{Keep: len(bodies) + 1, KeepBytes: 1 << 40}
	for _, body := range bodies {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "/", strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		w := &answer{header: http.Header{}}
		if s.ServeHTTP(w, r); w.status/100 != 2 {
			all := s.Deliveries()
			return nil, fmt.Errorf("read an event: %s", all[len(all)-1].Problem)
		}
	}
	return &collection{s}, nil
}

// choose returns the events that the criteria choose, without what only a delivery has.
func (l *collection) choose(c *criteria) []Event {
	events := c.choose(l.sink.List(c.Match))
	for i := range events {
		e := &events[i]
		events[i] = Event{ID: e.ID, Trigger: e.Trigger, Op: e.Op, Table: e.Table, CreatedAt: e.CreatedAt, Old: e.Old, New: e.New, Body: e.Body}
	}
	return events
}

// explain lists the events, and says how the nearest differs.
func (l *collection) explain(c *criteria) string {
	miss := l.sink.Explain(c.Match, 1)
	var lines []string
	if miss.Total == 0 {
		lines = append(lines, "it has recorded none of this trigger; look whether the row was changed by this transaction, and whether the trigger watches the operation and its columns")
		if len(miss.Others) > 0 {
			names, err := json.Marshal(miss.Others)
			if err == nil {
				lines = append(lines, "of others: "+string(names))
			}
		}
	} else {
		lines = append(lines, fmt.Sprintf("it has recorded %d:", miss.Total))
		for _, a := range miss.Arrived {
			text, _, _ := strings.Cut(a.Text, "   (attempt")
			lines = append(lines, "  "+text)
		}
	}
	if miss.Nearest != nil {
		for _, d := range miss.Nearest.Differences {
			lines = append(lines, "nearest: "+d.Text)
		}
	}
	return strings.Join(lines, "\n")
}

// answer is a response that stays here.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

var _ io.Writer = &answer{}

func (a *answer) Header() http.Header { return a.header }

// WriteHeader takes the first status, as net/http does.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.body.Write(p)
}

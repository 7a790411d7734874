package rowhooktest

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/sink"
)

// Tx is a transaction, or a session that is in one: a [pgx.Tx], *[pgx.Conn] or pgxpool's, a
// *[sql.Tx] or *[sql.Conn], or what embeds one of these.
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
	return RequireRecorded(t, tx, trigger, matches...)
}

// RequireNotRecorded is the function [RequireNotRecorded].
func (h *Harness) RequireNotRecorded(t testing.TB, tx Tx, trigger string, matches ...Match) {
	t.Helper()
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

// recorded returns the bodies of the events that a transaction has recorded.
func recorded(ctx context.Context, tx Tx, trigger string) ([]string, error) {
	const call = "select body::text from rowhook.recorded($1)"
	argument := any(trigger)
	if trigger == "" {
		argument = nil
	}
	var bodies []string
	var err error
	switch tx := tx.(type) {
	case pgxQueryer:
		var rows pgx.Rows
		if rows, err = tx.Query(ctx, call, argument); err == nil {
			bodies, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
	case sqlQueryer:
		bodies, err = queryBodies(ctx, tx, call, argument)
	default:
		return nil, fmt.Errorf("a %T is no transaction that is known here: pass a pgx.Tx or *pgx.Conn of github.com/jackc/pgx/v5, or a *sql.Tx or *sql.Conn", tx)
	}
	return bodies, explainRecorded(err)
}

func queryBodies(ctx context.Context, tx sqlQueryer, call string, argument any) (bodies []string, err error) {
	rows, err := tx.QueryContext(ctx, call, argument)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var body string
		if err := rows.Scan(&body); err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, rows.Err()
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

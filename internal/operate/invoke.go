package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/queue"
)

// Manual is a MANUAL event to record.
type Manual struct {
	Trigger string
	Payload json.RawMessage // any JSON; the webhook gets it as "new"
	// SessionVariables is a JSON object, as in a writer's setting rowhook.session; nil or null:
	// none.
	SessionVariables json.RawMessage
	// TraceContext is any JSON, as in a writer's setting rowhook.trace_context; nil or null: none.
	TraceContext json.RawMessage
}

// Invoke records a MANUAL event with this payload and returns its id. The payload is any JSON; the
// webhook gets it as "new". A trigger without manual: true is ErrRefused.
func Invoke(ctx context.Context, db DB, trigger string, payload json.RawMessage) (id string, err error) {
	return Record(ctx, db, Manual{Trigger: trigger, Payload: payload})
}

// Record is Invoke with session variables and a trace context.
func Record(ctx context.Context, db DB, m Manual) (id string, err error) {
	if err := m.check(); err != nil {
		return "", err
	}
	err = transact(ctx, db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		// Empty values are set, too: settings of the role or the database are meant for writers.
		_, err := tx.Exec(ctx, "select pg_catalog.set_config(name, value, true) from unnest($1::text[], $2::text[]) as s(name, value)",
			[]string{"rowhook.session", "hasura.user", "rowhook.trace_context", "hasura.tracecontext"},
			[]string{setting(m.SessionVariables), "", setting(m.TraceContext), ""})
		if err != nil {
			return fmt.Errorf("set the session variables: %w", err)
		}
		if err := tx.QueryRow(ctx, "select rowhook.emit($1, $2::text::json)::text", m.Trigger, string(m.Payload)).Scan(&id); err != nil {
			return err
		}
		return recordInvoke(ctx, tx, m.Trigger, id)
	})
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return id, nil
	case !errors.As(err, &pg):
	case pg.Code == pgerrcode.UndefinedObject && pg.Hint != "", isNoText(err): // raised by rowhook.emit; or no trigger can have this name
		ts, terr := readTriggers(ctx, db)
		if terr != nil {
			return "", terr
		}
		if _, terr = ts.active(m.Trigger); terr != nil {
			return "", terr
		}
	case pg.Code == pgerrcode.InsufficientPrivilege && pg.Hint != "": // raised by rowhook.emit
		return "", problem(ErrRefused, "add \"manual: true\" under its \"on\" in rowhook.yaml and apply", "the trigger %q accepts no manual events", m.Trigger)
	}
	return "", fmt.Errorf("record a manual event: %w", err)
}

func (m *Manual) check() error {
	valid := func(text json.RawMessage) bool { return json.Valid(text) && utf8.Valid(text) }
	switch {
	case !valid(m.Payload):
		return problem(ErrInvalid, `write JSON, such as {"id": 7}, or "text" with its quotes`, "the payload is not JSON")
	case m.SessionVariables != nil && !valid(m.SessionVariables), setting(m.SessionVariables) != "" && bytes.TrimSpace(m.SessionVariables)[0] != '{':
		return problem(ErrInvalid, `write an object, such as {"x-user-id": "7"}`, "the session variables are not a JSON object")
	case m.TraceContext != nil && !valid(m.TraceContext):
		return problem(ErrInvalid, `write JSON, such as {"traceparent": "00-..."}`, "the trace context is not JSON")
	}
	return nil
}

// setting returns JSON as the value of a Postgres setting. It returns "" for null.
func setting(text json.RawMessage) string {
	if s := string(bytes.TrimSpace(text)); s != "null" {
		return s
	}
	return ""
}

// recordInvoke audits only the first manual event per minute, actor and trigger. A program that
// records thousands must not push other entries out of the audit.
func recordInvoke(ctx context.Context, tx pgx.Tx, trigger, id string) error {
	var known bool
	err := tx.QueryRow(ctx, `
select exists (
  select from (select at, who, action, target from rowhook.audit order by id desc limit 100) as a
   where a.action = 'invoke' and a.who = $1 and a.target = array[$2::text] and a.at > clock_timestamp() - interval '1 minute')`,
		queue.ActorOf(ctx).Name, trigger).Scan(&known)
	if err != nil {
		return fmt.Errorf("read rowhook.audit: %w", err)
	}
	if known {
		return nil
	}
	_, err = queue.RecordAudit(ctx, tx, queue.AuditEntry{Action: "invoke", Targets: []string{trigger}, Detail: map[string]any{"event": id}})
	return err
}

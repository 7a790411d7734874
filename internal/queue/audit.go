package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
	"os"
	"os/user"
	"strconv"
	"time"
)

// Actor is a person or program that steers Rowhook. rowhook.audit records it beside the database
// role.
type Actor struct {
	Name   string // such as ann@laptop
	Client string // address from which the request came; "": the address of the session
}

type actorKey struct{}

// WithActor returns a context of an actor. Without it the actor is the user of this process.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf returns the actor of ctx: the one of WithActor, or the user of this process.
func ActorOf(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	name := strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return Actor{Name: name}
}

// AuditEntry is an action for rowhook.audit.
type AuditEntry struct {
	Action  string         // pause, resume, redeliver, retry, discard, backfill, invoke, cancel, erase, cutover, apply or migrate
	Targets []string       // names of triggers; nil: the whole installation
	Detail  map[string]any // becomes a JSON object
}

// AuditRetention and AuditRows bound the age and the number of the rows in rowhook.audit.
const (
	AuditRetention = 90 * 24 * time.Hour
	AuditRows      = 100_000
)

// RecordAudit writes a row of rowhook.audit. It also deletes up to 200 of the oldest rows that
// exceed the bounds. It returns the row's id, or 0 if the schema has no such table yet.
func RecordAudit(ctx context.Context, db pg.Queryer, a AuditEntry) (id int64, err error) {
	detail, err := json.Marshal(a.Detail)
	if err != nil {
		return 0, fmt.Errorf("encode the detail of %s: %w", a.Action, err)
	}
	var exists bool
	if err := db.QueryRow(ctx, "select pg_catalog.to_regclass('rowhook.audit') is not null").Scan(&exists); err != nil {
		return 0, fmt.Errorf("look for rowhook.audit: %w", err)
	}
	if !exists {
		return 0, nil
	}
	targets, actor := a.Targets, ActorOf(ctx)
	if targets == nil {
		targets = []string{}
	}
	err = db.QueryRow(ctx, `
with newest as (
  insert into rowhook.audit (role, who, client, action, target, detail)
  values (session_user, $1, coalesce(nullif($2, ''), pg_catalog.host(pg_catalog.inet_client_addr()), ''), $3, $4::pg_catalog.text[], $5::pg_catalog.text::pg_catalog.json)
  returning id
), over as (
  select o.id from (select id, at from rowhook.audit order by id limit 200) as o, newest
   where o.at < pg_catalog.clock_timestamp() - $6::pg_catalog.interval or o.id <= newest.id - $7::pg_catalog.int8
), removed as (
  delete from rowhook.audit where id in (select id from over)
)
select id from newest`, actor.Name, actor.Client, a.Action, targets, string(detail), AuditRetention, AuditRows).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("write rowhook.audit: %w", err)
	}
	return id, nil
}

// AmendAudit replaces the detail of a recorded action once its outcome is known. It does nothing
// for id 0.
func AmendAudit(ctx context.Context, db pg.Queryer, id int64, detail map[string]any) error {
	if id == 0 {
		return nil
	}
	text, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("encode the detail of an action: %w", err)
	}
	var one int
	err = db.QueryRow(ctx, `
with amended as (update rowhook.audit set detail = $2::pg_catalog.text::pg_catalog.json where id = $1)
select 1`, id, string(text)).Scan(&one)
	if err != nil {
		return fmt.Errorf("update rowhook.audit: %w", err)
	}
	return nil
}

// Poller is a worker after the algorithm that Hasura documents for its event triggers: a trigger writes each
// change to a table, and a worker asks each second for up to 100 of them, marks them as locked, POSTs
// them, and records each attempt. After a full batch it asks again at once. It is not Hasura: what Hasura's
// server needs beside that is not in it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/lab/peers/internal/peer"
)

// Hasura's defaults.
const (
	interval = time.Second // HASURA_GRAPHQL_EVENTS_FETCH_INTERVAL
	batch    = 100         // HASURA_GRAPHQL_EVENTS_FETCH_BATCH_SIZE
)

func main() {
	peer.Main(peer.Adapter{Version: "a poller after Hasura's algorithm: each second, up to 100 at a time", Setup: setup, Run: run})
}

const schema = `
create schema poller;
create table poller.event_log (
  id text default gen_random_uuid() primary key, schema_name text not null, table_name text not null, trigger_name text not null,
  payload jsonb not null, delivered boolean not null default false, error boolean not null default false, tries integer not null default 0,
  created_at timestamp default now(), locked timestamptz, next_retry_at timestamp, archived boolean not null default false
);
create index on poller.event_log (trigger_name);
create index event_log_fetch_events on poller.event_log (locked nulls first, next_retry_at nulls first, created_at)
 where delivered = 'f' and error = 'f' and archived = 'f';
create table poller.event_invocation_logs (
  id text default gen_random_uuid() primary key, trigger_name text, event_id text, status integer, request json, response json, created_at timestamp default now()
);
create index on poller.event_invocation_logs (event_id);
create function poller.notify() returns trigger language plpgsql as $$
begin
  insert into poller.event_log (schema_name, table_name, trigger_name, payload)
  values (tg_table_schema, tg_table_name, 'orders', jsonb_build_object('op', tg_op, 'data', jsonb_build_object('old', null, 'new', row_to_json(new)),
    'session_variables', current_setting('hasura.user', true)::json, 'trace_context', current_setting('hasura.tracecontext', true)::json));
  return null;
end $$;
create trigger notify after insert on %s for each row execute function poller.notify();`

func setup(ctx context.Context, env peer.Environment) error {
	conn, err := pgx.Connect(ctx, env.DatabaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, fmt.Sprintf(schema, env.Table))
	return err
}

type event struct {
	ID      string
	Payload json.RawMessage
}

const fetch = `
update poller.event_log set locked = now()
 where id in (select id from poller.event_log
   where delivered = 'f' and error = 'f' and (locked is null or locked < now() - interval '30 minutes')
     and (next_retry_at is null or next_retry_at <= now()) and archived = 'f'
   order by locked nulls first, next_retry_at nulls first, created_at limit $1 for update skip locked)
returning id, payload`

func run(ctx context.Context, env peer.Environment, ready func()) error {
	config, err := pgxpool.ParseConfig(env.DatabaseURL)
	if err != nil {
		return err
	}
	config.MaxConns = 50 // HASURA_GRAPHQL_PG_CONNECTIONS
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, slots := peer.NewClient(env.Concurrency), make(chan struct{}, env.Concurrency)
	var sending sync.WaitGroup
	defer sending.Wait()
	ready()
	for {
		rows, err := pool.Query(ctx, fetch, batch)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
		if err != nil {
			return err
		}
		for _, e := range events {
			slots <- struct{}{}
			sending.Go(func() {
				defer func() { <-slots }()
				deliver(context.WithoutCancel(ctx), pool, client, env.WebhookURL, e)
			})
		}
		if len(events) < batch {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(interval):
			}
		}
	}
}

// deliver sends an event and records how that went, in one transaction.
func deliver(ctx context.Context, pool *pgxpool.Pool, client *http.Client, url string, e event) {
	status, answer, failed := peer.Post(ctx, client, url, e.Payload)
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into poller.event_invocation_logs (event_id, trigger_name, status, request, response) values ($1, 'orders', $2, $3, to_json($4::text))",
			e.ID, status, e.Payload, string(answer))
		if err != nil {
			return err
		}
		if failed != nil {
			_, err = tx.Exec(ctx, "update poller.event_log set tries = tries + 1, locked = null, next_retry_at = now() + interval '10 seconds' where id = $1", e.ID)
		} else {
			_, err = tx.Exec(ctx, "update poller.event_log set delivered = 't', error = 'f', tries = tries + 1, locked = null, next_retry_at = null where id = $1", e.ID)
		}
		return err
	})
	if err != nil {
		fmt.Println(err) // it stays locked, and is sent again
	}
}

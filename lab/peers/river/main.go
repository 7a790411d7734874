// River works on the jobs that a trigger inserts into the table of River, and notifies it of: one job for a
// row, which POSTs it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/rowhook/rowhook/lab/peers/internal/peer"
)

const schema = "river"

func main() {
	peer.Main(peer.Adapter{Version: "River " + version() + ", a job for each row", Setup: setup, Run: run})
}

const capture = `
create function river.capture() returns trigger language plpgsql as $$
begin
  insert into river.river_job (args, kind, max_attempts, queue, state) values (jsonb_build_object('row', row_to_json(new)), 'deliver', 25, 'default', 'available');
  perform pg_notify('river.river_insert', '{"queue":"default"}');
  return null;
end $$;
create trigger capture after insert on %s for each row execute function river.capture();`

func setup(ctx context.Context, env peer.Environment) error {
	pool, err := pgxpool.New(ctx, env.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "create schema river"); err != nil {
		return err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: schema})
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	_, err = pool.Exec(ctx, fmt.Sprintf(capture, env.Table))
	return err
}

type args struct {
	Row json.RawMessage `json:"row"`
}

func (args) Kind() string { return "deliver" }

type worker struct {
	river.WorkerDefaults[args]
	client *http.Client
	url    string
}

func (w *worker) Work(ctx context.Context, job *river.Job[args]) error {
	_, _, err := peer.Post(ctx, w.client, w.url, job.Args.Row)
	return err
}

func run(ctx context.Context, env peer.Environment, ready func()) error {
	pool, err := pgxpool.New(ctx, env.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{client: peer.NewClient(env.Concurrency), url: env.WebhookURL})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: env.Concurrency}}, Workers: workers, Schema: schema,
		Logger: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	return client.Stop(context.WithoutCancel(ctx))
}

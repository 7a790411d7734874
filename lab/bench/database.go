package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// database is a database of the benchmark, made for one measurement.
type database struct {
	lab  *lab
	name string
	url  string
	conn *pgx.Conn
	log  io.Writer // of the dispatchers; optional

	receiverPID int // of the process that gets the events
}

// newDatabase makes an empty database.
func (l *lab) newDatabase(ctx context.Context) (*database, error) {
	l.databases++
	d := &database{lab: l, name: fmt.Sprintf("bench%d", l.databases), receiverPID: l.receiverPID}
	d.url = l.server.URL(d.name)
	if _, err := l.admin.Exec(ctx, "create database "+d.name); err != nil {
		return nil, fmt.Errorf("make a database: %w", err)
	}
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return nil, fmt.Errorf("connect to the new database: %w", err)
	}
	d.conn = conn
	return d, nil
}

// drop removes the database.
func (d *database) drop() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_ = d.conn.Close(ctx)
	if _, err := d.lab.admin.Exec(ctx, "drop database "+d.name+" with (force)"); err != nil {
		d.lab.logf("can't drop %s: %v", d.name, err)
	}
}

func (d *database) exec(ctx context.Context, sql string) error {
	if _, err := d.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", abbreviate(sql), err)
	}
	return nil
}

func abbreviate(sql string) string {
	sql = strings.Join(strings.Fields(sql), " ")
	return sql[:min(len(sql), 80)]
}

// createTable makes a table whose rows have about 200 bytes. seq is the first column, so that the
// receiver finds it quickly.
func createTable(name string) string {
	return "create table " + name + ` (
  seq       bigint primary key,
  customer  integer not null,
  status    text not null,
  amount    numeric(12, 2) not null,
  currency  text not null,
  placed_at timestamptz not null,
  address   text not null,
  note      text not null
)`
}

// insertRow inserts one such row; $1 is seq.
func insertRow(table string) string {
	return "insert into " + table + " values ($1, 4711, 'placed', 129.95, 'EUR', '2026-11-23 09:41:00+00', " +
		"'12 Harbour Street, 24103 Kiel', 'Please ring twice and leave it with the neighbours if nobody opens the door')"
}

// insertRows inserts rows 1 to n in one statement.
func insertRows(table string, n int) string {
	values := insertRow(table)
	values = strings.TrimSuffix(strings.Replace(values, "values ($1,", "select g,", 1), ")") // the rest is constants
	return fmt.Sprintf("%s from generate_series(1, %d) as g", values, n)
}

// hook is a trigger of the benchmark: inserts into a table go to a path of the receiver.
type hook struct {
	name, table, path string
	keys              string // further keys of the trigger, as in "batch: {max: 100}"
}

// apply writes a configuration and has the build apply it.
func (d *database) apply(ctx context.Context, b build, hooks ...hook) error {
	return d.applyWith(ctx, b, "", hooks...)
}

// applyWith applies further configuration beside the triggers, too.
func (d *database) applyWith(ctx context.Context, b build, settings string, hooks ...hook) error {
	if b.peer {
		return d.setUpPeer(ctx, b)
	}
	var text strings.Builder
	text.WriteString(settings)
	text.WriteString("triggers:\n")
	for _, h := range hooks {
		more := ""
		if h.keys != "" {
			more = ", " + h.keys
		}
		fmt.Fprintf(&text, "  - {name: %s, table: public.%s, on: {insert: true}, webhook: {url: %q}%s}\n", h.name, h.table, d.lab.receiverURL+h.path, more)
	}
	file := filepath.Join(d.lab.dir, d.name+".yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if err := d.rowhook(ctx, b, "apply", "-f", file); err != nil {
		return fmt.Errorf("apply with %s: %w", b.path, err)
	}
	return nil
}

// rowhook runs a command of the build on the database.
func (d *database) rowhook(ctx context.Context, b build, args ...string) error {
	_, err := process.Output(ctx, process.Command{Name: "rowhook", Path: b.path, Args: args, Env: []string{"DATABASE_URL=" + d.url}})
	return err
}

// dispatch starts a dispatcher on the database and waits until it is ready.
func (d *database) dispatch(ctx context.Context, b build, concurrency int, flags ...string) (*process.Process, error) {
	path, args := b.path, append([]string{"run", "--log-format", "json", "--concurrency", fmt.Sprint(concurrency), "--grace-period", "1s"}, flags...)
	way, err := d.lab.wayTo(ctx, d.url)
	if err != nil {
		return nil, err
	}
	env := []string{"DATABASE_URL=" + way}
	if b.peer {
		args, env = []string{"run"}, d.peerEnv(concurrency)
	}
	if b.profile != "" {
		if path, err = self(); err != nil {
			return nil, err
		}
		d.lab.profiles++
		args = []string{dispatchMode, fmt.Sprint(concurrency), filepath.Join(b.profile, fmt.Sprintf("%s-%d", d.lab.scenario, d.lab.profiles))}
	}
	c, err := process.Start(process.Command{Name: "the dispatcher", Path: path, Args: args, Env: env, Log: d.log})
	if err != nil {
		return nil, err
	}
	if err := c.WaitReady(ctx, 30*time.Second); err != nil {
		return nil, errors.Join(err, c.Stop(time.Second))
	}
	return c, nil
}

// stopPatience is how long a dispatcher may take to stop: its grace period, and the last
// settlements.
const stopPatience = 20 * time.Second

// settled waits until no event is owed any more, and returns when that was.
func (d *database) settled(ctx context.Context, within time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		var owed bool
		if err := d.conn.QueryRow(ctx, "select exists (select from rowhook.event_log)").Scan(&owed); err != nil {
			return time.Time{}, fmt.Errorf("wait until all events are settled: %w", err)
		}
		if !owed {
			return time.Now(), nil
		}
		nap(5 * time.Millisecond)
	}
}

// walPosition returns how many bytes of WAL the server has written so far.
func (d *database) walPosition(ctx context.Context) (float64, error) {
	var n int64
	if err := d.conn.QueryRow(ctx, "select (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&n); err != nil {
		return 0, fmt.Errorf("ask for the WAL position: %w", err)
	}
	return float64(n), nil
}

// deadTuples returns how many row versions of the queue's tables have become dead so far. A session
// reports that when it ends, or after a second.
func (d *database) deadTuples(ctx context.Context) (float64, error) {
	var n int64
	err := d.conn.QueryRow(ctx, "select coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint from pg_stat_user_tables where schemaname <> 'public'").Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("ask for dead tuples: %w", err)
	}
	return float64(n), nil
}

// sessions returns the process ids of the dispatchers' sessions.
func (d *database) sessions(ctx context.Context) ([]int, error) {
	rows, err := d.conn.Query(ctx, "select pid from pg_stat_activity where application_name like 'rowhook %' and datname = current_database()")
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return pids, nil
}

// sessionsGone waits until the server has ended the sessions of dispatchers that stopped.
func (d *database) sessionsGone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		pids, err := d.sessions(ctx)
		if err != nil || len(pids) == 0 {
			return err
		}
		nap(5 * time.Millisecond)
	}
}

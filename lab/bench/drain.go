package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/lab/bench/receiver"
	"github.com/rowhook/rowhook/lab/internal/process"
)

// drain is a measurement in which many events become due with one commit and are delivered as fast
// as possible.
type drain struct {
	build       build
	events      int
	concurrency int
	dispatchers int                                    // 0: 1
	delay       time.Duration                          // of the receiver
	hold        bool                                   // a transaction with an id and a snapshot stays open meanwhile
	lanes       bool                                   // the time begins when the dispatchers share the lanes of an order evenly
	db          *database                              // nil: a new one
	fill        func(context.Context, pgx.Tx) error    // inserts the rows; nil: events rows of about 200 bytes
	table       func(context.Context, *database) error // makes the table public.orders; nil: the usual one
	keys        string                                 // further keys of the trigger
	arrived     func(stamps []int64) error             // looks at the arrivals, by seq; optional
}

// drainLimit bounds the time of a drain, whatever goes wrong.
const drainLimit = 3 * time.Minute

// prepare makes the database, unless db is set.
func (l *lab) prepare(ctx context.Context, r *drain) (*database, func(), error) {
	if r.db != nil {
		return r.db, func() {}, nil
	}
	db, err := l.newDatabase(ctx)
	if err != nil {
		return nil, nil, err
	}
	path := receiver.Path(r.delay)
	if r.table != nil {
		err = r.table(ctx, db)
	} else {
		err = db.exec(ctx, createTable("public.orders"))
	}
	if err == nil {
		err = db.apply(ctx, r.build, hook{name: "orders", table: "orders", path: path, keys: r.keys})
	}
	if err != nil {
		db.drop()
		return nil, nil, err
	}
	return db, db.drop, nil
}

// drain measures one drain. Values: rate (events/s until all were settled), received (events/s
// until the last one arrived), bytes (of bodies per second until the last one arrived), and the
// costs; with lanes also shared (ms from the last dispatcher's start until the lanes were shared)
// and busiest (share of the attempts that the busiest dispatcher made). Series: tenths, the rate of
// each tenth by arrival.
func (l *lab) drain(ctx context.Context, r drain) (*sample, error) {
	s := newSample()
	db, done, err := l.prepare(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := db.exec(ctx, "checkpoint"); err != nil {
		return nil, err
	}
	dispatchers, stop, err := db.dispatchAll(ctx, r.build, max(r.dispatchers, 1), r.concurrency)
	if err != nil {
		return nil, err
	}
	defer stop()
	if r.lanes {
		if err := db.awaitLanes(ctx, s, len(dispatchers)); err != nil {
			return nil, err
		}
	}
	if err := l.receiver.Reset(ctx, r.events); err != nil {
		return nil, err
	}
	if r.hold {
		release, err := db.holdTransaction(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	fill := r.fill
	if fill == nil {
		fill = orders(r.events)
	}
	m, start, err := db.fill(ctx, fill, dispatchers...)
	if err != nil {
		return nil, err
	}
	got, err := l.receiver.Await(ctx, r.events, drainLimit)
	if err != nil {
		return nil, err
	}
	count(s, r.events, got)
	settled, err := r.settle(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, dispatchers[0].Log())
	}
	if err := m.pause(ctx); err != nil {
		return nil, err
	}
	stamps, err := l.receiver.Stamps(ctx)
	if err != nil {
		return nil, err
	}
	if r.arrived != nil {
		if err := r.arrived(stamps); err != nil {
			return nil, err
		}
	}
	summarize(s, &r, start, settled, stamps[1:], got)
	if r.lanes {
		if err := db.busiest(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := db.exec(ctx, "truncate public.orders"); err != nil {
		return nil, err
	}
	return s, m.finish(ctx, s, r.events)
}

// orders inserts rows of about 200 bytes.
func orders(n int) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insertRows("public.orders", n))
		return err
	}
}

// fill inserts rows, and makes all of them due with one commit. It returns a meter that was started just before
// that, and when the commit had returned.
func (d *database) fill(ctx context.Context, insert func(context.Context, pgx.Tx) error, dispatchers ...*process.Process) (m *meter, start time.Time, err error) {
	tx, err := d.conn.Begin(ctx)
	if err != nil {
		return nil, start, fmt.Errorf("begin: %w", err)
	}
	if err := insert(ctx, tx); err != nil {
		return nil, start, fmt.Errorf("insert rows: %w", err)
	}
	if m, err = d.startMeter(ctx, dispatchers...); err != nil {
		return nil, start, err
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, start, fmt.Errorf("commit: %w", err)
	}
	return m, time.Now(), nil
}

// awaitLanes waits until each of n dispatchers has its share of the lanes.
func (d *database) awaitLanes(ctx context.Context, s *sample, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for start := time.Now(); ; nap(time.Millisecond) {
		var owners int
		err := d.conn.QueryRow(ctx, "select count(*) from (select from rowhook.lane where owner is not null group by owner having count(*) >= (select count(*) from rowhook.lane) / $1) o", n).Scan(&owners)
		if err != nil {
			return fmt.Errorf("wait until the lanes are shared: %w", err)
		}
		if owners == n {
			s.set("shared", time.Since(start).Seconds()*1000)
			return nil
		}
	}
}

// busiest records the share of the attempts that the busiest dispatcher has made.
func (d *database) busiest(ctx context.Context, s *sample) error {
	var share float64
	err := d.conn.QueryRow(ctx, "select (max(n) / sum(n))::float8 from (select count(*) as n from rowhook.invocation_log group by instance_id) i").Scan(&share)
	if err != nil {
		return fmt.Errorf("count attempts: %w", err)
	}
	s.set("busiest", share)
	return nil
}

// count records losses and duplicates.
func count(s *sample, events int, got receiver.Stats) {
	s.set("lost", float64(int64(events)-got.Distinct))
	s.set("duplicates", float64(got.Duplicates))
}

func summarize(s *sample, r *drain, start, settled time.Time, stamps []int64, got receiver.Stats) {
	last := start
	for _, stamp := range stamps {
		if t := time.Unix(0, stamp); t.After(last) {
			last = t
		}
	}
	last = last.Add(r.delay) // the request was stamped, and its slot stays taken until the response
	s.set("rate", float64(r.events)/settled.Sub(start).Seconds())
	s.set("received", float64(got.Distinct)/last.Sub(start).Seconds())
	s.set("bytes", float64(got.Bytes)/last.Sub(start).Seconds())
	if t := tenths(stamps); t != nil {
		s.Series["tenths"] = t
		s.set("last_tenth", t[9]/t[0])
	}
}

// dispatchAll starts several dispatchers. stop ends those that still run.
func (d *database) dispatchAll(ctx context.Context, b build, n, concurrency int) (all []*process.Process, stop func(), err error) {
	stop = func() {
		for _, c := range all {
			_ = c.Stop(stopPatience)
		}
	}
	for range n {
		c, err := d.dispatch(ctx, b, concurrency)
		if err != nil {
			stop()
			return nil, nil, err
		}
		all = append(all, c)
	}
	return all, stop, nil
}

// holdTransaction opens a transaction with a transaction id and a snapshot, as a report or a
// forgotten session would do.
func (d *database) holdTransaction(ctx context.Context) (release func(), err error) {
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	release = func() { _ = conn.Close(context.WithoutCancel(ctx)) }
	if _, err = conn.Exec(ctx, "begin isolation level repeatable read; select pg_current_xact_id()"); err != nil {
		release()
		return nil, fmt.Errorf("hold a transaction open: %w", err)
	}
	return release, nil
}

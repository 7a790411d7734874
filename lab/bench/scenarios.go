package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// scenario is a kind of measurement.
type scenario struct {
	key   string
	title string
	run   func(context.Context, build) (*sample, error)
	named bool // it runs only where --only names it, or --delivery
	// delivery says that it is one of the scenarios about order, batches, rates and outages.
	delivery bool
	peers    bool // it measures peers, too
}

// scenarios lists them in the order in which a repetition runs them.
func (l *lab) scenarios() []scenario {
	return []scenario{
		{key: "A", title: "commit to receipt", run: l.measureLatency},
		{key: "curve", title: "commit to receipt over the rate", run: l.measureCurve},
		{key: "B", title: "drain of waiting events", run: l.measureDrain},
		{key: "C", title: "writers flat out while delivering", run: l.measureWriters},
		{key: "C'", title: "the trigger's price", run: l.measurePrice},
		{key: "D", title: "receiver takes 50 ms", run: l.measureSlowReceiver},
		{key: "E", title: "drain beside an open transaction", run: l.measureOpenTransaction},
		{key: "F", title: "drain beside a long history", run: l.measureLongHistory},
		{key: "G", title: "latency beside a paused and a hanging trigger", run: l.measureLatencyBesideTrouble},
		{key: "H", title: "bulk insert", run: l.measureBulk},
		{key: "I", title: "idle", run: l.measureIdle},
		{key: "J", title: "four dispatchers against one", run: l.measureFourDispatchers},
		{key: "K", title: "large rows", run: l.measureLargeRows},
		{key: "L", title: "an operator's questions beside a long history", run: l.measureQuestions, named: true},
		{key: "M", title: "latency beside redeliveries, a backfill and retention", run: l.measureOperations, named: true},
		{key: "distance", title: "a database that is far away", run: l.measureDistance, named: true},
		{key: "peers", title: "rowhook beside other ways", run: l.measurePeer, named: true, peers: true},
		{key: "stream", title: "drain into a stream of NATS", run: l.measureStream, named: true},
		{key: "batch", title: "drain in batches of 100", run: l.measureBatches, named: true, delivery: true},
		{key: "batch-wait", title: "commit to receipt with a batch that waits for nothing", run: l.measureBatchLatency, named: true, delivery: true},
		{key: "rate", title: "a rate over four dispatchers", run: l.measureRate, named: true, delivery: true},
		{key: "outage", title: "an endpoint that is down", run: l.measureOutage, named: true, delivery: true},
		{key: "order", title: "drain in order", run: l.measureOrder, named: true, delivery: true},
		{key: "hot-key", title: "latency beside a key with many events", run: l.measureHotKey, named: true, delivery: true},
		{key: "order-4", title: "four dispatchers in order against one", run: l.measureOrderShared, named: true, delivery: true},
	}
}

// measureDrain drains events with the full invocation log. Values: those of drain, floor (events/s
// of the HTTP client alone), of_floor; net_floor (those of net/http's client), of_net_floor; floor_cpu and cpu (CPU seconds of everything but the
// benchmark, for 1,000 events), cpu_of_floor. Other programs on the machine affect CPU time less
// than rates.
func (l *lab) measureDrain(ctx context.Context, b build) (*sample, error) {
	floor, err := l.httpFloor(ctx, posts{events: l.sizes.HTTPFloor})
	if err != nil {
		return nil, err
	}
	net, err := l.netFloor(ctx, posts{events: l.sizes.HTTPFloor})
	if err != nil {
		return nil, err
	}
	s, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: 100})
	if err != nil {
		return nil, err
	}
	s.set("floor", floor.rate)
	s.set("of_floor", s.Values["rate"]/floor.rate)
	s.set("net_floor", net.rate)
	s.set("of_net_floor", s.Values["rate"]/net.rate)
	s.set("floor_cpu", floor.cpu)
	s.set("cpu", s.Values["cpu_dispatcher"]+s.Values["cpu_postgres"]+s.Values["cpu_receiver"])
	s.set("cpu_of_floor", floor.cpu/s.Values["cpu"])
	return s, nil
}

// slowLimit is the rate in events/s that 100 slots can reach with a receiver that takes 50 ms.
const slowLimit = 2000

// measureSlowReceiver drains with a slow receiver. Values: those of drain, of_limit, floor
// (events/s of the HTTP client alone), of_floor.
func (l *lab) measureSlowReceiver(ctx context.Context, b build) (*sample, error) {
	const delay = 50 * time.Millisecond
	floor, err := l.httpFloor(ctx, posts{events: l.sizes.SlowDrain, delay: delay})
	if err != nil {
		return nil, err
	}
	s, err := l.drain(ctx, drain{build: b, events: l.sizes.SlowDrain, concurrency: 100, delay: delay})
	if err != nil {
		return nil, err
	}
	s.set("of_limit", s.Values["received"]/slowLimit)
	s.set("floor", floor.rate)
	s.set("of_floor", s.Values["received"]/floor.rate)
	return s, nil
}

func (l *lab) measureOpenTransaction(ctx context.Context, b build) (*sample, error) {
	return l.drain(ctx, drain{build: b, events: l.sizes.OpenDrain, concurrency: 100, hold: true})
}

// measureLongHistory drains with and without a long history. Values: those of drain, alone
// (events/s without), of_alone.
func (l *lab) measureLongHistory(ctx context.Context, b build) (*sample, error) {
	db, err := l.longHistory(ctx, b)
	if err != nil {
		return nil, err
	}
	alone, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: 100})
	if err != nil {
		return nil, err
	}
	s, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: 100, db: db})
	if err != nil {
		return nil, err
	}
	s.set("alone", alone.Values["rate"])
	s.set("of_alone", s.Values["rate"]/alone.Values["rate"])
	return s, nil
}

// longHistory makes the database of F, once for each build. The history is today's, in the
// partitions that a drain writes.
func (l *lab) longHistory(ctx context.Context, b build) (*database, error) {
	if db := l.kept["F"+b.name]; db != nil {
		return db, nil
	}
	db, done, err := l.prepare(ctx, &drain{build: b})
	if err != nil {
		return nil, err
	}
	l.logf("F: writing a history of %d events", l.sizes.Archived)
	row := string(appendRow(nil, 1, ""))
	for _, sql := range []string{
		fmt.Sprintf(`insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new)
			select lpad(to_hex(g), 32, '0')::uuid, now(), now(), 1, 1, 'I', '%s' from generate_series(1, %d) as g`, row, l.sizes.Archived),
		fmt.Sprintf(`insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, response_headers, response_body)
			select lpad(to_hex(g), 32, '0')::uuid, now(), 1, 2, 900, 1, 200,
			'{"Content-Length":"15","Content-Type":"application/json","Date":"Mon, 02 Jan 2006 15:04:05 GMT"}', '{"status":"ok"}'
			from generate_series(1, %d) as g`, l.sizes.Archived),
		"vacuum analyze rowhook.event_archive", "vacuum analyze rowhook.invocation_log", "checkpoint",
	} {
		if err := db.exec(ctx, sql); err != nil {
			done()
			return nil, err
		}
	}
	l.kept["F"+b.name] = db
	return db, nil
}

// measureIdle measures a dispatcher that has nothing to do. Values: queries (statements a second),
// cpu_rowhook and cpu_server (share of a core).
func (l *lab) measureIdle(ctx context.Context, b build) (*sample, error) {
	s := newSample()
	db, done, err := l.prepare(ctx, &drain{build: b})
	if err != nil {
		return nil, err
	}
	defer done()
	if err := db.exec(ctx, "alter database "+db.name+" set log_statement = 'all'"); err != nil {
		return nil, err
	}
	c, err := l.newCrowd(ctx, db, b, warmUp, "public.orders")
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	if _, _, err := c.measure(ctx, 100, warmUp, 0); err != nil {
		return nil, err
	}
	if err := pause(ctx, 2*time.Second); err != nil { // until it is idle
		return nil, err
	}
	log, err := os.Stat(l.server.LogFile())
	if err != nil {
		return nil, fmt.Errorf("look at the server's log: %w", err)
	}
	m, err := db.startMeter(ctx, c.dispatcher)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, l.sizes.Idle); err != nil {
		return nil, err
	}
	if err := m.pause(ctx); err != nil {
		return nil, err
	}
	n, err := countStatements(l.server.LogFile(), log.Size(), db.name)
	if err != nil {
		return nil, err
	}
	s.set("queries", float64(n)/m.took)
	s.set("cpu_rowhook", m.tookDispatching/m.took)
	s.set("cpu_server", m.tookServer/m.took)
	s.set("idle_wal", m.wrote/m.took)
	return s, c.finishIdle(ctx, s)
}

func (c *crowd) finishIdle(ctx context.Context, s *sample) error {
	got, err := c.lab.receiver.Stats(ctx)
	if err != nil {
		return err
	}
	count(s, warmUp, got)
	s.set("memory", process.PeakMemory(c.dispatcher.PID()))
	return nil
}

// countStatements counts the statements of a database's sessions since the log had the given size.
func countStatements(file string, from int64, database string) (int, error) {
	log, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read the server's log: %w", err)
	}
	n := 0
	for line := range bytes.Lines(log[from:]) {
		text := string(line)
		if strings.Contains(text, "@"+database+" LOG:  statement: ") || strings.Contains(text, "@"+database+" LOG:  execute ") {
			n++
		}
	}
	return n, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// measureFourDispatchers drains with one dispatcher and with four, each with 25 slots. Values:
// those of drain with four, one (events/s), times.
func (l *lab) measureFourDispatchers(ctx context.Context, b build) (*sample, error) {
	const slots, delay = 25, 20 * time.Millisecond
	return l.fourAgainstOne(ctx, func(dispatchers int) drain {
		return drain{build: b, events: dispatchers * l.sizes.Shared, concurrency: slots, delay: delay, dispatchers: dispatchers}
	})
}

// fourAgainstOne drains with one dispatcher and with four. Values: those of drain with four, one
// (events/s), times.
func (l *lab) fourAgainstOne(ctx context.Context, with func(dispatchers int) drain) (*sample, error) {
	one, err := l.drain(ctx, with(1))
	if err != nil {
		return nil, err
	}
	s, err := l.drain(ctx, with(4))
	if err != nil {
		return nil, err
	}
	s.set("one", one.Values["received"])
	s.set("times", s.Values["received"]/one.Values["received"])
	s.set("lost", s.Values["lost"]+one.Values["lost"])
	s.set("duplicates", s.Values["duplicates"]+one.Values["duplicates"])
	return s, nil
}

// measureLargeRows drains large rows. Values for each size in kB: bytes10 (bytes/s), floor10
// (bytes/s of the HTTP client alone), of_floor10.
func (l *lab) measureLargeRows(ctx context.Context, b build) (*sample, error) {
	s := newSample()
	for _, kb := range []int{10, 100, 1000} {
		note := randomText(kb * 1000)
		events := max(l.sizes.LargeBytes/len(note), 50)
		floor, err := l.httpFloor(ctx, posts{events: events, note: note})
		if err != nil {
			return nil, err
		}
		one, err := l.drain(ctx, drain{
			build: b, events: events, concurrency: 100,
			table: func(ctx context.Context, db *database) error {
				return db.exec(ctx, "create table public.orders (seq bigint primary key, note text not null)")
			},
			fill: func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, fmt.Sprintf("insert into public.orders select g, $1 from generate_series(1, %d) as g", events), note)
				return err
			},
		})
		if err != nil {
			return nil, err
		}
		suffix := fmt.Sprint(kb)
		s.set("bytes"+suffix, one.Values["bytes"])
		s.set("floor"+suffix, floor.bytes)
		s.set("of_floor"+suffix, one.Values["bytes"]/floor.bytes)
		s.set("memory"+suffix, one.Values["memory"])
		s.set("lost", s.Values["lost"]+one.Values["lost"])
		s.set("duplicates", s.Values["duplicates"]+one.Values["duplicates"])
		for _, name := range []string{"cpu_dispatcher", "cpu_postgres", "cpu_sessions", "wal", "dead"} {
			s.set(name, one.Values[name]) // those of the largest size
		}
		s.set("memory", max(s.Values["memory"], one.Values["memory"]))
	}
	return s, nil
}

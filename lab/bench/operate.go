package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// The tables and triggers of an estate.
const (
	ordersTable  = "orders"  // its rows are delivered while operators work
	refusedTable = "refused" // has dead letters
	heldTable    = "held"    // is paused, and has events waiting
	stockTable   = "stock"   // has rows from before its trigger
)

// estate makes a database as an operator finds it: a long history that ended two days ago, a
// backlog, dead letters, and a table whose rows are older than its trigger. Only events of orders
// have a seq, so the receiver does not count the others.
func (l *lab) estate(ctx context.Context, b build) (db *database, err error) {
	if db, err = l.newDatabase(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			db.drop()
		}
	}()
	for _, sql := range []string{
		"set time zone 'UTC'",
		createTable("public." + ordersTable),
		"create table public." + refusedTable + " (id bigint primary key, note text not null)",
		"create table public." + heldTable + " (id bigint primary key, note text not null)",
		"create table public." + stockTable + " (id bigint primary key, note text not null)",
		fmt.Sprintf("insert into public.%s select g, repeat('in stock ', 16) from generate_series(1, %d) as g", stockTable, l.sizes.Backfilled),
	} {
		if err := db.exec(ctx, sql); err != nil {
			return db, err
		}
	}
	if err := db.apply(ctx, b, estateHooks()...); err != nil {
		return db, err
	}
	l.logf("writing a history of %d events, %d waiting and %d dead ones", l.sizes.Archived, l.sizes.Waiting, l.sizes.Dead)
	const id = `(lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(g::text), 1, 3) || '8' || substr(md5(g::text), 4, 15))::uuid`
	trigger := func(name string) string { return "(select id from rowhook.trigger where name = '" + name + "')" }
	moments := fmt.Sprintf(`from (select g, date_trunc('day', now()) - interval '47 hours' + g * interval '20 hours' / %d as at from generate_series(1, %[1]d) as g) as moment`, l.sizes.Archived)
	for _, sql := range []string{
		"update rowhook.trigger set paused = true where name = '" + heldTable + "'",
		"select rowhook.ensure_partitions(now() - interval '2 days', now())",
		fmt.Sprintf(`insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new)
			select %s, at, at + interval '2 ms', %s, 1, 'I', json_build_object('n', g, 'note', 'long ago') %s`, id, trigger(ordersTable), moments),
		fmt.Sprintf(`insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, response_headers, response_body)
			select %s, at, %s, 2, 900, 1, 200, '{"Content-Type":"application/json"}', '{"status":"ok"}' %s`, id, trigger(ordersTable), moments),
		fmt.Sprintf("insert into public.%s select g, 'waiting' from generate_series(1, %d) as g", heldTable, l.sizes.Waiting),
		fmt.Sprintf(`insert into rowhook.dead_letter (id, created_at, trigger_id, tries, op, reason, new)
			select rowhook.uuid7(), now() - interval '1 h', %s, 6, 'I', 'answered 500', json_build_object('id', g, 'note', repeat('refused ', 18))
			from generate_series(1, %d) as g`, trigger(refusedTable), l.sizes.Dead),
		"vacuum analyze", "checkpoint",
	} {
		if err := db.exec(ctx, sql); err != nil {
			return db, err
		}
	}
	return db, nil
}

func estateHooks() (hooks []hook) {
	for _, table := range []string{ordersTable, refusedTable, heldTable, stockTable} {
		hooks = append(hooks, hook{name: table, table: table, path: "/"})
	}
	return hooks
}

// question is what an operator asks, by a command (which may be missing) and by HTTP.
type question struct {
	args []string
	path string
}

// questions use every filter.
func (d *database) questions(ctx context.Context) ([]question, error) {
	all := []question{
		{[]string{"status"}, "/api/v1/status"}, {[]string{"status", "--json"}, "/api/v1/triggers"},
		{nil, "/healthz"}, {nil, "/readyz"}, {nil, "/metrics"}, {nil, "/api/v1/openapi.json"}, {nil, "/api/v1/operations"},
	}
	ago := func(age time.Duration) string { return time.Now().Add(-age).UTC().Format(time.RFC3339) }
	list := func(filter ...string) {
		args, query := []string{"events", "list"}, url.Values{}
		for i := 0; i < len(filter); i += 2 {
			args = append(args, "--"+filter[i], filter[i+1])
			query.Add(filter[i], filter[i+1])
		}
		all = append(all, question{args, "/api/v1/events?" + query.Encode()})
		if len(filter) == 2 && filter[0] != "limit" {
			all = append(all, question{nil, "/api/v1/events/count?" + query.Encode()})
		}
	}
	list()
	list("limit", "1000")
	for _, state := range []string{"waiting", "in_flight", "retrying", "delivered", "dead"} {
		list("state", state)
	}
	for _, trigger := range []string{ordersTable, refusedTable, heldTable} {
		list("trigger", trigger)
		list("trigger", trigger, "state", "delivered")
	}
	list("table", "public."+ordersTable)
	list("since", ago(2*time.Hour))
	list("until", ago(40*time.Hour))
	list("since", ago(42*time.Hour), "until", ago(41*time.Hour))
	list("payload", "new.n=17")
	list("payload", "new.nobody=17")
	list("payload", "new.id=99", "state", "dead")
	for _, table := range []string{"event_log", "dead_letter", "event_archive"} {
		var id string
		if err := d.conn.QueryRow(ctx, "select id from rowhook."+table+" limit 1").Scan(&id); err != nil {
			return nil, fmt.Errorf("look for an event: %w", err)
		}
		all = append(all, question{[]string{"events", "show", id}, "/api/v1/events/" + id}, question{[]string{"events", "list", id}, "/api/v1/events?id=" + id})
	}
	return all, nil
}

// askings is how often each question is asked. The median counts.
const askings = 3

// measureQuestions asks what operators ask. Values: command, endpoint and count, the slowest
// answers in milliseconds. The time of a command includes its start. A count takes two seconds at
// most, and then says "more".
func (l *lab) measureQuestions(ctx context.Context, b build) (*sample, error) {
	db, err := l.estate(ctx, b)
	if err != nil {
		return nil, err
	}
	defer db.drop()
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	c, err := db.dispatch(ctx, b, 100, "--http", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Stop(stopPatience) }()
	questions, err := db.questions(ctx)
	if err != nil {
		return nil, err
	}
	s := newSample()
	for _, q := range questions {
		if q.args != nil {
			err = l.ask(s, "command", "rowhook "+strings.Join(q.args, " "), func() error { return db.rowhook(ctx, b, q.args...) })
		}
		if err == nil {
			kind := "endpoint"
			if strings.Contains(q.path, "/count?") {
				kind = "count"
			}
			err = l.ask(s, kind, "GET "+q.path, func() error { return get(ctx, "http://"+address+q.path) })
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ask measures the answer to a question, and keeps the slowest of its kind.
func (l *lab) ask(s *sample, kind, what string, answer func() error) error {
	var took []float64
	for range askings {
		start := time.Now()
		if err := answer(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		took = append(took, time.Since(start).Seconds()*1000)
	}
	slices.Sort(took)
	l.logf("%7.1f ms  %s", took[askings/2], what)
	s.set(kind, max(s.Values[kind], took[askings/2]))
	return nil
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

// besideRate is how many events are delivered each second while operators work.
const besideRate = 200

// measureOperations measures latencies of deliveries while operators change many events. Values:
// before (p99 in milliseconds without such work: the median of windows before, between and after),
// and for each of redeliver, backfill and retention its p99 (the median of windows while it ran),
// its ratio to before, and its rate (events/s).
func (l *lab) measureOperations(ctx context.Context, b build) (*sample, error) {
	db, err := l.estate(ctx, b)
	if err != nil {
		return nil, err
	}
	defer db.drop()
	c, err := l.newCrowd(ctx, db, b, int(besideRate*l.sizes.Beside.Seconds()), "public."+ordersTable)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	if _, _, err := c.measure(ctx, 100, warmUp, 0); err != nil {
		return nil, err
	}
	s := newSample()
	var before []float64
	calm := func() error {
		p99, err := c.window(ctx)
		before = append(before, p99)
		return err
	}
	for _, work := range []struct {
		name   string
		events int
		do     func() error
	}{
		{"redeliver", l.sizes.Dead, func() error {
			return db.rowhook(ctx, b, "redeliver", "--trigger", refusedTable, "--state", "dead", "--yes")
		}},
		{"backfill", l.sizes.Backfilled, func() error { return db.rowhook(ctx, b, "backfill", stockTable, "--yes") }},
		{"retention", l.sizes.Archived, func() error { return db.shorten(ctx, b) }},
	} {
		if err := calm(); err != nil {
			return nil, err
		}
		p99s, took, err := c.beside(ctx, work.do)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", work.name, err)
		}
		slices.Sort(p99s)
		s.set(work.name, percentile(p99s, 0.5))
		s.set(work.name+"_rate", float64(work.events)/took.Seconds())
		l.logf("M: %s took %.1f s, p99 of %d windows %.1f to %.1f ms, median %.1f", work.name, took.Seconds(), len(p99s), p99s[0], p99s[len(p99s)-1], s.Values[work.name])
	}
	if err := calm(); err != nil {
		return nil, err
	}
	slices.Sort(before)
	s.set("before", percentile(before, 0.5))
	l.logf("M: p99 of %d calm windows %.1f to %.1f ms", len(before), before[0], before[len(before)-1])
	for _, name := range []string{"redeliver", "backfill", "retention"} {
		s.set(name+"_ratio", s.Values[name]/s.Values["before"])
	}
	got, err := l.receiver.Stats(ctx)
	if err != nil {
		return nil, err
	}
	count(s, c.w.written(), got)
	return s, nil
}

// window delivers events for a while, and returns the p99.
func (c *crowd) window(ctx context.Context) (float64, error) {
	took, _, err := c.measure(ctx, besideRate, int(besideRate*c.lab.sizes.Window.Seconds()), 0)
	if err != nil {
		return 0, err
	}
	return percentile(took, 0.99), nil
}

// beside delivers events while the work runs. It returns the p99 of each window and how long the
// work took. The last window may end after the work.
func (c *crowd) beside(ctx context.Context, do func() error) (p99s []float64, took time.Duration, err error) {
	start, done := time.Now(), make(chan error, 1)
	go func() {
		err := do()
		took = time.Since(start)
		done <- err
	}()
	for {
		p99, err := c.window(ctx)
		if err != nil {
			return nil, 0, errors.Join(err, <-done)
		}
		p99s = append(p99s, p99)
		select {
		case err := <-done:
			return p99s, took, err
		default:
		}
	}
}

// shorten applies a retention that leaves no history, and waits until the history is gone.
func (d *database) shorten(ctx context.Context, b build) error {
	if err := d.applyWith(ctx, b, "retention: {delivered: 1h, attempts: 1h}\n", estateHooks()...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		var left bool
		err := d.conn.QueryRow(ctx, "select exists (select from rowhook.event_archive where delivered_at < now() - interval '1 day') or exists (select from rowhook.invocation_log where started_at < now() - interval '1 day')").Scan(&left)
		if err != nil {
			return fmt.Errorf("wait until the history is gone: %w", err)
		}
		if !left {
			return nil
		}
		nap(100 * time.Millisecond)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// load is one measurement of a dispatcher's memory.
type load struct {
	title string
	limit float64 // MB
	run   func(ctx context.Context, l *lab) (measured, error)
}

// measured is the result of a load.
type measured struct {
	peak float64 // MB
	text string
}

func loads() []load {
	return []load{
		{"200 events of 20 MB", 256, largeEvents},
		{"a million waiting events and a thousand triggers", 64, manyWaiting},
		{"500 endless answers", 64, endlessAnswers},
	}
}

// memory measures each load on a server and a dispatcher of its own.
func memory(ctx context.Context, opt options, stdout, stderr io.Writer) error {
	opt.instances = 0
	var failed []error
	for _, load := range loads() {
		began := time.Now()
		m, err := onFreshLab(ctx, opt, stderr, load.run)
		if err != nil {
			return fmt.Errorf("%s: %w", load.title, err)
		}
		fmt.Fprintf(stdout, "%s: at most %.1f MB of %.0f allowed; %s; %.0f s in all\n", load.title, m.peak, load.limit, m.text, time.Since(began).Seconds())
		if m.peak > load.limit {
			failed = append(failed, fmt.Errorf("%s took %.1f MB, more than %.0f", load.title, m.peak, load.limit))
		}
	}
	return errors.Join(failed...)
}

func onFreshLab(ctx context.Context, opt options, out io.Writer, run func(context.Context, *lab) (measured, error)) (m measured, err error) {
	l, err := openLab(ctx, opt, out)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return run(ctx, l)
}

const bigTable = "create table big (id bigint primary key, note text)"

func bigTrigger(url string) string {
	return fmt.Sprintf("triggers:\n  - {name: big, table: public.big, on: {insert: true}, webhook: {url: %q, timeout: 60s}}\n", url)
}

// largeEvents makes 200 events of 20 MB each before the dispatcher starts.
func largeEvents(ctx context.Context, l *lab) (m measured, err error) {
	const events, size = 200, 20 << 20
	d, err := l.newDirect(ctx, nil)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.exec(ctx, bigTable); err != nil {
		return m, err
	}
	if err := d.configure(ctx, bigTrigger(d.url)); err != nil {
		return m, err
	}
	// One event is captured and the others are copies of it. To capture all of them would take
	// minutes.
	if err := d.exec(ctx, fmt.Sprintf("insert into big select 1, repeat('0123456789abcdef', %d)", size/16)); err != nil {
		return m, err
	}
	_, err = l.admin.Exec(ctx, "insert into rowhook.event_log (id, trigger_id, op, new) select rowhook.uuid7(), trigger_id, op, new from rowhook.event_log, generate_series(2, $1)", events)
	if err != nil {
		return m, fmt.Errorf("copy the event: %w", err)
	}
	began := time.Now()
	if err := d.start(ctx); err != nil {
		return m, err
	}
	if err := d.settled(ctx, 10*time.Minute); err != nil {
		return m, err
	}
	if got := d.received.Load(); got < events*size {
		return m, fmt.Errorf("only %d bytes arrived", got)
	}
	return measured{process.PeakMemory(d.child.PID()), fmt.Sprintf("%.1f GB were delivered in %.0f s", float64(d.received.Load())/1e9, time.Since(began).Seconds())}, nil
}

// manyWaiting makes a million events that wait for a slow receiver, beside 999 other triggers.
func manyWaiting(ctx context.Context, l *lab) (m measured, err error) {
	const events, others = 1_000_000, 999
	slow := func(_ http.ResponseWriter, r *http.Request, _ *direct) {
		if r.URL.Path == "/slow" {
			wait(r.Context(), 500*time.Millisecond)
		}
	}
	d, err := l.newDirect(ctx, slow)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.exec(ctx, bigTable, "create table other (id bigint primary key)"); err != nil {
		return m, err
	}
	config := bigTrigger(d.url+"/slow") + fmt.Sprintf("  - {name: other0, table: public.other, on: {insert: true}, webhook: {url: %q}}\n", d.url)
	if err := d.configure(ctx, config); err != nil {
		return m, err
	}
	// This inserts what a dispatcher reads. To apply 1,000 triggers and to capture a
	// million rows would take minutes.
	for _, sql := range []string{
		fmt.Sprintf(`insert into rowhook.trigger (name, relation, schema_name, table_name, spec)
			select 'other' || n, relation, schema_name, table_name, jsonb_set(spec, '{name}', to_jsonb('other' || n))
			  from rowhook.trigger, generate_series(1, %d) as n where name = 'other0'`, others-1),
		fmt.Sprintf(`insert into rowhook.event_log (id, trigger_id, op, new)
			select rowhook.uuid7(), t.id, 'I', json_build_object('id', g, 'note', 'note ' || g) from rowhook.trigger t, generate_series(1, %d) as g where t.name = 'big'`, events),
	} {
		if _, err := l.admin.Exec(ctx, sql); err != nil {
			return m, fmt.Errorf("make triggers and events: %w", err)
		}
	}
	if err := d.start(ctx); err != nil {
		return m, err
	}
	// The other triggers are served meanwhile, each of them.
	began := time.Now()
	_, err = l.admin.Exec(ctx, `
with e as (
  insert into rowhook.event_log (id, trigger_id, op, new) select rowhook.uuid7(), id, 'I', '{"id": 1}' from rowhook.trigger where name like 'other%' returning trigger_id)
select pg_notify('rowhook', trigger_id::text) from e`)
	if err != nil {
		return m, fmt.Errorf("make events of the other triggers: %w", err)
	}
	err = d.until(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		var none bool
		err := l.admin.QueryRow(ctx, `select not exists (select from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id where t.name like 'other%')`).Scan(&none)
		return none, err
	})
	if err != nil {
		return m, fmt.Errorf("wait for the other triggers' events: %w", err)
	}
	took := time.Since(began)
	wait(ctx, 20*time.Second-took)
	var waiting int
	if err := l.admin.QueryRow(ctx, "select count(*) from rowhook.event_log").Scan(&waiting); err != nil {
		return m, fmt.Errorf("count what waits: %w", err)
	}
	return measured{process.PeakMemory(d.child.PID()), fmt.Sprintf("%d still wait after 20 s; an event of each other trigger was delivered within %.1f s", waiting, took.Seconds())}, nil
}

// endlessAnswers makes each response go on until the dispatcher ends it.
func endlessAnswers(ctx context.Context, l *lab) (m measured, err error) {
	const events = 500
	endless := func(w http.ResponseWriter, _ *http.Request, d *direct) {
		chunk := []byte(strings.Repeat("more ", 13_107))
		for {
			n, err := w.Write(chunk)
			d.sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	d, err := l.newDirect(ctx, endless)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.exec(ctx, bigTable); err != nil {
		return m, err
	}
	if err := d.configure(ctx, bigTrigger(d.url)); err != nil {
		return m, err
	}
	if err := d.start(ctx); err != nil {
		return m, err
	}
	began := time.Now()
	if err := d.exec(ctx, fmt.Sprintf("insert into big select g, 'note' from generate_series(1, %d) as g", events)); err != nil {
		return m, err
	}
	if err := d.settled(ctx, 2*time.Minute); err != nil {
		return m, err
	}
	took := time.Since(began)
	var kept int
	if err := l.admin.QueryRow(ctx, "select max(length(response_body)) from rowhook.invocation_log").Scan(&kept); err != nil {
		return m, fmt.Errorf("look at the log: %w", err)
	}
	return measured{process.PeakMemory(d.child.PID()), fmt.Sprintf("all were settled within %.1f s, after %.2f MB each of which %d kB were kept",
		took.Seconds(), float64(d.sent.Load())/events/1e6, kept/1000)}, nil
}

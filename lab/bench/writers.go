package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rowhook/rowhook/lab/bench/receiver"
)

// maxCommitRate is more than eight writers commit in a second on any machine so far: 45,000. It bounds the room for their rows.
const maxCommitRate = 200_000

// tables makes public.orders, which has a trigger, and public.plain, which has none.
func (l *lab) tables(ctx context.Context, b build, path string) (*database, error) {
	db, err := l.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	for _, table := range []string{"public.orders", "public.plain"} {
		if err := db.exec(ctx, createTable(table)); err != nil {
			db.drop()
			return nil, err
		}
	}
	if err := db.apply(ctx, b, hook{name: "orders", table: "orders", path: path}); err != nil {
		db.drop()
		return nil, err
	}
	return db, nil
}

// write has eight writers insert into a table as fast as possible, and then empties it.
func (d *database) write(ctx context.Context, table string, during time.Duration) (float64, error) {
	rate, err := newWriting(d.url, 8, int(during.Seconds()*maxCommitRate), table).flatOut(ctx, during)
	if err != nil {
		return 0, err
	}
	return rate, d.exec(ctx, "truncate "+table)
}

// measureWriters has eight writers commit as fast as possible while their rows are delivered.
// Values: plain (commits/s without a trigger), rate (commits/s), of_plain, delivered (events/s
// while they wrote), behind_p50, behind_p99, behind_max (commit to receipt in milliseconds),
// catch_up (seconds from the last commit to the last receipt).
func (l *lab) measureWriters(ctx context.Context, b build) (*sample, error) {
	s := newSample()
	db, err := l.tables(ctx, b, "/")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	plain, err := db.write(ctx, "public.plain", l.sizes.Pricing)
	if err != nil {
		return nil, err
	}
	c, err := l.newCrowd(ctx, db, b, int(l.sizes.Writing.Seconds()*maxCommitRate), "public.orders")
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	if err := db.exec(ctx, "checkpoint"); err != nil {
		return nil, err
	}
	m, err := db.startMeter(ctx, c.dispatcher)
	if err != nil {
		return nil, err
	}
	c.w.writers = 8
	rate, err := c.w.flatOut(ctx, l.sizes.Writing)
	if err != nil {
		return nil, err
	}
	end := time.Now()
	during, err := l.receiver.Stats(ctx)
	if err != nil {
		return nil, err
	}
	written := c.w.written()
	if _, err := l.receiver.Await(ctx, written, 2*time.Minute); err != nil {
		return nil, err
	}
	stamps, err := l.receiver.Stamps(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := db.settled(ctx, 30*time.Second); err != nil {
		return nil, err
	}
	took := latencies(c.w.commits, stamps, 1, len(stamps)-1)
	s.set("plain", plain)
	s.set("rate", rate)
	s.set("of_plain", rate/plain)
	s.set("delivered", float64(during.Distinct)/l.sizes.Writing.Seconds())
	s.set("behind_p50", percentile(took, 0.5))
	s.set("behind_p99", percentile(took, 0.99))
	s.set("behind_max", percentile(took, 1))
	s.set("catch_up", max(0, time.Unix(0, slices.Max(stamps)).Sub(end).Seconds()))
	return s, c.finish(ctx, s, m, written)
}

// measurePrice measures what the trigger costs the writers. Values, in commits/s: plain (no
// trigger, before and after), stopped (no dispatcher runs, after one has stopped), silent (the bell
// is silent and nothing else happens), busy (a dispatcher works at the pace of a slow receiver,
// with the bell silent); and each as a share of plain.
func (l *lab) measurePrice(ctx context.Context, b build) (*sample, error) {
	s := newSample()
	db, err := l.tables(ctx, b, receiver.Path(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer db.drop()
	if err := l.receiver.Reset(ctx, int(l.sizes.Pricing.Seconds()*maxCommitRate)); err != nil {
		return nil, err
	}
	c, err := db.dispatch(ctx, b, 100)
	if err != nil {
		return nil, err
	}
	if err := c.Stop(stopPatience); err != nil {
		return nil, err
	}
	parts := []struct{ name, table, sql string }{
		{"before", "public.plain", "checkpoint"},
		{"stopped", "public.orders", "checkpoint"},
		{"silent", "public.orders", "select setval('rowhook.doorbell', 999)"},
		{"busy", "public.orders", "checkpoint"},
		{"after", "public.plain", "truncate rowhook.event_log"},
	}
	for _, p := range parts {
		if p.name == "silent" || p.name == "busy" {
			if err := db.exec(ctx, "truncate rowhook.event_log"); err != nil {
				return nil, err
			}
		}
		if err := db.exec(ctx, p.sql); err != nil {
			return nil, err
		}
		if p.name == "busy" {
			if c, err = db.dispatch(ctx, b, 100); err != nil {
				return nil, err
			}
		}
		rate, err := db.write(ctx, p.table, l.sizes.Pricing)
		if p.name == "busy" {
			_ = c.Stop(stopPatience)
		}
		if err != nil {
			return nil, err
		}
		s.set(p.name, rate)
	}
	s.set("plain", (s.Values["before"]+s.Values["after"])/2)
	for _, name := range []string{"stopped", "silent", "busy"} {
		s.set(name+"_share", s.Values[name]/s.Values["plain"])
	}
	return s, nil
}

// measureBulk measures a statement that inserts many rows, in microseconds a row: plain, ringing
// and silent, and what the trigger adds.
func (l *lab) measureBulk(ctx context.Context, b build) (*sample, error) {
	s := newSample()
	db, err := l.tables(ctx, b, "/")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	took := map[string][]float64{}
	for range l.sizes.BulkPairs {
		for _, p := range []struct {
			name, table string
			bell        int
		}{{"plain", "public.plain", 1}, {"ringing", "public.orders", 1}, {"silent", "public.orders", 999}} {
			if err := db.exec(ctx, "truncate rowhook.event_log, public.orders, public.plain"); err != nil {
				return nil, err
			}
			if err := db.exec(ctx, fmt.Sprintf("select setval('rowhook.doorbell', %d)", p.bell)); err != nil {
				return nil, err
			}
			before, err := db.walPosition(ctx)
			if err != nil {
				return nil, err
			}
			start := time.Now()
			if err := db.exec(ctx, insertRows(p.table, l.sizes.Bulk)); err != nil {
				return nil, err
			}
			took[p.name] = append(took[p.name], time.Since(start).Seconds()*1e6/float64(l.sizes.Bulk))
			after, err := db.walPosition(ctx)
			if err != nil {
				return nil, err
			}
			took[p.name+"_wal"] = append(took[p.name+"_wal"], (after-before)/float64(l.sizes.Bulk))
		}
	}
	for name, values := range took {
		s.set(name, median(values))
	}
	s.set("added", s.Values["ringing"]-s.Values["plain"])
	s.set("added_silent", s.Values["silent"]-s.Values["plain"])
	s.set("share", s.Values["plain"]/s.Values["ringing"])
	s.set("added_wal", s.Values["ringing_wal"]-s.Values["plain_wal"])
	return s, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// A peer is another way from a row to a webhook. It is a program with three commands, which lab/peers has
// examples of:
//
//	setup      prepares the database: from then on each insert into TABLE is to be POSTed to WEBHOOK_URL
//	run        does that until SIGTERM, with at most CONCURRENCY requests at once, and logs {"msg":"ready"}
//	version    prints a line about itself
//
// DATABASE_URL is the database. The body of a request is JSON and holds the row.
type peers []build

// String and Set make it a flag: NAME=PROGRAM.
func (p *peers) String() string { return "" }

func (p *peers) Set(text string) error {
	name, path, found := strings.Cut(text, "=")
	if !found || name == "" || path == "" || name == "this" || name == "other" {
		return errors.New("want NAME=PROGRAM, such as river=.cache/peers/river")
	}
	*p = append(*p, build{name: name, path: path, peer: true})
	return nil
}

// peerEnv is the environment of a peer.
func (d *database) peerEnv(concurrency int) []string {
	return []string{"DATABASE_URL=" + d.url, "TABLE=public.orders", "WEBHOOK_URL=" + d.lab.receiverURL + "/", fmt.Sprintf("CONCURRENCY=%d", concurrency)}
}

func (d *database) setUpPeer(ctx context.Context, b build) error {
	_, err := process.Output(ctx, process.Command{Name: b.name, Path: b.path, Args: []string{"setup"}, Env: d.peerEnv(1)})
	return err
}

// measurePeer measures what can be measured of a peer, too. Values: those of A; stopped (commits/s of eight
// writers while nobody delivers) and stopped_share (of those without a trigger); writing (commits/s of eight
// writers while their rows are delivered), writing_share and delivering (receipts/s meanwhile); drained
// (receipts/s of a drain), drain_memory.
func (l *lab) measurePeer(ctx context.Context, b build) (*sample, error) {
	s, err := l.latency(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := l.peerWriters(ctx, b, s); err != nil {
		return nil, err
	}
	one, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: 100})
	if err != nil {
		return nil, err
	}
	s.set("drained", one.Values["received"])
	s.set("drain_memory", one.Values["memory"])
	s.set("lost", s.Values["lost"]+one.Values["lost"])
	s.set("duplicates", s.Values["duplicates"]+one.Values["duplicates"])
	return s, nil
}

// peerWriters measures what a capture costs writers, and then deliveries.
func (l *lab) peerWriters(ctx context.Context, b build, s *sample) error {
	db, err := l.tables(ctx, b, "/")
	if err != nil {
		return err
	}
	defer db.drop()
	plain, err := db.write(ctx, "public.plain", l.sizes.Pricing)
	if err != nil {
		return err
	}
	if s.Values["stopped"], err = db.write(ctx, "public.orders", l.sizes.Pricing); err != nil {
		return err
	}
	busy, err := l.tables(ctx, b, "/")
	if err != nil {
		return err
	}
	defer busy.drop()
	c, err := l.newCrowd(ctx, busy, b, int(l.sizes.Writing.Seconds()*maxCommitRate), "public.orders")
	if err != nil {
		return err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	c.w.writers = 8
	if s.Values["writing"], err = c.w.flatOut(ctx, l.sizes.Writing); err != nil {
		return err
	}
	got, err := l.receiver.Stats(ctx)
	if err != nil {
		return err
	}
	s.set("stopped_share", s.Values["stopped"]/plain)
	s.set("writing_share", s.Values["writing"]/plain)
	s.set("delivering", float64(got.Distinct)/l.sizes.Writing.Seconds())
	return nil
}

// peerMeasures are the lines of the table of peers.
func peerMeasures() []measure {
	const percent = 100
	return []measure{
		{value: "low_p50", title: "20/s, p50", unit: "ms", digits: 2},
		{value: "low_p99", title: "20/s, p99", unit: "ms", digits: 2},
		{value: "high_p50", title: "500/s, p50", unit: "ms", digits: 2},
		{value: "high_p99", title: "500/s, p99", unit: "ms", digits: 2},
		{value: "cpu_dispatcher", title: "CPU of the program, an event", unit: "ms", digits: 2},
		{value: "cpu_postgres", title: "CPU of Postgres, an event", unit: "ms", digits: 2},
		{value: "dead", title: "dead tuples, an event", digits: 1},
		{value: "wal", title: "WAL, an event", unit: "B"},
		{value: "memory", title: "peak memory at 500/s", unit: "MB", digits: 1},
		{value: "stopped_share", title: "commits while nobody delivers, of no trigger", unit: "%", scale: percent},
		{value: "writing_share", title: "commits while delivering, of no trigger", unit: "%", scale: percent},
		{value: "delivering", title: "delivered meanwhile", unit: "/s"},
		{value: "drained", title: "drained", unit: "/s"},
		{value: "drain_memory", title: "peak memory while draining", unit: "MB", digits: 1},
		{value: "lost", title: "lost"},
		{value: "duplicates", title: "duplicates"},
	}
}

// peerTable has a column for each peer.
func peerTable(r *results) *table {
	t := &table{head: []string{"peers"}, right: []bool{false}}
	var columns []*result
	for _, one := range r.Scenarios {
		if one.Scenario == "peers" {
			columns = append(columns, one)
			name := one.Build
			if name == "this" {
				name = "rowhook"
			}
			t.head, t.right = append(t.head, name), append(t.right, true)
		}
	}
	if len(columns) == 0 {
		return t
	}
	for _, m := range peerMeasures() {
		row := []string{m.title}
		for _, one := range columns {
			cell := ""
			if v, ok := one.Median[m.value]; ok {
				cell = m.show(v)
			}
			row = append(row, cell)
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// settle waits until a drain is recorded, where that is known: of a peer the time of the last receipt counts.
func (r *drain) settle(ctx context.Context, db *database) (time.Time, error) {
	if r.build.peer {
		return time.Now(), nil
	}
	return db.settled(ctx, 30*time.Second)
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/lab/bench/receiver"
)

// measureBatches drains with batches of 100, and with single requests. Values: those of drain,
// single (events/s), times, per_request (events).
func (l *lab) measureBatches(ctx context.Context, b build) (*sample, error) {
	single, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: 100})
	if err != nil {
		return nil, err
	}
	s, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: 100, keys: "batch: {max: 100}"})
	if err != nil {
		return nil, err
	}
	got, err := l.receiver.Stats(ctx)
	if err != nil {
		return nil, err
	}
	s.set("single", single.Values["rate"])
	s.set("times", s.Values["rate"]/single.Values["rate"])
	s.set("per_request", float64(l.sizes.Drain)/float64(got.Requests))
	return s, nil
}

// measureBatchLatency measures latencies with batches that wait for nothing, in turn with those
// without. Values: those of latency, alone_ with those without batches, and the ratios.
func (l *lab) measureBatchLatency(ctx context.Context, b build) (*sample, error) {
	alone, err := l.latencyWith(ctx, b, "")
	if err != nil {
		return nil, err
	}
	s, err := l.latencyWith(ctx, b, "batch: {max: 100, wait: 0s}")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"low_p50", "low_p99", "high_p50", "high_p99"} {
		s.set("alone_"+name, alone.Values[name])
		s.set("ratio_"+name, s.Values[name]/alone.Values[name])
	}
	return s, nil
}

// The rate of measureRate, over all dispatchers together.
const (
	ratePerSecond = 50
	rateBurst     = 100
)

// measureRate lets four dispatchers send at a rate. The time begins when the burst is over. Values:
// mean (requests/s), highest (requests in one second), burst (requests in the second before).
func (l *lab) measureRate(ctx context.Context, b build) (*sample, error) {
	s := newSample()
	events := rateBurst + int(ratePerSecond*(l.sizes.Rated+10*time.Second).Seconds())
	db, done, err := l.prepare(ctx, &drain{build: b, keys: fmt.Sprintf("rate: {limit: %d/s, burst: %d}", ratePerSecond, rateBurst)})
	if err != nil {
		return nil, err
	}
	defer done()
	_, stop, err := db.dispatchAll(ctx, b, 4, 20)
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := l.receiver.Reset(ctx, events); err != nil {
		return nil, err
	}
	if err := db.exec(ctx, insertRows("public.orders", events)); err != nil {
		return nil, err
	}
	if _, err := l.receiver.Await(ctx, rateBurst, 30*time.Second); err != nil {
		return nil, err
	}
	if err := pause(ctx, l.sizes.Rated+2*time.Second); err != nil {
		return nil, err
	}
	got, err := l.receiver.Stats(ctx)
	if err != nil {
		return nil, err
	}
	stamps, err := l.receiver.Stamps(ctx)
	if err != nil {
		return nil, err
	}
	s.set("duplicates", float64(got.Duplicates))
	return s, rateOf(s, stamps, l.sizes.Rated)
}

// rateOf says how even the arrivals were in the time that follows the burst.
func rateOf(s *sample, stamps []int64, during time.Duration) error {
	arrivals := slices.DeleteFunc(slices.Clone(stamps), func(t int64) bool { return t == 0 })
	slices.Sort(arrivals)
	if len(arrivals) <= rateBurst {
		return fmt.Errorf("only %d events arrived", len(arrivals))
	}
	// The burst, and what the rate allows beside it, is over a second after its beginning.
	start := arrivals[0] + int64(time.Second)
	inside := slices.DeleteFunc(slices.Clone(arrivals), func(t int64) bool { return t < start || t >= start+int64(during) })
	s.set("burst", float64(len(arrivals)-len(slices.DeleteFunc(slices.Clone(arrivals), func(t int64) bool { return t < start }))))
	s.set("mean", float64(len(inside))/during.Seconds())
	s.set("of_rate", float64(len(inside))/during.Seconds()/ratePerSecond)
	highest := 0
	for i, first := range inside { // the second that begins with each arrival
		n, _ := slices.BinarySearch(inside, first+int64(time.Second))
		highest = max(highest, n-i)
	}
	s.set("highest", float64(highest))
	return nil
}

// byCustomer fills the table with customers as keys, one row of each in turn.
func byCustomer(events, keys int) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, strings.Replace(insertRows("public.orders", events), "4711", fmt.Sprintf("g %% %d", keys), 1))
		return err
	}
}

const orderByCustomer = "order: {by: [customer]}"

// inOrder returns an error if two events of one customer arrived in the wrong order.
func inOrder(keys int) func(stamps []int64) error {
	return func(stamps []int64) error {
		for seq := keys + 1; seq < len(stamps); seq++ {
			if before := stamps[seq-keys]; stamps[seq] != 0 && stamps[seq] < before {
				return fmt.Errorf("event %d arrived %s before event %d of the same key", seq, time.Duration(before-stamps[seq]), seq-keys)
			}
		}
		return nil
	}
}

// measureOrder drains in order, and without. Values: those of drain, plain (events/s without order),
// of_plain.
func (l *lab) measureOrder(ctx context.Context, b build) (*sample, error) {
	fill := byCustomer(l.sizes.Drain, l.sizes.Keys)
	plain, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: 100, fill: fill})
	if err != nil {
		return nil, err
	}
	s, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: 100, fill: fill, keys: orderByCustomer, arrived: inOrder(l.sizes.Keys)})
	if err != nil {
		return nil, err
	}
	s.set("plain", plain.Values["rate"])
	s.set("of_plain", s.Values["rate"]/plain.Values["rate"])
	return s, nil
}

// measureOrderShared drains in order with one dispatcher and with four, each with 20 slots. Values:
// those of drain with four, one (events/s), times.
func (l *lab) measureOrderShared(ctx context.Context, b build) (*sample, error) {
	const slots, delay = 20, 20 * time.Millisecond
	return l.fourAgainstOne(ctx, func(dispatchers int) drain {
		events := dispatchers * l.sizes.Shared
		return drain{
			build: b, events: events, concurrency: slots, delay: delay, dispatchers: dispatchers, lanes: true,
			fill: byCustomer(events, l.sizes.Keys), keys: orderByCustomer, arrived: inOrder(l.sizes.Keys),
		}
	})
}

// measureHotKey measures the latency of many keys beside one key with many events waiting, and
// alone. Values: p50 and p99, alone_p50 and alone_p99 in milliseconds, ratio_p99.
func (l *lab) measureHotKey(ctx context.Context, b build) (*sample, error) {
	const rate, delay = 100, 5 * time.Millisecond
	s := newSample()
	db, done, err := l.prepare(ctx, &drain{build: b, delay: delay, keys: orderByCustomer})
	if err != nil {
		return nil, err
	}
	defer done()
	n := int(rate * l.sizes.BesideHot.Seconds())
	c, err := l.newCrowd(ctx, db, b, 2*n+2*warmUp, "public.orders")
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	c.w.sql = func(table string) string {
		return strings.Replace(insertRow(table), "($1, 4711", fmt.Sprintf("($1::bigint, 1 + $1::bigint %% %d", l.sizes.Keys), 1)
	}
	for _, part := range []struct {
		prefix string
		hot    int
	}{{"alone_", 0}, {"", l.sizes.Hot}} {
		// The hot key is customer 0. Its rows have numbers that the receiver does not count.
		if part.hot > 0 {
			sql := strings.Replace(insertRows("public.orders", part.hot), "select g, 4711", "select -g, 0", 1)
			if err := db.exec(ctx, sql); err != nil {
				return nil, err
			}
		}
		if _, _, err := c.measure(ctx, rate, warmUp, 0); err != nil {
			return nil, err
		}
		took, _, err := c.measure(ctx, rate, n, 0)
		if err != nil {
			return nil, err
		}
		s.set(part.prefix+"p50", percentile(took, 0.5))
		s.set(part.prefix+"p99", percentile(took, 0.99))
	}
	got, err := l.receiver.Stats(ctx)
	if err != nil {
		return nil, err
	}
	count(s, c.w.written(), got)
	s.set("hot", float64(got.Strange)) // of the hot key, meanwhile
	s.set("ratio_p99", s.Values["p99"]/s.Values["alone_p99"])
	return s, nil
}

// lines counts the lines that dispatchers log.
type lines struct{ n atomic.Int64 }

func (c *lines) Write(b []byte) (int, error) {
	c.n.Add(int64(strings.Count(string(b), "\n")))
	return len(b), nil
}

// measureOutage lets an endpoint answer 503 while many events wait for it, and measures another
// trigger beside it. Values: attempts (a second), log (lines), p50 and p99 of the other trigger and
// alone_p50 and alone_p99 of it before, ratio_p99, back (seconds from the return to full speed),
// rate (events/s at full speed), dead (dead letters).
func (l *lab) measureOutage(ctx context.Context, b build) (*sample, error) {
	const rate = 20
	s := newSample()
	db, err := l.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	defer db.drop()
	for _, table := range []string{"public.orders", "public.others"} {
		if err := db.exec(ctx, createTable(table)); err != nil {
			return nil, err
		}
	}
	if err := db.apply(ctx, b, hook{name: "orders", table: "orders", path: "/gate"}, hook{name: "others", table: "others", path: receiver.Path(0)}); err != nil {
		return nil, err
	}
	logged := &lines{}
	db.log = logged
	before, during := int(rate*l.sizes.LowRate.Seconds()), int(rate*l.sizes.Outage.Seconds())
	others := warmUp + before + during
	if err := l.receiver.Shut(ctx, true); err != nil {
		return nil, err
	}
	defer func() { _ = l.receiver.Shut(context.WithoutCancel(ctx), false) }()
	c, err := l.newCrowd(ctx, db, b, others+l.sizes.Down, "public.others")
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	if _, _, err := c.measure(ctx, rate, warmUp, 0); err != nil {
		return nil, err
	}
	if err := c.outagePart(ctx, s, "alone_", before); err != nil {
		return nil, err
	}
	lines := logged.n.Load()
	sql := strings.Replace(insertRows("public.orders", l.sizes.Down), "select g,", fmt.Sprintf("select g + %d,", others), 1)
	if err := db.exec(ctx, sql); err != nil {
		return nil, err
	}
	if err := db.exec(ctx, "analyze rowhook.event_log; checkpoint"); err != nil {
		return nil, err
	}
	if err := c.awaitRefusals(ctx); err != nil {
		return nil, err
	}
	first, err := l.receiver.Stats(ctx)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := c.outagePart(ctx, s, "", during); err != nil {
		return nil, err
	}
	got, err := l.receiver.Stats(ctx)
	if err != nil {
		return nil, err
	}
	s.set("attempts", float64(got.Refused-first.Refused)/time.Since(start).Seconds())
	s.set("first", float64(first.Refused))
	s.set("log", float64(logged.n.Load()-lines))
	s.set("ratio_p99", s.Values["p99"]/s.Values["alone_p99"])
	return s, c.comeBack(ctx, s, others)
}

// awaitRefusals waits until the endpoint was found to fail: no request comes for a second.
func (c *crowd) awaitRefusals(ctx context.Context) error {
	before := int64(-1)
	for range 60 {
		got, err := c.lab.receiver.Stats(ctx)
		if err != nil {
			return err
		}
		if got.Refused > 0 && got.Refused-before <= 2 {
			return nil
		}
		before = got.Refused
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil // the number of attempts tells
}

func (c *crowd) outagePart(ctx context.Context, s *sample, prefix string, n int) error {
	took, _, err := c.measure(ctx, 20, n, 0)
	if err != nil {
		return err
	}
	s.set(prefix+"p50", percentile(took, 0.5))
	s.set(prefix+"p99", percentile(took, 0.99))
	return nil
}

// comeBack opens the gate, and waits until all has arrived.
func (c *crowd) comeBack(ctx context.Context, s *sample, others int) error {
	opened := time.Now().UnixNano()
	if err := c.lab.receiver.Shut(ctx, false); err != nil {
		return err
	}
	events := others + c.lab.sizes.Down
	got, err := c.lab.receiver.Await(ctx, events, drainLimit+c.lab.sizes.Outage)
	if err != nil {
		return err
	}
	count(s, events, got)
	stamps, err := c.lab.receiver.Stamps(ctx)
	if err != nil {
		return err
	}
	var dead int
	if err := c.db.conn.QueryRow(ctx, "select count(*) from rowhook.dead_letter").Scan(&dead); err != nil {
		return fmt.Errorf("count dead letters: %w", err)
	}
	s.set("dead_letters", float64(dead))
	s.set("memory", 0)
	back, full := fullSpeed(stamps[others+1:], opened)
	s.set("back", back)
	s.set("rate", full)
	return nil
}

// fullSpeed returns after how many seconds arrivals reached four fifths of their median rate, in
// pieces of a fifth of a second, and that rate.
func fullSpeed(stamps []int64, opened int64) (seconds, rate float64) {
	const piece = int64(200 * time.Millisecond)
	var counts []float64
	for _, t := range stamps {
		if t < opened {
			continue
		}
		i := int((t - opened) / piece)
		for len(counts) <= i {
			counts = append(counts, 0)
		}
		counts[i]++
	}
	busy := slices.DeleteFunc(slices.Clone(counts), func(n float64) bool { return n == 0 })
	full := median(busy)
	for i, n := range counts {
		if n >= 0.8*full {
			return float64(int64(i)*piece) / 1e9, full * 1e9 / float64(piece)
		}
	}
	return 0, 0
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// crowd is a database with a dispatcher and with writers whose rows are delivered, to measure
// latencies.
type crowd struct {
	lab        *lab
	db         *database
	dispatcher *process.Process
	w          *writing
}

// warmUp is how many events precede the first measurement. They open the connections.
const warmUp = 40

// newCrowd starts a dispatcher and delivers the first events. capacity is how many rows will be
// written in all.
func (l *lab) newCrowd(ctx context.Context, db *database, b build, capacity int, tables ...string) (*crowd, error) {
	if err := l.receiver.Reset(ctx, capacity); err != nil {
		return nil, err
	}
	c, err := db.dispatch(ctx, b, 100)
	if err != nil {
		return nil, err
	}
	w := newWriting(db.url, 1, capacity, tables...)
	return &crowd{l, db, c, w}, nil
}

// measure writes n rows at a rate. It returns the sorted latencies in milliseconds, without those
// of the first skip rows, and the rate that the writers achieved.
func (c *crowd) measure(ctx context.Context, rate float64, n, skip int) (took []float64, achieved float64, err error) {
	c.w.writers = min(8, 1+int(rate)/100)
	first := int(c.w.next.Load()) + 1
	if err := c.w.paced(ctx, rate, n); err != nil {
		return nil, 0, err
	}
	last := int(c.w.next.Load())
	if _, err := c.lab.receiver.Await(ctx, last, 15*time.Second); err != nil {
		return nil, 0, err
	}
	stamps, err := c.lab.receiver.Stamps(ctx)
	if err != nil {
		return nil, 0, err
	}
	during := time.Duration(c.w.commits[last] - c.w.commits[first])
	return latencies(c.w.commits, stamps, first+skip, last), float64(last-first) / during.Seconds(), nil
}

// finish stops the dispatcher, and records losses, duplicates and costs.
func (c *crowd) finish(ctx context.Context, s *sample, m *meter, events int) error {
	if err := m.pause(ctx); err != nil {
		return err
	}
	got, err := c.lab.receiver.Stats(ctx)
	if err != nil {
		return err
	}
	count(s, c.w.written(), got)
	return m.finish(ctx, s, events)
}

// latency measures p50 and p99 at 20/s and at 500/s. Values: low_p50, low_p99, high_p50, high_p99
// in milliseconds.
func (l *lab) latency(ctx context.Context, b build) (*sample, error) {
	return l.latencyWith(ctx, b, "")
}

// latencyWith measures a trigger with further keys.
func (l *lab) latencyWith(ctx context.Context, b build, keys string) (*sample, error) {
	s := newSample()
	db, done, err := l.prepare(ctx, &drain{build: b, keys: keys})
	if err != nil {
		return nil, err
	}
	defer done()
	low, high := int(20*l.sizes.LowRate.Seconds()), int(500*l.sizes.HighRate.Seconds())
	c, err := l.newCrowd(ctx, db, b, low+high+warmUp, "public.orders")
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	return s, c.lowAndHigh(ctx, s, low, high)
}

// lowAndHigh measures at both rates.
func (c *crowd) lowAndHigh(ctx context.Context, s *sample, low, high int) error {
	if _, _, err := c.measure(ctx, 100, warmUp, 0); err != nil {
		return err
	}
	m, err := c.db.startMeter(ctx, c.dispatcher)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		rate, n int
	}{{"low", 20, low}, {"high", 500, high}} {
		took, _, err := c.measure(ctx, float64(part.rate), part.n, 0)
		if err != nil {
			return err
		}
		s.set(part.name+"_p50", percentile(took, 0.5))
		s.set(part.name+"_p99", percentile(took, 0.99))
	}
	return c.finish(ctx, s, m, low+high)
}

func (l *lab) measureLatency(ctx context.Context, b build) (*sample, error) {
	p50, p99, err := l.notifyFloor(ctx, l.sizes.NotifyLoop, time.Millisecond)
	if err != nil {
		return nil, err
	}
	low, lowP99, err := l.notifyFloor(ctx, int(20*l.sizes.LowRate.Seconds()), time.Second/20)
	if err != nil {
		return nil, err
	}
	high, highP99, err := l.notifyFloor(ctx, int(500*l.sizes.HighRate.Seconds()), time.Second/500)
	if err != nil {
		return nil, err
	}
	s, err := l.latency(ctx, b)
	if err != nil {
		return nil, err
	}
	s.set("notify_low_p50", low)
	s.set("notify_low_p99", lowP99)
	s.set("notify_high_p50", high)
	s.set("notify_high_p99", highP99)
	s.set("low_to_same", s.Values["low_p50"]/low)
	s.set("high_to_same", s.Values["high_p50"]/high)
	s.set("notify_p50", p50)
	s.set("notify_p99", p99)
	s.set("low_to_notify", p50/s.Values["low_p50"])
	s.set("high_to_notify", p50/s.Values["high_p50"])
	return s, nil
}

// measureCurve measures latencies over a range of rates. Series: rates (wanted), achieved, p50,
// p99.
func (l *lab) measureCurve(ctx context.Context, b build) (*sample, error) {
	s := newSample()
	db, done, err := l.prepare(ctx, &drain{build: b})
	if err != nil {
		return nil, err
	}
	defer done()
	total := warmUp
	for _, rate := range l.sizes.CurveRates {
		total += int(float64(rate) * l.sizes.CurvePoint.Seconds())
	}
	c, err := l.newCrowd(ctx, db, b, total, "public.orders")
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	if _, _, err := c.measure(ctx, 100, warmUp, 0); err != nil {
		return nil, err
	}
	m, err := db.startMeter(ctx, c.dispatcher)
	if err != nil {
		return nil, err
	}
	for _, rate := range l.sizes.CurveRates {
		n := int(float64(rate) * l.sizes.CurvePoint.Seconds())
		took, achieved, err := c.measure(ctx, float64(rate), n, n/10) // the first tenth is left out, as the previous rate still affects it
		if err != nil {
			return nil, err
		}
		s.Series["achieved"] = append(s.Series["achieved"], achieved)
		s.Series["rates"] = append(s.Series["rates"], float64(rate))
		s.Series["p50"] = append(s.Series["p50"], percentile(took, 0.5))
		s.Series["p99"] = append(s.Series["p99"], percentile(took, 0.99))
	}
	return s, c.finish(ctx, s, m, total-warmUp)
}

// measureLatencyBesideTrouble measures latencies beside many triggers, one of which is paused and
// one of which hangs, and those of a single trigger. Values: those of latency, alone_ with those of
// the single trigger, and the ratios.
func (l *lab) measureLatencyBesideTrouble(ctx context.Context, b build) (*sample, error) {
	low, high := int(20*l.sizes.LowRate.Seconds()/2), int(500*l.sizes.HighRate.Seconds()/2)
	alone, err := l.shortLatency(ctx, b, low, high)
	if err != nil {
		return nil, err
	}
	db, err := l.manyTriggers(ctx, b)
	if err != nil {
		return nil, err
	}
	s := newSample()
	tables := make([]string, l.sizes.Triggers-2)
	for i := range tables {
		tables[i] = fmt.Sprintf("public.t%d", i+3)
	}
	c, err := l.newCrowd(ctx, db, b, low+high+warmUp+2*len(tables), tables...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	if _, _, err := c.measure(ctx, 800, 2*len(tables), 0); err != nil { // so that the sessions have loaded each table's trigger
		return nil, err
	}
	if err := c.lowAndHigh(ctx, s, low, high); err != nil {
		return nil, err
	}
	got, err := l.receiver.Stats(ctx)
	if err != nil {
		return nil, err
	}
	s.set("hung", float64(got.Hung))
	for _, name := range []string{"low_p50", "low_p99", "high_p50", "high_p99"} {
		s.set("alone_"+name, alone.Values[name])
		s.set("ratio_"+name, s.Values[name]/alone.Values[name])
		s.set("inverse_"+name, alone.Values[name]/s.Values[name])
	}
	return s, nil
}

func (l *lab) shortLatency(ctx context.Context, b build, low, high int) (*sample, error) {
	s := newSample()
	db, done, err := l.prepare(ctx, &drain{build: b})
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := l.newCrowd(ctx, db, b, low+high+warmUp, "public.orders")
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.dispatcher.Stop(stopPatience) }()
	return s, c.lowAndHigh(ctx, s, low, high)
}

// manyTriggers makes the database of G, once for each build: tables t1, t2, ..., each with a
// trigger. The trigger of t1 is paused, the receiver of t2 hangs, and both have events waiting.
func (l *lab) manyTriggers(ctx context.Context, b build) (*database, error) {
	if db := l.kept["G"+b.name]; db != nil {
		// The rows of the last repetition have the same ids as those of this one.
		return db, db.exec(ctx, fmt.Sprintf("do $$ begin for i in 3..%d loop execute format('truncate public.t%%s', i); end loop; end $$", l.sizes.Triggers))
	}
	db, err := l.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	l.kept["G"+b.name] = db
	hooks := make([]hook, l.sizes.Triggers)
	for i := range hooks {
		table := fmt.Sprintf("t%d", i+1)
		if err := db.exec(ctx, createTable("public."+table)); err != nil {
			return nil, err
		}
		hooks[i] = hook{name: "on_" + table, table: table, path: "/"}
	}
	hooks[1].path = "/hang"
	if err := db.apply(ctx, b, hooks...); err != nil {
		return nil, err
	}
	l.logf("G: %d events for the paused trigger, %d for the one that hangs", l.sizes.Paused, l.sizes.Hanging)
	for _, sql := range []string{
		insertRows("public.t1", l.sizes.Paused),
		insertRows("public.t2", l.sizes.Hanging),
		"update rowhook.trigger set paused = true where name = 'on_t1'",
		"vacuum analyze rowhook.event_log", "checkpoint",
	} {
		if err := db.exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	return db, nil
}

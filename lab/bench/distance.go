package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// distances are the round trips between a dispatcher and its database in the scenario distance.
var distances = []struct {
	name string // of its values
	trip time.Duration
}{{"near", 0}, {"mid", time.Millisecond}, {"far", 5 * time.Millisecond}}

// measureDistance measures latencies and a drain while the dispatcher's database is far away. The
// writers are beside the database. Values, each behind the name of a distance: those of latency, and
// rate.
func (l *lab) measureDistance(ctx context.Context, b build) (*sample, error) {
	s := newSample()
	defer func() { l.trip = 0 }()
	for _, d := range distances {
		l.trip = d.trip
		latency, err := l.latency(ctx, b)
		if err != nil {
			return nil, err
		}
		for _, name := range []string{"low_p50", "low_p99", "high_p50", "high_p99"} {
			s.set(d.name+"_"+name, latency.Values[name])
		}
		drained, err := l.drain(ctx, drain{build: b, events: l.sizes.SlowDrain, concurrency: 100})
		if err != nil {
			return nil, err
		}
		s.set(d.name+"_rate", drained.Values["rate"])
		for _, name := range []string{"lost", "duplicates"} {
			s.set(name, s.Values[name]+latency.Values[name]+drained.Values[name])
		}
	}
	return s, nil
}

// wayTo returns the URL by which a dispatcher reaches a database, with the delay of the scenario.
func (l *lab) wayTo(ctx context.Context, database string) (string, error) {
	if l.trip == 0 {
		return database, nil
	}
	u, err := url.Parse(database)
	if err != nil {
		return "", fmt.Errorf("read the database's URL: %w", err)
	}
	r, err := startRelay(ctx, u.Host, l.trip/2)
	if err != nil {
		return "", err
	}
	l.relays = append(l.relays, r)
	u.Host = r.listener.Addr().String()
	return u.String(), nil
}

// relay passes connections on, and each byte later than it came. It does not limit how much is on
// its way, so that a delay costs round trips and nothing else.
type relay struct {
	listener net.Listener
	target   string
	delay    time.Duration // in each direction
	end      context.CancelFunc
	working  sync.WaitGroup
}

func startRelay(ctx context.Context, target string, delay time.Duration) (*relay, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the delay: %w", err)
	}
	r := &relay{listener: l, target: target, delay: delay}
	ctx, r.end = context.WithCancel(ctx)
	r.working.Go(func() {
		for {
			client, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				r.working.Go(func() { r.serve(ctx, client) })
			}
		}
	})
	return r, nil
}

func (r *relay) close() {
	r.end()
	_ = r.listener.Close()
	r.working.Wait()
}

func (r *relay) serve(ctx context.Context, client net.Conn) {
	server, err := new(net.Dialer).DialContext(ctx, "tcp", r.target)
	if err != nil {
		_ = client.Close()
		return
	}
	closeBoth := func() {
		_ = client.Close()
		_ = server.Close()
	}
	defer context.AfterFunc(ctx, closeBoth)()
	defer closeBoth()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			r.pass(way[0], way[1])
			closeBoth()
		})
	}
	both.Wait()
}

// piece is what was read at once, and when it may be written.
type piece struct {
	at    time.Time
	bytes []byte
}

// pass moves the bytes of one direction until it ends.
func (r *relay) pass(from, to net.Conn) {
	pieces := make(chan piece, 4096)
	var writing sync.WaitGroup
	writing.Go(func() {
		for p := range pieces {
			if wait := time.Until(p.at); wait > 0 {
				nap(wait)
			}
			if _, err := to.Write(p.bytes); err != nil {
				_ = from.Close() // the reader ends
			}
		}
	})
	for {
		buffer := make([]byte, 32<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			pieces <- piece{time.Now().Add(r.delay), buffer[:n]}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writing.Wait()
}

// distanceMeasures are the lines of the scenario distance.
func distanceMeasures() []measure {
	var all []measure
	for _, d := range distances {
		at := fmt.Sprintf("%d ms away, ", d.trip.Milliseconds())
		for _, m := range []measure{{value: "low_p50", title: "20/s, p50"}, {value: "low_p99", title: "20/s, p99"}, {value: "high_p50", title: "500/s, p50"}, {value: "high_p99", title: "500/s, p99"}} {
			all = append(all, measure{scenario: "distance", value: d.name + "_" + m.value, title: at + m.title, unit: "ms", digits: 2})
		}
		all = append(all, measure{scenario: "distance", value: d.name + "_rate", title: at + "drained and recorded", unit: "/s"})
	}
	return all
}

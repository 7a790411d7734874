package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowhook/rowhook/lab/internal/natsserver"
)

// streamName is the stream into which events drain.
const streamName = "ORDERS"

// measureStream drains the same events into the receiver and into a stream of NATS JetStream, whose server
// is a process of its own, with 100 attempts and with 1,000. Values: those of drain into the stream with 100;
// and for each number rate100 (events/s into the stream), webhook100, times100, cpu100 (CPU seconds of
// dispatcher, Postgres and receiver or server, for 1,000 events) and webhook_cpu100, with what each has of it:
// cpu100_dispatcher, cpu100_postgres, cpu100_receiver.
func (l *lab) measureStream(ctx context.Context, b build) (*sample, error) {
	var first *sample
	for _, attempts := range []int{100, 1000} {
		webhook, err := l.drain(ctx, drain{build: b, events: l.sizes.Drain, concurrency: attempts})
		if err != nil {
			return nil, err
		}
		s, err := l.drainIntoStream(ctx, b, l.sizes.Drain, attempts)
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = s
		}
		n := strconv.Itoa(attempts)
		first.set("rate"+n, s.Values["rate"])
		first.set("webhook"+n, webhook.Values["rate"])
		first.set("times"+n, s.Values["rate"]/webhook.Values["rate"])
		first.setShares("cpu"+n, s)
		first.setShares("webhook_cpu"+n, webhook)
		first.set("lost", max(first.Values["lost"], s.Values["lost"], webhook.Values["lost"]))
	}
	return first, nil
}

// setShares sets a value to the CPU time of all for an event, and name_dispatcher, name_postgres and name_receiver
// to what each had of it.
func (s *sample) setShares(name string, of *sample) {
	all := 0.0
	for _, who := range []string{"dispatcher", "postgres", "receiver"} {
		s.set(name+"_"+who, of.Values["cpu_"+who])
		all += of.Values["cpu_"+who]
	}
	s.set(name, all)
}

// drainIntoStream measures one drain. Values: rate (events/s until all were settled), lost, duplicates, and
// the costs.
func (l *lab) drainIntoStream(ctx context.Context, b build, events, attempts int) (*sample, error) {
	dir, err := os.MkdirTemp(l.dir, "streams-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	server, err := natsserver.New(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	err = server.Use(func(js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: streamName, Subjects: []string{"orders.*"}})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the stream: %w", err)
	}
	db, err := l.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	defer db.drop()
	db.receiverPID = server.PID()
	if err := db.exec(ctx, createTable("public.orders")); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "rowhook.yaml")
	text := fmt.Sprintf("triggers:\n  - {name: orders, table: public.orders, on: {insert: true}, nats: {url: \"nats://%s\", subject: orders.$new.seq, stream: %s}}\n", server.Address, streamName)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	if err := db.rowhook(ctx, b, "apply", "-f", file); err != nil {
		return nil, fmt.Errorf("%w\nscripts/bench builds a program that can publish if --only names stream", err)
	}
	if err := db.exec(ctx, "checkpoint"); err != nil {
		return nil, err
	}
	dispatchers, stop, err := db.dispatchAll(ctx, b, 1, attempts)
	if err != nil {
		return nil, err
	}
	defer stop()
	m, start, err := db.fill(ctx, orders(events), dispatchers...)
	if err != nil {
		return nil, err
	}
	settled, err := db.settled(ctx, drainLimit)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, dispatchers[0].Log())
	}
	if err := m.pause(ctx); err != nil {
		return nil, err
	}
	s := newSample()
	s.set("rate", float64(events)/settled.Sub(start).Seconds())
	if err := countStored(ctx, s, server, events); err != nil {
		return nil, err
	}
	return s, m.finish(ctx, s, events)
}

// countStored records losses and duplicates. Each event has a subject of its own.
func countStored(ctx context.Context, s *sample, server *natsserver.Server, events int) error {
	err := server.Use(func(js jetstream.JetStream) error {
		stream, err := js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		state := stream.CachedInfo().State
		s.set("lost", float64(events)-float64(state.NumSubjects))
		s.set("duplicates", float64(state.Msgs)-float64(state.NumSubjects))
		return nil
	})
	if err != nil {
		return fmt.Errorf("look at the stream: %w", err)
	}
	return nil
}

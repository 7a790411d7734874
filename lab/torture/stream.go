package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowhook/rowhook/lab/internal/natsserver"
)

// publishing is the source with a trigger that publishes to the stream.
const publishing = 0

const (
	streamName = "EVENTS"
	headerSlot = "X-Slot" // the dispatcher that has published a message
	// window is longer than a run, so the stream drops every message that is published again.
	window = 12 * time.Hour
)

// broker is the server of NATS with the stream.
type broker struct {
	*natsserver.Server

	mu sync.Mutex // held by the fault that changes it
}

// newBroker starts a server, and makes the stream.
func newBroker(ctx context.Context, under string) (*broker, error) {
	s, err := natsserver.New(ctx, filepath.Join(under, "streams"))
	if err != nil {
		return nil, err
	}
	err = s.Use(func(js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, streamConfig())
		return err
	})
	if err != nil {
		s.Kill()
		return nil, fmt.Errorf("make the stream: %w", err)
	}
	return &broker{Server: s}, nil
}

func streamConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{Name: streamName, Subjects: []string{"events.>"}, Duplicates: window, Storage: jetstream.FileStorage}
}

// restart kills the server, and starts it again after a while.
func (b *broker) restart(ctx context.Context, after time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Kill()
	wait(ctx, after)
	return b.Start(context.WithoutCancel(ctx))
}

// full has the stream refuse messages for a while.
func (b *broker) full(ctx context.Context, length time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Use(func(js jetstream.JetStream) error {
		config := streamConfig()
		config.MaxMsgs, config.Discard = 1, jetstream.DiscardNew // it keeps those that it has
		_, err := js.UpdateStream(ctx, config)
		wait(ctx, length)
		_, back := js.UpdateStream(context.WithoutCancel(ctx), streamConfig())
		return errors.Join(err, back)
	})
}

// message is one that the stream has stored.
type message struct {
	id      string // by which the stream drops those that it has
	place   uint64 // in the stream
	at      time.Time
	slot    string // the headers
	attempt string
	body    []byte
}

// messages reads the stream from its beginning to its end.
func (b *broker) messages(ctx context.Context) (all []message, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err = b.Use(func(js jetstream.JetStream) error {
		s, err := js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		stored := s.CachedInfo().State.Msgs
		if stored == 0 {
			return nil
		}
		c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
		if err != nil {
			return err
		}
		in, err := c.Messages()
		if err != nil {
			return err
		}
		defer in.Stop()
		for uint64(len(all)) < stored {
			m, err := in.Next(jetstream.NextContext(ctx))
			if err != nil {
				return err
			}
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			h := m.Headers()
			all = append(all, message{
				id: h.Get(jetstream.MsgIDHeader), place: meta.Sequence.Stream, at: meta.Timestamp, slot: h.Get(headerSlot), attempt: h.Get("Rowhook-Attempt"), body: m.Data(),
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the stream: %w", err)
	}
	return all, nil
}

// takeMessages makes what the stream has stored part of the evidence. A message that it has stored is an
// attempt that was accepted. It has stored each event once, whatever was published how often.
func (e *evidence) takeMessages(all []message, source string) {
	e.stored = map[uuid.UUID]uint64{}
	for _, m := range all {
		id, s, number, from, err := readEvent(m.body)
		slot, noSlot := strconv.Atoi(m.slot)
		switch {
		case err != nil:
			e.wrong = append(e.wrong, fmt.Sprintf("message %d, event %s: %v", m.place, id, err))
		case s.trigger != streamed:
			e.wrong = append(e.wrong, fmt.Sprintf("message %d, event %s is of the trigger %s", m.place, id, s.trigger))
		case noSlot != nil || m.attempt != strconv.Itoa(number):
			e.wrong = append(e.wrong, fmt.Sprintf("message %d, event %s, attempt %d has the headers %q and %q", m.place, id, number, m.slot, m.attempt))
		}
		if from != source {
			e.alien = append(e.alien, fmt.Sprintf("message %d, event %s of %q is in the stream of %q", m.place, id, from, source))
		}
		if m.id != id.String() {
			e.unnamed = append(e.unnamed, fmt.Sprintf("message %d, event %s has the id %q", m.place, id, m.id))
		}
		if first, twice := e.stored[id]; twice {
			e.doubled = append(e.doubled, fmt.Sprintf("event %s: messages %d and %d", id, first, m.place))
			continue
		}
		e.stored[id] = m.place
		s.attempts = []attempt{{op: s.op, old: s.old, slot: slot, number: number, with: 1, arrived: m.at, answered: m.at, status: 200, outcome: delivered}}
		e.seen[id] = &s
	}
}

// misplaced checks that the stream has the events of a key in their order. No fault explains the contrary:
// what comes late is dropped.
func (j *judging) misplaced(events []*place) {
	if events[0].Trigger != streamed {
		return
	}
	in := slices.DeleteFunc(slices.Clone(events), func(p *place) bool { return j.stored[p.Event] == 0 })
	if !slices.IsSortedFunc(in, func(a, b *place) int { return cmp.Compare(j.stored[a.Event], j.stored[b.Event]) }) {
		text := ""
		for _, p := range in {
			text += fmt.Sprintf("; event %s with the number %d is message %d: %s", p.Event, p.Seq, j.stored[p.Event], j.seen[p.Event])
		}
		j.blame(ruleMisplaced, "row %d%s", in[0].ID, text)
	}
}

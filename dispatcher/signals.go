package dispatcher

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

// signals is what the other loops tell the claimer.
type signals struct {
	mu sync.Mutex
	heard
}

// heard is what a claimer has not yet looked at.
type heard struct {
	rings  int              // notifications
	lost   bool             // the session that listens broke, or was opened anew
	listen bool             // there is one
	reload bool             // the configuration changed, or a trigger is unknown
	watch  *sqlschema.Watch // latest
}

// take returns what there was and forgets it.
func (s *signals) take() heard {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.heard
	s.heard = heard{listen: t.listen}
	return t
}

func (s *signals) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost, s.listen = true, false
}

// notified is called for every notification, on the listener's goroutine.
func (d *Dispatcher) notified(payload string) {
	if payload == sqlschema.HelpPayload {
		d.board.markAll(false)
		return
	}
	id, err := strconv.ParseInt(payload, 10, 32)
	known := err == nil && d.board.mark(int32(id))
	d.signals.mu.Lock()
	d.signals.rings++
	if !known {
		d.signals.reload = true // "config", or a trigger that was applied since
	}
	d.signals.mu.Unlock()
	if !known {
		d.board.wake()
	}
}

// listening is called when a session begins to listen: whatever happened before went unheard.
func (d *Dispatcher) listening() {
	d.signals.mu.Lock()
	d.signals.lost, d.signals.listen, d.signals.reload = true, true, true
	d.signals.mu.Unlock()
	d.board.markAll(true)
	d.readyOnce.Do(func() {
		d.log.Info("ready", "instance", d.id, "triggers", len(d.board.ids()), "concurrency", d.cfg.Concurrency, "poll", d.cfg.PollInterval)
		close(d.ready)
	})
}

func (d *Dispatcher) askReload() {
	d.signals.mu.Lock()
	d.signals.reload = true
	d.signals.mu.Unlock()
	d.board.wake()
}

// configState is the configuration in force.
type configState struct {
	mu         sync.Mutex
	generation int64
	settings   sqlschema.Settings
}

func (c *configState) get() (int64, sqlschema.Settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation, c.settings
}

// reload reads the configuration and hands it to the board.
func (d *Dispatcher) reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cfg, err := sqlschema.Load(ctx, d.writes)
	if err != nil {
		return err
	}
	before, _ := d.config.get()
	d.config.mu.Lock()
	d.config.generation, d.config.settings = cfg.Generation, cfg.Settings
	d.config.mu.Unlock()
	names := map[string]string{}
	unsent := d.board.configure(cfg.Triggers, func(w sqlschema.Webhook) *webhook.Endpoint {
		ep, err := webhook.NewEndpoint(w, d.cfg.Lookup)
		if err != nil {
			names[w.URL] = err.Error()
		}
		return ep
	})
	for url, problem := range names {
		d.log.Error("a webhook can't be called", "url", url, "error", problem)
	}
	if before != 0 && before != cfg.Generation {
		d.log.Info("configuration loaded", "triggers", len(cfg.Triggers), "generation", cfg.Generation)
	}
	d.giveBack(unsent)
	return nil
}

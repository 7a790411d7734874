package dispatcher

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/netrule"
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

// lost is called when the session that listened has ended.
func (d *Dispatcher) lost() {
	d.signals.lose()
	d.pulse.poke() // the others must not wait for the lock of a session that is gone
	d.tell.listening(false)
}

// notified is called for every notification, on the listener's goroutine.
func (d *Dispatcher) notified(payload string) {
	d.tell.rang()
	switch payload {
	case sqlschema.HelpPayload:
		d.board.markAll(false)
		return
	case sqlschema.StoppedPayload:
		d.inherit()
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

// inherit looks after what an instance that is gone would have: what it gave back, when its retries are due, and writers
// that are silent on its account.
func (d *Dispatcher) inherit() {
	d.signals.mu.Lock()
	d.signals.lost = true
	d.signals.mu.Unlock()
	d.board.refire(d.board.ids())
	d.board.markAll(true)
}

// listening is called when a session begins to listen: whatever happened before went unheard.
func (d *Dispatcher) listening() {
	d.signals.mu.Lock()
	d.signals.lost, d.signals.listen, d.signals.reload = true, true, true
	d.signals.mu.Unlock()
	d.pulse.poke()
	d.board.markAll(true)
	d.tell.listening(true)
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
	warnings   map[string]string // of endpoints, by trigger; the one who reloads owns it
}

func (c *configState) get() (int64, sqlschema.Settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation, c.settings
}

// guardOf is the guard of the flags with what was applied added.
func (d *Dispatcher) guardOf(n sqlschema.Network) (webhook.Guard, error) {
	deny, err := netrule.ParseAll(n.Deny)
	if err != nil {
		return webhook.Guard{}, fmt.Errorf("read rowhook.setting network: deny: %w", err)
	}
	allow, err := netrule.ParseAll(n.Allow)
	if err != nil {
		return webhook.Guard{}, fmt.Errorf("read rowhook.setting network: allow: %w", err)
	}
	return d.cfg.Guard.With(webhook.Guard{Deny: deny, Allow: allow}), nil
}

// reload reads the configuration and hands it to the board.
func (d *Dispatcher) reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cfg, err := sqlschema.Load(ctx, d.writes)
	if err != nil {
		return err
	}
	guard, err := d.guardOf(cfg.Settings.Network)
	if err != nil {
		return err
	}
	d.client.SetGuard(guard)
	generation, _ := d.config.get()
	d.config.mu.Lock()
	d.config.generation, d.config.settings = cfg.Generation, cfg.Settings
	d.config.mu.Unlock()
	before, able, warnings := d.board.unable(), map[string]bool{}, map[string]string{}
	unsent := d.board.configure(cfg.Triggers, func(s sqlschema.Spec) (*webhook.Endpoint, error) {
		ep, err := webhook.NewEndpoint(s.Webhook, d.cfg.Lookup)
		if err == nil {
			err = d.client.Prepare(ep)
		}
		able[s.Name] = err == nil
		warnings[s.Name] = ep.Warning()
		return ep, err
	})
	d.tellUnable(before, able)
	for trigger, warning := range warnings {
		if warning != "" && warning != d.config.warnings[trigger] { // not said already
			d.log.Warn("a trigger's webhook is probably not as it should be", "trigger", trigger, "problem", warning)
		}
	}
	d.config.warnings = warnings
	d.tell.configured(cfg.Triggers)
	if generation != 0 && generation != cfg.Generation {
		d.log.Info("configuration loaded", "triggers", len(cfg.Triggers), "generation", cfg.Generation)
	}
	d.giveBack(unsent)
	if generation != cfg.Generation { // anyone may notify
		d.lookAgain()
	}
	return nil
}

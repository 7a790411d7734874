package dispatcher

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

// configuration is the configuration in force.
type configuration struct {
	mu         sync.Mutex
	generation int64
	settings   sqlschema.Settings
	warnings   map[string]string // of endpoints, by trigger; the one who reloads owns it
}

func (c *configuration) get() (int64, sqlschema.Settings) {
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

// reload reads the configuration and hands it to the scheduler.
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
	generation, _ := d.configuration.get()
	d.configuration.mu.Lock()
	d.configuration.generation, d.configuration.settings = cfg.Generation, cfg.Settings
	d.configuration.mu.Unlock()
	before, able, warnings := d.scheduler.unable(), map[string]bool{}, map[string]string{}
	unsent := d.scheduler.configure(cfg.Triggers, func(s sqlschema.Spec) (*webhook.Endpoint, error) {
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
		if warning != "" && warning != d.configuration.warnings[trigger] { // not said already
			d.log.Warn("a trigger's webhook is probably not as it should be", "trigger", trigger, "problem", warning)
		}
	}
	d.configuration.warnings = warnings
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

package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// configuration is what is in force of the configuration. The loader writes it; the settler, the
// peers and the maintenance read it.
type configuration struct {
	mu         sync.Mutex
	generation int64
	settings   trigger.Settings
	own        map[int32]trigger.Retention // of the triggers that have one; never changed
}

// get returns the generation, 0 before the first load, and the settings.
func (c *configuration) get() (int64, trigger.Settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation, c.settings
}

// retention returns how long history is kept, and of which triggers it is another time.
func (c *configuration) retention() (general trigger.Retention, own map[int32]trigger.Retention) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settings.Retention, c.own
}

// replace puts another one in force, and returns the generation of the one before.
func (c *configuration) replace(cfg *queue.Configuration) (before int64) {
	var own map[int32]trigger.Retention
	for i := range cfg.Triggers {
		if t := &cfg.Triggers[i]; !t.Spec.Retention.IsZero() {
			if own == nil {
				own = map[int32]trigger.Retention{}
			}
			own[t.ID] = t.Spec.Retention.Of(cfg.Settings.Retention)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before = c.generation
	c.generation, c.settings, c.own = cfg.Generation, cfg.Settings, own
	return before
}

// loader loads the configuration. It is used by start, and then by the claimer alone.
type loader struct {
	db            *database
	guard         webhook.Guard // of the flags
	references    *references
	destinations  destinations
	configuration *configuration
	scheduler     *scheduler
	settler       *settler
	unable        *unableTriggers
	captures      *captures
	tell          *observers
	log           *slog.Logger

	warnings map[string]string   // of endpoints that were logged, by trigger
	loaded   queue.Configuration // the last one
}

// guardOf is the guard of the flags with what was applied added.
func (l *loader) guardOf(n trigger.Network) (webhook.Guard, error) {
	deny, err := netrule.ParseAll(n.Deny)
	if err != nil {
		return webhook.Guard{}, fmt.Errorf("read rowhook.setting network: deny: %w", err)
	}
	allow, err := netrule.ParseAll(n.Allow)
	if err != nil {
		return webhook.Guard{}, fmt.Errorf("read rowhook.setting network: allow: %w", err)
	}
	return l.guard.With(webhook.Guard{Deny: deny, Allow: allow}), nil
}

// load reads the configuration and hands it to the scheduler.
func (l *loader) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	// A newer program may have applied what this one would misread.
	if err := l.db.recheck(ctx); err != nil {
		return err
	}
	cfg, err := queue.Load(ctx, l.db.writes)
	if err != nil {
		return err
	}
	guard, err := l.guardOf(cfg.Settings.Network)
	if err != nil {
		return err
	}
	l.destinations.setGuard(guard)
	generation := l.configuration.replace(&cfg)
	before, able, warnings := l.scheduler.unable(), map[string]bool{}, map[string]string{}
	made := l.endpoints(cfg.Triggers)
	unsent := l.scheduler.configure(cfg.Triggers, func(s trigger.Spec) (Endpoint, error) {
		m := made[s.Name]
		able[s.Name] = m.problem == nil
		warnings[s.Name] = m.endpoint.Warning()
		return m.endpoint, m.problem
	})
	l.unable.tell(before, able)
	for trigger, warning := range warnings {
		if warning != "" && warning != l.warnings[trigger] { // not said already
			l.log.Warn("a trigger's webhook is probably misconfigured", "trigger", trigger, "problem", warning)
		}
	}
	l.warnings = warnings
	l.tell.configured(cfg.Triggers)
	canceled := l.scheduler.takeCancellations()
	for _, c := range canceled {
		l.log.Info("attempts in flight were canceled", "trigger", c.trigger, "by", c.by, "attempts", c.attempts)
	}
	changed := len(canceled) == 0 || !l.loaded.Same(&cfg)
	l.loaded = cfg
	if generation != 0 && generation != cfg.Generation && changed {
		l.log.Info("configuration loaded", "triggers", len(cfg.Triggers), "generation", cfg.Generation)
	}
	l.settler.giveBack(unsent)
	if generation != cfg.Generation { // not at each load: any role may ask for one by NOTIFY
		l.captures.lookAgain()
	}
	return nil
}

// endpoint is that of a trigger, and why this instance can't call it.
type endpoint struct {
	endpoint Endpoint
	problem  error
}

// endpoints makes the endpoints of triggers, by their names. It reads files, so it is not done while
// others wait for the scheduler.
func (l *loader) endpoints(triggers []queue.Trigger) map[string]endpoint {
	source, done := l.references.gather()
	defer done()
	made := make(map[string]endpoint, len(triggers))
	for i := range triggers {
		spec := &triggers[i].Spec
		ep, err := l.destinations.endpoint(spec, source)
		made[spec.Name] = endpoint{ep, err}
	}
	return made
}

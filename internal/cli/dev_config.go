package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// devConfig returns the configuration of -f, or that of the sample.
func (a *app) devConfig(o devOptions) (*config.Config, error) {
	if o.file != "" {
		lookup := a.lookup
		if o.toSink { // the built-in receiver needs no variables, and takes what would be published, too
			return a.loadAny(o.file, nil, o.giving, false)
		}
		return a.loadConfig(o.file, lookup, o.giving, true)
	}
	if _, err := os.Stat(defaultFile); err == nil && !o.once {
		a.log.Info("using the sample table; to use the configuration in this directory, add -f " + defaultFile)
	}
	if len(o.command) > 0 {
		a.log.Warn("there is no rowhook.yaml in this directory, so the sample table orders is used; name a configuration with -f")
	}
	return config.Parse("the sample", []byte(`
triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true, update: true, delete: true}
    webhook: {url: "http://127.0.0.1/orders", timeout: 10s}
`))
}

// source is that of the dispatcher.
func (r *devRun) source(name string) (string, error) {
	receiver := "http://127.0.0.1" // before the receiver has a port
	if r.receiver != nil {
		receiver = r.receiver.url
	}
	switch {
	case name == sandbox.NATSURLVariable && r.natsServer != nil:
		return r.natsServer.URL(), nil
	case name == sandbox.NATSURLVariable && r.nats:
		return "nats://127.0.0.1", nil // before the server has a port
	case name == sandbox.SinkSecretVariable && r.nats:
		return r.secret, nil
	case r.toSink:
		return sandbox.Variables(receiver, r.secret, r.store.Get)(name)
	case name == sandbox.SinkURLVariable:
		return receiver, nil
	}
	return r.store.Get(name)
}

// devTriggers are the triggers that dev works with, and what it knows of them.
type devTriggers struct {
	cfg     *config.Config    // pointed at the receiver, if deliveries go there
	forward map[string]string // URLs by trigger
	secrets map[string]string // by trigger
	madeUp  []string          // variables that are a trigger's secret, and are not set
	unset   []string          // variables for which a placeholder is sent
	alerts  int               // entries of alerts that are left out
}

// point points the triggers of a configuration at the receiver, if deliveries go there.
func (r *devRun) point(cfg *config.Config) (*devTriggers, error) {
	forward, err := r.forward.targets(cfg.Triggers, r.store.Get)
	if err != nil {
		return nil, err
	}
	pointed := *cfg
	t := &devTriggers{cfg: &pointed, forward: forward}
	if r.toSink {
		t.alerts = len(cfg.Settings.Alerts)
		t.madeUp = unsetSecrets(cfg.Triggers, r.store.Get)
		pointed.Triggers, pointed.Settings = sandbox.Point(cfg.Triggers, r.store.Get), sandbox.Reachable(cfg.Settings)
		t.unset = sandbox.Unset(pointed.Triggers, r.store.Get)
	}
	if r.nats {
		pointed.Triggers = r.pointNATS(cfg.Triggers, pointed.Triggers)
		pointed.Settings.Network = trigger.Network{Deny: []string{}, Allow: []string{}}
	}
	t.secrets = sandbox.Secrets(pointed.Triggers, r.source)
	return t, r.checkWebhooks(&pointed)
}

// checkWebhooks returns an error if no request can be made for a trigger. Nothing would ever arrive
// then, and whoever waits for it, such as a test suite, would wait in vain. Whoever watches by
// default what the configured URLs answer sees that some can't be called, and the others go on.
func (r *devRun) checkWebhooks(cfg *config.Config) error {
	if !r.toSink && !r.sinkChosen {
		return nil
	}
	client := webhook.NewClient(webhook.ClientConfig{})
	defer client.Close()
	remedy := ""
	if !r.toSink {
		remedy = "; correct it, or leave out --sink=false to send to the built-in receiver"
	}
	var problems []config.Problem
	for i := range cfg.Triggers {
		if err := callable(client, &cfg.Triggers[i], r.source); err != nil {
			problems = append(problems, cfg.Problem(i, "can't be called"+r.givenTo(cfg.Triggers[i])+": "+err.Error()+remedy, cfg.Triggers[i].Kind()))
		}
	}
	return config.ErrorOf(problems...)
}

// callable returns why nothing can be sent for a trigger, or nil.
func callable(client *webhook.Client, spec *trigger.Spec, source trigger.Source) error {
	if spec.Kind() == trigger.KindNATS {
		m, err := webhook.NewMessage(&spec.NATS, source, 0)
		if err == nil {
			err = m.Prepare()
		}
		return err
	}
	endpoint, err := webhook.NewEndpointFrom(spec.Webhook, source)
	if err == nil {
		err = client.Prepare(endpoint)
	}
	return err
}

// givenTo names the variables that a trigger refers to and that are set, or returns "".
func (r *devRun) givenTo(spec trigger.Spec) string {
	variables, _ := config.References(spec)
	given := slices.DeleteFunc(variables, func(name string) bool {
		_, err := r.store.Get(name)
		return err != nil
	})
	if len(given) == 0 {
		return ""
	}
	return " with the values of " + strings.Join(given, ", ") + " here"
}

// secretInUse returns the secret that was made up, or "" if no trigger signs with it.
func (r *devRun) secretInUse() string {
	if sandbox.SignsMadeUp(r.triggers()) {
		return r.secret
	}
	return ""
}

// take has the receiver work with the triggers, and returns those before.
func (r *devRun) take(t *devTriggers) (before *devTriggers) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, r.taken = r.taken, t
	return before
}

func (r *devRun) current() *devTriggers {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken
}

func (r *devRun) triggers() []trigger.Spec { return r.current().cfg.Triggers }

// mask returns what a trigger masks; what can't be understood is masked whole.
func (r *devRun) mask(trigger string) *mask.Mask {
	for _, t := range r.triggers() {
		if t.Name != trigger {
			continue
		}
		m, err := mask.New(t.Payload.Mask)
		if err != nil {
			return mask.All()
		}
		return m
	}
	return nil
}

// target returns where the receiver sends a trigger's deliveries on; "": nowhere.
func (r *devRun) target(trigger string) string { return r.current().forward[trigger] }

// secretOf returns the secret of a trigger; "": it does not sign, or the secret is not known here.
func (r *devRun) secretOf(trigger string) string { return r.current().secrets[trigger] }

// apply applies a configuration whose triggers are pointed.
func (r *devRun) apply(ctx context.Context, conn *pgx.Conn, cfg *config.Config) error {
	if err := r.prepareStreams(ctx, cfg.Triggers); err != nil {
		return err
	}
	_, err := r.applyConfig(ctx, conn, cfg)
	var missing *config.Error
	if errors.As(err, &missing) && len(r.init)+len(r.migrations) == 0 && r.file != "" {
		return fmt.Errorf("%w\nThe private Postgres starts empty: name the SQL file that creates your tables with --init, or a command that does with --migrate", err)
	}
	return err
}

// applyAgain applies a changed configuration. After an error, what was applied before goes on.
func (r *devRun) applyAgain(ctx context.Context, cfg *config.Config) error {
	pointed, err := r.point(cfg)
	if err != nil {
		return err
	}
	conn, err := session.Open(ctx, r.server.URL(devDatabaseName))
	if err != nil {
		return explain(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	before := r.take(pointed) // first: an event may be sent as soon as the apply has committed
	if err := r.apply(ctx, conn, pointed.cfg); err != nil {
		r.take(before)
		return err
	}
	r.tellApplied()
	line, err := r.readyNow().line()
	if err != nil {
		return err
	}
	return r.ready.write(line)
}

package cli

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/sqlschema"
)

func (a *app) runCommand() *cobra.Command {
	var file string
	web := serving{address: defaultHTTP}
	wait := defaultConnectTimeout
	cfg := dispatcher.Config{
		PollInterval: dispatcher.DefaultPollInterval, BatchSize: dispatcher.DefaultBatchSize, Concurrency: dispatcher.DefaultConcurrency,
		GracePeriod: dispatcher.DefaultGracePeriod, PayloadMemory: dispatcher.DefaultPayloadMemory, MaxBody: dispatcher.DefaultMaxBody,
	}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Deliver events until stopped",
		Long: `Deliver events until stopped. With -f the configuration is applied first, as by rowhook apply.

Several may run on one database: they share the work, and take over from each other when one dies. SIGINT or SIGTERM
stops gracefully: nothing new is claimed, what is in flight may finish within the grace period, the rest is given back.
A second signal stops at once; nothing is lost, but what was in flight is sent again by whoever comes next.
SIGHUP applies the file of -f again; it reaches all dispatchers, and what is pending, within about a second.

` + servingHelp,
		Example: `  rowhook run -f rowhook.yaml
  DATABASE_URL=postgres://app@pooler:6432/shop ROWHOOK_LISTEN_URL=postgres://app@db:5432/shop rowhook run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			web.chosen = a.given(cmd, "http")
			if !a.given(cmd, "max-body") {
				cfg.MaxBody = fitBody(cfg.MaxBody, allowedMemory(), debug.SetMemoryLimit(-1))
			}
			a.fitMemory(&cfg, allowedMemory(), a.given(cmd, "payload-memory"))
			return a.run(cmd.Context(), cfg, file, wait, web)
		},
	}
	s := flagSet{cmd.Flags()}
	s.file(&file, "apply this configuration `file` first")
	s.connectTimeout(&wait)
	s.allowPublication(&a.migrator.AllowPublication)
	dispatchFlags(&s, &cfg)
	web.flags(&s)
	return cmd
}

// dispatchFlags adds the flags of a dispatcher.
func dispatchFlags(s *flagSet, cfg *dispatcher.Config) {
	s.duration(&cfg.PollInterval, "poll-interval", "how often to look for what no notification announced: a safety net, as events ring and retries have a timer", time.Millisecond)
	s.number(&cfg.BatchSize, "batch-size", "events to claim at once", 1, 10000)
	s.number(&cfg.Concurrency, "concurrency", "requests in flight at once, over all triggers", 1, 100000)
	s.duration(&cfg.GracePeriod, "grace-period", "how long requests in flight may take to finish when stopping", 0)
	add(s, &cfg.PayloadMemory, "payload-memory", "memory for big payloads (above 64 KiB) that are being sent; unless it is given, a quarter of the container's or service's memory limit if that is less", byteSize())
	add(s, &cfg.MaxBody, "max-body", "largest body of a request: an event with a larger one is a dead letter, and a payload above it is not fetched; unless it is given, an eighth of the container's, service's or Go's memory limit if that is less", byteSize())
	s.text(&cfg.Name, "instance-name", "what this instance is called in rowhook.instance and pg_stat_activity (default host:process id)")
	s.yesNo(&cfg.NoListen, "no-listen", "do not LISTEN, only poll: for where nothing but a transaction pooler can be reached")
	add(s, &cfg.Guard.Allow, "allow-addresses", "addresses that webhooks may have, beside those of network in rowhook.yaml, although they are refused by default (link-local, metadata, reserved): "+
		"these words, addresses or prefixes, separated by commas", addresses())
	add(s, &cfg.Guard.Deny, "deny-addresses", "addresses that webhooks may not have, beside those of network in rowhook.yaml: private, loopback, link-local, metadata, reserved, addresses or prefixes, "+
		"separated by commas", addresses())
}

// addresses is the syntax of the guard's rules.
func addresses() syntax[[]netip.Prefix] {
	return syntax[[]netip.Prefix]{
		kind: "rules",
		parse: func(s string) ([]netip.Prefix, error) {
			return netrule.ParseAll(strings.Split(s, ","))
		},
		format: func(all []netip.Prefix) string {
			text := make([]string, len(all))
			for i, p := range all {
				text[i] = p.String()
			}
			return strings.Join(text, ",")
		},
	}
}

func (a *app) run(ctx context.Context, cfg dispatcher.Config, file string, wait time.Duration, web serving) error {
	cfg.DatabaseURL, cfg.ListenURL = a.global.databaseURL, a.global.listenURL
	cfg.Version, cfg.Lookup, cfg.Logger = build(), a.lookup, a.log
	cfg.GracePeriod = max(cfg.GracePeriod, 1) // 0 would be the default
	target, err := a.target()
	if err != nil {
		return err
	}
	if err := a.checkListenURL(); err != nil {
		return err
	}
	tracer, err := a.trace(ctx, &cfg)
	if err != nil {
		return err
	}
	defer tracer.close()
	web.noListen = cfg.NoListen
	l, err := a.listenHTTP(ctx, web)
	if err != nil {
		return err
	}
	counted := count(&cfg, l != nil)
	d, err := dispatcher.New(cfg)
	if err != nil {
		closeUnused(l)
		return &usageError{err}
	}
	stopHTTP, err := a.serveHTTP(ctx, web, l, d, counted)
	if err != nil {
		return err
	}
	defer stopHTTP() // it answers for as long as the dispatcher works
	var aborted atomic.Bool
	ctx, stop := interrupts(ctx, func() {
		aborted.Store(true)
		d.Abort()
	})
	defer stop()
	if err := a.prepareDatabase(ctx, target, file, wait); err != nil {
		if ctx.Err() != nil {
			a.log.Info("stopped before it had started")
			return nil
		}
		return err
	}
	stopReapplying := a.reapply(ctx, target, file)
	err = a.deliver(ctx, d, wait)
	stopReapplying()
	switch {
	case ctx.Err() != nil && d.Stats().Instance == 0:
		a.log.Info("stopped before it had started")
		return nil
	case aborted.Load():
		return errors.New("stopped at once by a second signal: what was in flight is given back by the next dispatcher, and sent again")
	case err != nil:
		return explain(err)
	}
	return nil
}

// deliver runs the dispatcher. Where it can't connect to begin with it is tried again: that the schema could be looked at does not say that there
// are connections for it, too.
func (a *app) deliver(ctx context.Context, d *dispatcher.Dispatcher, wait time.Duration) error {
	t, err := parseTarget(a.global.databaseURL, a.global.source)
	if err != nil {
		return err
	}
	var ended error // how it ended, once it had started
	_, err = a.patiently(ctx, t, wait, func(ctx context.Context) error {
		err := d.Run(ctx)
		if d.Stats().Instance == 0 {
			return err
		}
		ended = err
		return nil
	})
	return errors.Join(err, ended)
}

// prepareDatabase applies the configuration, if one is named, and makes sure that there is a queue to work on.
func (a *app) prepareDatabase(ctx context.Context, t *target, file string, wait time.Duration) error {
	if file == "" {
		// It goes the way on which events are claimed: where one can't listen, they are found by polling.
		t, err := parseTarget(a.global.databaseURL, a.global.source)
		if err != nil {
			return err
		}
		return a.look(ctx, t.throughPooler(), wait, func(ctx context.Context, conn *pgx.Conn) error {
			if err := checkInstalled(ctx, conn, t); err != nil {
				return err
			}
			return a.warnOfLack(ctx, conn)
		})
	}
	cfg, err := a.loadConfig(file, a.lookup)
	if err != nil {
		return err
	}
	conn, err := a.connect(ctx, t, wait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	plan, err := a.applyConfig(ctx, conn, cfg)
	if err != nil {
		return err
	}
	if plan.Empty() {
		a.log.Info("the triggers are as configured", "file", file, "triggers", len(cfg.Triggers))
		return nil
	}
	a.log.Info("applied the configuration", "file", file, "triggers", len(cfg.Triggers))
	return nil
}

// warnOfLack says what an apply would put right.
func (a *app) warnOfLack(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return explain(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was changed
	lines, err := sqlschema.Lacking(ctx, tx)
	for _, line := range lines {
		a.log.Warn(line+": run \"rowhook apply\"", "database", conn.Config().Database)
	}
	return explain(err)
}

// reapply applies the file again at each SIGHUP, until ctx is done. The returned function waits for the end of that.
func (a *app) reapply(ctx context.Context, t *target, file string) func() {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-hangups:
			}
			if file == "" {
				a.log.Warn("SIGHUP: there is no configuration to apply again, as this was started without -f")
				continue
			}
			a.log.Info("SIGHUP: applying the configuration again", "file", file)
			if err := a.prepareDatabase(ctx, t, file, defaultConnectTimeout); err != nil && ctx.Err() == nil {
				a.log.Error("SIGHUP: the configuration was not applied, deliveries go on by the one before", "file", file, "error", err)
			}
		}
	})
	return func() {
		signal.Stop(hangups)
		close(done)
		wg.Wait()
	}
}

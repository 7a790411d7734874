package cli

import (
	"context"
	"errors"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/sqlschema"
)

// running are the flags of run that are not the dispatcher's.
type running struct {
	file   string
	wait   time.Duration // for the database
	tables time.Duration // how long to wait for tables that do not exist yet
	watch  bool          // take up changes of the file
	giving giving        // what a configuration may refer to
	web    serving
}

func (a *app) runCommand() *cobra.Command {
	o := running{wait: defaultConnectTimeout, web: serving{address: defaultHTTP}}
	cfg := dispatcher.Config{
		PollInterval: dispatcher.DefaultPollInterval, BatchSize: dispatcher.DefaultBatchSize, Concurrency: dispatcher.DefaultConcurrency,
		GracePeriod: dispatcher.DefaultGracePeriod, PayloadMemory: dispatcher.DefaultPayloadMemory, MaxBody: dispatcher.DefaultMaxBody,
	}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Deliver events until stopped",
		Long: `Deliver events until stopped. With -f the configuration is applied first, as "rowhook apply" does.

Several dispatchers may run on one database. They share the work, and take over from one that dies. SIGINT or SIGTERM
stops gracefully: the dispatcher claims nothing more, requests in flight may finish within the grace period, and the
other claimed events are given back. A second signal stops at once. No event is lost then, but events in flight are sent
again by another dispatcher. SIGHUP applies the file of -f again, and with --watch a change of the file does. All
dispatchers use the new configuration within about a second, for pending events, too. What can't be applied is logged,
and the previous configuration stays in use.

With --wait-for-tables the application's migrations may come later than Rowhook: it says which tables and columns it
waits for, and applies when they are there. HTTP is served meanwhile, and /readyz says that it is not ready.

` + servingHelp,
		Example: `  rowhook run -f rowhook.yaml
  rowhook run -f rowhook.yaml --wait-for-tables 60s --watch
  DATABASE_URL=postgres://app@pooler:6432/shop ROWHOOK_LISTEN_URL=postgres://app@db:5432/shop rowhook run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.file == "" && (o.watch || o.tables > 0):
				return usagef("--watch and --wait-for-tables are about the configuration of -f, which is not set: add -f rowhook.yaml")
			case o.file == standardInput:
				return usagef("rowhook run reads the configuration again at SIGHUP, which standard input can't offer: give -f a file or a directory, or use rowhook apply -f - first")
			}
			o.web.chosen = a.given(cmd, "http")
			if !a.given(cmd, "max-body") {
				cfg.MaxBody = fitBody(cfg.MaxBody, allowedMemory(), debug.SetMemoryLimit(-1))
			}
			a.fitMemory(&cfg, allowedMemory(), a.given(cmd, "payload-memory"))
			return a.run(cmd.Context(), cfg, o)
		},
	}
	s := flagSet{cmd.Flags()}
	s.file(&o.file, "apply this configuration `file` first, or a directory of such files")
	s.connectTimeout(&o.wait)
	s.waitForTables(&o.tables)
	s.yesNo(&o.watch, "watch", "with -f: apply again when the file, or one of the directory, has changed")
	s.allowPublication(&a.migrator.AllowPublication)
	dispatchFlags(&s, &cfg)
	o.giving.flags(&s)
	o.web.flags(&s)
	return cmd
}

// dispatchFlags adds the flags of a dispatcher.
func dispatchFlags(s *flagSet, cfg *dispatcher.Config) {
	s.duration(&cfg.PollInterval, "poll-interval", "how often to look for events without a notification: a safety net, as writers notify and retries have a timer", time.Millisecond)
	s.number(&cfg.BatchSize, "batch-size", "events in a claim for a trigger; more while its receiver is quick", 1, 10000)
	s.number(&cfg.Concurrency, "concurrency", "largest number of requests in flight, over all triggers", 1, 100000)
	s.duration(&cfg.GracePeriod, "grace-period", "how long requests in flight may take to finish at a stop", 0)
	add(s, &cfg.PayloadMemory, "payload-memory", "memory for large payloads (above 64 KiB) in flight; the default is at most a quarter of the memory limit of the container or service", byteSize())
	add(s, &cfg.MaxBody, "max-body", "largest body of a request: an event with a larger body becomes a dead letter, and a larger payload is not fetched; the default is at most an eighth of the memory limit of the container, service or Go", byteSize())
	s.text(&cfg.Name, "instance-name", "name of this instance in rowhook.instance and pg_stat_activity (default host:process id)")
	s.yesNo(&cfg.NoListen, "no-listen", "do not LISTEN, only poll: for a network in which only a transaction pooler can be reached")
	guardFlags(s, &cfg.Guard)
}

// guardFlags adds the flags of the addresses to which webhooks may lead.
func guardFlags(s *flagSet, guard *dispatcher.Guard) {
	add(s, &guard.Allow, "allow-addresses", "addresses to allow for webhooks, in addition to network in rowhook.yaml, although they are denied by default: "+
		"link-local, metadata, reserved, addresses or prefixes, separated by commas", addresses())
	add(s, &guard.Deny, "deny-addresses", "addresses to deny for webhooks, in addition to network in rowhook.yaml: private, loopback, link-local, metadata, reserved, "+
		"addresses or prefixes, separated by commas", addresses())
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

func (a *app) run(ctx context.Context, cfg dispatcher.Config, o running) error {
	several, err := a.hasSources(o.file)
	if err != nil {
		return err
	}
	cfg.Version, cfg.NATS = build(), a.parts.NATS
	if several {
		cfg.GracePeriod = max(cfg.GracePeriod, 1)
		return a.runFleet(ctx, cfg, o)
	}
	cfg.DatabaseURL, cfg.ListenURL = a.global.databaseURL, a.global.listenURL
	a.global.httpURL = o.web.database
	store, err := a.store(o.giving)
	if err != nil {
		return err
	}
	cfg.Source, cfg.Logger = store.Get, a.log
	cfg.GracePeriod = max(cfg.GracePeriod, 1) // 0 would mean the default
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
	keeper := a.keeper(target, o)
	defer keeper.open(true)()
	o.web.noListen, o.web.starting = cfg.NoListen, keeper.waitingFor
	l, err := a.listenHTTP(ctx, o.web)
	if err != nil {
		return err
	}
	counted := count(&cfg, l != nil)
	d, err := dispatcher.New(cfg)
	if err != nil {
		closeUnused(l)
		return &usageError{err}
	}
	stopHTTP, err := a.serveHTTP(ctx, o.web, l, d, counted)
	if err != nil {
		return err
	}
	defer stopHTTP() // HTTP is served until the dispatcher has ended
	var aborted atomic.Bool
	ctx, stop := interrupts(ctx, func() {
		aborted.Store(true)
		d.Abort()
	})
	defer stop()
	if err := a.prepareDatabase(ctx, keeper, o.wait); err != nil {
		if ctx.Err() != nil {
			a.log.Info("stopped before the dispatcher had started")
			return nil
		}
		return err
	}
	stopReapplying := keeper.background(ctx)
	err = a.deliver(ctx, d, o.wait)
	stopReapplying()
	switch {
	case ctx.Err() != nil && d.Stats().Instance == 0:
		a.log.Info("stopped before the dispatcher had started")
		return nil
	case aborted.Load():
		return errors.New("stopped at once by a second signal: events in flight will be sent again by another dispatcher")
	case err != nil:
		return explain(err)
	}
	return nil
}

// deliver runs the dispatcher. It retries while the dispatcher can't connect at start-up, or loses a
// connection, because the server may have no free connections although the schema could be read, or
// may be restarted.
func (a *app) deliver(ctx context.Context, d *dispatcher.Dispatcher, wait time.Duration) error {
	t, err := a.databaseTarget()
	if err != nil {
		return err
	}
	var ended error // how the dispatcher ended after it had started
	_, err = a.patiently(ctx, t, wait, func(ctx context.Context) error {
		err := d.Run(ctx)
		if d.Stats().Instance == 0 {
			if err != nil && pg.IsLost(err) && ctx.Err() == nil {
				return &lostError{err}
			}
			return err
		}
		ended = err
		return nil
	})
	return errors.Join(err, ended)
}

// prepareDatabase applies the configuration, if there is a file. Else it checks that the schema is
// installed.
func (a *app) prepareDatabase(ctx context.Context, keeper *reapplier, wait time.Duration) error {
	if keeper.file != "" {
		return keeper.start(ctx)
	}
	return a.prepareInstalled(ctx, wait)
}

// prepareInstalled checks that the schema is installed. It connects as claims do: the listen URL may not
// be reachable, and the dispatcher polls then.
func (a *app) prepareInstalled(ctx context.Context, wait time.Duration) error {
	t, err := a.databaseTarget()
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

// keeper keeps the database at the file of -f. It connects for each apply, and holds no session in
// between, which would keep others from dropping or copying the database.
func (a *app) keeper(t *target, o running) *reapplier {
	return &reapplier{
		file: o.file, watch: o.watch, tables: o.tables, log: a.log, lines: a.lines(),
		load: func() (*config.Config, error) {
			if config.HasSources(o.file) {
				return nil, usagef("%s has sources now, and this process works on one database: start it again to work on them", o.file)
			}
			return a.loadConfig(o.file, a.lookup, o.giving, true)
		},
		apply: func(ctx context.Context, cfg *config.Config) error { return a.applyOrSay(ctx, t, cfg, o.file, o.wait) },
	}
}

// applyOrSay applies a configuration to a database, and logs what has changed.
func (a *app) applyOrSay(ctx context.Context, t *target, cfg *config.Config, file string, wait time.Duration) error {
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
		a.log.Info("the triggers match the configuration", "file", file, "triggers", len(cfg.Triggers))
		return nil
	}
	a.log.Info("applied the configuration", "file", file, "triggers", len(cfg.Triggers))
	return nil
}

// warnOfLack warns of what is missing in the database until the next apply.
func (a *app) warnOfLack(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return explain(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only reads
	lines, err := sqlschema.Lacking(ctx, tx)
	for _, line := range lines {
		a.log.Warn(line+": run \"rowhook apply\"", "database", conn.Config().Database)
	}
	return explain(err)
}

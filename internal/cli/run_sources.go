package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/fleet"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/sqlschema"
)

// oneTry is how long a member of a fleet waits for its database at a time. The fleet tries again.
const oneTry = 0

// fleetRun is rowhook run with sources.
type fleetRun struct {
	*app
	options running
	cfg     dispatcher.Config // what the dispatchers of all sources have in common
	fleet   *fleet.Fleet
	web     *fleetWeb // nil: no HTTP

	changed chan struct{} // holds a token if there is another configuration
	mu      sync.Mutex
	now     struct {
		cfg, all  *config.Config  // the configuration, and the one that has the sources
		tenants   []config.Source // that were found last
		signature string          // of tenants
		names     []string        // of all sources that are worked on
	}
}

// runFleet delivers for the sources of a configuration.
func (a *app) runFleet(ctx context.Context, cfg dispatcher.Config, o running) error {
	if o.web.database != "" {
		return usagef("--http-database-url or ROWHOOK_HTTP_DATABASE_URL is of one database, and there are sources: write http_url in each of them")
	}
	tracer, err := a.trace(ctx, &cfg)
	if err != nil {
		return err
	}
	defer tracer.close()
	a.distinct = newDistinct()
	r := &fleetRun{app: a, options: o, fleet: fleet.New(), changed: make(chan struct{}, 1)}
	cfg.Shared, err = dispatcher.NewShared(dispatcher.SharedConfig{
		Concurrency: cfg.Concurrency, PayloadMemory: cfg.PayloadMemory, MaxBody: cfg.MaxBody, Version: cfg.Version, Logger: a.log, Rates: r.urlOf,
	})
	if err != nil {
		return &usageError{err}
	}
	r.cfg = cfg
	keeper := r.keeper()
	defer keeper.open(true)()
	first, err := keeper.load()
	if err != nil {
		return err
	}
	if r.web, err = a.serveFleet(ctx, o.web, r.fleet); err != nil {
		return err
	}
	defer r.web.close() // HTTP is served until the dispatchers have ended
	var aborted atomic.Bool
	ctx, stop := interrupts(ctx, func() {
		aborted.Store(true)
		r.fleet.Abort()
	})
	defer stop()
	keeper.contents.take()
	if err := keeper.settle(ctx, first); err != nil {
		return errors.Join(err, r.fleet.Stop())
	}
	stopReapplying := keeper.background(ctx)
	var following sync.WaitGroup
	following.Go(func() { r.followTenants(ctx) })
	<-ctx.Done()
	stopReapplying()
	following.Wait()
	err = r.fleet.Stop()
	if aborted.Load() {
		return errors.New("stopped at once by a second signal: events in flight will be sent again by another dispatcher")
	}
	if err == nil {
		a.log.Info("stopped all sources")
	}
	return explain(err)
}

// keeper takes up the configuration, and a newer one: that is done when the members of the fleet are
// set, each of which applies its part by itself.
func (r *fleetRun) keeper() *reapplier {
	o := r.options
	return &reapplier{
		file: cmp.Or(o.file, r.global.sourcesFile), watch: o.watch, log: r.log, lines: r.lines(),
		load: r.load,
		apply: func(_ context.Context, cfg *config.Config) error {
			all, err := r.sourcesOf(r.applied(cfg))
			if err != nil {
				return err
			}
			return r.take(cfg, all)
		},
	}
}

// applied returns the configuration that is applied; nil: nothing is, and cfg has the sources alone.
func (r *fleetRun) applied(cfg *config.Config) *config.Config {
	if r.options.file == "" {
		return nil
	}
	return cfg
}

// load reads the configuration of -f, or the sources alone.
func (r *fleetRun) load() (*config.Config, error) {
	var cfg *config.Config
	var err error
	if r.options.file != "" {
		cfg, err = r.loadConfig(r.options.file, r.lookup, r.options.giving, true)
	}
	if err != nil {
		return nil, err
	}
	all, err := r.sourcesOf(cfg)
	switch {
	case err != nil:
		return nil, err
	case all == nil:
		return nil, usagef("%s has no sources any more, and this process works on sources: write them, or start it again", r.options.file)
	case cfg == nil:
		cfg = all
	}
	return cfg, r.checkConnections(all)
}

// take makes a configuration the one that is worked on.
func (r *fleetRun) take(cfg, all *config.Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if all.Tenants == nil {
		r.now.tenants, r.now.signature = nil, ""
	}
	r.now.cfg, r.now.all = cfg, all
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return r.set(cfg, all)
}

// set makes the sources of a configuration, and the tenants, the members of the fleet. The caller holds
// mu.
func (r *fleetRun) set(cfg, all *config.Config) error {
	whole := all.With(r.now.tenants)
	chosen, err := r.chosen(whole)
	if err != nil {
		return err
	}
	members := make([]fleet.Member, len(chosen))
	for i, s := range chosen {
		members[i] = r.member(cfg, all, s)
	}
	names := config.SourceNames(chosen)
	r.log.Info("working on sources", "sources", config.Names(names))
	for _, name := range r.now.names {
		if !slices.Contains(names, name) {
			r.distinct.forget(name)
			r.log.Warn("the source was removed: its events wait, and changes are still captured there, until a dispatcher works on it again or rowhook uninstall ends it", "source", name)
		}
	}
	r.now.names = names
	r.app.fitCollector(len(names))
	r.web.set(r, all, chosen) // before dispatchers count
	r.fleet.Set(members)
	return nil
}

// member is a source of the fleet.
func (r *fleetRun) member(cfg, all *config.Config, s config.Source) fleet.Member {
	log := r.log.With("source", s.Name)
	var away, prepared atomic.Bool // Prepare can't connect, and says so; it has succeeded
	m := fleet.Member{
		Name: s.Name, Made: r.madeOf(s), Logger: log,
		New: func(process int32) (*dispatcher.Dispatcher, error) { return r.dispatcher(all, s, process) },
		Refused: func(stage fleet.Stage, err error) {
			what := "the source is not served; trying again, and the others go on"
			switch {
			case stage == fleet.Running && away.Load() && isConnect(err),
				stage == fleet.Running && r.applied(cfg) != nil && !prepared.Load() && errors.As(err, new(*sqlschema.NotInstalledError)):
				return // what Prepare says is enough
			case stage == fleet.Preparing:
				what = "configuration not applied to the source; trying again, and what was applied before goes on"
			}
			if waits := (*waitsForTables)(nil); errors.As(err, &waits) {
				log.Info("waiting for tables that do not exist yet", "missing", strings.Join(waits.missing, ", "), "for_up_to", r.options.tables)
				return
			}
			if lines := r.lines(); lines != nil && errors.As(err, new(*config.Error)) {
				log.Error(what)
				fmt.Fprintln(lines, err)
				return
			}
			log.Error(what, "error", explainOf(err, originOf(s.Name)))
		},
	}
	if !r.cfg.NoListen {
		m.Connect = func(ctx context.Context) (*pgx.Conn, error) { return r.direct(ctx, all, s) }
	}
	var lacks time.Time // since when tables are known to be missing; zero: none were
	prepare := func(ctx context.Context) error {
		b, err := r.at(all, s)
		if err != nil {
			return err
		}
		if r.applied(cfg) == nil {
			return b.prepareInstalled(ctx, oneTry)
		}
		t, err := b.target()
		if err != nil {
			return err
		}
		err = b.applyOrSay(ctx, t, cfg.Of(s.Name), r.options.file, oneTry)
		lack := (*lackError)(nil)
		if !errors.As(err, &lack) {
			lacks = time.Time{}
			return err
		}
		if lacks.IsZero() {
			lacks = time.Now()
		}
		if time.Since(lacks) < r.options.tables {
			return &waitsForTables{lack.missing}
		}
		return err
	}
	m.Prepare = func(ctx context.Context) error {
		err := prepare(ctx)
		prepared.Store(err == nil)
		away.Store(err != nil && strings.HasPrefix(err.Error(), cantConnect))
		return err
	}
	return m
}

// waitsForTables is why a source is not served while --wait-for-tables lasts.
type waitsForTables struct{ missing []string }

func (w *waitsForTables) Error() string { return "waiting for " + strings.Join(w.missing, ", ") }

// direct opens a session straight to the database of a source, by which processes see each other.
func (r *fleetRun) direct(ctx context.Context, all *config.Config, s config.Source) (*pgx.Conn, error) {
	b, err := r.at(all, s)
	if err != nil {
		return nil, err
	}
	if _, err := b.target(); err != nil {
		return nil, err
	}
	cfg, err := session.Parse(cmp.Or(b.global.listenURL, b.global.databaseURL))
	if err != nil {
		return nil, fmt.Errorf("read the connection string: %w", err)
	}
	cfg.RuntimeParams["application_name"] = queue.StandbyPrefix + dispatcher.InstanceName(r.cfg.Name)
	for name, value := range pg.ByIndex() {
		cfg.RuntimeParams[name] = value
	}
	cfg.RuntimeParams["search_path"], cfg.RuntimeParams[queue.RowSecurity] = "pg_catalog", "off"
	conn, err := session.Connect(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	if err := r.distinct.look(ctx, conn, s.Name); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // the first error is what matters
		return nil, err
	}
	return conn, nil
}

// urlOf returns the connection string of a source, in which others have their rates.
func (r *fleetRun) urlOf(source string) (string, error) {
	r.mu.Lock()
	all, whole := r.now.all, r.now.all.With(r.now.tenants)
	r.mu.Unlock()
	i := slices.IndexFunc(whole.Sources, func(s config.Source) bool { return s.Name == source })
	if i < 0 {
		return "", fmt.Errorf("there is no source %s: add it, or correct rate.held_by of the triggers", source)
	}
	b, err := r.at(all, whole.Sources[i])
	if err != nil {
		return "", err
	}
	return b.global.databaseURL, nil
}

// dispatcher makes the dispatcher of a source.
func (r *fleetRun) dispatcher(all *config.Config, s config.Source, process int32) (*dispatcher.Dispatcher, error) {
	if err := r.distinct.refusal(s.Name); err != nil {
		return nil, err
	}
	b, err := r.at(all, s)
	if err != nil {
		return nil, err
	}
	store, err := b.store(r.options.giving)
	if err != nil {
		return nil, err
	}
	if _, err := b.target(); err != nil {
		return nil, err
	}
	cfg := r.cfg
	cfg.DatabaseURL, cfg.ListenURL, cfg.Source, cfg.SourceName, cfg.Logger = b.global.databaseURL, b.global.listenURL, store.Get, s.Name, r.log
	cfg.Process = process
	cfg.Observers = append(cfg.Observers[:len(cfg.Observers):len(cfg.Observers)], r.web.observers(s.Name)...)
	return dispatcher.New(cfg)
}

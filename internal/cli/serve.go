package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/metrics"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/internal/tracing"
	"github.com/rowhook/rowhook/sqlschema"
)

// defaultHTTP is where run serves unless it is told otherwise.
const defaultHTTP = "127.0.0.1:8787"

// The tokens are read from the environment alone: flags can be seen in the list of processes.
const (
	httpTokenVariable     = "ROWHOOK_HTTP_TOKEN"      //nolint:gosec // its name
	httpReadTokenVariable = "ROWHOOK_HTTP_READ_TOKEN" //nolint:gosec // its name
)

const servingHelp = `It serves its health, metrics and the operations as JSON on --http: /healthz, /readyz, /metrics, /api/v1. An address
that others can reach demands a token of 16 characters or more, ROWHOOK_HTTP_TOKEN (for everything) or
ROWHOOK_HTTP_READ_TOKEN (to look only). Where the default address is taken, as by another instance, it goes on without.

Traces are sent by OTLP over HTTP where OpenTelemetry's variables say so, such as OTEL_EXPORTER_OTLP_ENDPOINT.`

// serving says what to serve over HTTP.
type serving struct {
	address  string
	chosen   bool   // by someone, so that it has to be had
	database string // "": the dispatcher's
	noListen bool   // the dispatcher's may lead through a pooler
}

func (w *serving) flags(s *flagSet) {
	s.text(&w.address, "http", "where to serve health, metrics and the operations; \"off\": nowhere")
	s.text(&w.database, "http-database-url", "database URL for what is asked over HTTP, with a role that may look and steer, where the dispatcher's own "+
		"may only dispatch (default: the listen or the database URL)")
}

// listenHTTP opens the address, nil for none.
func (a *app) listenHTTP(ctx context.Context, w serving) (net.Listener, error) {
	if w.address == "" || strings.EqualFold(w.address, "off") {
		return nil, nil
	}
	write, read := a.httpTokens()
	if err := httpapi.CheckAddress(w.address, write, read); err != nil {
		return nil, usagef("can't serve HTTP: %w", err)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", w.address)
	switch {
	case err == nil:
		return l, nil
	case !w.chosen && errors.Is(err, syscall.EADDRINUSE):
		a.log.Warn("not serving HTTP, as the default address is taken, perhaps by another instance: give this one an address of its own by --http, or --http off",
			"address", w.address)
		return nil, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("can't serve HTTP: %s is taken, perhaps by another instance: give this one an address of its own by --http, or --http off", w.address)
	}
	return nil, fmt.Errorf("can't serve HTTP on %s: %w; give another address by --http, or --http off", w.address, err)
}

func closeUnused(l net.Listener) {
	if l != nil {
		_ = l.Close() // nobody has connected
	}
}

func (a *app) httpTokens() (write, read string) {
	write, _ = a.lookup(httpTokenVariable)
	read, _ = a.lookup(httpReadTokenVariable)
	return write, read
}

// count has the dispatcher counted where somebody can ask for it.
func count(cfg *dispatcher.Config, served bool) *metrics.Metrics {
	if !served {
		return nil
	}
	m := metrics.New(cfg.Version)
	cfg.Observers = append(cfg.Observers, m.Observer())
	return m
}

// serveHTTP serves until the returned function is called, which waits for the end of it.
func (a *app) serveHTTP(ctx context.Context, w serving, l net.Listener, d *dispatcher.Dispatcher, m *metrics.Metrics) (stop func(), err error) {
	if l == nil {
		return func() {}, nil
	}
	pool, err := a.httpPool(w, httpConnections)
	if err != nil {
		closeUnused(l)
		return nil, err
	}
	probes, err := a.httpPool(w, probeConnections)
	if err != nil {
		closeUnused(l)
		pool.Close()
		return nil, err
	}
	ready, err := a.readyPool(w)
	if err != nil {
		closeUnused(l)
		pool.Close()
		probes.Close()
		return nil, err
	}
	m.Watch(d.Stats)
	m.WatchDatabase(probes, 0)
	write, read := a.httpTokens()
	server := httpapi.New(httpapi.Config{
		WriteToken: write, ReadToken: read, DB: pool, Probe: ready, Stats: d.Stats, Metrics: m.Handler(a.log), Version: build(), Logger: a.log,
		Schema: func(ctx context.Context) error {
			conn, err := ready.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			_, _, err = sqlschema.Compatible(ctx, conn.Conn())
			return err
		},
	})
	a.log.Info("serving HTTP", "address", l.Addr().String(), "token", write != "" || read != "")
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Run(serving, l); err != nil {
			a.log.Error("HTTP is not served any more; deliveries go on", "error", err)
		}
	})
	return func() {
		end()
		wg.Wait()
		pool.Close()
		probes.Close()
		ready.Close()
	}, nil
}

// What the interface takes of the database: each of httpConnections is used for one look, or one batch of a change, at a time, and some of these
// wait for long, as for the lock of a table. Readiness and metrics have connections of their own: they tell of the dispatcher.
const (
	httpConnections  = 4
	probeConnections = 2
)

// httpPool is what the interface works with. It connects when it is first asked for something.
func (a *app) httpPool(w serving, connections int32) (*pgxpool.Pool, error) {
	text, source, pooled := a.global.databaseURL, a.global.source, false
	switch {
	case w.database != "":
		text, source = w.database, "--http-database-url or ROWHOOK_HTTP_DATABASE_URL"
	case a.global.listenURL != "":
		text, source = a.global.listenURL, "--listen-url or ROWHOOK_LISTEN_URL"
	default:
		pooled = w.noListen
	}
	return a.pool(text, source, pooled, connections)
}

// readyPool is what readiness asks: the way by which the dispatcher claims and settles. That of the session that listens is another, and
// readiness has a check of its own for it.
func (a *app) readyPool(w serving) (*pgxpool.Pool, error) {
	return a.pool(a.global.databaseURL, a.global.source, a.global.listenURL != "" || w.noListen, 1)
}

// pool connects when it is first asked for something.
func (a *app) pool(text, source string, pooled bool, connections int32) (*pgxpool.Pool, error) {
	if _, err := parseTarget(text, source); err != nil {
		return nil, err
	}
	cfg, err := session.ParsePool(text)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	cfg.MinConns, cfg.MaxConns, cfg.MaxConnIdleTime = 0, connections, time.Minute
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "rowhook http"
	}
	if pooled {
		// There may be a pooler that hands out sessions by transaction: no statement can be prepared by name there, and what is set for a
		// session would be set for whoever gets it next.
		pg.ThroughPooler(cfg.ConnConfig)
	} else {
		settle := cfg.AfterConnect
		cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if err := settle(ctx, conn); err != nil {
				return err
			}
			return pg.Pin(ctx, conn)
		}
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("create a connection pool: %w", err)
	}
	return pool, nil
}

// traces are the tracer, if there is one.
type traces struct{ tracer *tracing.Tracer }

// trace has the dispatcher's attempts traced where the environment says so.
func (a *app) trace(ctx context.Context, cfg *dispatcher.Config) (traces, error) {
	t, err := tracing.New(ctx, a.lookup, tracing.Options{Version: cfg.Version, Instance: cfg.Name, Logger: a.log})
	if err != nil {
		return traces{}, usagef("can't send traces: %w", err)
	}
	if t != nil {
		cfg.Observers = append(cfg.Observers, t.Observer())
		a.log.Info("sending traces")
	}
	return traces{t}, nil
}

// close sends the last spans, for a few seconds.
func (t traces) close() {
	if t.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = t.tracer.Close(ctx) // the exporter has logged what went wrong
}

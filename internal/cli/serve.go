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
	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/metrics"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/internal/tracing"
	"github.com/rowhook/rowhook/sqlschema"
)

// defaultHTTP is the address that run serves on unless --http names another.
const defaultHTTP = "127.0.0.1:8787"

// The tokens have no flags, because the list of processes shows flags.
const (
	httpTokenVariable     = "ROWHOOK_HTTP_TOKEN"      //nolint:gosec // its name
	httpReadTokenVariable = "ROWHOOK_HTTP_READ_TOKEN" //nolint:gosec // its name
)

const servingHelp = `The address of --http serves health, metrics and the operators' commands as JSON: /healthz, /readyz, /metrics, /api/v1.
An address that other hosts can reach requires a token: one of the file of --http-tokens, which "rowhook token add" makes
with a name, scopes and an end, or one without a name of at least 16 characters: ROWHOOK_HTTP_TOKEN allows everything,
ROWHOOK_HTTP_READ_TOKEN only reading. The variables ROWHOOK_HTTP_TOKEN_FILE and ROWHOOK_HTTP_READ_TOKEN_FILE name files
with these tokens instead, which are read again when they change. If another program, such as another instance, uses the default address, the
dispatcher runs without HTTP.

OpenTelemetry's variables, such as OTEL_EXPORTER_OTLP_ENDPOINT, turn on traces. They are sent by OTLP over HTTP.`

// serving says where HTTP is served, and by which database.
type serving struct {
	address  string
	chosen   bool         // a flag or variable set it, so serving must not fail
	database string       // "": the dispatcher's
	noListen bool         // the dispatcher's database URL may lead through a pooler
	tokens   string       // file of named tokens; "": none
	dev      *httpapi.Dev // nil: it is not rowhook dev
	// traceLink is a URL with {trace_id} in it. Optional.
	traceLink string
	// starting says what the start of the dispatcher waits for, or returns "". Optional.
	starting func() string
}

func (w *serving) flags(s *flagSet) {
	s.text(&w.address, "http", "address that serves health, metrics and the operators' commands; \"off\": none")
	s.connection(&w.database, "http-database-url", "database URL for requests over HTTP, if the dispatcher's role may not operate: "+
		"with a role that may read and change what operators do (default: the listen or the database URL)")
	s.tokensFile(&w.tokens, "http-tokens", "file of named tokens for HTTP, as \"rowhook token add\" makes it; it is read again when it changes")
	add(s, &w.traceLink, "trace-link", "link to a trace for the dashboard: a URL with {trace_id} in it", syntax[string]{
		kind: "URL", parse: func(s string) (string, error) { return s, httpapi.CheckTraceLink(s) }, format: func(s string) string { return s },
	})
}

// listenHTTP opens the address. It returns nil if HTTP is off.
func (a *app) listenHTTP(ctx context.Context, w serving) (net.Listener, error) {
	if w.address == "" || strings.EqualFold(w.address, "off") {
		return nil, nil
	}
	tokens, err := a.httpTokens()
	if err != nil {
		return nil, usagef("can't serve HTTP: %w", err)
	}
	if err := httpapi.CheckAddress(w.address, tokens.write, tokens.read, w.tokens != ""); err != nil {
		return nil, usagef("can't serve HTTP: %w", err)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", w.address)
	switch {
	case err == nil:
		return l, nil
	case !w.chosen && errors.Is(err, syscall.EADDRINUSE):
		a.log.Warn("not serving HTTP: another program uses the default address, perhaps another instance; set another address with --http, or --http off",
			"address", w.address)
		return nil, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("can't serve HTTP: another program uses %s, perhaps another instance; set another address with --http, or --http off", w.address)
	}
	return nil, fmt.Errorf("can't serve HTTP on %s: %w; set another address with --http, or --http off", w.address, err)
}

func closeUnused(l net.Listener) {
	if l != nil {
		_ = l.Close() // nobody has connected
	}
}

// httpTokens are the tokens without a name, as of the start, and the files that hold them.
type httpTokens struct {
	write, read         string
	writeFile, readFile *access.TokenFile // nil: a variable holds it, or there is none
}

func (a *app) httpTokens() (t httpTokens, err error) {
	for _, v := range []struct {
		variable string
		token    *string
		file     **access.TokenFile
	}{{httpTokenVariable, &t.write, &t.writeFile}, {httpReadTokenVariable, &t.read, &t.readFile}} {
		path, err := fileInstead(v.variable, a.lookup)
		if err != nil {
			return t, err
		}
		if path == "" {
			*v.token, _ = a.lookup(v.variable)
			continue
		}
		if *v.file, err = access.OpenTokenFile(path, httpapi.MinToken, a.log); err != nil {
			return t, fmt.Errorf("%s: %w", v.variable+fileSuffix, err)
		}
		*v.token = (*v.file).Token()
	}
	return t, nil
}

// count adds metrics to the dispatcher if they are served.
func count(cfg *dispatcher.Config, served bool) *metrics.Metrics {
	if !served {
		return nil
	}
	m := metrics.New(cfg.Version)
	cfg.Observers = append(cfg.Observers, m.Observer())
	return m
}

// serveHTTP serves until stop is called. stop waits until it has ended.
func (a *app) serveHTTP(ctx context.Context, w serving, l net.Listener, d *dispatcher.Dispatcher, m *metrics.Metrics) (stop func(), err error) {
	if l == nil {
		return func() {}, nil
	}
	base, err := a.guarded(w)
	if err != nil {
		closeUnused(l)
		return nil, err
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
	target, err := a.databaseTarget()
	if err != nil { // the pools have been made of it
		return nil, err
	}
	base.Database, base.Dev, base.DB, base.Probe, base.Stats, base.Starting = target.database()+" on "+target.address(), w.dev, pool, ready, d.Stats, w.starting
	base.Metrics, base.Schema = m.Handler(a.log), compatible(ready)
	end := a.serving(ctx, l, base)
	return func() {
		end()
		pool.Close()
		probes.Close()
		ready.Close()
	}, nil
}

// guarded returns what says who may use the interface, and what all of it has in common.
func (a *app) guarded(w serving) (httpapi.Config, error) {
	var named *access.Keyring
	tokens, err := a.httpTokens()
	if err == nil && w.tokens != "" {
		named, err = access.OpenKeyring(w.tokens, a.log)
	}
	if err != nil {
		return httpapi.Config{}, usagef("can't serve HTTP: %w", err)
	}
	return httpapi.Config{
		TraceLink: w.traceLink, WriteToken: tokens.write, ReadToken: tokens.read, WriteTokenFile: tokens.writeFile, ReadTokenFile: tokens.readFile, Tokens: named,
		Version: build(), Logger: a.log,
	}, nil
}

// compatible returns a check of whether this program can work on the schema of a database.
func compatible(pool *pgxpool.Pool) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		_, _, err = sqlschema.Compatible(ctx, conn.Conn())
		return err
	}
}

// serving serves on l until stop is called, which waits for the end.
func (a *app) serving(ctx context.Context, l net.Listener, cfg httpapi.Config) (stop func()) {
	server := httpapi.New(cfg)
	a.log.Info("serving HTTP", "address", l.Addr().String(), "token", cfg.WriteToken != "" || cfg.ReadToken != "" || cfg.Tokens != nil)
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Run(serving, l); err != nil {
			a.log.Error("stopped serving HTTP; deliveries go on", "error", err)
		}
	})
	return func() {
		end()
		wg.Wait()
	}
}

// The connections of the interface. Each of httpConnections runs one query, or one batch of a
// change, at a time. Some wait long, such as for the lock of a table. Readiness and metrics have
// connections of their own, because they must tell the state of the dispatcher meanwhile.
const (
	httpConnections  = 4
	probeConnections = 2
)

// httpPool returns the pool of the interface. It connects at the first request.
func (a *app) httpPool(w serving, connections int32) (*pgxpool.Pool, error) {
	text, source, pooled := a.global.databaseURL, a.global.source, false
	switch {
	case w.database != "":
		text, source = w.database, "--http-database-url or ROWHOOK_HTTP_DATABASE_URL"
		if a.source != nil {
			source = "http_url of the source " + a.source.Name
		}
	case a.global.listenURL != "":
		text, source = a.global.listenURL, a.listenOrigin()
	default:
		pooled = w.noListen
	}
	return a.pool(text, source, pooled, connections)
}

// readyPool returns the pool of readiness. It connects as the dispatcher does for claims and
// settlements. Readiness has another check for the session that listens.
func (a *app) readyPool(w serving) (*pgxpool.Pool, error) {
	return a.pool(a.global.databaseURL, a.global.source, a.global.listenURL != "" || w.noListen, 1)
}

// pool returns a pool that connects at its first use.
func (a *app) pool(text, source string, pooled bool, connections int32) (*pgxpool.Pool, error) {
	if _, err := parseTarget(text, source); err != nil {
		return nil, err
	}
	cfg, err := session.ParsePool(text)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	cfg.MinConns, cfg.MaxConns, cfg.MaxConnIdleTime = 0, connections, time.Minute
	if a.source != nil { // there may be a hundred of them
		cfg.MaxConnIdleTime = 3 * time.Second
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "rowhook http"
	}
	if pooled {
		// A pooler may give the session to another client after each transaction, so the session is
		// not pinned: the setting would reach that client.
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

// traces holds the tracer, if there is one.
type traces struct{ tracer *tracing.Tracer }

// trace adds traces of attempts to the dispatcher if the environment turns them on.
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
	_ = t.tracer.Close(ctx) // the exporter has logged the error
}

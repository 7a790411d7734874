// Package httpapi serves the operations of package operate, health checks and metrics over HTTP.
//
// The file openapi.yaml describes the interface, and tests check every response against it. Write
// access is equivalent to the command line. A non-loopback address therefore requires a token.
// Without tokens only local clients are served, cross-origin requests are rejected, and the Host
// header must name this host.
package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/dashboard"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/webapi"
)

// Config configures a Server. DB, Schema, Stats and Metrics are required, and with Sources Metrics alone.
type Config struct {
	// WriteToken allows everything, and ReadToken allows reading. If both are empty, and Tokens is nil,
	// local programs may do everything except pass SQL conditions.
	WriteToken, ReadToken string
	// WriteTokenFile and ReadTokenFile are such tokens that files hold, instead. Optional.
	WriteTokenFile, ReadTokenFile *access.TokenFile
	// Tokens are named tokens with scopes. nil: there are none. If it is set, tokens are required,
	// even if it has none.
	Tokens *access.Keyring
	// DB is the database that the operations work on.
	DB operate.DB
	// Probe is what readiness queries, so that long requests on DB can't delay it; nil: DB.
	Probe pg.Queryer
	// Schema returns an error if this program can't work on the database's schema. Readiness calls
	// it.
	Schema func(ctx context.Context) error
	// Stats is the method Stats of the dispatcher.
	Stats func() dispatcher.Stats
	// Starting says what the start of the dispatcher waits for, or returns "". Optional.
	Starting func() string
	// Metrics serves /metrics.
	Metrics http.Handler
	// Timeout bounds a request; 0: DefaultTimeout.
	Timeout time.Duration
	// Version is the program's version, which /healthz returns.
	Version string
	// Database names the database for people, such as shop on db.internal:5432. Optional.
	Database string
	// TraceLink is a URL with {trace_id} in it, which leads to a trace. Optional.
	TraceLink string
	// Source is the name of the database, if there are several: commands that texts advise name it.
	Source string
	// Sources are the databases, if there are several. Optional.
	Sources Sources
	// Unprobed has readiness tell from Stats alone whether the database works, and not from queries.
	// They would keep a session open for each of many databases.
	Unprobed bool
	// Dev is what rowhook dev adds; nil: it is not rowhook dev.
	Dev *Dev
	// Logger is optional.
	Logger *slog.Logger
}

// Limits of the server. Sizes are in bytes.
const (
	maxConnections = 256 // above this, idle connections are closed, and only health requests are served
	reserved       = 64  // additional connections for health requests
	maxHeader      = 16 << 10
	maxBody        = 1 << 20
	maxPayload     = 8 << 20 // body of invoke
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 15 * time.Second
	strayTimeout   = time.Second // for a body that no handler reads
	// DefaultTimeout bounds a request, unless Config.Timeout is set.
	DefaultTimeout  = 30 * time.Second
	writeTimeout    = 90 * time.Second // more than any handler but tail takes
	idleTimeout     = 60 * time.Second
	shutdownTimeout = 5 * time.Second
	// MinToken is the least length of a token in characters.
	MinToken = 16
)

// Server serves one dispatcher.
type Server struct {
	cfg        Config
	log        *slog.Logger
	guard      guard
	handler    http.Handler
	readiness  readiness
	rights     rights
	operations operations
	streams    streams
	busy       atomic.Int64 // running requests, without those for health
	live       live
	openapi    func() ([]byte, error)
	page       func() *dashboard.Handler // made for the first request: that takes 11 MB
}

// New returns a server. Run makes it serve.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Probe == nil {
		cfg.Probe = cfg.DB
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	s := &Server{cfg: cfg, log: cfg.Logger, guard: newGuard(&cfg), openapi: sync.OnceValues(Document)}
	s.page = sync.OnceValue(dashboard.New)
	s.readiness.server = s
	s.operations.init()
	s.live.init(s)
	s.handler = s.newHandler()
	return s
}

// CheckAddress checks an address to listen on, HOST:PORT, together with the tokens. named says that
// there is a file of named tokens. An error says what to do.
func CheckAddress(address, writeToken, readToken string, named bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on: write HOST:PORT, such as 127.0.0.1:8787 or :8787", address)
	}
	for name, token := range map[string]string{"ROWHOOK_HTTP_TOKEN": writeToken, "ROWHOOK_HTTP_READ_TOKEN": readToken} {
		if token != "" && len(token) < MinToken {
			return fmt.Errorf("%s is too short: use at least %d characters, for example from openssl rand -hex 32", name, MinToken)
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("%s contains a character that can't be sent in a header (perhaps a line break at its end): create a token with openssl rand -hex 32", name)
		}
	}
	switch {
	case writeToken != "" && writeToken == readToken:
		return errors.New("ROWHOOK_HTTP_TOKEN and ROWHOOK_HTTP_READ_TOKEN are equal, so the read token would allow writing: set different ones")
	case writeToken == "" && readToken == "" && !named && !webapi.IsLoopback(host):
		return fmt.Errorf("other hosts can reach %s: set ROWHOOK_HTTP_TOKEN (read and write) or ROWHOOK_HTTP_READ_TOKEN (read only) to the output of openssl rand -hex 32, "+
			"or ROWHOOK_HTTP_TOKENS to a file of tokens that \"rowhook token add\" has made, or listen on 127.0.0.1", address)
	}
	return nil
}

// Run serves on l until ctx is done. Then it ends tails and operations, and waits up to
// shutdownTimeout for requests. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s.operations.begin(requests)
	s.live.begin(requests)
	server := &http.Server{
		Handler: s.handler, BaseContext: func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:  slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState: (&connections{all: map[net.Conn]idling{}}).changed,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(netutil.LimitListener(l, maxConnections+reserved)) }()
	select {
	case err := <-failed:
		end()
		s.operations.wait()
		s.live.wait()
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	end() // ends tails, operations, and requests that wait for one
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		_ = server.Close() // ends requests that exceeded shutdownTimeout
	}
	err := <-failed
	s.operations.wait()
	s.live.wait()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

// Package httpapi serves the operations of package operate, health checks and metrics over HTTP.
//
// What it serves is described by openapi.yaml, to which tests hold it. Whoever may write by it may do what the command line may.
// So an address that others can reach demands tokens, and without tokens only programs of this host are served: no browser may ask on
// behalf of a page, and no name but the host's own is answered to.
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
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
)

// Config says what to serve, and to whom. DB, Stats and Metrics are required.
type Config struct {
	// WriteToken lets its bearer do everything, ReadToken look only. Both empty: everyone on this host may do everything but run SQL of
	// their own.
	WriteToken, ReadToken string
	DB                    operate.DB
	// Probe is what readiness asks, so that what is asked of DB can't make it wait; nil: DB.
	Probe pg.Queryer
	// Schema returns an error where the database has no schema that this program can work on. Readiness asks it, too.
	Schema func(ctx context.Context) error
	// Stats is the dispatcher's.
	Stats   func() dispatcher.Stats
	Metrics http.Handler
	// Timeout bounds a request; 0: DefaultTimeout.
	Timeout time.Duration
	// Version of the program.
	Version string
	// Logger is optional.
	Logger *slog.Logger
}

// Bounds of what is served.
const (
	maxConnections = 256 // above it idle ones are closed, and nothing but health is answered
	reserved       = 64  // more of them, for health
	maxHeader      = 16 << 10
	maxBody        = 1 << 20
	maxPayload     = 8 << 20 // of invoke
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 15 * time.Second
	strayTimeout   = time.Second // for a body that nobody reads
	// DefaultTimeout is how long a request may take.
	DefaultTimeout  = 30 * time.Second
	writeTimeout    = 90 * time.Second // longer than any handler but a tail takes
	idleTimeout     = 60 * time.Second
	shutdownTimeout = 5 * time.Second
	// MinToken is the length of the shortest token that is accepted.
	MinToken = 16
)

// Server serves one dispatcher.
type Server struct {
	cfg        Config
	log        *slog.Logger
	guard      guard
	handler    http.Handler
	readiness  readiness
	operations operations
	tails      chan struct{} // a token per tail under way
	busy       atomic.Int64  // requests under way but those for health
	openapi    func() ([]byte, error)
}

// New makes a server. It serves when Run runs.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Probe == nil {
		cfg.Probe = cfg.DB
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	s := &Server{cfg: cfg, log: cfg.Logger, guard: newGuard(cfg.WriteToken, cfg.ReadToken), tails: make(chan struct{}, maxTails), openapi: sync.OnceValues(Document)}
	s.readiness.server = s
	s.operations.init()
	s.handler = s.routed()
	return s
}

// CheckAddress says what is wrong with an address to listen on, given the tokens there are. Its errors say what to do.
func CheckAddress(address, writeToken, readToken string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address to listen on: write HOST:PORT, such as 127.0.0.1:8787 or :8787", address)
	}
	for name, token := range map[string]string{"ROWHOOK_HTTP_TOKEN": writeToken, "ROWHOOK_HTTP_READ_TOKEN": readToken} {
		if token != "" && len(token) < MinToken {
			return fmt.Errorf("%s is too short: make one of at least %d characters, by openssl rand -hex 32", name, MinToken)
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("%s holds a character that can't be sent in a header (a line break at its end?): make one by openssl rand -hex 32", name)
		}
	}
	switch {
	case writeToken != "" && writeToken == readToken:
		return errors.New("ROWHOOK_HTTP_TOKEN and ROWHOOK_HTTP_READ_TOKEN are the same: whoever may read could write")
	case writeToken == "" && readToken == "" && !isLoopback(host):
		return fmt.Errorf("others can reach %s: set ROWHOOK_HTTP_TOKEN (for everything) or ROWHOOK_HTTP_READ_TOKEN (to look only), made by openssl rand -hex 32, "+
			"or listen on 127.0.0.1", address)
	}
	return nil
}

// isLoopback reports that a host is this one, and only its own programs can reach it.
func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Run serves on l until ctx is done, and then lets requests end, for some seconds. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s.operations.begin(requests)
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
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	end() // of tails, operations and waits
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		_ = server.Close() // what is left has had its time
	}
	err := <-failed
	s.operations.wait()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

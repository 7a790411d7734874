package localpg

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Server is a PostgreSQL that Start has started. Its methods may be called from several goroutines.
type Server struct {
	config   Config
	binaries binaries
	account  account
	layout   layout
	watchdog *watchdog

	mu         sync.Mutex // held while starting and stopping
	port       int
	postmaster *postmaster // nil while halted
	closed     bool
}

// Mode is a way of shutting PostgreSQL down; see the documentation of pg_ctl.
type Mode string

// The shutdown modes. Smart waits for clients to leave, Fast disconnects them, and Immediate aborts
// without a checkpoint, so that the next start goes through crash recovery.
const (
	Smart     Mode = "smart"
	Fast      Mode = "fast"
	Immediate Mode = "immediate"
)

func (m Mode) signal() (syscall.Signal, error) {
	switch m {
	case Smart:
		return syscall.SIGTERM, nil
	case Fast:
		return syscall.SIGINT, nil
	case Immediate:
		return syscall.SIGQUIT, nil
	}
	return 0, fmt.Errorf("unknown shutdown mode %q: use smart, fast or immediate", string(m))
}

// URL returns the connection string of a database of this server, for its superuser.
func (s *Server) URL(database string) string { return s.url(database, s.Port()) }

func (s *Server) url(database string, port int) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", s.layout.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: plainQuery,
	}
	return u.String()
}

// OwnURL is URL for sessions of this module. Clients fill in by the PG* variables what a connection
// string leaves out, and those describe another server. So this one leaves nothing out that pgx or
// package session reads from them. Other clients don't know all of its parameters.
func (s *Server) OwnURL(database string) string {
	return s.URL(database) + "&" + s.layout.complete()
}

// Public returns the connection string for every client that belongs to one made from OwnURL.
func (s *Server) Public(ownURL string) string {
	address, _, _ := strings.Cut(ownURL, "?")
	return address + "?" + plainQuery
}

// plainQuery is all that a client has to know besides the address.
const plainQuery = "sslmode=disable"

// Port returns the TCP port on 127.0.0.1. It stays the same for the life of the Server.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

// PID returns the process id of the postmaster, or 0 while the server is halted or stopped.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postmaster == nil {
		return 0
	}
	return s.postmaster.command.Process.Pid
}

// BinDir returns the directory of the binaries in use. It may lack psql, because not every
// distribution of the server has it.
func (s *Server) BinDir() string { return s.binaries.dir }

// Version returns the server's version in the form of server_version_num: 150018 for 15.18.
func (s *Server) Version() int { return s.binaries.version }

// DataDir returns the data directory.
func (s *Server) DataDir() string { return s.layout.data }

// SocketDir returns the directory of the Unix socket, for connections without a password.
func (s *Server) SocketDir() string { return s.layout.sockets }

// LogFile returns the path of PostgreSQL's log.
func (s *Server) LogFile() string { return s.layout.log() }

// Start starts a halted or crashed server on the same data and port. If the server runs, Start does
// nothing.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("start postgres: Stop has removed this server")
	}
	if s.postmaster != nil {
		if ended, _ := s.hasEnded(s.postmaster); !ended {
			return nil
		}
		s.postmaster = nil
	}
	return s.start(ctx)
}

// start tries several ports if it may choose one, because another program can take a port between
// the choice and the use. A port that was chosen before stays, because URLs with it are in use.
func (s *Server) start(ctx context.Context) error {
	chosen := s.port != 0
	var err error
	for range 10 {
		if !chosen {
			s.port = randomPort()
		}
		if err = s.startOnce(ctx); err == nil {
			return nil
		}
		if chosen || !strings.Contains(err.Error(), "could not create any TCP/IP sockets") {
			break
		}
	}
	if !chosen {
		s.port = 0
	}
	return err
}

// Halt stops the server and keeps its data for Start. If ctx ends first, it stops the server in
// mode Immediate and returns the context's error.
func (s *Server) Halt(ctx context.Context, mode Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.halt(ctx, mode)
}

func (s *Server) halt(ctx context.Context, mode Mode) error {
	sig, err := mode.signal()
	if err != nil {
		return err
	}
	pm := s.postmaster
	if pm == nil {
		return nil
	}
	s.postmaster = nil
	if mode == Immediate {
		s.abort(pm)
		return nil
	}
	if ended, _ := s.hasEnded(pm); ended {
		return nil
	}
	s.attend(pm)
	if err := pm.command.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop postgres: %w", err)
	}
	select {
	case <-pm.exited:
		return nil
	case <-ctx.Done():
		s.abort(pm)
		return fmt.Errorf("stop postgres in mode %s: %w; stopped it in mode immediate instead", mode, context.Cause(ctx))
	}
}

// Restart halts the server in the given mode and starts it again on the same port.
func (s *Server) Restart(ctx context.Context, mode Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("restart postgres: Stop has removed this server")
	}
	if err := s.halt(ctx, mode); err != nil {
		return err
	}
	return s.start(ctx)
}

// Exited returns a channel that is closed when the present postmaster has ended for any reason. It
// is nil for an Unattended server.
func (s *Server) Exited() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config.Unattended {
		return nil
	}
	if s.postmaster == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return s.postmaster.exited
}

// Stop stops the server permanently and deletes temporary data. If ctx ends before the server does,
// Stop stops it in mode Immediate; it leaves nothing behind in that case, either. Stop may be
// called again.
func (s *Server) Stop(ctx context.Context, mode Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := mode.signal(); err != nil {
		return err
	}
	err := s.halt(ctx, mode)
	return errors.Join(err, s.cleanUp())
}

func (s *Server) cleanUp() error {
	s.closed = true
	err := s.layout.remove()
	s.watchdog.stop()
	return err
}

// randomPort returns a port that is free now. It is below the ports that Linux (from 32768) and
// macOS (from 49152) use for outgoing connections. Otherwise a client's connection could occupy a
// halted server's port when that starts again.
func randomPort() int {
	for range 100 {
		port := 20000 + rand.IntN(12000) //nolint:gosec // no secret
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	return 20000 + rand.IntN(12000) //nolint:gosec // no secret
}

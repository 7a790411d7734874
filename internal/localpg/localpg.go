// Package localpg runs a private PostgreSQL as a child of the calling process, for development,
// tests and benchmarks.
//
// It looks for installed binaries, makes a data directory, starts the server on a free loopback
// port and waits until it accepts connections. Without a DataDir the data is temporary. A watchdog
// process stops the server and removes the temporary data even if the calling process is killed
// with SIGKILL.
//
// Connections over TCP (127.0.0.1 only) use a random password, which is part of [Server.URL].
// Connections over the Unix socket need no password. The socket is in a directory that only the
// server's operating system user can enter.
package localpg

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sethvargo/go-retry"
)

// Config configures a PostgreSQL. The zero value runs an installed one with temporary data.
type Config struct {
	// BinDir is the directory of initdb and postgres. Optional: by default Start searches the usual
	// places.
	BinDir string

	// DataDir keeps the data across runs. The first Start makes it, and later ones reuse it.
	// Optional: by default the data is temporary, and Stop deletes it.
	DataDir string

	// TempDir is the parent of temporary data. Optional: by default MemoryDir with room for
	// roomInMemory, unless the variable TMPDIR is set; else the system's directory for temporary
	// files.
	TempDir string

	// CacheDir keeps what initdb makes, for later starts with temporary data: some 27 MB for each
	// build of PostgreSQL. Optional: by default rowhook/initdb in the user's cache directory; for
	// root in /var/cache. A server starts also where it can't be written.
	CacheDir string

	// Unattended starts no goroutine that waits for PostgreSQL, for servers that nobody stops: the
	// watchdog ends them with this process. Keep the Server: if it is garbage collected, its pipe to
	// the watchdog is closed, too. Exited returns nil then. Optional.
	Unattended bool

	// Port is the TCP port on 127.0.0.1. Optional: by default a free one.
	Port int

	// QuickConnect has clients derive the key of the password by one step instead of 4096, which
	// takes them 4 ms of each connection. The password is random, so nothing is lost. Some clients
	// refuse it, such as that of JDBC. It does not apply to a DataDir. Optional.
	QuickConnect bool

	// Settings are settings of postgresql.conf, such as {"wal_level": "logical"}. They replace the
	// Settings of earlier starts of the same DataDir. Optional.
	Settings map[string]string

	// NoDownload makes Start fail if no binaries are installed, instead of downloading PostgreSQL.
	// Optional.
	NoDownload bool

	// Logger gets messages about slow or surprising steps, such as a download. Optional.
	Logger *slog.Logger
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

// startTimeout bounds the time until a server accepts connections. Crash recovery after heavy
// writes is the slow case.
const startTimeout = 2 * time.Minute

// roomInMemory is the least memory, in bytes, that must be free for temporary data to be in memory.
const roomInMemory = 2 << 30

// killDelay is how long an immediate shutdown may take before SIGKILL. The postmaster gives its
// children 5 s.
const killDelay = 10 * time.Second

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

// postmaster is one run of the postgres program. The goroutine of attend ends when the program ends.
type postmaster struct {
	command  *exec.Cmd
	attended bool // attend was called
	exited   chan struct{}
	err      error // how it ended; set before exited is closed
}

// Start makes or reuses a data directory, starts PostgreSQL on it and returns once it accepts
// connections. The caller must call Stop.
func Start(ctx context.Context, config Config) (*Server, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.DataDir != "" {
		abs, err := filepath.Abs(config.DataDir)
		if err != nil {
			return nil, fmt.Errorf("find the data directory: %w", err)
		}
		config.DataDir = abs
	}
	if _, set := os.LookupEnv("TMPDIR"); config.TempDir == "" && config.DataDir == "" && !set {
		config.TempDir = MemoryDir(roomInMemory)
	}
	acct, err := chooseAccount(config.DataDir)
	if err != nil {
		return nil, err
	}
	bins, err := findBinaries(ctx, config, acct)
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, binaries: bins, account: acct, port: config.Port}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.cleanUp())
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.cleanUp())
	}
	return s, nil
}

// prepare starts the watchdog, and makes the directories that it watches over, and the data.
func (s *Server) prepare(ctx context.Context) (err error) {
	if s.layout, err = chooseLayout(s.config, s.account); err != nil {
		return err
	}
	if s.watchdog, err = startWatchdog(s.layout, s.account); err != nil {
		return err
	}
	if err := s.layout.make(); err != nil {
		return err
	}
	isNew, err := s.layout.check(s.binaries.version)
	if err != nil {
		return err
	}
	switch {
	case !isNew:
		return nil
	case s.layout.kept:
		return s.initdb(ctx)
	}
	return s.makeTemporaryData(ctx)
}

// makeTemporaryData copies what initdb has made for an earlier start with the same binaries, or runs
// initdb and keeps the result. The server works without the cache, so its errors are only logged.
func (s *Server) makeTemporaryData(ctx context.Context) error {
	s.layout.password, s.layout.passwordUnset = cryptorand.Text(), true
	kept, err := openCache(s.config.CacheDir, s.binaries)
	usable := err == nil
	if usable {
		if err = kept.restore(ctx, s.layout); err == nil {
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.config.Logger.DebugContext(ctx, "run initdb, since its earlier result can't be used", "error", err)
	}
	if err := s.initdb(ctx); err != nil || !usable {
		return err
	}
	if err := kept.store(s.layout); err != nil {
		s.config.Logger.DebugContext(ctx, "the next start runs initdb again", "error", err)
	}
	return nil
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
	return s.URL(database) + "&" + s.layout.complete().Encode()
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

func (s *Server) startOnce(ctx context.Context) error {
	if err := s.layout.writeSettings(s.port, s.config.Settings); err != nil {
		return err
	}
	log, err := s.layout.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	logStart, err := log.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("open the PostgreSQL log: %w", err)
	}

	cmd := exec.Command(s.binaries.postgres(), "-D", s.layout.data) //nolint:noctx // the server outlives ctx, and Stop ends it
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = s.layout.data
	cmd.Env = environment()
	cmd.SysProcAttr = s.account.attributes(ownGroup)
	s.watchdog.note("starting")
	if err := cmd.Start(); err != nil {
		s.watchdog.note("stopped")
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	s.watchdog.note("postmaster " + strconv.Itoa(cmd.Process.Pid))
	pm := &postmaster{command: cmd, exited: make(chan struct{})}
	if !s.config.Unattended {
		s.attend(pm)
	}
	if err := s.waitReady(ctx, pm); err != nil {
		s.abort(pm)
		return fmt.Errorf("start PostgreSQL %s in %s: %w%s", versionText(s.binaries.version), s.layout.data, err, s.layout.logTail(logStart))
	}
	s.postmaster = pm
	return nil
}

// attend starts the goroutine that waits for the end of the postmaster, unless it was started.
func (s *Server) attend(pm *postmaster) {
	if pm.attended {
		return
	}
	pm.attended = true
	go func() {
		pm.err = pm.command.Wait()
		s.watchdog.note("stopped")
		close(pm.exited)
	}()
}

// hasEnded reports whether the postmaster has ended, and how.
func (s *Server) hasEnded(pm *postmaster) (ended bool, how error) {
	if !pm.attended {
		if pm.attended, pm.err = reap(pm.command.Process.Pid); pm.attended {
			s.watchdog.note("stopped")
			close(pm.exited)
		}
	}
	select {
	case <-pm.exited:
		return true, cmp.Or(pm.err, errors.New("exit status 0"))
	default:
		return false, nil
	}
}

// abort ends the postmaster without a checkpoint, and waits for its end.
func (s *Server) abort(pm *postmaster) {
	if ended, _ := s.hasEnded(pm); ended {
		return
	}
	s.attend(pm)
	_ = pm.command.Process.Signal(syscall.SIGQUIT)
	pm.waitOrKill(killDelay)
}

// waitReady retries to connect until that succeeds or the postmaster has ended. Only this server
// knows the password, so a connection also proves that no other program listens on the port.
//
// A copy of kept data has no password, so nobody can connect over TCP. It gets one over the Unix
// socket, which only the server's user can reach.
func (s *Server) waitReady(ctx context.Context, pm *postmaster) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if s.layout.passwordUnset {
		err := s.connect(ctx, pm, s.layout.sockets, func(ctx context.Context, conn *pgx.Conn) error {
			secret := s.layout.password
			if s.config.QuickConnect {
				secret = verifier(secret)
			}
			_, err := conn.Exec(ctx, "alter role postgres password '"+secret+"'")
			return err
		})
		if err != nil {
			return err
		}
		s.layout.passwordUnset = false
	}
	return s.connect(ctx, pm, "127.0.0.1", nil)
}

// connect retries until a connection succeeds, and calls use with it. The delays are short at first,
// since a copy is ready within some 50 ms; recovery after a crash takes longer, and each attempt
// costs the server a process.
func (s *Server) connect(ctx context.Context, pm *postmaster, host string, use func(context.Context, *pgx.Conn) error) error {
	config, err := pgx.ParseConfig(s.url("postgres", s.port) + "&" + s.layout.complete().Encode())
	if err != nil {
		return fmt.Errorf("make the connection string: %w", err)
	}
	config.Host, config.ConnectTimeout = host, 5*time.Second
	clear(config.RuntimeParams) // an empty timezone is none

	var last error
	often := retry.WithCappedDuration(100*time.Millisecond, retry.NewFibonacci(2*time.Millisecond))
	err = retry.Do(ctx, often, func(ctx context.Context) error {
		if ended, how := s.hasEnded(pm); ended {
			return fmt.Errorf("postgres ended: %w", how)
		}
		ready := s.layout.isReady(pm.command.Process.Pid)
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			if ctx.Err() == nil {
				last = err
			}
			if ready && !mayPass(err) {
				return fmt.Errorf("it accepts no connection: %w", err)
			}
			return retry.RetryableError(err)
		}
		if use != nil {
			err = use(ctx, conn)
		}
		return errors.Join(err, conn.Close(ctx))
	})
	if errors.Is(err, context.DeadlineExceeded) && last != nil {
		return fmt.Errorf("it accepted no connection within %s: %w", startTimeout, last)
	}
	return err
}

// mayPass reports whether a later attempt to connect to a server that is ready may succeed.
func mayPass(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgerrcode.IsOperatorIntervention(pg.Code) || pgerrcode.IsInsufficientResources(pg.Code)
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
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

// waitOrKill waits for the end of the process, and kills it after the delay.
func (pm *postmaster) waitOrKill(delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-pm.exited:
	case <-timer.C:
		_ = pm.command.Process.Kill()
		<-pm.exited
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

// environment returns the environment of the PostgreSQL programs, without the caller's PG*
// variables, secrets and locale.
func environment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	slices.Sort(env)
	return env
}

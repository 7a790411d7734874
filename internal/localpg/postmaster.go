package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sethvargo/go-retry"
)

// postmaster is one run of the postgres program. The goroutine of attend ends when the program ends.
type postmaster struct {
	command  *exec.Cmd
	attended bool // attend was called
	exited   chan struct{}
	err      error // how it ended; set before exited is closed
}

// killDelay is how long an immediate shutdown may take before SIGKILL. The postmaster gives its
// children 5 s.
const killDelay = 10 * time.Second

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
	config, err := pgx.ParseConfig(s.url("postgres", s.port) + "&" + s.layout.complete())
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

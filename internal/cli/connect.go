package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/sqlschema"
)

// defaultConnectTimeout is how long to wait for a database that may be starting: docker compose and Kubernetes start
// everything at once.
const defaultConnectTimeout = 30 * time.Second

// attemptTimeout bounds one attempt to connect, where the connection string has no connect_timeout of its own.
const attemptTimeout = 10 * time.Second

// target is the database to work on. It prints without the password.
type target struct {
	config *pgx.ConnConfig
	source string // who said so
}

// target reads which database is meant. What is done here works on the schema, under locks of its session: where there is
// a way past a pooler it is taken.
func (a *app) target() (*target, error) {
	if a.global.listenURL != "" {
		return parseTarget(a.global.listenURL, "--listen-url or ROWHOOK_LISTEN_URL")
	}
	return parseTarget(a.global.databaseURL, a.global.source)
}

// checkListenURL refuses a listen URL that can't be read, so that it is found out at once.
func (a *app) checkListenURL() error {
	if a.global.listenURL == "" {
		return nil
	}
	_, err := parseTarget(a.global.listenURL, "--listen-url or ROWHOOK_LISTEN_URL")
	return err
}

func parseTarget(text, source string) (*target, error) {
	c, err := session.Parse(text)
	if err != nil {
		return nil, usagef("can't read the connection string of %s: %s; write postgres://user:password@host:5432/database?sslmode=require, "+
			"with special characters of the password percent-encoded", source, err)
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "rowhook"
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = attemptTimeout
	}
	return &target{config: c, source: source}, nil
}

// throughPooler returns the target for what only looks: its statements are not prepared by name, since a pooler may hand the next one to
// another session, in which another process has prepared the same.
func (t *target) throughPooler() *target {
	config := t.config.Copy()
	pg.ThroughPooler(config)
	return &target{config: config, source: t.source}
}

// String names the database in messages.
func (t *target) String() string {
	where := t.address()
	for _, f := range t.config.Fallbacks {
		if other := address(f.Host, f.Port); !strings.Contains(where, other) {
			where += ", " + other
		}
	}
	return fmt.Sprintf("Postgres at %s as user %q, database %q", where, t.config.User, t.database())
}

func (t *target) address() string { return address(t.config.Host, t.config.Port) }

func (t *target) database() string {
	if t.config.Database == "" {
		return t.config.User // as the server does
	}
	return t.config.Database
}

func address(host string, port uint16) string {
	if strings.HasPrefix(host, "/") {
		return fmt.Sprintf("the socket %s/.s.PGSQL.%d", host, port)
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// connect opens a connection. While the database may be just starting it tries again, for as long as wait says.
func (a *app) connect(ctx context.Context, t *target, wait time.Duration) (conn *pgx.Conn, err error) {
	started := time.Now()
	waited, err := a.patiently(ctx, t, wait, func(ctx context.Context) error {
		var err error
		conn, err = session.Connect(ctx, t.config)
		return err
	})
	if waited && err == nil {
		a.log.Info("connected to Postgres", "after", time.Since(started).Round(time.Millisecond))
	}
	return conn, err
}

// connectChecked opens the database for a command of operators, after check has found its schema right.
func (a *app) connectChecked(ctx context.Context, wait time.Duration, check func(context.Context, *pgx.Conn, *target) error) (*pgx.Conn, error) {
	target, err := a.target()
	if err != nil {
		return nil, err
	}
	conn, err := a.connect(ctx, target, wait)
	if err != nil {
		return nil, err
	}
	if err = check(ctx, conn, target); err == nil {
		err = pg.Pin(ctx, conn)
	}
	if err == nil {
		a.quiet(ctx, conn)
	}
	if err != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // the error says enough
		return nil, explain(err)
	}
	return conn, nil
}

// quiet silences the doorbell where no dispatcher is left that hears it. Writers then notify no more.
func (a *app) quiet(ctx context.Context, conn *pgx.Conn) {
	if err := queue.SilenceForNobody(ctx, conn); err != nil {
		a.log.Debug("can't silence the doorbell", "error", err) // the command can do without
	}
}

// patiently calls do, and again for as long as wait says where it could not connect and that may be over in a moment. Other errors of do are
// returned as they are. It reports whether it has said that it waits.
func (a *app) patiently(ctx context.Context, t *target, wait time.Duration, do func(context.Context) error) (waited bool, err error) {
	var (
		last error
		said string
	)
	started := time.Now()
	backoff := retry.WithCappedDuration(2*time.Second, retry.WithJitterPercent(20, retry.NewExponential(100*time.Millisecond)))
	err = retry.Do(ctx, retry.WithMaxDuration(wait, backoff), func(ctx context.Context) error {
		err := do(ctx)
		if last = err; !isConnect(err) || ctx.Err() != nil {
			return err
		}
		what, transient := diagnoseConnect(err)
		if !transient {
			return err
		}
		if what.problem != said && time.Since(started)+100*time.Millisecond < wait {
			said = what.problem
			a.log.Info("waiting for Postgres", "at", t.address(), "because", what.problem, "for_up_to", (wait - time.Since(started)).Round(time.Second))
		}
		return retry.RetryableError(err)
	})
	switch {
	case err == nil:
		return said != "", nil
	case ctx.Err() != nil:
		return said != "", errors.New("interrupted while connecting to " + t.address())
	case !isConnect(last):
		return said != "", err
	}
	what, transient := diagnoseConnect(last)
	if transient && said != "" {
		what.problem += fmt.Sprintf(", for %s", time.Since(started).Round(time.Second))
	}
	return said != "", fmt.Errorf("can't connect to %s: %s; %s", t, what.problem, what.remedyFor(t.source))
}

func isConnect(err error) bool {
	var connect *pgconn.ConnectError
	var lost *lostError
	return errors.As(err, &connect) || errors.As(err, &lost)
}

// lostError says that a connection that had been made was lost.
type lostError struct{ err error }

func (e *lostError) Error() string { return "the connection was lost: " + e.err.Error() }

// Unwrap returns what the connection's last statement failed with.
func (e *lostError) Unwrap() error { return e.err }

// look connects and calls f, and both again for as long as wait says where the connection can't be made yet or is lost.
func (a *app) look(ctx context.Context, t *target, wait time.Duration, f func(context.Context, *pgx.Conn) error) error {
	_, err := a.patiently(ctx, t, wait, func(ctx context.Context) error {
		conn, err := session.Connect(ctx, t.config)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if err = f(ctx, conn); err != nil && conn.IsClosed() && ctx.Err() == nil {
			return &lostError{err}
		}
		return err
	})
	return err
}

// checkInstalled says what to do where the database has no queue that this program's dispatchers can work on.
func checkInstalled(ctx context.Context, conn *pgx.Conn, t *target) error {
	if err := sqlschema.CheckRights(ctx, conn); err != nil {
		return explain(err)
	}
	_, _, err := sqlschema.Compatible(ctx, conn)
	var missing *sqlschema.NotInstalledError
	switch {
	case errors.As(err, &missing) && missing.Database == 0:
		return fmt.Errorf("the database %q has no schema rowhook: run \"rowhook apply -f rowhook.yaml\" first, or start with -f rowhook.yaml, which applies it",
			t.database())
	case err != nil:
		return explain(err)
	}
	_, err = sqlschema.CheckServer(ctx, conn)
	return explain(err)
}

// checkCurrent is checkInstalled for what needs all that this program knows of.
func checkCurrent(ctx context.Context, conn *pgx.Conn, t *target) error {
	if err := checkInstalled(ctx, conn, t); err != nil {
		return err
	}
	have, want, err := sqlschema.Version(ctx, conn)
	if err == nil && have < want {
		err = fmt.Errorf("the schema rowhook of the database %q is at version %d and this command needs %d: run \"rowhook migrate\" of this version first", t.database(), have, want)
	}
	return explain(err)
}

// lookPath finds a program, or nothing.
func lookPath(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

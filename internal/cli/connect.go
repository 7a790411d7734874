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

// defaultConnectTimeout is how long a command waits for a database that may be starting. docker
// compose and Kubernetes start everything at once.
const defaultConnectTimeout = 30 * time.Second

// attemptTimeout bounds one attempt to connect, unless the connection string sets connect_timeout.
const attemptTimeout = 10 * time.Second

// target is the database to work on. String leaves the password out.
type target struct {
	config *pgx.ConnConfig
	source string // the flag or variable that named it
}

// target returns the database of a command that changes the schema. Such a command holds locks in
// its session, so it connects past the pooler, if the listen URL is set.
func (a *app) target() (*target, error) {
	a, err := a.one()
	if err != nil {
		return nil, err
	}
	if a.global.listenURL != "" {
		return parseTarget(a.global.listenURL, a.listenOrigin())
	}
	return parseTarget(a.global.databaseURL, a.global.source)
}

// databaseTarget returns the database as dispatchers claim, perhaps through a pooler.
func (a *app) databaseTarget() (*target, error) {
	a, err := a.one()
	if err != nil {
		return nil, err
	}
	return parseTarget(a.global.databaseURL, a.global.source)
}

// listenOrigin names the flag or key that has the listen URL.
func (a *app) listenOrigin() string {
	if a.source != nil {
		return "listen_url of the source " + a.source.Name
	}
	return "--listen-url or ROWHOOK_LISTEN_URL"
}

// checkListenURL rejects an invalid listen URL at start-up.
func (a *app) checkListenURL() error {
	if a.global.listenURL == "" {
		return nil
	}
	_, err := parseTarget(a.global.listenURL, a.listenOrigin())
	return err
}

func parseTarget(text, source string) (*target, error) {
	c, err := session.Parse(text)
	if err != nil && strings.Contains(err.Error(), "failed to configure TLS") {
		return nil, usagef("invalid connection string in %s: %s; correct sslrootcert, sslcert, sslkey or sslmode", source, err)
	}
	if err != nil {
		return nil, usagef("invalid connection string in %s: %s; write postgres://user:password@host:5432/database?sslmode=require, "+
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

// throughPooler returns the target for commands that only read, and may do so through a pooler.
func (t *target) throughPooler() *target {
	config := t.config.Copy()
	pg.ThroughPooler(config)
	return &target{config: config, source: t.source}
}

// String returns the name of the database for messages.
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
		return t.config.User // the server does the same
	}
	return t.config.Database
}

func address(host string, port uint16) string {
	if strings.HasPrefix(host, "/") {
		return fmt.Sprintf("the socket %s/.s.PGSQL.%d", host, port)
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// connect opens a connection. It retries for up to wait while the database may be starting.
func (a *app) connect(ctx context.Context, t *target, wait time.Duration) (conn *pgx.Conn, err error) {
	started := time.Now()
	waited, err := a.patiently(ctx, t, wait, func(ctx context.Context) error {
		var err error
		conn, err = session.Connect(ctx, t.config)
		return err
	})
	if err == nil {
		if err = a.distinct.look(ctx, conn, a.sourceName()); err != nil {
			_ = conn.Close(context.WithoutCancel(ctx)) // the first error is what matters
			return nil, err
		}
	}
	if waited && err == nil {
		a.log.Info("connected to Postgres", "after", time.Since(started).Round(time.Millisecond))
	}
	return conn, err
}

// open opens a connection to the target.
func (a *app) open(ctx context.Context, wait time.Duration) (*pgx.Conn, *target, error) {
	t, err := a.target()
	if err != nil {
		return nil, nil, err
	}
	conn, err := a.connect(ctx, t, wait)
	return conn, t, err
}

// connectChecked opens a pinned connection for a command of operators. check must accept the
// schema.
func (a *app) connectChecked(ctx context.Context, wait time.Duration, check func(context.Context, *pgx.Conn, *target) error) (*pgx.Conn, error) {
	conn, target, err := a.open(ctx, wait)
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
		_ = conn.Close(context.WithoutCancel(ctx)) // the first error is what matters
		return nil, explain(err)
	}
	return conn, nil
}

// quiet silences the doorbell if no dispatcher is alive to hear it, so that writers stop notifying.
func (a *app) quiet(ctx context.Context, conn *pgx.Conn) {
	if err := queue.SilenceForNobody(ctx, conn); err != nil {
		a.log.Debug("can't silence the doorbell", "error", err) // the command works without
	}
}

// patiently calls do, and retries for up to wait while do can't connect for a reason that may pass.
// It returns other errors of do unchanged. waited reports whether it has logged that it waits.
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
			a.log.Info("waiting for Postgres", "at", t.address(), "because", what.problem, "remedy", what.remedyFor(t.source), "for_up_to", (wait - time.Since(started)).Round(time.Second))
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
	return said != "", fmt.Errorf(cantConnect+" %s: %s; %s", t, what.problem, what.remedyFor(t.source))
}

// cantConnect begins the error of a database that can't be reached.
const cantConnect = "can't connect to"

func isConnect(err error) bool {
	var connect *pgconn.ConnectError
	var lost *lostError
	return errors.As(err, &connect) || errors.As(err, &lost)
}

// lostError is the loss of an open connection.
type lostError struct{ err error }

func (e *lostError) Error() string { return "the connection was lost: " + e.err.Error() }

// Unwrap returns the error of the last statement on the connection.
func (e *lostError) Unwrap() error { return e.err }

// look connects and calls f. It retries both for up to wait if it can't connect or the connection
// is lost.
func (a *app) look(ctx context.Context, t *target, wait time.Duration, f func(context.Context, *pgx.Conn) error) error {
	_, err := a.patiently(ctx, t, wait, func(ctx context.Context) error {
		conn, err := session.Connect(ctx, t.config)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if err = a.distinct.look(ctx, conn, a.sourceName()); err == nil {
			err = f(ctx, conn)
		}
		if err != nil && conn.IsClosed() && ctx.Err() == nil {
			return &lostError{err}
		}
		return err
	})
	return err
}

// checkInstalled returns an error with a remedy if dispatchers of this version can't work on the
// schema of the database.
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

// checkCurrent is checkInstalled for commands that need the schema of this version.
func checkCurrent(ctx context.Context, conn *pgx.Conn, t *target) error {
	if err := checkInstalled(ctx, conn, t); err != nil {
		return err
	}
	have, want, err := sqlschema.Version(ctx, conn)
	if err == nil && have < want {
		err = fmt.Errorf("the schema rowhook of the database %q is at version %d, and this command needs %d: run \"rowhook migrate\" of this version first", t.database(), have, want)
	}
	return explain(err)
}

// lookPath returns the path of a program, or "".
func lookPath(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"crypto/rand"

	"github.com/rowhook/rowhook/internal/pg"
)

// knownPooler is a pooler that the host and port of a connection string tell.
type knownPooler struct {
	name    string
	session bool   // it gives each client a session of its own, so LISTEN works
	direct  string // the way past it
}

// poolerOf names the pooler behind an address; "": the address tells of none.
func poolerOf(host string, port uint16) knownPooler {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	first, rest, _ := strings.Cut(host, ".")
	of := func(domain string) bool { return strings.HasSuffix(host, "."+domain) }
	switch {
	case of("neon.tech") && strings.HasSuffix(first, "-pooler"), of("neon.build") && strings.HasSuffix(first, "-pooler"):
		return knownPooler{name: "Neon's pooler", direct: "the same with the host " + strings.TrimSuffix(first, "-pooler") + "." + rest}
	case of("pooler.supabase.com") && port == 6543:
		return knownPooler{name: "Supavisor in transaction mode", direct: "the same with port 5432 (session mode), or the direct connection db.PROJECT.supabase.co:5432"}
	case of("pooler.supabase.com"):
		return knownPooler{name: "Supavisor in session mode", session: true}
	case of("supabase.co") && port == 6543:
		return knownPooler{name: "Supabase's dedicated PgBouncer", direct: "the same with port 5432"}
	case of("rds.amazonaws.com") && strings.Contains(host, ".proxy-"):
		return knownPooler{name: "an RDS Proxy", direct: "the endpoint of the instance or the cluster's writer"}
	case of("postgres.database.azure.com") && port == 6432:
		return knownPooler{name: "Azure's PgBouncer", direct: "the same with port 5432"}
	}
	return knownPooler{}
}

// connectHint says what keeps clients from connecting to a host of this name, or "".
func connectHint(host string) string {
	switch host = strings.ToLower(host); {
	case strings.HasPrefix(host, "db.") && strings.HasSuffix(host, ".supabase.co"):
		return "Supabase's direct host has an IPv6 address alone, unless the project has the IPv4 add-on: from a network without IPv6 use the session pooler (port 5432 of pooler.supabase.com)"
	case strings.HasSuffix(host, ".neon.tech"):
		return "a compute of Neon that sleeps wakes within a second: try again"
	}
	return ""
}

// way is what was found out about an endpoint.
type way struct {
	known   knownPooler
	shared  bool // sessions are shared among clients: each transaction may run in another one
	proxied bool // somebody else than the server has answered the connection
}

// String names what is in the way.
func (w way) String() string {
	if w.known.name != "" {
		return w.known.name
	}
	return "a pooler that shares sessions, such as PgBouncer, PgDog, Odyssey or Supavisor in transaction mode"
}

// past says which URL to set.
func (w way) past() string {
	if w.known.direct != "" {
		return w.known.direct
	}
	return "a direct connection to the same database (or a pooler in session mode)"
}

// inspect finds out what is behind an endpoint. It sends nothing but queries, and keeps nothing in a
// session, as the next client of a pooler would find it there.
//
// A server tells each client the process that serves it. With a pooler in between, that is not the
// process that answers. If sessions are shared, two clients at rest meet in the same process, or
// one client meets another process while somebody else is in a transaction.
func (e *examination) inspect(ctx context.Context, at Endpoint, first *pgx.Conn) (w way, err error) {
	config := first.Config()
	w.known = poolerOf(config.Host, config.Port)
	pid := func(db pg.Queryer) (n uint32, err error) {
		if err := db.QueryRow(ctx, "select pg_catalog.pg_backend_pid()").Scan(&n); err != nil {
			return 0, fmt.Errorf("ask for the process: %w", err)
		}
		return n, nil
	}
	own, err := pid(first)
	if err != nil {
		return w, err
	}
	w.proxied = own != first.PgConn().PID()
	if !w.proxied {
		return w, nil // the server itself has answered
	}
	other, err := open(ctx, at, true)
	if err != nil {
		return w, fmt.Errorf("connect a second time: %w", err)
	}
	defer other.Close(context.WithoutCancel(ctx))
	tx, err := other.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return w, fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only reads
	if theirs, err := pid(tx); err != nil || theirs == own {
		w.shared = theirs == own
		return w, err
	}
	again, err := pid(first)
	if err != nil {
		return w, err
	}
	if err := tx.Rollback(ctx); err != nil {
		return w, fmt.Errorf("end a transaction: %w", err)
	}
	last, err := pid(first)
	w.shared = again != own || last != own
	return w, err
}

// checkPooler finds out whether a pooler stands before the server, and whether dispatchers can work
// with that.
func (e *examination) checkPooler(ctx context.Context) error {
	if e.main.IsClosed() {
		if err := e.look(ctx, func(pgx.Tx) error { return nil }); err != nil {
			return err
		}
	}
	w, err := e.inspect(ctx, e.Database, e.main)
	if err != nil {
		return err
	}
	e.pooled = w.shared || w.known.name != "" && !w.known.session
	switch {
	case e.pooled && e.Polls:
		e.ok("%s leads through %s, and with --no-listen dispatchers find events by polling", e.Database.Source, w)
	case e.pooled && e.Listen != nil:
		e.ok("%s leads through %s, and ROWHOOK_LISTEN_URL says where to listen", e.Database.Source, w)
	case e.pooled:
		e.fail("set ROWHOOK_LISTEN_URL to "+w.past()+"; or find events by polling, with --no-listen", "%s leads through %s, through which LISTEN does not work", e.Database.Source, w)
	case w.known.session:
		e.ok("%s leads through %s, which gives each client a session of its own", e.Database.Source, w)
	case w.proxied:
		e.ok("%s leads through a proxy, or a pooler that gives each client a session of its own", e.Database.Source)
	default:
		e.ok("%s leads to the server itself", e.Database.Source)
	}
	return nil
}

// checkListen sends real notifications the way that writers' arrive, and waits for them where
// dispatchers listen.
func (e *examination) checkListen(ctx context.Context) error {
	switch {
	case e.Polls:
		e.ok("not tried: with --no-listen, events are found by polling, as late as --poll-interval")
		return nil
	case e.standby || e.other || e.pooled && e.Listen == nil:
		return nil // it was said
	}
	at := e.Database
	if e.Listen != nil {
		at = *e.Listen
	}
	conn, err := open(ctx, at, true)
	if err != nil {
		problem, remedy := e.Diagnose(err, at.Source)
		e.fail(remedy, "can't connect to %s: %s", at.Where, problem)
		return nil
	}
	e.second = conn
	if e.Listen != nil {
		if stop, err := e.compareWays(ctx, at, conn); stop || err != nil {
			return err
		}
	}
	return e.tryListen(ctx, at, conn)
}

// compareWays reports whether the way to listen leads to another database, or through a pooler.
func (e *examination) compareWays(ctx context.Context, at Endpoint, conn *pgx.Conn) (stop bool, err error) {
	type place struct {
		Database string
		OID      uint32
		Started  time.Time
	}
	where := func(conn *pgx.Conn) (p place, err error) {
		err = e.lookBy(ctx, conn, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, "select datname::text, oid, pg_postmaster_start_time() from pg_database where datname = current_database()").Scan(&p.Database, &p.OID, &p.Started)
		})
		return p, err
	}
	mine, err := where(e.main)
	if err != nil {
		return false, err
	}
	theirs, err := where(conn)
	if err != nil {
		return false, err
	}
	switch {
	case !mine.Started.Equal(theirs.Started):
		e.fail("set both to the same server", "%s leads to another server than %s: notifications do not pass from one to the other", at.Source, e.Database.Source)
		return true, nil
	case mine != theirs:
		e.fail("set both to the same database", "%s leads to the database %q, and %s to %q: notifications do not pass from one to the other", at.Source, theirs.Database, e.Database.Source, mine.Database)
		return true, nil
	}
	w, err := e.inspect(ctx, at, conn)
	if err != nil {
		return false, err
	}
	if w.shared || w.known.name != "" && !w.known.session {
		e.fail("set it to "+w.past(), "%s leads through %s, through which LISTEN does not work", at.Source, w)
		return true, nil
	}
	return false, nil
}

// tryListen sends some notifications on a channel that nobody else knows.
func (e *examination) tryListen(ctx context.Context, at Endpoint, conn *pgx.Conn) error {
	const tries = 3
	channel := "rowhook_doctor_" + strings.ToLower(rand.Text())
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	best := time.Hour
	for n := range tries {
		began := time.Now()
		if _, err := e.main.Exec(ctx, "select pg_catalog.pg_notify($1, $2)", channel, strconv.Itoa(n)); err != nil {
			return fmt.Errorf("notify: %w", err)
		}
		sent := time.Since(began)
		for {
			got, err := conn.WaitForNotification(ctx)
			if err != nil {
				if ctx.Err() == nil && !isTimeout(err) {
					return fmt.Errorf("wait for a notification: %w", err)
				}
				e.fail("set ROWHOOK_LISTEN_URL to a direct connection to the server; or find events by polling, with --no-listen",
					"a notification sent by %s did not arrive by %s within %s: changes would be found by polling alone", e.Database.Source, at.Source, e.Timeout)
				return nil
			}
			if got.Channel == channel && got.Payload == strconv.Itoa(n) {
				break
			}
		}
		best = min(best, time.Since(began)-sent/2)
	}
	if _, err := conn.Exec(ctx, "unlisten "+channel); err != nil {
		return fmt.Errorf("stop listening: %w", err)
	}
	e.ok("LISTEN works by %s: a notification arrived within %s", at.Source, round(best))
	return nil
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

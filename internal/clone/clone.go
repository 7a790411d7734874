// Package clone makes databases for tests, by cloning templates on a server whose role may create
// databases. A clone takes some 35 ms.
//
// A template is made once for each key and role, under a lock, and serves later runs and other
// processes.
// Templates unused for a day are dropped, as are databases of killed runs.
package clone

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/session"
)

// Names of databases. That of a template has a hash of what it depends on behind the prefix. That of
// any other database has the time, by which Sweep finds those of killed runs, and random letters. A
// template that is being made has such a name, too, and gets its own when it is complete.
const (
	templatePrefix = "rowhook_template_"
	databasePrefix = "rowhook_test_"
	leftoverAge    = 24 * time.Hour
)

// usedEvery is the interval at which the use of a template is recorded. It is far below leftoverAge.
const usedEvery = time.Hour

// strategySince is the oldest version whose CREATE DATABASE has strategies. FILE_COPY takes 35 ms,
// and the database is dropped in 10 ms. WAL_LOG takes 40 to 80 ms, and 30 to 40 ms for the drop.
// Where fsync is on, dropping takes 310 ms after FILE_COPY, and 440 ms after WAL_LOG.
const strategySince = 15

// leaveTime is how long sessions may take to leave a database.
const leaveTime = 10 * time.Second

// Template says what its clones hold.
type Template struct {
	// Key is everything that the content depends on. The same key is the same template, for the same
	// role.
	Key string
	// Base is the database that the template is itself made of, such as template0. "": template1, as
	// for createdb.
	Base string
	// Make fills the template. It must leave no session open.
	Make func(ctx context.Context, databaseURL string) error

	place string // what it depends on at its server; see at
}

// at returns the template of the role that a session acts as. Each role has its own: what is in a
// clone belongs to whoever has made the template, and another role would lack the rights. A role
// that has become a superuser, or is one no longer, may make another content by the same Make. The
// base may be another database under the same name.
func (t Template) at(ctx context.Context, admin *pgx.Conn) (Template, error) {
	err := admin.QueryRow(ctx, `
select pg_catalog.concat_ws(' ', r.oid, r.rolsuper, d.oid)
  from pg_catalog.pg_roles r left join pg_catalog.pg_database d on d.datname = $1 where r.rolname = current_user`, t.base()).Scan(&t.place)
	if err != nil {
		return t, fmt.Errorf("look for the role of the template database: %w", err)
	}
	return t, nil
}

func (t Template) name() string {
	sum := sha256.Sum256([]byte(t.base() + "\n" + t.place + "\n" + t.Key))
	return templatePrefix + hex.EncodeToString(sum[:10])
}

// lock is the key of the advisory lock under which the template is made. It only saves work: that a
// template gets its name when it is complete is what makes it safe.
func (t Template) lock() int64 {
	sum := sha256.Sum256([]byte(t.name()))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

func (t Template) base() string {
	if t.Base == "" {
		return "template1"
	}
	return t.Base
}

// Database is a database for one test.
type Database struct {
	Name, URL string
	server    string
}

// New clones a template, which it makes if it is missing. server is the connection string of any
// database of the server, for a role that may create databases.
func New(ctx context.Context, server string, t Template) (*Database, error) {
	return create(ctx, server, func(ctx context.Context, admin *pgx.Conn, name string) error {
		return t.clone(ctx, admin, server, name)
	})
}

// NewBy is New by a session of the server that is open already.
func NewBy(ctx context.Context, admin *pgx.Conn, server string, t Template) (*Database, error) {
	d, err := newDatabase(server)
	if err != nil {
		return nil, err
	}
	if err := t.clone(ctx, admin, server, d.Name); err != nil {
		return nil, err
	}
	return d, nil
}

// clone makes a database of the template. Another process may drop the template between the two
// steps.
func (t Template) clone(ctx context.Context, admin *pgx.Conn, server, name string) (err error) {
	if t, err = t.at(ctx, admin); err != nil {
		return err
	}
	for range 3 {
		if err = t.ensure(ctx, admin, server); err != nil {
			return err
		}
		if err = copyDatabase(ctx, admin, name, t.name()); !pg.IsState(err, pgerrcode.InvalidCatalogName) {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := copySettings(ctx, admin, name, t.name()); err != nil {
		return errors.Join(err, drop(context.WithoutCancel(ctx), admin, name))
	}
	return nil
}

// copySettings gives a database the settings that ALTER DATABASE and ALTER ROLE IN DATABASE have made
// for another one. CREATE DATABASE leaves them out.
func copySettings(ctx context.Context, admin *pgx.Conn, name, from string) error {
	type setting struct{ Role, Name, Value string }
	all, err := pg.Collect[setting](ctx, admin, `
select coalesce(r.rolname, '') as role, split_part(c.text, '=', 1) as name, substr(c.text, strpos(c.text, '=') + 1) as value
  from pg_catalog.pg_database d
  join pg_catalog.pg_db_role_setting s on s.setdatabase = d.oid
  left join pg_catalog.pg_roles r on r.oid = s.setrole
 cross join unnest(s.setconfig) as c (text)
 where d.datname = $1`, from)
	if err != nil {
		return fmt.Errorf("read the settings of the template database: %w", err)
	}
	for _, s := range all {
		of := "database " + name
		if s.Role != "" {
			of = "role " + pg.QuoteName(s.Role) + " in " + of
		}
		// The value is as SHOW writes it, so a list has its quotes. The session takes it over.
		err := pgx.BeginFunc(ctx, admin, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "select pg_catalog.set_config($1, $2, true)", s.Name, s.Value); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "alter "+of+" set "+pg.QuoteName(strings.Split(s.Name, ".")...)+" from current")
			return err
		})
		if err != nil {
			return fmt.Errorf("copy the setting %s of the template database: %w", s.Name, err)
		}
	}
	return nil
}

// Empty makes a copy of a database that is there, such as template0. Nobody may be connected to it.
func Empty(ctx context.Context, server, base string) (*Database, error) {
	return create(ctx, server, func(ctx context.Context, admin *pgx.Conn, name string) error {
		return copyDatabase(ctx, admin, name, base)
	})
}

// InEncoding makes an empty database with another encoding than the server's, such as LATIN1.
func InEncoding(ctx context.Context, server, encoding string) (*Database, error) {
	return create(ctx, server, func(ctx context.Context, admin *pgx.Conn, name string) error {
		return createDatabase(ctx, admin, name, "template0 encoding "+pg.StringLiteral(encoding)+" lc_collate 'C' lc_ctype 'C'")
	})
}

// create makes a database by a session of the server.
func create(ctx context.Context, server string, by func(ctx context.Context, admin *pgx.Conn, name string) error) (*Database, error) {
	d, err := newDatabase(server)
	if err != nil {
		return nil, err
	}
	admin, err := Connect(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("connect to the server of the tests: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	if err := by(ctx, admin, d.Name); err != nil {
		return nil, err
	}
	return d, nil
}

// newDatabase names a database that is to be made.
func newDatabase(server string) (d *Database, err error) {
	d = &Database{Name: databaseName(), server: server}
	d.URL, err = WithDatabase(server, d.Name)
	return d, err
}

// Connect opens a session. While the server has no session left, it tries again.
func Connect(ctx context.Context, url string) (conn *pgx.Conn, err error) {
	config, err := session.Parse(url)
	if err != nil {
		return nil, fmt.Errorf("read the connection string: %w", err)
	}
	err = Persist(ctx, func(ctx context.Context) error {
		conn, err = session.Connect(ctx, config)
		return err
	})
	return conn, err
}

// Persist calls connect again as long as the server has no session left, until ctx ends.
func Persist(ctx context.Context, connect func(context.Context) error) error {
	return retry.Do(ctx, often(), func(ctx context.Context) error {
		err := connect(ctx)
		if pg.IsState(err, pgerrcode.TooManyConnections) {
			return retry.RetryableError(err)
		}
		return err
	})
}

func often() retry.Backoff {
	return retry.WithCappedDuration(50*time.Millisecond, retry.NewFibonacci(2*time.Millisecond))
}

func databaseName() string {
	return databasePrefix + strconv.FormatInt(time.Now().Unix(), 10) + "_" + strings.ToLower(rand.Text()[:12])
}

func copyDatabase(ctx context.Context, admin *pgx.Conn, name, from string) error {
	template := pgx.Identifier{from}.Sanitize()
	if version(admin) >= strategySince {
		template += " strategy file_copy"
	}
	return createDatabase(ctx, admin, name, template)
}

// createDatabase makes a database. template is SQL: the template, and options behind it.
func createDatabase(ctx context.Context, admin *pgx.Conn, name, template string) error {
	_, err := admin.Exec(ctx, "create database "+name+" template "+template)
	switch {
	case pg.IsState(err, pgerrcode.InsufficientPrivilege):
		return fmt.Errorf("make a database for tests: %w%s", err, lackOf(ctx, admin))
	case err != nil:
		return fmt.Errorf("make a database for tests: %w", err)
	}
	return nil
}

// lackOf returns the remedy where a role may not make a database.
func lackOf(ctx context.Context, admin *pgx.Conn) string {
	var role string
	var creates bool
	err := admin.QueryRow(ctx, "select rolname, rolcreatedb or rolsuper from pg_catalog.pg_roles where rolname = current_user").Scan(&role, &creates)
	switch {
	case err != nil:
		return "" // the first error is what matters
	case creates:
		return "; the role " + pg.QuoteName(role) + " may copy only databases that are its own or that are templates: alter database NAME is_template true"
	}
	return "; the role of the connection string needs the right: alter role " + pg.QuoteName(role) + " createdb"
}

// version returns the major version of the server, such as 15.
func version(conn *pgx.Conn) int {
	text := conn.PgConn().ParameterStatus("server_version")
	major, err := strconv.Atoi(text[:len(text)-len(strings.TrimLeft(text, "0123456789"))])
	if err != nil {
		return 0 // a fork that hides it: no strategy
	}
	return major
}

// ensure makes the template unless it is there, and records its use.
func (t Template) ensure(ctx context.Context, admin *pgx.Conn, server string) error {
	if found, err := t.use(ctx, admin); err != nil || found {
		return err
	}
	if _, err := admin.Exec(ctx, "select pg_catalog.pg_advisory_lock($1)", t.lock()); err != nil {
		return fmt.Errorf("lock the template database: %w", err)
	}
	defer admin.Exec(context.WithoutCancel(ctx), "select pg_catalog.pg_advisory_unlock($1)", t.lock()) //nolint:errcheck // the end of the session releases the lock, too
	if found, err := t.use(ctx, admin); err != nil || found {
		return err
	}
	return t.make(ctx, admin, server)
}

// use reports whether the template is there. It records that it is in use.
func (t Template) use(ctx context.Context, admin *pgx.Conn) (found bool, err error) {
	var used string
	err = admin.QueryRow(ctx, "select coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '') from pg_catalog.pg_database where datname = $1", t.name()).Scan(&used)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for the template database: %w", err)
	}
	if time.Since(usedAt(used)) > usedEvery {
		// If it fails, the next use records it: another one did at the same time, or the template is
		// being dropped.
		_, _ = admin.Exec(ctx, comment(t.name()))
	}
	return true, nil
}

func comment(name string) string {
	return "comment on database " + name + " is 'used " + time.Now().UTC().Format(time.RFC3339) + "'"
}

// usedAt reads a comment. One that is not as written by comment counts as long ago.
func usedAt(comment string) time.Time {
	at, err := time.Parse(time.RFC3339, strings.TrimPrefix(comment, "used "))
	if err != nil {
		return time.Time{}
	}
	return at
}

// make makes the template under another name, and gives it its own at the end. So no template is
// ever half made. If somebody without the lock was faster, that one's is used.
func (t Template) make(ctx context.Context, admin *pgx.Conn, server string) (err error) {
	draft, err := Empty(ctx, server, t.base())
	if err != nil {
		return fmt.Errorf("make the template database: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, drop(context.WithoutCancel(ctx), admin, draft.Name))
		}
	}()
	if err := t.Make(ctx, draft.URL); err != nil {
		return err
	}
	if err := empty(ctx, admin, draft.Name); err != nil {
		return err
	}
	_, err = admin.Exec(ctx, "alter database "+draft.Name+" rename to "+t.name())
	if pg.IsState(err, pgerrcode.DuplicateDatabase) {
		return drop(ctx, admin, draft.Name)
	} else if err == nil {
		_, err = admin.Exec(ctx, comment(t.name()))
	}
	if err != nil {
		return fmt.Errorf("finish the template database: %w", err)
	}
	return nil
}

// empty forbids connections to the template, and waits until nobody is connected: it could be neither
// renamed nor cloned. Postgres itself looks each 100 ms only.
func empty(ctx context.Context, admin *pgx.Conn, name string) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	if _, err := admin.Exec(ctx, "alter database "+name+" is_template true allow_connections false"); err != nil {
		return fmt.Errorf("finish the template database: %w", err)
	}
	return retry.Do(ctx, often(), func(ctx context.Context) error {
		var left int
		err := admin.QueryRow(ctx, "select count(pg_catalog.pg_terminate_backend(pid)) from pg_catalog.pg_stat_activity where datname = $1 and usesysid is not null", name).Scan(&left)
		if err != nil {
			return fmt.Errorf("end the sessions in the template database: %w", err)
		}
		if left > 0 {
			return retry.RetryableError(errors.New("sessions stay in the template database"))
		}
		return nil
	})
}

func dropSQL(name string) string {
	return "drop database if exists " + pgx.Identifier{name}.Sanitize() + " with (force)"
}

// Drop drops the database, and ends the sessions in it. It waits for the server up to a time: the
// server goes on by itself. So an error after that time is not seen, and Sweep drops the database a
// day later. Where fsync is on, dropping takes some 300 ms, and the next test need not wait for it.
func (d *Database) Drop(ctx context.Context, patience time.Duration) error {
	admin, err := Connect(ctx, d.server)
	if err != nil {
		return fmt.Errorf("drop the test's database: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	return d.DropBy(ctx, admin, patience)
}

// DropBy is Drop by a session of the server that is open already. It ends the session.
func (d *Database) DropBy(ctx context.Context, admin *pgx.Conn, patience time.Duration) error {
	// Postgres does not drop a database that has a replication slot.
	_, err := admin.Exec(ctx, "select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where database = $1 and not active", d.Name)
	if err == nil {
		err = leave(ctx, admin, dropSQL(d.Name), patience)
	}
	if err != nil {
		return fmt.Errorf("drop the test's database: %w", err)
	}
	return nil
}

// Sweep drops what nobody uses any more: databases of killed runs, and templates that no run has
// used for a day. It leaves those that belong to other roles, and those that Postgres does not let
// it drop, such as one where another role has a session: the next Sweep tries again.
func Sweep(ctx context.Context, server string) error {
	admin, err := Connect(ctx, server)
	if err != nil {
		return fmt.Errorf("connect to the server of the tests: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	rows, err := admin.Query(ctx, `
select datname, coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '')
  from pg_catalog.pg_database where datname ~ '^rowhook_(template|test)_' and pg_catalog.pg_has_role(datdba, 'usage')`)
	if err != nil {
		return fmt.Errorf("look for old test databases: %w", err)
	}
	type found struct{ Name, Comment string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[found])
	if err != nil {
		return fmt.Errorf("look for old test databases: %w", err)
	}
	for _, f := range all {
		if time.Since(lastUse(f.Name, f.Comment)) < leftoverAge {
			continue
		}
		var refused *pgconn.PgError
		if err := drop(ctx, admin, f.Name); err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	return nil
}

// Forget drops the template of the connection string's role, if it is there.
func (t Template) Forget(ctx context.Context, server string) error {
	admin, err := Connect(ctx, server)
	if err != nil {
		return fmt.Errorf("drop the template: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	if t, err = t.at(ctx, admin); err != nil {
		return err
	}
	return drop(ctx, admin, t.name())
}

// lastUse returns when a database was last used, by its name or, for a template, its comment. Names
// that are not ours count as used now.
func lastUse(name, comment string) time.Time {
	if strings.HasPrefix(name, templatePrefix) {
		if at := usedAt(comment); !at.IsZero() {
			return at
		}
		name = databasePrefix + strings.TrimPrefix(name, templatePrefix) // of an older version: with its time
	}
	seconds, _, _ := strings.Cut(strings.TrimPrefix(name, databasePrefix), "_")
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || len(seconds) < 10 {
		return time.Now()
	}
	return time.Unix(at, 0)
}

// drop drops a database, even a template, unless another process is faster.
func drop(ctx context.Context, admin *pgx.Conn, name string) error {
	quoted := pgx.Identifier{name}.Sanitize()
	_, err := admin.Exec(ctx, "alter database "+quoted+" is_template false")
	if err == nil {
		_, err = admin.Exec(ctx, dropSQL(name))
	}
	if err != nil && !pg.IsState(err, pgerrcode.InvalidCatalogName) {
		return fmt.Errorf("drop the database %s: %w", name, err)
	}
	return nil
}

// leave sends a statement and waits for its end up to a time. Then it closes the connection without
// a word: the server carries the statement out, whereas pgx would have it cancelled.
func leave(ctx context.Context, conn *pgx.Conn, sql string, patience time.Duration) error {
	raw, err := conn.PgConn().Hijack()
	if err != nil {
		return err
	}
	defer raw.Conn.Close()
	deadline := time.Now().Add(patience)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	raw.Frontend.SendQuery(&pgproto3.Query{String: sql})
	if err := raw.Frontend.Flush(); err != nil {
		return err
	}
	if err := raw.Conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	for {
		message, err := raw.Frontend.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			raw.Frontend.Send(&pgproto3.Terminate{})
			return raw.Frontend.Flush()
		}
	}
}

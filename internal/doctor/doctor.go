// Package doctor finds out what stands in Rowhook's way in the database at hand, and says what to do
// about it. It changes nothing there: it reads in read-only transactions, sends notifications on a
// channel of its own, and plans an apply, which is rolled back.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/trigger"
)

// State is how a check came out.
type State string

// The states of a check.
const (
	OK   State = "ok"
	Warn State = "warn" // it works, but not as well as it could, or not for long
	Fail State = "fail" // it does not work
)

// Finding is what a check has found. A check may have several findings.
type Finding struct {
	Check  string `json:"check"` // for programs, such as listen
	State  State  `json:"state"`
	Detail string `json:"detail"`           // what is, for people
	Remedy string `json:"remedy,omitempty"` // what to do about it
}

// Report is what all checks have found, in their order.
type Report struct {
	OK       bool      `json:"ok"` // nothing fails
	Findings []Finding `json:"checks"`
}

// Count returns the number of findings of a state.
func (r *Report) Count(s State) (n int) {
	for _, f := range r.Findings {
		if f.State == s {
			n++
		}
	}
	return n
}

// Endpoint is a way to the database.
type Endpoint struct {
	Config *pgx.ConnConfig
	Source string // the flag or variable that named it, for messages
	Where  string // the server, user and database, without a password, for messages
}

// Doctor examines a database. Its fields must not change while Examine runs.
type Doctor struct {
	// Database is what dispatchers connect to. It is required.
	Database Endpoint

	// Listen is where they listen, if that is another way. It is optional.
	Listen *Endpoint

	// Polls says that dispatchers do not listen.
	Polls bool

	// Triggers and Settings are those of a configuration, if HasFile says that there is one.
	Triggers []trigger.Spec
	Settings trigger.Settings
	HasFile  bool

	// Explain writes faults of Triggers with their places in the file. It is required with HasFile.
	Explain func(trigger.SpecErrors) []string

	// Diagnose says why an attempt to connect failed, and what to do. It is required.
	Diagnose func(err error, source string) (problem, remedy string)

	// Timeout bounds each check. The default is 10 s.
	Timeout time.Duration

	// Now is the clock of this machine. The default is time.Now.
	Now func() time.Time
}

// Examine runs every check, each within the time-out. A check whose subject is missing, such as the
// tables of a configuration that is not given, finds nothing.
func (d Doctor) Examine(ctx context.Context) *Report {
	d.Timeout = cmp.Or(d.Timeout, 10*time.Second)
	if d.Now == nil {
		d.Now = time.Now
	}
	e := &examination{Doctor: d, report: &Report{OK: true, Findings: []Finding{}}}
	defer e.close(ctx)
	if !e.run(ctx, check{"connection", e.checkConnection}) || e.main == nil {
		return e.report
	}
	for _, c := range []check{
		{"tls", e.checkTLS},
		{"round_trip", e.checkRoundTrip},
		{"server", e.checkServer},
		{"primary", e.checkPrimary},
		{"platform", e.checkPlatform},
		{"clock", e.checkClock},
		{"pooler", e.checkPooler},
		{"listen", e.checkListen},
		{"notify_queue", e.checkNotificationQueue},
		{"schema", e.checkSchema},
		{"rights", e.checkRights},
		{"triggers", e.checkTriggers},
		{"tables", e.checkTables},
		{"captures", e.checkCaptures},
		{"settings", e.checkSettings},
		{"connections", e.checkConnections},
		{"extensions", e.checkExtensions},
		{"publications", e.checkPublications},
		{"slots", e.checkSlots},
		{"vacuum", e.checkVacuum},
		{"disk", e.checkDisk},
	} {
		if !e.run(ctx, c) && e.statements {
			break // the other checks would say the same
		}
	}
	return e.report
}

// IsStatementPooling reports whether an error is the one by which PgBouncer refuses transactions in its
// statement mode.
func IsStatementPooling(err error) bool {
	return strings.Contains(err.Error(), "statement pooling mode")
}

// StatementPooling is what to do about it.
const StatementPooling = "set pool_mode = transaction or session in the pooler, or connect past it"

// check is one look at the database.
type check struct {
	name string
	do   func(ctx context.Context) error
}

// examination is one run of a Doctor, with what its checks have found so far for later ones.
type examination struct {
	Doctor
	report *Report
	name   string // of the check that runs

	main   *pgx.Conn // by Database, as through a pooler: nothing is kept in the session
	second *pgx.Conn // by Listen, or another one by Database
	direct *pgx.Conn // for an apply's plan: not through a pooler

	server     int  // server_version_num; 0: not known
	other      bool // it is no PostgreSQL
	standby    bool // nothing can be written there
	pooled     bool // Database leads through a pooler that shares sessions
	statements bool // Database leads through a pooler that has no transactions
	installed  bool // the schema rowhook is there
	compatible bool // this program can work with it
	tables     []uint32
}

// run runs a check within the time-out. It reports whether the check was completed.
func (e *examination) run(ctx context.Context, c check) bool {
	e.name = c.name
	bounded, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	err := c.do(bounded)
	switch {
	case err == nil:
		return true
	case IsStatementPooling(err):
		e.name, e.statements = "pooler", true
		e.fail(StatementPooling, "%s leads through a pooler in statement mode, in which there are no transactions", e.Database.Source)
	case ctx.Err() != nil:
		e.warn("start it again", "interrupted")
	case bounded.Err() != nil:
		e.warn("give it more time (--timeout), and look for what is slow: locks, the network, the server's load", "not found out within %s", e.Timeout)
	default:
		detail, remedy := cutRemedy(err)
		e.warn(cmp.Or(remedy, "look into the server's log, or use a role that may read its catalog"), "not found out: %s", detail)
	}
	return false
}

func (e *examination) close(ctx context.Context) {
	for _, conn := range []*pgx.Conn{e.main, e.second, e.direct} {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx)) // nothing is lost with it
		}
	}
}

func (e *examination) ok(format string, args ...any) {
	e.add(Finding{State: OK, Detail: fmt.Sprintf(format, args...)})
}

func (e *examination) warn(remedy, format string, args ...any) {
	e.add(Finding{State: Warn, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (e *examination) fail(remedy, format string, args ...any) {
	e.report.OK = false
	e.add(Finding{State: Fail, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

// failOf takes the text of an error that has its remedy behind a colon.
func (e *examination) failOf(err error) {
	detail, remedy := cutRemedy(err)
	e.fail(remedy, "%s", detail)
}

func (e *examination) add(f Finding) {
	f.Check = e.name
	e.report.Findings = append(e.report.Findings, f)
}

// cutRemedy separates the problem and the remedy in an error of ours.
func cutRemedy(err error) (problem, remedy string) {
	problem, remedy, _ = strings.Cut(err.Error(), ": ")
	return problem, remedy
}

// open connects to an endpoint. shared says that a pooler may share the session.
func open(ctx context.Context, at Endpoint, shared bool) (*pgx.Conn, error) {
	config := at.Config.Copy()
	if shared {
		pg.ThroughPooler(config)
	}
	return session.Connect(ctx, config)
}

// look runs f in a read-only transaction by Database. It connects again if a check before has lost
// the connection, as one does that ran out of time.
func (e *examination) look(ctx context.Context, f func(tx pgx.Tx) error) error {
	if e.main.IsClosed() {
		conn, err := open(ctx, e.Database, true)
		if err != nil {
			problem, remedy := e.Diagnose(err, e.Database.Source)
			return errors.New("can't connect again (" + problem + "): " + remedy)
		}
		e.main = conn
	}
	return e.lookBy(ctx, e.main, f)
}

func (e *examination) lookBy(ctx context.Context, conn *pgx.Conn, f func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// The check's own time-out comes first and says what to do. This one ends what is left on the server.
		ms := fmt.Sprint(max(1, 2*e.Timeout.Milliseconds()))
		settings := pg.Settings{"search_path": "pg_catalog", "statement_timeout": ms, "lock_timeout": ms}
		if _, err := tx.Exec(ctx, settings.Local()); err != nil {
			return fmt.Errorf("begin to read: %w", err)
		}
		return f(tx)
	})
}

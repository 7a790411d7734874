package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/child"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/secret"
	"github.com/rowhook/rowhook/internal/sink"
)

// devStop is how long requests in flight, and Postgres, may take to end.
const devStop = 5 * time.Second

// onceTimeout bounds dev --once.
const onceTimeout = 55 * time.Second

func (a *app) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev [flags] [-- COMMAND ARGUMENTS...]",
		Short: "Try Rowhook out, or run a command on it: a private Postgres, a receiver and the dispatcher",
		Long: `Start a private Postgres, a receiver that shows deliveries, the dispatcher, and the HTTP interface. Ctrl-C stops them.
With a COMMAND, such as a test suite or the app under development, run it and end with its exit code.

Without -f the command creates a sample table, orders, and a trigger on it. With -f it applies that configuration, also
again when it changes. The private Postgres starts empty: --init names SQL files that create your tables, and --migrate a
command that does. With a COMMAND, --init, --migrate, --forward-to, --ready-file or --output json, rowhook.yaml in this
directory is used without -f, too.

Deliveries go to the configured URLs. With --sink all go to the built-in receiver instead. That is the default where a
program uses what is started: with a COMMAND, --ready-file or --output json, and with --forward-to. The receiver runs in
any case. A secret whose variables are not set is then replaced by one that is made up, and any other variable NAME that is
not set by NAME-is-not-set. --forward-to sends what the
receiver gets on to an app, and its answers back, so that failures are retried.

The COMMAND finds in its environment DATABASE_URL, ROWHOOK_SINK_URL (the receiver), ROWHOOK_SINK_SECRET (the secret that
was made up, if a trigger signs with it) and ROWHOOK_URL (the HTTP interface). PGHOST and its like are those of the private Postgres, too. Standard
input and output are the COMMAND's; deliveries are shown with --show. Signals are passed on to it. When it has ended,
everything that it has started is ended as well. Exit codes of its own: 127 not found, 126 not executable, 128 and the
number of the signal that ended it.

The dashboard shows what the receiver got, sets how it answers, runs SQL, and edits the configuration. It is opened by the
URL that is printed: the token behind #token= is made for this start, and allows everything. Without it, programs of this
host may do all but SQL and changes of the configuration.

--ready-file and --output json tell other programs the addresses: database_url, sink_url, url, dashboard_url, token, secret,
pids (dev, postgres), and triggers (name, table, url, forward_url, signed, secret).

dev ends when the program ends that has started it, unless it was started by nohup or with --outlive-parent. Nothing is
left behind, also if it is killed: no process and no file. Only a daemon is, if it has left the COMMAND's processes, its
group and its environment.

Nothing needs to be set up. The command looks for installed Postgres programs in --postgres-bin, PATH, by pg_config and in
the usual folders. If there are none, it downloads them once. The data is temporary, unless --data names a directory.
DATABASE_URL and the PG* variables of the caller are not used.`,
		Example: `  rowhook dev
  rowhook dev --once
  rowhook dev -f rowhook.yaml --init schema.sql --sink
  rowhook dev --init schema.sql -- pytest
  rowhook dev --migrate 'npm run migrate' -- npm test
  rowhook dev -f rowhook.yaml --init schema.sql --forward-to http://localhost:3000
  rowhook dev -f rowhook.yaml --init schema.sql --ready-file /tmp/rowhook.json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("database-url") || cmd.Flags().Changed("listen-url") {
				return usagef("rowhook dev uses a private Postgres: leave out --database-url and --listen-url, or use rowhook run")
			}
			if err := o.complete(cmd, args); err != nil {
				return a.commandError(err)
			}
			quiet := o.once || len(o.command) > 0 || o.json
			if level, _ := a.lookup("ROWHOOK_LOG_LEVEL"); quiet && level == "" && !cmd.Flags().Changed("log-level") {
				a.log = a.logger(slog.LevelWarn)
			}
			return a.commandError(a.dev(cmd.Context(), o))
		},
	}
	o.flags(cmd)
	return cmd
}

// commandError takes the exit code that an error of a command stands for.
func (a *app) commandError(err error) error {
	if start, ok := errors.AsType[*child.StartError](err); ok {
		a.code = start.Code
	}
	return err
}

// devRun is one run of dev.
type devRun struct {
	*app
	devOptions
	tables  tables
	show    *show
	life    *devLife
	store   *secret.Store // of what the configuration may refer to
	secret  string        // stands for secrets whose variables are not set
	forward *forwarder    // nil: not forwarding

	server     *localpg.Server
	natsServer NATSServer // nil: there is none
	receiver   *devReceiver
	url        string // of the HTTP interface
	token      string // for the dashboard; "": there is no HTTP interface
	sqlURL     string // of the database for SQL from the dashboard
	ready      *readyFile

	reapplier *reapplier

	mu    sync.Mutex
	taken *devTriggers
}

// dev checks the flags, starts everything, and stops it in reverse order.
func (a *app) dev(parent context.Context, o devOptions) (err error) {
	a.single = true
	r := &devRun{app: a, devOptions: o, secret: sandbox.MakeSecret(), show: newShow(a, o)}
	if r.store, err = a.store(o.giving); err != nil {
		return err
	}
	if r.tables, err = devTables(o); err != nil {
		return err
	}
	if r.forward, err = newForwarder(o, r.show, r.target); err != nil {
		return err
	}
	if err := a.checkNATS(o); err != nil {
		return err
	}
	r.reapplier = r.newReapplier()
	cfg, err := a.devConfig(o)
	if err != nil {
		return err
	}
	if r.taken, err = r.point(cfg); err != nil {
		return err
	}
	r.tellUnset()
	forgetPostgres()
	hurry, stopNow := context.WithCancel(context.WithoutCancel(parent))
	defer stopNow()
	ctx, life := live(parent, o.outlive, stopNow)
	defer life.stop()
	r.life = life
	if o.once {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, onceTimeout, fmt.Errorf("rowhook dev --once took longer than %s", onceTimeout))
		defer cancel()
	}
	err = r.outcome(ctx, r.run(ctx, hurry))
	if err == nil && !o.once && !o.json && len(o.command) == 0 {
		r.show.printf("\nStopped: the dispatcher, the receiver and the private Postgres.\n")
		if o.data != "" {
			r.show.printf("The data is kept in %s.\n", o.data)
		}
	}
	return err
}

// tellUnset tells of the variables for which a placeholder is sent.
func (r *devRun) tellUnset() {
	if unset := r.current().unset; len(unset) > 0 {
		r.log.Info("variables of headers are not set: a placeholder is sent for each, such as "+sandbox.Placeholder(unset[0]), "variables", strings.Join(unset, ", "))
	}
}

// outcome returns err, or nil if the user asked for the end. If something was to be done, such as a
// command that has not run, that is an error, too.
func (r *devRun) outcome(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	interrupted, ok := errors.AsType[*interruptedError](cause)
	switch {
	case err == nil || cause == nil:
		return err
	case r.once && ok:
		return errors.New("interrupted before the three deliveries had arrived")
	case len(r.command) > 0 && ok:
		r.code = interrupted.code()
		return errors.New("interrupted before the command had started")
	case ok || errors.Is(cause, errParentEnded) && len(r.command) == 0:
		return nil
	case errors.Is(err, cause):
		return err
	}
	return errors.Join(cause, err)
}

// run starts the receiver and Postgres, and works on them.
func (r *devRun) run(ctx, hurry context.Context) (err error) {
	if r.ready, err = newReadyFile(r.readyFile); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.ready.remove()) }()
	arrivals := make(chan sink.Delivery, 64)
	if r.receiver, err = r.startReceiver(ctx, arrivals); err != nil {
		return err
	}
	defer r.receiver.stop()
	stopNATS, err := r.startNATS()
	if err != nil {
		return err
	}
	defer stopNATS()
	if err := r.checkPostgresPort(ctx); err != nil {
		return err
	}
	r.server, err = localpg.Start(ctx, localpg.Config{BinDir: r.bin, DataDir: r.data, Port: r.port, NoDownload: r.offline, Logger: r.log})
	if err != nil {
		return fmt.Errorf("start a private Postgres: %w", err)
	}
	defer func() {
		stopping, cancel := context.WithTimeout(hurry, devStop)
		defer cancel()
		err = errors.Join(err, r.server.Stop(stopping, localpg.Fast))
	}()
	r.global.databaseURL, r.global.listenURL, r.global.source = r.server.URL(devDatabaseName), "", "the private Postgres"
	conn, err := r.database(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return r.deliverFrom(ctx, conn, arrivals)
}

// checkPostgresPort returns an error if another program uses the port. Postgres says so too, at the
// end of its log, but does not know the flag.
func (r *devRun) checkPostgresPort(ctx context.Context) error {
	if r.port == 0 {
		return nil
	}
	l, err := listenOn(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)))
	if err != nil {
		return fmt.Errorf("start a private Postgres (--postgres-port): %w; 0 takes a free one", err)
	}
	return l.Close()
}

// deliverFrom applies the configuration, and delivers until the work is done or ctx ends.
func (r *devRun) deliverFrom(ctx context.Context, conn *pgx.Conn, arrivals <-chan sink.Delivery) error {
	d := dispatcher.Config{DatabaseURL: r.global.databaseURL, Version: build(), GracePeriod: devStop, Source: r.source, Logger: r.forward.logger(r.log), NATS: r.parts.NATS}
	if !r.toSink && (r.showing || len(r.command) == 0 && !r.json) {
		d.Observers = append(d.Observers, dispatcher.Observer{Attempted: func(at dispatcher.Attempt) { r.show.attempt(at, r.mask(at.Event.Trigger)) }})
	}
	if err := r.apply(ctx, conn, r.current().cfg); err != nil {
		return err
	}
	web := serving{address: r.http, chosen: true, tokens: r.tokens}
	if r.once {
		web.address = "off"
	}
	l, err := r.listenHTTP(ctx, web)
	if err != nil {
		return err
	}
	if l != nil {
		r.url = "http://" + reachable(l.Addr())
		if err := r.makeRole(ctx, conn); err != nil {
			closeUnused(l)
			return err
		}
		web.dev = r.devAPI()
	}
	counted := count(&d, l != nil)
	running, err := dispatcher.New(d)
	if err != nil {
		closeUnused(l)
		return err
	}
	stopHTTP, err := r.serveHTTP(ctx, web, l, running, counted)
	if err != nil {
		return err
	}
	defer stopHTTP()
	return r.whileDispatching(ctx, running, func(failed <-chan error) error {
		return r.work(ctx, conn, arrivals, failed)
	})
}

// work says what runs, and does what dev was started for.
func (r *devRun) work(ctx context.Context, conn *pgx.Conn, arrivals <-chan sink.Delivery, failed <-chan error) error {
	if len(r.command) == 0 && !r.json {
		r.show.started(r)
	}
	r.show.signed(r)
	if r.once {
		return r.showOnce(ctx, conn, arrivals)
	}
	line, err := r.readyNow().line()
	if err != nil {
		return err
	}
	if err := r.ready.write(line); err != nil {
		return err
	}
	defer r.watchConfiguration(ctx)()
	switch {
	case r.json:
		if _, err := r.stdout.Write(line); err != nil {
			return err
		}
	case len(r.command) == 0:
		r.show.ready(r)
	default:
		return r.runCommand(ctx, failed)
	}
	return r.untilEnd(ctx, failed)
}

// untilEnd waits until ctx ends, and returns nil then. An error says what has ended by itself.
func (r *devRun) untilEnd(ctx context.Context, failed <-chan error) error {
	select {
	case err := <-failed:
		return orEnded(explain(err))
	case <-r.server.Exited():
		return r.postgresEnded()
	case <-ctx.Done():
		return nil
	}
}

// postgresEnded shows the end of the log of Postgres, which is removed with temporary data.
func (r *devRun) postgresEnded() error {
	text := "the private Postgres has ended"
	if r.data != "" {
		return errors.New(text + "; see its log " + r.server.LogFile())
	}
	if log, err := os.ReadFile(r.server.LogFile()); err == nil {
		// Whoever connects meanwhile is turned away. These lines would hide why it ended.
		lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(log)), "\n"), func(line string) bool {
			return strings.Contains(line, "FATAL:  the database system is shutting down") || strings.Contains(line, "in cancel request did not match any process")
		})
		text += "; the end of its log:\n  " + strings.Join(lines[max(0, len(lines)-10):], "\n  ")
	}
	return errors.New(text)
}

// whileDispatching runs work while a dispatcher runs, and waits until the dispatcher has stopped. The
// dispatcher stops after the work: a command that was told to end may still write rows. failed
// receives the error of a dispatcher that ended by itself.
func (r *devRun) whileDispatching(ctx context.Context, d *dispatcher.Dispatcher, work func(failed <-chan error) error) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { failed <- d.Run(running) })
	select {
	case <-d.Ready():
		return work(failed)
	case err := <-failed:
		return orEnded(explain(err))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("the dispatcher has ended")
	}
	return err
}

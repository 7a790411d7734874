package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/sink"
)

// devStop is how long requests in flight, and Postgres, may take to end.
const devStop = 5 * time.Second

// onceTimeout bounds dev --once.
const onceTimeout = 55 * time.Second

// devOptions are the flags of dev.
type devOptions struct {
	file, data, bin     string
	init                []string
	port, sinkPort      int
	sink, once, offline bool
}

func (a *app) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try Rowhook out: a private Postgres, a receiver and the dispatcher",
		Long: `Start a private Postgres, a receiver that shows deliveries, and the dispatcher. Ctrl-C stops them.

Without -f the command creates a sample table, orders, and a trigger on it. With -f it applies that configuration. The
private Postgres starts empty, so --init names the SQL file that creates your tables. Deliveries then go to the configured
URLs, or with --sink all to the built-in receiver.

Nothing needs to be set up. The command looks for installed Postgres programs in --postgres-bin, PATH, by pg_config and in
the usual folders. If there are none, it downloads them once. The data is temporary, unless --data names a directory.
DATABASE_URL and the PG* variables are not used.`,
		Example: `  rowhook dev
  rowhook dev --once
  rowhook dev -f rowhook.yaml --init schema.sql --sink`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("database-url") || cmd.Flags().Changed("listen-url") {
				return usagef("rowhook dev uses a private Postgres: leave out --database-url and --listen-url, or use rowhook run")
			}
			if level, _ := a.lookup("ROWHOOK_LOG_LEVEL"); o.once && level == "" && !cmd.Flags().Changed("log-level") {
				a.log = a.logger(slog.LevelWarn)
			}
			return a.dev(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "configuration `file` to apply, instead of the sample table and trigger")
	f.StringArrayVar(&o.init, "init", nil, "SQL `file`, or directory of .sql files, that creates the tables; it runs first in a new database; repeat it for several")
	f.BoolVar(&o.sink, "sink", false, "with -f: send every delivery to the built-in receiver instead of the configured URLs")
	f.BoolVar(&o.once, "once", false, "deliver an insert, an update and a delete, compare them with the expected bodies, and exit")
	s := flagSet{f}
	s.text(&o.data, "data", "`directory` that keeps the data for the next start")
	s.text(&o.bin, "postgres-bin", "`directory` of the Postgres programs (initdb, postgres)")
	s.number(&o.port, "postgres-port", "TCP port of the private Postgres on 127.0.0.1; 0: a free one", 0, 65535)
	s.number(&o.sinkPort, "sink-port", "TCP port of the receiver on 127.0.0.1; 0: a free one", 0, 65535)
	s.yesNo(&o.offline, "no-download", "fail if no Postgres programs are installed, instead of downloading them")
	return cmd
}

// dev checks the flags, starts everything, and stops it in reverse order.
func (a *app) dev(parent context.Context, o devOptions) error {
	if o.once && o.file != "" {
		return usagef("--once shows the sample table and can't be combined with -f: leave one of them out")
	}
	if o.sink && o.file == "" {
		return usagef("--sink needs -f: the sample trigger sends to the built-in receiver anyway")
	}
	if len(o.init) > 0 && o.file == "" {
		return usagef("--init needs -f: the sample creates its own table")
	}
	cfg, err := a.devConfig(o)
	if err != nil {
		return err
	}
	made, err := devTables(o)
	if err != nil {
		return err
	}
	forgetPostgres()
	parent, end := endWithGoRun(parent)
	defer end()
	hurry, stopNow := context.WithCancel(context.WithoutCancel(parent))
	defer stopNow()
	ctx, stop := interrupts(parent, stopNow)
	defer stop()
	if o.once {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, onceTimeout, fmt.Errorf("rowhook dev --once took longer than %s", onceTimeout))
		defer cancel()
	}
	server, err := localpg.Start(ctx, localpg.Config{BinDir: o.bin, DataDir: o.data, Port: o.port, NoDownload: o.offline, Logger: a.log})
	if err != nil {
		return o.outcome(ctx, fmt.Errorf("start a private Postgres: %w", err))
	}
	err = o.outcome(ctx, a.devOn(ctx, server, cfg, made, o))
	stopping, cancel := context.WithTimeout(hurry, devStop)
	defer cancel()
	err = errors.Join(err, server.Stop(stopping, localpg.Fast))
	if err == nil && !o.once {
		fmt.Fprintln(a.stdout, "\nStopped: the dispatcher, the receiver and the private Postgres.")
		if o.data != "" {
			fmt.Fprintf(a.stdout, "The data is kept in %s.\n", o.data)
		}
	}
	return err
}

// outcome returns err, or nil if the user asked for the end. With --once that is an error, too.
func (o devOptions) outcome(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case err == nil || cause == nil:
		return err
	case o.once && errors.Is(cause, context.Canceled):
		return errors.New("interrupted before the three deliveries had arrived")
	case o.once:
		return errors.Join(cause, err)
	}
	return nil
}

// devConfig returns the configuration of -f, or that of the sample.
func (a *app) devConfig(o devOptions) (*config.Config, error) {
	if o.file != "" {
		lookup := a.lookup
		if o.sink {
			lookup = nil // the built-in receiver needs no variables
		}
		return a.loadConfig(o.file, lookup)
	}
	if _, err := os.Stat(defaultFile); err == nil && !o.once {
		a.log.Info("using the sample table; to use the configuration in this directory, add -f " + defaultFile)
	}
	return config.Parse("the sample", []byte(`
triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true, update: true, delete: true}
    webhook: {url: "http://127.0.0.1/orders", timeout: 10s}
`))
}

// devOn sets up the database, and runs the receiver and the dispatcher until ctx is done.
func (a *app) devOn(ctx context.Context, server *localpg.Server, cfg *config.Config, made tables, o devOptions) error {
	conn, err := devDatabase(ctx, server, made)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))

	show := newShow(a)
	d := dispatcher.Config{DatabaseURL: server.URL(devDatabaseName), Version: build(), GracePeriod: devStop, Logger: a.log}
	where, arrivals := "the configured URLs", make(chan sink.Delivery, 64)
	if o.sink || o.file == "" {
		r, err := a.devReceiver(ctx, o, arrivals)
		if err != nil {
			return err
		}
		defer r.stop()
		cfg.Triggers, cfg.Settings = sandbox.Point(cfg.Triggers, a.lookup), sandbox.Reachable(cfg.Settings)
		d.Lookup, where = sandbox.Variables(r.url, sandbox.MakeSecret(), a.lookup), r.url
	} else {
		d.Lookup = a.lookup
		d.Observers = append(d.Observers, dispatcher.Observer{Attempted: show.attempt})
	}
	if _, err := a.applyConfig(ctx, conn, cfg); err != nil {
		var missing *config.Error
		if errors.As(err, &missing) && len(o.init) == 0 && o.file != "" {
			return fmt.Errorf("%w\nThe private Postgres starts empty: name the SQL file that creates your tables with --init", err)
		}
		return err
	}
	show.started(server, where, cfg, o)
	return a.devDispatch(ctx, d, func(failed <-chan error) error {
		if o.once {
			return a.showOnce(ctx, conn, arrivals)
		}
		show.ready(server, o)
		select {
		case err := <-failed:
			return orEnded(explain(err))
		case <-server.Exited():
			return fmt.Errorf("the private Postgres has ended; see its log %s", server.LogFile())
		case <-ctx.Done():
			return nil
		}
	})
}

// devDispatch runs work while a dispatcher runs, and waits until the dispatcher has stopped. failed
// receives the error of a dispatcher that ended by itself.
func (a *app) devDispatch(ctx context.Context, cfg dispatcher.Config, work func(failed <-chan error) error) error {
	d, err := dispatcher.New(cfg)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
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

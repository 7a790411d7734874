package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/lab/internal/process"
	"github.com/rowhook/rowhook/lab/internal/ramdisk"
)

const (
	role     = "rowhook_app" // owns the tables, applies, and dispatches
	password = "torture"
)

// site is what the sources of a run have in common: a server, the processes of the dispatchers, and the
// stream.
type site struct {
	opt      options
	out      io.Writer
	binary   string
	dir      string
	volume   *ramdisk.Disk // nil: the disk can't be filled
	server   *localpg.Server
	serverMu sync.Mutex // held by the fault that stops it
	broker   *broker    // nil: nothing is published
	runners  []*runner
	labs     []*lab
	start    time.Time

	slotsUp   sync.WaitGroup
	committed atomic.Int64 // transactions
	failed    atomic.Int64
}

// lab is what a run works with in one source: a database, the ways of the dispatchers to it, a receiver
// and writers.
type lab struct {
	*site

	source   int
	name     string // of the source; "": there is one database
	database string
	admin    *pgxpool.Pool
	receiver *receiver
	slots    []*slot
	applyMu  sync.Mutex
	orphans  atomic.Int64 // faults of this kind so far
}

// newLab makes the lab of a source, which has nothing yet.
func (s *site) newLab(source int) *lab {
	l := &lab{site: s, source: source, database: "torture"}
	if s.opt.sources > 1 {
		l.name = fmt.Sprintf("source%d", source+1)
		l.database += "_" + l.name
	}
	l.receiver = newReceiver(s.opt.seed)
	l.receiver.source = l.name
	return l
}

// variable names a variable of the dispatchers. Each source may use its own ones alone.
func (l *lab) variable(name string) string {
	if l.name == "" {
		return name
	}
	return strings.ToUpper(l.name) + "_" + name
}

// publishes reports whether a trigger of the source publishes to the stream.
func (l *lab) publishes() bool { return l.opt.nats && l.source == publishing }

// triggers are those of the source.
func (l *lab) triggers() []string {
	if l.publishes() {
		return append(triggers(), streamed)
	}
	return triggers()
}

// serverSettings are those of a small server, so that a few hundred megabytes hold it.
func (opt *options) serverSettings() map[string]string {
	return map[string]string{
		"shared_buffers": "64MB", "max_wal_size": "96MB", "min_wal_size": "32MB", "checkpoint_timeout": "30s", "max_connections": strconv.Itoa(60 * opt.sources),
		"track_commit_timestamp": "on", "log_min_messages": "fatal", "log_min_error_statement": "panic",
	}
}

func openLab(ctx context.Context, opt options, out io.Writer) (l *lab, err error) {
	here := &site{opt: opt, out: out, start: time.Now()}
	for source := range opt.sources {
		here.labs = append(here.labs, here.newLab(source))
	}
	l = here.labs[0]
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "rowhook-torture-"); err != nil {
		return l, fmt.Errorf("make a directory: %w", err)
	}
	if err := os.Chmod(l.dir, 0o755); err != nil { //nolint:gosec // the server's user passes through
		return l, fmt.Errorf("make a directory: %w", err)
	}
	if opt.logs != "" {
		if err := os.MkdirAll(opt.logs, 0o750); err != nil {
			return l, fmt.Errorf("make the directory for logs: %w", err)
		}
	}
	if l.binary, err = l.build(ctx); err != nil {
		return l, err
	}
	temp := l.dir
	if l.volume, err = ramdisk.Mount(l.dir, opt.volume()); err != nil {
		l.logf("no fault fills the disk: %v", err)
		l.volume = nil
	} else {
		temp = l.volume.Dir
	}
	if l.server, err = localpg.Start(ctx, localpg.Config{BinDir: opt.pgBin, TempDir: temp, Settings: opt.serverSettings()}); err != nil {
		return l, err
	}
	if opt.nats {
		if l.broker, err = newBroker(ctx, l.dir); err != nil {
			return l, err
		}
	}
	if err := l.execAll(ctx, l.server.URL("postgres"), []string{"create role " + role + " login password '" + password + "'"}); err != nil {
		return l, err
	}
	for _, l := range here.labs {
		if err := l.prepare(ctx); err != nil {
			return l, err
		}
	}
	for n := range opt.instances {
		if err := here.newRunner(ctx, n); err != nil {
			return l, err
		}
	}
	return l, nil
}

// prepare makes the database and the tables, and applies the configuration.
func (l *lab) prepare(ctx context.Context) error {
	if err := l.execAll(ctx, l.server.URL("postgres"), []string{"create database " + l.database + " owner " + role}); err != nil {
		return err
	}
	statements := []string{createLedger}
	for _, t := range l.triggers() {
		statements = append(statements, createTable(tableOf(t)), "alter table "+tableOf(t)+" owner to "+role)
	}
	if err := l.execAll(ctx, l.server.URL(l.database), statements); err != nil {
		return err
	}
	var err error
	if l.admin, err = pgxpool.New(ctx, l.server.URL(l.database)+"&application_name=judge"); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := l.apply(ctx, usual()); err != nil {
		return err
	}
	return l.execAll(ctx, l.server.URL(l.database), append(noteHanded(), keepHistory))
}

// keepHistory lets a full disk cost no history, since history is the evidence. Other tests cover
// that a full disk drops history.
const keepHistory = "create or replace function rowhook.remove_partition(name text) returns boolean language sql security definer " +
	"set search_path to 'pg_catalog', 'pg_temp' as 'select false'"

func (l *lab) execAll(ctx context.Context, url string, statements []string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer pool.Close()
	for _, sql := range statements {
		if _, err := pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}

// roleURL is the URL by which the role connects through a port.
func (l *lab) roleURL(port int) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Host: fmt.Sprintf("127.0.0.1:%d", port), Path: "/" + l.database, RawQuery: "sslmode=disable"}
	return u.String()
}

// apply runs rowhook apply for a variant, directly on the server.
func (l *lab) apply(ctx context.Context, v variant) error {
	_, err := l.rowhook(ctx, v, "apply")
	return err
}

func (l *lab) rowhook(ctx context.Context, v variant, args ...string) (string, error) {
	l.applyMu.Lock()
	defer l.applyMu.Unlock()
	file := filepath.Join(l.dir, "rowhook"+l.name+".yaml")
	if err := os.WriteFile(file, []byte(l.configuration(v)), 0o600); err != nil {
		return "", fmt.Errorf("write the configuration: %w", err)
	}
	return l.command(ctx, append(args, "-f", file)...)
}

// command runs rowhook, directly on the server.
func (l *lab) command(ctx context.Context, args ...string) (string, error) {
	return process.Output(ctx, process.Command{
		Name: "rowhook", Path: l.binary, Args: args, Env: []string{"DATABASE_URL=" + l.roleURL(l.server.Port()), l.variable("RECEIVER_URL") + "=http://unused", l.variable("NATS_URL") + "=nats://unused", l.variable("SLOT") + "=0"},
	})
}

// close ends what the lab started.
func (l *lab) close() error {
	var errs []error
	for _, r := range l.runners {
		r.close()
	}
	l.slotsUp.Wait()
	for _, l := range l.labs {
		for _, s := range l.slots {
			s.close()
		}
		l.receiver.close()
		if l.admin != nil {
			l.admin.Close()
		}
	}
	if l.broker != nil {
		l.broker.Kill()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if l.server != nil {
		errs = append(errs, l.server.Stop(ctx, localpg.Immediate))
	}
	if l.volume != nil {
		errs = append(errs, l.volume.Unmount())
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

func (s *site) logf(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// dispatch starts the dispatchers.
func (s *site) dispatch(ctx context.Context) {
	for _, r := range s.runners {
		s.slotsUp.Go(func() {
			if err := r.run(ctx); err != nil {
				s.logf("%s: %v", r.name(), err)
			}
		})
	}
}

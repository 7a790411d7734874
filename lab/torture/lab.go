package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/lab/internal/process"
	"github.com/rowhook/rowhook/lab/internal/ramdisk"
)

const (
	database = "torture"
	role     = "rowhook_app" // owns the tables, applies, and dispatches
	password = "torture"
)

// lab is what a run works with: a server, dispatchers, a receiver and writers.
type lab struct {
	opt      options
	out      io.Writer
	binary   string
	dir      string
	volume   *ramdisk.Disk // nil: the disk can't be filled
	server   *localpg.Server
	serverMu sync.Mutex // held by the fault that stops it
	admin    *pgxpool.Pool
	receiver *receiver
	slots    []*slot
	start    time.Time
	applyMu  sync.Mutex

	slotsUp   sync.WaitGroup
	committed atomic.Int64 // transactions
	failed    atomic.Int64
	orphans   atomic.Int64 // faults of this kind so far
}

// serverSettings are those of a small server, so that a few hundred megabytes hold it.
func serverSettings() map[string]string {
	return map[string]string{
		"shared_buffers": "64MB", "max_wal_size": "96MB", "min_wal_size": "32MB", "checkpoint_timeout": "30s", "max_connections": "60",
		"track_commit_timestamp": "on", "log_min_messages": "fatal", "log_min_error_statement": "panic",
	}
}

func openLab(ctx context.Context, opt options, out io.Writer) (l *lab, err error) {
	l = &lab{opt: opt, out: out, start: time.Now(), receiver: newReceiver(opt.seed)}
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
	if l.server, err = localpg.Start(ctx, localpg.Config{BinDir: opt.pgBin, TempDir: temp, Settings: serverSettings()}); err != nil {
		return l, err
	}
	if err := l.prepare(ctx); err != nil {
		return l, err
	}
	for n := range opt.instances {
		s, err := l.newSlot(ctx, n)
		if s != nil {
			l.slots = append(l.slots, s)
		}
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

// prepare makes the role, the database and the tables, and applies the configuration.
func (l *lab) prepare(ctx context.Context) error {
	for name, statements := range map[string][]string{
		"postgres": {"create role " + role + " login password '" + password + "'", "create database " + database + " owner " + role},
	} {
		if err := l.execAll(ctx, l.server.URL(name), statements); err != nil {
			return err
		}
	}
	statements := []string{createLedger}
	for _, t := range triggers() {
		statements = append(statements, createTable(tableOf(t)), "alter table "+tableOf(t)+" owner to "+role)
	}
	if err := l.execAll(ctx, l.server.URL(database), statements); err != nil {
		return err
	}
	var err error
	if l.admin, err = pgxpool.New(ctx, l.server.URL(database)+"&application_name=judge"); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := l.apply(ctx, usual()); err != nil {
		return err
	}
	return l.execAll(ctx, l.server.URL(database), append(noteHanded(), keepHistory))
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
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Host: fmt.Sprintf("127.0.0.1:%d", port), Path: "/" + database, RawQuery: "sslmode=disable"}
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
	file := filepath.Join(l.dir, "rowhook.yaml")
	if err := os.WriteFile(file, []byte(v.text()), 0o600); err != nil {
		return "", fmt.Errorf("write the configuration: %w", err)
	}
	return l.command(ctx, append(args, "-f", file)...)
}

// command runs rowhook, directly on the server.
func (l *lab) command(ctx context.Context, args ...string) (string, error) {
	return process.Output(ctx, process.Command{
		Name: "rowhook", Path: l.binary, Args: args, Env: []string{"DATABASE_URL=" + l.roleURL(l.server.Port()), "RECEIVER_URL=http://unused"},
	})
}

// close ends what the lab started.
func (l *lab) close() error {
	var errs []error
	for _, s := range l.slots {
		s.close()
	}
	l.slotsUp.Wait()
	l.receiver.close()
	if l.admin != nil {
		l.admin.Close()
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

func (l *lab) logf(format string, args ...any) {
	fmt.Fprintf(l.out, "%6.1fs  %s\n", time.Since(l.start).Seconds(), fmt.Sprintf(format, args...))
}

// dispatch starts the dispatchers.
func (l *lab) dispatch(ctx context.Context) {
	for _, s := range l.slots {
		l.slotsUp.Go(func() {
			if err := s.run(ctx); err != nil {
				l.logf("%s: %v", s.name(), err)
			}
		})
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/lab/internal/process"
	"github.com/rowhook/rowhook/lab/internal/ramdisk"
)

const (
	database    = "outage"
	scrapeEvery = time.Second
	volumeSize  = 400 // megabytes
)

// lab is what a run works with: servers, dispatchers, a receiver, writers, and Prometheus.
type lab struct {
	opt    options
	out    io.Writer // progress
	start  time.Time
	dir    string
	volume *ramdisk.Disk // nil: the fault of a full disk is left out
	server *localpg.Server
	admin  *pgxpool.Pool

	sink        *program
	dispatchers []*program
	exporter    *program // nil: nothing reports how full the disk is
	programs    []*program

	rules      *rules
	prometheus *prometheus
	history    *history
	dashboard  *dashboard
	traffic    traffic
}

func openLab(ctx context.Context, opt options, out io.Writer) (l *lab, err error) {
	l = &lab{opt: opt, out: out, start: time.Now(), history: newHistory()}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.rules, err = readRules(opt.rules); err != nil {
		return l, err
	}
	if l.dashboard, err = readDashboard(opt.dashboard); err != nil {
		return l, err
	}
	if l.dir, err = os.MkdirTemp("", "rowhook-outage-"); err != nil {
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
	for _, step := range []func(context.Context) error{l.startServer, l.startReceiver, l.startDispatchers, l.startExporter, l.startMonitor} {
		if err := step(ctx); err != nil {
			return l, err
		}
	}
	return l, nil
}

// serverSettings are those of a small server, so that a few hundred megabytes hold it.
func serverSettings() map[string]string {
	return map[string]string{"shared_buffers": "32MB", "max_wal_size": "64MB", "min_wal_size": "32MB", "checkpoint_timeout": "30s"}
}

func (l *lab) startServer(ctx context.Context) (err error) {
	temp := l.dir
	if l.volume, err = ramdisk.Mount(l.dir, volumeSize); err != nil {
		l.logf("no outage fills the disk: %v", err)
		l.volume = nil
	} else {
		temp = l.volume.Dir
	}
	if l.server, err = localpg.Start(ctx, localpg.Config{BinDir: l.opt.pgBin, TempDir: temp, Settings: serverSettings()}); err != nil {
		return err
	}
	first, err := pgxpool.New(ctx, l.server.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer first.Close()
	if _, err := first.Exec(ctx, "create database "+database); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	if l.admin, err = pgxpool.New(ctx, l.server.URL(database)+"&application_name=outage"); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	for _, table := range []string{orders, mails, quiet} {
		if _, err := l.admin.Exec(ctx, "create table "+table+" (id bigint generated always as identity primary key, note text not null)"); err != nil {
			return fmt.Errorf("create the table %s: %w", table, err)
		}
	}
	return nil
}

// The triggers and their tables.
const (
	orders = "orders" // its events are retried until they succeed
	mails  = "mails"  // its events are tried twice
	quiet  = "quiet"  // nothing happens there
)

const configuration = `triggers:
  - name: orders
    table: public.orders
    on: {insert: true}
    webhook: {url: "${RECEIVER_URL}/orders", timeout: 5s}
    retry: {limit: 1000, interval: 1s, backoff: fixed}
  - name: mails
    table: public.mails
    on: {insert: true}
    webhook: {url: "${RECEIVER_URL}/mails", timeout: 5s}
    retry: {limit: 1, interval: 1s}
  - name: quiet
    table: public.quiet
    on: {insert: true}
    webhook: {url: "${RECEIVER_URL}/quiet", timeout: 5s}
`

func (l *lab) startReceiver(ctx context.Context) error {
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return err
	}
	l.sink = &program{address: address, health: "/healthz", command: process.Command{
		Name: "receiver", Path: l.opt.binary, Args: []string{"sink", "--listen", address, "--log-format", "json"},
	}}
	return l.launch(ctx, l.sink)
}

// startDispatchers starts two dispatchers.
func (l *lab) startDispatchers(ctx context.Context) error {
	file := filepath.Join(l.dir, "rowhook.yaml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if err := l.rowhook(ctx, "apply", "-f", file); err != nil {
		return err
	}
	for _, name := range []string{"first", "second"} {
		address, err := process.FreeAddress(ctx)
		if err != nil {
			return err
		}
		p := &program{address: address, health: "/readyz", command: process.Command{
			Name: name, Path: l.opt.binary, Args: []string{"run", "--instance-name", name, "--http", address, "--log-format", "json"}, Env: l.environment(),
		}}
		l.dispatchers = append(l.dispatchers, p)
		if err := l.launch(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) environment() []string {
	return []string{"DATABASE_URL=" + l.server.URL(database), "RECEIVER_URL=http://" + l.sink.address}
}

// rowhook runs a command of rowhook.
func (l *lab) rowhook(ctx context.Context, args ...string) error {
	_, err := process.Output(ctx, process.Command{Name: "rowhook", Path: l.opt.binary, Args: args, Env: l.environment()})
	return err
}

// startExporter starts node_exporter if there is a disk to watch.
func (l *lab) startExporter(ctx context.Context) error {
	if l.volume == nil || l.opt.exporter == "" {
		l.logf("no outage fills the disk nearly: it needs node_exporter and a file system of its own")
		return nil
	}
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return err
	}
	// node_exporter reads the mounts of process 1, which may not see ours.
	proc := filepath.Join(l.dir, "proc")
	if err := errors.Join(os.MkdirAll(filepath.Join(proc, "1"), 0o750), os.Symlink("/proc/self/mounts", filepath.Join(proc, "1", "mounts"))); err != nil {
		return fmt.Errorf("show node_exporter the mounts: %w", err)
	}
	l.exporter = &program{address: address, health: "/metrics", command: process.Command{Name: "node_exporter", Path: l.opt.exporter, Args: []string{
		"--web.listen-address=" + address, "--path.procfs=" + proc, "--collector.disable-defaults", "--collector.filesystem",
	}}}
	return l.launch(ctx, l.exporter)
}

// startMonitor starts Prometheus.
func (l *lab) startMonitor(ctx context.Context) error {
	if err := l.rules.shorten(l.opt.factor); err != nil {
		return err
	}
	if l.volume != nil {
		if err := l.rules.adjust(l.volume.Dir); err != nil {
			return err
		}
	}
	if err := l.rules.write(filepath.Join(l.dir, "rules.yml")); err != nil {
		return err
	}
	file := filepath.Join(l.dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(l.monitorConfiguration()), 0o600); err != nil {
		return fmt.Errorf("write Prometheus' configuration: %w", err)
	}
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return err
	}
	l.prometheus = &prometheus{url: "http://" + address}
	return l.launch(ctx, &program{address: address, health: "/-/ready", command: process.Command{Name: "prometheus", Path: l.opt.prometheus, Args: []string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(l.dir, "tsdb"), "--web.listen-address=" + address, "--log.format=json",
	}}})
}

// monitorConfiguration returns prometheus.yml.
func (l *lab) monitorConfiguration() string {
	var b strings.Builder
	fmt.Fprintf(&b, "global: {scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}\n", scrapeEvery)
	b.WriteString("rule_files: [rules.yml]\nscrape_configs:\n  - job_name: rowhook\n    static_configs:\n")
	for _, p := range l.dispatchers {
		fmt.Fprintf(&b, "      - targets: [%q]\n", p.address)
	}
	if l.exporter != nil {
		fmt.Fprintf(&b, "  - job_name: node\n    static_configs:\n      - targets: [%q]\n", l.exporter.address)
	}
	return b.String()
}

// close ends everything that the lab started, in reverse order.
func (l *lab) close() error {
	var errs []error
	for _, p := range slices.Backward(l.programs) {
		errs = append(errs, p.close())
	}
	if l.admin != nil {
		l.admin.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
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

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/lab/bench/receiver"
	"github.com/rowhook/rowhook/lab/internal/process"
)

// lab is what every measurement needs: a server, a receiver, programs, and a directory for files.
type lab struct {
	sizes  sizes
	out    io.Writer // progress
	dir    string
	server *localpg.Server
	admin  *pgx.Conn

	receiver    *receiver.Remote
	receiverURL string
	receiverPID int
	stopSink    func()

	builds    []build
	kept      map[string]*database // made once for each scenario and build
	databases int
	profiles  int
	trip      time.Duration // from dispatchers to their databases and back; 0: as it is
	relays    []*relay
	scenario  string // that runs now
	start     time.Time
}

// serverSettings are those of an ordinary small server with room for WAL, so that no checkpoint
// falls into a measurement. They do not make it less durable, unless fsync is switched off on
// request. A flush takes longer by a time, as on a slower disk: whoever flushes sleeps before that, for
// all commits that the flush is for.
func serverSettings(fsync bool, flush time.Duration) map[string]string {
	s := map[string]string{
		"shared_buffers": "1GB", "max_wal_size": "8GB", "min_wal_size": "2GB", "checkpoint_timeout": "30min", "max_connections": "200",
		"effective_cache_size": "4GB", "maintenance_work_mem": "256MB", "random_page_cost": "1.1",
	}
	if !fsync {
		s["fsync"] = "off"
	}
	if flush > 0 {
		s["commit_delay"], s["commit_siblings"] = strconv.FormatInt(flush.Microseconds(), 10), "0"
	}
	return s
}

func openLab(ctx context.Context, opt options, out io.Writer) (l *lab, err error) {
	l = &lab{sizes: opt.sizes, out: out, kept: map[string]*database{}, start: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "rowhook-bench-"); err != nil {
		return l, fmt.Errorf("make a directory: %w", err)
	}
	if err := l.findBuilds(ctx, opt); err != nil {
		return l, err
	}
	if err := l.startReceiver(ctx); err != nil {
		return l, err
	}
	if l.server, err = localpg.Start(ctx, localpg.Config{BinDir: opt.pgBin, TempDir: opt.data, Settings: serverSettings(opt.fsync, opt.flush)}); err != nil {
		return l, err
	}
	if l.admin, err = pgx.Connect(ctx, l.server.URL("postgres")); err != nil {
		return l, fmt.Errorf("connect: %w", err)
	}
	return l, nil
}

func (l *lab) findBuilds(ctx context.Context, opt options) error {
	path := opt.binary
	if path == "" {
		l.logf("compiling")
		var err error
		if path, err = buildTree(ctx, l.dir); err != nil {
			return err
		}
	}
	b, err := newBuild(ctx, "this", path)
	if err != nil {
		return err
	}
	if b.profile = opt.profile; b.profile != "" {
		if err := os.MkdirAll(b.profile, 0o750); err != nil {
			return fmt.Errorf("make the directory for profiles: %w", err)
		}
	}
	l.builds = []build{b}
	if opt.against != "" {
		other, err := newBuild(ctx, "other", opt.against)
		if err != nil {
			return err
		}
		l.builds = append(l.builds, other)
	}
	for _, p := range opt.peers {
		one, err := newBuild(ctx, p.name, p.path)
		if err != nil {
			return err
		}
		one.peer = true
		l.builds = append(l.builds, one)
	}
	return nil
}

// close ends what the lab started.
func (l *lab) close() error {
	var errs []error
	for _, r := range l.relays {
		r.close()
	}
	for _, d := range l.kept {
		_ = d.conn.Close(context.Background())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if l.admin != nil {
		_ = l.admin.Close(ctx)
	}
	if l.server != nil {
		errs = append(errs, l.server.Stop(ctx, localpg.Immediate))
	}
	if l.stopSink != nil {
		l.stopSink()
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

func (l *lab) logf(format string, args ...any) {
	fmt.Fprintf(l.out, "%6.1fs  %s\n", time.Since(l.start).Seconds(), fmt.Sprintf(format, args...))
}

// The first argument of a child of this program says what the child is.
const (
	receiverMode = "receiver"
	dispatchMode = "dispatch"
)

// startReceiver starts the receiver in a process of its own, so that its CPU time is counted apart
// from the benchmark's.
func (l *lab) startReceiver(ctx context.Context) error {
	path, err := self()
	if err != nil {
		return err
	}
	cmd := exec.Command(path, receiverMode) //nolint:noctx // the end of its standard input ends it
	cmd.SysProcAttr = process.Attributes()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the receiver: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the receiver: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the receiver: %w", err)
	}
	l.receiverPID = cmd.Process.Pid
	l.stopSink = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	events, control, ok := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || !ok {
		return fmt.Errorf("start the receiver: it printed %q: %w", line, process.OrExited(err))
	}
	l.receiverURL = "http://" + events
	l.receiver = &receiver.Remote{URL: "http://" + control, Client: &http.Client{}}
	return l.receiver.Reset(ctx, 0)
}

// runReceiver is the process of the receiver. It prints its two addresses and works until standard
// input ends.
func runReceiver(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	r := receiver.New()
	events, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	control, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	failed := make(chan error, 2)
	go func() { failed <- r.Serve(events) }()
	server := &http.Server{Handler: r.Control(), ReadHeaderTimeout: time.Minute}
	go func() { failed <- server.Serve(control) }()
	go func() {
		_, err := io.Copy(io.Discard, stdin)
		failed <- err
	}()
	fmt.Fprintln(stdout, events.Addr(), control.Addr())
	return <-failed
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/lab/bench/receiver"
	"github.com/rowhook/rowhook/lab/internal/process"
)

// capacity is how many events one measurement may write.
const capacity = 1_000_000

// startPatience is how long a hundred sources may take until all of them work.
const startPatience = 5 * time.Minute

// lab is what a measurement needs.
type lab struct {
	opt     options
	out     io.Writer
	dir     string
	start   time.Time
	servers []*localpg.Server
	sources []*source

	receiver *receiver.Receiver
	listener net.Listener
	hook     string
	serving  sync.WaitGroup

	processes []*program
	next      atomic.Int64 // the last seq that was written
	commits   []int64      // by seq: Unix time in ns
}

// source is a database.
type source struct {
	name, url string
	server    *localpg.Server
}

// program is a rowhook run.
type program struct {
	*process.Process

	works *counter
}

func open(ctx context.Context, opt options, out io.Writer) (l *lab, err error) {
	l = &lab{opt: opt, out: out, start: time.Now(), receiver: receiver.New(), commits: make([]int64, capacity+1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "rowhook-sources-"); err != nil {
		return l, fmt.Errorf("make a directory: %w", err)
	}
	var config net.ListenConfig
	if l.listener, err = config.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return l, fmt.Errorf("listen: %w", err)
	}
	l.hook = "http://" + l.listener.Addr().String() + "/"
	l.receiver.Reset(capacity)
	l.serving.Go(func() { _ = l.receiver.Serve(l.listener) })
	return l, nil
}

func (l *lab) close() error {
	var errs []error
	for _, p := range l.processes {
		errs = append(errs, p.Stop(30*time.Second))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, s := range l.servers {
		errs = append(errs, s.Stop(ctx, localpg.Immediate))
	}
	if l.listener != nil {
		_ = l.listener.Close()
	}
	l.serving.Wait()
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

func (l *lab) logf(format string, args ...any) {
	fmt.Fprintf(l.out, "%6.1fs  %s\n", time.Since(l.start).Seconds(), fmt.Sprintf(format, args...))
}

// serve starts a server with databases, each of which has the table that is watched.
func (l *lab) serve(ctx context.Context, prefix string, n int) (*localpg.Server, []*source, error) {
	s, err := localpg.Start(ctx, localpg.Config{BinDir: l.opt.pgBin, Settings: map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min", "max_connections": "900",
	}})
	if err != nil {
		return nil, nil, err
	}
	l.servers = append(l.servers, s)
	admin, err := pgx.Connect(ctx, s.URL("template1"))
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	_, err = admin.Exec(ctx, "create table public.orders (seq bigint primary key, status text not null default 'placed', note text not null default 'Please ring twice')")
	_ = admin.Close(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("make the table: %w", err)
	}
	if admin, err = pgx.Connect(ctx, s.URL("postgres")); err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	var made []*source
	for i := range n {
		name := fmt.Sprintf("%s%03d", prefix, i)
		if _, err := admin.Exec(ctx, "create database "+name); err != nil {
			return nil, nil, fmt.Errorf("make a database: %w", err)
		}
		made = append(made, &source{name: name, url: s.URL(name), server: s})
	}
	l.sources = append(l.sources, made...)
	return s, made, nil
}

// dispatch starts a process that serves all sources, and waits until it does if all is said.
func (l *lab) dispatch(ctx context.Context) (*program, error) {
	var text strings.Builder
	text.WriteString("sources:\n")
	for _, s := range l.sources {
		fmt.Fprintf(&text, "  %s: {url: %q}\n", s.name, s.url)
	}
	fmt.Fprintf(&text, "triggers:\n  - {name: order_placed, table: public.orders, on: {insert: true}, webhook: {url: %q}}\n", l.hook)
	file := filepath.Join(l.dir, "rowhook.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	path, args := l.opt.binary, []string{"run", "-f", file, "--log-format", "json", "--http", address, "--grace-period", "2s"}
	number := len(l.processes) + 1
	if l.opt.profile != "" {
		if path, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		args = append([]string{profiledMode, filepath.Join(l.opt.profile, fmt.Sprintf("%s-%d", strings.ReplaceAll(l.opt.only, ",", "-"), number))}, args...)
	}
	p := &program{works: &counter{names: map[string]bool{}}}
	if l.opt.logs != "" {
		f, err := os.Create(filepath.Join(l.opt.logs, fmt.Sprintf("%d.log", number)))
		if err != nil {
			return nil, fmt.Errorf("write a log: %w", err)
		}
		p.works.copy = f // it is open for as long as this program runs
	}
	if p.Process, err = process.Start(process.Command{Name: "rowhook", Path: path, Args: args, Log: p.works}); err != nil {
		return nil, err
	}
	l.processes = append(l.processes, p)
	return p, nil
}

// served waits until the processes together serve all sources.
func (l *lab) served(ctx context.Context, programs ...*program) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		working := map[string]bool{}
		for _, p := range programs {
			for _, name := range p.works.list() {
				working[name] = true
			}
		}
		if len(working) >= len(l.sources) {
			return nil
		}
		for _, p := range programs {
			select {
			case <-p.Done():
				return fmt.Errorf("rowhook ended: %w%s", process.OrExited(p.Err()), p.Log())
			case <-ctx.Done():
				return fmt.Errorf("%d of %d sources work after %s%s", len(working), len(l.sources), startPatience, p.Log())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// counter reads which sources are served from the log.
type counter struct {
	mu    sync.Mutex
	names map[string]bool
	copy  io.Writer // optional
}

func (c *counter) Write(b []byte) (int, error) {
	var line struct{ Msg, Source string }
	if json.Unmarshal(b, &line) == nil && line.Source != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case line.Msg == "ready":
			c.names[line.Source] = true
		case strings.HasPrefix(line.Msg, "stopped"):
			delete(c.names, line.Source)
		}
	}
	if c.copy != nil {
		return c.copy.Write(b)
	}
	return len(b), nil
}

func (c *counter) list() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.names {
		all = append(all, name)
	}
	return all
}

// writer writes rows to a source.
type writer struct {
	lab  *lab
	of   *source
	conn *pgconn.PgConn
}

const insert = "insert into public.orders (seq) values ($1)"

func (l *lab) writer(ctx context.Context, s *source) (*writer, error) {
	conn, err := pgconn.Connect(ctx, s.url)
	if err != nil {
		return nil, fmt.Errorf("connect a writer: %w", err)
	}
	if _, err := conn.Prepare(ctx, "w", insert, nil); err != nil {
		return nil, fmt.Errorf("prepare an insert: %w", err)
	}
	return &writer{l, s, conn}, nil
}

func (w *writer) insert(ctx context.Context) (seq int64, err error) {
	if seq = w.lab.next.Add(1); seq > capacity {
		return 0, errors.New("there is no room for so many events")
	}
	r := w.conn.ExecPrepared(ctx, "w", [][]byte{strconv.AppendInt(nil, seq, 10)}, nil, nil).Read()
	if r.Err != nil {
		return 0, fmt.Errorf("insert a row: %w", r.Err)
	}
	w.lab.commits[seq] = time.Now().UnixNano()
	return seq, nil
}

// write has a writer for each of these sources write at a rate for a time. It returns what each wrote.
// A source that stands several times in the list has several writers.
func (l *lab) write(ctx context.Context, to []*source, rate float64, during time.Duration) (written [][]int64, err error) {
	all, err := l.connect(ctx, to)
	defer all.close(ctx)
	if err != nil {
		return nil, err
	}
	return all.write(ctx, rate, during)
}

// writers are a writer for each of some sources.
type writers []*writer

func (l *lab) connect(ctx context.Context, to []*source) (all writers, err error) {
	for _, s := range to {
		w, err := l.writer(ctx, s)
		if err != nil {
			return all, err
		}
		all = append(all, w)
	}
	return all, nil
}

func (all writers) close(ctx context.Context) {
	for _, w := range all {
		_ = w.conn.Close(context.WithoutCancel(ctx)) // whatever it wrote has been acknowledged
	}
}

// write has all write at a rate for a time, and returns what each wrote.
func (all writers) write(ctx context.Context, rate float64, during time.Duration) (written [][]int64, err error) {
	written, errs := make([][]int64, len(all)), make([]error, len(all))
	period := time.Duration(float64(time.Second) / rate)
	begin := time.Now()
	var working sync.WaitGroup
	for i, w := range all {
		working.Go(func() {
			// The writers' moments are spread evenly over the period.
			at := begin.Add(period * time.Duration(i) / time.Duration(len(all)))
			for ; at.Sub(begin) < during && ctx.Err() == nil; at = at.Add(period) {
				<-time.After(time.Until(at))
				seq, err := w.insert(ctx)
				if err != nil {
					errs[i] = err
					return
				}
				written[i] = append(written[i], seq)
			}
		})
	}
	working.Wait()
	return written, errors.Join(errs...)
}

// arrived waits until all that was written has arrived.
func (l *lab) arrived(ctx context.Context, written [][]int64, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		stamps, missing, first := l.receiver.Stamps(), 0, int64(0)
		for _, of := range written {
			for _, seq := range of {
				if stamps[seq] == 0 {
					missing, first = missing+1, seq
				}
			}
		}
		if missing == 0 {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%d events have not arrived within %s, such as number %d", missing, within, first)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// latencies are the times from commit to receipt in ms, sorted.
func (l *lab) latencies(written [][]int64) (all []float64) {
	stamps := l.receiver.Stamps()
	for _, of := range written {
		for _, seq := range of {
			all = append(all, float64(stamps[seq]-l.commits[seq])/1e6)
		}
	}
	slices.Sort(all)
	return all
}

func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

// profiledMode is the first argument of a child of this program that is rowhook with a profile.
const profiledMode = "profiled"

// profiled runs rowhook and writes a profile of its processor time and one of its memory. They begin at
// SIGUSR1 and end with it.
func profiled(path string, rowhook func() int) int {
	cpu, err := os.Create(path + ".cpu.pprof")
	if err != nil {
		fmt.Fprintln(os.Stderr, "sources:", err)
		return 1
	}
	defer cpu.Close()
	begin := make(chan os.Signal, 1)
	signal.Notify(begin, process.Profile)
	go func() {
		<-begin
		_ = pprof.StartCPUProfile(cpu)
		<-begin
		pprof.StopCPUProfile()
		if f, err := os.Create(path + ".heap.pprof"); err == nil {
			_ = pprof.Lookup("heap").WriteTo(f, 0)
			_ = f.Close()
		}
		if f, err := os.Create(path + ".goroutines.txt"); err == nil {
			_ = pprof.Lookup("goroutine").WriteTo(f, 1)
			_ = f.Close()
		}
	}()
	return rowhook()
}

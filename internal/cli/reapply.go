package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/logs"
)

// reapplier keeps a database at a configuration that may change: it applies it at the start, at
// SIGHUP and, if it watches, when the file has changed. What can't be applied is logged once, and
// what was applied before goes on. All of that happens in the goroutine that calls start and run, so
// that two applies never run at once.
type reapplier struct {
	file  string // a file or a directory; "": there is nothing to apply
	load  func() (*config.Config, error)
	apply func(context.Context, *config.Config) error
	log   *slog.Logger
	// lines is where the problems of a configuration are written, with their excerpts, below the line
	// of the log. nil: in the line of the log.
	lines io.Writer

	// watch has changes of the file taken up.
	watch bool
	// tables is how long to wait for tables and columns that do not exist yet. 0: not at all.
	tables time.Duration

	// orders are applies that somebody waits for. They run in the goroutine of run, so that no two
	// applies run at once, and that what they write is not taken for a change.
	orders chan order
	alone  sync.Mutex // held by an order while nothing watches
	obeyed bool       // an order was carried out, so what was to be applied is out of date

	hangups  chan os.Signal // nil: SIGHUP is somebody else's
	ticker   *time.Ticker
	contents contents
	waiting  atomic.Pointer[string] // what it waits for; nil: nothing
}

const (
	// lookAtFile is how often a watched file is read. Its content counts once two looks have found
	// the same, so that a change is taken up after twice this time at most.
	lookAtFile = 250 * time.Millisecond
	// lookForTables is how often a configuration is tried whose tables are missing.
	lookForTables = 500 * time.Millisecond
	// applyAgain is how long a reapplier that watches waits after it could not apply for another
	// reason than the configuration, such as a table that is busy.
	applyAgain = 10 * time.Second
)

// open begins to notice SIGHUP, if heedHangups, and changes of the file. close ends that.
func (r *reapplier) open(heedHangups bool) (close func()) {
	if heedHangups {
		r.hangups = make(chan os.Signal, 1)
		signal.Notify(r.hangups, syscall.SIGHUP)
	}
	r.contents.path = r.file
	if r.watch {
		r.ticker = time.NewTicker(lookAtFile)
	}
	return func() {
		if heedHangups {
			signal.Stop(r.hangups)
		}
		if r.ticker != nil {
			r.ticker.Stop()
		}
	}
}

// start applies the configuration. It waits for tables.
func (r *reapplier) start(ctx context.Context) error {
	r.contents.take()
	cfg, err := r.load()
	if err != nil {
		return err
	}
	return r.settle(ctx, cfg)
}

// background calls run until the returned function is called, which waits for its end.
func (r *reapplier) background(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// run applies the configuration again and again, until ctx is done.
func (r *reapplier) run(ctx context.Context) {
	const never = 1 << 62
	var due *config.Config // to be applied again
	said := ""
	for {
		wait := time.Duration(never)
		if due != nil {
			wait = applyAgain
		}
		newer, err := r.pause(ctx, wait)
		if err != nil {
			return
		}
		if r.obeyed {
			due, r.obeyed = nil, false
		}
		if newer != nil {
			due, said = newer, ""
		}
		if due == nil {
			continue
		}
		err = r.settle(ctx, due)
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			r.refuse(err)
		}
		if err == nil || errors.As(err, new(*config.Error)) || !r.watch {
			due = nil
		}
	}
}

// settle applies a configuration. It waits for tables, from when it finds that they are missing, and
// takes up a newer configuration meanwhile.
func (r *reapplier) settle(ctx context.Context, cfg *config.Config) error {
	defer r.waiting.Store(nil)
	var until time.Time // zero: nothing was found missing yet
	var said []string
	for {
		err := r.apply(ctx, cfg)
		var lack *lackError
		if errors.As(err, &lack) && until.IsZero() {
			until = time.Now().Add(r.tables)
		}
		if lack == nil || !time.Now().Before(until) {
			if err == nil && said != nil {
				r.log.Info("the tables are there")
			}
			return err
		}
		what := strings.Join(lack.missing, ", ")
		r.waiting.Store(&what)
		if !slices.Equal(lack.missing, said) {
			said = lack.missing
			r.log.Info("waiting for tables that do not exist yet", "missing", what, "for_up_to", time.Until(until).Round(time.Second))
		}
		newer, err := r.pause(ctx, min(lookForTables, max(time.Until(until), 0)))
		if err != nil {
			return err
		}
		if r.obeyed {
			r.obeyed = false
			return nil
		}
		if newer != nil {
			cfg, until, said = newer, time.Time{}, nil
		}
	}
}

// pause waits until the time is over, and returns nil, or until there is a newer configuration.
func (r *reapplier) pause(ctx context.Context, wait time.Duration) (*config.Config, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var ticks <-chan time.Time
	if r.ticker != nil {
		ticks = r.ticker.C
	}
	for {
		var newer *config.Config
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return nil, nil
		case <-r.hangups:
			newer = r.hungUp()
		case <-ticks:
			newer = r.changed()
		case o := <-r.orders:
			o.ended <- r.obey(ctx, o)
			if r.obeyed {
				return nil, nil
			}
		}
		if newer != nil {
			return newer, nil
		}
	}
}

// order is an apply that somebody waits for.
type order struct {
	do    func(context.Context) error
	ended chan error // holds one
}

// order has an apply made, and waits for its end. If nothing else applies, it makes it itself.
func (r *reapplier) order(ctx context.Context, do func(context.Context) error) error {
	o := order{do: do, ended: make(chan error, 1)}
	if !r.watch {
		r.alone.Lock()
		defer r.alone.Unlock()
		return do(ctx)
	}
	select {
	case r.orders <- o:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// obey makes an apply, and takes up what it has written.
func (r *reapplier) obey(ctx context.Context, o order) error {
	err := o.do(ctx)
	if r.obeyed = err == nil; r.obeyed {
		r.contents.take()
	}
	return err
}

// hungUp returns the configuration as it is now, or nil if it is refused.
func (r *reapplier) hungUp() *config.Config {
	if r.file == "" {
		r.log.Warn("SIGHUP: nothing to apply again, because -f is not set")
		return nil
	}
	r.log.Info("SIGHUP: applying the configuration again", "file", r.file)
	r.contents.take()
	cfg, err := r.load()
	if err != nil {
		r.refuse(err)
		return nil
	}
	return cfg
}

// changed returns the configuration if the file has changed, and nil if it has not, or is refused.
func (r *reapplier) changed() *config.Config {
	settled, ok := r.contents.changed()
	if !ok {
		return nil
	}
	cfg, err := r.load()
	if r.contents.now() != settled {
		return nil // it was written meanwhile, perhaps in part
	}
	r.contents.taken = settled
	r.log.Info("the configuration has changed: applying it", "file", r.file)
	if err != nil {
		r.refuse(err)
		return nil
	}
	return cfg
}

func (r *reapplier) refuse(err error) {
	const what = "configuration not applied, still using the previous one"
	if r.lines == nil || !strings.Contains(err.Error(), "\n") && !errors.As(err, new(*config.Error)) {
		r.log.Error(what, "file", r.file, "error", err)
		return
	}
	r.log.Error(what, "file", r.file)
	fmt.Fprintln(r.lines, err)
}

// lines is where lines below a line of the log are written, or nil if the log is for machines.
func (a *app) lines() io.Writer {
	if a.global.format == logs.FormatJSON {
		return nil
	}
	return a.stderr
}

// waitingFor says what it waits for, or returns "".
func (r *reapplier) waitingFor() string {
	what := r.waiting.Load()
	if what == nil {
		return ""
	}
	return "waiting for " + *what
}

// contents notices that a file, or a directory of files, has another content than the one that was
// taken up. It reads the content again and again, because the system's notifications do not tell:
// they do not cross the bind mount of a container's engine, and a ConfigMap of Kubernetes changes by
// a symbolic link of another directory.
type contents struct {
	path  string
	taken string // fingerprint of what was taken up
	last  string // and of the last look
}

// now is the fingerprint of the content. For what can't be read it is the error.
func (c *contents) now() string {
	sum, err := config.Fingerprint(c.path)
	if err != nil {
		return "error: " + err.Error()
	}
	return sum
}

// take takes up what is there.
func (c *contents) take() {
	c.taken = c.now()
	c.last = c.taken
}

// changed looks once. ok is true if the content is not what was taken up, and the same as at the
// last look: a file that is being written is not taken up in part. (If all the same a write pauses
// for longer than that, an empty file is an error.) The caller then sets taken.
func (c *contents) changed() (settled string, ok bool) {
	now := c.now()
	same := now == c.last
	c.last = now
	return now, same && now != c.taken
}

// lackError says that the database lacks tables or columns that a configuration names, and that
// nothing else is wrong with it.
type lackError struct {
	missing []string // such as "the table public.orders"
	err     error    // the error of the configuration, for people
}

func (e *lackError) Error() string { return e.err.Error() }
func (e *lackError) Unwrap() error { return e.err }

package cli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
)

// kept is a reapplier of a file, with the log and the names of the triggers of each apply.
type kept struct {
	*reapplier
	path string

	mu      sync.Mutex // the test writes while the reapplier runs
	log     bytes.Buffer
	applied []string
	fail    func(*config.Config) error // of an apply
	begun   time.Time                  // the last apply
}

// Write appends to the log.
func (k *kept) Write(line []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.log.Write(line)
}

// times returns how often the log says something.
func (k *kept) times(what string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Count(k.log.String(), what)
}

// names returns the names of the triggers of each apply.
func (k *kept) names() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.applied)
}

// lastApply returns when the last apply was.
func (k *kept) lastApply() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.begun
}

// fails has each apply from now on fail as f does.
func (k *kept) fails(f func(*config.Config) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = f
}

func newKept(t *testing.T, content string) *kept {
	k := &kept{path: filepath.Join(t.TempDir(), "rowhook.yaml"), fail: func(*config.Config) error { return nil }}
	k.write(t, content)
	k.reapplier = &reapplier{
		file: k.path, watch: true, log: slog.New(slog.NewTextHandler(k, nil)),
		load: func() (*config.Config, error) { return config.Load(k.path, nil) },
		apply: func(_ context.Context, cfg *config.Config) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			if err := k.fail(cfg); err != nil {
				return err
			}
			var names []string
			for i := range cfg.Triggers {
				names = append(names, cfg.Triggers[i].Name)
			}
			k.applied, k.begun = append(k.applied, strings.Join(names, " ")), time.Now()
			return nil
		},
	}
	return k
}

func (k *kept) write(t *testing.T, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(k.path, []byte(content), 0o600))
}

// pass lets time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// began runs start and then run in the background, until the test ends.
func (k *kept) began(t *testing.T) (cancel func()) {
	t.Helper()
	end := k.open(false)
	require.NoError(t, k.start(t.Context()))
	stop := k.background(t.Context())
	return sync.OnceFunc(func() { stop(); end() })
}

// lacking is the failure of an apply that lacks tables.
func lacking(missing ...string) func(*config.Config) error {
	return func(*config.Config) error {
		return &lackError{missing, config.ErrorOf(config.Problem{Message: "there is no table"})}
	}
}

func triggersNamed(names ...string) string {
	text := "triggers:\n"
	for _, name := range names {
		text += "  - {name: " + name + ", table: public.t, on: {insert: true}, webhook: {url: \"http://127.0.0.1:1\"}}\n"
	}
	return text
}

func TestAWatchedFileIsTakenUpWithinASecondAndABrokenOneIsRefusedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, triggersNamed("a"))
		defer k.began(t)()
		require.Equal(t, []string{"a"}, k.names())
		pass(time.Minute)
		require.Equal(t, []string{"a"}, k.names(), "nothing has changed")

		changed := time.Now()
		k.write(t, triggersNamed("a", "b"))
		pass(time.Minute)
		require.Equal(t, []string{"a", "a b"}, k.names())
		require.Less(t, k.lastApply().Sub(changed), time.Second)

		k.write(t, "triggers: [}")
		pass(time.Minute)
		k.write(t, "")
		pass(time.Minute)
		require.NoError(t, os.Remove(k.path))
		pass(time.Minute)
		require.Equal(t, []string{"a", "a b"}, k.names())
		require.Equal(t, 3, k.times("still using the previous one"))

		k.write(t, triggersNamed("c"))
		pass(time.Minute)
		require.Equal(t, []string{"a", "a b", "c"}, k.names())
	})
}

func TestAFileThatIsBeingWrittenIsNotTakenUpInPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, triggersNamed("a", "b", "c"))
		defer k.began(t)()
		for _, part := range []string{triggersNamed("a"), triggersNamed("a", "b"), triggersNamed("a", "b", "c", "d")} {
			pass(lookAtFile)
			k.write(t, part)
		}
		pass(time.Minute)
		require.Equal(t, []string{"a b c", "a b c d"}, k.names())

		// It is written while it is loaded, after two looks at what was there before.
		load := k.load
		k.load = func() (*config.Config, error) {
			k.load = load
			k.write(t, triggersNamed("half"))
			cfg, err := load()
			k.write(t, triggersNamed("whole"))
			return cfg, err
		}
		k.write(t, triggersNamed("x"))
		pass(time.Minute)
		require.Equal(t, []string{"a b c", "a b c d", "whole"}, k.names())
	})
}

func TestWhatCouldNotBeAppliedForAnotherReasonIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, triggersNamed("a"))
		defer k.began(t)()
		k.fails(func(*config.Config) error { return errors.New("the table is busy") })
		k.write(t, triggersNamed("b"))
		pass(time.Minute)
		require.Equal(t, 1, k.times("the table is busy"))
		k.fails(func(*config.Config) error { return nil })
		pass(2 * applyAgain)
		require.Equal(t, []string{"a", "b"}, k.names())
	})
}

func TestTablesThatComeLaterAreWaitedForAndOnlyThese(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, triggersNamed("a"))
		k.tables = time.Minute
		k.fails(lacking("the table public.t", "the table public.u"))
		defer k.open(false)()
		started := make(chan error, 1)
		begun := time.Now()
		go func() { started <- k.start(t.Context()) }()
		pass(10 * time.Second)
		require.Equal(t, "waiting for the table public.t, the table public.u", k.waitingFor())
		require.Equal(t, 1, k.times("waiting for tables"))
		k.fails(lacking("the table public.u"))
		pass(10 * time.Second)
		require.Equal(t, 2, k.times("waiting for tables"))
		k.fails(func(*config.Config) error { return nil })
		require.NoError(t, <-started)
		require.Less(t, time.Since(begun), 22*time.Second)
		require.Empty(t, k.waitingFor())
		require.Equal(t, []string{"a"}, k.names())

		// A newer file is taken up while it waits.
		k.fails(lacking("the table public.v"))
		go func() { started <- k.start(t.Context()) }()
		pass(10 * time.Second)
		k.write(t, "triggers: [}")
		pass(10 * time.Second)
		k.fails(func(cfg *config.Config) error {
			if cfg.Triggers[0].Name == "a" {
				return lacking("the table public.v")(cfg)
			}
			return nil
		})
		k.write(t, triggersNamed("b"))
		require.NoError(t, <-started)
		require.Equal(t, []string{"a", "b"}, k.names())

		// It gives up with the usual error.
		k.fails(lacking("the table public.v"))
		begun = time.Now()
		err := k.start(t.Context())
		require.ErrorContains(t, err, "there is no table")
		require.ErrorAs(t, err, new(*config.Error))
		require.InDelta(t, time.Minute, time.Since(begun), float64(time.Second))

		// What passes until the database answers does not count.
		k.fails(func(cfg *config.Config) error {
			time.Sleep(2 * time.Minute) //nolint:forbidigo // in a bubble
			return lacking("the table public.v")(cfg)
		})
		begun = time.Now()
		require.ErrorContains(t, k.start(t.Context()), "there is no table")
		require.Equal(t, 4*time.Minute, time.Since(begun).Round(time.Minute), "it was tried again")

		// Other mistakes are errors at once, and so is a missing table without the flag.
		begun = time.Now()
		k.fails(func(*config.Config) error { return config.ErrorOf(config.Problem{Message: "a view"}) })
		require.ErrorContains(t, k.start(t.Context()), "a view")
		k.tables = 0
		k.fails(func(*config.Config) error { return &lackError{[]string{"the table public.v"}, errors.New("none")} })
		require.ErrorContains(t, k.start(t.Context()), "none")
		require.Equal(t, begun, time.Now())

		// A stop ends the wait at once.
		k.tables = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		go func() { started <- k.start(ctx) }()
		pass(time.Minute)
		begun = time.Now()
		cancel()
		require.ErrorIs(t, <-started, context.Canceled)
		require.Equal(t, begun, time.Now())
	})
}

func TestAHangupAppliesAtOnceAlsoWhileTablesAreWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, triggersNamed("a"))
		k.tables = time.Hour
		end := k.open(false)
		defer end()
		k.hangups = make(chan os.Signal, 1)
		k.fails(func(cfg *config.Config) error {
			if cfg.Triggers[0].Name == "a" {
				return &lackError{[]string{"the table public.t"}, errors.New("none")}
			}
			return nil
		})
		started := make(chan error, 1)
		go func() { started <- k.start(t.Context()) }()
		pass(time.Second)
		k.write(t, triggersNamed("b"))
		begun := time.Now()
		k.hangups <- syscall.SIGHUP
		require.NoError(t, <-started)
		require.Equal(t, begun, time.Now())
		require.Equal(t, []string{"b"}, k.names())
		stop := k.background(t.Context())
		pass(time.Minute)
		require.Equal(t, []string{"b"}, k.names(), "the watch does not apply it again")
		stop()
	})
}

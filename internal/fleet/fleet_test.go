package fleet_test

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/fleet"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	patience = time.Minute
	tick     = 20 * time.Millisecond
)

// on makes dispatchers on a database.
func on(url string) func(int32) (*dispatcher.Dispatcher, error) {
	return func(process int32) (*dispatcher.Dispatcher, error) {
		return dispatcher.New(dispatcher.Config{DatabaseURL: url, Process: process})
	}
}

// started waits until a member's dispatcher works, and returns its instance.
func started(t *testing.T, f *fleet.Fleet, name string) int32 {
	t.Helper()
	var instance int32
	require.Eventually(t, func() bool {
		s, ok := f.State(name)
		instance = s.Stats.Instance
		return ok && s.Stats.Started
	}, patience, tick, name)
	return instance
}

func instances(t *testing.T, db *pgtest.DB) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL()) // that of db.Conn is open until the test ends
	require.NoError(t, err)
	defer conn.Close(t.Context())
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from rowhook.instance").Scan(&n))
	return n
}

func TestAMemberThatFailsIsTriedAgainWhileTheOthersGoOn(t *testing.T) {
	t.Parallel()
	good, late := pgtest.New(t), pgtest.New(t)
	var away atomic.Bool
	away.Store(true)
	errAway := errors.New("it is away")
	var said atomic.Int32
	f := fleet.New()
	f.Set([]fleet.Member{
		{Name: "good", New: on(good.URL())},
		{
			Name: "late", Refused: func(fleet.Stage, error) { said.Add(1) },
			Prepare: func(context.Context) error {
				if away.Load() {
					return errAway
				}
				return nil
			},
			New: func(process int32) (*dispatcher.Dispatcher, error) {
				if away.Load() {
					return nil, errAway
				}
				return on(late.URL())(process)
			},
		},
	})
	started(t, f, "good")
	require.Eventually(t, func() bool {
		s, _ := f.State("late")
		return s.Tried && errors.Is(s.Problem, errAway) && !s.Prepared
	}, patience, tick)
	require.Eventually(t, func() bool { return said.Load() == 2 }, patience, tick, "once for each stage")
	away.Store(false)
	started(t, f, "late")
	require.Eventually(t, func() bool {
		s, _ := f.State("late")
		return s.Problem == nil && s.Prepared
	}, patience, tick)
	require.EqualValues(t, 2, said.Load())
	require.NoError(t, f.Stop())
	require.Zero(t, instances(t, good)+instances(t, late))
}

func TestSetStartsStopsAndReplaces(t *testing.T) {
	t.Parallel()
	a, b, c := pgtest.New(t), pgtest.New(t), pgtest.New(t)
	var prepared, ended atomic.Int32
	member := func(name string, db *pgtest.DB) fleet.Member {
		return fleet.Member{
			Name: name, Made: db.URL(), New: on(db.URL()), Ended: func() { ended.Add(1) },
			Prepare: func(context.Context) error { prepared.Add(1); return nil },
		}
	}
	f := fleet.New()
	f.Set([]fleet.Member{member("one", a), member("two", b)})
	one := started(t, f, "one")
	started(t, f, "two")
	require.EqualValues(t, 2, prepared.Load())

	f.Set([]fleet.Member{member("one", a), member("three", c)})
	require.Eventually(t, func() bool { return ended.Load() == 1 && instances(t, b) == 0 }, patience, tick, "two is gone")
	started(t, f, "three")
	require.Eventually(t, func() bool { return prepared.Load() == 4 }, patience, tick, "one prepares again, and three for the first time")
	require.Equal(t, one, started(t, f, "one"), "it goes on as it was")

	f.Set([]fleet.Member{member("one", b), member("three", c)})
	require.Eventually(t, func() bool { return instances(t, a) == 0 && instances(t, b) == 1 }, patience, tick, "one is made of another database")
	require.NoError(t, f.Stop())
	require.EqualValues(t, 4, ended.Load())
	f.Set([]fleet.Member{member("late", a)})
	_, known := f.State("late")
	require.False(t, known, "nothing is started any more")
}

func TestAPrepareThatHangsDoesNotKeepOthersFromStopping(t *testing.T) {
	t.Parallel()
	f := fleet.New()
	begun := make(chan struct{})
	f.Set([]fleet.Member{{
		Name: "hangs", New: func(int32) (*dispatcher.Dispatcher, error) { return nil, errors.New("never") },
		Prepare: func(ctx context.Context) error { close(begun); <-ctx.Done(); return ctx.Err() },
	}})
	<-begun
	s, ok := f.State("hangs")
	require.True(t, ok)
	require.False(t, s.Tried)
	require.NoError(t, s.Problem)
	require.NoError(t, f.Stop())
}

package dispatcher_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/timed"
)

// signalServer sends a signal to a server and all its processes.
func signalServer(t *testing.T, server *pgtest.Server, signal syscall.Signal) {
	t.Helper()
	postmaster := strconv.Itoa(server.PID())
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(server.PID(), signal))
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) < 2 || fields[1] != postmaster {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		require.NoError(t, err)
		_ = syscall.Kill(pid, signal) // it may have ended
	}
}

func TestAServerThatHangsTakesNothingFromADispatcherThatShares(t *testing.T) {
	timed.Alone(t)
	server := pgtest.NewServer(t)
	b := newFixture(t)
	a := &fixture{&dispatchtest.Site{DB: server.New(t), Endpoint: b.receiver.URL}, b.receiver}
	s := newShared(t, dispatcher.SharedConfig{Concurrency: 4})
	a.watch(t, "items")
	b.watch(t, "orders")
	a.start(t, sharing(s, "a"))
	b.start(t, sharing(s, "b"))
	sent := 0
	slowest := func() (slowest time.Duration) {
		for range 50 {
			sent++
			began := time.Now()
			b.Exec(t, "insert into orders default values")
			b.receiver.await(t, "orders", sent)
			slowest = max(slowest, time.Since(began))
		}
		return slowest
	}
	slowest()
	a.insert(t, "items", 1000) // some are in flight, and others claimed
	signalServer(t, server, syscall.SIGSTOP)
	defer signalServer(t, server, syscall.SIGCONT)
	require.Less(t, slowest(), 500*time.Millisecond)
}

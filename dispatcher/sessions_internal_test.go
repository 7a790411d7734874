package dispatcher

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestASessionIsWaitedForBeforeAnotherOneIsOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := newSessions(nil)
		hot, cold := all.share(2, hotPatience), all.share(1, coldPatience)
		require.NoError(t, hot.enter(t.Context()))

		began := time.Now()
		go func() {
			<-time.After(hotPatience / 2)
			hot.leave()
		}()
		require.NoError(t, cold.enter(t.Context()))
		require.Equal(t, hotPatience/2, time.Since(began), "it takes the one that is given back")
		require.Equal(t, 1, all.width)

		began = time.Now()
		require.NoError(t, hot.enter(t.Context()))
		require.Equal(t, hotPatience, time.Since(began), "nobody gives one back")
		require.Equal(t, 2, all.width)

		brief, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, cold.enter(brief), context.DeadlineExceeded, "its share is in use")
		hot.leave()
		cold.leave()
		require.Zero(t, all.used)
		require.Empty(t, all.waiting)
	})
}

func TestWhereSessionsAreOftenInUseNobodyWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := newSessions(nil)
		hot := all.share(4, hotPatience)
		for range mostWaits {
			require.NoError(t, hot.enter(t.Context()))
			got := make(chan error, 1)
			go func() { got <- hot.enter(t.Context()) }()
			synctest.Wait()
			hot.leave()
			require.NoError(t, <-got)
			hot.leave()
		}
		require.Equal(t, 1, all.width)
		require.NoError(t, hot.enter(t.Context()))
		began := time.Now()
		require.NoError(t, hot.enter(t.Context()))
		require.Equal(t, time.Now(), began)
		require.Equal(t, 2, all.width)
		hot.leave()
		hot.leave()

		<-time.After(narrowAfter)
		require.NoError(t, hot.enter(t.Context()))
		require.Equal(t, 2, all.width, "both were in use in that time")
		hot.leave()
		<-time.After(narrowAfter)
		require.NoError(t, hot.enter(t.Context()))
		require.Equal(t, 1, all.width, "one was enough")
	})
}

func TestASessionThatTheServerRefusesIsDoneWithout(t *testing.T) {
	t.Parallel()
	test := pgtest.New(t)
	role, url := test.Role(t)
	d, err := New(Config{DatabaseURL: url})
	require.NoError(t, err)
	require.NoError(t, d.db.open(url, "", nil))
	t.Cleanup(d.db.close)
	test.Exec(t, "alter role "+role+" connection limit 1")
	only, err := d.db.writes.Acquire(t.Context())
	require.NoError(t, err)
	got := make(chan error, 1)
	go func() {
		var one int
		got <- d.db.claims.QueryRow(t.Context(), "select 1").Scan(&one)
	}()
	require.Never(t, func() bool { return len(got) > 0 }, 10*hotPatience, hotPatience)
	only.Release()
	require.NoError(t, <-got)
}

// Such as by idle_session_timeout, which is not ours to switch off there.
func TestASessionThatWasEndedWhileItWasIdleIsNotUsedThroughAPooler(t *testing.T) {
	t.Parallel()
	test := pgtest.New(t)
	db := &database{pooled: true, application: "rowhook idle"}
	require.NoError(t, db.open(test.URL(), test.URL(), nil))
	defer db.close()
	conn := test.Conn(t)
	for range 3 {
		var pid int
		require.NoError(t, db.signs.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid))
		_, err := conn.Exec(t.Context(), "select pg_terminate_backend($1, 5000), pg_sleep(1)", pid)
		require.NoError(t, err)
		require.NoError(t, db.signs.QueryRow(t.Context(), "select 1").Scan(&pid), "a session that has ended was used")
	}
}

package pgtest

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/clone"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/sqlschema"
)

// Server is a Postgres server for one test, which may crash it or change its settings.
type Server struct{ local *localpg.Server }

// NewServer starts a server of the same version as the package's server, and stops it at the end of
// the test. Settings of the form name=value override the usual ones.
func NewServer(t testing.TB, settings ...string) *Server {
	t.Helper()
	local, err := StartServer(t.Context(), settings...)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", logTail(local.LogFile(), 30))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := local.Stop(ctx, localpg.Immediate); err != nil {
			t.Errorf("stop the test's server: %v", err)
		}
	})
	if os.Getenv(EnvURL) != "" {
		require.Equal(t, Version(t), local.Version()/10000,
			"the binaries in %s and the server of %s have different versions: set %s to the directory of matching binaries", local.BinDir(), EnvURL, EnvBinDir)
	}
	return &Server{local: local}
}

func logTail(path string, n int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// URL returns the connection string of one of the server's databases, for a superuser. It stays the
// same across restarts.
func (s *Server) URL(database string) string { return s.local.URL(database) }

// New makes a database with the schema rowhook. It lasts as long as the server.
func (s *Server) New(t testing.TB) *DB {
	t.Helper()
	db := s.NewEmpty(t)
	conn := connect(t, db.url)
	defer closeConn(t, conn)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, slog.New(slog.DiscardHandler)))
	return db
}

// NewEmpty makes a database without the schema rowhook. It lasts as long as the server.
func (s *Server) NewEmpty(t testing.TB) *DB {
	t.Helper()
	db, err := clone.Empty(t.Context(), s.URL("postgres"), "template0")
	require.NoError(t, err)
	return &DB{url: db.URL}
}

// Stop stops the server and keeps its data for Start. Mode localpg.Immediate is a crash: the next
// start recovers from the WAL.
func (s *Server) Stop(t testing.TB, mode localpg.Mode) {
	t.Helper()
	require.NoError(t, s.local.Halt(t.Context(), mode))
}

// Start starts a stopped server on the same data and port, and returns when it accepts connections.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	require.NoError(t, s.local.Start(t.Context()))
}

// Restart stops the server in the given mode and starts it again.
func (s *Server) Restart(t testing.TB, mode localpg.Mode) {
	t.Helper()
	require.NoError(t, s.local.Restart(t.Context(), mode))
}

// PID returns the process id of the postmaster, or 0 while the server is stopped.
func (s *Server) PID() int { return s.local.PID() }

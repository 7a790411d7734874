package cli_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

// findPgBouncer returns the program's path, or nothing where it is not installed.
func findPgBouncer() string {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// pooled starts PgBouncer in transaction mode before a database and returns the URL through it.
func pooled(t *testing.T, program string, db *pgtest.DB) string {
	t.Helper()
	return pooledBy(t, program, "transaction", db)
}

// pooledBy is pooled with another pool_mode.
func pooledBy(t *testing.T, program, mode string, db *pgtest.DB) string {
	t.Helper()
	server, err := url.Parse(db.URL())
	require.NoError(t, err)
	secret, _ := server.User.Password()
	_, port, err := net.SplitHostPort(closedPort(t))
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "rowhook-pgbouncer-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	config := filepath.Join(dir, "pgbouncer.ini")
	user := ""
	if os.Geteuid() == 0 {
		user = "user = nobody" // it refuses to run as root
	}
	require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf(`
[databases]
* = host=%s port=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = 3
%s
`, server.Hostname(), server.Port(), server.User.Username(), secret, port, mode, user)), 0o644))
	log := &output{changed: make(chan struct{})}
	cmd := exec.Command(program, config)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("PgBouncer\n%s", log)
		}
	})
	log.waitFor(t, "process up")
	through := *server
	through.Host = net.JoinHostPort("127.0.0.1", port)
	return through.String()
}

func TestThroughPgBouncerInTransactionMode(t *testing.T) {
	t.Parallel()
	program := findPgBouncer()
	if program == "" {
		t.Log("left out: PgBouncer is not installed; scripts/test installs it as root on Debian")
		return
	}
	for _, c := range []struct {
		name    string
		args    []string
		direct  bool // there is a way past the pooler, too
		says    string
		refused bool
	}{
		{"with a listen URL", []string{"--poll-interval", "1h"}, true, "ready", false},
		{"without one, polling", []string{"--no-listen", "--poll-interval", "200ms"}, false, "not listening for notifications: changes are found by polling", false},
		{"without either", nil, false, "seems to lead through a pooler: set ROWHOOK_LISTEN_URL", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, l, env := installed(t, 0)
			through := pooled(t, program, db)
			env = append(env[:0:0], "DATABASE_URL="+through)
			if c.direct {
				env = append(env, "ROWHOOK_LISTEN_URL="+db.URL())
			}
			args := append([]string{"run", "--http", "127.0.0.1:0"}, c.args...) // instances of other tests may have the default address
			processes := []*process{start(t, env, args...), start(t, env, args...)}
			for _, p := range processes {
				p.stderr.waitFor(t, c.says)
			}
			if c.refused {
				require.Equal(t, 1, processes[0].exit(t))
				return
			}
			at := processes[0].stderr.waitFor(t, `serving HTTP.* address=(\S+)`)[1]
			code, _, stderr := rowhook(t, env, "healthcheck", "http://"+at+"/readyz")
			require.Zero(t, code, stderr)
			conn := db.Conn(t)
			for n := range 20 {
				_, err := conn.Exec(t.Context(), "insert into orders (status) values ('single')")
				require.NoError(t, err)
				require.Zero(t, l.await(t, n+1))
			}
			db.Exec(t, "insert into orders (status) select 'bulk' from generate_series(1, 2000)")
			require.Zero(t, l.await(t, 2020))
			for _, p := range processes {
				p.signal(t, syscall.SIGTERM)
				require.Zero(t, p.exit(t))
			}
			require.Equal(t, 2020, l.count())
			require.Equal(t, 2020, count(t, db, "rowhook.event_archive"))
			require.Equal(t, 2020, count(t, db, "rowhook.invocation_log"))
			require.Zero(t, count(t, db, "rowhook.event_log"))
			require.Zero(t, count(t, db, "rowhook.instance"))
		})
	}
}

package session

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// When each side takes the other for gone that does not answer: after 11 s of silence, or 10 s after what it sent was not taken. By default
// systems wait for two hours, and a quarter of one.
const (
	keepAliveIdle     = 5 * time.Second
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	userTimeout       = 10 * time.Second
	// A server that has more to say waits longer for one who reads what it prints page by page.
	serverUserTimeout = time.Minute
)

// newDialer connects so that a dead connection is noticed on this side.
func newDialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout:         timeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount},
		Control:         giveUpUnanswered,
	}
}

// Own settles on the server's side what a role or a database may have set, of a session that is ours alone: no timeout ends it or its
// statements, as each statement of ours has its own, and the server notices when this side is gone. Where a pooler may share the session,
// which is where statements are not prepared by name, nothing is set: the next to get it would have it. Connections of Connect and of
// ParsePool are settled so already.
func Own(ctx context.Context, conn *pgx.Conn) error {
	if conn.Config().DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return nil
	}
	settings := []string{"statement_timeout", "0", "lock_timeout", "0", "idle_session_timeout", "0",
		"tcp_keepalives_idle", seconds(keepAliveIdle), "tcp_keepalives_interval", seconds(keepAliveInterval),
		"tcp_keepalives_count", strconv.Itoa(keepAliveCount), "tcp_user_timeout", strconv.FormatInt(serverUserTimeout.Milliseconds(), 10)}
	if conn.Config().RuntimeParams["idle_in_transaction_session_timeout"] == "" {
		settings = append(settings, "idle_in_transaction_session_timeout", "0")
	}
	if major(conn.PgConn().ParameterStatus("server_version")) >= 17 {
		settings = append(settings, "transaction_timeout", "0")
	}
	var calls []string
	for i := 0; i < len(settings); i += 2 {
		calls = append(calls, fmt.Sprintf("pg_catalog.set_config('%s', '%s', false)", settings[i], settings[i+1]))
	}
	if _, err := conn.Exec(ctx, "select "+strings.Join(calls, ", ")); err != nil {
		return fmt.Errorf("settle the session: %w", err)
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// major is the number before the first dot, or beta, of a server's version.
func major(version string) int {
	n := 0
	for _, c := range version {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

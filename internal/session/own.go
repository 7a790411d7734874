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

// Each side gives up a connection whose other side does not answer: after 11 s of silence, or 10 s
// after it sent data that was not acknowledged. The defaults of operating systems are two hours and
// 15 minutes.
const (
	keepAliveIdle     = 5 * time.Second
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	userTimeout       = 10 * time.Second
	// A server waits longer. A client that prints page by page, like psql, reads slowly.
	serverUserTimeout = time.Minute
)

// newDialer returns a dialer whose connections notice that the server is gone.
func newDialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout:         timeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount},
		Control:         giveUpUnanswered,
	}
}

// Own overrides the settings of a role or a database for a session that belongs to this process
// alone. No timeout of the server ends the session or its statements, since each statement has its
// own timeout. The server notices when this process is gone.
//
// Own sets nothing where a pooler may share the session, since the settings would reach its next
// user. That is so if statements are not prepared by name. Connect and ParsePool call Own.
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
		return fmt.Errorf("set the session's timeouts: %w", err)
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// major returns the major version in a server's version: the number in front of the first dot or
// letter.
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

package dispatcher

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/session"
)

// database is the way to Postgres. New sets pooled and application, open sets the pools and the
// tunings before the loops start, and nothing but schema changes after that.
type database struct {
	claims *pgxpool.Pool   // sessions tuned for claiming; their commits don't wait for the disk
	writes *pgxpool.Pool   // sessions that settle
	direct *pgx.ConnConfig // for the session that listens

	// pooled says that the database URL may lead through a pooler that hands out sessions by
	// transaction.
	pooled      bool
	tunings     tunings // if pooled
	application string  // application_name of this instance's sessions

	schema schemaVersion
}

// open makes the pools. They connect when they are first used.
func (db *database) open(databaseURL, listenURL string, noticed func(*pgconn.PgConn, *pgconn.Notice)) error {
	cfg, err := session.ParsePool(databaseURL)
	if err != nil {
		return fmt.Errorf("read the database URL: %w", err)
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = db.application
	cfg.MinConns, cfg.MaxConnIdleTime = 0, 5*time.Minute
	// A ping before the statement would delay every wake from sleep. A dead connection shows in the
	// statement itself.
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	cfg.ConnConfig.OnNotice = noticed
	db.direct = cfg.ConnConfig
	if listenURL != "" {
		if db.direct, err = session.Parse(listenURL); err != nil {
			return fmt.Errorf("read the listen URL: %w", err)
		}
		db.direct.RuntimeParams["application_name"] = db.application
	}
	writes, claims := cfg.Copy(), cfg.Copy()
	db.direct.RuntimeParams["search_path"], db.direct.RuntimeParams[queue.RowSecurity] = "pg_catalog", "off"
	if db.pooled {
		db.tunings = newTunings()
		pg.ThroughPooler(writes.ConnConfig)
		pg.ThroughPooler(claims.ConnConfig)
	} else {
		tune(writes.ConnConfig.RuntimeParams)
		tune(claims.ConnConfig.RuntimeParams)
		// If the server crashes and loses a claim, its events are due again. Nothing else is lost.
		claims.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	}
	// The claimer, the taker, the orderer, the peers, the pulse and the pacer have a session each, so that
	// none waits for another.
	claims.MaxConns, writes.MaxConns = 6, 4
	if db.claims, err = pgxpool.NewWithConfig(context.Background(), claims); err != nil {
		return fmt.Errorf("create a connection pool: %w", err)
	}
	if db.writes, err = pgxpool.NewWithConfig(context.Background(), writes); err != nil {
		db.claims.Close()
		return fmt.Errorf("create a connection pool: %w", err)
	}
	return nil
}

// close closes the pools.
func (db *database) close() {
	db.claims.Close()
	db.writes.Close()
}

// applicationName is what sessions of an instance are called in pg_stat_activity. The server keeps
// 63 bytes of ASCII, and writes other characters as question marks or as escapes, by its version. A
// name that it would change gets a checksum, so that names which differ stay apart.
func applicationName(instance string) string {
	const most = 63
	name := "rowhook " + instance
	ascii := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name)
	if ascii == name && len(name) <= most {
		return name
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(name)) // never fails
	return fmt.Sprintf("%.*s#%08x", most-9, ascii, sum.Sum32())
}

// planning keeps the planner from scanning the queue's tables, and from a bitmap and a sort of all
// that is due.
func planning() pg.Settings { return pg.ByIndex().With(pg.Settings{"enable_bitmapscan": "off"}) }

// tune settles a session of its own for claiming or settling.
func tune(params map[string]string) {
	maps.Copy(params, planning().With(pg.Settings{
		"search_path": "pg_catalog", "plan_cache_mode": "force_generic_plan",
		"statement_timeout": "0", "lock_timeout": "0", // each statement has a timeout of its own
		"default_transaction_isolation": "read committed", "TimeZone": "UTC",
		"idle_in_transaction_session_timeout": "60s", queue.RowSecurity: "off",
	}))
}

// statementTimeout bounds a statement, so that a dead connection is noticed.
const statementTimeout = 30 * time.Second

// firstRetry is the wait before Postgres is asked again after a failure. Further waits are longer.
const firstRetry = 50 * time.Millisecond

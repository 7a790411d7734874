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

// database is the way to Postgres. New sets pooled and application, open sets the sessions and the
// tunings before the loops start, and nothing but schema changes after that.
type database struct {
	claims *sessionShare   // for what brings events to their attempts
	writes *sessionShare   // for outcomes, and all else
	signs  *sessionShare   // for signs of life, of this instance and of others
	direct *pgx.ConnConfig // for the session that listens

	// pooled says that the database URL may lead through a pooler that hands out sessions by
	// transaction.
	pooled      bool
	tunings     tunings // if pooled
	application string  // application_name of this instance's sessions

	schema schemaVersion
}

// The sessions of an instance, beside the one that listens. The claimer, the taker, the orderer, the
// peers, the pulse and the pacer can have one each, so that none waits for another.
const (
	mostClaims = 4
	mostWrites = 4
	mostSigns  = 2
)

// pingAfter is after what time a session that a pooler may have handed out is tried before it is used.
const pingAfter = 500 * time.Millisecond

// use makes the shares of a pool.
func (db *database) use(pool *pgxpool.Pool) {
	s := newSessions(pool)
	db.claims, db.writes, db.signs = s.share(mostClaims, hotPatience), s.share(mostWrites, hotPatience), s.share(mostSigns, coldPatience)
}

// open makes the pool. It connects when it is first used.
func (db *database) open(databaseURL, listenURL string, noticed func(*pgconn.PgConn, *pgconn.Notice)) error {
	cfg, err := session.ParsePool(databaseURL)
	if err != nil {
		return fmt.Errorf("read the database URL: %w", err)
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = db.application
	cfg.MaxConns, cfg.MinConns = mostClaims+mostWrites+mostSigns, 0
	cfg.MaxConnIdleTime, cfg.HealthCheckPeriod = closeAfter, checkEvery
	// A ping before the statement would delay every wake from sleep. A dead connection shows in the
	// statement itself. Through a pooler, sessions that were idle for long may have been ended by a setting
	// (idle_session_timeout), which is switched off for sessions of our own.
	cfg.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		return db.pooled && p.IdleDuration > pingAfter
	}
	cfg.ConnConfig.OnNotice = noticed
	db.direct = cfg.ConnConfig
	if listenURL != "" {
		if db.direct, err = session.Parse(listenURL); err != nil {
			return fmt.Errorf("read the listen URL: %w", err)
		}
		db.direct.RuntimeParams["application_name"] = db.application
	}
	cfg = cfg.Copy()
	db.direct.RuntimeParams["search_path"], db.direct.RuntimeParams[queue.RowSecurity] = "pg_catalog", "off"
	if db.pooled {
		db.tunings = newTunings()
		pg.ThroughPooler(cfg.ConnConfig)
	} else {
		tune(cfg.ConnConfig.RuntimeParams)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return fmt.Errorf("create a connection pool: %w", err)
	}
	db.use(pool)
	return nil
}

// close closes the sessions.
func (db *database) close() { db.writes.of.pool.Close() }

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

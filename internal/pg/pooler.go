package pg

import "github.com/jackc/pgx/v5"

// ThroughPooler makes connections work through a pooler such as PgBouncer, which may use another
// session for every transaction. No statement is prepared by name, because another process may have
// prepared the same name in that session.
func ThroughPooler(c *pgx.ConnConfig) {
	c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	c.StatementCacheCapacity = 0
}

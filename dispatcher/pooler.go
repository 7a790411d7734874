package dispatcher

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/sqlschema"
)

// throughPooler makes connections work through a pooler such as PgBouncer, which may use another
// session for every transaction. No statement is prepared by name, and no setting is sent at the
// start that the pooler would have to know.
func throughPooler(c *pgx.ConnConfig) {
	c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	c.StatementCacheCapacity = 0
}

// tuned runs each query in a transaction with the settings that tune gives a session of its own.
type tuned struct{ sqlschema.Queryer }

const tuneSQL = "select set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true), set_config('synchronous_commit', 'off', true), set_config('search_path', 'pg_catalog', true), set_config('jit', 'off', true), " +
	"set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), " +
	"set_config('" + sqlschema.RowSecurity + "', 'off', true)"

// Query sends both in one round trip: the statements of a batch are one transaction.
func (t tuned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	var b pgx.Batch
	b.Queue(tuneSQL)
	b.Queue(sql, args...)
	results := t.SendBatch(ctx, &b)
	if _, err := results.Exec(); err != nil {
		_ = results.Close() // the same error
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close() // the same error
		return nil, err
	}
	return &batchRows{Rows: rows, results: results}, nil
}

// batchRows are the rows of the last query of a batch. Closing them ends the batch.
type batchRows struct {
	pgx.Rows
	results pgx.BatchResults
	err     error
}

func (r *batchRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

// Close ends the batch. Only then it is known whether its transaction was committed.
func (r *batchRows) Close() {
	r.Rows.Close()
	if err := r.results.Close(); r.err == nil {
		r.err = err
	}
}

func (r *batchRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

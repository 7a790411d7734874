package dispatcher

import (
	"cmp"
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// tuned runs each query in a transaction with the settings that tune gives a session of its own.
type tuned struct {
	pg.Queryer
	settings string // SQL that sets them
}

// tunings are what tuned sets, as SQL.
type tunings struct {
	claim  string // a crash of the server may lose a claim, which only makes its events due again
	settle string
}

// newTunings are the settings of tune for one transaction.
func newTunings() tunings {
	settle := tuneSQL + planning().With(pg.Settings{"search_path": "pg_catalog", queue.RowSecurity: "off"}).LocalCalls()
	return tunings{claim: settle + ", set_config('synchronous_commit', 'off', true)", settle: settle}
}

// Timeouts of a role or a database must not end a statement of ours, which has a timeout of its own.
// PostgreSQL knows transaction_timeout from version 17 on.
const tuneSQL = "select set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true), " +
	"set_config(case when current_setting('transaction_timeout', true) is null then 'statement_timeout' else 'transaction_timeout' end, '0', true), "

// Query sends both in one round trip: the statements of a batch are one transaction.
func (t tuned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	var b pgx.Batch
	b.Queue(t.settings)
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

// QueryRow is Query for one row.
func (t tuned) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := t.Query(ctx, sql, args...)
	return &batchRow{rows, err}
}

// batchRow is the one row of a batch's last query.
type batchRow struct {
	rows pgx.Rows
	err  error
}

// Scan ends the batch.
func (r *batchRow) Scan(into ...any) error {
	if r.err != nil {
		return r.err
	}
	if !r.rows.Next() {
		r.rows.Close()
		return cmp.Or(r.rows.Err(), pgx.ErrNoRows)
	}
	err := r.rows.Scan(into...)
	r.rows.Close()
	return cmp.Or(r.rows.Err(), err)
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

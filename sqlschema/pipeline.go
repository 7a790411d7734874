package sqlschema

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pipeline is a transaction that sends statements without a result together, when something has to be
// read or at the end: an apply to hundreds of tables is bound by its round trips. Statements run in
// the order in which they were added, and nothing is read before they have run.
type pipeline struct {
	pgx.Tx
	pending []piped
}

// piped are statements that wait to be sent.
type piped struct {
	statements []string // each one alone, without arguments
	args       []any    // of the only statement
	failed     func(error) error
}

// later adds statements without arguments. failed says what an error of one of them means.
func (p *pipeline) later(failed func(error) error, statements ...string) {
	p.pending = append(p.pending, piped{statements: statements, failed: failed})
}

// laterWith adds a statement with arguments.
func (p *pipeline) laterWith(failed func(error) error, sql string, args ...any) {
	p.pending = append(p.pending, piped{statements: []string{sql}, args: args, failed: failed})
}

// send runs what was added.
func (p *pipeline) send(ctx context.Context) error {
	for len(p.pending) > 0 {
		n := 1
		for n < len(p.pending) && (p.pending[n].args == nil) == (p.pending[0].args == nil) {
			n++
		}
		together := p.pending[:n]
		p.pending = p.pending[n:]
		send := p.sendPlain
		if together[0].args != nil {
			send = p.sendBatch
		}
		if err := send(ctx, together); err != nil {
			p.pending = nil
			return err
		}
	}
	return nil
}

// sendPlain sends statements without arguments as one message.
func (p *pipeline) sendPlain(ctx context.Context, together []piped) error {
	var texts []string
	for i := range together {
		texts = append(texts, together[i].statements...)
	}
	results, err := p.Conn().PgConn().Exec(ctx, strings.Join(texts, ";\n")).ReadAll()
	if err == nil {
		return nil
	}
	// The results are those of the statements before the one that failed, and of that.
	done := 0
	for i := range results {
		if results[i].Err == nil {
			done++
		}
	}
	for i := range together {
		if done -= len(together[i].statements); done < 0 {
			return together[i].failed(err)
		}
	}
	return together[len(together)-1].failed(err)
}

// sendBatch sends statements with arguments without waiting for each other's end.
func (p *pipeline) sendBatch(ctx context.Context, together []piped) error {
	batch := &pgx.Batch{}
	for i := range together {
		batch.Queue(together[i].statements[0], together[i].args...)
	}
	results := p.Tx.SendBatch(ctx, batch)
	for i := range together {
		if _, err := results.Exec(); err != nil {
			_ = results.Close() // it returns the same error
			return together[i].failed(err)
		}
	}
	return results.Close()
}

// Exec sends what was added, and then the statement.
func (p *pipeline) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := p.send(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return p.Tx.Exec(ctx, sql, args...)
}

// Query sends what was added, and then the query.
func (p *pipeline) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := p.send(ctx); err != nil {
		return nil, err
	}
	return p.Tx.Query(ctx, sql, args...)
}

// QueryRow sends what was added, and then the query.
func (p *pipeline) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := p.send(ctx); err != nil {
		return failedRow{err}
	}
	return p.Tx.QueryRow(ctx, sql, args...)
}

// failedRow is the row of a query that was not sent.
type failedRow struct{ err error }

// Scan returns why it was not sent.
func (r failedRow) Scan(...any) error { return r.err }

// SendBatch sends what was added, and then the batch.
func (p *pipeline) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := p.send(ctx); err != nil {
		return failedBatch{err}
	}
	return p.Tx.SendBatch(ctx, b)
}

// failedBatch are the results of a batch that was not sent.
type failedBatch struct{ err error }

// Exec returns why it was not sent.
func (b failedBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, b.err }

// Query returns why it was not sent.
func (b failedBatch) Query() (pgx.Rows, error) { return nil, b.err }

// QueryRow returns why it was not sent, by its Scan.
func (b failedBatch) QueryRow() pgx.Row { return failedRow(b) }

// Close returns why it was not sent.
func (b failedBatch) Close() error { return b.err }

// Tx returns nil, since the batch began no transaction.
func (b failedBatch) Tx() pgx.Tx { return nil }

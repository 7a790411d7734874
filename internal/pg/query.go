package pg

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Queryer runs statements: a *pgx.Conn, a pgx.Tx or a *pgxpool.Pool.
type Queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// collect returns the rows of a query as structs. Columns go into the fields of their names.
func Collect[T any](ctx context.Context, db Queryer, sql string, args ...any) ([]T, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// stringLiteral quotes a string for SQL, whatever standard_conforming_strings says.
func StringLiteral(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
}

package pg

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Queryer runs statements. *pgx.Conn, pgx.Tx and *pgxpool.Pool implement it.
type Queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Collect returns the rows of a query as structs. Each column goes into the field of its name.
func Collect[T any](ctx context.Context, db Queryer, sql string, args ...any) ([]T, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// StringLiteral quotes a string for SQL. The literal does not depend on
// standard_conforming_strings.
func StringLiteral(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
}

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
	out := []T{}
	err := eachRow(ctx, db, sql, args, func(row pgx.CollectableRow) error {
		v, err := pgx.RowToStructByName[T](row)
		if err == nil {
			out = append(out, v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// eachRow is what Collect has of pgx.CollectRows. It is compiled once, and not for each of some 80 types.
func eachRow(ctx context.Context, db Queryer, sql string, args []any, do func(pgx.CollectableRow) error) error {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// StringLiteral quotes a string for SQL. The literal does not depend on
// standard_conforming_strings.
func StringLiteral(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
}

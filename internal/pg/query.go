package pg

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Queryer runs statements. *pgx.Conn, pgx.Tx and *pgxpool.Pool implement it.
type Queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Collect returns the rows of a query as structs. Each column goes into the field of its name, whatever
// the case and the underscores, and each field needs a column, unless its tag is db:"-".
func Collect[T any](ctx context.Context, db Queryer, sql string, args ...any) ([]T, error) {
	out := []T{}
	if err := collect(ctx, db, sql, args, &out); err != nil {
		return nil, err
	}
	return out, nil
}

// collect appends the rows of a query to a slice of structs. into points to it. Unlike
// pgx.RowToStructByName it is compiled once, and not for each of some 80 types, which took 80 kB.
func collect(ctx context.Context, db Queryer, sql string, args []any, into any) error {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	all := reflect.ValueOf(into).Elem()
	empty := reflect.Zero(all.Type().Elem())
	var fields [][]int
	for rows.Next() {
		if fields == nil {
			if fields, err = fieldsOf(empty.Type(), rows.FieldDescriptions()); err != nil {
				return err
			}
		}
		all.Set(reflect.Append(all, empty))
		row, to := all.Index(all.Len()-1), make([]any, len(fields))
		for i, field := range fields {
			to[i] = row.FieldByIndex(field).Addr().Interface()
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
	}
	return rows.Err()
}

// fieldsOf returns the index of the field for each column.
func fieldsOf(t reflect.Type, columns []pgconn.FieldDescription) ([][]int, error) {
	plain := func(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }
	fields := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() && f.Tag.Get("db") != "-" && (!f.Anonymous || f.Type.Kind() != reflect.Struct) {
			fields[plain(f.Name)] = f.Index
		}
	}
	found := make([][]int, len(columns))
	for i := range columns {
		name := plain(columns[i].Name)
		if found[i] = fields[name]; found[i] == nil {
			return nil, fmt.Errorf("%s has no field for the column %s, or two columns have that name", t, columns[i].Name)
		}
		delete(fields, name)
	}
	for name := range fields {
		return nil, fmt.Errorf("the row has no column for the field %s of %s", name, t)
	}
	return found, nil
}

// StringLiteral quotes a string for SQL. The literal does not depend on
// standard_conforming_strings.
func StringLiteral(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
}

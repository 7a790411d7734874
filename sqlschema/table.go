package sqlschema

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// Table is a table that a trigger can watch.
type Table struct {
	Name    string   // as Spec.Table has it: schema.table, with the quotes that SQL requires
	Bare    string   // the name alone, without quotes
	Columns []string // in their order, without quotes
	Key     []string // those of the primary key; nil: there is none
}

// FindTables looks up tables by name, as SQL and [trigger.Spec.Table] write it. For names that can't
// be watched it returns all faults as [trigger.SpecErrors], whose Index is that of the name.
func FindTables(ctx context.Context, conn *pgx.Conn, names []string) (tables []Table, err error) {
	err = pg.Pinned(ctx, conn, func() error {
		tables, err = findTables(ctx, conn, names)
		return err
	})
	return tables, err
}

func findTables(ctx context.Context, conn *pgx.Conn, names []string) ([]Table, error) {
	var user string
	if err := conn.QueryRow(ctx, "select current_user").Scan(&user); err != nil {
		return nil, fmt.Errorf("read the current role: %w", err)
	}
	var tables []Table
	var faults trigger.SpecErrors
	for i, name := range names {
		rel, err := findRelation(ctx, conn, name)
		message, ok := invalidName(err)
		switch {
		case ok:
		case err != nil:
			return nil, fmt.Errorf("look for the table %s: %w", name, err)
		case rel == nil:
			if message, err = missingTable(ctx, conn, name, nil); err != nil {
				return nil, err
			}
		default:
			message = rel.refusal(user, trigger.Spec{})
		}
		if message != "" {
			faults = append(faults, trigger.SpecError{Index: i, Path: []string{"table"}, Message: message})
			continue
		}
		if err := readKeys(ctx, conn, []*relation{rel}, nil); err != nil {
			return nil, err
		}
		tables = append(tables, Table{Name: rel.String(), Bare: rel.Name, Columns: rel.columnNames(), Key: rel.primaryKey()})
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return tables, nil
}

package sqlschema

import (
	"context"
	"fmt"

	"github.com/rowhook/rowhook/internal/pg"
)

// writeSetting writes a row of rowhook.setting.
func writeSetting(name string, value []byte) func(context.Context, *pipeline) error {
	return func(ctx context.Context, tx *pipeline) error {
		_, err := tx.Exec(ctx, `
insert into rowhook.setting (name, value) values ($1, $2::text::jsonb)
on conflict (name) do update set value = excluded.value`, name, string(value))
		if err != nil {
			return fmt.Errorf("write the setting %s: %w", name, err)
		}
		return nil
	}
}

// dropCapture drops a capture trigger.
func dropCapture(c captureFound) func(context.Context, *pipeline) error {
	return func(ctx context.Context, tx *pipeline) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("drop trigger if exists %s on %s", pg.QuoteName(c.Name), c.Table)); err != nil {
			return fmt.Errorf("drop %s: %w", c.Name, err)
		}
		return nil
	}
}

// dropFunction drops a function of one trigger, and the views through which it writes.
func dropFunction(f functionFound) func(context.Context, *pipeline) error {
	return func(ctx context.Context, tx *pipeline) error {
		if _, err := tx.Exec(ctx, "drop function if exists "+f.Signature); err != nil {
			return fmt.Errorf("drop %s: %w", f.Signature, err)
		}
		views := own{f.ID, f.Relation}.views()
		switch {
		case f.Key:
			views = views[1:3] // those of an order
		case f.Argument != 0, f.AtCommit, f.Hands:
			return nil
		}
		for _, view := range views {
			if _, err := tx.Exec(ctx, "drop view if exists "+view); err != nil {
				return fmt.Errorf("drop %s: %w", view, err)
			}
		}
		return nil
	}
}

// markRemoved marks the row of a trigger as removed. The row stays, since events refer to it.
func markRemoved(id int32) func(context.Context, *pipeline) error {
	return func(ctx context.Context, tx *pipeline) error {
		_, err := tx.Exec(ctx, "update rowhook.trigger set removed_at = now(), captured = '{}' where id = $1 and removed_at is null", id)
		if err != nil {
			return fmt.Errorf("mark trigger %d as removed: %w", id, err)
		}
		var has bool // not before version 7 of the schema
		if err := tx.QueryRow(ctx, "select pg_catalog.to_regclass('rowhook.trigger_table') is not null").Scan(&has); err != nil {
			return fmt.Errorf("look for rowhook.trigger_table: %w", err)
		}
		tables := []string{"rate", "share"}
		if has {
			tables = append(tables, "trigger_table")
		}
		for _, table := range tables {
			if _, err := tx.Exec(ctx, "delete from rowhook."+table+" where trigger_id = $1", id); err != nil {
				return fmt.Errorf("delete the rows of trigger %d in rowhook.%s: %w", id, table, err)
			}
		}
		return writeLanes(ctx, tx, id, false)
	}
}

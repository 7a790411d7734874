package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The ways in which writing history can fail.
const (
	noPartitions     = "no partitions" // an event trigger rejects making new ones
	historyRefused   = "refused"       // a trigger on the table raises an error
	historyForbidden = "forbidden"     // the right to insert is revoked
)

// spoilHistory makes writing history fail for a time. Afterwards the old history is there again,
// because it is the evidence.
func (l *lab) spoilHistory(ctx context.Context, f *fault) error {
	err := l.inOne(ctx, spoilings(f.Way, f.Table))
	if err == nil {
		wait(ctx, f.For)
	}
	return errors.Join(err, l.mendHistory(ctx))
}

func spoilings(way, table string) []string {
	switch way {
	case noPartitions:
		return []string{
			"create schema if not exists aside",
			`do $$ declare p record; begin
  for p in select c.relname as name, i.inhparent::regclass as parent from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent in ('rowhook.event_archive'::regclass, 'rowhook.invocation_log'::regclass) loop
    execute format('alter table %s detach partition rowhook.%I', p.parent, p.name);
    execute format('alter table rowhook.%I set schema aside', p.name);
  end loop;
end $$`,
			"create function public.no_ddl() returns event_trigger language plpgsql as $$ begin raise exception 'no DDL here'; end $$",
			"create event trigger no_ddl on ddl_command_start execute function public.no_ddl()",
		}
	case historyRefused:
		return []string{
			"create function public.no_history() returns trigger language plpgsql as $$ begin raise exception 'no history here'; end $$",
			"create trigger no_history before insert on rowhook." + table + " for each row execute function public.no_history()",
		}
	}
	return []string{"revoke insert on rowhook." + table + " from " + role}
}

// mendHistory undoes all of these ways.
func (l *lab) mendHistory(ctx context.Context) error {
	statements := []string{
		"drop event trigger if exists no_ddl", "drop function if exists public.no_ddl()", "drop function if exists public.no_history() cascade",
		"create schema if not exists aside",
		`do $$ declare p record; begin
  for p in select c.relname as name, regexp_replace(c.relname, '_[0-9]{8}$', '') as parent, to_date(right(c.relname, 8), 'YYYYMMDD') as day
             from pg_class c where c.relnamespace = 'aside'::regnamespace and c.relkind = 'r' loop
    execute format('alter table aside.%I set schema rowhook', p.name);
    execute format('alter table rowhook.%I attach partition rowhook.%I for values from (%L) to (%L)',
      p.parent, p.name, p.day::text || ' 00:00:00+00', (p.day + 1)::text || ' 00:00:00+00');
  end loop;
end $$`,
		`do $$ declare t text; begin
  foreach t in array array['rowhook.event_archive', 'rowhook.invocation_log'] loop
    if not has_table_privilege('` + role + `', t, 'insert') then
      execute format('grant insert on %s to ` + role + `', t);
    end if;
  end loop;
end $$`,
	}
	for began := time.Now(); ; {
		err := l.inOne(ctx, statements)
		if err == nil || time.Since(began) > mendWithin || ctx.Err() != nil {
			return err
		}
		wait(ctx, 200*time.Millisecond) // someone held a lock
	}
}

// mendWithin is how long to try to undo a fault of the history. What is not undone counts as no fault, and
// its consequences count against the program.
const mendWithin = time.Minute

// inOne runs statements in one transaction, which does not wait for a lock for long.
func (l *lab) inOne(ctx context.Context, statements []string) error {
	err := pgx.BeginFunc(ctx, l.admin, func(tx pgx.Tx) error {
		for _, sql := range append([]string{"set local lock_timeout = '2s'", "set local client_min_messages = 'warning'"}, statements...) {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%.60s: %w", sql, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("change the history: %w", err)
	}
	return nil
}

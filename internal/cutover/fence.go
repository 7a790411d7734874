package cutover

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// The fence is a trigger on Hasura's event log. While it is closed, it leaves out what Hasura's SQL
// triggers record for one trigger; what is invoked by hand passes. Rowhook has recorded that change.
//
// It is opened and closed by replacing its function. That needs no lock on the event log, which all
// writers of all of Hasura's tables use. And a session sees the new function as soon as it has got
// the lock of the watched table, whatever its isolation level is. A row that it would look up does
// not have that: a repeatable read would still see the old one.

func (s *subject) fenceName() string { return fmt.Sprintf("hasura_fence_%d", s.ID) }

// setFence makes the function of the fence, or replaces it.
func (s *subject) setFence(ctx context.Context, tx pgx.Tx, closed bool) error {
	body := "return new;"
	if closed {
		body = "if new.payload ->> 'op' = 'MANUAL' then return new; end if; return null;"
	}
	_, err := tx.Exec(ctx, "create or replace function rowhook."+s.fenceName()+"() returns trigger language plpgsql set search_path to 'pg_catalog', 'pg_temp' as $fence$ begin "+body+" end $fence$; "+
		"comment on function rowhook."+s.fenceName()+"() is "+pg.StringLiteral("Keeps Hasura from recording what Rowhook records for "+s.Name+", while it is being moved: see rowhook cutover hasura --status")+"; "+
		"revoke all on function rowhook."+s.fenceName()+"() from public")
	if err != nil {
		return fmt.Errorf("set the fence before hdb_catalog.event_log: %w", err)
	}
	return nil
}

// buildFence puts the fence before the event log, unless it stands.
func (s *subject) buildFence(ctx context.Context, tx pgx.Tx, closed bool) error {
	stands, err := s.fenced(ctx, tx)
	if err != nil {
		return err
	}
	if err := s.setFence(ctx, tx, closed); err != nil || stands {
		return err
	}
	name := fmt.Sprintf("rowhook_fence_%d", s.ID)
	sql := fmt.Sprintf("create or replace trigger %s before insert on hdb_catalog.event_log for each row when (new.trigger_name = %s) execute function rowhook.%s()",
		name, pg.StringLiteral(s.Name), s.fenceName())
	if s.spec.OnReplication {
		sql += "; alter table hdb_catalog.event_log enable always trigger " + name
	}
	if _, err := tx.Exec(ctx, sql); err != nil {
		return fmt.Errorf("put the fence before hdb_catalog.event_log: %w", err)
	}
	return nil
}

// fenced reports whether the fence stands.
func (s *subject) fenced(ctx context.Context, db pg.Queryer) (stands bool, err error) {
	err = db.QueryRow(ctx, `
select exists (select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
  where t.tgrelid = $1 and t.tgname = $2::text::name and t.tgenabled = any($4::text[]::"char"[]) and p.pronamespace = 'rowhook'::regnamespace and p.proname = $3::text::name)`,
		s.log.OID, fmt.Sprintf("rowhook_fence_%d", s.ID), s.fenceName(), s.fires()).Scan(&stands)
	if err != nil {
		return false, fmt.Errorf("look for the fence before hdb_catalog.event_log: %w", err)
	}
	return stands, nil
}

// fires returns the states of a trigger in which the fence fires whenever those of Hasura do.
func (s *subject) fires() []string {
	if s.spec.OnReplication {
		return []string{"A"}
	}
	return []string{"O", "A"}
}

// removeFence drops the function, and with it the trigger.
func (s *subject) removeFence(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "drop function if exists rowhook."+s.fenceName()+"() cascade"); err != nil {
		return fmt.Errorf("remove the fence before hdb_catalog.event_log: %w", err)
	}
	return nil
}

package sqlschema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// standing is what this role may do in the database.
type standing struct {
	User, Database string
	Owner          string   // of the schema rowhook; "": there is none
	IsOwner        bool     // this role is the owner
	Set            bool     // it may act as the owner by SET ROLE
	Inherits       bool     // it has the rights of the owner
	MayCreate      bool     // it may create a schema in the database
	Languages      []string // of sql and plpgsql, those that it may not use
	WritesTrigger  bool     // it may write rowhook.trigger
	Captures       bool     // it may make triggers that run rowhook.capture
}

func readStanding(ctx context.Context, db pg.Queryer) (*standing, error) {
	rows, err := db.Query(ctx, `
select current_user::pg_catalog.text as user, pg_catalog.current_database()::pg_catalog.text as database, coalesce(pg_catalog.pg_get_userbyid(n.nspowner), '') as owner,
       coalesce(pg_catalog.pg_get_userbyid(n.nspowner) = current_user, false) as is_owner,
       coalesce(pg_catalog.pg_has_role(n.nspowner, `+setRole+`), false) as set, coalesce(pg_catalog.pg_has_role(n.nspowner, 'USAGE'), false) as inherits,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') as may_create,
       array(select lanname::pg_catalog.text from pg_catalog.pg_language where lanname in ('sql', 'plpgsql') and not pg_catalog.has_language_privilege(oid, 'USAGE') order by 1) as languages,
       coalesce(pg_catalog.has_table_privilege(t.oid, 'INSERT') and pg_catalog.has_table_privilege(t.oid, 'UPDATE'), true) as writes_trigger,
       coalesce(pg_catalog.has_function_privilege(f.oid, 'EXECUTE'), true) as captures
  from (select 1) as one
  left join pg_catalog.pg_namespace n on n.nspname = 'rowhook'
  left join pg_catalog.pg_class t on t.relnamespace = n.oid and t.relname = 'trigger'
  left join pg_catalog.pg_proc f on f.pronamespace = n.oid and f.proname = 'capture'`)
	if err != nil {
		return nil, fmt.Errorf("read what this role may do: %w", err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByNameLax[standing])
	if err != nil {
		return nil, fmt.Errorf("read what this role may do: %w", err)
	}
	return s, nil
}

// mayApply returns an error if this role lacks a right that the plan needs. It is called before
// anything is changed, so that no apply ends half-way for lack of a right.
func (p *planner) mayApply(ctx context.Context) error {
	if p.plan.Empty() {
		return nil
	}
	s, err := readStanding(ctx, p.conn)
	if err != nil {
		return err
	}
	if err := s.refusal(p.in.database < p.in.program); err != nil {
		return err
	}
	user, owner := pg.PlainName(s.User), pg.PlainName(s.Owner)
	if len(s.Languages) > 0 && p.makesFunctions() {
		return fmt.Errorf("the role %s may not create functions in the language %s: grant usage on language %[2]s to %[1]s", user, strings.Join(s.Languages, ", "))
	}
	if !s.Captures && p.in.database == p.in.program && p.sharesCapture() {
		return fmt.Errorf("the role %s may not create triggers that run rowhook.capture: apply as %s, or grant execute on function rowhook.capture() to %[1]s", user, owner)
	}
	return mayDrop(ctx, p.conn, user, p.plan.units())
}

// refusal returns why this role may not install the schema, or not change what is in it. outdated
// says that the schema has to be migrated.
func (s *standing) refusal(outdated bool) error {
	user, owner := pg.PlainName(s.User), pg.PlainName(s.Owner)
	switch {
	case s.Owner == "" && !s.MayCreate:
		return fmt.Errorf("the role %s may not create the schema rowhook: grant create on database %s to %[1]s", user, pg.PlainName(s.Database))
	case s.Owner != "" && !s.Set && s.Inherits:
		return fmt.Errorf("the role %s has the rights of %s, who owns the schema rowhook, but may not set its role to it, so objects that it creates there would have another owner: %s", user, owner, grantMembership(owner, user))
	case s.Owner != "" && outdated && !s.Set:
		return fmt.Errorf("the role %s may not change the schema rowhook, which belongs to %s: apply as %[2]s, or %s", user, owner, grantMembership(owner, user))
	case s.Owner != "" && !s.WritesTrigger:
		return fmt.Errorf("the role %s may not write rowhook.trigger, which belongs to %s: apply as %[2]s, or %s", user, owner, grantMembership(owner, user))
	}
	return nil
}

func (p *planner) makesFunctions() bool {
	return p.in.database < p.in.program || slices.ContainsFunc(p.plan.steps, func(s *step) bool { return s.phase == makeFunctions })
}

// sharesCapture reports whether the plan creates a trigger that runs rowhook.capture.
func (p *planner) sharesCapture() bool {
	return slices.ContainsFunc(p.plan.steps, func(s *step) bool {
		return s.phase == makeCaptures && !ownFunction(s.installs.spec, s.installs.rel)
	})
}

// mayDrop returns an error if this role lacks the rights of an owner of a table that loses a
// trigger. Only the owner may drop a trigger. No right on the table is enough.
func mayDrop(ctx context.Context, conn *pgx.Conn, user string, units []*unit) error {
	for _, u := range units {
		if u.relation == 0 || u.lock != everyoneWaits {
			continue
		}
		var owner string
		var owned bool
		err := conn.QueryRow(ctx, `
select pg_catalog.pg_get_userbyid(relowner)::pg_catalog.text, pg_catalog.pg_has_role(relowner, 'USAGE') from pg_catalog.pg_class where oid = $1`, u.relation).Scan(&owner, &owned)
		if err != nil {
			return fmt.Errorf("read the owner of %s: %w", u.table, err)
		}
		if !owned {
			return fmt.Errorf("the role %s must be owner of %s to drop its trigger: apply as the table's owner %s, or %s", user, u.table, pg.PlainName(owner), grantMembership(pg.PlainName(owner), user))
		}
	}
	return nil
}

// mayUninstall returns an error if this role lacks the rights of an owner. It is called before the
// first trigger is dropped.
func mayUninstall(ctx context.Context, conn *pgx.Conn, units []*unit) error {
	var user, owner string
	var owned bool
	err := conn.QueryRow(ctx, `
select current_user::text, coalesce(pg_catalog.pg_get_userbyid(n.nspowner)::text, ''), coalesce(pg_catalog.pg_has_role(n.nspowner, 'USAGE'), true)
  from (values (1)) as one left join pg_catalog.pg_namespace n on n.nspname = 'rowhook'`).Scan(&user, &owner, &owned)
	if err != nil {
		return fmt.Errorf("read the owner of the schema rowhook: %w", err)
	}
	user, owner = pg.PlainName(user), pg.PlainName(owner)
	if !owned {
		return fmt.Errorf("the role %s may not drop the schema rowhook, which belongs to %s: uninstall as %[2]s, or %s", user, owner, grantMembership(owner, user))
	}
	return mayDrop(ctx, conn, user, units)
}

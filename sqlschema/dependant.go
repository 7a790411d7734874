package sqlschema

import (
	"context"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// DependantsError says that an uninstall would also drop objects that are not Rowhook's. They
// depend on the schema rowhook.
type DependantsError struct {
	Dependants []string // as Postgres describes them, such as view public.mine
}

// Error names the objects and says what to do.
func (e *DependantsError) Error() string {
	return fmt.Sprintf("nothing was removed: these objects are not Rowhook's, depend on the schema rowhook, and would be dropped with it: %s: "+
		"change or drop them first, or use --cascade to drop them, too", strings.Join(e.Dependants, "; "))
}

// findDependants returns what DROP SCHEMA rowhook CASCADE would drop beside Rowhook's own objects.
// That is what depends on an object in the schema, directly or by other objects, and what others
// have put into the schema. Capture triggers and memberships in publications are Rowhook's. The
// session must be pinned.
func findDependants(ctx context.Context, db pg.Queryer) ([]string, error) {
	own, err := ownNames()
	if err != nil {
		return nil, err
	}
	found, err := pg.Collect[struct{ Description string }](ctx, db, `
with recursive inside (classid, objid) as (
  select 'pg_class'::regclass::oid, oid from pg_catalog.pg_class where relnamespace = 'rowhook'::regnamespace
  union all select 'pg_proc'::regclass::oid, oid from pg_catalog.pg_proc where pronamespace = 'rowhook'::regnamespace
  union all select 'pg_type'::regclass::oid, oid from pg_catalog.pg_type where typnamespace = 'rowhook'::regnamespace
  union all select 'pg_namespace'::regclass::oid, oid from pg_catalog.pg_namespace where nspname = 'rowhook'),
gone (classid, objid, objsubid) as (
  select classid, objid, 0 from inside
  union
  -- What depends on it, and what it is a part of: the rule of a view goes with what it reads, and the view with its rule.
  select x.* from gone g
   cross join lateral (
     select d.classid, d.objid, d.objsubid from pg_catalog.pg_depend d
      where d.refclassid = g.classid and d.refobjid = g.objid and (g.objsubid = 0 or d.refobjsubid = g.objsubid)
     union all
     select d.refclassid, d.refobjid, d.refobjsubid from pg_catalog.pg_depend d
      where d.classid = g.classid and d.objid = g.objid and d.deptype = 'i' and g.objsubid = 0
        and g.classid in ('pg_rewrite'::regclass, 'pg_type'::regclass)) as x)
select distinct pg_describe_object(g.classid, g.objid, g.objsubid) as description
  from gone g
  left join pg_catalog.pg_class c on g.classid = 'pg_class'::regclass and c.oid = g.objid
  left join pg_catalog.pg_index i on i.indexrelid = c.oid
  left join pg_catalog.pg_proc p on g.classid = 'pg_proc'::regclass and p.oid = g.objid
  left join pg_catalog.pg_type y on g.classid = 'pg_type'::regclass and y.oid = g.objid
  left join pg_catalog.pg_attrdef f on g.classid = 'pg_attrdef'::regclass and f.oid = g.objid
  left join pg_catalog.pg_constraint k on g.classid = 'pg_constraint'::regclass and k.oid = g.objid
  left join pg_catalog.pg_trigger t on g.classid = 'pg_trigger'::regclass and t.oid = g.objid
  left join pg_catalog.pg_proc h on h.oid = t.tgfoid
  left join pg_catalog.pg_rewrite r on g.classid = 'pg_rewrite'::regclass and r.oid = g.objid
  left join pg_catalog.pg_policy l on g.classid = 'pg_policy'::regclass and l.oid = g.objid
  left join pg_catalog.pg_statistic_ext e on g.classid = 'pg_statistic_ext'::regclass and e.oid = g.objid
  -- The table that it is of.
  left join pg_catalog.pg_class o on o.oid = coalesce(i.indrelid, f.adrelid, nullif(k.conrelid, 0), t.tgrelid, r.ev_class, l.polrelid, e.stxrelid)
 where g.classid <> all (array(select to_regclass(x)::oid from unnest('{pg_namespace,pg_publication_rel,pg_publication_namespace,pg_default_acl}'::text[]) as x where to_regclass(x) is not null))
   and coalesce(o.relnamespace, 0) <> 'rowhook'::regnamespace
   and not (c.oid is not null and (c.relkind in ('t', 'c') or c.relnamespace = 'rowhook'::regnamespace and (g.objsubid <> 0 or c.relname::text ~ $1)))
   and not (c.oid is not null and c.relkind = 'S' and c.relnamespace = 'rowhook'::regnamespace
            and exists (select from pg_catalog.pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i') and d.refclassid = 'pg_class'::regclass))
   and not (p.oid is not null and p.pronamespace = 'rowhook'::regnamespace and p.proname::text ~ $1)
   and not (y.oid is not null and (y.typrelid <> 0 or y.typcategory = 'A'))
   and not (r.oid is not null and r.rulename = '_RETURN')
   and not (t.oid is not null and (t.tgisinternal or t.tgparentid <> 0 or h.pronamespace = 'rowhook'::regnamespace and h.proname ~ '^capture(_[0-9]+)?$' and encode(t.tgargs, 'escape') ~ E'^[0-9]{1,9}\\\\000'))
   -- A constraint trigger has a constraint of its own.
   and not (k.oid is not null and k.contype = 't' and exists (
         select from pg_catalog.pg_trigger w join pg_catalog.pg_proc q on q.oid = w.tgfoid
          where w.tgconstraint = k.oid and q.pronamespace = 'rowhook'::regnamespace and q.proname ~ '^capture(_[0-9]+)?$' and encode(w.tgargs, 'escape') ~ E'^[0-9]{1,9}\\\\000'))
   and not exists (select from pg_catalog.pg_depend d where d.classid = g.classid and d.objid = g.objid and d.deptype = 'e')
   -- What goes with a table that is listed itself, or a column of such a one.
   and not (coalesce(i.indexrelid, f.oid, k.oid, t.oid, r.oid, l.oid, e.oid) is not null and exists (
         select from gone w where w.classid = 'pg_class'::regclass and w.objid = o.oid and w.objsubid = 0))
   and not (g.objsubid <> 0 and exists (select from gone w where w.classid = g.classid and w.objid = g.objid and w.objsubid = 0))
 order by 1`, own)
	if err != nil {
		return nil, fmt.Errorf("look for what depends on the schema rowhook: %w", err)
	}
	var out []string
	for _, f := range found {
		out = append(out, f.Description)
	}
	return out, nil
}

// created matches the statements of migrations that create objects.
var created = regexp.MustCompile(`(?im)^\s*create (?:or replace |unlogged )?(?:table|view|sequence|function)(?: if not exists)? rowhook\.([a-z_0-9]+)`)

// ownNames returns a regular expression for the names of Rowhook's own objects in the schema
// rowhook.
func ownNames() (string, error) {
	names := []string{"schema_version", "(event_archive|invocation_log)_[0-9]{8}", "(capture|payload|inbox|ordered|moves|delayed|hasura_fence)_[0-9]+"}
	files, err := migrations()
	if err != nil {
		return "", err
	}
	all, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", fmt.Errorf("list embedded migrations: %w", err)
	}
	for _, name := range all {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return "", fmt.Errorf("read embedded migrations: %w", err)
		}
		for _, m := range created.FindAllSubmatch(text, -1) {
			if name := string(m[1]); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return "^(" + strings.Join(names, "|") + ")$", nil
}

package supabase

import (
	"context"
	"fmt"

	"github.com/rowhook/rowhook/internal/pg"
)

// Read returns the definitions of the webhooks in a database, and of other triggers whose functions send
// requests by themselves, each as a file. It only reads the catalog.
func Read(ctx context.Context, db pg.Queryer) ([]File, error) {
	// With this search_path every name that is not Postgres' own has its schema.
	found, err := pg.Collect[struct{ Name, Text string }](ctx, db, `
with path as materialized (select pg_catalog.set_config('search_path', 'pg_catalog', true)),
sending as (
  select p.oid, format('function %I.%I', n.nspname, p.proname) as name, pg_catalog.pg_get_functiondef(p.oid) || ';' as text
    from path, pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
   where p.prokind = 'f' and p.prosrc ~* '\mhttp_(post|get|put|delete|patch|request)\M|\mextensions\s*\.\s*http\M'
     and n.nspname not in ('pg_catalog', 'information_schema', 'net', 'supabase_functions', 'rowhook')
     and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')),
hooks as (
  select format('trigger %I on %I.%I', t.tgname, n.nspname, c.relname) as name,
         pg_catalog.pg_get_triggerdef(t.oid) || ';' || case t.tgenabled
           when 'D' then format(E'\nalter table %I.%I disable trigger %I;', n.nspname, c.relname, t.tgname)
           when 'A' then format(E'\nalter table %I.%I enable always trigger %I;', n.nspname, c.relname, t.tgname)
           when 'R' then format(E'\nalter table %I.%I enable replica trigger %I;', n.nspname, c.relname, t.tgname) else '' end as text
    from path, pg_catalog.pg_trigger t
    join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace s on s.oid = p.pronamespace
   where not t.tgisinternal and t.tgparentid = 0
     and (s.nspname = 'supabase_functions' and p.proname = 'http_request' or p.oid in (select oid from sending)))
select name, text from (select 1 as part, name, text from sending union all select 2, name, text from hooks) as all_of_them order by part, name`)
	if err != nil {
		return nil, fmt.Errorf("read the database webhooks: %w", err)
	}
	files := make([]File, len(found))
	for i, f := range found {
		files[i] = File{Name: f.Name, Text: f.Text, Definition: true}
	}
	return files, nil
}

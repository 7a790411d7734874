-- What a transaction has recorded, for test suites that roll back.

update rowhook.setting set value = '3' where name = 'compatible';
-- sqlschema/whole.go reads this comment in a copy of the structure without its rows.
comment on table rowhook.schema_version is 'Version of the schema rowhook: 4';

-- A row that this transaction sees and whose xmin is in progress is its own. pg_xact_status asks
-- for exactly that, and knows every subtransaction, released ones included. Ids of subtransactions
-- follow that of their transaction, so age() leaves out older rows first, by arithmetic alone.
--
-- The index (trigger_id, due_at) bounds what is read to events that became due since the
-- transaction began. The margin is for a server whose clock was set back meanwhile. The settings,
-- and "offset 0", keep the planner at that index, whatever the statistics of the queue say.
create function rowhook.recorded(trigger_name text default null)
  returns table (id uuid, created_at timestamptz, trigger text, op text, schema text, "table" text,
                 old json, new json, session_variables json, trace_context json, body json)
  language plpgsql volatile security definer rows 10
  set search_path to 'pg_catalog', 'pg_temp'
  set timezone to 'UTC'
  set datestyle to 'ISO, YMD'
  set enable_seqscan to off
  set enable_bitmapscan to off
  set max_parallel_workers_per_gather to 0
  set jit to off
as $$
#variable_conflict use_column
declare
  own   constant bigint := pg_current_xact_id_if_assigned()::text::bigint; -- null: nothing was written
  first constant timestamptz := transaction_timestamp() - interval '1 second';
  last  constant timestamptz := clock_timestamp() + interval '1 second';
begin
  if trigger_name is not null and not exists (select from rowhook.trigger t where t.name = trigger_name and t.removed_at is null) then
    raise exception 'there is no Rowhook trigger named "%"; %', trigger_name,
      (select case count(*) when 0 then 'there is none'
                   else 'there are ' || string_agg(t.name, ', ' order by t.name) filter (where t.place <= 20) || case when count(*) > 20 then ' and more' else '' end end
         from (select name, row_number() over (order by name) as place from rowhook.trigger where removed_at is null) t)
      using errcode = 'undefined_object', hint = 'Triggers are listed in rowhook.trigger and made by "rowhook apply".';
  end if;
  if own is null then
    return;
  end if;
  return query
  with event as materialized (
    select e.*, t.name as trigger_name, t.schema_name, t.table_name, coalesce(e.relation_id, t.origin_id) as relation, coalesce(t.spec #>> '{retry,limit}', '5') as retries,
           case e.op when 'I' then 'INSERT' when 'U' then 'UPDATE' when 'D' then 'DELETE' else 'MANUAL' end as operation
      from rowhook.trigger t
     cross join lateral (
       select q.*, q.cmin::text::bigint as command, q.ctid as place
         from rowhook.event_log q
        where q.trigger_id = t.id and q.due_at between first and last
          and q.created_at >= first and q.tries = 0 and q.claimed_by is null
          and case when age(q.xmin) > 0 then false
                   else pg_xact_status((own + ((q.xmin::text::bigint - own) & 4294967295))::text::xid8) = 'in progress' end
       offset 0) e
     where $1 is null or t.name = $1),
  named as materialized ( -- as in rowhook.events
    select r.id, coalesce(s.nspname::text, r.schema_name) as schema, coalesce(c.relname::text, r.table_name) as name
      from (select distinct v.relation from event v) d
      join rowhook.relation r on r.id = d.relation
      left join pg_class c on c.oid = coalesce(
        (select w.watched::oid from rowhook.trigger w
          where w.relation_id = r.id and w.removed_at is null and (w.home = 'rowhook.trigger'::regclass or w.watched::oid <> w.relation) limit 1),
        case when r.home = 'rowhook.relation'::regclass then r.oid end)
      left join pg_namespace s on s.oid = c.relnamespace)
  select v.id, v.created_at, v.trigger_name, v.operation, m.schema, m.name, v.old, v.new, v.session, v.trace,
         concat('{"id":"', v.id, '","created_at":"', to_char(v.created_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                '","table":{"schema":', to_json(m.schema), ',"name":', to_json(m.name), '},"trigger":{"name":', to_json(v.trigger_name),
                '},"event":{"op":"', v.operation, '","data":{"old":', coalesce(v.old, 'null'), ',"new":', coalesce(v.new, 'null'),
                '},"session_variables":', coalesce(v.session, 'null'), ',"trace_context":', coalesce(v.trace, 'null'),
                '},"delivery_info":{"current_retry":0,"max_retries":', v.retries, '}}')::json
    from event v left join named n on n.id = v.relation
   cross join lateral (select coalesce(n.schema, v.schema_name) as schema, coalesce(n.name, v.table_name) as name) m
   order by v.command, v.created_at, v.place;
end
$$;
comment on function rowhook.recorded(text) is 'The events that this transaction itself has recorded so far, of one trigger or of all, in the order of recording; nobody may call it until it is granted';
revoke all on function rowhook.recorded(text) from public;

---- create above / drop below ----

drop function rowhook.recorded(text);
comment on table rowhook.schema_version is 'Version of the schema rowhook: 3';
update rowhook.setting set value = '2' where name = 'compatible';

-- What is sent, in whose name, and when it is given up.

update rowhook.setting set value = '6' where name = 'compatible';
-- sqlschema/whole.go reads this comment in a copy of the structure without its rows.
comment on table rowhook.schema_version is 'Version of the schema rowhook: 7';

comment on column rowhook.trigger.spec is 'Spec as applied; references to the environment are not expanded. Where programs of version 6 do not know all of its keys, they find no URL in it, and leave its events to others';

-- == Replays ==

create table rowhook.replay (
  id          bigint generated always as identity primary key,
  trigger_id  integer not null,
  from_at     timestamptz not null,
  until_at    timestamptz not null,
  as_new      boolean not null,
  ops         text[] not null default '{}',
  payload     text not null default '',
  started_at  timestamptz not null default clock_timestamp(),
  touched_at  timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  expected    bigint not null,
  counted     boolean not null,
  replayed    bigint not null default 0,
  damaged     bigint not null default 0,
  position    uuid,
  part_end    uuid,
  part_seq    bigint,
  part_id     uuid,
  runner      uuid
);
create unique index replay_unfinished on rowhook.replay (trigger_id) where finished_at is null;
comment on table  rowhook.replay is 'Delivered events that are sent once more: how far each replay is';
comment on column rowhook.replay.id          is 'Number of the replay';
comment on column rowhook.replay.trigger_id  is 'rowhook.trigger.id; a trigger has at most one that is unfinished';
comment on column rowhook.replay.from_at     is 'Events that were recorded at this time or later';
comment on column rowhook.replay.until_at    is 'Events that were recorded before this time';
comment on column rowhook.replay.as_new      is 'Whether they are sent under new ids';
comment on column rowhook.replay.ops         is 'INSERT, UPDATE, DELETE, TRUNCATE or MANUAL, any of these; empty: all';
comment on column rowhook.replay.payload     is 'Filter of their payload; empty: none, or the replay has ended';
comment on column rowhook.replay.started_at  is 'When it began; it sends what was delivered before';
comment on column rowhook.replay.touched_at  is 'When its runner was last at work';
comment on column rowhook.replay.finished_at is 'When it ended, or was abandoned; null: it can be continued';
comment on column rowhook.replay.expected    is 'Events to send, counted at the beginning';
comment on column rowhook.replay.counted     is 'False: counting took too long, and there are more than expected';
comment on column rowhook.replay.replayed    is 'Events that were put back into the queue';
comment on column rowhook.replay.damaged     is 'Events whose data can not be moved or copied';
comment on column rowhook.replay.position    is 'All events up to this id were put back; null: none yet';
comment on column rowhook.replay.part_end    is 'Of an ordered trigger: the last id of the part that is put back in the order of sequence; null: none is';
comment on column rowhook.replay.part_seq    is 'Of that part, the events up to this sequence, and with it up to part_id, were put back';
comment on column rowhook.replay.part_id     is 'See part_seq';
comment on column rowhook.replay.runner      is 'Who puts events back, a number of its own; null: nobody';
revoke all on rowhook.replay from public;

-- == Payload ==

comment on column rowhook.event_log.op     is 'I insert, U update, D delete, T truncate, M manual';
comment on column rowhook.event_archive.op is 'I insert, U update, D delete, T truncate, M manual';
comment on column rowhook.dead_letter.op   is 'I insert, U update, D delete, T truncate, M manual';

-- Captures of triggers with numbers: text call it for whole rows and for composite types. It looks up
-- the types each time, so it is right for columns that are added later. A way down leaves it, since
-- functions of captures depend on it.
create or replace function rowhook.numbers_as_text(value json, type oid) returns json language plpgsql stable strict
  set search_path to 'pg_catalog', 'pg_temp'
as $$
#variable_conflict use_variable
declare
  base    oid;
  row_of  oid;
  element oid;
begin
  select case when t.typtype = 'd' then t.typbasetype end, t.typrelid,
         case when t.typsubscript = 'array_subscript_handler'::regproc then t.typelem else 0 end
    into base, row_of, element from pg_type t where t.oid = type;
  if base is not null then
    return rowhook.numbers_as_text(value, base);
  elsif type in ('int8'::regtype, 'numeric'::regtype) then
    return case json_typeof(value) when 'number' then to_json(value::text) else value end;
  elsif row_of <> 0 and json_typeof(value) = 'object' then
    return (
      select concat('{', string_agg(concat(to_json(e.key), ':', case
               when a.atttypid in ('int8'::regtype, 'numeric'::regtype) and json_typeof(e.value) = 'number' then to_json(e.value::text)
               -- Types of Postgres itself that hold others are arrays of these two, and rows of its catalogs.
               when a.atttypid in ('int8[]'::regtype, 'numeric[]'::regtype) or a.atttypid >= 10000 then rowhook.numbers_as_text(e.value, a.atttypid)
               else e.value end), ',' order by e.n), '}')
        from json_each(value) with ordinality as e (key, value, n)
        left join pg_attribute a on a.attrelid = row_of and a.attname = e.key::name and a.attnum > 0 and not a.attisdropped)::json;
  elsif element = 0 then
    return value;
  elsif json_typeof(value) <> 'array' then -- an element
    return rowhook.numbers_as_text(value, element);
  elsif not exists (
    with recursive part as (
      select element as oid
      union
      select x.oid
        from part join pg_type y on y.oid = part.oid
        join lateral (
          select y.typbasetype as oid where y.typtype = 'd'
          union all select y.typelem where y.typelem <> 0
          union all select b.atttypid from pg_attribute b where b.attrelid = y.typrelid and y.typrelid <> 0 and b.attnum > 0 and not b.attisdropped) x on true)
    select from part where part.oid in ('int8'::regtype, 'numeric'::regtype)) then
    return value;
  end if;
  -- An array within an array is another dimension of it.
  return (select concat('[', string_agg(rowhook.numbers_as_text(e.value, type)::text, ',' order by e.n), ']')
            from json_array_elements(value) with ordinality as e (value, n))::json;
end
$$;
comment on function rowhook.numbers_as_text(json, oid) is 'The JSON of a value of a type, with what is of type bigint or numeric in it as strings';
revoke all on function rowhook.numbers_as_text(json, oid) from public;

-- What rowhook.recorded shows of the payload of an update is what webhook/trim.go sends.
create function rowhook.changed_keys(old json, new json) returns text[] language sql immutable strict
  set search_path to 'pg_catalog', 'pg_temp'
as $$
  select case when json_typeof(old) = 'object' and json_typeof(new) = 'object' then (
    select coalesce(array_agg(coalesce(o.key, n.key) order by o.n, n.n), '{}')
      from json_each(old) with ordinality as o (key, value, n)
      full join json_each(new) with ordinality as n (key, value, n) on n.key = o.key
     where o.value::text is distinct from n.value::text) end
$$;
comment on function rowhook.changed_keys(json, json) is 'The keys of two objects whose values differ';
revoke all on function rowhook.changed_keys(json, json) from public;

create function rowhook.only_keys(value json, keys text[]) returns json language sql immutable strict
  set search_path to 'pg_catalog', 'pg_temp'
as $$
  select concat('{', (select string_agg(concat(to_json(e.key), ':', e.value), ',' order by e.n)
    from json_each(value) with ordinality as e (key, value, n) where e.key = any (keys)), '}')::json
$$;
comment on function rowhook.only_keys(json, text[]) is 'An object with some of its keys';
revoke all on function rowhook.only_keys(json, text[]) from public;

-- As in version 5, with TRUNCATE.
create or replace view rowhook.events as
select e.id, coalesce(n.nspname, r.schema_name, t.schema_name) as schema_name, coalesce(c.relname, r.table_name, t.table_name) as table_name, t.name as trigger_name,
       json_build_object(
         'op', case e.op when 'I' then 'INSERT' when 'U' then 'UPDATE' when 'D' then 'DELETE' when 'T' then 'TRUNCATE' else 'MANUAL' end,
         'data', json_build_object('old', e.old, 'new', e.new),
         'session_variables', e.session, 'trace_context', e.trace) as payload,
       e.delivered, e.error, e.tries, e.created_at, e.locked, e.next_retry_at, e.archived
  from (
    select id, trigger_id, relation_id, op, old, new, session, trace, tries, created_at, false as delivered, false as error,
           case when claimed_by is not null then due_at end as locked,
           case when claimed_by is null and tries > 0 then case when due_at > '2150-01-01 00:00:00+00' then due_at - interval '1752000 hours' else due_at end end as next_retry_at, false as archived
      from rowhook.event_log
    union all
    select id, trigger_id, relation_id, op, old, new, session, trace, tries, created_at, true, false, null, null, true
      from rowhook.event_archive
    union all
    select id, trigger_id, relation_id, op, old, new, session, trace, tries, created_at, false, true, null, null, false
      from rowhook.dead_letter) e
  left join rowhook.trigger t on t.id = e.trigger_id
  left join rowhook.relation r on r.id = coalesce(e.relation_id, t.origin_id)
  left join pg_catalog.pg_class c on c.oid = coalesce(
    (select w.watched::oid from rowhook.trigger w
      where w.relation_id = r.id and w.removed_at is null and (w.home = 'rowhook.trigger'::regclass or w.watched::oid <> w.relation) limit 1),
    case when r.home = 'rowhook.relation'::regclass then r.oid end)
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace;

-- As in version 5, with TRUNCATE, and of updates what is sent.
create or replace function rowhook.recorded(trigger_name text default null)
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
           case when e.op = 'U' then t.spec #>> '{payload,old}' end as sent_old, case when e.op = 'U' then (t.spec #>> '{payload,changed}')::boolean end as names_changed,
           case e.op when 'I' then 'INSERT' when 'U' then 'UPDATE' when 'D' then 'DELETE' when 'T' then 'TRUNCATE' else 'MANUAL' end as operation
      from rowhook.trigger t
     cross join lateral (
       (select q.*, q.cmin::text::bigint as command, q.ctid as place
         from rowhook.event_log q
        where q.trigger_id = t.id and q.due_at between first and last
          and q.created_at >= first and q.tries = 0 and q.claimed_by is null
          and case when age(q.xmin) > 0 then false
                   else pg_xact_status((own + ((q.xmin::text::bigint - own) & 4294967295))::text::xid8) = 'in progress' end
       offset 0)
       union all
       (select q.*, q.cmin::text::bigint as command, q.ctid as place
         from rowhook.event_log q
        where q.trigger_id = t.id and q.due_at between first + interval '1752000 hours' and last + interval '1752000 hours'
          and q.created_at >= first and q.tries = 0 and q.claimed_by is null
          and case when age(q.xmin) > 0 then false
                   else pg_xact_status((own + ((q.xmin::text::bigint - own) & 4294967295))::text::xid8) = 'in progress' end
       offset 0)) e
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
  select v.id, v.created_at, v.trigger_name, v.operation, m.schema, m.name, o.sent, v.new, v.session, v.trace,
         concat('{"id":"', v.id, '","created_at":"', to_char(v.created_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '"', ',"sequence":' || v.seq,
                ',"table":{"schema":', to_json(m.schema), ',"name":', to_json(m.name), '},"trigger":{"name":', to_json(v.trigger_name),
                '},"event":{"op":"', v.operation, '"', ',"changed":' || case when v.names_changed then coalesce(array_to_json(k.changed)::text, 'null') end,
                ',"data":{"old":', coalesce(o.sent, 'null'), ',"new":', coalesce(v.new, 'null'),
                '},"session_variables":', coalesce(v.session, 'null'), ',"trace_context":', coalesce(v.trace, 'null'),
                '},"delivery_info":{"current_retry":0,"max_retries":', v.retries, '}}')::json
    from event v left join named n on n.id = v.relation
   cross join lateral (select coalesce(n.schema, v.schema_name) as schema, coalesce(n.name, v.table_name) as name) m
   cross join lateral (select case when v.names_changed or v.sent_old = 'changed' then rowhook.changed_keys(v.old, v.new) end as changed) k
   cross join lateral (
     select case v.sent_old when 'none' then null when 'changed' then coalesce(rowhook.only_keys(v.old, k.changed), v.old) else v.old end as sent) o
   order by v.command, v.created_at, v.place;
end
$$;
-- == Erasing ==

comment on column rowhook.audit.action is 'pause, resume, redeliver, retry, discard, backfill, replay, invoke, cancel, erase, apply or migrate';
comment on column rowhook.event_archive.session is 'As in event_log. Of an event whose data were erased: {"rowhook_erased": when}';

-- == In whose name ==

comment on column rowhook.invocation_log.error_kind is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied, token, other. Of a batch with a 2xx status: rejected, bad_answer';

-- == Tables ==

-- A way down leaves it, as what its tables capture goes on, too. So it is known after the next way up
-- which tables a trigger watches, but for what was removed or changed in between.
create table if not exists rowhook.trigger_table (
  trigger_id  integer not null,
  relation_id integer not null,
  watched     regclass not null,
  captured    jsonb not null default '{}',
  joined_at   timestamptz not null default now(),
  primary key (trigger_id, relation_id)
);
comment on table  rowhook.trigger_table is 'The tables of triggers that watch several; rowhook.trigger names one of them';
comment on column rowhook.trigger_table.trigger_id  is 'rowhook.trigger.id';
comment on column rowhook.trigger_table.relation_id is 'rowhook.relation.id of the table';
comment on column rowhook.trigger_table.watched     is 'The table as a dump keeps it';
comment on column rowhook.trigger_table.captured    is 'As in rowhook.trigger, of this table';
comment on column rowhook.trigger_table.joined_at   is 'When the trigger began to watch it';
revoke all on rowhook.trigger_table from public;
delete from rowhook.trigger_table m
 where not exists (select from rowhook.trigger t where t.id = m.trigger_id and t.removed_at is null and t.spec ? 'tables');

create function rowhook.watch_table(trigger_id integer, relation oid, schema_name text, table_name text) returns integer language plpgsql
  set search_path to 'pg_catalog', 'pg_temp'
as $$
#variable_conflict use_variable
declare
  known integer;
begin
  update rowhook.relation r set oid = 0 where r.oid = relation and r.home <> 'rowhook.relation'::regclass; -- another database's
  insert into rowhook.relation as r (oid, schema_name, table_name) values (relation, schema_name, table_name)
  on conflict (oid) where oid <> 0 do update set schema_name = excluded.schema_name, table_name = excluded.table_name
  returning r.id into known;
  insert into rowhook.trigger_table as t (trigger_id, relation_id, watched) values (trigger_id, known, relation::regclass)
  on conflict on constraint trigger_table_pkey do update set watched = excluded.watched;
  update rowhook.trigger t set relations = coalesce(t.relations, '{}') || known
   where t.id = trigger_id and (t.relations is null or known <> all (t.relations));
  return known;
end
$$;
comment on function rowhook.watch_table(integer, oid, text, text) is 'Makes a table one of those that a trigger watches; returns its rowhook.relation.id';
revoke all on function rowhook.watch_table(integer, oid, text, text) from public;

-- == Giving up ==

alter table rowhook.event_log add column renewed_at timestamptz;
comment on column rowhook.event_log.renewed_at is 'When it was sent again by hand: its age counts from there; null: from when it was first due';

-- The role of a dispatcher may write neither rowhook.trigger nor rowhook.setting. This pauses what is
-- configured to be paused by an answer, and nothing else. seen is the version of the row of the
-- trigger as of the request: who has resumed or changed it since is not overruled. The lock on the
-- generation comes first, as in every pause and apply.
create function rowhook.pause_by_answer(target integer, seen text, status integer, who text) returns "char" language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
  t     rowhook.trigger;
  is_as text;
  entry jsonb;
begin
  select xmin::text into is_as from rowhook.trigger where id = target and removed_at is null and not paused;
  if found and is_as is distinct from seen then
    return 'O';
  elsif found then
    perform from rowhook.setting where name = 'generation' for no key update;
  end if;
  select * into t from rowhook.trigger where id = target and removed_at is null;
  if not found then
    return 'O';
  elsif t.paused then
    return 'W';
  end if;
  select xmin::text into is_as from rowhook.trigger where id = target;
  if is_as is distinct from seen then
    return 'O';
  elsif not exists (select from jsonb_each_text(coalesce(t.spec #> '{retry,statuses}', '{}')) as r (statuses, word) where r.word = 'pause') then
    raise exception 'no answer of its receiver pauses the Rowhook trigger "%"', t.name using errcode = 'insufficient_privilege';
  end if;
  update rowhook.setting set value = to_jsonb((value #>> '{}')::bigint + 1) where name = 'generation';
  update rowhook.trigger set paused = true where id = target;
  entry := jsonb_build_object('at', clock_timestamp(), 'by', left(who, 200) || ', role ' || session_user, 'reason', 'the receiver answered ' || status, 'status', status);
  insert into rowhook.setting as s (name, value) values ('paused', jsonb_build_object('triggers', jsonb_build_object(target::text, entry)))
  on conflict (name) do update
     set value = jsonb_set(s.value, '{triggers}', coalesce(s.value -> 'triggers', '{}') || jsonb_build_object(target::text, entry));
  insert into rowhook.audit (role, who, client, action, target, detail)
  values (session_user, left(who, 200), coalesce(host(inet_client_addr()), ''), 'pause', array[t.name],
          json_build_object('changed', array[t.name], 'reason', 'the receiver answered ' || status, 'status', status));
  if pg_notification_queue_usage() < 0.25 then
    perform pg_notify('rowhook', 'config');
  end if;
  return 'P';
end
$$;
comment on function rowhook.pause_by_answer(integer, text, integer, text) is 'Pauses a trigger whose receiver has answered with a status for which its retry says pause: P; W: it was paused already; O: it is not as it was at the time of the request';
revoke all on function rowhook.pause_by_answer(integer, text, integer, text) from public;

-- == Delay ==

comment on column rowhook.event_log.due_at is 'When it is to be claimed next: a new event at once, or after the delay of its trigger, a claimed one at the end of its lease, a failed one at its next attempt. Of an event with a lane: 1752000 hours later';

-- In hours and not in days, which are longer or shorter where clocks are changed.
create function rowhook.delay_of(spec jsonb) returns interval language sql stable
  set search_path to 'pg_catalog', 'pg_temp'
  return make_interval(secs => extract(epoch from coalesce((spec ->> 'delay')::interval, interval '0'))::double precision);
comment on function rowhook.delay_of(jsonb) is 'How much later than they are recorded events of a trigger are due, by its spec';
revoke all on function rowhook.delay_of(jsonb) from public;

-- As before, with the delay of the trigger.
create or replace function rowhook.emit(trigger_name text, payload json) returns uuid language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
  target  rowhook.trigger;
  event   uuid := rowhook.uuid7();
begin
  select * into target from rowhook.trigger where name = trigger_name and removed_at is null;
  if not found then
    raise exception 'there is no Rowhook trigger named "%"', trigger_name
      using errcode = 'undefined_object', hint = 'Triggers are listed in rowhook.trigger and made by "rowhook apply".';
  end if;
  if not coalesce((target.spec->'on'->>'manual')::boolean, false) then
    raise exception 'the Rowhook trigger "%" takes no manual events', trigger_name
      using errcode = 'insufficient_privilege', hint = 'Add "manual: true" under its "on" in rowhook.yaml and apply again.';
  end if;
  insert into rowhook.event_log (id, trigger_id, relation_id, op, new, session, trace, due_at)
  select event, target.id, target.relation_id, 'M', payload, c.session, c.trace,
         clock_timestamp() + case when target.spec ? 'delay' then rowhook.delay_of(target.spec) else interval '0' end
    from rowhook.context() as c;
  if target.spec->>'notify' is distinct from 'never' and pg_sequence_last_value('rowhook.doorbell'::regclass) = 1 then
    perform pg_notify('rowhook', target.id::text);
  end if;
  return event;
end
$$;

-- What a transaction has recorded itself is due later, too, so it is looked for there.
do $$
declare
  begins constant text := 'first + rowhook.delay_of(t.spec)';
  ends   constant text := 'last + rowhook.delay_of(t.spec)';
begin
  execute replace(replace(pg_get_functiondef('rowhook.recorded(text)'::regprocedure),
    'between first and last', format('between %s and %s', begins, ends)),
    'between first + interval ''1752000 hours'' and last + interval ''1752000 hours''',
    format('between %s + interval ''1752000 hours'' and %s + interval ''1752000 hours''', begins, ends));
end
$$;

-- == Retention ==

-- A dispatcher may not delete history but by this, and only what is older than it says. The rows of
-- triggers have the times of keeps, all others that of general. Pages are read in their order: the
-- tables have no index by time.
create function rowhook.trim_history(name text, page bigint, pages bigint, general interval, triggers integer[], keeps interval[]) returns bigint language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set enable_hashjoin to on
  set lock_timeout to '2s'
as $$
declare
  column_of constant text := case when name like 'event\_archive\_%' then 'delivered_at' else 'started_at' end;
  place     constant text := format('h.ctid >= %L and h.ctid < %L', format('(%s,0)', page), format('(%s,0)', page + pages));
  own       bigint;
  others    bigint;
begin
  if not exists (
    select from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent in ('rowhook.event_archive'::regclass, 'rowhook.invocation_log'::regclass)
       and c.relname = trim_history.name and c.relname ~ '^(event_archive|invocation_log)_[0-9]{8}$') then
    return 0; -- it was dropped meanwhile
  end if;
  execute format('delete from rowhook.%I h using unnest($1, $2) as k (id, keep) where %s and h.trigger_id = k.id and h.%I < statement_timestamp() - k.keep', name, place, column_of)
    using triggers, keeps;
  get diagnostics own = row_count;
  execute format('delete from rowhook.%I h where %s and h.%I < statement_timestamp() - $2 and h.trigger_id <> all ($1)', name, place, column_of)
    using triggers, general;
  get diagnostics others = row_count;
  return own + others;
exception when undefined_table or lock_not_available then
  return 0; -- it was dropped meanwhile, or is being dropped
end
$$;
comment on function rowhook.trim_history(text, bigint, bigint, interval, integer[], interval[]) is 'Deletes from some pages of a daily partition of event_archive or invocation_log what is older than its trigger keeps it';
revoke all on function rowhook.trim_history(text, bigint, bigint, interval, integer[], interval[]) from public;

-- == At commit ==

-- It is not logged: nobody reads a row after its transaction. A way down waits until no trigger
-- captures at commit.
create unlogged table rowhook.commit_row (
  txid        xid8 not null,
  trigger_id  integer not null,
  relation_id integer not null,
  key         text collate "C" not null,
  hash        bigint,
  held        boolean not null default true,
  fresh       boolean not null default true,
  origin      text,
  row_first   text,
  event_id    uuid,
  primary key (txid, trigger_id, relation_id, key)
) with (fillfactor = 70);
comment on table  rowhook.commit_row is 'What a transaction has done to a row, for triggers that capture at commit; rows of transactions that have ended mean nothing, and dispatchers delete them';
comment on column rowhook.commit_row.txid        is 'The transaction';
comment on column rowhook.commit_row.trigger_id  is 'rowhook.trigger.id';
comment on column rowhook.commit_row.relation_id is 'rowhook.relation.id of the table';
comment on column rowhook.commit_row.key         is 'Primary key of the row; of a long one its hash; of rows that share it, see rowhook.commit_twin';
comment on column rowhook.commit_row.hash        is 'Hash of the text of the row; null: it is deleted';
comment on column rowhook.commit_row.held        is 'False: the row has another key now, and the rest means nothing';
comment on column rowhook.commit_row.fresh       is 'Whether it was changed once';
comment on column rowhook.commit_row.origin      is 'Primary key of the row before the transaction; null: it is new';
comment on column rowhook.commit_row.row_first   is 'The row before the transaction; null: it is new';
comment on column rowhook.commit_row.event_id    is 'rowhook.event_log.id of what was recorded; null: nothing';
revoke all on rowhook.commit_row from public;

-- What captures call where the change of a row finds its key taken, or moves the row to another key.
-- The first row of a key has it for itself. Others, which share it for a while or were deleted under
-- it, are on a stack: of the same key and the same hash any will do. The stack of a key is under the key and
-- the hash, with the height as its hash, and the rows on it are under that and their place, from 1. So
-- nothing is looked up but by "on conflict", which takes no locks in serializable transactions.
create function rowhook.commit_twin(
    of_trigger integer, of_relation integer, taken tid, at_was text, at_now text, hash_was bigint, hash_now bigint, was text, row_was text,
    out place tid, out event uuid, out origin text, out row_first text, out fresh boolean)
  language plpgsql
  set search_path to 'pg_catalog', 'pg_temp'
  set enable_seqscan to off
  set enable_tidscan to on
as $$
#variable_conflict use_variable
declare
  stack  text;
  number bigint;
begin
  if taken is not null then
    -- It was found under its key, and moves to another one.
    update rowhook.commit_row r set held = false where r.ctid = taken
    returning r.event_id, r.origin, r.row_first, r.fresh into event, origin, row_first, fresh;
  else
    stack := concat(coalesce(at_was, at_now), ' ', coalesce(hash_was::text, 'deleted'));
    insert into rowhook.commit_row as r (txid, trigger_id, relation_id, key, hash, held)
    values (pg_current_xact_id(), of_trigger, of_relation, stack, 0, false)
    on conflict (txid, trigger_id, relation_id, key) do update set hash = r.hash - 1, fresh = false where r.hash > 0
    returning r.hash + 1, r.fresh into number, fresh;
    fresh := coalesce(fresh, true);
    if fresh then
      origin := was;
      row_first := row_was;
    else
      insert into rowhook.commit_row as r (txid, trigger_id, relation_id, key)
      values (pg_current_xact_id(), of_trigger, of_relation, concat(stack, ' ', number))
      on conflict (txid, trigger_id, relation_id, key) do update set held = false
      returning r.event_id, r.origin, r.row_first into event, origin, row_first;
    end if;
  end if;
  insert into rowhook.commit_row as r (txid, trigger_id, relation_id, key, hash, fresh, origin, row_first, event_id)
  values (pg_current_xact_id(), of_trigger, of_relation, coalesce(at_now, at_was), hash_now, false, origin, row_first, event)
  on conflict (txid, trigger_id, relation_id, key) do update
     set hash = hash_now, held = true, fresh = false, origin = origin, row_first = row_first, event_id = event where not r.held
  returning r.ctid into place;
  if place is null then
    stack := concat(coalesce(at_now, at_was), ' ', coalesce(hash_now::text, 'deleted'));
    insert into rowhook.commit_row as r (txid, trigger_id, relation_id, key, hash, held, fresh)
    values (pg_current_xact_id(), of_trigger, of_relation, stack, 1, false, false)
    on conflict (txid, trigger_id, relation_id, key) do update set hash = r.hash + 1, fresh = false
    returning r.hash into number;
    insert into rowhook.commit_row as r (txid, trigger_id, relation_id, key, hash, fresh, origin, row_first, event_id)
    values (pg_current_xact_id(), of_trigger, of_relation, concat(stack, ' ', number), hash_now, false, origin, row_first, event)
    on conflict (txid, trigger_id, relation_id, key) do update
       set held = true, origin = origin, row_first = row_first, event_id = event
    returning r.ctid into place;
  end if;
end
$$;
comment on function rowhook.commit_twin(integer, integer, tid, text, text, bigint, bigint, text, text) is 'What a transaction has done to a row whose key another row has, or which gets another key; captures at commit call it';
revoke all on function rowhook.commit_twin(integer, integer, tid, text, text, bigint, bigint, text, text) from public;

-- == Rights ==

do $$
declare
  dispatcher regrole;
begin
  for dispatcher in
    select distinct a.grantee
      from pg_attribute d join pg_class c on c.oid = d.attrelid cross join aclexplode(d.attacl) a
     where d.attrelid = 'rowhook.event_log'::regclass and d.attname = 'due_at' and a.privilege_type = 'UPDATE' and a.grantee not in (0, c.relowner)
  loop
    -- each new right of dispatcherRights, in grant.go
    execute format('grant select on rowhook.replay to %s', dispatcher);
    execute format('grant select on rowhook.trigger_table to %s', dispatcher);
    execute format('grant select, delete on rowhook.commit_row to %s', dispatcher);
    execute format('grant execute on function rowhook.pause_by_answer(integer, text, integer, text) to %s', dispatcher);
    execute format('grant execute on function rowhook.trim_history(text, bigint, bigint, interval, integer[], interval[]) to %s', dispatcher);
  end loop;
end
$$;

---- create above / drop below ----

-- == At commit ==

drop function rowhook.commit_twin(integer, integer, tid, text, text, bigint, bigint, text, text);
drop table rowhook.commit_row;

-- == In whose name ==

comment on column rowhook.invocation_log.error_kind is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied, other. Of a batch with a 2xx status: rejected, bad_answer';

-- == Retention ==

drop function rowhook.trim_history(text, bigint, bigint, interval, integer[], interval[]);

-- == Delay ==

do $$
begin
  execute replace(pg_get_functiondef('rowhook.recorded(text)'::regprocedure), ' + rowhook.delay_of(t.spec)', '');
end
$$;
-- As in version 3.
create or replace function rowhook.emit(trigger_name text, payload json) returns uuid language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
  target  rowhook.trigger;
  event   uuid := rowhook.uuid7();
begin
  select * into target from rowhook.trigger where name = trigger_name and removed_at is null;
  if not found then
    raise exception 'there is no Rowhook trigger named "%"', trigger_name
      using errcode = 'undefined_object', hint = 'Triggers are listed in rowhook.trigger and made by "rowhook apply".';
  end if;
  if not coalesce((target.spec->'on'->>'manual')::boolean, false) then
    raise exception 'the Rowhook trigger "%" takes no manual events', trigger_name
      using errcode = 'insufficient_privilege', hint = 'Add "manual: true" under its "on" in rowhook.yaml and apply again.';
  end if;
  insert into rowhook.event_log (id, trigger_id, relation_id, op, new, session, trace)
  select event, target.id, target.relation_id, 'M', payload, c.session, c.trace from rowhook.context() as c;
  if target.spec->>'notify' is distinct from 'never' and pg_sequence_last_value('rowhook.doorbell'::regclass) = 1 then
    perform pg_notify('rowhook', target.id::text);
  end if;
  return event;
end
$$;
drop function rowhook.delay_of(jsonb);
comment on column rowhook.event_log.due_at is 'When it is to be claimed next: a new event at once, a claimed one at the end of its lease, a failed one at its next attempt. Of an event with a lane: 1752000 hours later';

-- == Giving up ==

drop function rowhook.pause_by_answer(integer, text, integer, text);
alter table rowhook.event_log drop column renewed_at;

-- == Tables ==

drop function rowhook.watch_table(integer, oid, text, text);

-- == Erasing ==

comment on column rowhook.audit.action is 'pause, resume, redeliver, retry, discard, backfill, invoke, cancel, apply or migrate';
comment on column rowhook.event_archive.session is 'As in event_log';

-- == Replays ==

drop table rowhook.replay;

-- == Payload ==

comment on column rowhook.event_log.op     is 'I insert, U update, D delete, M manual';
comment on column rowhook.event_archive.op is 'I insert, U update, D delete, M manual';
comment on column rowhook.dead_letter.op   is 'I insert, U update, D delete, M manual';

-- As in version 5.
create or replace view rowhook.events as
select e.id, coalesce(n.nspname, r.schema_name, t.schema_name) as schema_name, coalesce(c.relname, r.table_name, t.table_name) as table_name, t.name as trigger_name,
       json_build_object(
         'op', case e.op when 'I' then 'INSERT' when 'U' then 'UPDATE' when 'D' then 'DELETE' else 'MANUAL' end,
         'data', json_build_object('old', e.old, 'new', e.new),
         'session_variables', e.session, 'trace_context', e.trace) as payload,
       e.delivered, e.error, e.tries, e.created_at, e.locked, e.next_retry_at, e.archived
  from (
    select id, trigger_id, relation_id, op, old, new, session, trace, tries, created_at, false as delivered, false as error,
           case when claimed_by is not null then due_at end as locked,
           case when claimed_by is null and tries > 0 then case when due_at > '2150-01-01 00:00:00+00' then due_at - interval '1752000 hours' else due_at end end as next_retry_at, false as archived
      from rowhook.event_log
    union all
    select id, trigger_id, relation_id, op, old, new, session, trace, tries, created_at, true, false, null, null, true
      from rowhook.event_archive
    union all
    select id, trigger_id, relation_id, op, old, new, session, trace, tries, created_at, false, true, null, null, false
      from rowhook.dead_letter) e
  left join rowhook.trigger t on t.id = e.trigger_id
  left join rowhook.relation r on r.id = coalesce(e.relation_id, t.origin_id)
  left join pg_catalog.pg_class c on c.oid = coalesce(
    (select w.watched::oid from rowhook.trigger w
      where w.relation_id = r.id and w.removed_at is null and (w.home = 'rowhook.trigger'::regclass or w.watched::oid <> w.relation) limit 1),
    case when r.home = 'rowhook.relation'::regclass then r.oid end)
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace;

-- As in version 5.
create or replace function rowhook.recorded(trigger_name text default null)
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
       (select q.*, q.cmin::text::bigint as command, q.ctid as place
         from rowhook.event_log q
        where q.trigger_id = t.id and q.due_at between first and last
          and q.created_at >= first and q.tries = 0 and q.claimed_by is null
          and case when age(q.xmin) > 0 then false
                   else pg_xact_status((own + ((q.xmin::text::bigint - own) & 4294967295))::text::xid8) = 'in progress' end
       offset 0)
       union all
       (select q.*, q.cmin::text::bigint as command, q.ctid as place
         from rowhook.event_log q
        where q.trigger_id = t.id and q.due_at between first + interval '1752000 hours' and last + interval '1752000 hours'
          and q.created_at >= first and q.tries = 0 and q.claimed_by is null
          and case when age(q.xmin) > 0 then false
                   else pg_xact_status((own + ((q.xmin::text::bigint - own) & 4294967295))::text::xid8) = 'in progress' end
       offset 0)) e
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
         concat('{"id":"', v.id, '","created_at":"', to_char(v.created_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '"', ',"sequence":' || v.seq,
                ',"table":{"schema":', to_json(m.schema), ',"name":', to_json(m.name), '},"trigger":{"name":', to_json(v.trigger_name),
                '},"event":{"op":"', v.operation, '","data":{"old":', coalesce(v.old, 'null'), ',"new":', coalesce(v.new, 'null'),
                '},"session_variables":', coalesce(v.session, 'null'), ',"trace_context":', coalesce(v.trace, 'null'),
                '},"delivery_info":{"current_retry":0,"max_retries":', v.retries, '}}')::json
    from event v left join named n on n.id = v.relation
   cross join lateral (select coalesce(n.schema, v.schema_name) as schema, coalesce(n.name, v.table_name) as name) m
   order by v.command, v.created_at, v.place;
end
$$;

drop function rowhook.only_keys(json, text[]);
drop function rowhook.changed_keys(json, json);

comment on column rowhook.trigger.spec is 'Spec as applied; references to the environment are not expanded';

comment on table rowhook.schema_version is 'Version of the schema rowhook: 6';
update rowhook.setting set value = '5' where name = 'compatible';

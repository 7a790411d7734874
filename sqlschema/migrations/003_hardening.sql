-- A fence that never repeats, events that know their relation, a record of who did what, and
-- captures that a writer's settings and rights can't break.

update rowhook.setting set value = '2' where name = 'compatible';
-- sqlschema/whole.go reads this comment in a copy of the structure without its rows.
comment on table rowhook.schema_version is 'Version of the schema rowhook: 3';

-- In the order in which claims and settlements lock them, so that there is no deadlock.
lock table rowhook.trigger, rowhook.instance, rowhook.event_log, rowhook.event_archive, rowhook.dead_letter in access exclusive mode;

-- == Fence ==

alter table rowhook.event_log add column if not exists claim bigint;
comment on column rowhook.event_log.claim is 'Number of the claim that has it, or had it last without settling it: an instance never uses one twice, so only what knows it may settle the event; null: none';

comment on column rowhook.invocation_log.error_kind is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied, other';

-- == Relations ==

create table if not exists rowhook.relation ( -- it may have been left by a way down
  id          integer generated always as identity primary key,
  oid         oid not null,
  schema_name text not null,
  table_name  text not null,
  home        oid not null default 'rowhook.relation'::regclass::oid
);
create unique index if not exists relation_oid on rowhook.relation (oid) where oid <> 0;
comment on table  rowhook.relation is 'Tables that events are of; an event refers to its own, whatever its trigger watches by now';
comment on column rowhook.relation.id          is 'Names the table in events and capture triggers';
comment on column rowhook.relation.oid         is 'The table, so that renames are followed; 0: not known here';
comment on column rowhook.relation.schema_name is 'Schema of the table at the last apply, for when the table is gone';
comment on column rowhook.relation.table_name  is 'Name of the table at the last apply, for when the table is gone';
comment on column rowhook.relation.home        is 'The oid that this table had when oid was written: where it is another, all this came by a dump, and oid says nothing';
revoke all on rowhook.relation from public;

alter table rowhook.event_log     add column if not exists relation_id integer;
alter table rowhook.event_archive add column if not exists relation_id integer;
alter table rowhook.dead_letter   add column if not exists relation_id integer;
comment on column rowhook.event_log.relation_id     is 'rowhook.relation.id of the table that changed; null: that of the trigger''s origin';
comment on column rowhook.event_archive.relation_id is 'As in event_log';
comment on column rowhook.dead_letter.relation_id   is 'As in event_log';

-- A dump carries a regclass by name, and an oid as a number.
alter table rowhook.trigger add column if not exists watched regclass;
alter table rowhook.trigger add column if not exists relation_id integer;
alter table rowhook.trigger add column if not exists origin_id integer;
alter table rowhook.trigger add column if not exists relations integer[];
alter table rowhook.trigger add column if not exists home oid;
comment on column rowhook.trigger.watched     is 'The watched table as a dump keeps it; where relation is another, that is of the database that was dumped';
comment on column rowhook.trigger.relation_id is 'rowhook.relation.id of the watched table';
comment on column rowhook.trigger.origin_id   is 'rowhook.relation.id of the table of events that say none, as captures of version 2 do';
comment on column rowhook.trigger.relations   is 'rowhook.relation.id of every table that it has watched';
comment on column rowhook.trigger.home        is 'The oid that rowhook.trigger had when relation was written, as in rowhook.relation';

-- Programs of version 2 write only the oid. This trigger fills in the other columns.
create function rowhook.know_relation() returns trigger language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
  old_program boolean := tg_op = 'INSERT';
begin
  if tg_op = 'INSERT' then
    new.watched := coalesce(new.watched, new.relation::regclass);
  elsif new.relation is distinct from old.relation and new.watched::oid is distinct from new.relation then
    new.watched := new.relation;
    old_program := true;
  elsif new.watched::oid is distinct from new.relation then
    return new; -- of another database; apply sees to it
  end if;
  if tg_op = 'INSERT' or new.relation is distinct from old.relation then
    new.home := 'rowhook.trigger'::regclass;
  end if;
  update rowhook.relation set oid = 0 where oid = new.relation and home <> 'rowhook.relation'::regclass; -- another database's
  insert into rowhook.relation as r (oid, schema_name, table_name) values (new.relation, new.schema_name, new.table_name)
  on conflict (oid) where oid <> 0 do update set schema_name = excluded.schema_name, table_name = excluded.table_name
  returning r.id into new.relation_id;
  if old_program then
    new.origin_id := new.relation_id;
  end if;
  if new.relations is null or new.relation_id <> all (new.relations) then
    new.relations := coalesce(new.relations, '{}') || new.relation_id;
  end if;
  return new;
end
$$;
comment on function rowhook.know_relation() is 'Keeps rowhook.relation and what refers to it in step with rowhook.trigger';
revoke all on function rowhook.know_relation() from public;
-- After a way down and up, what version 3 had written is out of date.
update rowhook.trigger set watched = null, relation_id = null;
-- After a load of a dump of version 2, the oids are those of the dumped database. Then the captures
-- are on the table with the recorded name.
with captures as (
  select g.tgrelid as oid from pg_trigger g join pg_proc p on p.oid = g.tgfoid where p.pronamespace = 'rowhook'::regnamespace)
update rowhook.trigger t set relation = c.oid
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = t.schema_name::name and c.relname = t.table_name::name and c.oid <> t.relation
   and c.oid in (select oid from captures) and t.relation not in (select oid from captures);
create trigger know_relation before insert or update of relation, watched, schema_name, table_name on rowhook.trigger
  for each row execute function rowhook.know_relation();
update rowhook.trigger set watched = relation::regclass, home = 'rowhook.trigger'::regclass;
update rowhook.trigger set origin_id = relation_id;

-- A watched table is found by trigger.watched, which a dump carries. The oid of another table is
-- valid only in the database in which it was recorded.
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
           case when claimed_by is null and tries > 0 then due_at end as next_retry_at, false as archived
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

-- == Capture ==

-- It writes the change into the queue and then reads the doorbell: the order matters, see
-- listener/doorbell.go. Before the first dispatcher arms the doorbell, it does not ring.
create or replace function rowhook.capture() returns trigger language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set timezone to 'UTC'
  set datestyle to 'ISO, YMD'
  set intervalstyle to 'postgres'
  set bytea_output to 'hex'
  set extra_float_digits to 1
  set lc_monetary to 'C'
  set quote_all_identifiers to off
as $$
#variable_conflict use_variable
declare
  session json;
  trace   json;
begin
  if concat(current_setting('rowhook.session', true), current_setting('hasura.user', true),
            current_setting('rowhook.trace_context', true), current_setting('hasura.tracecontext', true)) <> '' then
    select * into session, trace from rowhook.context();
  end if;
  if tg_level = 'STATEMENT' then
    -- All rows of an insert at once. A column may have any name, so variables win and the row is "r.*".
    insert into rowhook.event_log (id, trigger_id, relation_id, op, new, session, trace)
    select rowhook.uuid7(), tg_argv[0]::integer, tg_argv[2]::integer, 'I', row_to_json(r.*), session, trace from inserted as r;
    if not found then
      return null;
    end if;
  else
    insert into rowhook.event_log (id, trigger_id, relation_id, op, old, new, session, trace)
    values (rowhook.uuid7(), tg_argv[0]::integer, tg_argv[2]::integer, tg_op::"char", row_to_json(old), row_to_json(new), session, trace);
  end if;
  if coalesce(tg_argv[1], '') <> 'never' and pg_sequence_last_value('rowhook.doorbell'::regclass) = 1 then
    perform pg_notify('rowhook', tg_argv[0]);
  end if;
  return null;
end
$$;
comment on function rowhook.capture() is 'Capture trigger: for a row, or for a whole insert from its transition table "inserted". Arguments: rowhook.trigger.id; "never" where it must not NOTIFY, else empty; rowhook.relation.id';

-- As in version 2, but it does not ring before the first dispatcher has armed the doorbell.
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
comment on sequence rowhook.doorbell is 'Last value 1: writers ring (NOTIFY). Otherwise, or where there is none, they do not: it is the id of the instance that is awake and asked for silence, or 2147483647 where nobody has asked for rings';

-- == Instances ==

alter table rowhook.instance add column trouble jsonb;
comment on column rowhook.instance.trouble is 'What it can''t do, {"unable": {trigger: why}, "history": why}; null: nothing';
-- It has no default, since programs of version 2 do not write it. It may exist already: a way down
-- leaves it.
alter table rowhook.instance add column if not exists seen_at timestamptz;
comment on column rowhook.instance.seen_at is 'When it last said that it lives, which it does each second; null: it is of a version that does not';

-- == History ==

-- The search_path for changes of partitions. These run event triggers, and some event triggers name
-- tables without a schema. If the session's role may act as the owner, it is the search_path of the
-- session. Otherwise it is the owner's, never that of a role that only dispatches: event triggers
-- run with the owner's rights here.
create function rowhook.ddl_path() returns text language sql stable
  set search_path to 'pg_catalog', 'pg_temp'
as $$
  select 'pg_catalog, ' || coalesce(
    case when r.trusted then (select nullif(reset_val, 'pg_catalog') from pg_settings where name = 'search_path') end,
    (select substr(c, length('search_path=') + 1)
       from pg_db_role_setting s cross join unnest(s.setconfig) as c
      where c like 'search\_path=%' and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
        and s.setrole in (0, case when r.trusted then session_user::regrole else current_user::regrole end)
      order by s.setrole <> 0 desc, s.setdatabase <> 0 desc limit 1),
    '"$user", public') || ', pg_temp'
    from (select pg_has_role(session_user, current_user, 'MEMBER') as trusted) as r
$$;
comment on function rowhook.ddl_path() is 'The search_path under which housekeeping makes and drops partitions, for the functions of event triggers';
revoke all on function rowhook.ddl_path() from public;

create function rowhook.run_ddl(statement text) returns void language plpgsql
  set search_path to 'pg_catalog', 'pg_temp'
as $$
begin
  perform set_config('search_path', rowhook.ddl_path(), true); -- until this function ends
  execute statement;
end
$$;
comment on function rowhook.run_ddl(text) is 'Runs a statement of housekeeping, all of whose names are qualified, under rowhook.ddl_path()';
revoke all on function rowhook.run_ddl(text) from public;

create or replace function rowhook.ensure_partitions(since timestamptz, until timestamptz) returns integer language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set datestyle to 'ISO, YMD'
  set client_min_messages to warning
  set lock_timeout to '2s'
as $$
declare
  parent text;
  name   text;
  day    date := (since at time zone 'UTC')::date;
  last   date := (until at time zone 'UTC')::date;
  made   integer := 0;
begin
  while day <= last loop
    foreach parent in array array['event_archive', 'invocation_log'] loop
      name := parent || to_char(day, '_YYYYMMDD');
      if to_regclass(format('rowhook.%I', name)) is null then
        -- Attaching a table blocks neither readers nor writers of the parent.
        -- "create table ... partition of" blocks both.
        perform rowhook.run_ddl(format('create table rowhook.%I (like rowhook.%I including all)', name, parent));
        perform rowhook.run_ddl(format('alter table rowhook.%I attach partition rowhook.%I for values from (%L) to (%L)',
          parent, name, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00'));
        perform rowhook.revoke_foreign(format('rowhook.%I', name)::regclass);
        made := made + 1;
      end if;
    end loop;
    day := day + 1;
  end loop;
  return made;
end
$$;

create or replace function rowhook.drop_partitions(parent text, keep interval) returns text[] language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set client_min_messages to warning
  set lock_timeout to '200ms'
as $$
declare
  name    text;
  dropped text[] := '{}';
begin
  if parent not in ('event_archive', 'invocation_log') then
    raise exception 'rowhook.% is not kept by the day', parent using errcode = 'invalid_parameter_value';
  end if;
  for name in
    select c.relname
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = to_regclass('rowhook.' || parent)
       and c.relname ~ ('^' || parent || '_[0-9]{8}$')
       and to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= ((now() - keep) at time zone 'UTC')::date
     order by 1
  loop
    begin
      perform rowhook.run_ddl(format('drop table rowhook.%I', name));
      dropped := dropped || name;
    exception when lock_not_available then
      -- In use: left for the next time.
    end;
  end loop;
  return dropped;
end
$$;

create or replace function rowhook.remove_partition(name text) returns boolean language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set client_min_messages to warning
  set lock_timeout to '200ms'
as $$
begin
  if not exists (
    select from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent in ('rowhook.event_archive'::regclass, 'rowhook.invocation_log'::regclass)
       and c.relname = remove_partition.name and c.relname ~ '^(event_archive|invocation_log)_[0-9]{8}$') then
    return false;
  end if;
  if to_date(right(name, 8), 'YYYYMMDD') < (now() at time zone 'UTC')::date then
    perform rowhook.run_ddl(format('drop table rowhook.%I', name));
  else
    begin
      perform rowhook.run_ddl(format('truncate rowhook.%I', name));
    exception when disk_full then -- an empty table needs pages for its indexes; dropped, it is made again when there is something to record
      perform rowhook.run_ddl(format('drop table rowhook.%I', name));
    end;
  end if;
  return true;
exception when lock_not_available then
  return false; -- in use: left for the next time
end
$$;

-- == Operating ==

create table rowhook.audit (
  id     bigint generated always as identity primary key,
  at     timestamptz not null default clock_timestamp(),
  role   text not null,
  who    text not null,
  client text not null,
  action text not null,
  target text[] not null,
  detail json not null
);
comment on table  rowhook.audit is 'Who steered Rowhook: what was paused, resumed, sent again, discarded, recorded by hand and applied; for 90 days, and 100,000 rows at most';
comment on column rowhook.audit.id     is 'Number, in the order in which it was recorded';
comment on column rowhook.audit.at     is 'When it was begun';
comment on column rowhook.audit.role   is 'Role that the session had logged in as';
comment on column rowhook.audit.who    is 'User and host of the program, or which token of the HTTP interface';
comment on column rowhook.audit.client is 'Address that the request came from; empty: by a socket of the server''s host';
comment on column rowhook.audit.action is 'pause, resume, redeliver, discard, backfill, invoke, apply or migrate';
comment on column rowhook.audit.target is 'Names of triggers; empty: the whole installation';
comment on column rowhook.audit.detail is 'What was asked for, and what came of it';
revoke all on rowhook.audit from public;

-- A backfill checks at its end that it has read every row that existed at its beginning and was not
-- changed since.
alter table rowhook.backfill add column horizon xid8;
alter table rowhook.backfill add column home oid;
alter table rowhook.backfill add column newer bigint not null default 0;
comment on column rowhook.backfill.horizon is 'What transactions before this one wrote was there at the beginning; null: begun by a version that did not note it';
comment on column rowhook.backfill.home    is 'The oid that this table had when horizon was written: where it is another, all this came by a dump, and horizon says nothing';
comment on column rowhook.backfill.newer   is 'Rows read that came or changed since the beginning';

comment on column rowhook.activity.latency is 'Events delivered, by the time from the change, or from the redelivery, to the end of the attempt: element n, from 1, counts those up to 0.1 ms * 2^(n/4); element 121, if any, says that a delivery began after the last error';

comment on column rowhook.setting.name is 'Key: retention; network; paused (who paused what, and whether new triggers start paused); compatible (the oldest schema version whose programs can work with this one); generation (raised by every apply, so that dispatchers notice)';

-- == Rights ==

-- Roles that only dispatch need the new rights, too. They are found by a right on a column, which
-- --grant-to grants and default privileges can't.
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
    execute format('grant update (trouble) on rowhook.instance to %s', dispatcher);
    execute format('grant update (claim) on rowhook.event_log to %s', dispatcher);
    execute format('grant update (seen_at) on rowhook.instance to %s', dispatcher);
    execute format('grant select on rowhook.relation to %s', dispatcher);
  end loop;
end
$$;

-- Default privileges may grant rights on each new table to others. Nobody else may read the queue.
create function rowhook.revoke_foreign(relation regclass) returns void language plpgsql
  set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
  grantee text;
begin
  for grantee in
    select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
      from pg_class c cross join aclexplode(c.relacl) a where c.oid = relation and a.grantee <> c.relowner
  loop
    execute format('revoke all on %s from %s cascade', relation, grantee);
  end loop;
end
$$;
comment on function rowhook.revoke_foreign(regclass) is 'Takes every right on a new relation from all but its owner';
revoke all on function rowhook.revoke_foreign(regclass) from public;

-- PUBLIC has no rights, whatever default privileges say. Captures that run as the owner of a table
-- get the rights that they need.
do $$
declare
  runner regrole;
begin
  revoke all on function rowhook.uuid7(), rowhook.as_json(text) from public;
  for runner in
    select distinct p.proowner from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname = 'rowhook' and p.proname ~ '^capture_[0-9]+$' and p.proowner <> n.nspowner
  loop
    execute format('grant execute on function rowhook.uuid7(), rowhook.as_json(text) to %s', runner);
  end loop;
end
$$;

---- create above / drop below ----

lock table rowhook.trigger in access exclusive mode; -- first, as above

-- == Rights ==

grant execute on function rowhook.uuid7(), rowhook.as_json(text) to public;

drop function rowhook.revoke_foreign(regclass);

-- == Operating ==

comment on column rowhook.activity.latency is 'Events delivered, by the time from the change to the end of the attempt: element n, from 1, counts those up to 0.1 ms * 2^(n/4)';

drop table rowhook.audit;
alter table rowhook.backfill drop column horizon, drop column home, drop column newer;
delete from rowhook.setting where name = 'paused';
comment on column rowhook.setting.name is 'Key: retention; network; compatible (the oldest schema version whose programs can work with this one); generation (raised by every apply, so that dispatchers notice)';

-- == Instances ==

alter table rowhook.instance drop column trouble;
-- The column seen_at stays, since statements of running dispatchers write it. Its values are
-- removed.
update rowhook.instance set seen_at = null;

-- == History ==

-- The functions of versions 1 and 2.
create or replace function rowhook.ensure_partitions(since timestamptz, until timestamptz) returns integer language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set datestyle to 'ISO, YMD'
  set client_min_messages to warning
  set lock_timeout to '2s'
as $$
declare
  parent text;
  name   text;
  day    date := (since at time zone 'UTC')::date;
  last   date := (until at time zone 'UTC')::date;
  made   integer := 0;
begin
  while day <= last loop
    foreach parent in array array['event_archive', 'invocation_log'] loop
      name := parent || to_char(day, '_YYYYMMDD');
      if to_regclass(format('rowhook.%I', name)) is null then
        -- Attaching a table blocks neither readers nor writers of the parent.
        -- "create table ... partition of" blocks both.
        execute format('create table rowhook.%I (like rowhook.%I including all)', name, parent);
        execute format('alter table rowhook.%I attach partition rowhook.%I for values from (%L) to (%L)',
          parent, name, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
        made := made + 1;
      end if;
    end loop;
    day := day + 1;
  end loop;
  return made;
end
$$;

create or replace function rowhook.drop_partitions(parent text, keep interval) returns text[] language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set client_min_messages to warning
  set lock_timeout to '200ms'
as $$
declare
  name    text;
  dropped text[] := '{}';
begin
  if parent not in ('event_archive', 'invocation_log') then
    raise exception 'rowhook.% is not kept by the day', parent using errcode = 'invalid_parameter_value';
  end if;
  for name in
    select c.relname
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = to_regclass('rowhook.' || parent)
       and c.relname ~ ('^' || parent || '_[0-9]{8}$')
       and to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= ((now() - keep) at time zone 'UTC')::date
     order by 1
  loop
    begin
      execute format('drop table rowhook.%I', name);
      dropped := dropped || name;
    exception when lock_not_available then
      -- In use: left for the next time.
    end;
  end loop;
  return dropped;
end
$$;

create or replace function rowhook.remove_partition(name text) returns boolean language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set client_min_messages to warning
  set lock_timeout to '200ms'
as $$
begin
  if not exists (
    select from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent in ('rowhook.event_archive'::regclass, 'rowhook.invocation_log'::regclass)
       and c.relname = remove_partition.name and c.relname ~ '^(event_archive|invocation_log)_[0-9]{8}$') then
    return false;
  end if;
  if to_date(right(name, 8), 'YYYYMMDD') < (now() at time zone 'UTC')::date then
    execute format('drop table rowhook.%I', name);
  else
    begin
      execute format('truncate rowhook.%I', name);
    exception when disk_full then -- an empty table needs pages for its indexes; dropped, it is made again when there is something to record
      execute format('drop table rowhook.%I', name);
    end;
  end if;
  return true;
exception when lock_not_available then
  return false; -- in use: left for the next time
end
$$;

drop function rowhook.run_ddl(text);
drop function rowhook.ddl_path();

-- == Capture ==

-- As in version 2. Triggers that version 3 made have an empty second argument: it means the same as
-- none.
create or replace function rowhook.capture() returns trigger language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set timezone to 'UTC'
  set datestyle to 'ISO, YMD'
  set intervalstyle to 'postgres'
  set bytea_output to 'hex'
  set extra_float_digits to 1
  set lc_monetary to 'C'
  set quote_all_identifiers to off
as $$
#variable_conflict use_variable
declare
  session json;
  trace   json;
begin
  if concat(current_setting('rowhook.session', true), current_setting('hasura.user', true),
            current_setting('rowhook.trace_context', true), current_setting('hasura.tracecontext', true)) <> '' then
    select * into session, trace from rowhook.context();
  end if;
  if tg_level = 'STATEMENT' then
    -- All rows of an insert at once. A column may have any name, so variables win and the row is "r.*".
    insert into rowhook.event_log (id, trigger_id, op, new, session, trace)
    select rowhook.uuid7(), tg_argv[0]::integer, 'I', row_to_json(r.*), session, trace from inserted as r;
    if not found then
      return null;
    end if;
  else
    insert into rowhook.event_log (id, trigger_id, op, old, new, session, trace)
    values (rowhook.uuid7(), tg_argv[0]::integer, tg_op::"char", row_to_json(old), row_to_json(new), session, trace);
  end if;
  if coalesce(tg_argv[1], '') <> 'never' and coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), 1) = 1 then
    perform pg_notify('rowhook', tg_argv[0]);
  end if;
  return null;
end
$$;
comment on function rowhook.capture() is 'Capture trigger: for a row, or for a whole insert from its transition table "inserted". Arguments: rowhook.trigger.id, and "never" where it must not NOTIFY';

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
  insert into rowhook.event_log (id, trigger_id, op, new, session, trace)
  select event, target.id, 'M', payload, c.session, c.trace from rowhook.context() as c;
  if target.spec->>'notify' is distinct from 'never' and coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), 1) = 1 then
    perform pg_notify('rowhook', target.id::text);
  end if;
  return event;
end
$$;
comment on sequence rowhook.doorbell is 'Last value 1 (or none): writers ring (NOTIFY). Otherwise the id of the instance that is awake and asked for silence';

-- == Relations ==

drop trigger know_relation on rowhook.trigger;
drop function rowhook.know_relation();
create or replace view rowhook.events as
select e.id, coalesce(n.nspname, t.schema_name) as schema_name, coalesce(c.relname, t.table_name) as table_name, t.name as trigger_name,
       json_build_object(
         'op', case e.op when 'I' then 'INSERT' when 'U' then 'UPDATE' when 'D' then 'DELETE' else 'MANUAL' end,
         'data', json_build_object('old', e.old, 'new', e.new),
         'session_variables', e.session, 'trace_context', e.trace) as payload,
       e.delivered, e.error, e.tries, e.created_at, e.locked, e.next_retry_at, e.archived
  from (
    select id, trigger_id, op, old, new, session, trace, tries, created_at, false as delivered, false as error,
           case when claimed_by is not null then due_at end as locked,
           case when claimed_by is null and tries > 0 then due_at end as next_retry_at, false as archived
      from rowhook.event_log
    union all
    select id, trigger_id, op, old, new, session, trace, tries, created_at, true, false, null, null, true
      from rowhook.event_archive
    union all
    select id, trigger_id, op, old, new, session, trace, tries, created_at, false, true, null, null, false
      from rowhook.dead_letter) e
  left join rowhook.trigger t on t.id = e.trigger_id
  left join pg_catalog.pg_class c on c.oid = t.relation
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace;

-- The columns that captures write stay. A write that waits here for a lock continues with the old
-- function, and would fail without them. rowhook.relation stays, too: ids that began at 1 again
-- would name other tables.

-- == Fence ==

comment on table rowhook.schema_version is null;
comment on column rowhook.invocation_log.error_kind is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, denied, other';
update rowhook.setting set value = '1' where name = 'compatible';

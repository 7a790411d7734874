-- The tables of the queue, the doorbell, and the function that captures a row change.

revoke all on schema rowhook from public;
comment on schema rowhook is 'Rowhook: delivers row changes to webhooks';

create table rowhook.setting (
  name  text primary key,
  value jsonb not null
);
comment on table  rowhook.setting is 'What rowhook.yaml says of the whole installation, a row per key';
comment on column rowhook.setting.name  is 'Key: retention; network; generation (raised by every apply, so that dispatchers notice)';
comment on column rowhook.setting.value is 'Value as applied';
-- A dispatcher that has outlived an uninstall must not take what is installed next for what it knows, so each begins somewhere else.
insert into rowhook.setting values
  ('generation', to_jsonb(1 + (random() * 1000000000)::integer)),
  ('retention', '{"delivered": "7d", "attempts": "7d"}');

create table rowhook.trigger (
  id           integer generated always as identity primary key,
  name         text not null unique,
  relation     oid not null,
  schema_name  text not null,
  table_name   text not null,
  spec         jsonb not null,
  paused       boolean not null default false,
  removed_at   timestamptz,
  applied_at   timestamptz not null default now(),
  captured     jsonb not null default '{}'
);
comment on table  rowhook.trigger is 'One row per trigger of rowhook.yaml; a removed one stays for the sake of its history';
comment on column rowhook.trigger.id          is 'Names the trigger in the queue and in the capture triggers';
comment on column rowhook.trigger.name        is 'Name in rowhook.yaml';
comment on column rowhook.trigger.relation    is 'The watched table, by oid, so that renames are followed';
comment on column rowhook.trigger.schema_name is 'Schema of the table at the last apply, for when the table is gone';
comment on column rowhook.trigger.table_name  is 'Name of the table at the last apply, for when the table is gone';
comment on column rowhook.trigger.spec        is 'Spec as applied; references to the environment are not expanded';
comment on column rowhook.trigger.paused      is 'Events are recorded but not delivered';
comment on column rowhook.trigger.removed_at  is 'Since when it is no longer configured; null: active';
comment on column rowhook.trigger.applied_at  is 'When the spec was last changed';
comment on column rowhook.trigger.captured    is 'Digests of what its SQL triggers and functions were made from and what they then were, so that apply sees what has changed since';

create table rowhook.event_log (
  id         uuid primary key,
  created_at timestamptz not null default clock_timestamp(),
  due_at     timestamptz not null default clock_timestamp(),
  trigger_id integer not null,
  claimed_by integer,
  tries      integer not null default 0,
  op         "char" not null,
  old        json,
  new        json,
  session    json,
  trace      json
) with (
  -- Every event is inserted, updated by its claim and deleted by its settling: vacuum early, often and at full speed.
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0.2,
  autovacuum_analyze_scale_factor = 0.2,
  autovacuum_analyze_threshold = 10000,
  autovacuum_vacuum_cost_delay = 0,
  -- Giving pages back takes an exclusive lock on a table that writers insert into; they are used again at once.
  vacuum_truncate = false,
  toast.autovacuum_vacuum_scale_factor = 0.05,
  toast.autovacuum_vacuum_cost_delay = 0,
  toast.vacuum_truncate = false
);
create index event_log_due on rowhook.event_log (trigger_id, due_at);
comment on table  rowhook.event_log is 'Events that are still owed: waiting, in flight or to be retried';
comment on column rowhook.event_log.id         is 'UUID version 7, the same at every attempt';
comment on column rowhook.event_log.created_at is 'When the change was made';
comment on column rowhook.event_log.due_at     is 'When it is to be claimed next: a new event at once, a claimed one at the end of its lease, a failed one at its next attempt';
comment on column rowhook.event_log.trigger_id is 'rowhook.trigger.id';
comment on column rowhook.event_log.claimed_by is 'rowhook.instance.id of the dispatcher that has it; null: nobody';
comment on column rowhook.event_log.tries      is 'Claims so far, the present one included';
comment on column rowhook.event_log.op         is 'I insert, U update, D delete, M manual';
comment on column rowhook.event_log.old        is 'The row before; null for an insert';
comment on column rowhook.event_log.new        is 'The row after; null for a delete';
comment on column rowhook.event_log.session    is 'The setting rowhook.session (or hasura.user) of the writer';
comment on column rowhook.event_log.trace      is 'The setting rowhook.trace_context (or hasura.tracecontext) of the writer';

create table rowhook.event_archive (
  id           uuid not null,
  created_at   timestamptz not null,
  delivered_at timestamptz not null,
  trigger_id   integer not null,
  tries        integer not null,
  op           "char" not null,
  old          json,
  new          json,
  session      json,
  trace        json,
  primary key (id, delivered_at)
) partition by range (delivered_at);
comment on table  rowhook.event_archive is 'Events that were delivered, a partition per day (UTC)';
comment on column rowhook.event_archive.id           is 'As in event_log';
comment on column rowhook.event_archive.created_at   is 'When the change was made';
comment on column rowhook.event_archive.delivered_at is 'When its delivery was recorded';
comment on column rowhook.event_archive.trigger_id   is 'rowhook.trigger.id';
comment on column rowhook.event_archive.tries        is 'Attempts that it took';
comment on column rowhook.event_archive.op           is 'I insert, U update, D delete, M manual';
comment on column rowhook.event_archive.old          is 'The row before; null for an insert';
comment on column rowhook.event_archive.new          is 'The row after; null for a delete';
comment on column rowhook.event_archive.session      is 'As in event_log';
comment on column rowhook.event_archive.trace        is 'As in event_log';

create table rowhook.dead_letter (
  id         uuid primary key,
  created_at timestamptz not null,
  died_at    timestamptz not null default clock_timestamp(),
  trigger_id integer not null,
  tries      integer not null,
  op         "char" not null,
  reason     text not null,
  old        json,
  new        json,
  session    json,
  trace      json
);
create index dead_letter_trigger on rowhook.dead_letter (trigger_id, died_at);
comment on table  rowhook.dead_letter is 'Events that ran out of attempts or lost their trigger; kept until someone acts';
comment on column rowhook.dead_letter.id         is 'As in event_log';
comment on column rowhook.dead_letter.created_at is 'When the change was made';
comment on column rowhook.dead_letter.died_at    is 'When it was given up';
comment on column rowhook.dead_letter.trigger_id is 'rowhook.trigger.id';
comment on column rowhook.dead_letter.tries      is 'Attempts that were made';
comment on column rowhook.dead_letter.op         is 'I insert, U update, D delete, M manual';
comment on column rowhook.dead_letter.reason     is 'Why it is here: the last failure, or that its trigger was removed';
comment on column rowhook.dead_letter.old        is 'The row before; null for an insert';
comment on column rowhook.dead_letter.new        is 'The row after; null for a delete';
comment on column rowhook.dead_letter.session    is 'As in event_log';
comment on column rowhook.dead_letter.trace      is 'As in event_log';

create table rowhook.invocation_log (
  event_id         uuid not null,
  started_at       timestamptz not null,
  trigger_id       integer not null,
  instance_id      integer not null,
  duration_us      bigint not null,
  attempt          integer not null,
  status           smallint,
  error_kind       text,
  error            text,
  response_headers json,
  response_body    text
) partition by range (started_at);
create index invocation_log_event on rowhook.invocation_log (event_id);
comment on table  rowhook.invocation_log is 'One row per attempt, a partition per day (UTC)';
comment on column rowhook.invocation_log.event_id         is 'The event';
comment on column rowhook.invocation_log.started_at       is 'When the attempt was sent';
comment on column rowhook.invocation_log.trigger_id       is 'rowhook.trigger.id';
comment on column rowhook.invocation_log.instance_id      is 'rowhook.instance.id of the dispatcher that sent it';
comment on column rowhook.invocation_log.duration_us      is 'Microseconds until the response was read or the attempt failed';
comment on column rowhook.invocation_log.attempt          is 'Number of the attempt, from 1';
comment on column rowhook.invocation_log.status           is 'HTTP status; null: no response';
comment on column rowhook.invocation_log.error_kind       is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, denied, other';
comment on column rowhook.invocation_log.error            is 'What went wrong, for people';
comment on column rowhook.invocation_log.response_headers is 'Response headers, secrets redacted';
comment on column rowhook.invocation_log.response_body    is 'Beginning of the response body';

create sequence rowhook.instance_id as integer minvalue 2 start 2;
comment on sequence rowhook.instance_id is 'Numbers dispatchers; 1 is kept for the doorbell''s "ring"';

create table rowhook.instance (
  id         integer primary key,
  name       text not null,
  version    text not null,
  listens    boolean not null,
  started_at timestamptz not null default now()
);
comment on table  rowhook.instance is 'Dispatchers that have registered and were not yet found dead';
comment on column rowhook.instance.id         is 'From rowhook.instance_id; also the key of the advisory lock it holds while it lives';
comment on column rowhook.instance.name       is 'Host and process id';
comment on column rowhook.instance.version    is 'Version of the program';
comment on column rowhook.instance.listens    is 'Whether it holds a session of its own, and with it the advisory lock that shows it is alive';
comment on column rowhook.instance.started_at is 'When it registered';

create sequence rowhook.departures;
comment on sequence rowhook.departures is 'Counts dispatchers that have stopped, so that the others look after what they waited for';

-- Read outside MVCC and without a lock by every captured write. Not unlogged: a standby that is promoted soon after such a sequence was
-- made finds it empty ("bad magic number in sequence", seen with 15.18), and every captured write would fail.
create sequence rowhook.doorbell as integer minvalue 1 start 1;
comment on sequence rowhook.doorbell is 'Last value 1 (or none): writers ring (NOTIFY). Otherwise the id of the instance that is awake and asked for silence';

-- What newer servers do better is chosen here, once.
do $$
begin
  if current_setting('server_version_num')::integer >= 180000 then
    create function rowhook.uuid7() returns uuid language sql volatile
      return pg_catalog.uuidv7();
  else
    create function rowhook.uuid7() returns uuid language sql volatile
      return pg_catalog.encode(
        set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
          placing substring(int8send(trunc(date_part('epoch', clock_timestamp()) * 1000)::bigint) from 3)
          from 1 for 6), 52, 1), 53, 1), 'hex')::uuid;
  end if;
end
$$;
comment on function rowhook.uuid7() is 'A new UUID version 7 (RFC 9562)';

-- The writer's context is free text: what is not JSON is kept as a JSON string, so that a bad setting can't fail a write.
create function rowhook.as_json(value text) returns json language plpgsql immutable
  set search_path to 'pg_catalog', 'pg_temp'
as $$
begin
  return value::json;
exception when others then
  return to_json(value);
end
$$;
comment on function rowhook.as_json(text) is 'The text as JSON, or as a JSON string where it is none';

-- A row that a trigger gets lacks the columns that are computed when they are read.
create function rowhook.with_values(base json, over json) returns json language sql immutable
  set search_path to 'pg_catalog', 'pg_temp'
as $$
  select ('{' || string_agg(to_json(b.key)::text || ':' || coalesce(o.value, b.value)::text, ',' order by b.n) || '}')::json
    from json_each(base) with ordinality as b (key, value, n)
    left join json_each(over) as o (key, value) on o.key = b.key
$$;
comment on function rowhook.with_values(json, json) is 'The first object with the values that the second has for some of its keys';
revoke all on function rowhook.with_values(json, json) from public;

-- What the writer says of itself, if anything.
create function rowhook.context(out session json, out trace json) language sql stable
  set search_path to 'pg_catalog', 'pg_temp'
as $$
  select rowhook.as_json(coalesce(nullif(current_setting('rowhook.session', true), ''), nullif(current_setting('hasura.user', true), ''))),
         rowhook.as_json(coalesce(nullif(current_setting('rowhook.trace_context', true), ''), nullif(current_setting('hasura.tracecontext', true), '')))
$$;
comment on function rowhook.context() is 'The settings rowhook.session and rowhook.trace_context (or Hasura''s) as JSON';
revoke all on function rowhook.context() from public;

-- The change into the queue, then the doorbell: the order matters, see docs/architecture.md.
create function rowhook.capture() returns trigger language plpgsql security definer
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
  if tg_argv[1] is null and coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), 1) = 1 then
    perform pg_notify('rowhook', tg_argv[0]);
  end if;
  return null;
end
$$;
comment on function rowhook.capture() is 'Capture trigger: for a row, or for a whole insert from its transition table "inserted". Arguments: rowhook.trigger.id, and "never" where it must not NOTIFY';
revoke all on function rowhook.capture() from public;

create function rowhook.emit(trigger_name text, payload json) returns uuid language plpgsql security definer
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
comment on function rowhook.emit(text, json) is 'Records a MANUAL event with this payload for a trigger that allows it; returns the event id';
revoke all on function rowhook.emit(text, json) from public;

-- As the definer, who owns the tables: the role of a dispatcher does not.
-- Partitions of both histories for the days from "since" to "until" (UTC); returns how many were made.
create function rowhook.ensure_partitions(since timestamptz, until timestamptz) returns integer language plpgsql security definer
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
        -- Attaching locks out neither readers nor writers of the parent; "create table ... partition of" locks out all.
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
comment on function rowhook.ensure_partitions(timestamptz, timestamptz) is 'Makes the daily partitions that are missing between two moments';
revoke all on function rowhook.ensure_partitions(timestamptz, timestamptz) from public;

-- Dropping a partition takes its owner, and a lock on its parent that settling dispatchers wait behind: so only briefly.
create function rowhook.drop_partitions(parent text, keep interval) returns text[] language plpgsql security definer
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
comment on function rowhook.drop_partitions(text, interval) is 'Drops the daily partitions of event_archive or invocation_log whose last day ended longer ago than this; returns their names';
revoke all on function rowhook.drop_partitions(text, interval) from public;

-- Large payloads are packed once, by the writer, and unpacked to be sent. lz4 takes a tenth of the time of pglz for that. Partitions
-- take it from their parent.
do $$
declare
  parent text;
begin
  foreach parent in array array['event_log', 'event_archive', 'dead_letter'] loop
    execute format('alter table rowhook.%I alter old set compression lz4, alter new set compression lz4', parent);
  end loop;
exception when feature_not_supported then
  null; -- a server that was built without it
end
$$;

select rowhook.ensure_partitions(now() - interval '1 day', now() + interval '3 days');

create view rowhook.events as
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
comment on view rowhook.events is 'Every event, wherever it stands, with the columns that Hasura''s event_log has; locked: until when it is leased';

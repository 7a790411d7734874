-- Order per key, batches, rates, the health of endpoints, and alerts.

update rowhook.setting set value = '4' where name = 'compatible';
-- sqlschema/whole.go reads this comment in a copy of the structure without its rows.
comment on table rowhook.schema_version is 'Version of the schema rowhook: 5';

-- In the order in which claims and settlements lock them, so that there is no deadlock.
lock table rowhook.trigger, rowhook.instance, rowhook.event_log, rowhook.event_archive, rowhook.dead_letter, rowhook.invocation_log in access exclusive mode;

-- == Order ==

-- An event of an ordered trigger has a key, a lane and a sequence number, and is parked: its due_at
-- is 1752000 hours (73000 days) after the time at which it is due. So no claim that goes event by event finds it,
-- of whatever version, and the index on due_at still orders what is parked.
alter table rowhook.event_log add column if not exists key text;
alter table rowhook.event_log add column if not exists lane smallint;
alter table rowhook.event_log add column if not exists seq bigint;
create index event_log_lane on rowhook.event_log (trigger_id, lane, seq) where lane is not null;
alter table rowhook.event_archive add column if not exists seq bigint;
alter table rowhook.event_archive add column if not exists merged_into uuid;
alter table rowhook.dead_letter add column if not exists key text;
alter table rowhook.dead_letter add column if not exists lane smallint;
alter table rowhook.dead_letter add column if not exists seq bigint;
alter table rowhook.dead_letter add column if not exists blocks boolean;
create index dead_letter_blocks on rowhook.dead_letter (trigger_id, lane) where blocks;
comment on column rowhook.event_log.due_at   is 'When it is to be claimed next: a new event at once, a claimed one at the end of its lease, a failed one at its next attempt. Of an event with a lane: 1752000 hours later';
comment on column rowhook.event_log.key      is 'Key within which events of an ordered trigger keep their order; null: no order';
comment on column rowhook.event_log.lane     is 'Lane of the key, from 0 to 63; null: the event is claimed by itself';
comment on column rowhook.event_log.seq      is 'Place in the order of its key, from rowhook.event_seq; null: no order';
comment on column rowhook.event_archive.seq  is 'As in event_log';
comment on column rowhook.event_archive.merged_into is 'The later event of its key that was sent in its stead, or was to be: with its own id, they came to nothing and nothing was sent; null: it was sent itself';
comment on column rowhook.dead_letter.key    is 'As in event_log';
comment on column rowhook.dead_letter.lane   is 'As in event_log';
comment on column rowhook.dead_letter.seq    is 'As in event_log';
comment on column rowhook.dead_letter.blocks is 'True: later events of its key wait until it is redelivered or discarded';

create sequence if not exists rowhook.event_seq; -- it may have been left by a way down
comment on sequence rowhook.event_seq is 'Numbers the events of ordered triggers in the order in which they were recorded';

create table rowhook.lane (
  trigger_id integer not null,
  lane       smallint not null,
  owner      integer,
  epoch      bigint not null default 0,
  deaths     integer not null default 0,
  died_at    timestamptz,
  primary key (trigger_id, lane)
) with (fillfactor = 50);
comment on table  rowhook.lane is 'Who delivers the events of a lane of an ordered trigger';
comment on column rowhook.lane.trigger_id is 'rowhook.trigger.id';
comment on column rowhook.lane.lane       is 'Number of the lane, from 0 to 63';
comment on column rowhook.lane.owner      is 'rowhook.instance.id of the dispatcher that has it; null, or not registered: nobody';
comment on column rowhook.lane.epoch      is 'Counts owners; who settles an event of the lane has to know it';
comment on column rowhook.lane.deaths     is 'How many owners have died with it, each within a day of the one before; from two on the attempts of events that were in flight then are counted before they are made';
comment on column rowhook.lane.died_at    is 'When it was last taken over from an owner that had died';
comment on column rowhook.event_log.claim is 'Number of the claim that has it, or had it last without settling it: an instance never uses one twice, so only what knows it may settle the event. Of an event with a lane: epoch of the lane under which an attempt was counted before it was made, and not settled. Null: none';
revoke all on rowhook.lane from public;

create table if not exists rowhook.key_move ( -- it may have been left by a way down
  event_id   uuid not null,
  trigger_id integer not null,
  lane       smallint not null,
  seq        bigint not null,
  key        text not null,
  ready      boolean not null default false,
  primary key (event_id)
);
create index if not exists key_move_lane on rowhook.key_move (trigger_id, lane, seq);
comment on table  rowhook.key_move is 'Updates that moved a row from one key to another: the old key waits here until the event, which is in the lane of the new key, is settled';
comment on column rowhook.key_move.event_id   is 'rowhook.event_log.id of the update';
comment on column rowhook.key_move.trigger_id is 'rowhook.trigger.id';
comment on column rowhook.key_move.lane       is 'Lane of the old key';
comment on column rowhook.key_move.seq        is 'seq of the update';
comment on column rowhook.key_move.key        is 'The old key';
comment on column rowhook.key_move.ready      is 'True: all earlier events of the old key are settled, so the event may be sent';
revoke all on rowhook.key_move from public;

alter table rowhook.instance add column if not exists serves integer[];
comment on column rowhook.instance.serves is 'rowhook.trigger.id of the ordered triggers and those with a total that this dispatcher can send for; living dispatchers share their lanes and totals evenly';

-- Captures of ordered triggers call these two. Both are inlined into the statement that records the
-- event, which has locked rowhook.event_log by then. So a capture that waits for a migration sees
-- what the migration has made of them.
create or replace function rowhook.parked() returns interval language sql immutable
  return interval '1752000 hours';
comment on function rowhook.parked() is 'How much later than it is due an event of an ordered trigger is recorded; null: triggers have no order, and events are recorded without key, lane and seq';
revoke all on function rowhook.parked() from public;

-- The hashes of Postgres' own indexes differ between versions of the server, and md5() fails where
-- OpenSSL is in FIPS mode. The text is hashed as it is stored, since not every text can be converted.
create or replace function rowhook.lane_of(key text) returns smallint language sql stable
  return (get_byte(sha256(convert_to(key, getdatabaseencoding())), 0) & 63)::smallint;
comment on function rowhook.lane_of(text) is 'Lane of a key';
revoke all on function rowhook.lane_of(text) from public;

-- As in version 3, with the time at which a parked event is due.
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

-- As in version 4, and also parked events, which are in another part of the index.
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

-- == Batches and rates ==

alter table rowhook.invocation_log add column if not exists batch text;
comment on column rowhook.invocation_log.batch is 'webhook-id of the request, which held other events too or may have; null: a request for one event';
comment on column rowhook.invocation_log.error_kind is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied, other. Of a batch with a 2xx status: rejected, bad_answer';

create table rowhook.rate (
  trigger_id integer primary key,
  next_at    timestamptz not null
) with (fillfactor = 50);
comment on table  rowhook.rate is 'How far the requests of triggers with a rate are planned, by all dispatchers together';
comment on column rowhook.rate.trigger_id is 'rowhook.trigger.id';
comment on column rowhook.rate.next_at    is 'Time of the first request that no dispatcher has reserved yet';
revoke all on rowhook.rate from public;

create table rowhook.share (
  trigger_id  integer not null,
  instance_id integer not null,
  registered  timestamptz not null,
  n           integer not null,
  busy        boolean not null,
  primary key (trigger_id, instance_id)
) with (fillfactor = 50);
comment on table  rowhook.share is 'How the total concurrency of a trigger is shared by the dispatchers that can send for it';
comment on column rowhook.share.trigger_id  is 'rowhook.trigger.id';
comment on column rowhook.share.instance_id is 'rowhook.instance.id';
comment on column rowhook.share.registered  is 'rowhook.instance.started_at. The row counts only while the instance is registered since then';
comment on column rowhook.share.n           is 'Requests that the instance may have in flight';
comment on column rowhook.share.busy        is 'Whether the instance has requests in flight or knows of events that wait';
revoke all on rowhook.share from public;

-- == Health ==

create table rowhook.health (
  target     text primary key,
  trigger_id integer,
  triggers   integer[] not null,
  endpoint   text not null,
  webhook    text,
  state      text not null check (state in ('failing', 'probing')),
  since      timestamptz not null,
  changed_at timestamptz not null default now(),
  reason     text not null,
  probe_at   timestamptz not null,
  prober     integer,
  probes     integer not null default 0
) with (fillfactor = 50);
comment on table  rowhook.health is 'Endpoints that fail: their events wait, but for one at a time that probes them. One that is ok has no row';
comment on column rowhook.health.target     is 'A trigger, or a host as scheme://host:port, which all triggers share that go there';
comment on column rowhook.health.trigger_id is 'rowhook.trigger.id; null: a host';
comment on column rowhook.health.triggers   is 'rowhook.trigger.id of the triggers whose events wait';
comment on column rowhook.health.endpoint   is 'The endpoint for people';
comment on column rowhook.health.webhook    is 'Digest of the webhook of a trigger; the row means nothing once it has another one';
comment on column rowhook.health.state      is 'failing: nothing is sent but probes; probing: a probe has succeeded, and work grows back';
comment on column rowhook.health.since      is 'When it began to fail';
comment on column rowhook.health.changed_at is 'When the state changed';
comment on column rowhook.health.reason     is 'The last failure';
comment on column rowhook.health.probe_at   is 'When the next probe may be made';
comment on column rowhook.health.prober     is 'rowhook.instance.id of the dispatcher that makes a probe now; null: none does';
comment on column rowhook.health.probes     is 'How many probes were made';
revoke all on rowhook.health from public;

alter table rowhook.trigger add column canceled_at timestamptz;
alter table rowhook.trigger add column canceled_by text;
comment on column rowhook.trigger.canceled_at is 'When attempts in flight were last to be broken off';
comment on column rowhook.trigger.canceled_by is 'By whom';
comment on column rowhook.instance.trouble is 'What it can''t do, and who makes it wait: {"unable": {trigger: why}, "history": why, "hanging": {trigger: attempts}}; null: nothing';
comment on column rowhook.audit.action is 'pause, resume, redeliver, retry, discard, backfill, invoke, cancel, apply or migrate';

-- == Alerts ==

create table rowhook.alert (
  destination text not null,
  kind        text not null,
  subject     text not null,
  endpoint    text not null,
  active      boolean not null,
  begun_at    timestamptz not null,
  ended_at    timestamptz,
  facts       jsonb not null,
  told        text not null,
  told_at     timestamptz,
  paired_at   timestamptz,
  again       integer not null,
  pending     text not null,
  attempts    integer not null,
  next_at     timestamptz,
  error       text,
  primary key (destination, kind, subject)
) with (fillfactor = 50);
comment on table  rowhook.alert is 'What receivers of alerts were told, and what is still to be told';
comment on column rowhook.alert.destination is 'Digest of the entry of alerts in rowhook.yaml';
comment on column rowhook.alert.kind        is 'failing, dead, backlog or uncaptured; heartbeat: calls of it fail';
comment on column rowhook.alert.subject     is 'Name of the trigger, or a host as scheme://host:port';
comment on column rowhook.alert.endpoint    is 'The receiver of the alert for people: its host';
comment on column rowhook.alert.active      is 'It is so at the moment';
comment on column rowhook.alert.begun_at    is 'When it began last';
comment on column rowhook.alert.ended_at    is 'When it was over; null: it is not';
comment on column rowhook.alert.facts       is 'What the message says';
comment on column rowhook.alert.told        is 'What the receiver was told last: begun, ended, or nothing';
comment on column rowhook.alert.told_at     is 'When';
comment on column rowhook.alert.paired_at   is 'When the present pair of messages began; another one begins ten minutes later at the earliest';
comment on column rowhook.alert.again       is 'How often it began since the receiver was last told so';
comment on column rowhook.alert.pending     is 'What is to be sent: begun, ended, or nothing';
comment on column rowhook.alert.attempts    is 'Attempts at sending it';
comment on column rowhook.alert.next_at     is 'When it is sent next; while it is being sent, when it may be sent by another dispatcher';
comment on column rowhook.alert.error       is 'Why the last attempt failed; null: it did not';
revoke all on rowhook.alert from public;

create table rowhook.alerter (
  one         boolean primary key default true check (one),
  instance_id integer not null,
  looked_at   timestamptz not null
) with (fillfactor = 50);
comment on table  rowhook.alerter is 'The dispatcher that looks after the alerts';
comment on column rowhook.alerter.one         is 'There is one row';
comment on column rowhook.alerter.instance_id is 'rowhook.instance.id';
comment on column rowhook.alerter.looked_at   is 'When it looked last; another dispatcher takes over after half a minute';
revoke all on rowhook.alerter from public;

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
    execute format('grant select, insert, update, delete on rowhook.health to %s', dispatcher);
    execute format('grant select, insert, update, delete on rowhook.alert to %s', dispatcher);
    execute format('grant select, insert, update on rowhook.alerter to %s', dispatcher);
    execute format('grant update (key, lane) on rowhook.event_log to %s', dispatcher);
    execute format('grant select (key, lane, seq, blocks), update (key, lane, seq, blocks) on rowhook.dead_letter to %s', dispatcher);
    execute format('grant select, update (owner, epoch, deaths, died_at) on rowhook.lane to %s', dispatcher);
    execute format('grant select, update (ready), delete on rowhook.key_move to %s', dispatcher);
    execute format('grant select on sequence rowhook.event_seq to %s', dispatcher);
    execute format('grant update (serves) on rowhook.instance to %s', dispatcher);
    execute format('grant select, insert, update (next_at) on rowhook.rate to %s', dispatcher);
    execute format('grant select, insert, update (registered, n, busy), delete on rowhook.share to %s', dispatcher);
  end loop;
end
$$;

---- create above / drop below ----

lock table rowhook.trigger, rowhook.instance, rowhook.event_log, rowhook.event_archive, rowhook.dead_letter, rowhook.invocation_log in access exclusive mode; -- first, as above

-- == Alerts ==

drop table rowhook.alert;
drop table rowhook.alerter;

-- == Health ==

alter table rowhook.trigger drop column canceled_at, drop column canceled_by;
drop table rowhook.health;
comment on column rowhook.instance.trouble is 'What it can''t do, {"unable": {trigger: why}, "history": why}; null: nothing';
comment on column rowhook.audit.action is 'pause, resume, redeliver, discard, backfill, invoke, apply or migrate';

-- == Batches and rates ==

alter table rowhook.invocation_log drop column batch;
comment on column rowhook.invocation_log.error_kind is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied, other';
drop table rowhook.share;
drop table rowhook.rate;

-- == Order ==

-- What captures of ordered triggers call and write stays. From now on they record events as those of
-- any trigger.
create or replace function rowhook.parked() returns interval language sql immutable
  return null::interval;
-- As in version 3.
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

-- As in version 4.
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

-- Events that are parked are due as those of any trigger. They are due from now on, since claims do
-- not look far back.
update rowhook.event_log set due_at = greatest(due_at - interval '1752000 hours', clock_timestamp()), key = null, lane = null where due_at > '2150-01-01 00:00:00+00';
delete from rowhook.key_move;
drop table rowhook.lane;
drop index rowhook.dead_letter_blocks;
drop index rowhook.event_log_lane;
alter table rowhook.dead_letter drop column key, drop column lane, drop column seq, drop column blocks;
alter table rowhook.event_archive drop column seq, drop column merged_into;
-- Statements of running dispatchers write this column, so only its values go.
update rowhook.instance set serves = null;
comment on column rowhook.event_log.due_at is 'When it is to be claimed next: a new event at once, a claimed one at the end of its lease, a failed one at its next attempt';
comment on column rowhook.event_log.claim  is 'Number of the claim that has it, or had it last without settling it: an instance never uses one twice, so only what knows it may settle the event; null: none';

comment on table rowhook.schema_version is 'Version of the schema rowhook: 4';
update rowhook.setting set value = '3' where name = 'compatible';

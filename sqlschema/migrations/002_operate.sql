-- What operating needs: recent figures per trigger, backfills, and a way to look through events by trigger and by payload.

insert into rowhook.setting values ('compatible', '1');
comment on column rowhook.setting.name is 'Key: retention; network; compatible (the oldest schema version whose programs can work with this one); generation (raised by every apply, so that dispatchers notice)';

-- In the order in which a settlement locks them, so that the two can't wait for each other.
lock table rowhook.event_archive, rowhook.dead_letter in share mode;

-- Events are listed newest first, which is by id: a version 7 UUID begins with its time. Both tables are written once per event
-- and not on the way to the first delivery; event_log gets no index more.
create index dead_letter_trigger_id on rowhook.dead_letter (trigger_id, id);
create index event_archive_trigger on rowhook.event_archive (trigger_id, id);

create table rowhook.activity (
  minute      timestamptz not null,
  trigger_id  integer not null,
  instance_id integer not null,
  delivered   bigint not null,
  failed      bigint not null,
  died        bigint not null,
  latency     integer[] not null,
  error_at    timestamptz,
  error       text,
  primary key (minute, trigger_id, instance_id)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.2);
comment on table  rowhook.activity is 'What each dispatcher did in each minute, for some hours; the last error of a trigger stays';
comment on column rowhook.activity.minute      is 'Beginning of the minute, by the dispatcher''s clock';
comment on column rowhook.activity.trigger_id  is 'rowhook.trigger.id';
comment on column rowhook.activity.instance_id is 'rowhook.instance.id of the dispatcher';
comment on column rowhook.activity.delivered   is 'Events delivered';
comment on column rowhook.activity.failed      is 'Attempts that failed';
comment on column rowhook.activity.died        is 'Events given up';
comment on column rowhook.activity.latency     is 'Events delivered, by the time from the change to the end of the attempt: element n, from 1, counts those up to 0.1 ms * 2^(n/4)';
comment on column rowhook.activity.error_at    is 'When the last failed attempt of the minute began';
comment on column rowhook.activity.error       is 'What went wrong with it';
revoke all on rowhook.activity from public;

create table rowhook.backfill (
  id          bigint generated always as identity primary key,
  trigger_id  integer not null,
  condition   text not null,
  started_at  timestamptz not null default now(),
  touched_at  timestamptz not null default now(),
  finished_at timestamptz,
  key         text[] not null,
  position    text[],
  until       text[],
  expected    bigint not null,
  scanned     bigint not null default 0,
  recorded    bigint not null default 0
);
create unique index backfill_unfinished on rowhook.backfill (trigger_id) where finished_at is null;
comment on table  rowhook.backfill is 'Existing rows that were recorded as events: how far each backfill is';
comment on column rowhook.backfill.id          is 'Number of the backfill; its events carry it in session_variables as rowhook_backfill';
comment on column rowhook.backfill.trigger_id  is 'rowhook.trigger.id; a trigger has at most one that is unfinished';
comment on column rowhook.backfill.condition   is 'The SQL condition on the rows; empty: every row';
comment on column rowhook.backfill.started_at  is 'When it began';
comment on column rowhook.backfill.touched_at  is 'When it last got on';
comment on column rowhook.backfill.finished_at is 'When it ended; null: it can be resumed';
comment on column rowhook.backfill.key         is 'Columns of the primary key, by which the rows are read';
comment on column rowhook.backfill.position    is 'Key of the last row read; null: none yet';
comment on column rowhook.backfill.until       is 'Highest key at the beginning: later rows are captured as they come';
comment on column rowhook.backfill.expected    is 'Rows to read, estimated at the beginning';
comment on column rowhook.backfill.scanned     is 'Rows read';
comment on column rowhook.backfill.recorded    is 'Events recorded';
revoke all on rowhook.backfill from public;

-- json can hold what jsonb can't (\u0000, huge numbers): such a payload matches nothing, rather than failing the query.
create function rowhook.payload_matches(old json, new json, session json, trace json, path jsonpath) returns boolean language plpgsql stable
  set search_path to 'pg_catalog', 'pg_temp'
as $$
begin
  return jsonb_path_exists(jsonb_build_object('old', old, 'new', new, 'session_variables', session, 'trace_context', trace), path, silent => true);
exception when others then
  return false;
end
$$;
comment on function rowhook.payload_matches(json, json, json, json, jsonpath) is 'Whether a path finds something in {old, new, session_variables, trace_context}';
revoke all on function rowhook.payload_matches(json, json, json, json, jsonpath) from public;

-- As rowhook.drop_partitions, for history that has to go although it is within its retention.
create function rowhook.remove_partition(name text) returns boolean language plpgsql security definer
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
comment on function rowhook.remove_partition(text) is 'Drops a daily partition of event_archive or invocation_log, or empties it if its day has not ended, or drops it where the disk has no room even for that; false: it is in use, or gone';
revoke all on function rowhook.remove_partition(text) from public;

-- Roles that only dispatch need the new rights, too.
do $$
declare
  dispatcher regrole;
begin
  for dispatcher in
    select distinct a.grantee from pg_proc p, aclexplode(p.proacl) a
     where p.oid = 'rowhook.drop_partitions(text, interval)'::regprocedure and a.grantee not in (0, p.proowner)
  loop
    execute format('grant execute on function rowhook.remove_partition(text) to %s', dispatcher);
    execute format('grant select, insert, delete, update (delivered, failed, died, latency, error_at, error) on rowhook.activity to %s', dispatcher);
    execute format('grant select on rowhook.backfill to %s', dispatcher);
  end loop;
end
$$;

---- create above / drop below ----

lock table rowhook.event_archive, rowhook.dead_letter in access exclusive mode; -- as above

drop function rowhook.remove_partition(text);
drop function rowhook.payload_matches(json, json, json, json, jsonpath);
drop table rowhook.backfill;
drop table rowhook.activity;
drop index rowhook.event_archive_trigger;
drop index rowhook.dead_letter_trigger_id;
comment on column rowhook.setting.name is 'Key: retention; network; generation (raised by every apply, so that dispatchers notice)';
delete from rowhook.setting where name = 'compatible';

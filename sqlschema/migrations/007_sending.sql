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
comment on column rowhook.replay.ops         is 'INSERT, UPDATE, DELETE or MANUAL, any of these; empty: all';
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

-- == Erasing ==

comment on column rowhook.audit.action is 'pause, resume, redeliver, retry, discard, backfill, replay, invoke, cancel, erase, apply or migrate';
comment on column rowhook.event_archive.session is 'As in event_log. Of an event whose data were erased: {"rowhook_erased": when}';

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
  end loop;
end
$$;

---- create above / drop below ----

-- == Erasing ==

comment on column rowhook.audit.action is 'pause, resume, redeliver, retry, discard, backfill, invoke, cancel, apply or migrate';
comment on column rowhook.event_archive.session is 'As in event_log';

-- == Replays ==

drop table rowhook.replay;

comment on column rowhook.trigger.spec is 'Spec as applied; references to the environment are not expanded';

comment on table rowhook.schema_version is 'Version of the schema rowhook: 6';
update rowhook.setting set value = '5' where name = 'compatible';

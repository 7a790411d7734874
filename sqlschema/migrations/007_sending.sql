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
  started_at  timestamptz not null default now(),
  touched_at  timestamptz not null default now(),
  finished_at timestamptz,
  position    uuid,
  expected    bigint not null,
  replayed    bigint not null default 0
);
create unique index replay_unfinished on rowhook.replay (trigger_id) where finished_at is null;
comment on table  rowhook.replay is 'Delivered events that are sent once more: how far each replay is';
comment on column rowhook.replay.id          is 'Number of the replay';
comment on column rowhook.replay.trigger_id  is 'rowhook.trigger.id; a trigger has at most one that is unfinished';
comment on column rowhook.replay.from_at     is 'Changes from this time on';
comment on column rowhook.replay.until_at    is 'Changes before this time';
comment on column rowhook.replay.as_new      is 'Whether they are sent under new ids';
comment on column rowhook.replay.started_at  is 'When it began';
comment on column rowhook.replay.touched_at  is 'When it last got on';
comment on column rowhook.replay.finished_at is 'When it ended; null: it can be resumed';
comment on column rowhook.replay.position    is 'Id of the last event of the archive that was put back; null: none yet';
comment on column rowhook.replay.expected    is 'Events to send, counted at the beginning';
comment on column rowhook.replay.replayed    is 'Events that were put back into the queue';
revoke all on rowhook.replay from public;

-- == Erasing ==

comment on column rowhook.audit.action is 'pause, resume, redeliver, retry, discard, backfill, invoke, cancel, erase, apply or migrate';
comment on column rowhook.event_archive.session is 'As in event_log. Of an event whose data were erased: {"rowhook_erased": when}';

---- create above / drop below ----

-- == Erasing ==

comment on column rowhook.audit.action is 'pause, resume, redeliver, retry, discard, backfill, invoke, cancel, apply or migrate';
comment on column rowhook.event_archive.session is 'As in event_log';

-- == Replays ==

drop table rowhook.replay;

comment on column rowhook.trigger.spec is 'Spec as applied; references to the environment are not expanded';

comment on table rowhook.schema_version is 'Version of the schema rowhook: 6';
update rowhook.setting set value = '5' where name = 'compatible';

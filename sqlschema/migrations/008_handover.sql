-- Hand-over: while a dispatcher is awake, captures write an event as one that it has claimed already.

update rowhook.setting set value = '7' where name = 'compatible';
-- sqlschema/whole.go reads this comment in a copy of the structure without its rows.
comment on table rowhook.schema_version is 'Version of the schema rowhook: 8';

-- == Who is awake ==

-- It is beside rowhook.doorbell, whose values programs of version 7 know. A way down leaves it with the
-- value 0, since captures that were made meanwhile read it.
create sequence if not exists rowhook.handover minvalue 0 start 0;
comment on sequence rowhook.handover is 'To whom captures hand over events while the doorbell says ring. Bits 0 to 30: the id of the instance, or 0 for nobody. Bits 31 to 62: a bit for the triggers with each remainder of id / 32, whose events are not handed over';
revoke all on sequence rowhook.handover from public;

-- The numbers of other claims begin far above. So this index has what was handed over and nothing else.
create index event_log_handed on rowhook.event_log (claimed_by) where claim = 1;
comment on column rowhook.invocation_log.error_kind is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied, token, unauthorized, other. Of a batch with a 2xx status: rejected, bad_answer';
comment on column rowhook.event_log.claim is 'Number of the claim that has it, or had it last without settling it: an instance never uses one twice, so only what knows it may settle the event; 1: it was handed over by its writer; null: none';

-- Whoever buries an instance, or lets it go, ends its hand-over, also a program of version 7. A writer
-- may have read it before, and commit later. The others learn from the count of departures that they
-- have to look for that.
create function rowhook.end_handover() returns trigger language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
as $$
begin
  if pg_sequence_last_value('rowhook.handover'::regclass) & 2147483647 = old.id then
    perform setval('rowhook.handover', 0);
  end if;
  perform nextval('rowhook.departures'::regclass);
  return null;
end
$$;
comment on function rowhook.end_handover() is 'Nothing is handed over any more to an instance that is no longer registered, and the others look after what was';
revoke all on function rowhook.end_handover() from public;
create trigger end_handover after delete on rowhook.instance for each row execute function rowhook.end_handover();

-- == Capture ==

-- An event is handed over, or else written as one that is to be claimed. What is handed over is
-- announced to its instance alone, by its id. The bell is read before the event is written, and this
-- decides both: a second look could leave an event that is handed over and not announced. The
-- transaction has an id by then, as rowhook.doorbell's horizon needs it. An event that is to be claimed
-- is written first, and then the bell is read, see listener/doorbell.go.
--
-- Captures with an order or a delay are made from this without the part between the comments. Those
-- that write through a view have another part there, see sqlschema/handover.go.
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
  -- Hand-over begins.
  awake   bigint;
  event   uuid;
  -- Hand-over ends.
begin
  if concat(current_setting('rowhook.session', true), current_setting('hasura.user', true),
            current_setting('rowhook.trace_context', true), current_setting('hasura.tracecontext', true)) <> '' then
    select * into session, trace from rowhook.context();
  end if;
  -- Hand-over begins.
  if coalesce(tg_argv[1], '') <> 'never' and pg_current_xact_id() is not null and pg_sequence_last_value('rowhook.doorbell'::regclass) = 1 then
    awake := pg_sequence_last_value('rowhook.handover'::regclass);
    -- The setting counts what a transaction has handed over by its length, whatever it is set to.
    if awake > 0 and (tg_level = 'ROW' or tg_op = 'INSERT') and awake & (2147483648 << (tg_argv[0]::integer & 31)) = 0 and coalesce(length(current_setting('rowhook.handed', true)), 0) < 8 then
      awake := awake & 2147483647;
      event := rowhook.uuid7();
      if tg_level = 'ROW' then
        insert into rowhook.event_log (id, trigger_id, relation_id, op, old, new, session, trace, due_at, claimed_by, tries, claim)
        values (event, tg_argv[0]::integer, tg_argv[2]::integer, tg_op::"char", row_to_json(old), row_to_json(new), session, trace, clock_timestamp() + interval '90 seconds', awake, 1, 1);
      else
        -- Of a statement with several rows nothing is handed over: claims take them together.
        -- Nor is an update or a delete that is captured by the statement.
        insert into rowhook.event_log (id, trigger_id, relation_id, op, new, session, trace, due_at, claimed_by, tries, claim)
        select event, tg_argv[0]::integer, tg_argv[2]::integer, 'I', row_to_json(r.*), session, trace, clock_timestamp() + interval '90 seconds', awake, 1, 1
          from inserted as r where (select count(*) from (select from inserted limit 2) as two) = 1;
      end if;
    end if;
    if event is not null and found then
      perform set_config('rowhook.handed', concat(current_setting('rowhook.handed', true), '.'), true), pg_notify(concat('rowhook_take_', awake), concat(tg_argv[0], ' ', event));
      return null;
    end if;
  end if;
  -- Hand-over ends.
  if tg_level = 'STATEMENT' then
    -- All rows of a statement at once. A column may have any name, so variables win and the row is "r.*".
    if tg_op = 'INSERT' then
      insert into rowhook.event_log (id, trigger_id, relation_id, op, new, session, trace)
      select rowhook.uuid7(), tg_argv[0]::integer, tg_argv[2]::integer, 'I', row_to_json(r.*), session, trace from inserted as r;
    elsif tg_op = 'DELETE' then
      insert into rowhook.event_log (id, trigger_id, relation_id, op, old, session, trace)
      select rowhook.uuid7(), tg_argv[0]::integer, tg_argv[2]::integer, 'D', row_to_json(r.*), session, trace from deleted as r;
    else
      -- Postgres adds the old and the new row of an update to their tables in one step, so both have
      -- the same place there. If the tables had different numbers of rows, each new row would go out
      -- without an old one. A full join is never a nested loop, whatever size the statement had for
      -- which it was planned, and "offset 0" keeps it full.
      insert into rowhook.event_log (id, trigger_id, relation_id, op, old, new, session, trace)
      select rowhook.uuid7(), tg_argv[0]::integer, tg_argv[2]::integer, 'U', row_to_json(r.old), row_to_json(r.new), session, trace from (
        select w.place as place_was, b.place, w.whole as old, b.whole as new
          from (select case when (select count(*) from was) = (select count(*) from became) then row_number() over () end as place, coalesce(r.*) as whole from was as r) as w
          full join (select row_number() over () as place, coalesce(r.*) as whole from became as r) as b on w.place = b.place
        offset 0) as r
       where r.place is not null and (r.place_was is null or record_image_ne(r.old, r.new));
    end if;
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
comment on function rowhook.capture() is 'Capture trigger: for a row, or for a whole statement from its transition tables. Arguments: rowhook.trigger.id; "never" where it must not NOTIFY, else empty; rowhook.relation.id';

-- As in version 7, and it hands over like a capture.
create or replace function rowhook.emit(trigger_name text, payload json) returns uuid language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
  target  rowhook.trigger;
  event   uuid := rowhook.uuid7();
  rings   boolean := false;
  awake   bigint;
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
  if target.spec->>'notify' is distinct from 'never' and pg_current_xact_id() is not null and pg_sequence_last_value('rowhook.doorbell'::regclass) = 1 then
    rings := true;
    awake := pg_sequence_last_value('rowhook.handover'::regclass);
    awake := case when awake & (2147483648 << (target.id & 31)) = 0 and not target.spec ? 'delay'
                   and coalesce(length(current_setting('rowhook.handed', true)), 0) < 8 then nullif(awake & 2147483647, 0) end;
  end if;
  insert into rowhook.event_log (id, trigger_id, relation_id, op, new, session, trace, due_at, claimed_by, tries, claim)
  select event, target.id, target.relation_id, 'M', payload, c.session, c.trace,
         clock_timestamp() + case when awake is not null then interval '90 seconds' when target.spec ? 'delay' then rowhook.delay_of(target.spec) else interval '0' end,
         awake, case when awake is not null then 1 else 0 end, case when awake is not null then 1 end
    from rowhook.context() as c;
  if awake is not null then
    perform set_config('rowhook.handed', concat(current_setting('rowhook.handed', true), '.'), true), pg_notify(concat('rowhook_take_', awake), concat(target.id, ' ', event));
  elsif rings then
    perform pg_notify('rowhook', target.id::text);
  end if;
  return event;
end
$$;

-- What a transaction has handed over itself is among what it has recorded.
do $$
begin
  execute replace(replace(pg_get_functiondef('rowhook.recorded(text)'::regprocedure),
    'between first + rowhook.delay_of(t.spec) and last + rowhook.delay_of(t.spec)' || chr(10),
    'between first + rowhook.delay_of(t.spec) and last + greatest(rowhook.delay_of(t.spec), interval ''90 seconds'')' || chr(10)),
    'q.tries = 0 and q.claimed_by is null', '(q.tries = 0 and q.claimed_by is null or q.claim = 1)');
end
$$;

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
    execute format('grant select, update on sequence rowhook.handover to %s', dispatcher);
  end loop;
end
$$;

---- create above / drop below ----

-- Captures that were made by version 8 read it, and hand nothing over from now on.
select setval('rowhook.handover', 0);
drop trigger end_handover on rowhook.instance;
drop function rowhook.end_handover();
drop index rowhook.event_log_handed;
comment on column rowhook.invocation_log.error_kind is 'Where there was no response: refused, dns, tls, timeout, reset, unreachable, bad_url, too_large, bad_payload, denied, token, other. Of a batch with a 2xx status: rejected, bad_answer';
comment on column rowhook.event_log.claim is 'Number of the claim that has it, or had it last without settling it: an instance never uses one twice, so only what knows it may settle the event; null: none';

do $$
begin
  execute replace(replace(pg_get_functiondef('rowhook.recorded(text)'::regprocedure),
    'last + greatest(rowhook.delay_of(t.spec), interval ''90 seconds'')', 'last + rowhook.delay_of(t.spec)'),
    '(q.tries = 0 and q.claimed_by is null or q.claim = 1)', 'q.tries = 0 and q.claimed_by is null');
end
$$;

-- As in version 3. See there for the order of the event and the doorbell.
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

-- As in version 7.
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

comment on table rowhook.schema_version is 'Version of the schema rowhook: 7';
update rowhook.setting set value = '6' where name = 'compatible';

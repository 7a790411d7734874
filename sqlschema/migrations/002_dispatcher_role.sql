-- What lets a dispatcher run as a role that owns nothing: the functions by which it makes and drops partitions, and a count of
-- departures that it can raise without the right to write settings.

alter function rowhook.ensure_partitions(timestamptz, timestamptz) security definer;

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

create sequence rowhook.departures;
comment on sequence rowhook.departures is 'Counts dispatchers that have stopped, so that the others look after what they waited for';
delete from rowhook.setting where name = 'departures';
comment on column rowhook.setting.name is 'Key: retention; generation (raised by every apply, so that dispatchers notice)';

---- create above / drop below ----

comment on column rowhook.setting.name is 'Key: retention; generation (raised by every apply, so that dispatchers notice); departures (of dispatchers, likewise)';
insert into rowhook.setting values ('departures', '0');
drop sequence rowhook.departures;
drop function rowhook.drop_partitions(text, interval);
alter function rowhook.ensure_partitions(timestamptz, timestamptz) security invoker;

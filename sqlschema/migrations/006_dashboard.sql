-- What the dashboard shows of the last day: how attempts ended, by trigger and minute.

update rowhook.setting set value = '5' where name = 'compatible';
-- sqlschema/whole.go reads this comment in a copy of the structure without its rows.
comment on table rowhook.schema_version is 'Version of the schema rowhook: 6';

-- == Activity ==

alter table rowhook.activity add column outcomes jsonb;
-- Readers ask for the last hour of each trigger. Writers name all three columns, in whatever order.
alter table rowhook.activity drop constraint activity_pkey, add primary key (trigger_id, minute, instance_id);
-- For the last error of each trigger. While a trigger fails, its updates are not HOT. Others are.
create index activity_error on rowhook.activity (trigger_id, error_at) where error_at is not null;
comment on table  rowhook.activity is 'What each dispatcher did in each minute, for a day; the last error of a trigger stays';
comment on column rowhook.activity.latency is 'Events delivered, by the time from the change, or from the redelivery, to the end of the attempt: element n, from 1, counts those up to 0.1 ms * 2^(n/4); zeros at the end are left out; element 121, if any, says that a delivery began after the last error';
comment on column rowhook.activity.outcomes is 'How attempts ended, {"2xx": n, "429": n, "timeout": n}: the status or its class, or the kind of a failure; null: not counted';
comment on column rowhook.instance.trouble is 'What it can''t do, and who makes it wait: {"unable": {trigger: why}, "history": why, "activity": why, "hanging": {trigger: attempts}}; null: nothing';

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
    execute format('grant update (outcomes) on rowhook.activity to %s', dispatcher);
  end loop;
end
$$;

---- create above / drop below ----

-- == Activity ==

drop index rowhook.activity_error;
alter table rowhook.activity drop constraint activity_pkey, add primary key (minute, trigger_id, instance_id);
alter table rowhook.activity drop column outcomes;
comment on table  rowhook.activity is 'What each dispatcher did in each minute, for some hours; the last error of a trigger stays';
comment on column rowhook.activity.latency is 'Events delivered, by the time from the change, or from the redelivery, to the end of the attempt: element n, from 1, counts those up to 0.1 ms * 2^(n/4); element 121, if any, says that a delivery began after the last error';
comment on column rowhook.instance.trouble is 'What it can''t do, and who makes it wait: {"unable": {trigger: why}, "history": why, "hanging": {trigger: attempts}}; null: nothing';

comment on table rowhook.schema_version is 'Version of the schema rowhook: 5';
update rowhook.setting set value = '4' where name = 'compatible';

-- The table that the stack of docker-compose.yml watches. Postgres runs this file once, on an empty data directory.
create table orders (
  id         bigint generated always as identity primary key,
  customer   text not null,
  amount     numeric(12, 2) not null check (amount >= 0),
  status     text not null default 'placed',
  created_at timestamptz not null default now()
);

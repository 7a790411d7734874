-- The table that docker-compose.yml's stack watches. Postgres runs this once, on an empty data directory.
create table orders (
  id         bigint generated always as identity primary key,
  customer   text not null,
  amount     numeric(12, 2) not null check (amount >= 0),
  status     text not null default 'placed',
  created_at timestamptz not null default now()
);

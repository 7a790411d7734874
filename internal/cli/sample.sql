-- The table that "rowhook dev" makes where it is given no configuration.
create table if not exists public.orders (
  id        bigint generated always as identity primary key,
  customer  text not null,
  amount    numeric(12, 2) not null check (amount >= 0),
  reference numeric,
  status    text not null default 'placed',
  placed_at timestamptz not null default now()
);

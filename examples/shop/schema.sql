-- The tables of a small shop, as its own migrations would make them.
create table orders (
  id       bigint primary key,
  customer text not null,
  amount   numeric(12, 2) not null default 0,
  status   text not null default 'placed'
);

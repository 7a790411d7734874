create table orders (id int primary key, customer text not null, amount numeric);
create table notes (id int primary key);

// The product: a shop that writes orders. It knows nothing of Rowhook.
export const place = (db, order, customer) =>
  db.query('insert into orders (id, customer) values ($1, $2)', [order, customer])
export const pay = (db, order) => db.query("update orders set status = 'paid' where id = $1", [order])

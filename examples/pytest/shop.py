"""The product: a shop that writes orders. It knows nothing of Rowhook."""


def place(db, order, customer):
    db.execute("insert into orders (id, customer) values (%s, %s)", (order, customer))


def pay(db, order):
    db.execute("update orders set status = 'paid' where id = %s", (order,))

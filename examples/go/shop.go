// Package shop is the product: a shop that writes orders. It knows nothing of Rowhook.
package shop

import (
	"context"
	"database/sql"
)

// Conn is a database or a transaction.
type Conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Place records an order.
func Place(ctx context.Context, db Conn, order int64, customer string) error {
	_, err := db.ExecContext(ctx, "insert into orders (id, customer) values ($1, $2)", order, customer)
	return err
}

// Pay records that an order was paid.
func Pay(ctx context.Context, db Conn, order int64) error {
	_, err := db.ExecContext(ctx, "update orders set status = 'paid' where id = $1", order)
	return err
}

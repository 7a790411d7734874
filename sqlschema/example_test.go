package sqlschema_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// Installing the queue and a trigger from a program of one's own.
func ExampleApply() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	spec := trigger.DefaultSpec()
	spec.Name, spec.Table = "order_placed", "public.orders"
	spec.On.Insert = true
	spec.Webhook.URL = "${ORDERS_URL}/hooks/orders"
	if err := sqlschema.Migrate(ctx, conn, slog.Default()); err != nil {
		fmt.Println(err)
		return
	}
	plan, err := sqlschema.Apply(ctx, conn, []trigger.Spec{spec}, trigger.DefaultSettings(), slog.Default())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(plan)
}

package sqlschema_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func orderPlaced() trigger.Spec {
	spec := trigger.DefaultSpec()
	spec.Name, spec.Table = "order_placed", "public.orders"
	spec.On.Insert = true
	spec.Webhook.URL = "${ORDERS_URL}/hooks/orders"
	return spec
}

// A program that keeps its triggers in its own code installs the queue and the triggers when it
// starts.
func ExampleApply() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	if err := sqlschema.Migrate(ctx, conn, slog.Default()); err != nil {
		fmt.Println(err)
		return
	}
	plan, err := sqlschema.Apply(ctx, conn, []trigger.Spec{orderPlaced()}, trigger.DefaultSettings(), slog.Default())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(plan)
}

// Migrate may run in several processes at once, and again at each start.
func ExampleMigrate() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	err = sqlschema.Migrate(ctx, conn, slog.Default())
	var newer *sqlschema.NewerSchemaError
	if errors.As(err, &newer) {
		fmt.Println("upgrade this program: the schema is at version", newer.Database)
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	database, program, err := sqlschema.Version(ctx, conn)
	fmt.Println(database, program, err)
}

// MakePlan changes nothing. It also works before the first migration.
func ExampleMakePlan() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	plan, err := sqlschema.MakePlan(ctx, conn, []trigger.Spec{orderPlaced()}, trigger.DefaultSettings())
	var faults trigger.SpecErrors
	if errors.As(err, &faults) {
		for _, fault := range faults {
			fmt.Println(fault.Trigger, fault.Path, fault.Message)
		}
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	if plan.Empty() {
		fmt.Println("nothing to do")
	}
	for _, change := range plan.Changes() {
		fmt.Println(change)
	}
	for _, warning := range plan.Warnings {
		fmt.Println("warning:", warning)
	}
}

// Planned sees the plan that is carried out next, and can refuse it. What is printed is what is
// done.
func ExampleApplier() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	applier := sqlschema.Applier{
		LockTimeout: 200 * time.Millisecond, // a busy table waits no longer than this
		Patience:    5 * time.Minute,
		Migrator:    &sqlschema.Migrator{},
		GrantTo:     []string{"rowhook_dispatcher"},
		Planned: func(plan *sqlschema.Plan) error {
			for _, change := range plan.Changes() {
				if change.Action == sqlschema.Remove && change.Object == "trigger" {
					return fmt.Errorf("%s would be removed with %d waiting events", change.Name, change.Events)
				}
			}
			fmt.Println(plan)
			return nil
		},
	}
	_, err = applier.Apply(ctx, conn, []trigger.Spec{orderPlaced()}, trigger.DefaultSettings(), slog.Default())
	var busy *sqlschema.BusyError
	switch {
	case errors.As(err, &busy):
		fmt.Println(busy.Table, "is in use by", busy.Blockers)
	case err != nil:
		fmt.Println(err)
	}
}

// A dispatcher can run as a role that owns nothing. Grant gives it the rights that it needs.
func ExampleGrant() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	changes, err := sqlschema.Grant(ctx, conn, []string{"rowhook_dispatcher"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, change := range changes {
		fmt.Println(change)
	}
}

// Uninstall removes everything that Rowhook has made. The summary says first what would be lost.
func ExampleUninstall() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	loss, err := sqlschema.UninstallSummary(ctx, conn)
	if err != nil {
		fmt.Println(err)
		return
	}
	if loss.Waiting > 0 {
		fmt.Println("not removed, since events wait to be delivered:")
		fmt.Println(loss)
		return
	}
	err = sqlschema.Uninstall(ctx, conn, slog.Default())
	var dependants *sqlschema.DependantsError
	if errors.As(err, &dependants) {
		fmt.Println("drop these first:", dependants.Dependants)
		return
	}
	if err != nil {
		fmt.Println(err)
	}
}

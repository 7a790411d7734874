package listener_test

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/listener"
)

// A session that listens, is opened again whenever it breaks, and says so: what was sent meanwhile has to be looked for.
func ExampleListener() {
	l := &listener.Listener{
		Connect:   func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, os.Getenv("DATABASE_URL")) },
		Channel:   "rowhook",
		Notified:  func(payload string) { fmt.Println("something may be due for", payload) },
		Listening: func() { fmt.Println("look now") },
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := l.Run(ctx); err != nil {
		fmt.Println(err)
	}
}

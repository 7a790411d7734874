package listener_test

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/listener"
)

// A Listener keeps one session that listens, and opens a new one when it breaks. Notifications that
// were sent in between are lost, so Listening has to look for what they announced.
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

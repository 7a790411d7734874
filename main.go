// Rowhook delivers Postgres row changes to webhooks.
package main

import (
	"context"
	"os"

	"github.com/rowhook/rowhook/internal/cli"
)

func main() {
	os.Exit(cli.RunWith(context.Background(), parts(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

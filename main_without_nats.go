//go:build !nats

package main

import "github.com/rowhook/rowhook/internal/cli"

// parts are those of rowhook. NATS is left out, since it would cost some MB: see rowhook-nats.
func parts() cli.Parts { return cli.Parts{} }

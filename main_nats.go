//go:build nats

package main

import (
	"github.com/rowhook/rowhook/internal/cli"
	"github.com/rowhook/rowhook/internal/jetstream"
	"github.com/rowhook/rowhook/internal/natsdev"
)

// parts are those of rowhook-nats, which is built with the tag nats.
func parts() cli.Parts {
	return cli.Parts{
		NATS: new(jetstream.Connections).Destination,
		NATSServer: func(show func(cli.NATSMessage)) (cli.NATSServer, error) {
			s, err := natsdev.Start(func(m natsdev.Message) { show(cli.NATSMessage(m)) })
			if err != nil {
				return nil, err
			}
			return s, nil
		},
	}
}

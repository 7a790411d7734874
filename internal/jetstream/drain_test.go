package jetstream_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/jetstream"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

// BenchmarkDrain drains 50,000 events that become due with one commit, into a receiver and into a stream.
// Dispatcher, receiver and server share this process.
func BenchmarkDrain(b *testing.B) {
	const events = 50_000
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer receiver.Close()
	options := server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: b.TempDir(), NoLog: true, NoSigs: true}
	nats, err := server.NewServer(&options)
	require.NoError(b, err)
	go nats.Start()
	require.True(b, nats.ReadyForConnections(patience))
	defer func() { nats.Shutdown(); nats.WaitForShutdown() }()
	for _, to := range []string{"webhook", "nats"} {
		for _, concurrency := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s with %d attempts", to, concurrency), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					f := &dispatchtest.Site{DB: pgtest.New(b), Endpoint: receiver.URL}
					f.Table(b, "orders")
					spec := f.Spec("orders", func(s *trigger.Spec) { s.On = trigger.On{Insert: true} })
					if to == "nats" {
						_, js := client(b, nats.ClientURL())
						stream(b, js, "ORDERS")
						require.NoError(b, js.DeleteStream(b.Context(), "ORDERS"))
						stream(b, js, "ORDERS")
						spec.Webhook, spec.NATS = trigger.Webhook{}, trigger.NATS{URL: nats.ClientURL(), Subject: "orders.$new.id", Stream: "ORDERS"}
					}
					f.Apply(b, spec)
					running := f.Run(b, func(c *dispatcher.Config) {
						c.NATS, c.Concurrency = new(jetstream.Connections).Destination, concurrency
					})
					conn := f.Conn(b)
					tx, err := conn.Begin(b.Context())
					require.NoError(b, err)
					_, err = tx.Exec(b.Context(), "insert into orders (v) select 'Please ring twice and leave it with the neighbours if nobody opens the door' from generate_series(1, $1)", events)
					require.NoError(b, err)
					b.StartTimer()
					require.NoError(b, tx.Commit(b.Context()))
					for owed := 1; owed > 0; time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // it measures
						require.NoError(b, conn.QueryRow(b.Context(), "select count(*) from (select from rowhook.event_log limit 1) e").Scan(&owed))
					}
					b.StopTimer()
					running.Stop(b)
					b.StartTimer()
				}
				b.ReportMetric(float64(events*b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}

// The race detector makes pools forget at random, and so allocate.

//go:build !race

package webhook

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// hotParts are what every attempt does beside the network, each with the number of allocations that
// it may make.
func hotParts(t testing.TB) map[string]struct {
	most float64
	run  func()
} {
	e := orderPlaced()
	body := AppendBody(nil, e)
	plain, err := newSigner(vectorSecret)
	require.NoError(t, err)
	base := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer x"}}
	at := time.Unix(1_700_000_000, 0)
	var secrets scrubber
	secrets.addVariable("T", "verysecret")
	into := make([]byte, 0, 1<<10)
	client, sending := newClient(t, ClientConfig{}), newScratch()
	request := func(w trigger.Webhook) func() {
		ep := endpoint(t, w)
		return func() {
			if _, bad := client.make(context.Background(), ep, parcel{event: e}, nil, at, sending); bad != nil {
				t.Fatal(bad)
			}
		}
	}
	message, err := NewMessage(&trigger.NATS{URL: "nats://h", Subject: "orders.$new.id", Stream: "ORDERS"}, trigger.Variables(func(string) (string, bool) { return "", false }), 0)
	require.NoError(t, err)
	publishing := newRoom()
	return map[string]struct {
		most float64
		run  func()
	}{
		"body":                  {0, func() { into = AppendBody(into[:0], e) }},
		"signature":             {2, func() { into = plain.appendSignatures(into[:0], "id", "1700000000", body) }},
		"headers":               {8, func() { _ = plain.signedHeader(base, string(appendUUID(make([]byte, 0, 36), e.ID)), at, body) }},
		"request":               {0, request(trigger.Webhook{URL: "https://h/"})},
		"request from template": {2, request(trigger.Webhook{URL: "https://h/", Body: `{"id":"$new.id","text":"No. ${new.id}"}`})},
		// Its subject and its id.
		"message": {2, func() {
			if _, bad := message.make(context.Background(), e, at, publishing); bad != nil {
				t.Fatal(bad)
			}
		}},
		"scrubbing": {0, func() { into = scrubbed(&secrets, into[:0], body, len(body)) }},
	}
}

func TestHotPartsAllocateNoMoreThanTheyMust(t *testing.T) {
	for name, part := range hotParts(t) {
		require.LessOrEqual(t, testing.AllocsPerRun(100, part.run), part.most, name)
	}
}

func BenchmarkHotParts(b *testing.B) {
	for name, part := range hotParts(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				part.run()
			}
		})
	}
}

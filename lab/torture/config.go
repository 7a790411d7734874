package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// The triggers. Every configuration watches their tables in the same way, so that every committed
// change is owed.
const (
	plain   = "plain"   // short timeout; its configuration changes under load
	patient = "patient" // a lease of over ten minutes: if its holder dies, another instance has to give the claim back
	brittle = "brittle" // few attempts, so that events end as dead letters
	ordered = "ordered" // the changes of a row arrive in their order
	latest  = "latest"  // likewise, and of several that wait only the last one
	// spanning keeps the order of rows that have one key, also if their transactions overlap. Some
	// updates change the key. It has few attempts.
	spanning = "spanning"
	bulk     = "bulk"     // several events in a request, few attempts, and rows that the receiver always rejects
	paced    = "paced"    // a rate over all dispatchers
	delayed  = "delayed"  // its events are due a while after their changes
	fleeting = "fleeting" // its events are given up when they are a few seconds old
	pausing  = "pausing"  // an answer of 410 pauses it
	summed   = "summed"   // one event for each row and transaction
	streamed = "streamed" // published to a stream of NATS, in the order of each row; in one source
	extra    = "extra"    // on the table of plain; it is applied and removed, so what it captures depends on the moment
)

func triggers() []string {
	return []string{plain, patient, brittle, ordered, latest, spanning, bulk, paced, delayed, fleeting, pausing, summed}
}

// limitOf is how many retries a trigger has.
func limitOf(trigger string) int {
	switch trigger {
	case brittle, spanning:
		return brittleLimit
	case bulk:
		return bulkLimit
	}
	return mostRetries
}

// tableOf names the table that a trigger watches.
func tableOf(trigger string) string {
	if trigger == extra {
		trigger = plain
	}
	return "item_" + trigger
}

const (
	brittleLimit  = 2  // retries
	bulkLimit     = 4  // retries; after them, an event that was sent with others is sent alone
	bulkMost      = 20 // events in a request
	pacedLimit    = 40 // requests in a second
	pacedBurst    = 20
	delayFor      = 1500 * time.Millisecond // of delayed
	oldAfter      = 3 * time.Second         // of fleeting
	pausingSlots  = 8                       // attempts of pausing that a dispatcher may have in flight
	mostRetries   = 100_000                 // of the others: as many as it takes
	shortLease    = 3 * time.Second         // the longest timeout of plain and brittle
	leaseMargin   = 30 * time.Second
	maxRetryAfter = 3 * time.Second
)

// variant is one configuration of the same triggers.
type variant struct {
	onUpdate    string
	payload     string
	timeout     int // seconds
	concurrency int
	header      int
	extra       bool
}

// usual is the configuration that a run begins and ends with.
func usual() variant { return variant{onUpdate: "true", timeout: 2, extra: true} }

func randomVariant(r *rand.Rand) variant {
	return variant{
		onUpdate:    []string{"true", "{columns: [version]}", "{columns: [note, version]}", "{columns: [version, amount, flag]}"}[r.IntN(4)],
		payload:     []string{"", "", "payload: {columns: [version, id, amount]}"}[r.IntN(3)],
		timeout:     1 + r.IntN(3),
		concurrency: []int{0, 0, 5, 30}[r.IntN(4)],
		header:      r.IntN(100),
		extra:       r.IntN(2) == 0,
	}
}

// configuration is what a variant makes in this source.
func (l *lab) configuration(v variant) string {
	text := v.text()
	if l.publishes() {
		text += fmt.Sprintf(`  - name: streamed
    table: public.item_streamed
    on: {insert: true, update: true, delete: true, manual: true}
    order: row
    nats:
      url: "${NATS_URL}"
      subject: events.${new.id ?? "gone"}
      stream: %s
      timeout: 3s
      headers: {%s: "${SLOT}"}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
`, streamName, headerSlot, mostRetries, maxRetryAfter)
	}
	for _, name := range []string{"RECEIVER_URL", "NATS_URL", "SLOT"} {
		text = strings.ReplaceAll(text, "${"+name+"}", "${"+l.variable(name)+"}")
	}
	return text
}

// text returns the triggers that all sources have as rowhook.yaml.
func (v variant) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, `triggers:
  - name: plain
    table: public.item_plain
    on: {insert: true, update: %s, delete: true, manual: true}
    %s
    webhook: {url: "${RECEIVER_URL}/plain", timeout: %ds, headers: {X-Variant: "%d"}}
    retry: {limit: %d, interval: 300ms, backoff: exponential, max_interval: %s}
    concurrency: %d
  - name: patient
    table: public.item_patient
    on: {insert: true, update: true, delete: true, manual: true}
    webhook: {url: "${RECEIVER_URL}/patient", timeout: 10m}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
  - name: brittle
    table: public.item_brittle
    on: {insert: true, update: true, delete: true, manual: true}
    webhook: {url: "${RECEIVER_URL}/brittle", timeout: 1s}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
  - name: ordered
    table: public.item_ordered
    on: {insert: true, update: true, delete: true, manual: true}
    order: row
    webhook: {url: "${RECEIVER_URL}/ordered", timeout: 10m}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
  - name: latest
    table: public.item_latest
    on: {insert: true, update: true, delete: true, manual: true}
    order: {by: row, latest: true}
    webhook: {url: "${RECEIVER_URL}/latest", timeout: 2s}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
  - name: spanning
    table: public.item_spanning
    on: {insert: true, update: true, delete: true, manual: true}
    payload: {columns: [id, version, amount, note, flag]}
    order: {by: [part], strict: true}
    webhook: {url: "${RECEIVER_URL}/spanning", timeout: 1s}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
`, v.onUpdate, v.payload, v.timeout, v.header, mostRetries, maxRetryAfter, v.concurrency, mostRetries, maxRetryAfter, brittleLimit, maxRetryAfter,
		mostRetries, maxRetryAfter, mostRetries, maxRetryAfter, brittleLimit, maxRetryAfter)
	fmt.Fprintf(&b, `  - name: bulk
    table: public.item_bulk
    on: {insert: true, update: true, delete: true, manual: true}
    webhook: {url: "${RECEIVER_URL}/bulk", timeout: 2s}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
    batch: {max: %d, bytes: 128KiB}
  - name: paced
    table: public.item_paced
    on: {insert: true, update: true, delete: true, manual: true}
    webhook: {url: "${RECEIVER_URL}/paced", timeout: 2s}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
    rate: {limit: %d/s, burst: %d}
`, bulkLimit, maxRetryAfter, bulkMost, mostRetries, maxRetryAfter, pacedLimit, pacedBurst)
	fmt.Fprintf(&b, `  - name: delayed
    table: public.item_delayed
    on: {insert: true, update: true, delete: true, manual: true}
    webhook: {url: "${RECEIVER_URL}/delayed", timeout: 2s}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
    delay: %s
  - name: fleeting
    table: public.item_fleeting
    on: {insert: true, update: true, delete: true, manual: true}
    webhook: {url: "${RECEIVER_URL}/fleeting", timeout: 5s}
    retry: {limit: %d, interval: 300ms, max_interval: %s, max_age: %s}
  - name: pausing
    table: public.item_pausing
    on: {insert: true, update: true, delete: true, manual: true}
    webhook: {url: "${RECEIVER_URL}/pausing", timeout: 30s}
    retry: {limit: %d, interval: 300ms, max_interval: %s, statuses: {410: pause}}
    concurrency: %d
  - name: summed
    table: public.item_summed
    at: commit
    on: {insert: true, update: true, delete: true, manual: true}
    webhook: {url: "${RECEIVER_URL}/summed", timeout: 2s}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
`, mostRetries, maxRetryAfter, delayFor, mostRetries, maxRetryAfter, oldAfter, mostRetries, maxRetryAfter, pausingSlots, mostRetries, maxRetryAfter)
	if v.extra {
		fmt.Fprintf(&b, `  - name: extra
    table: public.item_plain
    on: {insert: true, update: {columns: [version]}, delete: true}
    webhook: {url: "${RECEIVER_URL}/extra", timeout: 2s}
    retry: {limit: %d, interval: 300ms, max_interval: %s}
`, mostRetries, maxRetryAfter)
	}
	return b.String()
}

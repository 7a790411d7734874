package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/lab/bench/receiver"
	"github.com/rowhook/rowhook/lab/internal/process"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// floor is what the HTTP client achieves without a database.
type floor struct {
	rate  float64 // events/s
	bytes float64 // of bodies per second
	cpu   float64 // CPU seconds of client and receiver for 1,000 events
}

// posts says which posts a floor is measured with.
type posts struct {
	events int
	note   string        // the row's content instead of the usual columns; optional
	delay  time.Duration // of the receiver
}

// httpFloor posts events with the dispatcher's own client, 100 at once, without a database.
func (l *lab) httpFloor(ctx context.Context, p posts) (floor, error) {
	const concurrency = 100
	client, endpoint, err := dispatchersClient(l.receiverURL+receiver.Path(p.delay), concurrency)
	if err != nil {
		return floor{}, err
	}
	defer client.Close()
	return l.post(ctx, p, concurrency, func(e *webhook.Event) bool {
		r := client.Send(ctx, endpoint, e, nil)
		return r.Delivered()
	})
}

// dispatchersClient returns a client as a dispatcher has it, and an endpoint with the usual settings.
func dispatchersClient(url string, concurrency int) (*webhook.Client, *webhook.Endpoint, error) {
	spec := trigger.DefaultSpec()
	spec.Webhook.URL = url
	endpoint, err := webhook.NewEndpoint(spec.Webhook, func(string) (string, bool) { return "", false })
	if err != nil {
		return nil, nil, err
	}
	return webhook.NewClient(webhook.ClientConfig{Version: "bench", Concurrency: concurrency}), endpoint, nil
}

// netFloor posts the same bodies with net/http's client, 64 at once, as the goals do that were set
// before Rowhook's client became quicker than it.
func (l *lab) netFloor(ctx context.Context, p posts) (floor, error) {
	const concurrency = 64
	transport := &http.Transport{MaxIdleConns: concurrency, MaxIdleConnsPerHost: concurrency}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	url := l.receiverURL + receiver.Path(p.delay)
	before, after, err := envelope(url)
	if err != nil {
		return floor{}, err
	}
	return l.post(ctx, p, concurrency, func(e *webhook.Event) bool {
		body := slices.Concat(before, e.New, after)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return false
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

// envelope returns what a body has before and after the row.
func envelope(url string) (before, after []byte, err error) {
	client, endpoint, err := dispatchersClient(url, 1)
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	const row = `{"the":"row"}`
	e := event()
	e.CreatedAt, e.New = time.Now(), []byte(row)
	shown, err := client.Preview(endpoint, &e)
	if err != nil {
		return nil, nil, fmt.Errorf("make a body: %w", err)
	}
	before, after, ok := bytes.Cut(shown.Body, []byte(row))
	if !ok {
		return nil, nil, fmt.Errorf("make a body: the row is not in %s", shown.Body)
	}
	return before, after, nil
}

// event returns an insert of the benchmark's trigger, without an id and a row.
func event() webhook.Event {
	return webhook.Event{Schema: "public", Table: "orders", Trigger: "orders", Op: 'I', MaxRetries: 5}
}

// post sends events from so many goroutines, and returns what that achieves.
func (l *lab) post(ctx context.Context, p posts, workers int, send func(*webhook.Event) bool) (f floor, err error) {
	events := p.events
	if err := l.receiver.Reset(ctx, events); err != nil {
		return f, err
	}
	used := process.CPU(os.Getpid(), l.receiverPID)
	var next, failed atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range workers {
		all.Go(func() {
			e := event()
			for seq := next.Add(1); seq <= int64(events); seq = next.Add(1) {
				e.CreatedAt = time.Now()
				binary.BigEndian.PutUint64(e.ID[:], uint64(seq))
				e.New = appendRow(e.New[:0], seq, p.note)
				if !send(&e) {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	took := time.Since(start).Seconds()
	f.cpu = (process.CPU(os.Getpid(), l.receiverPID) - used) / float64(events) * 1000
	got, err := l.receiver.Stats(ctx)
	if err == nil && (failed.Load() > 0 || got.Distinct != int64(events)) {
		err = fmt.Errorf("measure the HTTP floor: %d of %d posts failed, %d arrived", failed.Load(), events, got.Distinct)
	}
	f.rate, f.bytes = float64(events)/took, float64(got.Bytes)/took
	return f, err
}

// appendRow appends a row of the benchmark in the form that the capture trigger gives it.
func appendRow(dst []byte, seq int64, note string) []byte {
	if note != "" {
		return fmt.Appendf(dst, `{"seq":%d,"note":"%s"}`, seq, note)
	}
	return fmt.Appendf(dst, `{"seq":%d,"customer":4711,"status":"placed","amount":129.95,"currency":"EUR",`+
		`"placed_at":"2026-11-23T09:41:00+00:00","address":"12 Harbour Street, 24103 Kiel",`+
		`"note":"Please ring twice and leave it with the neighbours if nobody opens the door"}`, seq)
}

// randomText returns text without repetitions that compression could use.
func randomText(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(rand.Text())
	}
	return b.String()[:n]
}

// notifyFloor returns how long a NOTIFY takes, p50 and p99 in milliseconds, with a pause after each. The
// time is from sending the statement, commit included, until a listening session has the notification.
// Measured from the commit it would be about zero: the listener often has the notification before the
// sender has its response. After a longer pause it takes longer, because processors have gone to sleep
// and caches hold other things.
func (l *lab) notifyFloor(ctx context.Context, loops int, pause time.Duration) (p50, p99 float64, err error) {
	db, err := l.newDatabase(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer db.drop()
	hearing, err := pgx.Connect(ctx, db.url)
	if err != nil {
		return 0, 0, fmt.Errorf("connect: %w", err)
	}
	defer hearing.Close(context.WithoutCancel(ctx))
	if _, err := hearing.Exec(ctx, "listen floor"); err != nil {
		return 0, 0, fmt.Errorf("listen: %w", err)
	}
	heard := make(chan time.Time, 1)
	failed := make(chan error, 1)
	go func() {
		for range loops {
			if _, err := hearing.WaitForNotification(ctx); err != nil {
				failed <- err
				return
			}
			heard <- time.Now()
		}
	}()
	took := make([]float64, 0, loops)
	for range loops {
		sent := time.Now()
		if err := db.exec(ctx, "select pg_notify('floor', '1')"); err != nil {
			return 0, 0, err
		}
		select {
		case at := <-heard:
			took = append(took, at.Sub(sent).Seconds()*1000)
		case err := <-failed:
			return 0, 0, fmt.Errorf("wait for a notification: %w", err)
		}
		nap(pause)
	}
	slices.Sort(took)
	return percentile(took, 0.5), percentile(took, 0.99), nil
}

package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// One client serves all endpoints of a process. An endpoint is made once for each trigger.
func ExampleClient_Send() {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Println("received", string(body))
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "closed for the night")
	}))
	defer receiver.Close()

	client := webhook.NewClient(webhook.ClientConfig{})
	defer client.Close()
	lookup := func(name string) (string, bool) { return receiver.URL, name == "ORDERS_URL" }
	endpoint, err := webhook.NewEndpoint(trigger.Webhook{URL: "${ORDERS_URL}/hooks", Timeout: trigger.Duration(5 * time.Second)}, lookup)
	if err != nil {
		fmt.Println(err)
		return
	}
	result := client.Send(context.Background(), endpoint, &webhook.Event{
		ID:        [16]byte{1},
		CreatedAt: time.Date(2026, 2, 28, 12, 0, 0, 0, time.UTC),
		Schema:    "public", Table: "orders", Trigger: "order_placed",
		Op: 'I', New: []byte(`{"id":7,"amount":1.10}`), MaxRetries: 5,
	}, nil)

	fmt.Println("delivered:", result.Delivered())
	fmt.Println("status:", result.Status)
	fmt.Println("error:", result.Err)
	fmt.Println("body:", string(result.Body))
	if result.HasRetryAfter {
		fmt.Println("retry in", result.RetryAfter)
	}
	// Output:
	// received {"id":"01000000-0000-0000-0000-000000000000","created_at":"2026-02-28T12:00:00.000000Z","table":{"schema":"public","name":"orders"},"trigger":{"name":"order_placed"},"event":{"op":"INSERT","data":{"old":null,"new":{"id":7,"amount":1.10}},"session_variables":null,"trace_context":null},"delivery_info":{"current_retry":0,"max_retries":5}}
	// delivered: false
	// status: 503
	// error: answered 503 Service Unavailable
	// body: closed for the night
	// retry in 30s
}

// Without a response, Kind says why. Here the guard rejects the address of a cloud's metadata
// service.
func ExampleResult() {
	client := webhook.NewClient(webhook.ClientConfig{})
	defer client.Close()
	endpoint, err := webhook.NewEndpoint(trigger.Webhook{URL: "http://169.254.169.254/latest"}, func(string) (string, bool) { return "", false })
	if err != nil {
		fmt.Println(err)
		return
	}
	result := client.Send(context.Background(), endpoint, &webhook.Event{Op: 'I'}, nil)
	fmt.Println(result.Delivered(), result.Status, result.Kind)
	fmt.Println(result.Err)
	// Output:
	// false 0 denied
	// connecting to 169.254.169.254 is forbidden: if the webhook really is at that address, allow it under network in rowhook.yaml
}

// An endpoint that can't be called says why. No error holds a value of the environment.
func ExampleNewEndpoint() {
	endpoint, err := webhook.NewEndpoint(trigger.Webhook{
		URL:    "https://shop.example.com/hooks?key=s3cret",
		Secret: "${ORDERS_SECRET}",
	}, func(string) (string, bool) { return "", false })
	fmt.Println(err)
	fmt.Println(endpoint)
	// Output:
	// secret: environment variable ORDERS_SECRET is not set
	// https://shop.example.com/hooks?key=<redacted>
}

func ExampleNewClient() {
	client := webhook.NewClient(webhook.ClientConfig{
		Version:        "1.2.3",
		Concurrency:    50,
		MaxRequestBody: 16 << 20,
		Guard:          webhook.Guard{Deny: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	})
	defer client.Close()
}

// A receiver verifies the signature before it trusts the body.
func ExampleVerify() {
	const secret = "whsec_c2VjcmV0IGtleSBvZiAyNCBieXRlcyE="
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
		if err != nil {
			http.Error(w, "could not read the body", http.StatusBadRequest)
			return
		}
		if err := webhook.Verify(secret, r.Header, body, time.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Println("the signature is valid")
	})

	receiver := httptest.NewServer(handler)
	defer receiver.Close()
	client := webhook.NewClient(webhook.ClientConfig{})
	defer client.Close()
	for _, key := range []string{secret, "whsec_YW5vdGhlciBrZXkgb2YgMjQgYnl0ZXM="} {
		endpoint, err := webhook.NewEndpoint(trigger.Webhook{URL: receiver.URL, Secret: key}, func(string) (string, bool) { return "", false })
		if err != nil {
			fmt.Println(err)
			return
		}
		result := client.Send(context.Background(), endpoint, &webhook.Event{Op: 'I'}, nil)
		fmt.Println("status:", result.Status)
	}
	// Output:
	// the signature is valid
	// status: 200
	// status: 401
}

// Sign makes the header of a request by hand, for instance in a test of a receiver.
func ExampleSign() {
	const secret, id = "whsec_c2VjcmV0IGtleSBvZiAyNCBieXRlcyE=", "01a20876-8d20-79ad-9552-cbd92e0e59f6"
	at, body := time.Unix(1772280000, 0), []byte(`{"id":7}`)
	signature, err := webhook.Sign(secret, id, at, body)
	if err != nil {
		fmt.Println(err)
		return
	}
	header := http.Header{}
	header.Set(webhook.HeaderID, id)
	header.Set(webhook.HeaderTimestamp, fmt.Sprint(at.Unix()))
	header.Set(webhook.HeaderSignature, signature)
	fmt.Println(webhook.Verify(secret, header, body, at.Add(time.Minute)))
	err = webhook.Verify(secret, header, body, at.Add(time.Hour))
	fmt.Println(errors.Is(err, webhook.ErrSignature), err)
	// Output:
	// <nil>
	// true signature does not verify: webhook-timestamp is 1h0m0s off, more than 5m0s
}

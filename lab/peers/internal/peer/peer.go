// Package peer has what the adapters of the benchmark's peers share: their commands, the environment, and
// the request.
package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// Environment is what lab/bench gives a peer.
type Environment struct {
	DatabaseURL string
	Table       string // whose inserts are delivered
	WebhookURL  string
	Concurrency int // requests at once
}

// Adapter is a peer.
type Adapter struct {
	Version string
	Setup   func(context.Context, Environment) error
	// Run delivers until the context ends. It calls ready when it does.
	Run func(ctx context.Context, env Environment, ready func()) error
}

// Main runs the command that the arguments name.
func Main(a Adapter) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := a.do(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (a *Adapter) do(ctx context.Context) error {
	env := Environment{DatabaseURL: os.Getenv("DATABASE_URL"), Table: os.Getenv("TABLE"), WebhookURL: os.Getenv("WEBHOOK_URL")}
	env.Concurrency, _ = strconv.Atoi(os.Getenv("CONCURRENCY"))
	env.Concurrency = max(env.Concurrency, 1)
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: %s setup|run|version", os.Args[0])
	}
	switch os.Args[1] {
	case "version":
		fmt.Println(a.Version)
		return nil
	case "setup":
		return a.Setup(ctx, env)
	case "run":
		err := a.Run(ctx, env, func() { fmt.Fprintln(os.Stderr, `{"msg":"ready"}`) })
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return fmt.Errorf("there is no command %q: setup, run, version", os.Args[1])
}

// NewClient returns an HTTP client that keeps as many connections as there are requests at once.
func NewClient(concurrency int) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 2*concurrency, 2*concurrency
	return &http.Client{Transport: transport, Timeout: 60 * time.Second}
}

// Post sends a body, and returns the status of the answer and its body.
func Post(ctx context.Context, c *http.Client, url string, body json.RawMessage) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return 0, nil, err
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return res.StatusCode, answer, fmt.Errorf("answered %s", res.Status)
	}
	return res.StatusCode, answer, nil
}

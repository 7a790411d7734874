package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sethvargo/go-retry"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// client is an otlptrace.Client that POSTs spans to a collector by OTLP 1.x, see
// https://opentelemetry.io/docs/specs/otlp/#otlphttp.
type client struct {
	settings
	http    *http.Client
	agent   string
	log     *slog.Logger
	failing atomic.Bool // the last request failed, and that was logged
}

func newClient(s settings, o Options) (*client, error) {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.authorities != "" {
		pem, err := os.ReadFile(s.authorities)
		if err != nil {
			return nil, fmt.Errorf("read OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %s contains no PEM certificate", s.authorities)
		}
	}
	if s.certificate != "" || s.key != "" {
		pair, err := tls.LoadX509KeyPair(s.certificate, s.key)
		if err != nil {
			return nil, fmt.Errorf("read OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &client{
		settings: s, log: log, agent: "Rowhook/" + o.Version,
		http: &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, MaxIdleConns: 1, IdleConnTimeout: 90 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Start does nothing: the first request connects.
func (c *client) Start(context.Context) error { return nil }

// Stop closes idle connections.
func (c *client) Stop(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces sends spans. It drops spans that it can't send within the timeout, because spans
// must not delay deliveries. It logs the first such failure, and returns no error for it: the SDK
// would pass that to a handler that the whole process shares.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// A TracesData has the same bytes as an ExportTraceServiceRequest, whose package imports gRPC.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	err = c.send(ctx, body)
	switch {
	case err != nil && !c.failing.Swap(true):
		c.log.Warn("can't send traces, dropping them until the collector accepts them again", "spans", count(spans), "error", err)
	case err == nil && c.failing.Swap(false):
		c.log.Info("sending traces again")
	}
	return nil
}

func count(all []*tracepb.ResourceSpans) (n int) {
	for _, r := range all {
		for _, s := range r.ScopeSpans {
			n += len(s.Spans)
		}
	}
	return n
}

func (c *client) send(ctx context.Context, body []byte) error {
	if c.gzip {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, err := w.Write(body)
		if err = errors.Join(err, w.Close()); err != nil {
			return fmt.Errorf("compress spans: %w", err)
		}
		body = packed.Bytes()
	}
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	// The timeout also bounds the waits that a collector requests by Retry-After.
	backoff := retry.WithJitterPercent(20, retry.WithCappedDuration(5*time.Second, retry.NewExponential(500*time.Millisecond)))
	var last error
	err := retry.Do(ctx, backoff, func(ctx context.Context) error {
		var after time.Duration
		var retryable bool
		if after, retryable, last = c.post(ctx, body); last == nil || !retryable {
			return last
		}
		if after > 0 {
			timer := time.NewTimer(after)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		return retry.RetryableError(last)
	})
	if err != nil && last != nil {
		return last
	}
	return err
}

// post sends one request. retryable says whether to retry it, and after is the least wait before
// that.
func (c *client) post(ctx context.Context, body []byte) (after time.Duration, retryable bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return 0, false, fmt.Errorf("make the request: %w", err)
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.agent)
	}
	if c.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, true, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be reused
	switch {
	case resp.StatusCode/100 == 2:
		return 0, false, nil
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusBadGateway,
		resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusGatewayTimeout:
		retryable = true
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			after = time.Duration(s) * time.Second
		}
	}
	return after, retryable, fmt.Errorf("the collector responded with %s", resp.Status)
}

package webhook

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// large returns an event with a row of about so many bytes.
func large(size int) *Event {
	e := orderPlaced()
	e.New = []byte(`{"id":1,"note":"` + strings.Repeat("Order 1 of Ada Lovelace. ", size/25) + `"}`)
	return e
}

// uncompressed answers with the body that it decompressed, if it was compressed.
func uncompressed(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" {
		w.Header().Set("X-Encoding", encoding)
		in, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = io.ReadAll(in)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	_, _ = w.Write(body)
}

func TestLargeBodiesAreCompressedWhereAsked(t *testing.T) {
	t.Parallel()
	s := receiver(t, uncompressed)
	c := newClient(t, ClientConfig{KeepBody: 1 << 20})
	noise := make([]byte, 200<<10)
	_, _ = rand.Read(noise)
	ep := endpoint(t, trigger.Webhook{URL: s.URL, Compress: trigger.CompressGzip})
	for name, e := range map[string]struct {
		event      *Event
		compressed bool
	}{
		"a small one":                   {orderPlaced(), false},
		"one above 1 kB":                {large(2000), true},
		"one that is small when packed": {large(100_000), true},
		"one that is large when packed": {&Event{Trigger: "a", New: []byte(`"` + hex.EncodeToString(noise) + `"`)}, true},
	} {
		body := AppendBody(nil, e.event)
		for range 2 { // the second time with a compressor that was used before
			r := c.Send(context.Background(), ep, e.event, nil)
			require.True(t, r.Delivered(), "%s: %s", name, r.Err)
			require.Equal(t, e.compressed, strings.Contains(string(r.Header), `"X-Encoding":"gzip"`), name)
			require.Equal(t, string(body), string(r.Body), name)
			r = c.Send(context.Background(), ep, e.event, body)
			require.Equal(t, string(body), string(r.Body), "%s, built before", name)
			r, _ = c.SendBatch(context.Background(), ep, []*Event{e.event})
			require.Equal(t, "["+string(body)+"]", string(r.Body), "%s, in a batch", name)
		}
		r := c.Send(context.Background(), ep, orderPlaced(), nil)
		require.NotContains(t, string(r.Header), "X-Encoding", "a small one behind it")
		r = c.Send(context.Background(), plain(t, s.URL), e.event, nil)
		require.NotContains(t, string(r.Header), "X-Encoding", name)
	}
}

func TestABodyThatGetsNoSmallerIsSentAsItIs(t *testing.T) {
	t.Parallel()
	s := receiver(t, uncompressed)
	noise := make([]byte, 2000)
	_, _ = rand.Read(noise)
	r := newClient(t, ClientConfig{KeepBody: 1 << 20}).Send(context.Background(), endpoint(t, trigger.Webhook{URL: s.URL, Compress: trigger.CompressGzip}), orderPlaced(), noise)
	require.True(t, r.Delivered(), r.Err)
	require.NotContains(t, string(r.Header), "X-Encoding")
}

func TestSignaturesAreOverTheBodyBeforeItIsCompressed(t *testing.T) {
	t.Parallel()
	verdicts := make(chan [2]error, 1)
	s := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		packed, _ := io.ReadAll(r.Body)
		in, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			verdicts <- [2]error{err}
			return
		}
		body, _ := io.ReadAll(in)
		verdicts <- [2]error{Verify(vectorSecret, r.Header, body, time.Now()), Verify(vectorSecret, r.Header, packed, time.Now())}
	})
	ep := endpoint(t, trigger.Webhook{URL: s.URL, Secret: vectorSecret, Compress: trigger.CompressGzip})
	c := newClient(t, ClientConfig{})
	c.Send(context.Background(), ep, large(4000), nil)
	got := <-verdicts
	require.NoError(t, got[0])
	require.ErrorIs(t, got[1], ErrSignature)
	_, _ = c.SendBatch(context.Background(), ep, []*Event{large(4000), large(100)})
	require.NoError(t, (<-verdicts)[0])
}

// A kept connection breaks at the second request, in HTTP/1 and in HTTP/2, and the request is sent
// once more on another one.
func TestACompressedBodyIsRepeatedWhole(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 40<<10)
	_, _ = rand.Read(noise)
	big := &Event{Trigger: "a", New: []byte(`"` + hex.EncodeToString(noise) + `"`)} // larger than inlineBody when it is compressed
	for _, secure := range []bool{false, true} {
		for _, e := range []*Event{large(4000), big} {
			var requests atomic.Int64
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 2 {
					_, _ = io.Copy(io.Discard, r.Body)
					_ = r.Context().Value(connectionKey{}).(net.Conn).Close()
					return
				}
				uncompressed(w, r)
			}))
			s.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
				return context.WithValue(ctx, connectionKey{}, conn)
			}
			quiet(s)
			config := ClientConfig{KeepBody: 1 << 20}
			if secure {
				s.EnableHTTP2 = true
				s.StartTLS()
				roots := x509.NewCertPool()
				roots.AddCert(s.Certificate())
				config.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			} else {
				s.Start()
			}
			t.Cleanup(s.Close)
			c := newClient(t, config)
			for range 2 {
				r := c.Send(context.Background(), endpoint(t, trigger.Webhook{URL: s.URL, Compress: trigger.CompressGzip}), e, nil)
				require.True(t, r.Delivered(), r.Err)
				require.Equal(t, string(AppendBody(nil, e)), string(r.Body))
				require.Contains(t, string(r.Header), `"X-Encoding":"gzip"`)
			}
			require.EqualValues(t, 3, requests.Load())
		}
	}
}

func TestAReceiverThatTakesNoGzipIsExplained(t *testing.T) {
	t.Parallel()
	s := receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnsupportedMediaType) })
	c := newClient(t, ClientConfig{})
	compressing := endpoint(t, trigger.Webhook{URL: s.URL, Compress: trigger.CompressGzip})
	r := c.Send(context.Background(), compressing, large(4000), nil)
	require.Equal(t, "answered 415 Unsupported Media Type: if the receiver can't decompress gzip, remove compress from the webhook", r.Err)
	require.Equal(t, 415, r.Status)
	for _, r := range []Result{c.Send(context.Background(), compressing, orderPlaced(), nil), c.Send(context.Background(), plain(t, s.URL), large(4000), nil)} {
		require.Equal(t, "answered 415 Unsupported Media Type", r.Err)
	}
}

func TestALimitIsOfTheBodyBeforeItIsCompressed(t *testing.T) {
	t.Parallel()
	s := receiver(t, uncompressed)
	c := newClient(t, ClientConfig{MaxRequestBody: 3000})
	r := c.Send(context.Background(), endpoint(t, trigger.Webhook{URL: s.URL, Compress: trigger.CompressGzip}), large(4000), nil)
	require.Equal(t, KindTooLarge, r.Kind)
}

func BenchmarkCompress(b *testing.B) {
	for name, size := range map[string]int{"2kB": 2 << 10, "20kB": 20 << 10} {
		b.Run(name, func(b *testing.B) {
			body := rowsOf(size)
			var p packers
			into := p.appendGzip(nil, body)
			b.ReportMetric(float64(len(into))/float64(len(body)), "ratio")
			b.ReportAllocs()
			for b.Loop() {
				into = p.appendGzip(into[:0], body)
			}
		})
	}
}

// rowsOf returns a body like those of rows: keys that repeat, and values that do not.
func rowsOf(size int) []byte {
	var all []*Event
	for i := range size/400 + 1 {
		e := orderPlaced()
		noise := make([]byte, 40)
		_, _ = rand.Read(noise)
		e.ID[3], e.New = byte(i), []byte(`{"id":`+hex.EncodeToString(noise[:4])+`,"customer":"`+hex.EncodeToString(noise)+`","amount":1.10}`)
		all = append(all, e)
	}
	return AppendBatch(nil, all)[:size]
}

// Attempts share compressors, and a receiver may answer before it has read the body.
func TestCompressedBodiesOfAttemptsAtOnceAreTheirOwn(t *testing.T) {
	t.Parallel()
	s := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Early") != "" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		uncompressed(w, r)
	})
	c := newClient(t, ClientConfig{KeepBody: 1 << 20})
	noise := make([]byte, 60<<10)
	_, _ = rand.Read(noise)
	packed := endpoint(t, trigger.Webhook{URL: s.URL, Compress: trigger.CompressGzip})
	early := endpoint(t, trigger.Webhook{URL: s.URL, Compress: trigger.CompressGzip, Headers: map[string]string{"X-Early": "1"}})
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 30 {
				e := large(1500 + 700*i)
				if i%3 == 0 {
					e.New = []byte(`"` + hex.EncodeToString(noise[worker*100+i:]) + `"`)
				}
				if i%5 == 0 {
					c.Send(context.Background(), early, e, nil)
				}
				r := c.Send(context.Background(), packed, e, nil)
				if want := AppendBody(nil, e); !r.Delivered() || !bytes.Equal(want, r.Body) {
					t.Errorf("%d bytes were sent, and %d arrived: %s", len(want), len(r.Body), r.Err)
				}
			}
		})
	}
	group.Wait()
}

package webhook

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/internal/timed"
	"github.com/rowhook/rowhook/trigger"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// TestTheMetadataServiceIsOutOfReachInEveryNotation calls it under all of its names, directly and
// through a proxy that would connect.
func TestTheMetadataServiceIsOutOfReachInEveryNotation(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	proxy := receiver(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	proxyURL, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	// A name server resolves these names to the metadata address, as some resolvers do.
	metadata := resolver(t, func(dnsmessage.Question) (dnsmessage.RCode, netip.Addr) {
		return dnsmessage.RCodeSuccess, netip.MustParseAddr("169.254.169.254")
	})
	direct := newClient(t, ClientConfig{Resolver: metadata})
	proxied := NewClient(ClientConfig{Resolver: metadata, Proxy: func(*http.Request) (*url.URL, error) { return proxyURL, nil }})
	t.Cleanup(proxied.Close)
	for _, host := range []string{
		"169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "169.254.43518", "169.16689662",
		"[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::169.254.169.254]", "[0:0:0:0:0:ffff:a9fe:a9fe]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::1]",
		"[fd00:ec2::254]", "[fd20:ce::254]", "[fe80::a9fe:a9fe%25lo]", "100.100.100.200", "168.63.129.16", "192.0.0.192",
		"metadata.google.internal", "rebound.example", "xn--1-zga.example", "１６９.254.169.254", "169。254。169。254",
	} {
		for _, scheme := range []string{"http://", "https://"} {
			ep, err := NewEndpoint(trigger.Webhook{URL: "${U}"}, env("U", scheme+host+"/latest/meta-data/"))
			for name, c := range map[string]*Client{"direct": direct, "through a proxy": proxied} {
				r := c.Send(context.Background(), ep, orderPlaced(), nil)
				if err != nil {
					require.Equal(t, KindBadURL, r.Kind, host)
					continue
				}
				require.Equal(t, KindDenied, r.Kind, "%s%s %s: %s", scheme, host, name, r.Err)
			}
		}
	}
	require.Zero(t, asked.Load(), "the proxy was asked")
}

// TestANameThatResolvesAnewIsJudgedAgain uses a name server that first returns a harmless address
// and then another one.
func TestANameThatResolvesAnewIsJudgedAgain(t *testing.T) {
	t.Parallel()
	var hits, asked atomic.Int32
	s := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		w.Header().Set("Connection", "close") // so that each attempt makes a new connection
	})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	require.NoError(t, err)
	rebinding := resolver(t, func(q dnsmessage.Question) (dnsmessage.RCode, netip.Addr) {
		if q.Type == dnsmessage.TypeA && asked.Add(1) > 1 {
			// It is reachable, and the guard denies it.
			return dnsmessage.RCodeSuccess, netip.MustParseAddr("127.0.0.2")
		}
		return dnsmessage.RCodeSuccess, netip.MustParseAddr("127.0.0.1")
	})
	deny, err := netrule.Parse("127.0.0.2")
	require.NoError(t, err)
	c := newClient(t, ClientConfig{Resolver: rebinding, Guard: Guard{Deny: deny}})
	ep := plain(t, "http://rebound.example:"+port)
	require.True(t, new(c.Send(context.Background(), ep, orderPlaced(), nil)).Delivered())
	r := c.Send(context.Background(), ep, orderPlaced(), nil)
	require.Equal(t, KindDenied, r.Kind, r.Err)
	require.Equal(t, int32(1), hits.Load())
}

// TestANewGuardHoldsForConnectionsThatAreOpen allows an address, delivers, and then denies it while
// the connection is kept.
func TestANewGuardHoldsForConnectionsThatAreOpen(t *testing.T) {
	t.Parallel()
	s := receiver(t, echo)
	c := newClient(t, ClientConfig{})
	require.True(t, new(c.Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)).Delivered())
	loopback, err := netrule.Parse("loopback")
	require.NoError(t, err)
	c.SetGuard(Guard{Deny: loopback})
	r := c.Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)
	require.Equal(t, KindDenied, r.Kind)
	c.SetGuard(Guard{})
	require.True(t, new(c.Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)).Delivered())
}

// TestAProxyIsAskedForWhatTheGuardAllowsOnly sends through a proxy, and checks that the guard
// checks the proxy's address, too.
func TestAProxyIsAskedForWhatTheGuardAllowsOnly(t *testing.T) {
	t.Parallel()
	var asked sync.Map
	proxy := receiver(t, func(_ http.ResponseWriter, r *http.Request) { asked.Store(r.Host, true) })
	proxyURL, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	unknown := resolver(t, func(dnsmessage.Question) (dnsmessage.RCode, netip.Addr) {
		return dnsmessage.RCodeNameError, netip.Addr{}
	})
	private, err := netrule.Parse("private")
	require.NoError(t, err)
	c := NewClient(ClientConfig{Resolver: unknown, Guard: Guard{Deny: private}, Proxy: func(*http.Request) (*url.URL, error) { return proxyURL, nil }})
	t.Cleanup(c.Close)
	require.Equal(t, KindDenied, new(c.Send(context.Background(), plain(t, "http://10.1.2.3/"), orderPlaced(), nil)).Kind)
	require.True(t, new(c.Send(context.Background(), plain(t, "http://192.0.2.7/"), orderPlaced(), nil)).Delivered())
	require.True(t, new(c.Send(context.Background(), plain(t, "http://only-the-proxy-knows.example/"), orderPlaced(), nil)).Delivered())
	_, private1 := asked.Load("10.1.2.3")
	_, public := asked.Load("192.0.2.7")
	require.Equal(t, []bool{false, true}, []bool{private1, public})

	loopback, err := netrule.Parse("loopback")
	require.NoError(t, err)
	c.SetGuard(Guard{Deny: loopback})
	require.Equal(t, KindDenied, new(c.Send(context.Background(), plain(t, "http://192.0.2.7/"), orderPlaced(), nil)).Kind, "the proxy's own address")
}

// TestNothingOfAnEventGetsOutOfTheBody puts line breaks and requests into every text that comes
// from the database.
func TestNothingOfAnEventGetsOutOfTheBody(t *testing.T) {
	t.Parallel()
	const evil = "x\r\nX-Evil: 1\r\n\r\nPOST /evil HTTP/1.1\r\nHost: evil\r\n\r\n\x00\"}],"
	heads := make(chan string, 2)
	address := onAccept(t, func(_ int, conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		var head strings.Builder
		length := 0
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
			_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
			if line == "\r\n" {
				break
			}
		}
		_, _ = io.CopyN(io.Discard, in, int64(length))
		heads <- head.String()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		if _, err := in.ReadByte(); err == nil {
			heads <- "more than one request"
		}
	})
	e := orderPlaced()
	e.Schema, e.Table, e.Trigger = evil, evil, evil
	e.New, e.Session, e.Trace = template.AppendString(nil, evil), template.AppendString(nil, evil), template.AppendString(nil, evil)
	c := newClient(t, ClientConfig{})
	r := c.Send(context.Background(), endpoint(t, trigger.Webhook{URL: "http://" + address + "/hook", Secret: "s3cret"}), e, nil)
	require.True(t, r.Delivered(), r.Err)
	c.Close()
	head := <-heads
	require.True(t, strings.HasPrefix(head, "POST /hook HTTP/1.1\r\nHost: "+address+"\r\n"), head)
	require.NotContains(t, strings.ToLower(head), "evil")
	require.Empty(t, heads)
}

// TestAResponseCostsNoMoreThanItsLimit has receivers that send endless responses.
func TestAResponseCostsNoMoreThanItsLimit(t *testing.T) {
	timed.Alone(t)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, err := io.CopyN(z, zeros{}, 64<<20)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	endless := func(begin, piece string) string {
		return "http://" + onAccept(t, func(_ int, conn *net.TCPConn) {
			readRequest(conn)
			if _, err := io.WriteString(conn, begin); err != nil {
				return
			}
			for chunk := strings.Repeat(piece, 1+(32<<10)/len(piece)); ; {
				if _, err := io.WriteString(conn, chunk); err != nil {
					return
				}
			}
		})
	}
	gzipped := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	})
	over2 := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	}))
	over2.EnableHTTP2 = true
	over2.StartTLS()
	t.Cleanup(over2.Close)
	for name, c := range map[string]struct {
		url    string
		config ClientConfig
		kinds  []Kind
		body   bool // the beginning of the body is kept
	}{
		"endless body":            {url: endless("HTTP/1.1 200 OK\r\n\r\n", "x"), kinds: []Kind{KindResponse}, body: true},
		"endless body in chunks":  {url: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "8\r\nxxxxxxxx\r\n"), kinds: []Kind{KindResponse}, body: true},
		"endless body by HTTP/2":  {url: over2.URL, config: ClientConfig{TLS: over2.Client().Transport.(*http.Transport).TLSClientConfig}, kinds: []Kind{KindResponse}, body: true},
		"endless chunk extension": {url: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x"), kinds: []Kind{KindResponse}},
		"endless header":          {url: endless("HTTP/1.1 200 OK\r\nX-A: ", "x"), kinds: []Kind{KindResponse}},
		"endless headers":         {url: endless("HTTP/1.1 200 OK\r\n", "X-A: x\r\n"), kinds: []Kind{KindResponse}},
		"endless status line":     {url: endless("HTTP/1.1 200 ", "x"), kinds: []Kind{KindTooLarge}},
		"a flood of 103":          {url: endless("", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), kinds: []Kind{KindTooLarge, KindOther}},
		"a flood of 100":          {url: endless("", "HTTP/1.1 100 Continue\r\n\r\n"), kinds: []Kind{KindTooLarge, KindOther}},
		"gzip bomb":               {url: gzipped.URL, kinds: []Kind{KindResponse}, body: true},
		"endless trailers":        {url: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n0\r\n", "X-A: x\r\n"), kinds: []Kind{KindResponse}},
	} {
		for _, way := range ways() {
			t.Run(name+way.name, func(t *testing.T) {
				ep := way.of(endpoint(t, trigger.Webhook{URL: c.url, Timeout: trigger.Duration(2 * time.Minute)}))
				client := newClient(t, c.config)
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				r := client.Send(context.Background(), ep, orderPlaced(), nil)
				runtime.ReadMemStats(&after)
				require.Contains(t, c.kinds, r.Kind, r.Err)
				require.Equal(t, c.body, len(r.Body) > 0)
				// A byte that is not UTF-8 becomes three.
				require.LessOrEqual(t, len(r.Body), DefaultKeepBody*3)
				require.LessOrEqual(t, len(r.Header), 2*maxHeaderBytes)
				require.Less(t, r.Duration, time.Minute, "it is left long before its timeout")
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), "bytes allocated, the receiver's own among them")
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestSlowBytesDoNotProlongAnAttempt sends single bytes at every step at which a receiver can.
func TestSlowBytesDoNotProlongAnAttempt(t *testing.T) {
	timed.Alone(t)
	for name, c := range map[string]struct {
		at, drip  string
		delivered bool // the status had arrived
	}{
		"status line":      {"", "HTTP/1.1 200 OK and so on and so on and so on and so on and so on and so on", false},
		"headers":          {"HTTP/1.1 200 OK\r\n", strings.Repeat("X-A: b\r\n", 100), true},
		"interim headers":  {"", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100), false},
		"body":             {"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", strings.Repeat("x", 5000), true},
		"chunks":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 1000), true},
		"beyond the limit": {"HTTP/1.1 500 No\r\nContent-Length: 50000\r\n\r\n" + strings.Repeat("x", DefaultKeepBody+1), strings.Repeat("x", 30000), false},
	} {
		for _, way := range ways() {
			t.Run(name+way.name, func(t *testing.T) {
				t.Parallel()
				address := onAccept(t, func(_ int, conn *net.TCPConn) {
					readRequest(conn)
					_, _ = io.WriteString(conn, c.at)
					tick := time.NewTicker(20 * time.Millisecond)
					defer tick.Stop()
					for i := range c.drip {
						<-tick.C
						if _, err := io.WriteString(conn, c.drip[i:i+1]); err != nil {
							return
						}
					}
				})
				ep := way.of(endpoint(t, trigger.Webhook{URL: "http://" + address, Timeout: trigger.Duration(500 * time.Millisecond)}))
				r := newClient(t, ClientConfig{}).Send(context.Background(), ep, orderPlaced(), nil)
				require.Equal(t, c.delivered, r.Delivered())
				require.Less(t, r.Duration, 2*time.Second)
			})
		}
	}
}

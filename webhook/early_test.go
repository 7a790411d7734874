package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// A receiver that rejects a large body answers before it has read it, and closes.
func TestAnAnswerThatComesBeforeTheBodyIsSentIsReportedAsItIs(t *testing.T) {
	t.Parallel()
	certificate := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(certificate.Close)
	for name, answer := range map[string]string{
		"413 without a body": "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"413 with a body":    "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large",
		"413 until the end":  "HTTP/1.1 413 Content Too Large\r\n\r\ntoo large",
		"401":                "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
		"429":                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
		"200":                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		for scheme, config := range map[string]*tls.Config{"http": nil, "https": certificate.TLS} {
			t.Run(name+" by "+scheme, func(t *testing.T) {
				t.Parallel()
				address := onAccept(t, func(_ int, raw *net.TCPConn) {
					conn := net.Conn(raw)
					if config != nil {
						conn = tls.Server(raw, config)
					}
					// It reads the header and closes, with most of the body unread. The system
					// resets the connection.
					if _, err := http.ReadRequest(bufio.NewReaderSize(conn, 16)); err == nil {
						_, _ = io.WriteString(conn, answer)
					}
				})
				client := newClient(t, ClientConfig{TLS: &tls.Config{InsecureSkipVerify: true}})
				for range 20 {
					r := client.Send(context.Background(), plain(t, scheme+"://"+address), orderPlaced(), bytes.Repeat([]byte("a"), 8<<20))
					require.Equal(t, KindResponse, r.Kind, r.Err)
					require.Equal(t, name[:3], strconv.Itoa(r.Status), r.Err)
				}
			})
		}
	}
}

// The receiver has answered that it has the event. The rest of its answer does not matter.
func TestAfterAStatusOf2xxTheEventIsDeliveredWhateverBecomesOfTheBody(t *testing.T) {
	t.Parallel()
	const chunked = "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, answer := range map[string]string{
		"closed in the body":       "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
		"closed before the body":   "HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n",
		"closed in a chunk":        chunked + "5\r\nabc",
		"closed before last chunk": chunked + "3\r\nabc\r\n",
		"no chunk":                 chunked + "this is no chunk\r\n",
		"chunk longer than said":   chunked + "1\r\nabcdef\r\n0\r\n\r\n",
		"broken trailer":           chunked + "0\r\nno trailer\r\n\r\n",
		"hangs":                    chunked + "3\r\nabc\r\nHANG",
		"reset":                    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcRESET",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := onAccept(t, func(_ int, conn *net.TCPConn) {
				readRequest(conn)
				text, hangs := strings.CutSuffix(answer, "HANG")
				text, resets := strings.CutSuffix(text, "RESET")
				_, _ = io.WriteString(conn, text)
				if hangs {
					_, _ = conn.Read(make([]byte, 1))
				}
				if resets {
					_ = conn.SetLinger(0)
				}
			})
			ep := plain(t, "http://"+address)
			if name == "hangs" {
				ep = endpoint(t, trigger.Webhook{URL: "http://" + address, Timeout: trigger.Duration(2 * time.Second)})
			}
			r := newClient(t, ClientConfig{}).Send(context.Background(), ep, orderPlaced(), nil)
			if name == "reset" && r.Status == 0 {
				return // the reset overtook the answer
			}
			require.True(t, r.Delivered(), r.Err)
			require.Contains(t, r.Err, "arrived, so the event is delivered, but the response's body is incomplete: ")
		})
	}
}

func TestAStatusIsReportedThoughItsBodyIsBroken(t *testing.T) {
	t.Parallel()
	address := onAccept(t, func(_ int, conn *net.TCPConn) {
		readRequest(conn)
		_, _ = io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 10\r\n\r\nabc")
	})
	r := newClient(t, ClientConfig{}).Send(context.Background(), plain(t, "http://"+address), orderPlaced(), nil)
	require.Equal(t, KindResponse, r.Kind)
	require.Equal(t, "answered 503 Service Unavailable; the response's body is incomplete: connection closed by "+address+" before the response was complete", r.Err)
	require.Equal(t, "abc", string(r.Body))
	require.Equal(t, 7*time.Second, r.RetryAfter)
}

func TestRetryAfterCountsFromTheResponsesOwnDate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		date, after string
		want        time.Duration
	}{
		"a clock that is years behind": {"Mon, 23 Nov 2015 12:00:00 GMT", "Mon, 23 Nov 2015 12:00:30 GMT", 30 * time.Second},
		"a clock that is hours ahead":  {time.Now().Add(5 * time.Hour).UTC().Format(http.TimeFormat), time.Now().Add(5*time.Hour + time.Minute).UTC().Format(http.TimeFormat), time.Minute},
		"a date that is past":          {"Mon, 23 Nov 2026 12:00:00 GMT", "Mon, 23 Nov 2026 11:59:00 GMT", 0},
		"the same date":                {"Mon, 23 Nov 2026 12:00:00 GMT", "Mon, 23 Nov 2026 12:00:00 GMT", 0},
		"seconds":                      {"Mon, 23 Nov 2015 12:00:00 GMT", "9", 9 * time.Second},
		"0":                            {"", "0", 0},
		"0.0":                          {"", "0.0", 0},
		"negative":                     {"", "-5", 0},
		"nonsense":                     {"", "soon", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
				if c.date != "" {
					w.Header().Set("Date", c.date)
				}
				w.Header().Set("Retry-After", c.after)
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			r := newClient(t, ClientConfig{}).Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)
			require.Equal(t, c.want > 0, r.HasRetryAfter)
			require.InDelta(t, c.want.Seconds(), r.RetryAfter.Seconds(), 1)
		})
	}
}

func TestRetryAfterCountsFromNowWhereTheDateIsMissingOrNonsense(t *testing.T) {
	t.Parallel()
	for _, date := range []string{"", "Date: yesterday\r\n"} {
		address := onAccept(t, func(_ int, conn *net.TCPConn) {
			readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 429 Too Many Requests\r\n"+date+"Content-Length: 0\r\nRetry-After: "+time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)+"\r\n\r\n")
		})
		r := newClient(t, ClientConfig{}).Send(context.Background(), plain(t, "http://"+address), orderPlaced(), nil)
		require.InDelta(t, 60, r.RetryAfter.Seconds(), 2)
	}
}

// TestAFarewellOfTLSWaitsForNoResponse writes on a broken connection. A request waits for a
// response that may still be read. The close_notify of TLS does not.
func TestAFarewellOfTLSWaitsForNoResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for farewell, waits := range map[bool]time.Duration{false: earlyWait, true: 0} {
			near, far := net.Pipe()
			conn := newEarlyConn(near)
			if farewell {
				require.NoError(t, conn.SetWriteDeadline(time.Now().Add(5*time.Second)))
			}
			require.NoError(t, far.Close())
			began := time.Now()
			_, err := conn.Write([]byte("x"))
			require.Error(t, err)
			require.Equal(t, waits, time.Since(began))
			require.NoError(t, conn.Close())
		}
	})
}

func TestAStatusOf2xxIsDeliveredWhateverHeadersFollow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		response  string
		delivered bool
	}{
		"cut behind the status":        {"HTTP/1.1 200 OK\r\n", true},
		"cut within a header":          {"HTTP/1.1 204 No Content\r\nX-Half: ", true},
		"a line that is no header":     {"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", true},
		"two lengths":                  {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", true},
		"a length that is no number":   {"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n", true},
		"an unknown encoding":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: what\r\n\r\n", true},
		"too many headers":             {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 2000), true},
		"cut within the status":        {"HTTP/1.1 20", false},
		"cut within the reason":        {"HTTP/1.1 200 O", false},
		"an error, cut":                {"HTTP/1.1 500 No\r\nX-Half: ", false},
		"no HTTP":                      {"200 OK thank you very much\r\n", false},
		"nothing":                      {"", false},
		"a hint and then nothing":      {"HTTP/1.1 103 Early Hints\r\n\r\n", false},
		"whole, as it should be":       {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
		"another version, then an end": {"HTTP/1.0 201 Created\r\n", true},
	} {
		for _, way := range ways() {
			t.Run(name+way.name, func(t *testing.T) {
				t.Parallel()
				address := onAccept(t, func(_ int, conn *net.TCPConn) {
					readRequest(conn)
					_, _ = io.WriteString(conn, c.response)
				})
				ep := way.of(plain(t, "http://"+address))
				r := newClient(t, ClientConfig{}).Send(context.Background(), ep, orderPlaced(), nil)
				require.Equal(t, c.delivered, r.Delivered(), "%+v", r)
			})
		}
	}
}

func TestTheStatusOfTheResponseBeforeCountsForNothing(t *testing.T) {
	t.Parallel()
	address := onAccept(t, func(n int, conn *net.TCPConn) {
		readRequest(conn)
		if n == 0 {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			readRequest(conn)
		}
	})
	ep := plain(t, "http://"+address)
	c := newClient(t, ClientConfig{})
	require.True(t, new(c.Send(context.Background(), ep, orderPlaced(), nil)).Delivered())
	r := c.Send(context.Background(), ep, orderPlaced(), nil)
	require.False(t, r.Delivered(), "%+v", r)
}

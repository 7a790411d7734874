package sink

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/rowhook/rowhook/webhook"
)

// nowhere is a ResponseWriter that drops the response.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}

// BenchmarkReceive measures what one delivery costs the receiver itself, without the network.
func BenchmarkReceive(b *testing.B) {
	for name, columns := range map[string]int{"small": 1, "4KiB": 100} {
		b.Run(name, func(b *testing.B) {
			s := &Sink{}
			e := event(1)
			e.New = append(append([]byte(`{"id":1`), bytes.Repeat([]byte(`,"another_column":"a value of the column"`), columns)...), '}')
			header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Rowhook/1"}, "Webhook-Id": {"x"}, "Webhook-Timestamp": {"1764000000"}}
			w := nowhere{http.Header{}}
			e.CreatedAt = time.Now()
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				e.ID = [16]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
				body := webhook.AppendBody(nil, e)
				r, err := http.NewRequest(http.MethodPost, "http://127.0.0.1/orders", io.NopCloser(bytes.NewReader(body)))
				if err != nil {
					b.Fatal(err)
				}
				r.Header, r.ContentLength = header, int64(len(body))
				s.ServeHTTP(w, r)
			}
		})
	}
}

package rowhooktest_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/rowhooktest"
	"github.com/rowhook/rowhook/webhook"
)

func TestAHandlerGetsWhatATemplateMakes(t *testing.T) {
	t.Parallel()
	h := rowhooktest.Start(t, patient(), rowhooktest.Schema("testdata/schema.sql"), rowhooktest.Config(`
triggers:
  - name: order_placed
    table: public.orders
    on: {insert: true}
    webhook:
      url: "https://${SHOP_HOST}/customers/$new.customer/orders/$new.id?a=b"
      method: PUT
      query: {from: shop}
      body: {order: $new.id, text: "For ${new.customer}"}
      secret: "${SHOP_SECRET}"
    retry: {limit: 0}
  - name: order_form
    table: public.orders
    on: {insert: true}
    webhook: {url: "https://example.com/form", form: {order: $new.id}}
  - name: order_gone
    table: public.orders
    on: {delete: true}
    webhook: {url: "https://example.com/gone", method: DELETE, query: {id: $old.id}}
`))
	seen := make(chan string, 10)
	h.Handle("", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && r.Method == http.MethodPut {
			err = webhook.Verify(h.Secret("order_placed"), r.Header, body, time.Now())
		}
		seen <- fmt.Sprint(r.Method, " ", r.RequestURI, " ", string(body), " ", err, r.Header.Get("Rowhook-Sink-Event"))
	}))
	h.Exec(t, "insert into orders (id, customer) values (1, 'a/b c')")
	require.Equal(t, "order_form", h.Wait(t, "order_form").Trigger)
	h.Wait(t, "order_placed")
	require.ElementsMatch(t, []string{
		`PUT /customers/a%2Fb%20c/orders/1?a=b&from=shop {"order":1,"text":"For a/b c"} <nil>`, `POST /form order=1 <nil>`,
	}, []string{<-seen, <-seen})
	h.Exec(t, "delete from orders")
	require.Equal(t, "DELETE", h.Wait(t, "order_gone").Op)
	require.Equal(t, "DELETE /gone?id=1  <nil>", <-seen)
	h.Exec(t, "insert into orders (id, customer) values (2, '..')")
	letters := h.DeadLetters(t, "order_placed")
	require.Len(t, letters, 1)
	require.Contains(t, letters[0].Reason, "${new.customer} makes a segment of the URL's path empty")
}

func TestAHandlerGetsWhatAFormatAndCompressionMake(t *testing.T) {
	t.Parallel()
	h := rowhooktest.Start(t, patient(), rowhooktest.Schema("testdata/schema.sql"), rowhooktest.Config(`
triggers:
  - name: order_packed
    table: public.orders
    on: {insert: true}
    webhook: {url: "https://example.com/packed", format: cloudevents, compress: gzip, secret: "${SHOP_SECRET}"}
    retry: {limit: 0}
  - name: order_batch
    table: public.orders
    on: {insert: true}
    batch: {max: 10}
    webhook: {url: "https://example.com/batch", format: cloudevents, compress: gzip}
    retry: {limit: 0}
`))
	seen := make(chan string, 10)
	h.Handle("", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		in, err := gzip.NewReader(r.Body)
		if err != nil {
			seen <- err.Error()
			return
		}
		body, err := io.ReadAll(in)
		if err == nil && r.URL.Path == "/packed" {
			err = webhook.Verify(h.Secret("order_packed"), r.Header, body, time.Now())
		}
		var event struct{ Type string }
		seen <- fmt.Sprint(r.URL.Path, " ", r.Header.Get("Content-Type"), " ", errors.Join(err, json.Unmarshal(body, &event)), " ", event.Type)
	}))
	h.Exec(t, "insert into orders (id, customer) values (1, repeat('Ada ', 1000))")
	require.Greater(t, len(h.Wait(t, "order_packed").New), 4000)
	require.ElementsMatch(t, []string{
		"/packed application/cloudevents+json <nil> rowhook.order_packed.insert", "/batch application/cloudevents+json <nil> rowhook.order_batch.insert",
	}, []string{<-seen, <-seen})
}

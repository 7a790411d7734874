package rowhooktest_test

import (
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
	h := rowhooktest.Start(t, rowhooktest.Schema("testdata/schema.sql"), rowhooktest.Config(`
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

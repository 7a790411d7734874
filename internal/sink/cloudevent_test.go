package sink

import (
	"bytes"
	"compress/gzip"
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/webhook"
)

// post sends a body as another program than Rowhook would.
func (s *sender) post(header http.Header, body []byte) int {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.server.URL+"/hooks", bytes.NewReader(body))
	require.NoError(s, err)
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s, err)
	require.NoError(s, resp.Body.Close())
	return resp.StatusCode
}

func TestCloudEventsAreEvents(t *testing.T) {
	t.Parallel()
	e := event(7)
	e.Op, e.Old, e.Session, e.Test = 'U', []byte(`{"id":1, "amount":1.00}`), []byte(`{"x-user":"ada"}`), true
	structured := webhook.AppendCloudEvent(nil, e)
	id := "00000000-0000-0000-0000-000000000007"
	for name, c := range map[string]struct {
		header http.Header
		body   []byte
	}{
		"structured": {http.Header{"Content-Type": {"application/cloudevents+json"}}, structured},
		"batch":      {http.Header{"Content-Type": {"application/cloudevents-batch+json"}}, webhook.AppendCloudBatch(nil, []*webhook.Event{e})},
		"binary": {http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {id}, "Ce-Source": {"/rowhook/order%5Fplaced"}, "Ce-Rowhooktest": {"true"},
			"Ce-Time": {e.CreatedAt.UTC().Format(time.RFC3339Nano)}}, webhook.AppendCloudEventData(nil, e)},
	} {
		s := &Sink{}
		require.Equal(t, 200, start(t, s).post(c.header, c.body), name)
		all := s.Deliveries()
		require.Len(t, all, 1, name)
		d := all[0]
		require.Equal(t, [5]string{id, "UPDATE", "public", "orders", "order_placed"}, [5]string{d.ID, d.Op, d.Schema, d.Table, d.Trigger}, name)
		require.WithinDuration(t, e.CreatedAt, d.CreatedAt, time.Microsecond, name)
		require.True(t, d.Test)
		require.Equal(t, string(e.Old), string(d.Old()), name)
		require.Equal(t, string(e.New), string(d.New()), name)
		for at, want := range map[string]string{"new.amount": "1.10", "old.amount": "1.00", "op": `"UPDATE"`, "session_variables.x-user": `"ada"`, "table.name": `"orders"`} {
			got, err := Lookup(d.Body, at)
			require.NoError(t, err)
			require.Equal(t, want, string(got), "%s: %s", name, at)
		}
		for at, value := range map[string]any{"new.amount": 1.1, "old.amount": 1, "session_variables.x-user": "ada"} {
			condition, err := Where(at, value)
			require.NoError(t, err)
			require.Len(t, s.List(Match{Where: []Condition{condition}}), 1, "%s: %s", name, at)
		}
		got, err := Lookup(d.Body, "new.missing")
		require.NoError(t, err)
		require.Nil(t, got)
	}
}

func TestOtherCloudEventsAreRejected(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	for body, want := range map[string]string{
		`{"specversion":"1.0","id":"1","source":"/a","type":"b"}`:                                                                        "its id is not a UUID",
		`{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000007","source":"/a","type":"b","data":{}}`:                           "data.op is missing",
		`{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000007","source":"/a","type":"b","data":{"op":"INSERT"}}`:              "its time is missing",
		`{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000007","source":"/a","type":"b","time":"2026-11-26","data":"a text"}`: "not one of Rowhook",
	} {
		require.Equal(t, 400, to.post(http.Header{}, []byte(body)))
		all := s.Deliveries()
		require.Contains(t, all[len(all)-1].Problem, want)
	}
}

func TestCompressedBodiesAreDecompressed(t *testing.T) {
	t.Parallel()
	s := &Sink{Secret: secret}
	to := start(t, s)
	body := webhook.AppendBody(nil, event(1))
	at := time.Now()
	signature, err := webhook.Sign(secret, "id", at, body)
	require.NoError(t, err)
	header := http.Header{"Content-Encoding": {"gzip"}, "Webhook-Id": {"id"}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Webhook-Signature": {signature}}
	require.Equal(t, 200, to.post(header, packed(t, body)))
	d := s.Deliveries()[0]
	require.Equal(t, Valid, d.Signature, d.SignatureProblem)
	require.Equal(t, string(body), string(d.Body))

	require.Equal(t, 400, to.post(header, body), "it is not compressed")
	require.Contains(t, s.Deliveries()[1].Problem, "not in the format gzip")
	require.Equal(t, 400, to.post(header, packed(t, body)[:40]), "it is cut off")
	require.Equal(t, 413, to.post(header, packed(t, make([]byte, MaxBody+1))), "it gets large")
}

func packed(t *testing.T, body []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(body)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

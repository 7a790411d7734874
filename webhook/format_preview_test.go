package webhook

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestAPreviewShowsTheFormatAndTheBodyBeforeItIsCompressed(t *testing.T) {
	t.Parallel()
	c, e := newClient(t, ClientConfig{}), large(2000)
	e.Trace = []byte(`"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"`)
	w := trigger.Webhook{URL: "http://e.com", Format: trigger.FormatCloudEventsBinary, Compress: trigger.CompressGzip, Headers: map[string]string{"ce-source": "/shop"}}
	p, err := c.Preview(endpoint(t, w), e)
	require.NoError(t, err)
	require.Equal(t, string(AppendCloudEventData(nil, e)), string(p.Body))
	var header map[string]string
	require.NoError(t, json.Unmarshal(p.Header, &header))
	require.Equal(t, "gzip", header["Content-Encoding"])
	require.Equal(t, "rowhook.order_placed.insert", header["Ce-Type"])
	require.Equal(t, "/shop", header["Ce-Source"], "a configured attribute has precedence")
	require.Contains(t, header["Traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-")

	p, headers, err := Unexpanded(w, e, false)
	require.NoError(t, err)
	require.Equal(t, string(AppendCloudEventData(nil, e)), string(p.Body))
	require.Equal(t, "rowhook.order_placed.insert", headers["Ce-Type"])
	require.Equal(t, "/shop", headers["ce-source"])
	require.NotContains(t, headers, "Ce-Source")

	w.Format, w.Headers = trigger.FormatCloudEvents, nil
	p, headers, err = Unexpanded(w, e, true)
	require.NoError(t, err)
	require.Equal(t, "application/cloudevents-batch+json", headers["Content-Type"])
	require.Equal(t, string(AppendCloudBatch(nil, []*Event{e})), string(p.Body))
	p, err = c.PreviewBatch(endpoint(t, w), []*Event{e})
	require.NoError(t, err)
	require.Equal(t, string(AppendCloudBatch(nil, []*Event{e})), string(p.Body))
}

// TestAttributesInHeadersAreEncoded has the values of a configuration and of an event, as the HTTP binding
// of CloudEvents wants them. Other headers, and those of other formats, stay as they are written.
func TestAttributesInHeadersAreEncoded(t *testing.T) {
	t.Parallel()
	c, e := newClient(t, ClientConfig{}), orderPlaced()
	e.New = []byte(`{"id":1,"city":"Malmö \"10%\""}`)
	w := trigger.Webhook{URL: "http://e.com", Format: trigger.FormatCloudEventsBinary, Headers: map[string]string{
		"ce-subject": `größe "x" 5% %C3%B6`, "ce-city": "in ${new.city}", "X-City": "größe",
	}}
	header := func() (h map[string]string) {
		p, err := c.Preview(endpoint(t, w), e)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(p.Header, &h))
		return h
	}
	h := header()
	require.Equal(t, "gr%C3%B6%C3%9Fe%20%22x%22%205%25%20%C3%B6", h["Ce-Subject"], "what is encoded already stays")
	require.Equal(t, "in%20Malm%C3%B6%20%2210%25%22", h["Ce-City"])
	require.Equal(t, "größe", h["X-City"])
	w.Format = ""
	require.Equal(t, `größe "x" 5% %C3%B6`, header()["Ce-Subject"])
}

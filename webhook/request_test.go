package webhook

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// sent is a request as a receiver reads it.
type sent struct {
	*http.Request
	body string
}

// send sends an event and returns what the receiver got.
func send(t *testing.T, w trigger.Webhook, e *Event, pairs ...string) (sent, Result) {
	t.Helper()
	got := make(chan sent, 1)
	server := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- sent{r, string(body)}
	})
	w.URL = strings.Replace(w.URL, "http://h", server.URL, 1)
	r := newClient(t, ClientConfig{}).Send(context.Background(), endpoint(t, w, pairs...), e, nil)
	if r.Delivered() {
		return <-got, r
	}
	return sent{}, r
}

func orderWith(row string) *Event {
	e := orderPlaced()
	e.New = []byte(row)
	return e
}

func TestARequestIsMadeFromItsTemplates(t *testing.T) {
	t.Parallel()
	w := trigger.Webhook{
		URL: "http://h/orders/$new.id/${new.kind ?? \"none\"}?a=$new.kind", Method: "PUT",
		Query:   map[string]string{"source": "the shop", "order": "$new.id", "token": "${TOKEN}", "note": "$new.note"},
		Headers: map[string]string{"X-Customer": "$new.customer", "X-Both": "${TOKEN} $id", "Idempotency-Key": "$id"},
		Body:    `{"order":"$new.id","text":"Order ${new.id} for ${new.customer}","by":"${TOKEN}","attempt":"$attempt","nothing":"$new.nothing"}`,
		Secret:  vectorSecret,
	}
	e := orderWith(`{"id":50755254975729665123456789012,"customer":"M\u00fcller \"&\" S\u00f6hne\r\nX: y","kind":"a/b c?"}`)
	got, r := send(t, w, e, "TOKEN", "a&b\"c")
	require.True(t, r.Delivered(), r.Err)
	require.Equal(t, "PUT", got.Method)
	require.Equal(t, "/orders/50755254975729665123456789012/a%2Fb%20c%3F?a=a%2Fb%20c%3F&note=&order=50755254975729665123456789012&source=the%20shop&token=a%26b%22c", got.RequestURI)
	require.Equal(t, "Müller \"&\" Söhne  X: y", got.Header.Get("X-Customer"))
	require.Equal(t, `a&b"c 0199abcd-ef01-7abc-8def-0123456789ab`, got.Header.Get("X-Both"))
	require.Equal(t, "0199abcd-ef01-7abc-8def-0123456789ab", got.Header.Get("Idempotency-Key"))
	require.Equal(t, "application/json", got.Header.Get("Content-Type"))
	require.Equal(t, `{"order":50755254975729665123456789012,"text":"Order 50755254975729665123456789012 for M\u00fcller \"&\" S\u00f6hne\r\nX: y","by":"a&b\"c","attempt":1,"nothing":null}`, got.body)
	require.NoError(t, Verify(vectorSecret, got.Header, []byte(got.body), time.Now()), "the signature is that of the body that was sent")
}

func TestAReferenceThatIsNotGivenOutIsReportedWithItsPlaceOnce(t *testing.T) {
	t.Parallel()
	for want, w := range map[string]trigger.Webhook{
		"body: environment":            {URL: "http://h/", Body: `{"a":"${NONE}"}`},
		`form: "a": environment`:       {URL: "http://h/", Form: map[string]string{"a": "${NONE}"}},
		`query: "a": environment`:      {URL: "http://h/", Query: map[string]string{"a": "${NONE}"}},
		`header "A": environment`:      {URL: "http://h/", Headers: map[string]string{"A": "${NONE} $id"}},
		`url "http://h/${NONE}": envi`: {URL: "http://h/${NONE}"},
	} {
		_, err := NewEndpoint(w, func(string) (string, bool) { return "", false })
		require.Error(t, err)
		require.True(t, strings.HasPrefix(err.Error(), want), "%s: %v", want, err)
	}
}

func TestATemplateHasTheNamesOfChangedColumns(t *testing.T) {
	t.Parallel()
	for changed, want := range map[string]string{`["note","id"]`: `{"changed":["note","id"],"text":"[\"note\",\"id\"] "}`, "": `{"changed":null,"text":" "}`} {
		e := orderPlaced()
		e.Changed = []byte(changed)
		got, r := send(t, trigger.Webhook{URL: "http://h/", Body: `{"changed":"$event.changed","text":"${event.changed} "}`}, e)
		require.True(t, r.Delivered(), r.Err)
		require.Equal(t, want, got.body)
	}
}

func TestARequestWithoutABodyIsSignedAsOne(t *testing.T) {
	t.Parallel()
	for method, hasBody := range map[string]bool{"GET": false, "DELETE": false, "PATCH": true, "POST": true} {
		got, r := send(t, trigger.Webhook{URL: "http://h/$new.id", Method: method, Secret: vectorSecret}, orderPlaced())
		require.True(t, r.Delivered(), r.Err)
		require.Equal(t, method, got.Method)
		require.Equal(t, hasBody, got.body != "", method)
		require.Equal(t, hasBody, got.Header.Get("Content-Type") != "", method)
		require.Empty(t, got.TransferEncoding)
		require.NoError(t, Verify(vectorSecret, got.Header, []byte(got.body), time.Now()), method)
	}
	got, _ := send(t, trigger.Webhook{URL: "http://h/", Method: "DELETE", Body: `{"id":"$new.id"}`}, orderPlaced())
	require.Equal(t, `{"id":1}`, got.body)
}

func TestAFormIsSentAsOne(t *testing.T) {
	t.Parallel()
	e := orderWith(`{"id":1.10,"note":"a=b&c d","gone":null}`)
	got, _ := send(t, trigger.Webhook{URL: "http://h/", Form: map[string]string{"text": "No. ${new.id}: ${new.note}", "a&": "$new.gone", "key": "${KEY}"}}, e, "KEY", "x y")
	require.Equal(t, "application/x-www-form-urlencoded", got.Header.Get("Content-Type"))
	require.Equal(t, "a%26=&key=x+y&text=No.+1.10%3A+a%3Db%26c+d", got.body)
	got, _ = send(t, trigger.Webhook{URL: "http://h/", Body: trigger.BodyForm, Headers: map[string]string{"content-type": "application/x-www-form-urlencoded; charset=utf-8"}}, e)
	require.Equal(t, "application/x-www-form-urlencoded; charset=utf-8", got.Header.Get("Content-Type"))
	require.Equal(t, "id=1.10&note=a%3Db%26c+d&gone=", got.body)
	e.Op, e.Old, e.New = 'D', e.New, nil
	got, _ = send(t, trigger.Webhook{URL: "http://h/", Body: trigger.BodyForm}, e)
	require.Equal(t, "id=1.10&note=a%3Db%26c+d&gone=", got.body)
}

func TestABatchIsAnArrayOfTemplates(t *testing.T) {
	t.Parallel()
	var body string
	server := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
	})
	ep := endpoint(t, trigger.Webhook{URL: server.URL, Body: `{"n":"$new.id"}`})
	r, failed := newClient(t, ClientConfig{}).SendBatch(context.Background(), ep, []*Event{orderWith(`{"id":1}`), orderWith(`{}`), orderWith(`{"id":"x"}`)})
	require.True(t, r.Delivered(), r.Err)
	require.Empty(t, failed)
	require.Equal(t, `[{"n":1},{"n":null},{"n":"x"}]`, body)
	require.Equal(t, len(`{"n":"x"}`), ep.BodySize(orderWith(`{"id":"x"}`)), "bounds of a batch are bounds of what is sent")
}

func TestAPathThatLeadsAwayIsNotCalled(t *testing.T) {
	t.Parallel()
	for value, ok := range map[string]bool{
		`""`: false, `null`: false, `"."`: false, `".."`: false, `"%2e%2E"`: false, `"%252e."`: false, `"../x"`: false, `"x/../y"`: false, `"..\\x"`: false, `"..;a"`: false, `"x/."`: false,
		`"a"`: true, `"..."`: true, `"a..b"`: true, `"a/b"`: true, `"%"`: true, `"%zz"`: true, `"\u0000"`: true, `1.5`: true, `"..a"`: true, `{"a":".."}`: true, `"\ud800"`: true, `"http://evil/"`: true, `"@evil"`: true, `"?a=b#c"`: true,
	} {
		got, r := send(t, trigger.Webhook{URL: "http://h/a/$new.s/b", Secret: vectorSecret}, orderWith(`{"s":`+value+`}`))
		require.Equal(t, ok, r.Delivered(), "%s %s", value, r.Err)
		if !ok {
			require.Equal(t, KindBadURL, r.Kind)
			require.True(t, r.Hopeless)
			require.False(t, r.Connected)
			require.Contains(t, r.Err, "${new.s} makes a segment of the URL's path empty, . or ..")
			require.Equal(t, r.Err, Brief(r.Err), "it quotes nothing of the event")
			continue
		}
		require.Equal(t, 3, strings.Count(got.URL.EscapedPath(), "/"), got.RequestURI)
		require.Empty(t, got.URL.RawQuery)
	}
}

func TestLongDataIsNotPutIntoURLsAndHeaders(t *testing.T) {
	t.Parallel()
	long := orderWith(`{"s":"` + strings.Repeat("%2525", 1<<20) + `"}`)
	for kind, w := range map[Kind]trigger.Webhook{
		KindBadURL:   {URL: "http://h/$new.s"},
		KindTooLarge: {URL: "http://h/", Headers: map[string]string{"X-S": "$new.s"}},
	} {
		_, r := send(t, w, long)
		require.Equal(t, kind, r.Kind)
		require.True(t, r.Hopeless)
	}
	_, r := send(t, trigger.Webhook{URL: "http://h/", Query: map[string]string{"s": "$new.s"}}, long)
	require.Equal(t, KindBadURL, r.Kind)
}

func TestDataInTheHostIsRefused(t *testing.T) {
	t.Parallel()
	for configured, base := range map[string]string{
		"https://$new.host/x": "", "https://a.$new.host/": "", "https://h:$new.port/": "", "$new.scheme://h/": "", "https://$new.user@h/": "", "https://h$new.x": "",
		"${BASE}$new.x": "https://h", "${BASE}/$new.x": "https:/", "${BASE}/x/$new.x": "https://h:99999",
	} {
		_, err := NewEndpoint(trigger.Webhook{URL: configured}, env("BASE", base))
		require.Error(t, err, configured)
	}
	_, err := NewEndpoint(trigger.Webhook{URL: "https://h", Headers: map[string]string{"Host": "$new.host"}}, env())
	require.ErrorContains(t, err, "a host can't")
	ep := endpoint(t, trigger.Webhook{URL: "${BASE}/$new.x"}, "BASE", "https://u:p@h:81/base")
	require.Equal(t, "https://h:81", ep.Origin())
	require.Equal(t, "https://<redacted>@h:81/${BASE}/$new.x", ep.String())
}

func TestAPreviewIsTheRequestWithoutSecrets(t *testing.T) {
	t.Parallel()
	w := trigger.Webhook{
		URL: "https://h/$new.id?key=verysecret", Query: map[string]string{"token": "verysecret", "t": "${TOKEN}", "id": "$new.id", "from": "shop"},
		Headers: map[string]string{"X-A": "${TOKEN} $new.id", "Authorization": "Bearer $new.id"}, Body: `{"t":"${TOKEN}","id":"$new.id"}`,
	}
	p, err := newClient(t, ClientConfig{}).Preview(endpoint(t, w, "TOKEN", "verysecret2"), orderPlaced())
	require.NoError(t, err)
	require.Equal(t, "https://h/1?key=<redacted>&from=shop&id=1&t=${TOKEN}&token=<redacted>", p.URL)
	require.Equal(t, "https://h/$new.id?key=<redacted>&from=shop&id=$new.id&t=${TOKEN}&token=<redacted>", p.Template)
	require.Contains(t, string(p.Header), `"X-A":"${TOKEN} 1"`)
	require.Contains(t, string(p.Header), `"Authorization":"<redacted>"`)
	require.Equal(t, `{"t":"${TOKEN}","id":1}`, string(p.Body))
	w.URL = "${BASE}/$new.id"
	p, headers, err := Unexpanded(w, orderPlaced(), true)
	require.NoError(t, err)
	require.Equal(t, "${BASE}/1?from=shop&id=1&t=${TOKEN}&token=<redacted>", p.URL)
	require.Equal(t, "${TOKEN} 1", headers["X-A"])
	require.Equal(t, `[{"t":"${TOKEN}","id":1}]`, string(p.Body))
}

func TestTextsWithoutDataKeepTheirDollars(t *testing.T) {
	t.Parallel()
	got, _ := send(t, trigger.Webhook{URL: "http://h/$$a/$b?c=$$", Headers: map[string]string{"X-P": "pa$$word $5", "X-Q": "$${A}", "X-R": "$$new.id"}}, orderPlaced())
	require.Equal(t, "/$$a/$b?c=$$", got.RequestURI)
	require.Equal(t, "pa$$word $5", got.Header.Get("X-P"))
	require.Equal(t, "${A}", got.Header.Get("X-Q"))
	require.Equal(t, "$new.id", got.Header.Get("X-R"))
}

// FuzzRequest puts any row into each part of a request. The request's line, host and headers, and the
// structure of its body, stay those of the configuration.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"s":"x"}`, `{"s":"a\r\nHost: evil\r\n\r\nGET /x HTTP/1.1"}`, `{"s":"../../admin"}`, `{"s":"%2e%2e%2fadmin"}`, `{"s":"@evil/"}`, `{"s":"?a=b&c=d#e"}`, `{"s":"\u0000\ud800\u007f"}`, `{"s":"https://evil/"}`,
		`{"s":{"a":"\r\n"}}`, `{"s":["\"",1e999]}`, `{"s":"\",\"x\":\""}`, `{"s":" HTTP/1.1\r\n"}`, `{"s":";jsessionid=1"}`, `{"s":" lead "}`, `{"s":"\u2028\u00a0 é 🐘"}`, `{"s":null}`, `{"s":"&x=1"}`, `{"s":"\t"}`,
	} {
		f.Add(seed)
	}
	client := newClient(f, ClientConfig{})
	ep := endpoint(f, trigger.Webhook{
		URL: "https://user:pass@h.example:8443/a/$new.s/b-${new.s}/?q=$new.s", Query: map[string]string{"r": "$new.s", "t": "x ${new.s} y"},
		Headers: map[string]string{"X-S": "$new.s", "X-T": "x ${new.s}"}, Body: `{"s":"$new.s","t":"x ${new.s}"}`, Secret: vectorSecret,
	})
	form := endpoint(f, trigger.Webhook{URL: "https://h/", Form: map[string]string{"s": "$new.s", "t": "x ${new.s} y"}})
	f.Fuzz(func(t *testing.T, row string) {
		if !json.Valid([]byte(row)) || !utf8.ValidString(row) {
			return
		}
		s := newScratch()
		m, bad := client.make(context.Background(), ep, parcel{event: orderWith(row)}, nil, time.Now(), s)
		if bad != nil {
			require.Contains(t, []Kind{KindBadURL, KindTooLarge}, bad.kind)
			require.NotContains(t, bad.err, "\n")
			return
		}
		req := ep.request.Clone(context.Background())
		req.URL, req.Header = m.url, m.header
		attach(req, m.body)
		var out strings.Builder
		require.NoError(t, req.Write(&out))
		got, err := http.ReadRequest(bufio.NewReader(strings.NewReader(out.String())))
		require.NoError(t, err)
		head, _, _ := strings.Cut(out.String(), "\r\n\r\n")
		require.Equal(t, 10, strings.Count(head, "\r\n"), head)
		require.NotContains(t, strings.ReplaceAll(head, "\r\n", ""), "\n")
		require.Equal(t, "POST", got.Method)
		require.Equal(t, "h.example:8443", got.Host)
		require.Equal(t, 4, strings.Count(got.URL.EscapedPath(), "/"), got.RequestURI)
		require.True(t, strings.HasPrefix(got.URL.EscapedPath(), "/a/"))
		query, err := url.ParseQuery(got.URL.RawQuery)
		require.NoError(t, err)
		require.Len(t, query, 3)
		require.Equal(t, 2, strings.Count(got.URL.RawQuery, "&"))
		body, err := io.ReadAll(got.Body)
		require.NoError(t, err)
		require.NoError(t, Verify(vectorSecret, got.Header, body, time.Now()))
		var members map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(body, &members), "%s", body)
		require.Len(t, members, 2)
		var text string
		require.NoError(t, json.Unmarshal(members["t"], &text))

		m, bad = client.make(context.Background(), form, parcel{event: orderWith(row)}, nil, time.Now(), s)
		require.Nil(t, bad)
		fields, err := url.ParseQuery(string(m.body))
		require.NoError(t, err)
		require.Len(t, fields, 2)
		require.Equal(t, "x "+fields.Get("s")+" y", fields.Get("t"))
	})
}

func BenchmarkRequests(b *testing.B) {
	client := newClient(b, ClientConfig{})
	for name, w := range map[string]trigger.Webhook{
		"plain":  {URL: "https://h/x"},
		"body":   {URL: "https://h/x", Body: `{"id":"$new.id","amount":"$new.amount","big":"$new.big","text":"Order ${new.id}"}`},
		"url":    {URL: "https://h/x/$new.id", Query: map[string]string{"a": "$new.amount"}},
		"header": {URL: "https://h/x", Headers: map[string]string{"X-Id": "$new.id"}},
		"form":   {URL: "https://h/x", Body: trigger.BodyForm},
	} {
		b.Run(name, func(b *testing.B) {
			ep, e, s := endpoint(b, w), orderPlaced(), newScratch()
			b.ReportAllocs()
			for b.Loop() {
				if _, bad := client.make(context.Background(), ep, parcel{event: e}, nil, time.Time{}, s); bad != nil {
					b.Fatal(bad)
				}
			}
		})
	}
}

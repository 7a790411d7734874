package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/webapi"
	"github.com/rowhook/rowhook/internal/webapi/apitest"
	"github.com/rowhook/rowhook/webhook"
)

// desk sends requests to the control interface of a sink, and holds each answer to the document.
type desk struct {
	*sender
	sink *Sink
	doc  *apitest.Document
}

func newDesk(t *testing.T, s *Sink) *desk {
	text, err := Document()
	require.NoError(t, err)
	return &desk{start(t, s), s, apitest.NewDocument(t, text)}
}

// ask sends body as JSON, unless it is empty, and returns the status and the body of the answer.
func (d *desk) ask(method, path, body string, header ...string) (int, string) {
	d.Helper()
	req, err := http.NewRequestWithContext(d.Context(), method, d.server.URL+path, strings.NewReader(body))
	require.NoError(d, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := d.server.Client().Do(req)
	require.NoError(d, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(d, err)
	require.Equal(d, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	d.doc.Check(d.T, req, []byte(body), resp, text)
	return resp.StatusCode, string(text)
}

func TestAListOfDeepBodiesStaysSmall(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	body := `{"id":"00000000-0000-0000-0000-000000000001","created_at":"2026-01-01T00:00:00Z","table":{"schema":"public","name":"orders"},` +
		`"trigger":{"name":"order_placed"},"event":{"op":"INSERT","data":{"old":null,"new":` + deep + `}},"delivery_info":{"current_retry":0,"max_retries":5}}`
	resp, err := d.server.Client().Post(d.server.URL+"/x", "application/json", strings.NewReader(body))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	_, text := d.ask("GET", "/deliveries", "")
	require.Contains(t, text, deep)
	require.Less(t, len(text), 2*len(body)+2000)
}

// deliveries is an answer with deliveries.
type deliveries struct {
	Counts
	Matching   int
	Cursor     uint64
	Deliveries []struct {
		Sequence  uint64
		ID        string
		Attempt   int
		Status    int
		Signature string
		Body      json.RawMessage
	}
}

// found sends a request that must succeed.
func (d *desk) found(method, path, body string) (out deliveries) {
	d.Helper()
	status, text := d.ask(method, path, body)
	require.Equal(d, 200, status, text)
	require.NoError(d, json.Unmarshal([]byte(text), &out))
	require.NotNil(d, out.Deliveries)
	return out
}

// refused sends a request that must fail, and returns the problem as one text.
func (d *desk) refused(method, path, body string, header ...string) string {
	d.Helper()
	status, text := d.ask(method, path, body, header...)
	var p webapi.Problem
	require.NoError(d, json.Unmarshal([]byte(text), &p), text)
	require.Equal(d, status, p.Status)
	require.Contains(d, p.Explanation, p.Detail)
	require.Contains(d, p.Explanation, p.Remedy)
	return fmt.Sprintf("%d %s: %s: %s\n%s", p.Status, p.Code, p.Detail, p.Remedy, p.Explanation)
}

func query(pairs ...string) string {
	var parts []string
	for i := 0; i < len(pairs); i += 2 {
		parts = append(parts, pairs[i]+"="+url.QueryEscape(pairs[i+1]))
	}
	return "/deliveries?" + strings.Join(parts, "&")
}

func TestEveryOperationAnswersAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	d.secret = secret
	require.True(t, new(d.send("/hooks", order(7, "Ada"))).Delivered())
	require.Equal(t, 1, d.found("GET", "/deliveries", "").Matching)
	got := d.found("GET", query("trigger", "order_placed", "op", "insert", "table", "public.orders", "id", "00000000-0000-0000-0000-000000000007",
		"path", "new.id", "value", "7", "path", "new.customer", "attempt", "1", "accepted", "true", "test", "false", "after", "0", "attempts", "all",
		"count", "1", "wait", "5s", "last", "3"), "")
	require.Equal(t, []any{1, uint64(1), "unchecked"}, []any{got.Matching, got.Cursor, got.Deliveries[0].Signature})
	d.ask("POST", "/verify", `{"match": {"trigger": "order_placed", "op": "INSERT", "table": "orders", "where": {"new.id": 7}, "present": ["new.customer"]}, "count": 1, "within": "1s"}`)
	status, text := d.ask("PUT", "/behaviour", `{"trigger": "order_placed", "where": {"new.id": 8}, "present": ["new.customer"], "statuses": [503, 200], "retry_after": "2s", "delay": "1ms", "fail_rate": 0.1, "seed": 1, "body": "so"}`)
	require.Equal(t, 200, status, text)
	require.JSONEq(t, `{"id": 1, "trigger": "order_placed", "where": {"new.id": 8}, "present": ["new.customer"], "statuses": [503, 200], "retry_after": "2s", "delay": "1ms", "fail_rate": 0.1, "seed": 1, "body": "so"}`, text)
	_, text = d.ask("GET", "/behaviour", "")
	require.Contains(t, text, `"statuses":[503,200]`)
	_, text = d.ask("DELETE", "/behaviour?id=1", "")
	require.JSONEq(t, `{"removed": 1}`, text)
	for _, path := range []string{"/", "/healthz", "/openapi.json", "/openapi.yaml"} {
		status, _ = d.ask("GET", path, "")
		require.Equal(t, 200, status)
	}
	_, text = d.ask("DELETE", "/deliveries?trigger=order_placed", "")
	require.JSONEq(t, `{"dropped": 1}`, text)
	require.Equal(t, Counts{Requests: 1, Accepted: 1, Events: 1}, d.found("GET", "/deliveries", "").Counts, "the counts are of all")
	_, text = d.ask("DELETE", "/deliveries", "")
	require.JSONEq(t, `{"dropped": 0}`, text)
	require.Equal(t, deliveries{Cursor: 1, Deliveries: got.Deliveries[:0]}, d.found("GET", "/deliveries", ""))
	require.Empty(t, d.doc.Unseen(), "they were not asked for")
}

func TestOperationsAndDocumentAgree(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	var described, there []string
	for path, item := range d.doc.Paths.Map() {
		for method, o := range item.Operations() {
			var query []string
			for _, p := range o.Parameters {
				query = append(query, p.Value.Name)
			}
			slices.Sort(query)
			described = append(described, fmt.Sprint(method, " ", path, " ", query))
		}
	}
	for _, o := range d.sink.operations() {
		there = append(there, fmt.Sprint(o.method, " ", o.path, " ", slices.Sorted(slices.Values(o.query))))
		require.Equal(t, o.path != "/" && o.path != "/healthz", takesOver(o.path))
	}
	require.ElementsMatch(t, there, described)
}

func TestAWaitEndsWhenTheLastOneArrives(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{Behaviour: Behaviour{Fail: 1}})
	answer := make(chan deliveries, 1)
	go func() {
		answer <- d.found("GET", "/deliveries?trigger=order_placed&path=new.customer&value=Ada&count=2&wait=1m", "")
	}()
	for _, id := range []int{7, 8} {
		require.Equal(t, 500, d.send("/", order(id, "Ada")).Status)
		require.Equal(t, 500, d.send("/", order(id+100, "Grace")).Status)
	}
	require.Empty(t, answer)
	d.send("/", order(7, "Ada"))
	d.send("/", order(7, "Ada"))
	require.Empty(t, answer, "a duplicate is not another event")
	d.send("/", order(8, "Ada"))
	got := <-answer
	require.Equal(t, 2, got.Matching)
	require.Len(t, got.Deliveries, 2)
	require.Equal(t, 2, got.Deliveries[0].Attempt)
	require.Equal(t, 3, d.found("GET", "/deliveries?path=new.id&value=7", "").Matching, "a list has all attempts")
	require.Equal(t, 2, d.found("GET", "/deliveries?attempt=2&count=2&last=1", "").Deliveries[0].Attempt)
	require.Equal(t, 4, d.found("GET", "/deliveries?accepted=false&count=4", "").Matching)
}

func TestAMissIsExplained(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	d.send("/", order(8, "Ada"))
	status, text := d.ask("GET", "/deliveries?trigger=order_placed&path=new.id&value=7&wait=20ms", "")
	require.Equal(t, 408, status)
	var miss struct {
		Code, Detail, Explanation string
		Nearest                   struct {
			Sequence    int
			Differences []struct{ Path, Got, Want string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(text), &miss))
	require.Equal(t, "too_few", miss.Code)
	require.Equal(t, "no delivery of order_placed with new.id = 7 arrived within 20ms", miss.Detail)
	require.Contains(t, miss.Explanation, "(attempt 1, answered 200)\nnearest: new.id is 8, wanted 7")
	require.Equal(t, []struct{ Path, Got, Want string }{{"new.id", "8", "7"}}, miss.Nearest.Differences)
	require.Contains(t, d.refused("GET", "/deliveries?count=2", ""), "408 too_few: 1 of 2 deliveries has arrived: to wait for it, give a time such as 5s")
	require.Contains(t, d.refused("POST", "/verify", `{"match": {"where": {"new.id": "8"}}}`), `nearest: new.id is 8, wanted "8"`)
	require.Contains(t, d.refused("POST", "/verify", `{"match": {"where": {"new.id": 8}}, "count": 2, "within": "1ms"}`), "408 too_few: 1 of 2 deliveries with new.id = 8 arrived within 1ms")
	require.Contains(t, d.refused("POST", "/verify", `{"match": {"where": {"new.id": 8.0}}, "never": true, "within": "1m"}`), "409 unwanted: a delivery with new.id = 8.0 arrived, wanted none")
	require.Contains(t, d.refused("POST", "/verify", `{"match": {}, "count": 0}`), "409 unwanted")
	d.send("/", order(9, "Ada"))
	require.Contains(t, d.refused("POST", "/verify", `{"match": {"trigger": "order_placed"}, "count": 1, "within": "1m"}`), "409 too_many: more than 1 delivery of order_placed arrived, wanted exactly 1")
	require.Zero(t, d.found("POST", "/verify", `{"match": {"where": {"new.id": 10}}, "never": true, "within": "1ms"}`).Matching)
	require.Equal(t, 2, d.found("POST", "/verify", `{"match": {}}`).Matching)
}

func TestACountThatSettlesSeesWhatComesLater(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	d.send("/", order(7, "Ada"))
	refused := func(body string) <-chan string {
		answer := make(chan string, 1)
		go func() {
			defer close(answer) // also if it is not refused
			answer <- d.refused("POST", "/verify", body)
		}()
		return answer
	}
	answer := refused(`{"match": {"trigger": "order_placed"}, "count": 1, "settle": "10m"}`)
	somebodyWaits(t, d.sink)
	d.send("/", order(7, "Ada"))
	require.Empty(t, answer, "a duplicate is not another event")
	d.send("/", order(8, "Ada"))
	require.Contains(t, <-answer, "409 too_many: more than 1 delivery of order_placed arrived, wanted exactly 1")
	require.Equal(t, 2, d.found("POST", "/verify", `{"match": {}, "count": 2, "settle": "1ms"}`).Matching)
	require.Equal(t, 3, d.found("POST", "/verify", `{"match": {"attempts": "all"}, "count": 3, "settle": "1ms"}`).Matching)
	d.sink.journal.announce() // those before wait no longer
	answer = refused(`{"match": {}, "count": 2, "settle": "10s"}`)
	somebodyWaits(t, d.sink)
	d.sink.Forget(Match{Where: where(t, "new.id", 8)})
	require.Contains(t, <-answer, "408 too_few: 1 of 2 deliveries arrived within 10s")
}

func TestTriggersThatDoNotExistAreRefusedWhereTheyAreKnown(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{Triggers: func() []string { return []string{"order_placed", "note_written"} }})
	for _, request := range []string{
		"GET /deliveries?trigger=note_writtn&wait=5s",
		"DELETE /deliveries?trigger=note_writtn",
		`POST /verify {"match":{"trigger":"note_writtn"},"never":true}`,
		`PUT /behaviour {"trigger":"note_writtn","status":503}`,
		"DELETE /behaviour?trigger=note_writtn",
	} {
		method, rest, _ := strings.Cut(request, " ")
		path, body, _ := strings.Cut(rest, " ")
		require.Contains(t, d.refused(method, path, body), `400 invalid: there is no trigger "note_writtn"; did you mean note_written?: the triggers are order_placed, note_written`, request)
	}
	require.Zero(t, d.found("POST", "/verify", `{"match":{"trigger":"note_written"},"never":true}`).Matching)
	removed := order(7, "Ada")
	removed.Trigger = "removed_since"
	d.send("/", removed)
	require.Equal(t, 1, d.found("GET", "/deliveries?trigger=removed_since", "").Matching)
	_, err := d.sink.Behave(Rule{Trigger: "another"})
	require.NoError(t, err)
	_, text := d.ask("DELETE", "/behaviour?trigger=another", "")
	require.JSONEq(t, `{"removed": 1}`, text)

	none := newDesk(t, &Sink{Triggers: func() []string { return nil }})
	require.Contains(t, none.refused("GET", "/deliveries?trigger=x", ""), `there is no trigger "x": no trigger is configured`)
}

func TestACursorLeavesOutWhatWasThereBefore(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	d.send("/", order(7, "Ada"))
	cursor := d.found("GET", "/deliveries?last=0", "").Cursor
	require.Contains(t, d.refused("GET", fmt.Sprintf("/deliveries?after=%d&count=1", cursor), ""), "nearest: sequence is 1, wanted more than 1")
	d.send("/", order(8, "Ada"))
	got := d.found("GET", fmt.Sprintf("/deliveries?after=%d&wait=1m", cursor), "")
	require.Equal(t, []any{1, uint64(2)}, []any{got.Matching, got.Deliveries[0].Sequence})
	require.Contains(t, d.refused("GET", "/deliveries?after=3", ""), "the receiver was started again since: begin with after=0")
}

func TestWhatIsWrongIsSaidWithItsRemedy(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	for request, want := range map[string]string{
		"GET /deliveries?tigger=x":                                        `400 invalid: GET /deliveries has no parameter "tigger"; did you mean trigger?: the parameters are trigger,`,
		"GET /deliveries?wait=5":                                          "no unit): write it like 250ms, 10s, 1h30m or 7d: write wait=5s",
		"GET /deliveries?wait=-1s":                                        "negative",
		"GET /deliveries?wait=11m":                                        "wait is 11m, which is more than 10m",
		"GET /deliveries?value=7":                                         "400 invalid: a value is without its path: write path=new.id&value=7",
		"GET /deliveries?path=new.id&value=7&value=8":                     "a value is without its path",
		"GET /deliveries?path=customer&value=7":                           "in new.customer",
		"GET /deliveries?path=":                                           "path is empty",
		"GET /deliveries?trigger=":                                        "trigger is empty: give it a value, or leave it out",
		"GET /deliveries?trigger=a&trigger=b":                             "the parameter trigger is there 2 times: give it once",
		"GET /deliveries?table=%22Guest":                                  `400 invalid: table "Guest: a double quote is not closed; write "Guest Notes" or public."Guest Notes"`,
		"GET /deliveries?op=upsert":                                       "op is \"upsert\", which is no operation; did you mean INSERT?: the operations are INSERT, UPDATE, DELETE, TRUNCATE, MANUAL",
		"GET /deliveries?id=7":                                            "for a column write path=new.id&value=7",
		"GET /deliveries?count=0":                                         `"never": true`,
		"GET /deliveries?count=x":                                         "no whole number from 1 to 100000: write count=10",
		"GET /deliveries?attempt=0":                                       "no whole number of 1 or more",
		"GET /deliveries?attempts=2":                                      "write attempts=all",
		"GET /deliveries?accepted=yes":                                    "write accepted=true or accepted=false",
		"GET /deliveries?last=x":                                          "no whole number of 0 or more: write last=10",
		"GET /deliveries?after=-1":                                        "use the cursor of an answer",
		"GET /deliveries?path=%zz":                                        "percent-encode",
		"DELETE /deliveries?count=1":                                      "has no parameter \"count\"",
		"DELETE /deliveries?trigger=":                                     "trigger is empty",
		"PATCH /deliveries":                                               "405 method_not_allowed: /deliveries does not accept PATCH: use GET, DELETE",
		"GET /verify":                                                     `405 method_not_allowed: /verify does not accept GET: use POST`,
		"PUT /elsewhere":                                                  "405 method_not_allowed: /elsewhere does not accept PUT: send events with POST",
		"GET /delivery":                                                   "404 not_found: there is no /delivery; did you mean /deliveries?: POST events to any path",
		"POST /deliveries":                                                "405 method_not_allowed: /deliveries does not accept a POST that is not an event",
		"POST /verify":                                                    "400 invalid: match is missing",
		"POST /verify []":                                                 "the body is of the kind array, and must be an object",
		"POST /verify {":                                                  "the body is not JSON",
		"POST /verify {} {}":                                              "there is more text after the JSON value",
		`POST /verify {"mach":{}}`:                                        `there is no field "mach"; did you mean match?`,
		`POST /verify {"trigger":"x","within":"1s"}`:                      `there is no field "trigger" at the top; it belongs inside match: write {"match": {"trigger": "x"}}`,
		`POST /verify {"match":{"count":1}}`:                              `there is no field "count" in match; it belongs beside match: the fields are trigger,`,
		`PUT /behaviour {"match":{"trigger":"x"},"status":503}`:           `there is no field "match"; its fields belong at the top: the fields are trigger, where, present, statuses`,
		`PUT /behaviour null`:                                             "400 invalid: the body is null, and must be an object: write {}",
		`POST /verify  null `:                                             "400 invalid: the body is null",
		`PUT /behaviour {"status":204,"body":"x"}`:                        "the answers have no body, since a status of 204 or 304 has none",
		`PUT /behaviour {"statuses":[204,304],"body":"x"}`:                "the answers have no body",
		`PUT /behaviour {"fail":"all","fail_status":304,"body":"x"}`:      "the answers have no body",
		`PUT /behaviour {"statuses":503}`:                                 "400 invalid: statuses is of the kind number, and must be a list",
		`PUT /behaviour {"statuses":["503"]}`:                             "a value in statuses is of the kind string, and must be a whole number",
		`PUT /behaviour {"hang":"yes"}`:                                   "400 invalid: hang is of the kind string, and must be true or false",
		`PUT /behaviour {"retry_after":"500ms"}`:                          "retry_after is 500ms, and Retry-After has whole seconds: write 1s or 2s",
		`PUT /behaviour {"retry_after":"1500ms","retry_after_date":true}`: "retry_after is 1.5s, and",
		`POST /verify {"match":{},"count":1,"settle":"1h"}`:               "settle is 1h, which is more than 10m",
		`POST /verify {"match":{},"settle":"1s"}`:                         "settle is for a count of 1 or more",
		`POST /verify {"match":{},"count":0,"settle":"1s"}`:               "settle is for a count of 1 or more",
		`POST /verify {"match":{"tiger":1}}`:                              `there is no field "tiger" in match; did you mean trigger?`,
		`POST /verify {"match":{"trigger":1}}`:                            "match.trigger is of the kind number, and must be text",
		`POST /verify {"match":{"where":[]}}`:                             "where must be an object of paths",
		`POST /verify {"match":{"where":{"id.":1}}}`:                      "a key is empty",
		`POST /verify {"match":{"present":"new.id"}}`:                     "present must be a list",
		`POST /verify {"match":{"attempt":0}}`:                            "attempts are counted from 1",
		`POST /verify {"match":{"after":-1}}`:                             "must be a whole number from 0",
		`POST /verify {"match":{"op":"x"}}`:                               "op is \"x\"",
		`POST /verify {"match":{},"within":5}`:                            `400 invalid: within: read duration 5: write a string like \"10s\"`,
		`POST /verify {"match":{},"within":"1h"}`:                         "more than 10m",
		`POST /verify {"match":{},"count":-1}`:                            "count is -1",
		`POST /verify {"match":{},"count":1,"never":true}`:                "never and count contradict each other",
		`PUT /behaviour {"status":[503]}`:                                 "status is of the kind array, and must be a whole number",
		`PUT /behaviour {"statuses":[]}`:                                  "statuses is empty",
		`PUT /behaviour {"statuses":[99]}`:                                "the status 99 is not from 200 to 599: for no answer at all use hang or close",
		`PUT /behaviour {"statuses":[503],"hang":true}`:                   "hang and close have no status",
		`PUT /behaviour {"statuses":[503],"fail":1}`:                      "statuses contradicts fail and status",
		`PUT /behaviour {"hang":true,"close":true}`:                       "hang, close and redirect contradict each other",
		`PUT /behaviour {"fail":"some"}`:                                  "fail must be a whole number from 0",
		`PUT /behaviour {"fail_rate":2}`:                                  "fail_rate is not from 0 to 1",
		`PUT /behaviour {"delay":"soon"}`:                                 "is not a duration",
		`PUT /behaviour {"trigger":""}`:                                   "trigger is empty",
		`PUT /behaviour {"retry-after":"1s"}`:                             "did you mean retry_after?",
		"DELETE /behaviour?id=x":                                          "no whole number",
		"DELETE /behaviour?id=1&trigger=x":                                "contradict each other",
	} {
		method, rest, _ := strings.Cut(request, " ")
		path, body, _ := strings.Cut(rest, " ")
		require.Contains(t, strings.ReplaceAll(d.refused(method, path, body), `"10s"`, `\"10s\"`), want, request)
	}
	const many = `"new.a"` // 101 times
	require.Contains(t, d.refused("GET", "/deliveries?"+strings.Repeat("path=new.a&", 101), ""), "400 invalid: there are more than 100 conditions: leave some out")
	require.Contains(t, d.refused("POST", "/verify", `{"match":{"where":{"new.id":7},"present":[`+strings.Repeat(many+",", 99)+many+`]}}`), "there are more than 100 conditions")
	require.Contains(t, d.refused("PUT", "/behaviour", `{"present":[`+strings.Repeat(many+",", 100)+many+`]}`), "there are more than 100 conditions")
	for _, body := range []string{`{"status":204,"fail":1,"body":"x"}`, `{"statuses":[204,503],"body":"x"}`, `{"status":204,"redirect":"/x","body":"x"}`} {
		status, text := d.ask("PUT", "/behaviour", body)
		require.Equal(t, 200, status, text)
	}
	require.Contains(t, d.refused("PUT", "/behaviour", `{"body": "`+strings.Repeat("x", maxBehaviour)+`"}`), "413 too_large")
	require.Zero(t, d.found("GET", "/deliveries", "").Requests, "none of them counts as a delivery")
	resp, err := d.server.Client().Head(d.server.URL + "/deliveries")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, []any{405, "GET, DELETE, POST"}, []any{resp.StatusCode, resp.Header.Get("Allow")})
}

// An answer that is no JSON would hide its text from a helper that parses it.
func TestARejectedPostIsAnsweredWithAProblem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		secret, path, body string
		header             http.Header
		status             int
		want               string
	}{
		{"", "/verfiy", `{"match": {}}`, nil, 400, "the body is JSON, but not an event: id is not a UUID\ndid you mean /verify?"},
		{"", "/hooks", `{`, nil, 400, "the body is not JSON from byte 1 on: unexpected end of JSON input\nPOST is for events; to ask the receiver use GET /deliveries, POST /verify or PUT /behaviour"},
		{secret, "/hooks", string(webhook.AppendBody(nil, order(1, "Ada"))), nil, 401, "webhook-signature is missing\nsign requests with the secret of this receiver"},
		{"", "/verify", `{"match": {}}`, http.Header{"Webhook-Id": {"1"}}, 400, "POST is for events"},
	} {
		to := start(t, &Sink{Secret: c.secret})
		req, err := http.NewRequestWithContext(t.Context(), "POST", to.server.URL+c.path, strings.NewReader(c.body))
		require.NoError(t, err)
		for name := range c.header {
			req.Header.Set(name, c.header.Get(name))
		}
		resp, err := to.server.Client().Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		var p webapi.Problem
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&p))
		require.Equal(t, []any{c.status, c.status, webapi.ProblemType}, []any{resp.StatusCode, p.Status, resp.Header.Get("Content-Type")})
		require.Contains(t, p.Explanation, c.want)
	}
}

func TestEventsAreReceivedAtThePathsOfTheControlInterface(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	paths := []string{"/verify", "/deliveries", "/behaviour", "/openapi.json", "/healthz", "/"}
	for n, path := range paths {
		require.True(t, new(to.send(path, order(n, "Ada"))).Delivered(), path)
	}
	to.secret = secret
	require.Equal(t, 400, to.sendBody("/verify", order(7, "Ada"), []byte(`{"match": {}}`)).Status, "what is signed is an event, be it a bad one")
	require.Equal(t, Counts{Requests: 7, Accepted: 6, Events: 6, Rejected: 1}, s.Counts())
}

func TestPagesAndOtherHostsNamesAreKeptOut(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	for _, request := range []string{"GET /deliveries", "DELETE /deliveries", "POST /verify", "PUT /behaviour", "DELETE /behaviour", "GET /behaviour"} {
		method, path, _ := strings.Cut(request, " ")
		require.Contains(t, d.refused(method, path, "", "Host", "evil.example.com"), "403 wrong_host")
		require.Contains(t, d.refused(method, path, "", "Host", "evil.example.com:80"), "403 wrong_host")
		require.Contains(t, d.refused(method, path, "", "Origin", "http://evil.example.com"), "403 cross_origin")
		require.Contains(t, d.refused(method, path, "", "Sec-Fetch-Site", "cross-site"), "403 cross_origin")
	}
	for _, host := range []string{"localhost", "localhost:1234", "127.0.0.1", "[::1]:80"} {
		status, _ := d.ask("GET", "/deliveries", "", "Host", host)
		require.Equal(t, 200, status, host)
	}
	status, _ := d.ask("GET", "/healthz", "", "Host", "receiver.example.com")
	require.Equal(t, 200, status, "probes may use any name")
}

func TestBehaviourIsSetForOneTriggerWhileItRuns(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	put := func(body string) {
		t.Helper()
		status, text := d.ask("PUT", "/behaviour", body)
		require.Equal(t, 200, status, text)
	}
	put(`{"where": {"new.id": 9}, "redirect": "/elsewhere"}`)
	put(`{"trigger": "order_placed", "statuses": [503, 200], "retry_after": "2s"}`)
	put(`{"fail": 1, "fail_status": 429, "status": 202, "body": "wait"}`)
	var wave []chan []int
	for id := range 8 { // in parallel, each event has its own row of statuses
		c := make(chan []int, 1)
		wave = append(wave, c)
		go func() {
			e := order(id, "Ada")
			c <- []int{d.send("/", e).Status, d.send("/", e).Status, d.send("/", e).Status}
		}()
	}
	for _, c := range wave {
		require.Equal(t, []int{503, 200, 200}, <-c)
	}
	require.Equal(t, 302, d.send("/", order(9, "Ada")).Status)
	other := order(20, "Ada")
	other.Trigger = "other"
	r := d.send("/", other)
	require.Equal(t, []any{429, "wait"}, []any{r.Status, string(r.Body)})
	require.Equal(t, 202, d.send("/", other).Status)
	_, text := d.ask("DELETE", "/behaviour?trigger=order_placed", "")
	require.JSONEq(t, `{"removed": 1}`, text)
	require.Equal(t, 429, d.send("/", order(10, "Ada")).Status, "the rule for all holds again")
	d.ask("DELETE", "/behaviour", "")
	require.Equal(t, 200, d.send("/", order(9, "Ada")).Status)
}

func TestWaitsEndWithTheReceiverAndWithTheirClients(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &Sink{}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	to := &sender{T: t, server: &httptest.Server{URL: "http://" + l.Addr().String()}, client: webhook.NewClient(webhook.ClientConfig{}), timeout: time.Minute}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(ctx context.Context) (int, error) {
		req, err := http.NewRequestWithContext(ctx, "GET", to.server.URL+"/deliveries?path=new.id&value=99&wait=10m", nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, nil
	}
	waiting := func() bool { return s.controlling.Load() > 0 }
	gone, leave := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() {
		_, err := ask(gone)
		left <- err
	}()
	require.Eventually(t, waiting, time.Minute, time.Millisecond)
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	require.Eventually(t, func() bool { return !waiting() }, time.Minute, time.Millisecond)

	status := make(chan int, 1)
	go func() {
		got, err := ask(context.Background())
		if err != nil {
			t.Error(err)
		}
		status <- got
	}()
	require.Eventually(t, waiting, time.Minute, time.Millisecond)
	require.True(t, new(to.send("/", order(1, "Ada"))).Delivered(), "a wait holds nothing up")
	to.client.Close()
	stop()
	require.Equal(t, 503, <-status)
	require.NoError(t, <-served)
}

func TestTooManyWaitsAreRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	d.sink.controlling.Store(maxControl)
	require.Contains(t, d.refused("GET", "/deliveries", ""), "503 too_many")
	require.True(t, new(d.send("/", order(1, "Ada"))).Delivered())
	d.sink.controlling.Store(0)
}

func TestListsOfAnyLengthAreJSON(t *testing.T) {
	t.Parallel()
	d := newDesk(t, &Sink{})
	for n := range 3 {
		require.Len(t, d.found("GET", "/deliveries", "").Deliveries, n)
		d.send("/", order(n, `<&> "`))
	}
	_, text := d.ask("GET", "/deliveries", "")
	require.Contains(t, text, `"customer": "<&> \""`)
	source, err := os.ReadFile("openapi.yaml")
	require.NoError(t, err)
	_, text = d.ask("GET", "/openapi.yaml", "")
	require.True(t, bytes.Equal(source, []byte(text)))
}

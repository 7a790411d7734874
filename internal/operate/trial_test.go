package operate_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// variables is the environment of a trial.
func variables(all map[string]string) func(trigger.Webhook) trigger.Source {
	return func(trigger.Webhook) trigger.Source {
		return trigger.Variables(func(name string) (string, bool) {
			value, ok := all[name]
			return value, ok
		})
	}
}

// taken is a receiver that takes one request after another.
type taken struct {
	*httptest.Server
	requests chan *http.Request // with its body read
	bodies   chan string
}

func newTaken(t *testing.T, status int) *taken {
	r := &taken{requests: make(chan *http.Request, 9), bodies: make(chan string, 9)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.requests <- req
		r.bodies <- string(body)
		w.Header().Set("X-Request-Id", "r1")
		w.Header().Set("Set-Cookie", "hidden")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "hidden-token is what I got")
	}))
	t.Cleanup(r.Close)
	return r
}

func TestATestIsSentLikeARealEventAndMarkedAndWritesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "orders")
	r := newTaken(t, http.StatusAccepted)
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	d.Apply(t, d.Spec("orders", func(s *trigger.Spec) {
		s.Webhook.URL, s.Webhook.Secret = "${HOST}/hooks?key=hidden", "${SECRET}"
		s.Webhook.Headers = map[string]string{"Authorization": "Bearer ${TOKEN}", "X-Shop": "eu", "rowhook-test": "0"}
	}))
	state := func() string {
		return d.ids(t, `select concat_ws(' ', (select count(*) from rowhook.event_log), (select count(*) from rowhook.invocation_log), (select count(*) from rowhook.event_archive),
			(select count(*) from rowhook.dead_letter), (select count(*) from rowhook.audit), (select count(*) from orders), (select sum(delivered + failed) from rowhook.activity))`)[0]
	}
	before := state()
	trial := operate.Trial{Trigger: "orders", Source: variables(map[string]string{"HOST": r.URL, "SECRET": secret, "TOKEN": "hidden-token"}), Version: "v9"}
	result, err := operate.Try(t.Context(), d.conn, trial)
	require.NoError(t, err)
	require.NoError(t, result.Err())
	require.Equal(t, before, state())

	req, body := <-r.requests, <-r.bodies
	require.Equal(t, "/hooks?key=hidden", req.URL.String())
	require.Equal(t, "1", req.Header.Get("Rowhook-Test"))
	require.Equal(t, "Bearer hidden-token", req.Header.Get("Authorization"))
	require.Equal(t, "Rowhook/v9", req.Header.Get("User-Agent"))
	require.Equal(t, result.Event, req.Header.Get("Webhook-Id"))
	require.NoError(t, webhook.Verify(secret, req.Header, []byte(body), time.Now()))
	require.Equal(t, body, string(result.Request.Body))
	require.True(t, strings.HasSuffix(body, `"delivery_info":{"current_retry":0,"max_retries":12},"test":true}`), body)
	require.Contains(t, body, `"event":{"op":"INSERT","data":{"old":null,"new":{"id":1,"v":"v 1","n":11.5}}`)

	require.True(t, result.Sent && result.Delivered)
	require.Equal(t, http.StatusAccepted, *result.Status)
	require.Positive(t, *result.DurationMS)
	text, err := json.Marshal(result)
	require.NoError(t, err)
	require.NotContains(t, string(text), "hidden")
	require.Contains(t, string(result.ResponseHeaders), `"X-Request-Id":"r1"`)
	require.Contains(t, result.ResponseBody, "${TOKEN} is what I got")

	trial.Unsent = true
	result, err = operate.Try(t.Context(), d.conn, trial)
	require.NoError(t, err)
	require.NoError(t, result.Err())
	require.False(t, result.Sent)
	require.Nil(t, result.Status)
	require.Empty(t, r.requests)
	require.Contains(t, string(result.Request.Headers), `"Webhook-Signature":"v1,`)
	require.Contains(t, string(result.Request.Headers), `"Rowhook-Test":"1"`)
	require.NotContains(t, string(result.Request.Headers), "hidden")
}

func TestATestTakesTheOperationAndTheDataThatWereAskedFor(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "orders")
	d.Table(t, "kept")
	d.do(t, "create table deleted (id int); create table bare (); create table parted (dropped int, id int, twice int generated always as (id * 2) stored) partition by list (id); alter table parted drop dropped")
	d.Apply(t, d.Spec("orders", func(s *trigger.Spec) { s.On.Update.Columns = []string{"n"} }),
		d.Spec("kept", func(s *trigger.Spec) { s.On.Insert, s.On.Delete, s.Payload.Columns = false, false, []string{"n", "id"} }),
		d.Spec("bare"), d.Spec("parted"), d.Spec("deleted", func(s *trigger.Spec) { s.On = trigger.On{Delete: true} }))
	sent := func(name, op, data string) (string, error) {
		o := operate.Trial{Trigger: name, Op: op, Source: variables(nil), Unsent: true}
		if data != "" {
			o.Payload = json.RawMessage(data)
		}
		r, err := operate.Try(t.Context(), d.conn, o)
		if err != nil {
			return "", err
		}
		var body struct {
			Event struct{ Data json.RawMessage }
		}
		require.NoError(t, json.Unmarshal(r.Request.Body, &body), "%s", r.Request.Body)
		return r.Op + " " + string(body.Event.Data), nil
	}
	for _, c := range [][4]string{
		{"orders", "", "", `INSERT {"old":null,"new":{"id":1,"v":"v 1","n":11.5}}`},
		{"orders", "update", "", `UPDATE {"old":{"id":1,"v":"v 1","n":11.5},"new":{"id":1,"v":"v 1","n":12.5}}`},
		{"orders", "Delete", "", `DELETE {"old":{"id":1,"v":"v 1","n":11.5},"new":null}`},
		{"orders", "manual", "", `MANUAL {"old":null,"new":{"sample":1}}`},
		{"kept", "", "", `UPDATE {"old":{"n":11.5,"id":1},"new":{"n":11.5,"id":1}}`}, // v changed
		{"deleted", "", "", `DELETE {"old":{"id":1},"new":null}`},
		{"bare", "update", "", `UPDATE {"old":{},"new":{}}`},
		{"parted", "", "", `INSERT {"old":null,"new":{"id":1,"twice":1}}`},
		{"orders", "", ` {"id": 7.10} `, `INSERT {"old":null,"new":{"id": 7.10}}`},
		{"deleted", "", `{"id": 7}`, `DELETE {"old":{"id": 7},"new":null}`},
		{"orders", "update", `{"new": {"id": 7}, "old": {"id": 6}}`, `UPDATE {"old":{"id": 6},"new":{"id": 7}}`},
		{"orders", "", `{"new": [1]}`, `INSERT {"old":null,"new":[1]}`},
		{"orders", "", `{"new": 1, "old": 2, "id": 3}`, `INSERT {"old":null,"new":{"new": 1, "old": 2, "id": 3}}`},
		{"orders", "manual", `"text"`, `MANUAL {"old":null,"new":"text"}`},
	} {
		got, err := sent(c[0], c[1], c[2])
		require.NoError(t, err, c)
		require.Equal(t, c[3], got, c)
	}
	_, err := sent("deleted", "insert", "")
	require.ErrorIs(t, err, operate.ErrInvalid)
	require.ErrorContains(t, err, "it captures delete")
	for _, bad := range []string{"{", "x", "\"\xff\""} {
		_, err = sent("orders", "", bad)
		require.ErrorIs(t, err, operate.ErrInvalid)
	}
	d.Apply(t, d.Spec("orders"))
	_, err = sent("kept", "", "")
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "was removed")
	_, err = sent("order", "", "")
	require.ErrorContains(t, err, "did you mean orders?")
	d.do(t, "drop table orders cascade")
	_, err = sent("orders", "", "")
	require.ErrorContains(t, err, "does not exist any more: give the data by --payload")
	_, err = sent("orders", "", "{}")
	require.NoError(t, err)
}

func TestATestThatFailsSaysWhatToDo(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "orders")
	hangs := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hangs:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/secret", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	server := httptest.NewServer(mux)
	t.Cleanup(func() { close(hangs); server.Close() })
	for path, want := range map[string]string{
		server.URL + "/hang":                            "webhook.timeout",
		server.URL + "/secret":                          "the secret and the headers",
		server.URL + "/moved":                           "the URL that it redirects to",
		server.URL + "/broken":                          "the receiver's log",
		server.URL + "/other":                           "correct the path",
		"http://127.0.0.1:1":                            "start the receiver",
		"http://nowhere.invalid":                        "correct the host",
		strings.Replace(server.URL, "http", "https", 1): "certificate",
	} {
		d.Apply(t, d.Spec("orders", func(s *trigger.Spec) { s.Webhook.URL = path }))
		r, err := operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "orders", Source: variables(nil), Timeout: time.Second})
		require.NoError(t, err, path)
		require.False(t, r.Delivered)
		require.ErrorContains(t, r.Err(), want, path)
	}
	d.Apply(t, d.Spec("orders", func(s *trigger.Spec) { s.Webhook.URL = server.URL }))
	r, err := operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "orders", Source: variables(nil), Guard: webhook.Guard{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	require.NoError(t, err)
	require.Equal(t, "denied", r.ErrorKind)
	require.ErrorContains(t, r.Err(), "allow it under network in rowhook.yaml: for this test alone, pass --allow-addresses")

	settings := trigger.DefaultSettings()
	settings.Network.Deny = []string{"loopback"}
	_, err = sqlschema.Apply(t.Context(), d.conn, []trigger.Spec{d.Spec("orders", func(s *trigger.Spec) { s.Webhook.URL = server.URL })}, settings, nil)
	require.NoError(t, err)
	r, err = operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "orders", Source: variables(nil)})
	require.NoError(t, err)
	require.Equal(t, "denied", r.ErrorKind, "as applied")

	d.Apply(t, d.Spec("orders", func(s *trigger.Spec) { s.Webhook.URL, s.Webhook.Secret = "${HOST}/x", "${SECRET}" }))
	for _, unsent := range []bool{false, true} {
		_, err = operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "orders", Source: variables(map[string]string{"SECRET": "x"}), Unsent: unsent})
		require.ErrorIs(t, err, operate.ErrRefused)
		require.ErrorContains(t, err, "HOST is not set")
		require.ErrorContains(t, err, "with the environment and the files of the dispatcher")
	}
}

// The made-up row is what Postgres would write of such a row, for every type.
func TestAMadeUpRowIsWrittenAsPostgresWritesIt(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	columns := map[string]string{
		"array2": "int[]", "texts": "text[]", "moods": "mood[]", "points": "address[]", "vat": "vat", "place": "address", "nested": "outer_type", "mood": "mood", "one": "single",
	}
	for i, name := range []string{
		"bool", "int2", "int4", "int8", "float4", "float8", "numeric", "numeric(6,2)", "numeric(3,3)", "numeric(1,0)", "numeric(2)", "numeric(5,1)", "text", "varchar", "varchar(3)", "char(2)", "char(12)", "\"char\"", "name",
		"bytea", "uuid", "json", "jsonb", "date", "time", "time(3)", "timetz", "timestamp", "timestamptz", "timestamptz(0)", "interval", "inet", "cidr", "macaddr", "macaddr8",
		"money", "bit", "bit(5)", "varbit", "xml", "oid", "pg_lsn", "tsvector", "tsquery", "point", "line", "lseg", "box", "path", "polygon", "circle",
		"int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange", "int4multirange", "nummultirange", "tstzmultirange",
	} {
		columns["c"+string(rune('a'+i/26))+string(rune('a'+i%26))] = name
	}
	if d.ids(t, "select current_setting('server_version_num')")[0] >= "150000" {
		columns["rounded"], columns["small"] = "numeric(3,-2)", "numeric(2,4)"
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		list = append(list, `"`+name+`" `+columns[name])
	}
	d.do(t, `create type mood as enum ('so "so"', 'glad'); create type single as enum ('only'); create domain vat as numeric(5,2) check (value > 0);
		create type address as (street text, nr int); create type outer_type as (home address, tags text[]);
		create table everything (`+strings.Join(list, ", ")+`, "E ""mail" text, primary key (caa, cab))`)
	d.Apply(t, d.Spec("everything"))
	for _, op := range []string{"insert", "update"} {
		r, err := operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "everything", Op: op, Source: variables(nil), Unsent: true})
		require.NoError(t, err)
		var body struct {
			Event struct {
				Data struct{ Old, New json.RawMessage }
			}
		}
		require.NoError(t, json.Unmarshal(r.Request.Body, &body))
		for _, row := range []json.RawMessage{body.Event.Data.Old, body.Event.Data.New} {
			if string(row) == "null" {
				continue
			}
			require.NotContains(t, string(row), "null")
			d.do(t, "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set lc_monetary = 'C'")
			require.Equal(t, d.ids(t, "select row_to_json(json_populate_record(null::everything, $1::text::json))::text", string(row))[0], string(row))
		}
		if op == "update" {
			require.NotEqual(t, string(body.Event.Data.Old), string(body.Event.Data.New))
		}
	}
}

func TestATestOfAnOrderedTriggerHasTheLowestSequence(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "orders")
	r := newTaken(t, http.StatusOK)
	for _, o := range []trigger.Order{{By: []string{trigger.OrderByRow}}, {}} {
		d.Apply(t, d.Spec("orders", func(s *trigger.Spec) {
			s.Webhook.URL, s.Order = r.URL, o
		}))
		_, err := operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "orders", Source: variables(nil)})
		require.NoError(t, err)
		var body struct{ Sequence *int64 }
		require.NoError(t, json.Unmarshal([]byte(<-r.bodies), &body))
		if o.IsZero() {
			require.Nil(t, body.Sequence)
			continue
		}
		require.NotNil(t, body.Sequence)
		require.EqualValues(t, 1, *body.Sequence)
	}
}

// TestATestHoldsWhatTheTriggersPayloadHolds has made-up rows, and one of the table.
func TestATestHoldsWhatTheTriggersPayloadHolds(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.do(t, "create domain amount as numeric(9,2); create table sums (id bigint primary key, sums amount[], n int, v text)")
	d.Apply(t, d.Spec("sums", func(s *trigger.Spec) {
		s.On = trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true, Columns: []string{"v"}}, Delete: true, Truncate: true}
		s.Payload = trigger.Payload{Numbers: trigger.NumbersText, Changed: true, Old: trigger.OldChanged, Delete: trigger.PayloadOf{Columns: []string{"id"}}}
	}))
	for op, want := range map[string]string{
		"insert":   `{"op":"INSERT","data":{"old":null,"new":{"id":"1","sums":["11.10"],"n":1,"v":"v 1"}}`,
		"update":   `{"op":"UPDATE","changed":["v"],"data":{"old":{"v":"v 1"},"new":{"id":"1","sums":["11.10"],"n":1,"v":"v 2"}}`,
		"delete":   `{"op":"DELETE","data":{"old":{"id":"1"},"new":null}`,
		"truncate": `{"op":"TRUNCATE","data":{"old":null,"new":null}`,
	} {
		r, err := operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "sums", Op: op, Source: variables(nil), Unsent: true})
		require.NoError(t, err, op)
		require.Contains(t, string(r.Request.Body), `"event":`+want, op)
	}
	_, err := operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "sums", Op: "truncate", Payload: json.RawMessage(`{"id": 1}`), Source: variables(nil), Unsent: true})
	require.ErrorContains(t, err, "a TRUNCATE has no payload")
}

func TestAFinishedRequestIsShownForRealData(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "orders")
	d.Apply(t, d.Spec("orders", func(s *trigger.Spec) {
		s.Webhook = trigger.Webhook{
			URL: "${HOST}/orders/$new.id", Method: "PUT", Query: map[string]string{"v": "$new.v"}, Headers: map[string]string{"X-A": "${TOKEN} $new.v"},
			Body: `{"id":"$new.id","old":"$old.v","by":"${TOKEN}"}`, Timeout: trigger.DefaultTimeout,
		}
	}))
	try := func(op string) *operate.TrialResult {
		t.Helper()
		r, err := operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "orders", Op: op, Real: true, Unsent: true, Source: variables(map[string]string{"HOST": "https://h", "TOKEN": "verysecret"})})
		require.NoError(t, err)
		require.False(t, r.Sent)
		return r
	}
	require.Equal(t, operate.DataMadeUp, try("").Data, "the table is empty")
	d.do(t, "set session_replication_role = replica; insert into orders overriding system value values (41, 'not captured', 1); set session_replication_role = origin")
	r := try("")
	require.Equal(t, operate.DataRow, r.Data)
	require.Equal(t, "PUT https://h/orders/41?v=not%20captured", r.Request.Method+" "+r.Request.URL)
	require.Equal(t, `{"id":41,"old":null,"by":"${TOKEN}"}`, string(r.Request.Body))
	require.Contains(t, string(r.Request.Headers), `"X-A":"${TOKEN} not captured"`)
	d.do(t, "insert into orders overriding system value values (7, 'a/b', 2)")
	d.do(t, "update orders set v = 'c' where id = 7")
	r = try("")
	require.Equal(t, operate.DataEvent, r.Data)
	require.Equal(t, "UPDATE https://h/orders/7?v=c", r.Op+" "+r.Request.URL)
	require.Equal(t, `{"id":7,"old":"a/b","by":"${TOKEN}"}`, r.Request.Text())
	require.Equal(t, "INSERT https://h/orders/7?v=a%2Fb", try("insert").Op+" "+try("insert").Request.URL)
	event, err := operate.Show(t.Context(), d.conn, r.Event)
	require.NoError(t, err)
	require.Equal(t, "PUT ${HOST}/orders/7?v=c", event.Request.Method+" "+event.Request.URL)
	require.Equal(t, string(r.Request.Body), string(event.Request.Body))
	event.QuoteNothing()
	require.Equal(t, "${HOST}/orders/$new.id?v=$new.v", event.Request.URL)

	d.Apply(t, d.Spec("orders", func(s *trigger.Spec) {
		s.Webhook = trigger.Webhook{URL: "https://h/x", Body: trigger.BodyForm, Timeout: trigger.DefaultTimeout}
	}))
	r = try("")
	require.Equal(t, "id=7&v=c&n=2", r.Request.Text())
	require.Equal(t, `"id=7&v=c&n=2"`, string(r.Request.Body))
	event, err = operate.Show(t.Context(), d.conn, r.Event)
	require.NoError(t, err)
	require.Equal(t, "application/x-www-form-urlencoded", event.Request.Headers["Content-Type"])
	d.do(t, "insert into orders overriding system value values (8, '..', 2)")
	d.Apply(t, d.Spec("orders", func(s *trigger.Spec) {
		s.Webhook = trigger.Webhook{URL: "https://h/$new.v", Method: "GET", Timeout: trigger.DefaultTimeout}
	}))
	_, err = operate.Try(t.Context(), d.conn, operate.Trial{Trigger: "orders", Real: true, Unsent: true, Source: variables(nil)})
	require.ErrorContains(t, err, "no request can be made of this event: ${new.v} makes a segment of the URL's path empty")
	r = try("update")
	require.Nil(t, r.Request.Body)
	require.Equal(t, "GET https://h/c", r.Request.Method+" "+r.Request.URL)
}

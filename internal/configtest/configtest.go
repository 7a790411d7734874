// Package configtest generates valid configurations for property tests.
package configtest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/rule"
	"github.com/rowhook/rowhook/trigger"
)

var wordBehindDollar = regexp.MustCompile(`\$[A-Za-z_]`)

// World is what triggers can name: tables and patterns of tables, columns, and conditions.
type World struct {
	Tables, Patterns, Except []string
	Columns                  *rapid.Generator[string]
	Masks                    []string
	Whens                    []string
	NATS                     bool // some publish to NATS, which a program of its own can
}

// Anything has tables and columns with odd names, and conditions that are no SQL.
func Anything() World {
	return World{
		NATS:     true,
		Tables:   []string{"t", "public.orders", `"My Schema"."a""b"`, `"1"`, "null", "true.false", "_1"},
		Patterns: []string{"public.orders", "a.*", "*.*", "tenant_*.orders", `"My Schema".*`, "b", `"a*"."*"`},
		Except:   []string{"a.b", "c.tmp_*", `"x"."y"`},
		Columns:  odd().Filter(func(s string) bool { return !strings.HasPrefix(s, `"`) }),
		Masks:    []string{"*", "a", "a.*", "größe", `"a.b".c`, "a b.*.c", "yes", "null", "# x", "- a", `"1"`, `"*"`, "a: b"},
		Whens:    []string{"", "new.a > 1", "new.a = 'b: c'", "'a' = new.b", `"new"."x"`, "new.a\n  > 1\nand b", "a = '#' #> 'b'", "not (old.a)", "E'\\n\\'' = a", "{}[1]", "- 1 > 2"},
	}
}

// odd generates texts that YAML may take for something else.
func odd() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"a", "yes", "null", "~", "1", "1.10", "true", "#x", "- a", "a: b", "a #b", "{}", "[x]", "&a", "*a", "!a", "'", "%", "@a", "?", "|", ">", "größe", "日本", " a ", "0x1", "1e3", ".inf", "? x", "2001-01-01", "<<", "="}),
		rapid.StringMatching(`[ -~]{1,12}`),
	).Filter(func(s string) bool { return strings.TrimSpace(s) != "" && !strings.Contains(s, "${") })
}

// Specs generates valid triggers with unusual contents.
func Specs(in World) *rapid.Generator[trigger.Spec] {
	odd := odd()
	columns := rapid.SliceOfNDistinct(in.Columns, 1, 4, rapid.ID)
	duration := rapid.Custom(func(t *rapid.T) trigger.Duration {
		return trigger.Duration(rapid.OneOf(rapid.Int64Range(0, 1<<62), rapid.Int64Range(0, 1e10), rapid.Just(int64(0))).Draw(t, "duration"))
	})
	return rapid.Custom(func(t *rapid.T) trigger.Spec {
		s := trigger.DefaultSpec()
		s.Name = rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_-]{0,41}`).Draw(t, "name")
		s.Table = rapid.SampledFrom(in.Tables).Draw(t, "table")
		if rapid.Bool().Draw(t, "many") {
			s.Table = ""
			s.Tables = rapid.SliceOfNDistinct(rapid.SampledFrom(in.Patterns), 1, min(4, len(in.Patterns)), rapid.ID).Draw(t, "tables")
			if slices.ContainsFunc(s.Tables, func(p string) bool { return strings.Contains(strings.ReplaceAll(p, `"a*"."*"`, ""), "*") }) {
				s.Follow = rapid.Bool().Draw(t, "follow")
				if rapid.Bool().Draw(t, "some not") {
					s.Except = rapid.SliceOfNDistinct(rapid.SampledFrom(in.Except), 1, len(in.Except), rapid.ID).Draw(t, "except")
				}
			}
		}
		s.On = trigger.On{Insert: true, Delete: rapid.Bool().Draw(t, "delete"), Manual: rapid.Bool().Draw(t, "manual")}
		if rapid.Bool().Draw(t, "update") {
			s.On.Update.Enabled = true
			if rapid.Bool().Draw(t, "some") {
				s.On.Update.Columns = columns.Draw(t, "columns")
			}
		}
		s.When = rapid.SampledFrom(in.Whens).Draw(t, "when")
		if rapid.Bool().Draw(t, "payload") {
			s.Payload.Columns = columns.Draw(t, "payload")
		}
		if rapid.Bool().Draw(t, "masked") {
			s.Payload.Mask = rapid.SliceOfNDistinct(rapid.SampledFrom(in.Masks), 1, 4, rapid.ID).Draw(t, "mask")
		}
		s.On.Truncate = rapid.Bool().Draw(t, "truncate")
		s.Payload.Numbers = rapid.SampledFrom([]string{"", trigger.NumbersText}).Draw(t, "numbers")
		if s.On.Update.Enabled {
			s.Payload.Old = rapid.SampledFrom([]string{"", trigger.OldChanged, trigger.OldNone}).Draw(t, "old")
			s.Payload.Changed = rapid.Bool().Draw(t, "changed")
		}
		s.Webhook.URL = rapid.SampledFrom([]string{"https://e.com", "${U}/x", "http://${H}:${P}/?a=b&c={d}", "https://e.com/$${x}", "http://[::1]/", "https://e.com/$new.id", "${U}/${new.\"a b\" ?? 'x'}"}).Draw(t, "url")
		// A word behind a $ may be taken for a misspelt word of a template.
		header := odd.Filter(func(s string) bool { return !wordBehindDollar.MatchString(s) })
		headers := rapid.MapOfN(rapid.SampledFrom([]string{"X-A", "X-B", "authorization", "1", "null", "true"}), header, 0, 3).Draw(t, "headers")
		if len(headers) > 0 {
			s.Webhook.Headers = headers
		}
		text := rapid.OneOf(rapid.SampledFrom([]string{"$new.id", "No. ${new.id}", "${new.\"a b\"[0] ?? \"-\"}", "$$", "${V} ${old}", "$session.x-a"}), odd.Filter(func(s string) bool { return !strings.Contains(s, "$") }))
		if query := rapid.MapOfN(odd, text, 0, 3).Draw(t, "query"); len(query) > 0 {
			s.Webhook.Query = query
		}
		s.Webhook.Method = rapid.SampledFrom([]string{"", trigger.MethodPut, trigger.MethodPatch, trigger.MethodDelete, trigger.MethodGet}).Draw(t, "method")
		holds := rapid.SampledFrom([]string{"", "body", "form", "row"}).Draw(t, "what the body holds")
		switch {
		case s.Webhook.Method == trigger.MethodGet:
		case holds == "body":
			s.Webhook.Body = rapid.SampledFrom([]trigger.Body{
				`"$new"`, `["$id"]`, `{"z":"$new.id","a":{"b: c":["Order ${new.id}\n",null,true,1.10,12345678901234567890123,1e400,-0]},"- x":"#","":"{a}","yes":"on","1":"1.10","on":"\t é 🐘 \\ \" ' "}`,
			}).Draw(t, "body")
		case holds == "row":
			s.Webhook.Body = trigger.BodyForm
		case holds == "form":
			s.Webhook.Form = rapid.MapOfN(odd, text, 1, 3).Draw(t, "form")
		}
		if s.Webhook.HasBody() {
			if !s.Webhook.IsTemplate() {
				s.Webhook.Format = rapid.SampledFrom([]string{"", trigger.FormatCloudEvents, trigger.FormatCloudEventsBinary}).Draw(t, "format")
			}
			s.Webhook.Compress = rapid.SampledFrom([]string{"", trigger.CompressGzip}).Draw(t, "compress")
		}
		s.Webhook.Timeout = max(1, duration.Draw(t, "timeout"))
		s.Webhook.Secret = rapid.SampledFrom([]string{"", "${S}", "whsec_YWJj", "a: b", "1", "${file:/run/s x}", "whsk_" + strings.Repeat("QUFB", 10) + "QUE= whsec_YWJj"}).Draw(t, "secret")
		if files := rapid.SampledFrom([]trigger.TLS{{}, {CAFile: "${D}/ca.pem"}, {CertFile: "a b: c", KeyFile: "#k"}}).Draw(t, "tls"); strings.HasPrefix(s.Webhook.URL, "https") {
			s.Webhook.TLS = files
		}
		if rapid.Bool().Draw(t, "token") {
			s.Webhook.OAuth2 = trigger.OAuth2{ //nolint:gosec // names of variables, and made up
				TokenURL: "https://a.e.com/t", ClientID: rapid.SampledFrom([]string{"a", "1", "null"}).Draw(t, "client"), ClientSecret: rapid.SampledFrom([]string{"${S}", "a: b", "${file:/s}"}).Draw(t, "client secret"),
				Scopes: rapid.SampledFrom([][]string{nil, {"a"}, {"https://x/y", "no"}}).Draw(t, "scopes"), Audience: rapid.SampledFrom([]string{"", "https://e.com", "yes"}).Draw(t, "audience"),
			}
			for name := range headers {
				if strings.EqualFold(name, "authorization") {
					s.Webhook.Headers = nil
				}
			}
		}
		if rapid.Bool().Draw(t, "ordered") {
			s.Order = trigger.Order{By: []string{trigger.OrderByRow}, Strict: rapid.Bool().Draw(t, "strict"), Latest: rapid.Bool().Draw(t, "latest")}
			if rapid.Bool().Draw(t, "by columns") {
				s.Order.By = columns.Filter(func(c []string) bool { return c[0] != trigger.OrderByRow }).Draw(t, "by")
			}
			s.Order.OnDead = rapid.SampledFrom([]string{"", trigger.OnDeadBlock}).Draw(t, "on_dead")
		}
		if !s.Order.Latest && rapid.Bool().Draw(t, "columns of an operation") {
			s.Payload.Insert.Columns = columns.Draw(t, "of inserts")
			if s.On.Update.Enabled {
				s.Payload.Update.Columns = columns.Draw(t, "of updates")
			}
			if s.On.Delete {
				s.Payload.Delete.Columns = columns.Draw(t, "of deletes")
			}
		}
		hasData := s.Webhook.URLHasData() || len(s.Webhook.HeadersHaveData()) > 0
		if s.Webhook.HasBody() && s.Webhook.Format != trigger.FormatCloudEventsBinary && !hasData && s.Webhook.Body != trigger.BodyForm && s.Webhook.Form == nil && rapid.Bool().Draw(t, "batches") {
			s.Batch = trigger.Batch{
				Max: rapid.IntRange(2, 2000).Draw(t, "max"), Bytes: rapid.SampledFrom([]trigger.Size{1 << 10, 1 << 20, 64 << 20}).Draw(t, "bytes"),
				Wait: min(duration.Draw(t, "wait"), trigger.Duration(20*time.Second)),
			}
		}
		if in.NATS && rapid.IntRange(0, 2).Draw(t, "nats") == 0 {
			w := s.Webhook
			s.Webhook, s.Batch = trigger.Webhook{}, trigger.Batch{}
			s.NATS = trigger.NATS{
				URL: rapid.SampledFrom([]string{"nats://a", "${U}", "tls://a:1,nats://[::1]:4222", "wss://a/x"}).Draw(t, "servers"), Subject: rapid.SampledFrom([]string{"a", "a.$new.b", "${new.\"a b\" ?? 'x'}.null", "${P}.$id"}).Draw(t, "subject"),
				Stream: rapid.SampledFrom([]string{"", "S", "yes", "1"}).Draw(t, "stream"), Headers: w.Headers, Format: w.Format, Secret: w.Secret, Timeout: w.Timeout, TLS: w.TLS,
			}
			if w.Body != trigger.BodyForm {
				s.NATS.Body = w.Body
			}
			switch rapid.SampledFrom([]string{"", "creds", "user", "token"}).Draw(t, "login") {
			case "creds":
				s.NATS.Creds = "${file:/c}"
			case "user":
				s.NATS.User, s.NATS.Password = rapid.SampledFrom([]string{"a", "null", "1"}).Draw(t, "user"), "a: b"
			case "token":
				s.NATS.Token = "${T}"
			}
		}
		if rapid.Bool().Draw(t, "rated") {
			s.Rate.Limit = trigger.PerTime{N: rapid.IntRange(1, 1_000_000).Draw(t, "rate"), Time: rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "per")}
			s.Rate.Burst = rapid.SampledFrom([]int{0, 1, 100}).Draw(t, "burst")
		}
		s.Breaker = rapid.SampledFrom([]string{"", trigger.BreakerOff}).Draw(t, "breaker")
		s.Retry.Limit = rapid.IntRange(0, 1<<31-2).Draw(t, "limit")
		s.Retry.Interval = duration.Draw(t, "interval")
		s.Retry.MaxInterval = max(s.Retry.Interval, duration.Draw(t, "max_interval"))
		s.Retry.Backoff = rapid.SampledFrom([]string{trigger.BackoffFixed, trigger.BackoffExponential}).Draw(t, "backoff")
		if rapid.Bool().Draw(t, "scheduled") {
			s.Retry.Interval, s.Retry.Backoff = 0, ""
			s.Retry.Schedule = rapid.SliceOfN(duration, 1, 5).Draw(t, "schedule")
			s.Retry.Limit = len(s.Retry.Schedule) + rapid.SampledFrom([]int{0, 1, 12 - len(s.Retry.Schedule)}).Draw(t, "more")
		}
		for _, status := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"300-399", "400-499", "500-599", "404", "408", "410", "999"}), rapid.ID).Draw(t, "statuses") {
			rule, err := trigger.ParseStatuses(status)
			require.NoError(t, err)
			if rule.Then = rapid.SampledFrom(trigger.Outcomes()).Draw(t, "then"); rule.Then == trigger.StatusPause && s.Webhook.URLHasData() {
				rule.Then = trigger.StatusDead
			}
			s.Retry.Statuses = s.Retry.Statuses.Set(rule)
		}
		if rapid.Bool().Draw(t, "expires") {
			s.Retry.MaxAge = trigger.Duration(time.Second) + duration.Draw(t, "max_age")
		}
		s.Delay = trigger.Duration(rapid.Int64Range(0, 365*24*3600*1000).Draw(t, "delay")) * trigger.Duration(time.Millisecond)
		for _, own := range []**trigger.Duration{&s.Retention.Delivered, &s.Retention.Attempts} {
			if rapid.Bool().Draw(t, "own retention") {
				keep := duration.Draw(t, "keep")
				*own = &keep
			}
		}
		s.Concurrency = rapid.IntRange(0, 1<<31-1).Draw(t, "concurrency")
		if rapid.Bool().Draw(t, "a total") {
			s.ConcurrencyTotal = rapid.IntRange(max(1, s.Concurrency), 1<<31-1).Draw(t, "total")
		}
		s.Notify = rapid.SampledFrom([]string{trigger.NotifyAuto, trigger.NotifyNever}).Draw(t, "notify")
		s.At = rapid.SampledFrom([]string{"", trigger.AtCommit}).Draw(t, "at")
		s.Capture = rapid.SampledFrom([]string{"", trigger.CaptureRows, trigger.CaptureStatement}).Draw(t, "capture")
		s.OnReplication = rapid.Bool().Draw(t, "on_replication")
		for _, f := range rule.Faults(&s) {
			switch f.Path[0] {
			case "at":
				s.At = ""
			case "capture":
				s.Capture = ""
			default: // a row that no event has, or a column that is not sent
				s.On.Delete, s.Payload.Old = true, ""
				s.Payload.Columns, s.Payload.Insert, s.Payload.Update, s.Payload.Delete = nil, trigger.PayloadOf{}, trigger.PayloadOf{}, trigger.PayloadOf{}
			}
		}
		if s.At == "" && len(rule.Faults(&s)) > 0 { // what at: commit has hidden
			s.Capture = ""
		}
		return s
	})
}

// Settings generates valid settings.
func Settings() *rapid.Generator[trigger.Settings] {
	return rapid.Custom(func(t *rapid.T) trigger.Settings {
		duration := rapid.SampledFrom([]trigger.Duration{0, 1, 1e9, 7 * 24 * 3600e9})
		rules := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"private", "loopback", "10.0.0.1", "::1", "2001:db8::/32", "0.0.0.0/0"}), 0, 3, rapid.ID)
		settings := trigger.Settings{Retention: trigger.Retention{
			Delivered: duration.Draw(t, "delivered"), Attempts: duration.Draw(t, "attempts"), MaxSize: rapid.SampledFrom([]trigger.Size{0, 20 << 30}).Draw(t, "max_size"),
		}, Network: trigger.Network{Deny: rules.Draw(t, "deny"), Allow: rules.Draw(t, "allow")}, Alerts: []trigger.Alert{}}
		for i, n := 0, rapid.IntRange(0, 3).Draw(t, "alerts"); i < n; i++ {
			url := fmt.Sprintf("https://e.com/%d", i)
			alert := trigger.Alert{URL: url, Format: rapid.SampledFrom([]string{"json", "slack"}).Draw(t, "format"), Secret: rapid.SampledFrom([]string{"", "${S}"}).Draw(t, "secret")}
			if on := rapid.SliceOfNDistinct(rapid.SampledFrom(trigger.Alerts()), 0, 5, rapid.ID).Draw(t, "on"); len(on) > 0 {
				alert.On = on
			}
			if alert.Tells(trigger.AlertBacklog) {
				alert.Backlog.OlderThan = rapid.SampledFrom([]trigger.Duration{10e9, trigger.DefaultBacklog}).Draw(t, "older_than")
			}
			if rapid.Bool().Draw(t, "a heartbeat") {
				alert = trigger.Alert{Heartbeat: url, Every: rapid.SampledFrom([]trigger.Duration{10e9, 60e9}).Draw(t, "every")}
			}
			settings.Alerts = append(settings.Alerts, alert)
		}
		return settings
	})
}

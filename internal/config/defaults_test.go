package config_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

func TestDefaultsAreMergedAndATriggersOwnKeyWins(t *testing.T) {
	t.Parallel()
	c := parse(t, `
triggers:
  - {name: a, table: t}
  - name: b
    table: u
    on: {insert: false, update: {columns: [z]}}
    when: new.b
    payload: {columns: [z]}
    webhook:
      url: https://b.example.com
      headers: {x-shop: b, X-Own: b}
      tls: {ca_file: /b}
    retry: {limit: 0}
    capture: auto
    on_replication: false
defaults:
  on: {insert: true, update: {columns: [x, y]}, delete: true}
  when: new.a
  payload: {columns: [x, y]}
  webhook:
    url: https://e.com
    headers: {X-Shop: eu, X-Team: t}
    timeout: 10s
    tls: {ca_file: /ca, cert_file: /c, key_file: /k}
  retry: {limit: 12, interval: 1m}
  concurrency: 7
  notify: never
  capture: rows
  on_replication: true
`)
	retry := trigger.Retry{Limit: 12, Interval: trigger.Duration(time.Minute), Backoff: trigger.BackoffExponential, MaxInterval: trigger.DefaultMaxInterval}
	a := trigger.Spec{
		Name: "a", Table: "t",
		On:   trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true, Columns: []string{"x", "y"}}, Delete: true},
		When: "new.a", Payload: trigger.Payload{Columns: []string{"x", "y"}},
		Webhook: trigger.Webhook{
			URL: "https://e.com", Headers: map[string]string{"X-Shop": "eu", "X-Team": "t"}, Timeout: trigger.Duration(10 * time.Second),
			TLS: trigger.TLS{CAFile: "/ca", CertFile: "/c", KeyFile: "/k"},
		},
		Retry: retry, Concurrency: 7, Notify: trigger.NotifyNever, Capture: trigger.CaptureRows, OnReplication: true,
	}
	b := a
	b.Name, b.Table, b.When, b.Payload.Columns, b.Capture, b.OnReplication = "b", "u", "new.b", []string{"z"}, "", false
	b.On = trigger.On{Update: trigger.UpdateOn{Enabled: true, Columns: []string{"z"}}, Delete: true}
	b.Webhook.URL, b.Webhook.TLS.CAFile = "https://b.example.com", "/b"
	b.Webhook.Headers = map[string]string{"x-shop": "b", "X-Own": "b", "X-Team": "t"}
	b.Retry.Limit = 0
	require.Equal(t, []trigger.Spec{a, b}, c.Triggers)
}

func TestDefaultsOfOrderBatchAndRateAreMergedReplacedOrTakenBack(t *testing.T) {
	t.Parallel()
	defaults := "defaults: {order: {by: [customer], on_dead: block}, batch: {max: 100, wait: 1s}, rate: {limit: 50/s, burst: 10}, concurrency: {each: 5, total: 20}, breaker: off}\n"
	for own, want := range map[string]func(*trigger.Spec){
		"when: new.a":              func(*trigger.Spec) {},
		"order: row":               func(s *trigger.Spec) { s.Order = trigger.Order{By: []string{"row"}} },
		"order: none":              func(s *trigger.Spec) { s.Order = trigger.Order{} },
		"order: {latest: true}":    func(s *trigger.Spec) { s.Order.Latest = true },
		"order: {by: [a, b]}":      func(s *trigger.Spec) { s.Order.By = []string{"a", "b"} },
		"order: {on_dead: skip}":   func(s *trigger.Spec) { s.Order.OnDead = "" },
		"batch: none":              func(s *trigger.Spec) { s.Batch = trigger.Batch{} },
		"batch: {bytes: 2MiB}":     func(s *trigger.Spec) { s.Batch.Bytes = 2 << 20 },
		"rate: none":               func(s *trigger.Spec) { s.Rate = trigger.Rate{} },
		"rate: {limit: 600/m}":     func(s *trigger.Spec) { s.Rate.Limit = trigger.PerTime{N: 600, Time: time.Minute} },
		"concurrency: 7":           func(s *trigger.Spec) { s.Concurrency, s.ConcurrencyTotal = 7, 0 },
		"concurrency: {total: 30}": func(s *trigger.Spec) { s.ConcurrencyTotal = 30 },
		"concurrency: {total: 0}":  func(s *trigger.Spec) { s.ConcurrencyTotal = 0 },
		"breaker: on":              func(s *trigger.Spec) { s.Breaker = "" },
		"breaker: true":            func(s *trigger.Spec) { s.Breaker = "" },
		"breaker: 'off'":           func(*trigger.Spec) {},
	} {
		spec := trigger.DefaultSpec()
		spec.Name, spec.Table, spec.On.Insert, spec.Webhook.URL = "a", "public.orders", true, "https://e.com/x"
		spec.Order = trigger.Order{By: []string{"customer"}, OnDead: trigger.OnDeadBlock}
		spec.Batch = trigger.Batch{Max: 100, Bytes: 1 << 20, Wait: trigger.Duration(time.Second)}
		spec.Rate = trigger.Rate{Limit: trigger.PerTime{N: 50, Time: time.Second}, Burst: 10}
		spec.Concurrency, spec.ConcurrencyTotal, spec.Breaker = 5, 20, trigger.BreakerOff
		want(&spec)
		if strings.HasPrefix(own, "when") {
			spec.When = "new.a"
		}
		require.Equal(t, spec, parse(t, fileOf(own)+defaults).Triggers[0], own)
	}
}

func TestDefaultsOfABatchWithoutASizeBatchNothing(t *testing.T) {
	t.Parallel()
	defaults := "defaults: {order: {on_dead: block}, batch: {wait: 1s}, rate: {burst: 5}}\n"
	require.Equal(t, parse(t, fileOf()).Triggers, parse(t, fileOf()+defaults).Triggers)
	c := parse(t, fileOf("batch: {max: 10}", "order: {by: row}", "rate: {limit: 1/s}")+defaults)
	require.Equal(t, trigger.Batch{Max: 10, Bytes: trigger.DefaultBatchBytes, Wait: trigger.Duration(time.Second)}, c.Triggers[0].Batch)
	require.True(t, c.Triggers[0].Order.Blocks())
	require.Equal(t, 5, c.Triggers[0].Rate.Burst)
}

func TestTriggersWithTheSameDefaultsShareNoMemory(t *testing.T) {
	t.Parallel()
	c := parse(t, `defaults:
  on: {update: {columns: [a]}}
  payload: {columns: [a]}
  order: {by: [a]}
  webhook: {url: "https://e.com", headers: {X-A: a}}
triggers: [{name: a, table: t}, {name: b, table: t}]
`)
	c.Triggers[0].Webhook.Headers["X-A"], c.Triggers[0].Payload.Columns[0], c.Triggers[0].On.Update.Columns[0] = "b", "b", "b"
	c.Triggers[0].Order.By[0] = "b"
	b := c.Triggers[1]
	require.Equal(t, []string{"a"}, b.Order.By)
	require.Equal(t, []string{"a", "a", "a"}, []string{b.Webhook.Headers["X-A"], b.Payload.Columns[0], b.On.Update.Columns[0]})
}

func TestDefaultsOfUpdateAreReplacedByASwitchAndMergedIntoKeys(t *testing.T) {
	t.Parallel()
	for own, want := range map[string]trigger.UpdateOn{
		"true": {Enabled: true}, "false": {}, "{}": {Enabled: true, Columns: []string{"a"}}, "{columns: [b]}": {Enabled: true, Columns: []string{"b"}},
	} {
		c := parse(t, fileOf("on: {insert: true, update: "+own+"}")+"defaults: {on: {update: {columns: [a]}}}\n")
		require.Equal(t, want, c.Triggers[0].On.Update, own)
	}
	require.Contains(t, problemsOf(t, fileOf("on: {update: {}}")+"defaults: {on: {update: true}}\n")[0], "triggers[0].on.update.columns: is missing")
}

func TestDefaultsRefuse(t *testing.T) {
	t.Parallel()
	two := func(lines ...string) string {
		return fileOf(lines...) + strings.TrimPrefix(fileOf(append([]string{"name: b"}, lines...)...), "triggers:\n")
	}
	for name, c := range map[string]struct{ text, want string }{
		"no value":           {fileOf() + "defaults:\n", "rowhook.yaml:6:1: defaults: has no value; write it like defaults: {retry: {limit: 10}}, or remove it"},
		"a list":             {fileOf() + "defaults: []\n", "6:11: defaults: is a list where keys are needed; "},
		"a name":             {fileOf() + "defaults: {name: a}\n", "6:12: defaults.name: each trigger has a name of its own; move this key to the triggers"},
		"a table":            {fileOf() + "defaults:\n  table: a\n", "7:3: defaults.table: each trigger has a table of its own; "},
		"a setting":          {fileOf() + "defaults: {network: {}}\n", "6:12: defaults.network: unknown key in defaults; it belongs at the top of the file"},
		"a wrong key":        {fileOf() + "defaults: {webhook: {limit: 5}}\n", "defaults.webhook.limit: unknown key; the keys in defaults.webhook are url, method, query, headers, body, form, format, compress, timeout, secret, tls, oauth2; if limit of rate or retry is meant, indent it under that"},
		"a key of one group": {fileOf() + "defaults: {webhook: {interval: 5s}}\n", "defaults.webhook.interval: unknown key; the keys in defaults.webhook are url, method, query, headers, body, form, format, compress, timeout, secret, tls, oauth2; if interval of retry is meant, indent it under that"},
		"a trigger's":        {fileOf() + "defaults: {webhook: {concurrency: 5}}\n", "defaults.webhook.concurrency: unknown key in defaults.webhook; it belongs directly under defaults"},
		"another's key":      {fileOf() + "defaults: {filter: x}\n", "defaults.filter: unknown key; Rowhook calls it when: ..."},
		"at the top":         {fileOf() + "concurrency: 5\n", "it belongs to an entry of triggers, indent it like the name of the trigger, or to defaults for all triggers"},
		"said once":          {two() + "defaults: {retry: {limit: -1}}\n", "10:27: defaults.retry.limit: -1 is too small; write 0 or more"},
		"twice":              {fileOf() + "defaults: {}\ndefaults: {}\n", "7:1: defaults: is given twice; keep one (the first is on line 6)"},
		"no url at all":      {"triggers:\n  - {name: a, table: t, on: {insert: true}, webhook: {timeout: 1s}}\n", "2:45: triggers[0].webhook.url: is missing; write it like url: https://example.com/hooks/orders, here or for all triggers in defaults"},
		"no url in both":     {"defaults: {webhook: {timeout: 1s}}\ntriggers:\n  - {name: a, table: t, on: {insert: true}}\n", "3:5: triggers[0].webhook.url: is missing; write it like url: https://example.com/hooks/orders, here or for all triggers in defaults"},
		"no on at all":       {"defaults: {webhook: {url: https://e.com}}\ntriggers:\n  - {name: a, table: t}\n", "3:5: triggers[0].on: is missing; write it like on: {insert: true}, here or for all triggers in defaults"},
		// Rules between keys.
		"one part":                   {fileOf("retry: {max_interval: 1m}") + "defaults: {retry: {interval: 2m}}\n", `6:27: triggers[0].retry.max_interval: max_interval bounds every wait and is 1m, but interval is 2m; write max_interval: 2m or more (the trigger "a"; retry.interval comes from defaults, on line 7)`},
		"the other part":             {fileOf("retry: {interval: 2m}") + "defaults: {retry: {max_interval: 1m}}\n", `6:23: triggers[0].retry.interval: max_interval bounds every wait and is 1m, but interval is 2m; write max_interval: 2m or more (the trigger "a"; retry.max_interval comes from defaults, on line 7)`},
		"a schedule and an interval": {fileOf("retry: {schedule: [1s]}") + "defaults: {retry: {interval: 2m}}\n", `6:23: triggers[0].retry.schedule: schedule has every wait, and interval has others; remove one of the two (the trigger "a"; retry.interval comes from defaults, on line 7)`},
		"an interval and a schedule": {fileOf("retry: {interval: 1s}") + "defaults: {retry: {schedule: [2m]}}\n", `6:23: triggers[0].retry.interval: schedule has every wait, and interval has others; remove one of the two (the trigger "a"; retry.schedule comes from defaults, on line 7)`},
		"overlapping statuses":       {fileOf("retry: {statuses: {450-460: retry}}") + "defaults: {retry: {statuses: {400-499: dead}}}\n", `triggers[0].retry.statuses.450-460: the ranges 400-499 and 450-460 overlap; divide them, or name single statuses, which have precedence over ranges (the trigger "a"; retry.statuses.400-499 comes from defaults, on line 7)`},
		"both parts":                 {two() + "defaults: {retry: {interval: 2m, max_interval: 1m}}\n", "10:48: defaults.retry.max_interval: max_interval bounds every wait and is 1m, but interval is 2m; write max_interval: 2m or more"},
		"a part and our default":     {two() + "defaults: {retry: {interval: 2h}}\n", "10:30: defaults.retry.interval: max_interval bounds every wait and is 1h by default, but interval is 2h; "},
		"a reserved header":          {fileOf("webhook: {url: https://e.com, headers: {Webhook-Id: x}}") + "defaults: {webhook: {secret: '${S}'}}\n", `triggers[0].webhook.headers.Webhook-Id: secret makes Rowhook set the header Webhook-Id itself; remove one of the two (the trigger "a"; webhook.secret comes from defaults, on line 6)`},
		"a reserved shared header":   {fileOf("webhook: {url: https://e.com, secret: '${S}'}") + "defaults: {webhook: {headers: {webhook-id: x}}}\n", `5:43: triggers[0].webhook.secret: secret makes Rowhook set the header webhook-id itself; `},
		"a header and a secret":      {two("webhook: {timeout: 1s}") + "defaults: {webhook: {url: https://e.com, secret: '${S}', headers: {webhook-id: x}}}\n", "10:80: defaults.webhook.headers.webhook-id: secret makes Rowhook set the header webhook-id itself; remove one of the two"},
		"TLS and a plain url":        {fileOf("webhook: {url: http://e.com}") + "defaults: {webhook: {tls: {ca_file: /a}}}\n", `5:20: triggers[0].webhook.url: needs https, but the url is http://; write https:// in url, or remove tls (the trigger "a"; webhook.tls comes from defaults, on line 6)`},
		"half a client certificate":  {two() + "defaults: {webhook: {tls: {key_file: /a}}}\n", "10:27: defaults.webhook.tls: has a key_file but no cert_file; "},
		"nothing captured":           {"defaults: {on: {insert: false}}\ntriggers:\n  - {name: a, table: t, webhook: {url: http://e}}\n  - {name: b, table: t, webhook: {url: http://e}}\n", "1:16: defaults.on: captures nothing; "},
		"all switched off":           {fileOf("on: {insert: false}") + "defaults: {on: {insert: true}}\n", "4:9: triggers[0].on: captures nothing; "},
		"an order of nothing":        {fileOf("on: {manual: true}") + "defaults: {order: row}\n", "defaults.order: has nothing to order: manual events have no key, and the trigger captures nothing else; write order: none"},
		"more each than in all":      {fileOf("concurrency: {each: 20}") + "defaults: {concurrency: {total: 10}}\n", "6:25: triggers[0].concurrency.each: each is 20, but all dispatchers together may have only 10; write each: 10 or less, or raise total (the trigger \"a\"; concurrency.total comes from defaults, on line 7)"},
	} {
		found := problemsOf(t, c.text)
		require.Len(t, found, 1, "%s: %v", name, found)
		require.Contains(t, found[0], c.want, name)
	}
}

func TestPositionAndExplainFollowAValueIntoDefaults(t *testing.T) {
	t.Parallel()
	c := parse(t, `defaults:
  payload: {columns: [id, status]}
  webhook: {url: "https://${HOST}/x", headers: {X-A: "${A}"}}
triggers:
  - {name: a, table: t, on: {insert: true}, webhook: {headers: {x-a: own}}}
  - {name: b, table: u, on: {insert: true}}
`)
	require.Equal(t, "rowhook.yaml:2:27", c.Position(0, "payload", "columns", "1").String())
	require.Equal(t, "rowhook.yaml:3:18", c.Position(0, "webhook", "url").String())
	require.Equal(t, "rowhook.yaml:5:70", c.Position(0, "webhook", "headers", "x-a").String())
	require.Equal(t, "rowhook.yaml:5:54", c.Position(0, "webhook", "secret").String(), "a value that is nowhere has the place of the trigger's own group")
	require.Equal(t, "rowhook.yaml:3:12", c.Position(1, "webhook", "secret").String())
	found := trigger.SpecErrors{
		{Index: 0, Path: []string{"payload", "columns", "1"}, Message: "no such column"},
		{Index: 0, Path: []string{"table"}, Message: "no such table"},
		{Index: 1, Path: []string{"payload", "columns", "1"}, Message: "no such column"},
		{Index: 1, Path: []string{"payload", "columns", "1"}, Message: "the table u has no column \"status\""},
	}
	require.EqualError(t, config.ErrorOf(c.Explain(found)...), strings.TrimPrefix(`
rowhook.yaml:2:27: defaults.payload.columns[1]: for the triggers "a" and "b": no such column
     2 |   payload: {columns: [id, status]}
       |                           ^
rowhook.yaml:2:27: defaults.payload.columns[1]: for the trigger "b": the table u has no column "status"
     2 |   payload: {columns: [id, status]}
       |                           ^
rowhook.yaml:5:22: triggers[0].table: no such table
     5 |   - {name: a, table: t, on: {insert: true}, webhook: {headers: {x-a: own}}}
       |                      ^`, "\n"))
}

func TestAnErrorOfDefaultsNamesATriggerWithoutANameByItsLine(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("rowhook.yaml", []byte("defaults: {payload: {columns: [a]}, webhook: {url: https://e.com}}\ntriggers:\n  - {table: t, on: {insert: true}}\n"))
	var wrong *config.Error
	require.ErrorAs(t, err, &wrong)
	found := trigger.SpecErrors{{Path: []string{"payload", "columns", "0"}, Message: "no such column"}}
	require.Equal(t, "for the trigger at rowhook.yaml:3: no such column", wrong.Sound().Explain(found)[0].Message)
}

func TestWarningsOfDefaultsAreSaidOnce(t *testing.T) {
	t.Parallel()
	files := directory(t, map[string]string{"a.yaml": fileOf("webhook: {timeout: 1s}") + "defaults: {webhook: {url: '${U}', secret: plain}}\n", "b.yaml": fileOf("name: b", "webhook: {timeout: 1s}")})
	c, err := config.Load(files, func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	require.Len(t, c.Warnings, 2, "%v", c.Warnings)
	require.Equal(t, []string{"defaults.webhook.url", "defaults.webhook.secret"}, []string{c.Warnings[0].Key, c.Warnings[1].Key})
}

// TestATriggerMeansTheSameWhateverDefaultsGive moves keys of a trigger into defaults, and gives
// others there that the trigger overrides.
func TestATriggerMeansTheSameWhateverDefaultsGive(t *testing.T) {
	t.Parallel()
	validate := validator(t)
	rapid.Check(t, func(t *rapid.T) {
		spec, other := specs().Draw(t, "spec"), specs().Draw(t, "other")
		own, shared := map[string]any{}, map[string]any{}
		divide(t, plain(t, spec), plain(t, other), own, shared, "")
		text, err := json.Marshal(map[string]any{"triggers": []any{own}, "defaults": shared})
		require.NoError(t, err)
		c, err := config.Parse("f", text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, []trigger.Spec{spec}, c.Triggers, "%s", text)
		require.NoError(t, validate(string(text)), "%s", text)
	})
}

// plain returns a trigger as the JSON of rowhook.yaml, which has one key where a Spec has two.
func plain(t *rapid.T, spec trigger.Spec) map[string]any {
	text, err := json.Marshal(spec)
	require.NoError(t, err)
	var all map[string]any
	require.NoError(t, json.Unmarshal(text, &all))
	trigger.ShowStored(all)
	if spec.Webhook.Body != "" {
		all["webhook"].(map[string]any)["body"] = json.RawMessage(spec.Webhook.Body) // with its order and digits
	}
	if spec.NATS.Body != "" {
		all["nats"].(map[string]any)["body"] = json.RawMessage(spec.NATS.Body)
	}
	if total, ok := all["concurrency_total"]; ok {
		delete(all, "concurrency_total")
		all["concurrency"] = map[string]any{"each": spec.Concurrency, "total": total}
	}
	return all
}

// divide puts each value of spec into own or shared, and in front of some of its own values one of
// another trigger.
func divide(t *rapid.T, spec, other, own, shared map[string]any, at string) {
	for key, value := range spec {
		inner, isMap := value.(map[string]any)
		if isMap && at+key != "on.update" {
			another, _ := other[key].(map[string]any)
			ownInner, sharedInner := map[string]any{}, map[string]any{}
			divide(t, inner, another, ownInner, sharedInner, at+key+".")
			if len(ownInner) > 0 || rapid.Bool().Draw(t, "an empty group") {
				own[key] = ownInner
			}
			if len(sharedInner) > 0 {
				shared[key] = sharedInner
			}
			continue
		}
		isOwn := at == "" && slices.Contains([]string{"name", "table", "tables", "except", "follow"}, key)
		if isOwn || rapid.Bool().Draw(t, at+key+" is its own") {
			own[key] = value
			if overridden, ok := other[key]; ok && !isOwn && rapid.Bool().Draw(t, at+key+" is overridden") {
				if at == "webhook.headers." {
					key = strings.ToUpper(key)
				}
				shared[key] = overridden
			}
			continue
		}
		shared[key] = value
	}
}

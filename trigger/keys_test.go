package trigger_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// What a key means for programs of schema version 6.
const (
	before   = "they know it"
	hidden   = "they would send something else or give up at another time, so they find no URL"
	recorded = "it says what is recorded and when that is due; they send it as it is"
	shown    = "it says what is shown, by this program alone"
	widest   = "they keep history for longer, see StoredRetention"
)

// keysOfSpec has every key of a Spec by its path in JSON.
func keysOfSpec() map[string]string {
	return map[string]string{
		"name": before, "table": before, "tables": recorded, "except": recorded, "follow": recorded,
		"on.insert": before, "on.update": before, "on.delete": before, "on.truncate": hidden, "on.manual": before,
		"at": recorded, "when": before, "payload.columns": before, "payload.insert.columns": recorded, "payload.update.columns": recorded, "payload.delete.columns": recorded,
		"payload.old": hidden, "payload.changed": hidden, "payload.numbers": recorded, "payload.mask": shown,
		"webhook.url": before, "webhook.method": hidden, "webhook.query": hidden, "webhook.headers": before, "webhook.body": hidden, "webhook.form": hidden,
		"webhook.format": hidden, "webhook.compress": hidden, "webhook.timeout": before, "webhook.secret": before,
		"webhook.tls.ca_file": before, "webhook.tls.cert_file": before, "webhook.tls.key_file": before,
		"webhook.oauth2.token_url": hidden, "webhook.oauth2.client_id": hidden, "webhook.oauth2.client_secret": hidden, "webhook.oauth2.scopes": hidden, "webhook.oauth2.audience": hidden,
		"nats.url": hidden, "nats.subject": hidden, "nats.stream": hidden, "nats.creds": hidden, "nats.user": hidden, "nats.password": hidden, "nats.token": hidden,
		"nats.headers": hidden, "nats.body": hidden, "nats.format": hidden, "nats.secret": hidden, "nats.timeout": hidden,
		"nats.tls.ca_file": hidden, "nats.tls.cert_file": hidden, "nats.tls.key_file": hidden,
		"retry.limit": before, "retry.interval": before, "retry.backoff": before, "retry.max_interval": before, "retry.schedule": hidden, "retry.statuses": hidden, "retry.max_age": hidden,
		"delay": recorded, "order": before, "batch.max": before, "batch.bytes": before, "batch.wait": before, "rate.limit": before, "rate.burst": before, "rate.held_by": hidden,
		"concurrency": before, "concurrency_total": before, "breaker": before, "notify": before, "capture": before,
		"retention.delivered": widest, "retention.attempts": widest, "on_replication": before,
	}
}

// TestEachKeyOfASpecIsKnownToProgramsOfTheVersionBeforeOrLeftToNewerOnes walks over the fields of a
// Spec, so that none is forgotten: a new one has no line in keysOfSpec.
func TestEachKeyOfASpecIsKnownToProgramsOfTheVersionBeforeOrLeftToNewerOnes(t *testing.T) {
	t.Parallel()
	keys := keysOfSpec()
	var walked []string
	eachKey(reflect.TypeFor[trigger.Spec](), nil, nil, func(path string, index []int) {
		walked = append(walked, path)
		meaning, known := keys[path]
		require.True(t, known, "say in keysOfSpec what %s means for programs of the schema version before, and have IsNew report it if they would not do the same", path)
		spec := trigger.DefaultSpec()
		spec.Webhook.URL = "https://example.com"
		set(t, path, reflect.ValueOf(&spec).Elem().FieldByIndex(index))
		if strings.HasPrefix(path, "nats.") {
			spec.Webhook = trigger.Webhook{}
		}
		require.Equal(t, meaning == hidden, spec.IsNew(), path)
		stored, err := json.Marshal(spec)
		require.NoError(t, err, path)
		var old struct{ Webhook struct{ URL string } }
		require.NoError(t, json.Unmarshal(stored, &old))
		require.Equal(t, meaning == hidden, old.Webhook.URL == "needs a newer rowhook", path)
		back := trigger.DefaultSpec()
		require.NoError(t, json.Unmarshal(stored, &back), path)
		require.Equal(t, spec.Webhook.URL, back.Webhook.URL, path)
	})
	for path := range keys {
		require.Contains(t, walked, path, "it is no key any more")
	}
}

// eachKey visits the fields of a struct that have a value of their own in JSON.
func eachKey(of reflect.Type, path []string, index []int, visit func(path string, index []int)) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		p, at := append(slices.Clone(path), name), append(slices.Clone(index), i)
		own := reflect.PointerTo(f.Type).Implements(reflect.TypeFor[json.Unmarshaler]()) && f.Type != reflect.TypeFor[trigger.Retry]()
		if f.Type.Kind() == reflect.Struct && !own {
			eachKey(f.Type, p, at, visit)
			continue
		}
		visit(strings.Join(p, "."), at)
	}
}

// set gives a key a value that differs from the default.
func set(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	switch path {
	case "payload.old":
		v.SetString(trigger.OldChanged)
		return
	case "webhook.body", "nats.body":
		v.SetString(`{"id":"$new.id"}`)
		return
	case "on.update":
		v.Set(reflect.ValueOf(trigger.UpdateOn{Enabled: true}))
		return
	case "order":
		v.Set(reflect.ValueOf(trigger.Order{By: []string{trigger.OrderByRow}}))
		return
	case "rate.limit":
		limit, err := trigger.ParsePerTime("50/s")
		require.NoError(t, err)
		v.Set(reflect.ValueOf(limit))
		return
	case "retry.statuses":
		require.NoError(t, json.Unmarshal([]byte(`{"410": "pause"}`), v.Addr().Interface()))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(7 * time.Second))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		set(t, "", v.Index(0))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"x": "y"}))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		set(t, "", v.Elem())
	default:
		require.FailNow(t, "no value for this key", path)
	}
}

func TestProgramsOfTheVersionBeforeKeepHistoryAsLongAsAnyTrigger(t *testing.T) {
	t.Parallel()
	day := trigger.Duration(24 * time.Hour)
	month, none := 30*day, trigger.Duration(0)
	general := trigger.Retention{Delivered: 0, Attempts: 7 * day, MaxSize: 5 << 10}
	for name, c := range map[string]struct {
		own    []trigger.OwnRetention
		stored string
	}{
		"none of its own": {nil, `{"delivered": "0", "attempts": "7d", "max_size": "5KiB"}`},
		"shorter":         {[]trigger.OwnRetention{{Attempts: &none}}, `{"delivered": "0", "attempts": "7d", "max_size": "5KiB"}`},
		"longer":          {[]trigger.OwnRetention{{Delivered: &day}, {Delivered: &month}}, `{"delivered": "30d", "attempts": "7d", "max_size": "5KiB", "general": {"delivered": "0", "attempts": "7d"}}`},
	} {
		var specs []trigger.Spec
		for _, own := range c.own {
			specs = append(specs, trigger.Spec{Retention: own})
		}
		stored, err := json.Marshal(trigger.StoredRetention(general, specs))
		require.NoError(t, err)
		require.JSONEq(t, c.stored, string(stored), name)
		back := trigger.DefaultSettings().Retention
		require.NoError(t, json.Unmarshal(stored, &back))
		require.Equal(t, general, back, name)
		shown := map[string]any{}
		require.NoError(t, json.Unmarshal(stored, &shown))
		trigger.ShowStored(shown)
		require.Equal(t, map[string]any{"delivered": "0", "attempts": "7d", "max_size": "5KiB"}, shown, name)
	}
}

package config_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

func readExample(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../rowhook.yaml")
	require.NoError(t, err)
	return string(data)
}

var commentedKey = regexp.MustCompile(`(?m)^( *)#((?:- )?[a-z0-9_]+:)`)

// instead are the keys that can't stand beside others whose default the example shows.
var instead = []string{"schedule"}

// uncommented returns the example with every commented key uncommented, but for those of instead.
func uncommented(example string) string {
	return commentedKey.ReplaceAllStringFunc(example, func(key string) string {
		if m := commentedKey.FindStringSubmatch(key); !slices.Contains(instead, strings.TrimSuffix(m[2], ":")) {
			return m[1] + m[2]
		}
		return key
	})
}

func TestExampleWorksAsItIsWithNothingButDefaults(t *testing.T) {
	t.Parallel()
	c := parse(t, readExample(t))
	want := trigger.DefaultSpec()
	want.Name, want.Table, want.Webhook.URL = "order_placed", "public.orders", "${ORDERS_URL}/hooks/orders"
	want.On = trigger.On{
		Insert: true, Update: trigger.UpdateOn{Enabled: true, Columns: []string{"status", "amount"}}, Delete: true, Manual: true,
	}
	require.Equal(t, []trigger.Spec{want}, c.Triggers)
	require.Equal(t, trigger.DefaultSettings(), c.Settings)
	variables, files := config.References(c.Triggers[0])
	require.Equal(t, []string{"ORDERS_URL"}, variables, "one variable is enough to start it")
	require.Empty(t, files)
}

func TestExampleNamesItsSchemaInTheFirstLine(t *testing.T) {
	t.Parallel()
	first, _, _ := strings.Cut(readExample(t), "\n")
	require.Equal(t, "# yaml-language-server: $schema=docs/rowhook.schema.json", first)
}

// examples are the keys without a default, for which the file shows an example.
var examples = []string{
	"name", "table", "on.insert", "on.update", "on.delete", "on.truncate", "on.manual", "when", "payload.columns", "payload.insert.columns", "payload.update.columns", "payload.delete.columns", "payload.mask", "webhook.url", "webhook.headers", "webhook.query", "webhook.body", "webhook.secret",
	"webhook.tls.ca_file", "webhook.tls.cert_file", "webhook.tls.key_file",
	"webhook.oauth2.token_url", "webhook.oauth2.client_id", "webhook.oauth2.client_secret", "webhook.oauth2.scopes", "webhook.oauth2.audience",
	"retry.statuses", "retry.max_age", "retention.delivered", "retention.attempts", "order.by", "batch.max", "batch.bytes", "rate.limit", "rate.burst",
}

// unshown are the fields of a trigger that have no key of their own, since concurrency is both, the key
// that excludes another one, which the file has, and the one that needs sources.
var unshown = []string{"-", "form", "held_by"}

// besides are the keys that stand in the place of table, and of webhook. A comment shows them.
var besides = []string{"tables", "except", "follow", "nats"}

func TestExampleShowsEveryKeyWithItsDefault(t *testing.T) {
	t.Parallel()
	c := parse(t, uncommented(readExample(t)))
	require.Len(t, c.Triggers, 1)
	shown := map[string]any{}
	collect(t, c, 0, reflect.ValueOf(c.Triggers[0]), nil, shown)
	defaults := map[string]any{}
	collect(t, nil, 0, reflect.ValueOf(trigger.DefaultSpec()), nil, defaults)
	for _, path := range examples {
		require.Contains(t, shown, path)
		require.NotZero(t, shown[path], path)
		delete(shown, path)
		delete(defaults, path)
	}
	require.Equal(t, defaults, shown)

	require.Len(t, c.Settings.Alerts, 2)
	require.Equal(t, trigger.Alert{
		On: trigger.Alerts(), URL: "${ALERT_URL}", Format: trigger.AlertJSON, Secret: "${ALERT_SECRET}", Backlog: trigger.Backlog{OlderThan: trigger.DefaultBacklog},
	}, c.Settings.Alerts[0])
	require.Equal(t, trigger.Alert{Heartbeat: "${PING_URL}", Every: trigger.DefaultHeartbeat}, c.Settings.Alerts[1])
	c.Settings.Alerts = []trigger.Alert{}
	shown, defaults = map[string]any{}, map[string]any{}
	collect(t, c, -1, reflect.ValueOf(c.Settings), nil, shown)
	collect(t, nil, -1, reflect.ValueOf(trigger.DefaultSettings()), nil, defaults)
	require.Equal(t, defaults, shown)
}

// collect lists the values of a struct by the path of their keys, and checks that the file of c
// contains each key.
func collect(t *testing.T, c *config.Config, number int, v reflect.Value, path []string, into map[string]any) {
	t.Helper()
	if v.Kind() == reflect.Struct && !isLeaf(v.Interface()) {
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			if v.Type() == reflect.TypeFor[trigger.Order]() {
				name = []string{"by", "strict", "on_dead", "latest"}[i]
			}
			if slices.Contains(unshown, name) || slices.Contains(besides, name) || slices.Contains(instead, name) {
				continue
			}
			collect(t, c, number, v.Field(i), append(path[:len(path):len(path)], name), into)
		}
		return
	}
	key := strings.Join(path, ".")
	into[key] = v.Interface()
	if c == nil {
		return
	}
	// A key that is not in the file has the position of its parent.
	own, holder := c.Position(number, path...), c.Position(number, path[:len(path)-1]...)
	require.NotEqual(t, holder, own, "%s is in rowhook.yaml", key)
}

func isLeaf(v any) bool {
	switch v.(type) {
	case trigger.UpdateOn, trigger.PerTime:
		return true
	}
	return false
}

func TestExampleExplainsEachKeyBeforeIt(t *testing.T) {
	t.Parallel()
	lines := strings.Split(readExample(t), "\n")
	key := regexp.MustCompile(`^ *#?(- )?[a-z0-9_]+:`)
	prose := regexp.MustCompile(`^ *# `)
	for i, line := range lines {
		if !key.MatchString(line) || strings.HasPrefix(strings.TrimSpace(line), "url:") || strings.HasPrefix(line, "triggers:") || strings.HasSuffix(line, "insert: true") {
			continue // its parent explains it
		}
		require.Regexp(t, prose, lines[i-1], "line "+strconv.Itoa(i+1)+": "+line)
	}
}

package httpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/httpapi"
)

func (d *desk) me(t *testing.T) httpapi.Me {
	t.Helper()
	var me httpapi.Me
	a := d.ask(t, "GET", "/api/v1/me", nil)
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	a.into(t, &me)
	return me
}

func TestMeSaysWhatAnUnnamedTokenMayDo(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *httpapi.Config) {
		c.WriteToken, c.ReadToken, c.Database, c.TraceLink = writeToken, readToken, "shop on db:5432", "https://x/{trace_id}"
	})
	d.set(func(s *dispatcher.Stats) { s.Name = "here" })
	me := d.me(t)
	require.Equal(t, []string{"status", "payloads", "steer", "admin"}, me.Scopes)
	require.Equal(t, []string{"events", "payloads", "audit", "pause", "resume", "redeliver", "discard", "retry", "cancel", "invoke", "backfill", "backfill_where", "replay", "cancel_operation"}, me.May)
	require.Nil(t, me.Name)
	require.Nil(t, me.Until)
	require.Equal(t, []any{true, "HTTP with ROWHOOK_HTTP_TOKEN", "v1", "shop on db:5432", httpapi.MeInstance{ID: 2, Name: "here"}, false, "https://x/{trace_id}"},
		[]any{me.Tokens, me.Actor, me.Version, me.Database, me.Instance, me.Dev, *me.TraceLink})
	require.WithinDuration(t, time.Now(), me.Now, time.Minute)

	d.token = readToken
	me = d.me(t)
	require.Equal(t, []string{"status", "payloads"}, me.Scopes)
	require.Equal(t, []string{"events", "payloads", "audit"}, me.May)
	d.token = "wrong-wrong-wrong-wrong"
	require.Equal(t, "401 unauthorized", d.problem(t, "GET", "/api/v1/me", nil))
}

func TestMeWithoutTokensMayDoAllButSQL(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	me := d.me(t)
	require.False(t, me.Tokens)
	require.Equal(t, []string{"status", "payloads", "steer"}, me.Scopes)
	require.Contains(t, me.May, "backfill")
	require.NotContains(t, me.May, "backfill_where")
	require.Equal(t, "403 sql_needs_token", d.problem(t, "POST", "/api/v1/triggers/orders/backfill", map[string]any{"where": "true"}))
	require.Nil(t, me.TraceLink)
}

// What the role of the database lacks is not offered, and what is offered works.
func TestMeOffersOnlyWhatTheRoleMayDo(t *testing.T) {
	t.Parallel()
	const all = "events payloads audit pause resume redeliver discard retry cancel invoke backfill backfill_where replay cancel_operation"
	cases := map[string]struct{ grants, may string }{
		"nothing":  {"", "cancel_operation"},
		"a reader": {"grant usage on schema rowhook to %; grant select on all tables in schema rowhook to %", "events payloads audit cancel_operation"},
		"a reader who steers": {
			"grant usage on schema rowhook to %; grant select, insert, update, delete on all tables in schema rowhook to %; grant select on all sequences in schema rowhook to %; grant execute on function rowhook.emit(text, json) to %", all,
		},
		"one who may only retry": {
			"grant usage on schema rowhook to %; grant select on all tables in schema rowhook to %; grant update (due_at) on rowhook.event_log to %; grant insert, update, delete on rowhook.audit to %; grant select on rowhook.doorbell to %",
			"events payloads audit retry cancel_operation",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg httpapi.Config
			d := newDesk(t, func(c *httpapi.Config) { c.WriteToken, cfg = writeToken, *c })
			role, url := d.Role(t)
			if c.grants != "" {
				d.Exec(t, strings.ReplaceAll(c.grants, "%", role))
			}
			pool, err := pgxpool.New(t.Context(), url)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			cfg.DB, cfg.WriteToken = pool, writeToken
			d.serve(t, httpapi.New(cfg))
			may := d.me(t).May
			require.Equal(t, c.may, strings.Join(may, " "))
			for _, action := range []struct {
				name, method, path string
				body               any
			}{
				{"events", "GET", "/api/v1/events", nil}, {"audit", "GET", "/api/v1/audit", nil},
				{"pause", "POST", "/api/v1/pause", map[string]any{"all": true}}, {"resume", "POST", "/api/v1/resume", map[string]any{"all": true}},
				{"redeliver", "POST", "/api/v1/events/redeliver", map[string]any{"filter": map[string]any{"ids": d.bury(t, 1)}}},
				{"discard", "POST", "/api/v1/events/discard", map[string]any{"filter": map[string]any{"ids": d.bury(t, 1)}}},
				{"cancel", "POST", "/api/v1/triggers/orders/cancel", map[string]any{}},
				{"invoke", "POST", "/api/v1/triggers/manual/invoke", map[string]any{"payload": 1}},
				{"retry", "POST", "/api/v1/triggers/orders/retry", map[string]any{"ids": retrying(t, d)}},
			} {
				status := d.ask(t, action.method, action.path, action.body).StatusCode
				if slices.Contains(may, action.name) {
					require.Less(t, status, 300, action.name)
				} else {
					require.Equal(t, http.StatusForbidden, status, action.name)
				}
			}
		})
	}
}

func retrying(t *testing.T, d *desk) []string {
	t.Helper()
	return d.ids(t, "update rowhook.event_log set tries = 1, due_at = now() + interval '1 hour' where id::text = $1 returning id::text", d.wait(t, 1, false)[0])
}

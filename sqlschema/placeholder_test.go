package sqlschema_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestPlaceholdersOfWhatIsNeverSentAreRefused(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table orders (id int primary key, status text, "Order Id" int, data jsonb)`)
	webhook := func(change func(*trigger.Webhook)) func(*trigger.Spec) {
		return func(s *trigger.Spec) { change(&s.Webhook) }
	}
	only := func(on trigger.On) func(*trigger.Spec) { return func(s *trigger.Spec) { s.On = on } }
	for _, c := range []struct {
		spec trigger.Spec
		path string
		want string
	}{
		{all("x", "orders", webhook(func(h *trigger.Webhook) { h.Body = `{"a":["$new.id","No. ${new.statsu}"]}` })), "webhook.body.a.1", `the table public.orders has no column "statsu"; did you mean status?`},
		{all("x", "orders", webhook(func(h *trigger.Webhook) { h.Body = `{"a":"$event.data.old.nothing"}` })), "webhook.body.a", `no column "nothing"; its columns are id, status, Order Id, data`},
		{all("x", "orders", webhook(func(h *trigger.Webhook) { h.URL = "https://e.com/$new.ID" })), "webhook.url", `no column "ID"; did you mean id?`},
		{all("x", "orders", webhook(func(h *trigger.Webhook) { h.Query = map[string]string{"q": "$new.i"} })), "webhook.query.q", `no column "i"`},
		{all("x", "orders", webhook(func(h *trigger.Webhook) { h.Headers = map[string]string{"X-A": "$new.x"} })), "webhook.headers.X-A", `no column "x"`},
		{all("x", "orders", webhook(func(h *trigger.Webhook) { h.Form = map[string]string{"f": "$new.x"} })), "webhook.form.f", `no column "x"`},
		{all("x", "orders", payload("id", "data"), webhook(func(h *trigger.Webhook) { h.Body = `{"a":"$new.status"}` })), "webhook.body.a", `$new.status is always null, since payload.columns leaves the column "status" out: add it there`},
		{all("x", "orders", only(trigger.On{Insert: true}), webhook(func(h *trigger.Webhook) { h.Body = `{"a":"$old.id"}` })), "webhook.body.a", "$old.id is always null, since the trigger captures no updates and no deletes"},
		{all("x", "orders", only(trigger.On{Delete: true}), webhook(func(h *trigger.Webhook) { h.Body = `{"a":"${new}"}` })), "webhook.body.a", "${new} is always null, since the trigger captures only deletes"},
		{all("x", "orders", webhook(func(h *trigger.Webhook) { h.Body = `{"a":"$event.changed"}` })), "webhook.body.a", "$event.changed is always null, since payload.changed is not true: write payload: {changed: true}"},
		{all("x", "orders", only(trigger.On{Insert: true}), webhook(func(h *trigger.Webhook) { h.Body = `{"a":"$event.changed"}` })), "webhook.body.a", "$event.changed is always null, since the trigger captures no updates"},
		{all("x", "orders", only(trigger.On{Truncate: true}), webhook(func(h *trigger.Webhook) { h.Body = `{"a":"$new.id"}` })), "webhook.body.a", "$new.id is always null, since the trigger captures only TRUNCATE: remove it"},
	} {
		_, err := sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{c.spec}, trigger.DefaultSettings())
		var problems trigger.SpecErrors
		require.ErrorAs(t, err, &problems, c.want)
		require.Len(t, problems, 1, "%v", err)
		require.Equal(t, c.path, strings.Join(problems[0].Path, "."))
		require.Contains(t, problems[0].Message, c.want)
	}
	w.plan(t, all("x", "orders", payload("id", "data", "Order Id"), webhook(func(h *trigger.Webhook) {
		h.Body = `{"a":"$new.data.deep[0].x","b":"$old.\"Order Id\"","c":"$session.x-hasura-role","d":["$id","$table.name","$event"]}`
	})))
	for url, want := range map[string]string{
		"https://e.com/$new.id":                  "$new.id is null in events of delete and truncate, which become dead letters",
		"https://e.com/$old.id/x":                "$old.id is null in events of insert and truncate, which become dead letters",
		"https://e.com/o/${new.id}?a=$new.id":    "${new.id} is null in events of delete and truncate, which become dead letters",
		`https://e.com/${new.id ?? "none"}`:      "",
		"https://e.com/x-$new.id/$id?a=/$new.id": "",
	} {
		plan := w.plan(t, all("x", "orders", only(trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true}, Delete: true, Truncate: true}), webhook(func(h *trigger.Webhook) { h.URL = url })))
		if want == "" {
			require.Empty(t, plan.Warnings, url)
			continue
		}
		require.Len(t, plan.Warnings, 1, url)
		require.Contains(t, plan.Warnings[0], "x: webhook.url: "+want, url)
	}
	plan := w.plan(t, all("x", "orders", only(trigger.On{Insert: true, Manual: true}), webhook(func(h *trigger.Webhook) { h.Body = `{"a":"$new.reason"}` })))
	require.Contains(t, strings.Join(plan.Warnings, "\n"), `x: webhook.body.a: the table public.orders has no column "reason"`)
	require.Contains(t, strings.Join(plan.Warnings, "\n"), "so $new.reason is null but for manual events that have it")
}

func TestATemplateIsReadBackAsItWasApplied(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table orders (id int primary key)`)
	spec := all("x", "orders", func(s *trigger.Spec) {
		s.Webhook = trigger.Webhook{URL: "https://e.com/$new.id", Method: "PUT", Query: map[string]string{"a": "$id"}, Body: `{"z":1.10,"a":"$new.id"}`, Timeout: trigger.DefaultTimeout}
	})
	w.apply(t, spec)
	require.True(t, w.plan(t, spec).Empty())
	require.Equal(t, `{"z":1.10,"a":"$new.id"}|needs a newer rowhook|https://e.com/$new.id`,
		w.scalar(t, `select concat_ws('|', spec #>> '{webhook,body}', spec #>> '{webhook,url}', spec #>> '{webhook,target}') from rowhook.trigger`))
}

package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

// natsFile is fileOf with nats in the place of webhook.
func natsFile(keys string, lines ...string) string {
	return strings.Replace(fileOf(lines...), "webhook: {url: https://e.com/x}", "nats: {"+keys+"}", 1)
}

func TestNATSIsReadInThePlaceOfAWebhook(t *testing.T) {
	t.Parallel()
	c := parse(t, "defaults: {nats: {url: 'nats://a:4222', headers: {X-A: b}, creds: '${file:/c}'}, webhook: {timeout: 3s}}\n"+
		natsFile(`subject: "orders.$new.id", stream: ORDERS, timeout: 2s, headers: {x-B: $new.b}, body: {id: $new.id}`)+
		"  - {name: b, table: t, on: {insert: true}, webhook: {url: https://e.com}}\n")
	require.Equal(t, trigger.Webhook{}, c.Triggers[0].Webhook)
	require.Equal(t, trigger.NATS{
		URL: "nats://a:4222", Subject: "orders.$new.id", Stream: "ORDERS", Creds: "${file:/c}", Headers: map[string]string{"X-A": "b", "x-B": "$new.b"},
		Body: `{"id":"$new.id"}`, Timeout: trigger.Duration(2 * time.Second),
	}, c.Triggers[0].NATS)
	require.Equal(t, trigger.NATS{}, c.Triggers[1].NATS)
	require.Equal(t, trigger.Duration(3*time.Second), c.Triggers[1].Webhook.Timeout)
	_, files := config.References(c.Triggers[0])
	require.Equal(t, []string{"/c"}, files)
	for _, spec := range c.Triggers {
		text, err := config.Write(spec)
		require.NoError(t, err)
		require.Equal(t, []trigger.Spec{spec}, parse(t, string(text)).Triggers, "%s", text)
	}
	require.Equal(t, trigger.Duration(40*time.Second), trigger.Duration((&trigger.Spec{NATS: trigger.NATS{URL: "nats://a"}}).Lease()))
}

func TestWrongNATSIsRefusedWithPlaceAndCure(t *testing.T) {
	t.Parallel()
	const right = `url: "nats://a", subject: b, `
	for _, c := range []struct{ name, text, want string }{
		{"both", fileOf(`nats: {url: "nats://a", subject: b}`), "6:11: triggers[0].nats: is beside webhook, and a trigger has one of the two; remove one of the keys"},
		{"neither", natsFile("")[:strings.Index(natsFile(""), "    nats")], "2:5: triggers[0].webhook: is missing; write it like webhook:"},
		{"no subject", natsFile(`url: "nats://a"`), "5:5: triggers[0].nats.subject: is missing; write it like subject: orders.$new.id, here or for all triggers in defaults"},
		{"both in defaults", "defaults: {webhook: {url: https://e}, nats: {url: 'nats://a', subject: b}}\ntriggers:\n  - {name: a, table: t, on: {insert: true}}\n", "3:5: triggers[0]: has neither webhook nor nats, and defaults have both; write"},
		{"no scheme", natsFile("url: a, subject: b"), "triggers[0].nats.url: has no nats:// before the host; write it like nats://nats.example.com:4222"},
		{"of HTTP", natsFile(`url: "http://a", subject: b`), "triggers[0].nats.url: the scheme http:// is not supported; use nats://, tls://, ws:// or wss://"},
		{"a second one", natsFile(`url: "nats://a,b", subject: b`), "triggers[0].nats.url: has no nats:// before the host"},
		{"a port", natsFile(`url: "nats://a:99999", subject: b`), "triggers[0].nats.url: port 99999 does not exist"},
		{"a path", natsFile(`url: "nats://a/orders", subject: b`), "triggers[0].nats.url: has something behind the host"},
		{"data in the url", natsFile(`url: "nats://$new.host", subject: b`), "triggers[0].nats.url: has data of the event, and all events go to one cluster; write data into subject"},
		{"an empty token", natsFile(`url: "nats://a", subject: "a..b"`), "triggers[0].nats.subject: has an empty token"},
		{"a blank", natsFile(`url: "nats://a", subject: "a b"`), "triggers[0].nats.subject: contains white space"},
		{"a wildcard", natsFile(`url: "nats://a", subject: "a.>"`), "triggers[0].nats.subject: has the wildcard >"},
		{"a subject of servers", natsFile(`url: "nats://a", subject: "$$JS.API"`), "triggers[0].nats.subject: begins with $"},
		{"a member", natsFile(`url: "nats://a", subject: "a.$new.b.c"`), "triggers[0].nats.subject: $new.b.c is a member within the column; write ${new.b}.c if the rest are tokens of the subject, or ${new.b.c} if it is the member"},
		{"an unknown word", natsFile(`url: "nats://a", subject: "a.$nwe.b"`), "triggers[0].nats.subject:"},
		{"old of inserts", natsFile(`url: "nats://a", subject: "a.$old.b"`), "triggers[0].nats.subject: $old.b is always null, since the trigger captures no updates and no deletes"},
		{"a batch", natsFile(`url: "nats://a", subject: b`, "batch: {max: 10}"), "triggers[0].batch: with nats each event is a message of its own"},
		{"two logins", natsFile(right + "token: '${T}', user: a, password: '${P}'"), "a server asks for a token, or for user and password; remove one of the two"},
		{"creds and a token", natsFile(right + "creds: '${file:/c}', token: '${T}'"), "creds log in by themselves; remove"},
		{"half a login", natsFile(right + "user: a"), "triggers[0].nats.user: has no password; add password: ${NAME}"},
		{"a form", natsFile(right + "body: form"), "triggers[0].nats.body: a message is no form"},
		{"a header of NATS", natsFile(right + "headers: {Nats-Msg-Id: a}"), `triggers[0].nats.headers.Nats-Msg-Id: the header Nats-Msg-Id is for NATS itself; remove it`},
		{"a format and a body", natsFile(right + "format: cloudevents, body: {a: b}"), "triggers[0].nats.format: format: cloudevents and body both say what the body holds"},
		{"a certificate", natsFile(right + "tls: {cert_file: /a}"), "triggers[0].nats.tls: has a cert_file but no key_file"},
	} {
		found := problemsOf(t, c.text)
		require.Len(t, found, 1, "%s: %q", c.name, found)
		require.Contains(t, found[0], c.want, c.name)
	}
}

func TestSecretsOfNATSInPlainTextAreWarnedOf(t *testing.T) {
	t.Parallel()
	c := parse(t, natsFile(`url: "nats://u:secret@a", subject: b, token: plain-token`))
	require.Len(t, c.Warnings, 2)
	require.Contains(t, c.Warnings[0].String(), "contains a password")
	require.Contains(t, c.Warnings[1].String(), "nats.token: is plain text here")
	require.NotContains(t, c.Warnings[1].String(), "is plain-token")
}

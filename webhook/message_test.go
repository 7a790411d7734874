package webhook_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func message(t *testing.T, n trigger.NATS, variables ...string) *webhook.Message {
	t.Helper()
	m, err := newMessage(n, variables...)
	require.NoError(t, err)
	return m
}

func newMessage(n trigger.NATS, variables ...string) (*webhook.Message, error) {
	given := map[string]string{}
	for i := 0; i < len(variables); i += 2 {
		given[variables[i]] = variables[i+1]
	}
	if n.URL == "" {
		n.URL = "nats://127.0.0.1:4222"
	}
	if n.Subject == "" {
		n.Subject = "orders"
	}
	return webhook.NewMessage(&n, trigger.Variables(func(name string) (string, bool) { v, ok := given[name]; return v, ok }), 1<<20)
}

func make1(t *testing.T, m *webhook.Message, e *webhook.Event) webhook.MessageBody {
	t.Helper()
	made, free, bad := m.Make(t.Context(), e, time.Unix(1_700_000_000, 0))
	require.Nil(t, bad, "%+v", bad)
	made.Body = append([]byte{}, made.Body...)
	free()
	return made
}

func TestAMessageHasTheHeadersOfARequestByTheirNamesInNATS(t *testing.T) {
	t.Parallel()
	e := &webhook.Event{
		ID: [16]byte{1}, CreatedAt: time.Unix(1_600_000_000, 0), Schema: "public", Table: "orders", Trigger: "a", Op: 'I', New: []byte(`{"id": 7, "v": "x\ny"}`),
		Sequence: 12, CurrentRetry: 2, Trace: []byte(`{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}`),
	}
	m := message(t, trigger.NATS{Subject: "orders.$new.id", Stream: "S", Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Headers: map[string]string{"x-lower": "a", "X-DATA": "$new.v"}})
	made := make1(t, m, e)
	require.Equal(t, "orders.7", made.Subject)
	id := "01000000-0000-0000-0000-000000000000"
	for name, want := range map[string]string{
		webhook.HeaderMsgID: id, webhook.HeaderStream: "S", webhook.HeaderSequence: "12", webhook.HeaderAttempt: "3", "webhook-id": id, "webhook-timestamp": "1700000000",
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b", "x-lower": "a", "X-DATA": "x y", "Content-Type": "application/json",
	} {
		require.Equal(t, []string{want}, made.Header[name], name)
	}
	require.Len(t, made.Header, 12, "and the signature: %v", made.Header)
	require.Equal(t, string(webhook.AppendBody(nil, e)), string(made.Body))

	binary := make1(t, message(t, trigger.NATS{Format: trigger.FormatCloudEventsBinary}), e)
	require.Equal(t, []string{"1.0"}, map[string][]string(binary.Header)["ce-specversion"])
	require.NotContains(t, binary.Header, "Ce-Specversion")
	template := make1(t, message(t, trigger.NATS{Body: `{"id":"$new.id"}`}), e)
	require.JSONEq(t, `{"id": 7}`, string(template.Body))
}

// FuzzSubject holds that data makes a part of one token, that different data makes different tokens, and
// that a subject stays as long as a server takes.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{"", "a", ".", "*", ">", "a b", "%", "%2E", "_INBOX", "$JS", "日", "\xff", "\x00", "\r\n", strings.Repeat("ü", 600)} {
		f.Add(s, s+"x")
	}
	m, err := newMessage(trigger.NATS{Subject: "orders.${new.v}.placed"})
	require.NoError(f, err)
	first, err := newMessage(trigger.NATS{Subject: "${new.v}"})
	require.NoError(f, err)
	token := regexp.MustCompile(`^(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+$|^%$`)
	of := func(t *testing.T, m *webhook.Message, v string) (string, bool) {
		t.Helper()
		e := &webhook.Event{Op: 'I', New: []byte(`{"v": ` + string(template.AppendString(nil, v)) + `}`)}
		made, free, bad := m.Make(t.Context(), e, time.Now())
		if bad != nil {
			require.Contains(t, bad.Err, "the subject has")
			require.True(t, bad.Hopeless)
			return "", false
		}
		free()
		return made.Subject, true
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = strings.ToValidUTF8(a, "\uFFFD"), strings.ToValidUTF8(b, "\uFFFD")
		x, ok := of(t, m, a)
		y, also := of(t, m, b)
		for _, subject := range []string{x, y} {
			if subject == "" {
				continue
			}
			parts := strings.Split(subject, ".")
			require.Len(t, parts, 3)
			require.Regexp(t, token, parts[1])
			require.LessOrEqual(t, len(subject), 1<<10)
		}
		if ok && also {
			require.Equal(t, a == b, x == y, "%q %q", a, b)
		}
		if begins, ok := of(t, first, a); ok {
			require.NoError(t, trigger.CheckSubject(begins), begins)
			require.False(t, strings.HasPrefix(begins, "_"), begins)
		}
	})
}

func TestAMessageHidesItsSecrets(t *testing.T) {
	t.Parallel()
	m := message(t, trigger.NATS{URL: "${U},nats://u:plain-password@b", Subject: "a.$new.id", Token: "${T}", Headers: map[string]string{"Authorization": "Bearer ${H}"}},
		"U", "nats://user:first-password@A:1", "T", "the-token", "H", "the-header")
	require.Equal(t, "nats://a:1,nats://b:4222 a.$new.id", m.String())
	require.Equal(t, "nats://a:1,nats://b:4222", m.Origin())
	require.Equal(t, []string{"nats://user:first-password@A:1", "nats://u:plain-password@b"}, m.Servers())
	shown, err := m.Preview(&webhook.Event{Op: 'I', New: []byte(`{"id": 7}`)})
	require.NoError(t, err)
	require.Equal(t, "PUBLISH nats://a:1,nats://b:4222 a.7", shown.Method+" "+shown.URL)
	for _, text := range []string{string(shown.Header), shown.URL, m.String(), m.Scrub("plain-password first-password the-token the-header")} {
		for _, secret := range []string{"plain-password", "first-password", "the-token", "the-header"} {
			require.NotContains(t, text, secret)
		}
	}
}

func TestAMessageThatCanNotBeMadeSaysWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    trigger.NATS
		want string
	}{
		{trigger.NATS{URL: "${U}"}, "environment variable U is not set"},
		{trigger.NATS{URL: "http://a"}, "is not a URL of a server of NATS"},
		{trigger.NATS{Subject: "a b"}, "white space"},
		{trigger.NATS{Subject: "${S}.x"}, "environment variable S is not set"},
		{trigger.NATS{Creds: "/run/secrets/creds"}, "write ${file:/PATH}"},
		{trigger.NATS{Headers: map[string]string{"Host": "a"}}, "Host"},
		{trigger.NATS{Headers: map[string]string{"nats-msg-id": "a"}}, "is for NATS itself"},
		{trigger.NATS{TLS: trigger.TLS{CertFile: "/a"}}, "must be set together"},
	} {
		m, err := newMessage(c.n)
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, m.Prepare(), c.want)
		require.NotEmpty(t, m.String())
	}
	m := message(t, trigger.NATS{TLS: trigger.TLS{CAFile: "/no/such/file"}})
	require.ErrorContains(t, m.Prepare(), "/no/such/file")
	_, _, bad := message(t, trigger.NATS{}).Make(webhook.WithHeader(t.Context(), http.Header{}), &webhook.Event{Op: 'I', New: []byte(`"` + strings.Repeat("x", 1<<20) + `"`)}, time.Now())
	require.Equal(t, webhook.KindTooLarge, bad.Kind)
}

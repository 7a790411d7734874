package alert

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func dead() Message {
	at := time.Date(2026, 11, 26, 15, 0, 0, 0, time.FixedZone("", 3600))
	return Message{Destination: "one", Kind: Dead, Phase: Begun, States: []State{{
		Key: Key{Dead, "orders"}, BegunAt: at, EndedAt: at.Add(90 * time.Second), Again: 1,
		Facts: Facts{
			Triggers: []string{"orders"}, Endpoint: "https://e.com/<id>?k=<redacted>", Host: "https://e.com:443", Reason: "answered 400 & <!channel>\nmore",
			Counts: map[string]int64{"dead": 3}, Remedy: "rowhook redeliver --trigger orders",
		},
	}}}
}

func TestTheBodyIsTheDocumentedOne(t *testing.T) {
	t.Parallel()
	m := dead()
	text, err := m.Body(trigger.AlertJSON)
	require.NoError(t, err)
	require.JSONEq(t, `{"alert": "dead", "state": "begun", "trigger": "orders", "triggers": ["orders"], "endpoint": "https://e.com/<id>?k=<redacted>",
		"since": "2026-11-26T14:00:00Z", "until": null, "reason": "answered 400 & <!channel>\nmore", "counts": {"dead": 3}, "remedy": "rowhook redeliver --trigger orders"}`, string(text))
	m.Phase, m.Test = Ended, true
	text, err = m.Body(trigger.AlertJSON)
	require.NoError(t, err)
	require.Contains(t, string(text), `"until":"2026-11-26T14:01:30Z"`)
	require.Contains(t, string(text), `"test":true`)
	require.Contains(t, string(text), `"remedy":""`, "nothing is left to do")
}

func TestTextForSlackCallsNobodyByAccident(t *testing.T) {
	t.Parallel()
	m := dead()
	text, err := m.Body(trigger.AlertSlack)
	require.NoError(t, err)
	require.Equal(t, "*dead letters*: orders (https://e.com/&lt;id&gt;?k=&lt;redacted&gt;)\nsince 2026-11-26 14:00:00 UTC; 3 dead letters\n"+
		"> answered 400 &amp; &lt;!channel&gt; more\nrowhook redeliver --trigger orders", m.text())
	require.JSONEq(t, `{"text": "*dead letters*: orders (https://e.com/&lt;id&gt;?k=&lt;redacted&gt;)\nsince 2026-11-26 14:00:00 UTC; 3 dead letters\n> answered 400 &amp; &lt;!channel&gt; more\nrowhook redeliver --trigger orders"}`, string(text))
	m.Phase = Ended
	require.Contains(t, m.text(), "*no more dead letters*: orders")
	require.Contains(t, m.text(), "until 14:01:30: 1m30s")
	m.States[0].Facts.leave(Left{})
	require.Contains(t, m.text(), "*no more dead letters*: orders")
	require.Contains(t, m.text(), "3 dead letters, none is left")
	m.States[0].Facts.leave(Left{Count: 2})
	require.Contains(t, m.text(), "*no new dead letters*: orders")
	require.Contains(t, m.text(), "3 dead letters, 2 are left")
	require.Contains(t, m.text(), "\nrowhook redeliver")
}

func TestAMessageOnSeveralAddsTheirCounts(t *testing.T) {
	t.Parallel()
	m := dead()
	second := m.States[0]
	second.Subject, second.Facts.Triggers, second.Facts.Endpoint = "invoices", []string{"invoices"}, "https://e.com/invoices"
	second.BegunAt = second.BegunAt.Add(-time.Minute)
	m.States = append(m.States, second)
	d := m.document()
	require.Nil(t, d.Trigger)
	require.Equal(t, []string{"invoices", "orders"}, d.Triggers)
	require.Equal(t, map[string]int64{"dead": 6, "triggers": 2}, d.Counts)
	require.Equal(t, second.BegunAt.UTC(), d.Since)
	require.Equal(t, "https://e.com:443", *d.Endpoint)
}

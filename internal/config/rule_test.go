package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatNeedsNoDatabaseIsFoundWithoutOne has what only an apply refused once.
func TestWhatNeedsNoDatabaseIsFoundWithoutOne(t *testing.T) {
	t.Parallel()
	const insert, all = "triggers:\n  - name: a\n    table: t\n    webhook: {url: https://e.com}\n    on: {insert: true}\n    ",
		"triggers:\n  - name: a\n    table: t\n    webhook: {url: https://e.com}\n    on: {insert: true, update: true, delete: true}\n    "
	for name, c := range map[string]struct{ text, want string }{
		"commit with the statement":     {all + "at: commit\n    capture: statement\n", "rowhook.yaml:6:9: triggers[0].at: what is captured at commit is captured row by row; remove capture: statement"},
		"commit with another order":     {all + "at: commit\n    order: {by: [customer]}\n", "rowhook.yaml:6:9: triggers[0].at: what is captured at commit can be ordered by row only; write order: row"},
		"certain updates":               {"triggers:\n  - {name: a, table: t, webhook: {url: https://e.com}, on: {update: {columns: [b]}}, capture: statement}\n", "nothing can be captured by the statement: it captures updates of certain columns"},
		"nothing but manual events":     {"triggers:\n  - {name: a, table: t, webhook: {url: https://e.com}, on: {manual: true}, capture: statement}\n", "nothing can be captured by the statement: it captures no changes of rows"},
		"a when":                        {insert + "when: new.a > 1\n    capture: statement\n", "triggers[0].capture: nothing can be captured by the statement: its when must be evaluated for each row; write capture: auto, which captures row by row here"},
		"chosen columns":                {insert + "payload: {columns: [id]}\n    capture: statement\n", "its payload has chosen columns; write capture: auto"},
		"numbers as texts":              {insert + "payload: {numbers: text}\n    capture: statement\n", "its payload has numbers as text; write capture: auto"},
		"of replication":                {insert + "on_replication: true\n    capture: statement\n", "it has on_replication"},
		"capture from defaults":         {insert + "when: new.a > 1\ndefaults: {capture: statement}\n", `triggers[0].when: nothing can be captured by the statement: its when must be evaluated for each row; write capture: auto, which captures row by row here (the trigger "a"; capture comes from defaults, on line 7)`},
		"a column that is not sent":     {"triggers:\n  - name: a\n    table: t\n    on: {insert: true}\n    payload: {columns: [id, status]}\n    webhook: {url: https://e.com, body: {a: [1, $new.statsu]}}\n", `rowhook.yaml:6:49: triggers[0].webhook.body.a[1]: $new.statsu is always null, since payload.columns leaves the column "statsu" out; add it there; did you mean status?`},
		"old of inserts":                {"triggers:\n  - name: a\n    table: t\n    on: {insert: true}\n    webhook: {url: https://e.com, headers: {X-A: $old.id}}\n", "triggers[0].webhook.headers.X-A: $old.id is always null, since the trigger captures no updates and no deletes; remove it, or capture them"},
		"changed, without payload":      {"triggers:\n  - name: a\n    table: t\n    on: {update: true}\n    webhook: {url: https://e.com, body: {a: $event.changed}}\n", "$event.changed is always null, since payload.changed is not true; write payload: {changed: true}"},
		"a manual event may have it":    {"triggers:\n  - name: a\n    table: t\n    on: {insert: true, manual: true}\n    payload: {columns: [id]}\n    webhook: {url: https://e.com, body: {a: $new.x}}\n", ""},
		"commit of manual events alone": {"triggers:\n  - {name: a, table: t, webhook: {url: https://e.com}, on: {manual: true}, at: commit}\n", ""},
	} {
		if c.want == "" {
			parse(t, c.text)
			continue
		}
		problems := problemsOf(t, c.text)
		require.Len(t, problems, 1, name)
		require.Contains(t, problems[0], c.want, name)
	}
}

//go:build unix

package cli_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/sink"
)

func TestDevTakesUpAChangedConfigurationAndRefusesABrokenOne(t *testing.T) {
	t.Parallel()
	file := write(t, "rowhook.yaml", signedOrders)
	g := host(t, nil, "-f", file, "--init", write(t, "schema.sql", orders), "--log-level", "info")
	replace := func(text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	replace(strings.ReplaceAll(signedOrders, "note_changed", "memo_changed"))
	g.stderr.waitFor(t, "applied the changed configuration")
	replace("triggers: [{name: half")
	g.stderr.waitFor(t, "configuration not applied, still using the previous one")
	replace(strings.NewReplacer("public.orders", "public.nosuch", "order_changed", "other_changed", "memo_changed", "note_changed").Replace(signedOrders))
	g.stderr.waitFor(t, "(?s)not applied[^\n]*\n"+regexp.QuoteMeta(file)+`:5:12: triggers\[0\].table: [^\n]*public.nosuch[^\n]*\n +5 \|     table: public.nosuch\n +\| +\^\n`)
	execOn(t, g.env["DATABASE_URL"], "insert into orders values (1, 1, 'a')")
	triggers := map[string]sink.Signature{}
	for _, d := range deliveriesOf(t, g.env["ROWHOOK_SINK_URL"], 2) {
		triggers[d.Trigger] = d.Signature
	}
	require.Equal(t, map[string]sink.Signature{"order_changed": sink.Valid, "memo_changed": sink.None}, triggers)
	require.NoError(t, os.Remove(file))
	g.stderr.waitFor(t, "(?s)public.nosuch.*does not exist")
	require.Zero(t, g.end(t, "0"))
}

package operate_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheViewOfEventsIsDocumentedColumnByColumn(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	text, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), "## In SQL\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	columns := d.ids(t, "select attname::text from pg_attribute where attrelid = 'rowhook.events'::regclass and attnum > 0")
	require.NotEmpty(t, columns)
	for _, column := range columns {
		require.Contains(t, section, "`"+column+"`")
	}
	_, example, ok := strings.Cut(section, "\n    select ")
	require.True(t, ok)
	example, _, _ = strings.Cut(example, ";\n")
	dead := d.bury(t, "a", 1)
	require.Equal(t, dead, d.ids(t, "select id::text from (select "+example+") as e where trigger_name = 'a'"))
}

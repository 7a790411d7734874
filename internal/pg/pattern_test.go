package pg_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pg"
)

func TestPatternsMatchAsSQLNamesTables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern       string
		schema, table string
		matches       bool
	}{
		{"public.orders", "public", "orders", true},
		{"PUBLIC.Orders", "public", "orders", true},
		{"public.orders", "public", "orders2", false},
		{`"Public"."Or.d""ers"`, "Public", `Or.d"ers`, true},
		{`"a*"."*"`, "a*", "*", true},
		{`"a*"."*"`, "ab", "c", false},
		{"orders", "public", "orders", false}, // the search_path decides
		{"billing.*", "billing", "anything At all", true},
		{"billing.*", "billing2", "x", false},
		{"billing.inv_*", "billing", "inv_", true},
		{"billing.inv_*", "billing", "inv", false},
		{"billing.*_log", "billing", "audit_log", true},
		{"billing.*_log", "billing", "audit_logs", false},
		{"billing.a*b*c", "billing", "abbc", true},
		{"billing.a*b*c", "billing", "acb", false},
		{"billing.a*a", "billing", "a", false},
		{"tenant_*.orders", "tenant_1", "orders", true},
		{"tenant_*.orders", "tenant_1", "order", false},
		{`tenant_*."Orders"`, "tenant_1", "Orders", true},
		{"*.*", "a", "b", true},
		{"größe.*", "größe", "b", true},
	} {
		p, err := pg.ParsePattern(c.pattern)
		require.NoError(t, err, c.pattern)
		require.Equal(t, c.matches, p.Match(c.schema, c.table), "%s %s.%s", c.pattern, c.schema, c.table)
	}
	for _, wrong := range []string{"", "*", "orders_*", "a.b.c", `"a`, `"".b`, `"a"b.c`, `a"b".c`, "a.", ".a", `"a"*.b`} {
		_, err := pg.ParsePattern(wrong)
		require.Error(t, err, wrong)
	}
}

func TestPatternsKnowTheirSchema(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"a.b": "a", "a.*": "a", "a*.b": "", "b": "", `"A".b`: "A"} {
		p, err := pg.ParsePattern(text)
		require.NoError(t, err)
		schema, ok := p.Schema()
		require.Equal(t, want, schema, text)
		require.Equal(t, want != "", ok, text)
	}
}

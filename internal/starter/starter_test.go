package starter_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/starter"
	"github.com/rowhook/rowhook/sqlschema"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// parse returns the configuration that a file is, and with all its commented keys set.
func parse(t require.TestingT, text []byte) (asItIs, uncommented *config.Config) {
	asItIs, err := config.Parse("rowhook.yaml", text)
	require.NoError(t, err, "%s", text)
	require.Empty(t, asItIs.Warnings, "%s", text)
	all := uncomment(string(text))
	uncommented, err = config.Parse("rowhook.yaml", []byte(all))
	require.NoError(t, err, "%s", all)
	return asItIs, uncommented
}

var commentedKey = regexp.MustCompile(`^( *)#([a-z_]+:.*)$`)

// uncomment removes the # directly before a key, and before the lines that continue its list.
func uncomment(text string) string {
	lines := strings.Split(text, "\n")
	open := false
	for i, line := range lines {
		switch {
		case commentedKey.MatchString(line):
			lines[i] = commentedKey.ReplaceAllString(line, "$1$2")
			open = strings.Contains(line, "columns: [") && !strings.HasSuffix(line, "]}")
		case open:
			lines[i] = strings.Replace(line, "#", "", 1)
			open = !strings.HasSuffix(line, "]}")
		}
	}
	return strings.Join(lines, "\n")
}

func TestTheSampleIsValidAlsoWithEveryCommentedKey(t *testing.T) {
	t.Parallel()
	text := starter.Write([]sqlschema.Table{starter.Sample()})
	c, all := parse(t, text)
	require.Equal(t, "orders_changed", c.Triggers[0].Name)
	require.Equal(t, []string{"status", "amount"}, c.Triggers[0].On.Update.Columns)
	require.Equal(t, "${WEBHOOK_URL}", c.Triggers[0].Webhook.URL)
	require.Equal(t, []string{"id", "status", "amount"}, all.Triggers[0].Payload.Columns)
	require.Equal(t, "${WEBHOOK_SECRET}", all.Triggers[0].Webhook.Secret)
	require.Equal(t, c.Triggers[0].Retry, all.Triggers[0].Retry, "the commented values are the defaults")
	require.Equal(t, c.Triggers[0].Webhook.Timeout, all.Triggers[0].Webhook.Timeout)
	for line := range strings.Lines(string(text)) {
		require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), 120, line)
		require.Equal(t, strings.TrimRight(line, " \n")+"\n", line, "no blanks at the end")
	}
}

func TestNamesOfTriggersAreValidAndDiffer(t *testing.T) {
	t.Parallel()
	table := func(schema, name string) sqlschema.Table {
		return sqlschema.Table{Name: pgx.Identifier{schema, name}.Sanitize(), Bare: name, Columns: []string{"a"}}
	}
	long := strings.Repeat("x", 63)
	text := starter.Write([]sqlschema.Table{table("a", "t"), table("b", "t"), table("a", "Order Items"), table("a", "日本"), table("a", "1"), table("a", long), table("b", long)})
	c, _ := parse(t, text)
	var names []string
	for _, s := range c.Triggers {
		names = append(names, s.Name)
	}
	require.Equal(t, []string{
		"t_changed", "t_changed_2", "Order_Items_changed", "table_changed", "table_1_changed", strings.Repeat("x", 34) + "_changed", strings.Repeat("x", 32) + "_changed_2",
	}, names)
}

// odd generates names that Postgres accepts.
func odd() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{
			"a", "A", "select", "true", "Null", "yes", "~", "-", "- a", "#", "a #b", "a: b", ":", "{a}", "[", "]", ",", "&a", "*a", "!a", "%", "@a", "`", "?", "? a", "|", ">", "'", "''", `"`, `""`, `"a"`, `\`, `\n`,
			" ", "  ", " a ", "\t", "\n", "a\nb", "a\n  - name: b", "\r", "\x01", "\x1b[31m", "\u007f", "\u0085", "\u00a0", "\u2028", "\ufeff", "größe", "日本", "😀", "${X}", "$X", "1", "1.5", "1e3", "0x1", ".inf", "2001-01-01", "a.b", "<<", "=", strings.Repeat("x", 63), strings.Repeat("日", 21),
		}),
		rapid.StringMatching(`[ -~]{1,20}`),
		rapid.StringN(1, 20, 63),
	).Filter(func(s string) bool {
		return s != "" && len(s) <= 63 && !strings.ContainsRune(s, 0) && strings.ToValidUTF8(s, "") == s
	})
}

// TestAFileForATableAlwaysChecksAndApplies makes tables with odd names, writes the file for them,
// and applies it, as it is and with its commented keys.
func TestAFileForATableAlwaysChecksAndApplies(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := db.Conn(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		if n++; n > 60 {
			return // each creates tables and triggers
		}
		ctx := context.Background()
		var names []string
		distinct := rapid.SliceOfNDistinct(odd(), 1, 2, rapid.ID).Draw(t, "tables")
		for i, name := range distinct {
			schema := fmt.Sprintf("s%d %s", i, rapid.SampledFrom([]string{"", "A", `"`}).Draw(t, "schema"))
			columns := rapid.SliceOfNDistinct(odd(), 0, 6, rapid.ID).Draw(t, "columns")
			var defined []string
			for _, c := range columns {
				defined = append(defined, pgx.Identifier{c}.Sanitize()+" int")
			}
			if len(columns) > 0 && rapid.Bool().Draw(t, "with a key") {
				defined = append(defined, "primary key ("+pgx.Identifier{columns[0]}.Sanitize()+")")
			}
			table := pgx.Identifier{schema, name}.Sanitize()
			_, err := conn.Exec(ctx, "create schema if not exists "+pgx.Identifier{schema}.Sanitize()+"; drop table if exists "+table+" cascade; create table "+table+" ("+strings.Join(defined, ", ")+")")
			require.NoError(t, err)
			names = append(names, table)
		}
		tables, err := sqlschema.FindTables(ctx, conn, names)
		require.NoError(t, err)
		text := starter.Write(tables)
		c, all := parse(t, text)
		for _, cfg := range []*config.Config{c, all} {
			_, err = sqlschema.Apply(ctx, conn, cfg.Triggers, cfg.Settings, nil)
			require.NoError(t, err, "%s", text)
		}
		for i := range tables {
			require.Equal(t, names[i], canonical(t, c.Triggers[i].Table))
			for _, column := range all.Triggers[i].Payload.Columns {
				require.Contains(t, tables[i].Columns, column)
			}
		}
	})
}

// canonical returns a qualified name with quotes around both parts.
func canonical(t require.TestingT, name string) string {
	parts := regexp.MustCompile(`"(?:[^"]|"")+"|[^".]+`).FindAllString(name, -1)
	require.Len(t, parts, 2, name)
	for i, part := range parts {
		if !strings.HasPrefix(part, `"`) {
			parts[i] = `"` + part + `"`
		}
	}
	return strings.Join(parts, ".")
}

package cli_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/configtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

// Whatever is applied, its export has nothing to do, and means the same.
func TestWhatIsExportedIsWhatWasApplied(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	columns := []string{"id", "a", "yes", "null", "1", "#x", "- a", "a: b", "größe", "日本", " a ", "<<", `a"b`, "a b", "b"}
	var definitions []string
	for _, c := range columns {
		kind := map[string]string{"id": " bigint primary key", "1": " numeric"}[c]
		if kind == "" {
			kind = " text"
		}
		definitions = append(definitions, `"`+strings.ReplaceAll(c, `"`, `""`)+`"`+kind)
	}
	of := "(" + strings.Join(definitions, ", ") + ")"
	db.Exec(t, `create table orders `+of+`; create table t `+of+`; create schema "My Schema"; create table "My Schema"."a""b" `+of+`; create table "My Schema".tmp_1 `+of)
	world := configtest.World{
		Tables: []string{"t", "public.orders", `"My Schema"."a""b"`}, Patterns: []string{"public.orders", "public.*", `"My Schema".*`, `"My Schema"."a""b"`, "public.tenant_*"},
		Except: []string{"public.t", `"My Schema".tmp_*`}, Columns: rapid.SampledFrom(columns), Masks: []string{"a", "a.*", "größe", "yes", "null", `"1"`, `"a: b".c`, `"a""b"`},
		Whens: []string{"", "new.a > 'x: y'", "'a' = new.b", "new.a\n  > '1'\nand new.b is null", "'#' <> new.a", `new."- a" = E'\n\''`},
	}
	// mended is a trigger that the database does not refuse.
	mended := func(s trigger.Spec) trigger.Spec {
		if s.On.Delete {
			s.When = ""
		}
		if s.Order.Latest {
			s.Order.By = []string{trigger.OrderByRow} // a key without the primary key may be of several rows
		}
		switch {
		case len(s.Except) > 0: // each has to leave something out
			s.Tables, s.Except = []string{"public.*", `"My Schema".*`}, world.Except
		case slices.Contains(s.Tables, "public.tenant_*"):
			s.Follow = true // there is none yet
		}
		return s
	}
	env := database(db.URL())
	for seed := range 10 {
		specs := rapid.SliceOfNDistinct(configtest.Specs(world), 4, 8, func(s trigger.Spec) string { return s.Name }).Example(seed)
		settings := configtest.Settings().Example(seed)
		for i := range specs {
			specs[i] = mended(specs[i])
		}
		text, err := config.WriteAll(specs, settings, config.Plain)
		require.NoError(t, err)
		code, _, stderr := rowhook(t, env, "apply", "-f", write(t, "rowhook.yaml", string(text)))
		require.Zero(t, code, "%s\n%s", stderr, text)
		code, exported, stderr := rowhook(t, env, "export")
		require.Zero(t, code, stderr)
		got, err := config.Parse("exported.yaml", []byte(exported))
		require.NoError(t, err, exported)
		byName := func(all []trigger.Spec) []trigger.Spec {
			return slices.SortedFunc(slices.Values(all), func(a, b trigger.Spec) int { return strings.Compare(a.Name, b.Name) })
		}
		require.Equal(t, byName(specs), byName(got.Triggers), exported)
		require.Equal(t, settings, got.Settings, exported)
		code, stdout, stderr := rowhook(t, env, "apply", "--dry-run", "--exit-code", "-f", write(t, "exported.yaml", exported))
		require.Zero(t, code, stdout+stderr)
	}
}

package trigger_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestReferencesAreListedOnceInOrder(t *testing.T) {
	t.Parallel()
	for s, want := range map[string][]string{
		"":                           nil,
		"plain $5 $A a}":             nil,
		"${A}":                       {"A"},
		"${B}/${A}?${B}":             {"B", "A"},
		"$${A}":                      nil,
		"$${A} ${_b2}":               {"_b2"},
		"$$${A}":                     nil,
		"$ ${A}":                     {"A"},
		"${ORDERS_URL}/hooks/orders": {"ORDERS_URL"},
	} {
		got, err := trigger.References(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
}

func TestReferencesThatAreMalformedSayWhereAndWhatToDo(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"é${A":        "${ at character 2 has no closing }; write ${NAME}, or $${ for a literal ${",
		"${}":         "${ at character 1 names no variable; write ${NAME}, or $${ for a literal ${",
		"${A}${B:-c}": "${ at character 5 has text after the name (defaults are not supported); write ${B}, or $${ for a literal ${",
		"${1}":        "${ at character 1 is not followed by a variable name; use letters, digits and underscores, not starting with a digit, or write $${ for a literal ${",
		"${A B}":      "${ at character 1 is not followed by a variable name; use letters, digits and underscores, not starting with a digit, or write $${ for a literal ${",
		"${${A}}":     "${ at character 1 is not followed by a variable name; use letters, digits and underscores, not starting with a digit, or write $${ for a literal ${",
		"$${${":       "${ at character 4 has no closing }; write ${NAME}, or $${ for a literal ${",
	} {
		_, err := trigger.References(s)
		require.EqualError(t, err, want, s)
		_, err = trigger.ExpandReferences(s, func(string) (string, bool) { return "x", true })
		require.EqualError(t, err, want, s)
	}
}

func TestExpandReferencesPutsInWhatLookupSaysAndNothingElse(t *testing.T) {
	t.Parallel()
	env := map[string]string{"A": "1", "EMPTY": "", "NESTED": "${A} $${"}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for s, want := range map[string]string{
		"":               "",
		"a${A}b${A}":     "a1b1",
		"[${EMPTY}]":     "[]",
		"${NESTED}":      "${A} $${",
		"$${A} $$ ${A}$": "${A} $$ 1$",
		"$$${A}":         "$${A}",
	} {
		got, err := trigger.ExpandReferences(s, lookup)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
}

func TestExpandReferencesNamesEveryVariableThatIsNotSet(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"${X}":                     "environment variable X is not set",
		"${X}${Y}${X}":             "environment variables X and Y are not set",
		"${X} ${A} ${Y} ${Z} ${X}": "environment variables X, Y and Z are not set",
	} {
		got, err := trigger.ExpandReferences(s, func(name string) (string, bool) { return "secret", name == "A" })
		require.EqualError(t, err, want)
		require.Empty(t, got)
	}
}

func FuzzReferences(f *testing.F) {
	for _, seed := range []string{"", "${A}", "$${A}", "a${A}$${${B}", "${A", "${A:-b}", "$$$${A}", "\xff${é}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := trigger.References(s)
		asked := map[string]bool{}
		out, expandErr := trigger.ExpandReferences(s, func(name string) (string, bool) { asked[name] = true; return "<" + name + ">", true })
		require.Equal(t, err == nil, expandErr == nil)
		if err != nil {
			return
		}
		require.Len(t, asked, len(names))
		for _, name := range names {
			require.True(t, asked[name])
			require.Contains(t, out, "<"+name+">")
		}
		// Escaping makes any text stand for itself.
		literal, err := trigger.ExpandReferences(strings.ReplaceAll(s, "${", "$${"), nil)
		require.NoError(t, err)
		require.Equal(t, s, literal)
	})
}

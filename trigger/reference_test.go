package trigger_test

import (
	"errors"
	"strconv"
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

		"Bearer ${file:/run/secrets/token}":          {"file:/run/secrets/token"},
		"${file:/a b/c.d:e} ${A} ${file:/a b/c.d:e}": {"file:/a b/c.d:e", "A"},
		"$${file:/a}": nil,
		"${file:/run/secrets/../secrets/é}${file:/x}}": {"file:/run/secrets/../secrets/é", "file:/x"},
		"${file}": {"file"},
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
		"${file:":     "${ at character 1 has no closing }; write ${file:/PATH}, or $${ for a literal ${",
		"a${file:}":   "${ at character 2 names no file; write it like ${file:/run/secrets/token}, or $${ for a literal ${",
		"${file:x}":   "${ at character 1 has a path that does not begin with /; write it like ${file:/run/secrets/token}, or $${ for a literal ${",
		"${file:./x}": "${ at character 1 has a path that does not begin with /; write it like ${file:/run/secrets/token}, or $${ for a literal ${",

		"é${file:/a\nb}": "${ at character 2 has a path with a character that can't be printed; write it like ${file:/run/secrets/token}, or $${ for a literal ${",
		"${file:/a\x00}": "${ at character 1 has a path with a character that can't be printed; write it like ${file:/run/secrets/token}, or $${ for a literal ${",
		"${file:/${A}}":  "${ at character 1 has a reference within its path; write it like ${file:/run/secrets/token}, or $${ for a literal ${",
		"${FILE:/x}":     "${ at character 1 names a file by a word in capitals; write ${file:/PATH} in lower case, or $${ for a literal ${",
		"${file:/" + strings.Repeat("x", 5000) + "}": "${ at character 1 has a path that is too long; write it like ${file:/run/secrets/token}, or $${ for a literal ${",
		"$${${": "${ at character 4 has no closing }; write ${NAME}, or $${ for a literal ${",
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

func TestExpandSaysOfEachReferenceWhyThereIsNothingForIt(t *testing.T) {
	t.Parallel()
	source := trigger.Source(func(name string) (string, error) {
		switch name {
		case "A":
			return "1", nil
		case "file:/t":
			return "hidden", nil
		case "file:/gone":
			return "", errors.New("the file /gone does not exist")
		}
		return "", &trigger.UnsetError{Name: name}
	})
	got, err := trigger.Expand("x${A}${file:/t}$${A}", source)
	require.NoError(t, err)
	require.Equal(t, "x1hidden${A}", got)
	_, err = trigger.Expand("${X} ${file:/gone} ${file:/t} ${Y} ${X} ${file:/gone}", source)
	require.EqualError(t, err, "the file /gone does not exist; environment variables X and Y are not set")

	_, err = trigger.ExpandReferences("${file:/t}", func(string) (string, bool) { return "", false })
	require.EqualError(t, err, "the file /t is not given out here")
	_, ok := source.Lookup("file:/gone")
	require.False(t, ok)
}

func TestASourceThatIsAskedOnceGivesTheSameValueAgain(t *testing.T) {
	t.Parallel()
	asked := 0
	once := trigger.Source(func(string) (string, error) {
		asked++
		return strconv.Itoa(asked), nil
	}).Once()
	got, err := trigger.Expand("${A}${file:/a}${A}${file:/a}", once)
	require.NoError(t, err)
	require.Equal(t, "1212", got)
}

func FuzzReferences(f *testing.F) {
	for _, seed := range []string{
		"", "${A}", "$${A}", "a${A}$${${B}", "${A", "${A:-b}", "$$$${A}", "\xff${é}", "${file:/a}", "${file:/a}${A}${file:/a b}", "${file:", "${file:/${A}}", "$${file:/a}${FILE:/a}",
		"${file:/a\x00}", "${file:../../etc/passwd}",
	} {
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
		// What can be named can be named alone, and a path is one of this machine.
		for _, name := range names {
			again, err := trigger.References("${" + name + "}")
			require.NoError(t, err)
			require.Equal(t, []string{name}, again)
			if path, isFile := strings.CutPrefix(name, trigger.FilePrefix); isFile {
				require.True(t, strings.HasPrefix(path, "/"))
				require.NotContains(t, path, "\x00")
			}
		}
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

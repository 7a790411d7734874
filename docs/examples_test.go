package docs_test

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the examples into the pages anew")

// shown is a file of examples/ in a page, or a service of a compose file: its name in a comment, and
// then its text.
var shown = regexp.MustCompile("(?s)<!-- (examples/[^ :]+)(?:: (\\w+))? -->\n```(\\w+)\n(.*?)```\n")

func TestPagesShowTheExamplesAsTheyRun(t *testing.T) {
	t.Parallel()
	for page, want := range map[string]int{"testing.md": 5, "receivers.md": 4} {
		require.Equal(t, want, showExamples(t, page), page)
	}
}

// showExamples compares the files that a page shows with what they are, and counts them.
func showExamples(t *testing.T, page string) int {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	files := 0
	want := shown.ReplaceAllStringFunc(string(text), func(block string) string {
		files++
		m := shown.FindStringSubmatch(block)
		head, _, _ := strings.Cut(block, "```")
		source, err := os.ReadFile("../" + m[1])
		require.NoError(t, err)
		text := string(source)
		if m[2] != "" {
			text = service(t, text, m[2])
		}
		return head + "```" + m[3] + "\n" + strings.TrimRight(text, "\n") + "\n```\n"
	})
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(want), 0o600))
		return files
	}
	require.Equal(t, want, string(text), "run: go test ./docs -run Examples -update")
	return files
}

// service returns the lines of one service of a compose file.
func service(t *testing.T, text, name string) string {
	t.Helper()
	m := regexp.MustCompile("(?m)^  " + name + ":\n(?:    .*\n)+").FindString(text)
	require.NotEmpty(t, m, name)
	return m
}

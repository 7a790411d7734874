package cli

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

func TestEveryCommandHasAManualPageWithItsFlags(t *testing.T) {
	t.Parallel()
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	root := a.root()
	pages := manual{version: "1.2.3", date: time.Unix(1790000000, 0)}.pages(root)
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "help" {
			return
		}
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		page := string(pages[name])
		require.NotEmpty(t, page, name)
		delete(pages, name)
		require.True(t, strings.HasPrefix(page, `.TH "`+strings.ToUpper(strings.ReplaceAll(strings.TrimSuffix(name, ".1"), "-", `\-`))+`" "1" "2026-09-21" "Rowhook 1.2.3"`), page[:80])
		cmd.InheritedFlags() // merges the flags of the parents into those of the command
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				require.Contains(t, page, `\fB\-\-`+strings.ReplaceAll(f.Name, "-", `\-`)+`\fR`, "%s lacks --%s", name, f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
	require.Empty(t, slices.Collect(maps.Keys(pages)), "pages of commands that do not exist")
}

// TestNoTextOfAPageIsTakenForARequest tells the lines that begin with a dot or a quote apart: those
// that the writer means are the only ones.
func TestNoTextOfAPageIsTakenForARequest(t *testing.T) {
	t.Parallel()
	requests := []string{".TH", ".nh", ".ad", ".SH", ".PP", ".RS", ".RE", ".nf", ".fi", ".TP"}
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	m := manual{version: "1.2.3", date: time.Unix(1790000000, 0)}
	pages := m.pages(a.root())
	pages["rowhook.yaml.5"] = m.configuration([]byte(".de x\n'br\ntext\\fB\n" + read(t, "rowhook.yaml")))
	for name, page := range pages {
		for line := range bytes.Lines(page) {
			word, _, _ := strings.Cut(strings.TrimRight(string(line), "\n"), " ")
			if strings.HasPrefix(word, ".") || strings.HasPrefix(word, "'") {
				require.Contains(t, requests, word, "%s: %s", name, line)
			}
			require.False(t, bytes.ContainsFunc(line, func(r rune) bool { return r > 126 }), "%s: not ASCII, which old versions of man do not show: %s", name, line)
		}
	}
	require.Contains(t, string(pages["rowhook.yaml.5"]), "\n\\&.de x\n\\(aqbr\ntext\\efB\n")
}

func TestManualsAreTheSameFilesEachTime(t *testing.T) {
	t.Parallel()
	write := func() map[string]string {
		dir, files := t.TempDir(), map[string]string{}
		require.NoError(t, WriteManuals(dir, "1.2.3", time.Unix(1790000000, 0), []byte("triggers: []\n")))
		require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				name, err := filepath.Rel(dir, path)
				require.NoError(t, err)
				files[filepath.ToSlash(name)] = string(text)
			}
			return err
		}))
		return files
	}
	files := write()
	require.Equal(t, files, write())
	for _, name := range []string{"completions/rowhook.bash", "completions/_rowhook", "completions/rowhook.fish", "man/rowhook.1.gz", "man/rowhook-events-list.1.gz", "man/rowhook.yaml.5.gz"} {
		require.NotEmpty(t, files[name], name)
	}
	page, err := gzip.NewReader(strings.NewReader(files["man/rowhook.yaml.5.gz"]))
	require.NoError(t, err)
	text, err := io.ReadAll(page)
	require.NoError(t, err)
	require.Contains(t, string(text), "\ntriggers: []\n")
	require.Contains(t, files["completions/rowhook.bash"], "__start_rowhook")
}

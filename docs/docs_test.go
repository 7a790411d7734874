// Package docs_test holds the documentation to what is in the repository.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryTestThatTheDocumentationNamesExists(t *testing.T) {
	t.Parallel()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	exists := map[string]bool{}
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(source, -1) {
			exists[string(m[1])] = true
		}
		return err
	}))
	mentioned := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")
	pages, err := filepath.Glob("*.md")
	require.NoError(t, err)
	require.Contains(t, pages, "guarantees.md")
	decisions, err := filepath.Glob("decisions/*.md")
	require.NoError(t, err)
	pages = append(append(pages, decisions...), "../README.md", "../CONTRIBUTING.md")
	found := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range mentioned.FindAllSubmatch(text, -1) {
			found++
			require.True(t, exists[string(m[1])], "%s names %s, and there is no such test", page, m[1])
		}
	}
	require.Greater(t, found, 50)
}

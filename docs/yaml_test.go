package docs_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
)

// blocks are the blocks of code of a page without their indentation, fenced or indented.
func blocks(text string) (out []string) {
	var block []string
	fence := ""
	end := func() {
		if code := strings.Trim(strings.Join(block, "\n"), "\n"); code != "" {
			out = append(out, code+"\n")
		}
		block = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case fence == "" && strings.HasPrefix(trimmed, "```"):
			end()
			fence = "```"
		case fence != "" && trimmed == fence:
			end()
			fence = ""
		case fence != "":
			block = append(block, line)
		case strings.HasPrefix(line, "    "):
			block = append(block, line[4:])
		case trimmed == "" && block != nil:
			block = append(block, "")
		default:
			end()
		}
	}
	end()
	return out
}

var leftOut = regexp.MustCompile(`(?m)(^|[ {,\[])(\.\.\.|…)`)

// TestWhatPagesShowOfAConfigurationIsValid reads each block that has keys of rowhook.yaml, whole or as
// a part of a trigger.
func TestWhatPagesShowOfAConfigurationIsValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("rowhook.schema.json")
	require.NoError(t, err)
	var schema struct {
		Properties map[string]struct {
			Items struct{ Properties map[string]any }
		}
	}
	require.NoError(t, json.Unmarshal(text, &schema))
	ofFile, ofTrigger := schema.Properties, schema.Properties["triggers"].Items.Properties
	require.Contains(t, ofTrigger, "webhook")
	pages, err := filepath.Glob("*.md")
	require.NoError(t, err)
	whole, parts := 0, 0
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, block := range blocks(string(text)) {
			if leftOut.MatchString(block) {
				continue
			}
			var file map[string]any
			var list []map[string]any
			_ = yaml.Unmarshal([]byte(block), &file) // text that is no YAML is none of these
			if file == nil {
				_ = yaml.Unmarshal([]byte(block), &list)
			}
			keys := slices.Collect(maps.Keys(file))
			switch {
			case len(keys) > 0 && has(ofFile, keys):
				whole++
				if !slices.Contains(keys, "triggers") {
					block += "triggers: []\n"
				}
			case len(keys) > 0 && has(ofTrigger, keys):
				parts++
				for key, rest := range map[string]string{"name": "a", "on": "{insert: true, update: true, delete: true}", "webhook": "{url: https://e.com}", "table": "t"} {
					if _, ok := file[key]; !ok && (key != "table" || file["tables"] == nil) {
						block += key + ": " + rest + "\n"
					}
				}
				block = "triggers:\n  - " + strings.ReplaceAll(strings.TrimRight(block, "\n"), "\n", "\n    ") + "\n"
			case len(list) > 0 && list[0]["webhook"] != nil && list[0]["name"] != nil:
				whole++
				block = "triggers:\n  " + strings.ReplaceAll(strings.TrimRight(block, "\n"), "\n", "\n  ") + "\n"
			default:
				continue
			}
			_, err := config.Parse(page, []byte(block))
			require.NoError(t, err, "%s shows:\n%s", page, block)
		}
	}
	require.GreaterOrEqual(t, whole, 8, "whole configurations")
	require.GreaterOrEqual(t, parts, 30, "parts of triggers")
}

func has[T any](known map[string]T, keys []string) bool {
	return !slices.ContainsFunc(keys, func(key string) bool {
		_, ok := known[key]
		return !ok
	})
}

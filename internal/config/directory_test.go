package config_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/trigger"
)

// directory returns a directory with these files.
func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

// load returns the problems of a directory, each in one line that begins with the name of the file.
func load(t *testing.T, dir string) (*config.Config, []string) {
	t.Helper()
	c, err := config.Load(dir, nil)
	if err == nil {
		return c, nil
	}
	var lines []string
	var wrong *config.Error
	require.ErrorAs(t, err, &wrong)
	for _, p := range wrong.Problems {
		lines = append(lines, strings.ReplaceAll(p.String(), dir+string(filepath.Separator), ""))
	}
	return nil, lines
}

func TestADirectoryIsOneConfiguration(t *testing.T) {
	t.Parallel()
	dir := directory(t, map[string]string{
		"20-invoices.yml": fileOf("name: b", "webhook: {timeout: 2s}"),
		"10-orders.yaml":  fileOf(),
		"z.yaml":          "defaults: {webhook: {url: https://shared.example.com}}\nretention: {delivered: 1d}\n",
		"a.yaml":          "network: {deny: [private]}\n",
		"notes.md":        "# not read", "old.yaml.bak": "{", ".hidden.yaml": "{", "Upper.YAML": "{",
	})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	c, problems := load(t, dir)
	require.Empty(t, problems)
	require.Equal(t, dir, c.File)
	var names []string
	for _, name := range c.Files {
		names = append(names, filepath.Base(name))
	}
	require.Equal(t, []string{"10-orders.yaml", "20-invoices.yml", "a.yaml", "z.yaml"}, names)
	require.Equal(t, []string{"Upper.YAML", "notes.md", "old.yaml.bak", "sub"}, c.Ignored)
	require.Equal(t, []string{"a", "b"}, []string{c.Triggers[0].Name, c.Triggers[1].Name})
	require.Equal(t, "https://shared.example.com", c.Triggers[1].Webhook.URL)
	require.Equal(t, []string{"private"}, c.Settings.Network.Deny)
	require.Equal(t, "1d", c.Settings.Retention.Delivered.String())
	require.Equal(t, filepath.Join(dir, "20-invoices.yml")+":5:24", c.Position(1, "webhook", "timeout").String())
	require.Equal(t, filepath.Join(dir, "z.yaml")+":1:27", c.Position(1, "webhook", "url").String())
	require.Equal(t, filepath.Join(dir, "z.yaml")+":2:24", c.Position(-1, "retention", "delivered").String())
	require.Len(t, c.Warnings, 1)
	require.Equal(t, filepath.Join(dir, "Upper.YAML")+": is ignored because of the capitals in its suffix; name it Upper.yaml", c.Warnings[0].String())
	p := c.Problem(1, "no such table", "table")
	require.Equal(t, "triggers[0].table", p.Key, "the key is the one in its file")
	require.Contains(t, p.Excerpt, "     3 |     table: public.orders")
}

// TestAConfigurationMeansTheSameInSeveralFiles splits configurations over files.
func TestAConfigurationMeansTheSameInSeveralFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		var all []map[string]any
		for _, spec := range rapid.SliceOfNDistinct(specs(), 1, 6, func(s trigger.Spec) string { return s.Name }).Draw(t, "triggers") {
			all = append(all, plain(t, spec))
		}
		shared := map[string]any{"retry": map[string]any{"limit": 7}, "concurrency": 9}
		retention := map[string]any{"delivered": "1d"}
		one, err := json.Marshal(map[string]any{"triggers": all, "defaults": shared, "retention": retention})
		require.NoError(t, err)
		want, err := config.Parse("one", one)
		require.NoError(t, err, "%s", one)

		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			require.NoError(t, os.Remove(filepath.Join(dir, e.Name())))
		}
		files := []map[string]any{{}, {}, {}}
		for i, rest := 0, all; len(rest) > 0; i++ {
			n := len(rest)
			if i < len(files)-1 {
				n = rapid.IntRange(0, len(rest)).Draw(t, "so many")
			}
			files[i]["triggers"], rest = rest[:n], rest[n:]
		}
		rapid.SampledFrom(files).Draw(t, "with defaults")["defaults"] = shared
		rapid.SampledFrom(files).Draw(t, "with retention")["retention"] = retention
		for i, f := range files {
			if len(f) == 0 {
				continue
			}
			text, err := json.Marshal(f)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, string(rune('a'+i))+rapid.SampledFrom([]string{".yaml", ".yml"}).Draw(t, "suffix")), text, 0o600))
		}
		have, err := config.Load(dir, nil)
		require.NoError(t, err)
		require.Equal(t, want.Triggers, have.Triggers)
		require.Equal(t, want.Settings, have.Settings)
		for i := range have.Triggers {
			require.NotZero(t, have.Position(i, "name").Line)
		}
	})
}

func TestADirectoryLikeAMountedConfigMapIsRead(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege there")
	}
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "..2026_01_01"), 0o700))
	write(t, filepath.Join(dir, "..2026_01_01", "rowhook.yaml"), fileOf())
	require.NoError(t, os.Symlink("..2026_01_01", filepath.Join(dir, "..data")))
	require.NoError(t, os.Symlink(filepath.Join("..data", "rowhook.yaml"), filepath.Join(dir, "rowhook.yaml")))
	c, problems := load(t, dir)
	require.Empty(t, problems)
	require.Len(t, c.Triggers, 1)
	before, err := config.Fingerprint(dir)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "..2026_01_02"), 0o700))
	write(t, filepath.Join(dir, "..2026_01_02", "rowhook.yaml"), fileOf("name: b"))
	require.NoError(t, os.Symlink("..2026_01_02", filepath.Join(dir, "..data_tmp")))
	require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	after, err := config.Fingerprint(dir)
	require.NoError(t, err)
	require.NotEqual(t, before, after)
}

func TestADirectoryRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"a name in two files": {map[string]string{"a.yaml": fileOf(), "b.yaml": fileOf()}, []string{`b.yaml:2:11: triggers[0].name: "a" is the name of another trigger, at a.yaml:2; give each trigger a different name`}},
		"settings twice": {map[string]string{
			"a.yaml": fileOf() + "retention: {}\ndefaults: {}\n", "b.yaml": "defaults: {}\nnetwork: {}\n", "c.yaml": "network: {}\nretention: {}\n",
		}, []string{
			"b.yaml:1:1: defaults: is also given in a.yaml:7, and holds for the triggers of all files; keep one",
			"c.yaml:1:1: network: is also given in b.yaml:2, and holds for all files; keep one",
			"c.yaml:2:1: retention: is also given in a.yaml:6, and holds for all files; keep one",
		}},
		"no triggers in any file": {map[string]string{"a.yaml": "network: {}\n", "b.yaml": "retention: {}\n"}, []string{"a.yaml:1:1: triggers: is missing in all files; start each entry"}},
		"an empty file":           {map[string]string{"a.yaml": fileOf(), "b.yaml": "# none\n"}, []string{"b.yaml: contains no configuration; "}},
		"problems of several files": {map[string]string{"a.yaml": fileOf("notify: x"), "b.yaml": fileOf("name: b", "retry: {limit: -1}") + "  - {}\n", "c.yaml": "\t- x"}, []string{
			`a.yaml:6:13: triggers[0].notify: "x" is not a valid value`,
			"b.yaml:6:20: triggers[0].retry.limit: -1 is too small",
			"b.yaml:7:5: triggers[1].name: is missing", "b.yaml:7:5: triggers[1].table: is missing",
			"c.yaml:1:1: a tab is used to indent",
		}},
		"defaults in a broken file": {map[string]string{"a.yaml": "triggers: [{name: a, table: t}]\n", "b.yaml": "defaults: {"}, []string{"b.yaml:1:11: this { is never closed"}},
		"broken defaults":           {map[string]string{"a.yaml": "triggers: [{name: a, table: t}]\n", "b.yaml": "defaults: {webhok: {}}\n"}, []string{"b.yaml:1:12: defaults.webhok: unknown key; did you mean webhook?"}},
		"misspelled defaults":       {map[string]string{"a.yaml": "triggers: [{name: a, table: t}]\n", "b.yaml": "default: {webhook: {}}\n"}, []string{"b.yaml:1:1: default: unknown key; did you mean defaults?"}},
		"a rule over two files":     {map[string]string{"a.yaml": "defaults: {retry: {interval: 2m}}\n", "b.yaml": fileOf("retry: {max_interval: 1m}")}, []string{`b.yaml:6:27: triggers[0].retry.max_interval: max_interval bounds every wait and is 1m, but interval is 2m; write max_interval: 2m or more (the trigger "a"; retry.interval comes from defaults, at a.yaml:1)`}},
	} {
		_, found := load(t, directory(t, c.files))
		require.Len(t, found, len(c.want), "%s: %v", name, found)
		for i := range found {
			require.Contains(t, found[i], c.want[i], name)
		}
		require.True(t, slices.IsSorted(found), name)
	}
}

func TestADirectoryThatCannotBeReadSaysWhy(t *testing.T) {
	t.Parallel()
	_, found := load(t, directory(t, map[string]string{"a.json": "{}", "README": ""}))
	require.Contains(t, found[0], ": the directory has no file *.yaml or *.yml directly in it (it has README, a.json); put the configuration there")

	dir := directory(t, map[string]string{"ok.yaml": fileOf()})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "x.yaml"), 0o700))
	_, found = load(t, dir)
	require.Equal(t, []string{"x.yaml: is a directory, and only files directly in the given directory are read; move its files up, or give it another name"}, found)
	if runtime.GOOS == "windows" {
		return // symbolic links need a privilege there
	}
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "y.yml")))
	_, found = load(t, dir)
	require.Equal(t, "y.yml: is a symbolic link to a file that does not exist; correct or remove it", found[1])
	if os.Geteuid() == 0 {
		return // root may read everything
	}
	require.NoError(t, os.Chmod(dir, 0o300))
	_, found = load(t, dir)
	require.Contains(t, found[0], "permission to list the directory is denied; ")
}

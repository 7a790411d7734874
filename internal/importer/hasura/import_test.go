package hasura_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/hasura"
	"github.com/rowhook/rowhook/internal/importer/importertest"
)

var update = flag.Bool("update", false, "write the expected files of testdata anew")

// secrets are the values of testdata that must not come out.
var secrets = []string{"s3cr3t", "t0k3n", "pa55w0rd", "abcdefgh", "k3y-of"}

// printed returns the report for people.
func printed(result *importer.Result) string {
	var out bytes.Buffer
	result.Report.Print(&out)
	return out.String()
}

func TestMetadataBecomeTheExpectedFileAndReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dir      string
		triggers int
	}{{"shop", 10}, {"clinic", 11}, {"press", 13}} {
		imp, err := hasura.Path("testdata/"+c.dir, hasura.Options{})
		result := importertest.Finish(t, imp, err)
		require.Len(t, result.Triggers, c.triggers, c.dir)
		for name, got := range map[string]string{c.dir + ".rowhook.yaml": string(result.File), c.dir + ".report.txt": printed(result)} {
			for _, secret := range secrets {
				require.NotContains(t, got, secret, name)
			}
			path := filepath.Join("testdata", name)
			if *update {
				require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(want), got, "if it is meant: go test ./internal/importer/hasura -update")
		}
		again, err := hasura.Path("testdata/"+c.dir, hasura.Options{})
		require.Equal(t, string(result.File), string(importertest.Finish(t, again, err).File), "the same input makes the same output")
	}
}

func TestTheSourceIsChosen(t *testing.T) {
	t.Parallel()
	imp, err := hasura.Path("testdata/shop", hasura.Options{Source: "analytics"})
	result := importertest.Finish(t, imp, err)
	require.Len(t, result.Triggers, 1)
	require.Equal(t, "visit_counted", result.Triggers[0].Name)
	_, err = hasura.Path("testdata/shop", hasura.Options{Source: "other"})
	require.ErrorContains(t, err, `has no source "other"; it has default, analytics, legacy`)
	require.True(t, hasura.IsFault(err))
	imp, err = hasura.Path("testdata/shop", hasura.Options{Source: "legacy"})
	result = importertest.Finish(t, imp, err)
	require.Empty(t, result.Triggers)
	require.Contains(t, printed(result), "invoice_sent")
}

const oneTrigger = `"event_triggers": [{"name": "a", "definition": {"enable_manual": false, "insert": {"columns": "*"}}, "retry_conf": {"num_retries": 0, "interval_sec": 10}, "webhook": "https://shop.example/a"}]`

func TestEveryFormOfMetadataIsRead(t *testing.T) {
	t.Parallel()
	table := `{"table": {"schema": "public", "name": "t"}, ` + oneTrigger + `}`
	call := `{"type": "pg_create_event_trigger", "args": {"name": "a", "source": "default", "table": "t", "insert": {"columns": "*"}, "webhook": "https://shop.example/a"}}`
	for what, text := range map[string]string{
		"v3":                 `{"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [` + table + `]}]}`,
		"exported v3":        `{"resource_version": 12, "metadata": {"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [` + table + `]}]}}`,
		"v2":                 `{"version": 2, "tables": [` + table + `]}`,
		"v1":                 `{"tables": [{"table": "t", ` + oneTrigger + `}], "functions": []}`,
		"an array as name":   `{"tables": [{"table": ["public", "t"], ` + oneTrigger + `}]}`,
		"a name alone":       `{"tables": [{"table": {"name": "t"}, ` + oneTrigger + `}]}`,
		"tables.yaml":        "- " + table,
		"databases.yaml":     "- {name: default, kind: postgres, tables: [" + table + "]}",
		"one table":          table,
		"a call":             call,
		"an older call":      strings.Replace(call, "pg_create", "create", 1),
		"calls":              "[" + call + "]",
		"bulk":               `{"type": "bulk", "args": [{"type": "run_sql", "args": {"sql": "select 1"}}, ` + call + `]}`,
		"replace":            `{"type": "replace_metadata", "version": 2, "args": {"allow_inconsistent_metadata": true, "metadata": {"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [` + table + `]}]}}}`,
		"a call in YAML":     "- args:\n    name: a\n    table: {name: t, schema: public}\n    insert: {columns: '*'}\n    webhook: https://shop.example/a\n  type: create_event_trigger\n",
		"with a mark":        "\ufeff" + table,
		"with Windows' ends": strings.ReplaceAll("tables:\n- table: t\n  event_triggers:\n  - name: a\n    definition: {insert: {columns: '*'}}\n    webhook: https://shop.example/a\n", "\n", "\r\n"),
	} {
		imp, err := hasura.Read("f", strings.NewReader(text), hasura.Options{})
		result := importertest.Finish(t, imp, err)
		require.Len(t, result.Triggers, 1, what)
		s := result.Triggers[0]
		require.Equal(t, []any{"a", "public.t", true, "https://shop.example/a", 0, "fixed", "off"}, []any{s.Name, s.Table, s.On.Insert, s.Webhook.URL, s.Retry.Limit, s.Retry.Backoff, s.Breaker}, what)
	}
}

func TestWhatIsNotMetadataIsRefusedWithASentence(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                      "is empty",
		"null":                  "is empty",
		"a: b":                  "is not Hasura's metadata",
		"[1, 2]":                "is not Hasura's metadata",
		"hello":                 "is not Hasura's metadata",
		"create table a ();":    "is not Hasura's metadata",
		`{"tables": 5}`:         "tables are not a list here",
		`{"tables": [5]}`:       "f:1: is no table",
		"{\"tables\": [\n{]}":   "f:2: this is not YAML",
		"tables:\n\t- a":        "this is not YAML",
		"\xff\xfe":              "is not UTF-8 text",
		"tables: []\n---\na: b": "a second YAML document",
		"- !include a.yaml":     "standard input has no files beside it",
		"tables: !include t":    "standard input has no files beside it",
		"tables: *a":            "*a stands for nothing before it",
		`"!include x"`:          "standard input has no files beside it",
	} {
		_, err := hasura.Read("f", strings.NewReader(text), hasura.Options{})
		require.ErrorContains(t, err, want, "%q", text)
		require.True(t, hasura.IsFault(err), "%q", text)
	}
	for _, path := range []string{"testdata/nothing", t.TempDir(), "testdata/shop/config.yaml"} {
		_, err := hasura.Path(path, hasura.Options{})
		require.Error(t, err)
		require.True(t, hasura.IsFault(err), "%v", err)
	}
}

func TestAnImportNeverLeavesItsDirectory(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret.yaml")
	require.NoError(t, os.WriteFile(secret, []byte("- table: stolen\n  "+strings.ReplaceAll(oneTrigger, "\n", "")+"\n"), 0o600))
	dir := t.TempDir()
	require.NoError(t, os.Symlink(secret, filepath.Join(dir, "link.yaml")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "linked")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "self.yaml"), []byte(`"!include self.yaml"`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "inside.yaml"), []byte("[]"), 0o600))
	relative, err := filepath.Rel(dir, secret)
	require.NoError(t, err)
	for include, want := range map[string]string{
		"link.yaml":               "leads out of the directory",
		"linked/secret.yaml":      "leads out of the directory",
		relative:                  "leads out of the directory",
		"folder/../../x.yaml":     "leads out of the directory",
		secret:                    "no path in the directory",
		"/etc/passwd":             "no path in the directory",
		`C:\\windows\\system.ini`: "no path in the directory",
		"folder":                  "is no regular file",
		"self.yaml":               "which includes this file",
		"missing.yaml":            "does not exist",
		"inside.yaml":             "",
		"folder/../inside.yaml":   "",
	} {
		for _, form := range []string{`"!include ` + include + `"`, "!include " + include} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "tables.yaml"), []byte(form), 0o600))
			imp, err := hasura.Path(dir, hasura.Options{})
			if want == "" {
				require.NoError(t, err, form)
				require.Empty(t, importertest.Finish(t, imp, err).Triggers)
				continue
			}
			require.ErrorContains(t, err, want, form)
			require.True(t, hasura.IsFault(err), form)
			require.NotContains(t, err.Error(), "stolen")
		}
	}
}

func TestBombsAreRefused(t *testing.T) {
	t.Parallel()
	aliases := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 10; i++ {
		aliases += "a" + string(rune('0'+i)) + ": &a" + string(rune('0'+i)) + " [" + strings.Repeat("*a"+string(rune('0'+i-1))+",", 9) + "*a" + string(rune('0'+i-1)) + "]\n"
	}
	deepMap := ""
	for i := range 2000 {
		deepMap += strings.Repeat(" ", i) + "a:\n"
	}
	for what, text := range map[string]string{
		"aliases":  aliases + "tables: *a9\n",
		"brackets": "tables: " + strings.Repeat("[", 100_000),
		"JSON":     `{"tables": ` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}",
		"dashes":   strings.Repeat("- ", 50_000),
		"itself":   "tables: &a [*a]\n",
		"size":     "tables: [" + strings.Repeat(" ", 17<<20) + "]",
		"depth":    deepMap,
	} {
		_, err := hasura.Read("f", strings.NewReader(text), hasura.Options{})
		require.Error(t, err, what)
		require.True(t, hasura.IsFault(err), "%s: %v", what, err)
	}
}

func TestWhateverIsReadEndsInAFileOrAFault(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"shop/metadata/databases/default/tables/public_orders.yaml", "press/databases/default/tables/public_articles.yaml"} {
		text, err := os.ReadFile("testdata/" + file)
		require.NoError(t, err)
		lines := strings.SplitAfter(string(text), "\n")
		for at := 0; at < len(lines); at += 3 { // a line is missing
			imp, err := hasura.Read("f", strings.NewReader(strings.Join(slices.Delete(slices.Clone(lines), at, at+1), "")), hasura.Options{})
			if err != nil {
				require.True(t, hasura.IsFault(err), "%v", err)
				continue
			}
			importertest.Finish(t, imp, err)
		}
	}
}

// FuzzRead checks that whatever is read makes a valid file, or is refused.
func FuzzRead(f *testing.F) {
	for _, file := range []string{"shop/metadata/databases/default/tables/public_orders.yaml", "press/databases/default/tables/public_articles.yaml", "press/databases/default/tables/more/comment_triggers.yaml", "clinic/tables.yaml"} {
		text, err := os.ReadFile("testdata/" + file)
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Add(`{"tables": [{"table": "t", ` + oneTrigger + `}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		imp, err := hasura.Read("f", strings.NewReader(text), hasura.Options{})
		if err != nil {
			require.True(t, hasura.IsFault(err), "%v", err)
			return
		}
		result, err := imp.Finish()
		require.NoError(t, err)
		_, err = config.Parse("f", result.File)
		require.NoError(t, err)
	})
}

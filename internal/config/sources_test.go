package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
)

const twoSources = `sources:
  eu: {url: "${EU_DATABASE_URL}", listen_url: "${EU_LISTEN_URL}", env: [EU_*, STRIPE_KEY], secrets_dir: /run/secrets/eu}
  us: {url: "postgres://rowhook:${US_PASSWORD}@us.internal/shop"}
`

func named(names ...string) []string { return names }

// triggerNames are those of a part of a configuration.
func triggerNames(c *config.Config) []string {
	names := []string{}
	for i := range c.Triggers {
		names = append(names, c.Triggers[i].Name)
	}
	return names
}

func TestSourcesAreReadInTheirOrderWithReferencesUnexpanded(t *testing.T) {
	t.Parallel()
	c := parse(t, twoSources+fileOf())
	require.Equal(t, []config.Source{
		{Name: "eu", URL: "${EU_DATABASE_URL}", ListenURL: "${EU_LISTEN_URL}", Env: named("EU_*", "STRIPE_KEY"), SecretsDir: "/run/secrets/eu"},
		{Name: "us", URL: "postgres://rowhook:${US_PASSWORD}@us.internal/shop"},
	}, c.Sources)
	require.Empty(t, c.Warnings)
	require.Equal(t, "rowhook.yaml:3:13", c.Position(-1, "sources", "us", "url").String())
	require.Nil(t, parse(t, fileOf()).Sources, "without sources all is as before")
}

func TestASourceHasTheTriggersThatAreForIt(t *testing.T) {
	t.Parallel()
	c := parse(t, twoSources+"  us2: {url: \"${US2}\"}\n"+`
triggers:
  - {name: everywhere, table: t, on: {insert: true}, webhook: {url: "https://e.com"}}
  - {name: local, for: [eu], table: t, on: {insert: true}, webhook: {url: "https://eu.example.com"}}
  - {name: local, for: ["us*"], table: t, on: {insert: true}, webhook: {url: "https://us.example.com"}}
`)
	require.Equal(t, named("everywhere", "local"), triggerNames(c.Of("eu")))
	require.Equal(t, "https://eu.example.com", c.Of("eu").Triggers[1].Webhook.URL)
	require.Equal(t, "https://us.example.com", c.Of("us2").Triggers[1].Webhook.URL)
	require.Equal(t, named("us", "us2"), c.SourcesOf(2))
	require.Equal(t, "rowhook.yaml:9:24", c.Of("us").Position(1, "for").String(), "a part keeps its places")

	c = parse(t, twoSources+"defaults: {for: [us]}\n"+fileOf()+strings.TrimPrefix(fileOf("name: b", "for: [eu]"), "triggers:\n"))
	require.Equal(t, named("b"), triggerNames(c.Of("eu")))
	require.Equal(t, named("a"), triggerNames(c.Of("us")))
}

func TestSourcesRefuse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"an unknown name":          {twoSources + fileOf("for: [eo]"), `rowhook.yaml:9:11: triggers[0].for[0]: "eo" is no source; did you mean eu?; the sources are eu, us`},
		"a pattern of nothing":     {twoSources + fileOf("for: [tenant_*]"), `rowhook.yaml:9:11: triggers[0].for[0]: "tenant_*" matches no source; the sources are eu, us`},
		"for without sources":      {fileOf("for: [eu]"), `rowhook.yaml:6:10: triggers[0].for: names databases of sources, and there are no sources; remove it, or add sources at the top of the file`},
		"an empty for":             {twoSources + fileOf("for: []"), `triggers[0].for: is empty; write it like for: [eu, us]`},
		"a name with a dot":        {"sources: {eu.west: {url: \"${A}\"}}\n" + fileOf(), `1:11: sources["eu.west"]: "eu.west" is not a name for a source; use 1 to 63 letters, digits, _ and -, not starting with -`},
		"nothing":                  {"sources: {}\n" + fileOf(), "1:10: sources: is empty; write it like sources: "},
		"a list":                   {"sources: [eu]\n" + fileOf(), "sources: is a list where names of databases are needed; "},
		"no url":                   {"sources: {eu: {env: [A]}}\n" + fileOf(), "1:11: sources.eu.url: is missing; write it like url: ${EU_DATABASE_URL}"},
		"another key":              {"sources: {eu: {url: \"${A}\", lisen_url: x}}\n" + fileOf(), "sources.eu.lisen_url: unknown key; did you mean listen_url?"},
		"another scheme":           {"sources: {eu: {url: \"mysql://a\"}}\n" + fileOf(), "sources.eu.url: does not begin with postgres://; "},
		"no connection string":     {"sources: {eu: {url: shop}}\n" + fileOf(), "sources.eu.url: is no connection string; "},
		"a variable of no name":    {"sources: {eu: {url: \"${A}\", env: [\"A-B\"]}}\n" + fileOf(), `sources.eu.env[0]: "A-B" is no name of a variable; `},
		"a relative directory":     {"sources: {eu: {url: \"${A}\", secrets_dir: secrets}}\n" + fileOf(), `sources.eu.secrets_dir: "secrets" is no absolute path of a directory; `},
		"another one's directory":  {"sources: {eu: {url: \"${A}\", secrets_dir: /run/s}, us: {url: \"${B}\", secrets_dir: /run/s/us}}\n" + fileOf(), `sources.eu.secrets_dir: holds /run/s/us, which is the directory of "us", so triggers of "eu" could read what is that one's; `},
		"one database twice":       {"sources: {eu: {url: \"${A}\"}, us: {url: \"${A}\"}}\n" + fileOf(), `1:40: sources.us.url: names the database of the source "eu", and what is applied for one would remove what is for the other; `},
		"for beside no sources":    {"sources: {}\n" + fileOf("for: [eu]"), "1:10: sources: is empty; write it like sources: "},
		"an unknown holder":        {twoSources + fileOf("rate: {limit: 1/s, held_by: eo}"), `triggers[0].rate.held_by: "eo" is no source; did you mean eu?; the sources are eu, us`},
		"a holder without it":      {twoSources + fileOf("for: [us]", "rate: {limit: 1/s, held_by: eu}"), `triggers[0].rate.held_by: the trigger "a" is not for the source "eu", which has to hold its rate; add eu to for, or name one of its own sources`},
		"an unknown holder of all": {twoSources + "defaults: {rate: {held_by: eo}}\n" + fileOf("rate: {limit: 1/s}"), `defaults.rate.held_by: "eo" is no source; did you mean eu?; `},
		"a holder of no rate":      {twoSources + fileOf("rate: {held_by: eu}"), `triggers[0].rate.limit: is missing; `},
		"a name twice in a source": {twoSources + fileOf() + strings.TrimPrefix(fileOf("for: [us]"), "triggers:\n"), `"a" is the name of another trigger`},
	} {
		found := problemsOf(t, c.text)
		require.Len(t, found, 1, "%s: %v", name, found)
		require.Contains(t, found[0], c.want, name)
	}
}

func TestARateIsHeldByASourceOfTheTrigger(t *testing.T) {
	t.Parallel()
	c := parse(t, twoSources+fileOf("rate: {limit: 1/s, held_by: eu}"))
	require.Empty(t, c.Warnings)
	require.Equal(t, "eu", c.Of("us").Triggers[0].Rate.HeldBy)
	c = parse(t, twoSources+"defaults: {rate: {held_by: us}}\n"+fileOf("rate: {limit: 1/s}"))
	require.Equal(t, "us", c.Of("eu").Triggers[0].Rate.HeldBy)
	one, err := c.Single("")
	require.NoError(t, err)
	require.Empty(t, one.Triggers[0].Rate.HeldBy, "it is the only database")
	require.Equal(t, "us", c.Triggers[0].Rate.HeldBy)
	c = parse(t, twoSources+"defaults: {rate: {held_by: us}}\n"+fileOf())
	require.Empty(t, c.Triggers[0].Rate.HeldBy, "it has no rate")
	c = parse(t, fileOf("rate: {limit: 1/s, held_by: eu}"))
	require.Len(t, c.Warnings, 1)
	require.Contains(t, c.Warnings[0].String(), "rate.held_by: names a source, and there are no sources here, so that this database has the rate for itself; ")
}

func TestNoPasswordOfASourceIsInAMessage(t *testing.T) {
	t.Parallel()
	const password = "hunter2secret"
	for _, url := range []string{
		"postgres://u:" + password + "@h/d?sslmode=${", "postgres://u:" + password + "/x@h/d", "host=h password=" + password + " ${", "mysql://u:" + password + "@h", password,
		"{a: " + password + "}", "[" + password + "]",
	} {
		for _, quotes := range []string{`"`, ""} {
			_, err := config.Parse("rowhook.yaml", []byte("sources:\n  eu:\n    url: "+quotes+url+quotes+"\n    env: 5\n"+fileOf()))
			require.Error(t, err)
			require.NotContains(t, err.Error(), password, url)
		}
	}
	c := parse(t, "sources:\n  eu: {url: \"postgres://u:"+password+"@h/d\"}\n  us: {url: \"host=h password="+password+"\"}\n"+fileOf())
	require.Len(t, c.Warnings, 2)
	for _, w := range c.Warnings {
		require.Contains(t, w.String(), "contains a password in plain text, and whoever reads this file has it; write ${NAME} instead")
		require.NotContains(t, w.String()+w.Excerpt, password)
	}
}

func TestSourcesAreReadAloneWhateverElseIsWrong(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rowhook.yaml")
	load := func(text string) (*config.Config, error) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return config.LoadSources(path)
	}
	for _, text := range []string{twoSources, twoSources + fileOf("for: [nobody]"), twoSources + "triggers: 5\n"} {
		c, err := load(text)
		require.NoError(t, err)
		require.Equal(t, named("eu", "us"), config.SourceNames(c.Sources))
	}
	_, err := load(fileOf())
	require.ErrorContains(t, err, path+": has no sources; write it like sources: ")
	_, err = load("sources: {eu: {}}\ntriggers: 5\n")
	var wrong *config.Error
	require.ErrorAs(t, err, &wrong)
	require.Len(t, wrong.Problems, 1)
	require.ErrorContains(t, err, "sources.eu.url: is missing")
	require.True(t, config.HasSources(path))
	_, err = load("sources: {a b: {url: \"${A}\"}}\n")
	require.ErrorContains(t, err, `sources["a b"]: "a b" is not a name for a source`)
}

func TestOneWarningNamesTheSourcesThatRefuseAReference(t *testing.T) {
	t.Parallel()
	c := parse(t, twoSources+fileOf("webhook: {url: \"https://e.com/${TOKEN}\"}"))
	c.WarnOfSources(config.SourceNames(c.Sources), func(source, name string) error {
		require.Equal(t, "TOKEN", name)
		return errors.New("refused")
	})
	require.Len(t, c.Warnings, 1)
	require.Equal(t, `rowhook.yaml:8:20: triggers[0].webhook.url: for the sources "eu" and "us": refused`, c.Warnings[0].String())
}

func TestAConnectionStringTakesAnotherHostAndDatabaseAndNothingElse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"postgres://u:p%40@h:6543/d?sslmode=require": "postgres://u:p%40@a.internal:6543/x%3Fsslmode=disable?sslmode=require",
		"postgres://u@h/":   "postgres://u@a.internal/x%3Fsslmode=disable",
		"user=u password=p": `user=u password=p host='a.internal' dbname='x?sslmode=disable'`,
	} {
		got, err := config.Place(text, "a.internal", "x?sslmode=disable")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := config.Place("postgres://u@h:1/d", "fd00::1", "it's/d")
	require.NoError(t, err)
	require.Equal(t, "postgres://u@[fd00::1]:1/it%27s%2Fd", got)
	got, err = config.Place("user=u", "h", `it's \ d`)
	require.NoError(t, err)
	require.Equal(t, `user=u host='h' dbname='it\'s \\ d'`, got)
	for _, text := range []string{"postgres://h/d?host=other", "postgres://a,b/d", "postgres://h/d?service=x", "user=u hostaddr=10.0.0.1", "shop"} {
		_, err := config.Place(text, "h", "d")
		require.Error(t, err, text)
	}
}

func TestTenantsRefuse(t *testing.T) {
	t.Parallel()
	from := func(inner, rest string) string {
		return "sources: {main: {url: \"${A}\"}, from: {" + inner + "}" + rest + "}\n" + fileOf("for: [\"tenant_*\"]")
	}
	const whole = `source: main, query: select 1, url: "${T}"`
	c := parse(t, from(whole, ", allow: [\"*.db.internal\"]"))
	require.Equal(t, named("*.db.internal"), c.Tenants.Allow)
	require.Equal(t, named("main"), config.SourceNames(c.Sources), "from and allow are no sources")
	for name, c := range map[string]struct{ text, want string }{
		"no allow":            {from(whole, ""), `sources.from: needs allow beside it`},
		"allow alone":         {"sources: {main: {url: \"${A}\"}, allow: [a]}\n" + fileOf(), "sources.allow: is of use with from alone"},
		"every host":          {from(whole, ", allow: [\"*\"]"), `sources.allow[0]: "*" allows every host; `},
		"a port":              {from(whole, ", allow: [\"a b\"]"), `sources.allow[0]: "a b" is no name of a host; `},
		"an unknown source":   {from(`source: mein, query: select 1, url: "${T}"`, ", allow: [a]"), `sources.from.source: "mein" is no source; did you mean main?; the sources are main`},
		"no query":            {from(`source: main, url: "${T}"`, ", allow: [a]"), `sources.from.query: is missing; `},
		"a host as parameter": {from(`source: main, query: select 1, url: "postgres://h/d?host=x"`, ", allow: [a]"), `sources.from.url: has the parameter host, which is replaced for each tenant; leave it out`},
		"too often":           {from(whole+", every: 1ms", ", allow: [a]"), `sources.from.every: 1ms is too short; write every: 1s or more`},
	} {
		found := problemsOf(t, c.text)
		require.Len(t, found, 1, "%s: %v", name, found)
		require.Contains(t, found[0], c.want, name)
	}
}

package cli

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/secret"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/trigger"
)

// giving are the flags about what a configuration may refer to.
type giving struct {
	env  []string // patterns; nil: all but Rowhook's own
	dirs []string
}

func (g *giving) flags(s *flagSet) {
	add(s, &g.env, "env", "names of the environment variables that a configuration may refer to, separated by commas, with * for any part, such as 'ORDERS_*,STRIPE_KEY' "+
		"(default: every name but DATABASE_URL and what begins with PG or ROWHOOK_, which a * never stands for)", syntax[[]string]{
		kind: "names", parse: secret.ParsePatterns, format: func(all []string) string { return strings.Join(all, ",") },
	})
	add(s, &g.dirs, "secrets-dir", "directory of the files that a configuration may refer to by ${file:PATH}, or several, separated by commas; "+
		"they are read again when they change (default: no file may be referred to)", syntax[[]string]{
		kind: "directories", parse: parseDirs, format: func(all []string) string { return strings.Join(all, ",") },
	})
}

func parseDirs(text string) (dirs []string, err error) {
	for dir := range strings.SplitSeq(text, ",") {
		clean, err := secret.CheckDir(strings.TrimSpace(dir))
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, clean)
	}
	return dirs, nil
}

// givingHere are these settings by their variables, for commands without the flags.
func (a *app) givingHere() (g giving, err error) {
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	g.flags(&flagSet{set})
	if err := fromEnvironment(set, a.lookup); err != nil {
		return g, &usageError{err}
	}
	return g, nil
}

// store returns what gives out variables and files to configurations, as a dispatcher with these
// flags would. more are names that are given out besides.
func (a *app) store(g giving, more ...string) (*secret.Store, error) {
	rules := secret.Rules{Env: g.env, Dirs: g.dirs}
	if a.source != nil {
		rules = a.source.rules(g)
	}
	if len(more) > 0 {
		if rules.Env == nil {
			rules.Env = []string{"*"}
		}
		rules.Env = append(rules.Env[:len(rules.Env):len(rules.Env)], more...)
	}
	rules.Own = a.ownSecrets
	store, err := secret.New(a.lookup, rules)
	if err != nil {
		return nil, &usageError{err}
	}
	return store, nil
}

// sandboxNames are the variables that rowhook dev sets for its commands. They hold nothing of the
// database's.
var sandboxNames = []string{sandbox.SinkURLVariable, sandbox.SinkSecretVariable}

// ownSecrets are the secrets of this program, which it never gives out.
func (a *app) ownSecrets() secret.Own {
	texts := []string{a.global.databaseURL}
	for _, text := range []string{a.global.listenURL, a.global.httpURL} {
		if text != "" {
			texts = append(texts, text)
		}
	}
	var files []string
	if a.source != nil {
		texts, files = a.connectionTexts(a.source.all)
	}
	own := session.Secrets(texts...)
	own.Files = append(own.Files, files...)
	for _, variable := range []string{httpTokenVariable, httpReadTokenVariable} {
		value, _ := a.lookup(variable)
		path, _ := a.lookup(variable + fileSuffix)
		own.Values, own.Files = append(own.Values, value), append(own.Files, path)
	}
	return own
}

// connectionTexts are the connection strings of sources that can be expanded now, and the files that
// they are made of.
func (a *app) connectionTexts(all *config.Config) (texts, files []string) {
	all.EachConnection(func(raw string, _ ...string) {
		if text, err := a.connectionText(raw); err == nil {
			texts = append(texts, text)
		}
	})
	_, files = all.OwnReferences()
	return texts, files
}

// warnOfRefused warns of what a configuration refers to and a dispatcher does not give out: one with
// these flags, or, for files, any if none of them says which files are.
func (a *app) warnOfRefused(cfg *config.Config, g giving, runs bool) error {
	unknown := func(name string, dirs []string) bool { // where the dispatcher runs, the flag may be set
		return strings.HasPrefix(name, trigger.FilePrefix) && dirs == nil && !runs
	}
	all, err := a.sourcesOf(cfg)
	if err != nil {
		return err
	}
	if all == nil {
		store, err := a.store(g)
		if err != nil {
			return err
		}
		cfg.WarnOfReferences(func(name string) error {
			if unknown(name, g.dirs) {
				return nil
			}
			return store.Refuses(name)
		})
		return nil
	}
	rules, stores := map[string]secret.Rules{}, map[string]*secret.Store{}
	for _, s := range all.Sources {
		rules[s.Name] = (&sourced{s, all}).rules(g)
		if stores[s.Name], err = secret.New(a.lookup, rules[s.Name]); err != nil {
			return &usageError{err}
		}
	}
	cfg.WarnOfSources(config.SourceNames(all.Sources), func(source, name string) error {
		if unknown(name, rules[source].Dirs) {
			return nil
		}
		return stores[source].Refuses(name)
	})
	return nil
}

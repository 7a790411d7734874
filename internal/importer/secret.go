package importer

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/trigger"
)

// secrets are values that the file does not hold. Until all of them are known, and so can be named, each
// has a token in its place.
type secrets struct {
	all     []*secret
	byValue map[string]*secret
	uses    map[useOf][]Use // of variables that had a name before
}

type secret struct {
	token string
	hints []string // what it may be called, of each use
	uses  []Use
}

type useOf struct{ trigger, variable string }

func newSecrets() secrets {
	return secrets{byValue: map[string]*secret{}, uses: map[useOf][]Use{}}
}

// tokenFormat is the name of a variable until it has its own.
const tokenFormat = "IMPORTED_SECRET_%06d_"

// Variable returns the name of a variable in the place of a value that is a secret, or may be one. hint is
// what it is, such as the name of a header. The same value always has the same variable. The name is
// replaced by its final one in [Import.Finish].
func (i *Import) Variable(hint, value string, use Use) string {
	s := i.secrets.byValue[value]
	if s == nil {
		s = &secret{token: fmt.Sprintf(tokenFormat, len(i.secrets.all))}
		i.secrets.byValue[value] = s
		i.secrets.all = append(i.secrets.all, s)
	}
	s.hints = append(s.hints, upperName(hint))
	s.uses = append(s.uses, use)
	return s.token
}

// Refer says that a variable that had its name before is used, and returns the name to write. It
// differs only where rowhook.yaml can't refer to the name; then that is a finding.
func (i *Import) Refer(name string, use Use) string {
	to := name
	if !referable(name) {
		to = upperName(name)
		i.Find(Finding{Kind: Differs, Trigger: use.Trigger, Place: use.Place, Setting: use.Setting,
			Message: fmt.Sprintf("reads the variable %q, whose name a rowhook.yaml can't refer to; it is %s here", name, to),
			Remedy:  "set " + to + " to the same value where the dispatcher runs"})
	}
	key := useOf{use.Trigger, to}
	i.secrets.uses[key] = append(i.secrets.uses[key], use)
	return to
}

// referable reports whether ${name} is a reference in every text of rowhook.yaml.
func referable(name string) bool {
	text := "${" + name + "}"
	names, err := trigger.References(text)
	if err != nil || len(names) != 1 || strings.HasPrefix(name, trigger.FilePrefix) {
		return false
	}
	return Join(Always, Text(text)) != "" && !isWord(name)
}

var notInName = regexp.MustCompile(`[^A-Z0-9_]+`)

// upperName makes the name of a variable of any text.
func upperName(text string) string {
	name := strings.Trim(notInName.ReplaceAllString(strings.ToUpper(text), "_"), "_")
	if len(name) > 60 {
		name = strings.Trim(name[:60], "_")
	}
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "VALUE_" + name
	}
	return strings.TrimSuffix(name, "_")
}

// refusedName says why a dispatcher does not give out a variable of this name; "": it does.
func refusedName(name string) string {
	if name == "DATABASE_URL" || strings.HasPrefix(name, "DATABASE_URL_") || strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "ROWHOOK_") {
		return "the name is one of Rowhook's own, so name exactly this one in --env of rowhook run, or use another name"
	}
	return ""
}

// names gives each secret its name, by token. taken are the names that are in use.
func (s *secrets) names(taken map[string]bool) map[string]string {
	of := map[string]map[string]bool{} // tokens by hint
	for _, one := range s.all {
		for _, hint := range one.hints {
			if of[hint] == nil {
				of[hint] = map[string]bool{}
			}
			of[hint][one.token] = true
		}
	}
	names := map[string]string{}
	for _, one := range s.all {
		hint, first := one.hints[0], one.uses[0].Trigger
		name := upperName(first + "_" + hint)
		if slices.ContainsFunc(one.uses, func(u Use) bool { return u.Trigger != first }) && len(of[hint]) == 1 {
			name = hint
		}
		if refusedName(name) != "" {
			name = "HOOK_" + name
		}
		unique := name
		for n := 2; taken[unique]; n++ {
			unique = fmt.Sprintf("%s_%d", name, n)
		}
		taken[unique] = true
		names[one.token] = unique
	}
	return names
}

// renamed returns a trigger with the names of variables in the place of tokens.
func renamed(spec trigger.Spec, names map[string]string) (trigger.Spec, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return spec, fmt.Errorf("name the variables of %s: %w", spec.Name, err)
	}
	all := string(text)
	if !strings.Contains(all, "IMPORTED_SECRET_") {
		return spec, nil
	}
	for token, name := range names {
		all = strings.ReplaceAll(all, token, name)
	}
	out := trigger.DefaultSpec()
	if err := json.Unmarshal([]byte(all), &out); err != nil {
		return spec, fmt.Errorf("name the variables of %s: %w", spec.Name, err)
	}
	return out, nil
}

var (
	secretName = regexp.MustCompile(`(?i)authoriz|authentic|cookie|token|secret|passw|signature|credential|bearer|hmac|(?:^|[-_.])(?:auth|oauth|key|sig|pwd|pass)(?:$|[-_.])|key$`)
	knownToken = regexp.MustCompile(`(?i)^(?:sk|pk|rk)[-_](?:live|test|proj)|^gh[opsu]_|^github_pat_|^xox[a-z]-|^whsec_|^whsk_|^AKIA[0-9A-Z]|^eyJ[A-Za-z0-9_-]{8,}|^SG\.|^glpat-|^bot[0-9]+:|^Bearer |^Basic |^Token `)
	uuidLike   = regexp.MustCompile(`(?i)^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	runs       = regexp.MustCompile(`[A-Za-z0-9+/=]+`)
)

// SecretLike reports whether a value may be a secret, by what it is called and by what it looks like.
func SecretLike(name, value string) bool {
	return value != "" && (secretName.MatchString(name) || randomLike(value))
}

// randomLike reports whether a text looks like a token: a known form, or letters and digits mixed over
// a length that no word has.
func randomLike(s string) bool {
	if knownToken.MatchString(s) || uuidLike.MatchString(s) {
		return true
	}
	for _, run := range runs.FindAllString(s, -1) {
		digits := len(run) - len(strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, run))
		upper := strings.ToLower(run) != run && strings.ToUpper(run) != run && strings.ToLower(run[1:]) != run[1:] && !camelCase(run)
		if len(run) >= 16 && digits >= 2 && digits < len(run) || len(run) >= 24 && (digits > 0 || upper) && !strings.Contains(run, "/") {
			return true
		}
	}
	return false
}

var (
	onlyLetters = regexp.MustCompile(`^[A-Za-z]+$`)
	capital     = regexp.MustCompile(`[A-Z]`)
	camelWord   = regexp.MustCompile(`[A-Z]*[a-z]+|[A-Z]+`)
	vowel       = regexp.MustCompile(`(?i)[aeiouy]`)
	consonants  = regexp.MustCompile(`(?i)[bcdfghjklmnpqrstvwxz]{5}`)
)

// camelCase reports whether a text is words such as updateDescriptionEmbedding, as names of handlers
// in URLs are. Half of the letters of a random text are capitals; of 24 letters and more, one in a
// thousand has so few of them, and only words that can be spoken.
func camelCase(s string) bool {
	if !onlyLetters.MatchString(s) || len(capital.FindAllString(s, -1))*4 > len(s) {
		return false
	}
	return !slices.ContainsFunc(camelWord.FindAllString(s, -1), func(word string) bool {
		return !vowel.MatchString(word) || consonants.MatchString(word)
	})
}

// plainHeaders are headers whose values are no secrets.
var plainHeaders = []string{
	"accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "content-encoding", "content-language", "content-type",
	"date", "host", "origin", "pragma", "prefer", "user-agent",
}

// Header returns the value of a header as rowhook.yaml has it. A literal value that is or may be a
// secret becomes a variable: only the values of well-known headers, true, false and short numbers
// stay. A scheme such as Bearer stays in front of the variable.
func (i *Import) Header(name, value string, use Use) Piece {
	plain := slices.Contains(plainHeaders, strings.ToLower(name)) && !randomLike(value)
	if plain || value == "" || Harmless(value) {
		return Text(value)
	}
	return Ref(i.Variable(name, value, use))
}

var harmlessValue = regexp.MustCompile(`(?i)^(?:true|false|yes|no|on|off|none|null|[0-9]{1,4}|v?[0-9]+(?:\.[0-9]+){1,3}|(?:application|text|image|audio|video)/[a-z0-9.+*-]+(?:; *charset=[a-z0-9-]+)?)$`)

// Harmless reports whether a value is no secret whatever it is called: a boolean, a short number, a
// version, a type of content.
func Harmless(value string) bool { return harmlessValue.MatchString(strings.TrimSpace(value)) }

var scheme = regexp.MustCompile(`(?i)^(Bearer|Basic|Token|ApiKey|Digest|Bot|Key) +(\S.*)$`)

// HeaderPieces is [Import.Header] with the scheme of an Authorization kept.
func (i *Import) HeaderPieces(name, value string, use Use) []Piece {
	if m := scheme.FindStringSubmatch(value); m != nil {
		return []Piece{Text(m[1] + " "), Ref(i.Variable(name, m[2], use))}
	}
	return []Piece{i.Header(name, value, use)}
}

// secretHosts are receivers whose URL as a whole is the secret.
var secretHosts = regexp.MustCompile(`(?i)^(?:hooks\.slack\.com|(?:[a-z0-9-]+\.)*discord(?:app)?\.com|hooks\.zapier\.com|(?:[a-z0-9-]+\.)*webhook\.office\.com|(?:[a-z0-9-]+\.)*logic\.azure\.com|maker\.ifttt\.com|hook\.[a-z0-9.]*(?:make|integromat)\.com|chat\.googleapis\.com|api\.telegram\.org)$`)

// URL is [Import.URLPieces] of a text.
func (i *Import) URL(raw string, use Use) []Piece { return i.URLPieces([]Piece{Text(raw)}, use) }

// URLPieces puts variables in the place of secrets in a URL: user and password, secret values of the
// query, segments of the path that look like tokens, and the paths of services whose URLs are secrets.
// What a reference or data is a part of stays as it is.
func (i *Import) URLPieces(pieces []Piece, use Use) []Piece {
	u := urlDivider{imp: i, use: use, pieces: pieces}
	return u.divide()
}

// urlDivider divides a URL. In its text a character of the private use area stands for each piece that is
// no text.
type urlDivider struct {
	imp    *Import
	use    Use
	pieces []Piece
	out    []Piece
}

const firstMark = '\uE000'

func (u *urlDivider) divide() []Piece {
	var all strings.Builder
	for n, p := range u.pieces {
		if p.reference == "" && p.data == "" {
			all.WriteString(p.text)
			continue
		}
		all.WriteRune(firstMark + rune(n))
	}
	rest, host := all.String(), ""
	if at := strings.Index(rest, "://"); at >= 0 && !strings.ContainsAny(rest[:at], "/?#") {
		u.text(rest[:at+3])
		authority := rest[at+3:]
		if end := strings.IndexAny(authority, "/?#"); end >= 0 {
			authority = authority[:end]
		}
		rest = rest[at+3+len(authority):]
		host = u.authority(authority)
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	u.path(host, path)
	if hasQuery {
		u.query(query)
	}
	return u.out
}

// text adds a text, with the pieces that its marks stand for.
func (u *urlDivider) text(s string) {
	from := 0
	for at, r := range s {
		if n := int(r - firstMark); n >= 0 && n < len(u.pieces) && (u.pieces[n].reference != "" || u.pieces[n].data != "") {
			u.out = append(u.out, Text(s[from:at]), u.pieces[n])
			from = at + len(string(r))
		}
	}
	u.out = append(u.out, Text(s[from:]))
}

func (u *urlDivider) marked(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r >= firstMark && int(r-firstMark) < len(u.pieces) })
}

// hide adds a variable in the place of a text, unless a reference or data is a part of it.
func (u *urlDivider) hide(hint, s string) {
	if s == "" || u.marked(s) {
		u.text(s)
		return
	}
	u.out = append(u.out, Ref(u.imp.Variable(hint, s, u.use)))
}

func (u *urlDivider) authority(s string) (host string) {
	user, host, ok := cutLast(s, "@")
	if !ok {
		u.text(s)
		return s
	}
	name, password, has := strings.Cut(user, ":")
	u.hide("URL_USER", name)
	if has {
		u.text(":")
		u.hide("URL_PASSWORD", password)
	}
	u.text("@" + host)
	return host
}

func (u *urlDivider) path(host, path string) {
	if name, _, _ := strings.Cut(host, ":"); secretHosts.MatchString(name) && strings.Trim(path, "/") != "" && !u.marked(path) {
		u.text("/")
		u.hide("URL_PATH", strings.TrimPrefix(path, "/"))
		return
	}
	for n, segment := range strings.Split(path, "/") {
		if n > 0 {
			u.text("/")
		}
		if randomLike(segment) {
			u.hide("URL_TOKEN", segment)
			continue
		}
		u.text(segment)
	}
}

func (u *urlDivider) query(query string) {
	u.text("?")
	for n, pair := range strings.Split(query, "&") {
		if n > 0 {
			u.text("&")
		}
		name, value, has := strings.Cut(pair, "=")
		u.text(name)
		if !has {
			continue
		}
		u.text("=")
		plain, err := url.QueryUnescape(name)
		if err != nil {
			plain = name
		}
		if SecretLike(plain, value) && !Harmless(value) {
			u.hide(plain, value)
			continue
		}
		u.text(value)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	at := strings.LastIndex(s, sep)
	if at < 0 {
		return "", s, false
	}
	return s[:at], s[at+len(sep):], true
}

// Package starter writes a rowhook.yaml to start from: commented, valid, and if tables are given,
// with a trigger for each of them.
package starter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/sqlschema"
)

// URLVariable is the variable that the file reads the URL of the receiver from.
const URLVariable = "WEBHOOK_URL"

// Sample is the table of a file that is written without a database.
func Sample() sqlschema.Table {
	return sqlschema.Table{Name: "public.orders", Bare: "orders", Columns: []string{"id", "status", "amount"}, Key: []string{"id"}}
}

// Write returns the text of a rowhook.yaml with a trigger for each table. Every key behind a # is
// valid, too.
func Write(tables []sqlschema.Table) []byte {
	var out bytes.Buffer
	out.WriteString(head)
	taken := map[string]bool{}
	for i := range tables {
		blockOf(&tables[i], taken).write(&out)
	}
	return out.Bytes()
}

// block is a trigger as it is printed. All is YAML.
type block struct {
	Name, Table, Update, Payload string
	Keyed                        bool // the table has a primary key
}

// anyUpdate is the update of a block that names no columns.
const anyUpdate = "update: true"

func (b block) write(out *bytes.Buffer) {
	which := "Only updates that change one of these columns. true: of any column, also of one that is added later."
	if b.Update == anyUpdate {
		which = "A change of any column."
	}
	fmt.Fprintf(out, `
  - name: %s
    table: %s
    on:
      insert: true
      # %s
      %s
      delete: true
`, b.Name, b.Table, which, b.Update)
	if b.Payload != "" {
		fmt.Fprintf(out, `    # The columns in the request body, in this order. Default: every column, also one that is added later.
    #%s
`, b.Payload)
	}
	if b.Keyed {
		out.WriteString(`    # Events of one row are sent one after another, in the order of their changes. Default: no order.
    #order: row
`)
	}
	out.WriteString(`    # One request for several events: a JSON array of their bodies. Default: each event is a request.
    #batch: {max: 100}
    # The most requests over all dispatchers. Default: no bound.
    #rate: {limit: 50/s}
`)
}

func blockOf(t *sqlschema.Table, taken map[string]bool) block {
	all := slices.DeleteFunc(slices.Clone(t.Columns), func(c string) bool { return !config.CanName(c) })
	changing := slices.DeleteFunc(slices.Clone(all), func(c string) bool { return slices.Contains(t.Key, c) })
	b := block{Name: triggerName(t.Bare, taken), Table: scalar(t.Name), Update: anyUpdate, Keyed: len(t.Key) > 0}
	if len(changing) > 0 && len(all) == len(t.Columns) {
		b.Update = columns("update", changing, "      ")
	}
	if len(all) > 0 {
		b.Payload = columns("payload", all, "    #")
	}
	return b
}

// maxName is the most characters of a trigger's name.
const maxName = 42

// triggerName makes a name for the trigger of a table.
func triggerName(table string, taken map[string]bool) string {
	const suffix = "_changed"
	base := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '_', r == '-':
			return r
		}
		return '_'
	}, table), "_-")
	if base == "" || '0' <= base[0] && base[0] <= '9' {
		base = strings.TrimSuffix("table_"+base, "_")
	}
	name := base[:min(len(base), maxName-len(suffix))] + suffix
	for n := 2; taken[name]; n++ {
		end := fmt.Sprintf("%s_%d", suffix, n)
		name = base[:min(len(base), maxName-len(end))] + end
	}
	taken[name] = true
	return name
}

// columns returns key: {columns: [...]}, wrapped. Each line after the first begins with indent and
// two blanks.
func columns(key string, names []string, indent string) string {
	const width = 110
	line := key + ": {columns: ["
	var lines []string
	for i, name := range names {
		word := scalar(name) + map[bool]string{true: ", ", false: "]}"}[i < len(names)-1]
		if i > 0 && len(indent)+2+term.Columns(line+strings.TrimRight(word, " ")) > width {
			lines = append(lines, strings.TrimRight(line, " "))
			line = "  "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n"+indent)
}

// head is the file up to its triggers.
const head = `# The configuration of Rowhook: which changes of which tables are delivered to which webhooks. Every key is explained
# in https://github.com/rowhook/rowhook/blob/main/rowhook.yaml
#
#   rowhook check              tells whether this file is valid
#   rowhook apply --dry-run    prints what it would change in the database
#   rowhook apply              makes the triggers
#   rowhook run                delivers
#
# A key directly behind a # shows its default, or an example if it has no default. To set it, remove the #.

# The databases, if one process works on several. Default: one, which DATABASE_URL names.
#sources: {eu: {url: "${EU_DATABASE_URL}", env: [EU_*]}, us: {url: "${US_DATABASE_URL}", env: [US_*]}}

# What all triggers share. A trigger's own key has precedence.
defaults:
  webhook:
    # Where events are POSTed. The dispatcher reads the variable from its environment when it sends.
    url: ${` + URLVariable + `}
    # Signs each request, so that the receiver can verify it. echo "whsec_$(openssl rand -base64 32)" prints a secret.
    #secret: ${WEBHOOK_SECRET}
    # Request headers to add. Default: none.
    #headers: {Authorization: "Bearer ${WEBHOOK_TOKEN}"}
    # The longest that one attempt may take.
    #timeout: 60s
  # What happens after a failed attempt: up to limit retries. Then the event is kept as a dead letter.
  #retry: {limit: 12, interval: 10s, backoff: exponential, max_interval: 1h}

triggers:`

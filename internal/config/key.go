package config

import (
	"math"

	"github.com/rowhook/rowhook/trigger"
)

// document is rowhook.yaml as a whole. Its fields, and those of the structs in them, are the keys of the file.
type document struct {
	Triggers         []trigger.Spec `yaml:"triggers"`
	trigger.Settings `yaml:",inline"`
}

// updateColumns is the long form of on.update.
type updateColumns struct {
	Columns []string `yaml:"columns"`
}

// key is what one key of the file means and takes, for the checks and for the JSON Schema. What a default is comes
// from trigger.DefaultSpec and DefaultSettings.
type key struct {
	doc      string // for someone who meets the key in an editor
	example  string // the key with a right value, as YAML, for messages
	remedy   string // what to do where there is something else, if not "write it like" the example
	noun     string // what a value is, where it has a pattern
	required bool
	enum     []string
	// pattern is a regular expression that Go and JavaScript read alike; rule says it in words.
	pattern, rule string
	min, max      int64 // of a number; both 0: any
	nonEmpty      bool  // a list, or text, that holds something
	unique        bool  // no entry of a list twice
	secret        bool  // messages do not repeat the value
	// check finds what a pattern can't. Its error says what is wrong; after a semicolon, what to do.
	check func(string) error
	// namePattern is what the names of a map of free names look like.
	namePattern string
	// schema is added to the JSON Schema as it is.
	schema map[string]any
}

const (
	triggerNamePattern = `^[A-Za-z_][A-Za-z0-9_-]{0,41}$`
	tablePattern       = `^(?:"(?:[^"]|"")+"|` + bareName + `)(?:\.(?:"(?:[^"]|"")+"|` + bareName + `))?$`
	bareName           = `(?:[A-Za-z_]|[^\x00-\x7F])(?:[A-Za-z0-9_$]|[^\x00-\x7F])*`
	durationPattern    = `^(?:0|(?:[0-9]+[wd])+(?:` + durationPart + `)*|(?:` + durationPart + `)+)$`
	durationPart       = `(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)`
	sizePattern        = `^(?:0|[0-9]{1,7}[KMGT]iB)$`
	headerNamePattern  = "^[!#$%&'*+\\-.^_`|~0-9A-Za-z]+$"
)

// keys holds every key of the file by its path, in which [] stands for any entry of a list and * for any name.
func keys() map[string]key {
	return map[string]key{
		"": {doc: "The configuration of Rowhook: which changes of which Postgres tables are delivered to which webhooks."},
		"triggers": {
			doc:      "Which changes of which tables go to which webhooks. [] for none: applying that removes every trigger.",
			remedy:   "start each entry under it with a dash and a space, as in - name: order_placed, or write triggers: [] for none",
			required: true,
		},
		"triggers[]": {
			doc:     "One table, which of its changes are captured, and where they are sent.",
			example: "- name: order_placed",
		},
		"triggers[].name": {
			doc:      "What the trigger is called in request bodies, logs and the database. Under a new name it is a new trigger.",
			example:  "name: order_placed",
			required: true,
			noun:     "name of a trigger",
			pattern:  triggerNamePattern,
			rule:     "use 1 to 42 letters, digits, _ and -, starting with a letter or _",
		},
		"triggers[].table": {
			doc: "The table to watch, as SQL names it: schema.table. A name with capitals, spaces or dots goes in double quotes, " +
				"in single quotes for YAML: '\"Sales\".\"Order Items\"'.",
			example:  "table: public.orders",
			required: true,
			noun:     "name of a table",
			pattern:  tablePattern,
			rule:     `write schema.table, and a name with spaces, dots or dashes in double quotes within single quotes, as in table: 'public."Order Items"'`,
			check:    checkTable,
		},
		"triggers[].on": {
			doc:      "Which operations are captured. At least one.",
			example:  "on: {insert: true}",
			required: true,
			schema: map[string]any{"anyOf": []any{
				requireTrue("insert"), requireTrue("delete"), requireTrue("manual"),
				map[string]any{
					"required":   []string{"update"},
					"properties": map[string]any{"update": map[string]any{"not": map[string]any{"const": false}}},
				},
			}},
		},
		"triggers[].on.insert": {doc: "Capture inserted rows.", example: "insert: true"},
		"triggers[].on.update": {
			doc: "Capture updated rows: true for a change of any column, or {columns: [...]} for rows in which one of these columns changed. " +
				"An update that changes nothing is not captured.",
			example: "update: true, or update: {columns: [status]}",
		},
		"triggers[].on.update.columns": {
			doc:      "An update is captured only where the value of one of these columns changed.",
			example:  "columns: [status, amount]",
			required: true,
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].on.update.columns[]": {doc: "A column, by its name exactly as it is, without SQL quotes.", example: "status", nonEmpty: true, check: checkColumn},
		"triggers[].on.delete":           {doc: "Capture deleted rows. TRUNCATE is not captured.", example: "delete: true"},
		"triggers[].on.manual":           {doc: "Accept events for chosen rows that someone asks for.", example: "manual: true"},
		"triggers[].when": {
			doc:     "A boolean SQL expression over old and new, which Postgres evaluates for each row. Only rows for which it is true are captured.",
			example: "when: new.amount > 100",
			check:   checkWhen, nonEmpty: true,
		},
		"triggers[].payload": {doc: "What old and new hold in the request body.", example: "payload: {columns: [id, status]}"},
		"triggers[].payload.columns": {
			doc:      "The columns that old and new hold, in this order. Left out: every column, also those added later.",
			example:  "columns: [id, status]",
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].payload.columns[]": {doc: "A column, by its name exactly as it is, without SQL quotes.", example: "id", nonEmpty: true, check: checkColumn},
		"triggers[].webhook":           {doc: "Where events are POSTed as JSON.", example: "webhook: {url: \"https://example.com/hooks/orders\"}", required: true},
		"triggers[].webhook.url": {
			doc: "The http:// or https:// URL that events are POSTed to. ${NAME} is read from the environment of the dispatcher when it sends; " +
				"the database and the logs only hold the reference.",
			example:  "url: https://example.com/hooks/orders",
			required: true,
			nonEmpty: true,
			check:    checkURL,
		},
		"triggers[].webhook.headers": {
			doc:         "Request headers to add. ${NAME} in a value is read from the environment of the dispatcher when it sends.",
			example:     "headers: {X-Team: orders}",
			namePattern: headerNamePattern,
		},
		"triggers[].webhook.headers.*": {doc: "The value of this header.", example: `Authorization: "Bearer ${TOKEN}"`, secret: true, check: checkHeaderValue},
		"triggers[].webhook.timeout": {
			doc:     "The most time that one attempt may take, from connecting to the last byte of the response.",
			example: "timeout: 10s",
			check:   checkTimeout,
		},
		"triggers[].webhook.secret": {
			doc: "Signs each request as Standard Webhooks describe, in the headers webhook-id, webhook-timestamp and webhook-signature. " +
				"Write a reference such as ${ORDERS_SECRET}: what is written here is stored in the database.",
			example:  "secret: ${ORDERS_SECRET}",
			nonEmpty: true,
			secret:   true,
			check:    checkSecret,
		},
		"triggers[].webhook.tls": {
			doc:     "Files by which the receiver is trusted and the dispatcher shows who it is, where the system's certificate authorities are not enough.",
			example: "tls: {ca_file: /etc/rowhook/ca.pem}",
		},
		"triggers[].webhook.tls.ca_file": {
			doc: "PEM file of the certificate authorities that the receiver's certificate may come from, instead of the system's. " +
				"It is on the dispatcher's machine, and read again when it changes.",
			example:  "ca_file: /etc/rowhook/ca.pem",
			nonEmpty: true,
			check:    checkPath,
		},
		"triggers[].webhook.tls.cert_file": {
			doc:      "PEM file of the client certificate to show, with the chain that leads to its authority. It is read again when it changes.",
			example:  "cert_file: /etc/rowhook/client.pem",
			nonEmpty: true,
			check:    checkPath,
		},
		"triggers[].webhook.tls.key_file": {
			doc:      "PEM file of the client certificate's private key. It may be the same file.",
			example:  "key_file: /etc/rowhook/client-key.pem",
			nonEmpty: true,
			check:    checkPath,
		},
		"triggers[].retry": {doc: "What happens to an event whose attempt failed. An event gets 1 + limit attempts; then it is a dead letter.", example: "retry: {limit: 5}"},
		"triggers[].retry.limit": {
			doc:     "How often an event is tried again after its first attempt. 0: never.",
			example: "limit: 5", min: 0, max: math.MaxInt32 - 1, // attempts are counted in a Postgres integer
		},
		"triggers[].retry.interval": {doc: "The wait before an event is tried again: each time with backoff fixed, the first time with exponential.", example: "interval: 10s"},
		"triggers[].retry.backoff": {
			doc:     "fixed waits the same interval each time; exponential doubles it each time, with jitter.",
			example: "backoff: fixed",
			enum:    []string{trigger.BackoffFixed, trigger.BackoffExponential},
		},
		"triggers[].retry.max_interval": {doc: "The longest wait: bounds exponential backoff and a receiver's Retry-After.", example: "max_interval: 1h"},
		"triggers[].concurrency": {
			doc:     "The most attempts of this trigger in flight at once in one dispatcher. 0: the dispatcher's own limit.",
			example: "concurrency: 20", min: 0, max: math.MaxInt32,
		},
		"triggers[].notify": {
			doc: "auto wakes the dispatcher at once. never leaves this trigger's events to the poll interval; " +
				"it is for tables that are written in transactions that are prepared (PREPARE TRANSACTION), which can't notify.",
			example: "notify: auto",
			enum:    []string{trigger.NotifyAuto, trigger.NotifyNever},
		},
		"triggers[].capture": {
			doc: "How inserts are captured. auto: once for each statement, which costs bulk inserts a quarter, where table and trigger allow it, else row by row. " +
				"rows: row by row always, without the temporary files of transition tables, and the table may become a partition. statement: once for each statement, or apply says what stands against it.",
			example: "capture: auto",
			enum:    []string{trigger.CaptureAuto, trigger.CaptureRows, trigger.CaptureStatement},
		},
		"triggers[].on_replication": {doc: "Also capture changes that logical replication applies.", example: "on_replication: true"},
		"network": {
			doc: "At which addresses webhooks may be. Link-local addresses, the clouds' metadata services and reserved ranges are refused " +
				"unless they are allowed here; everything else is allowed unless it is denied here.",
			example: "network: {deny: [private]}",
		},
		"network.deny": {
			doc: "Addresses that webhooks may not have: private, loopback, link-local, metadata, reserved, an address, or a prefix such as 10.1.0.0/16. " +
				"The longest prefix that holds an address decides, and deny where both are as long.",
			example: "deny: [private, loopback]",
			unique:  true,
		},
		"network.deny[]": {doc: "A word, an address or a prefix to deny.", example: "private", nonEmpty: true, check: checkRule},
		"network.allow": {
			doc:     "Addresses that webhooks may have although they are denied or refused by default, written as in deny.",
			example: "allow: [10.1.0.0/16]",
			unique:  true,
		},
		"network.allow[]":     {doc: "A word, an address or a prefix to allow.", example: "10.1.0.0/16", nonEmpty: true, check: checkRule},
		"retention":           {doc: "How long history is kept. Dead letters are kept until someone acts on them.", example: "retention: {delivered: 7d}"},
		"retention.delivered": {doc: "How long delivered events are kept. 0: not at all.", example: "delivered: 7d"},
		"retention.attempts":  {doc: "How long the record of each attempt is kept. 0: not at all.", example: "attempts: 7d"},
		"retention.max_size": {
			doc:     "The most that delivered events and attempts may take up together, with their indexes. Beyond it the oldest days are dropped, whatever else is said. 0: no bound.",
			example: "max_size: 20GiB",
		},
	}
}

func requireTrue(name string) map[string]any {
	return map[string]any{
		"required":   []string{name},
		"properties": map[string]any{name: map[string]any{"const": true}},
	}
}

package config

import (
	"math"
	"strings"

	"github.com/rowhook/rowhook/trigger"
)

// document is the whole rowhook.yaml. Its fields, and those of their structs, are the keys of the
// file.
type document struct {
	Sources          sourceGroup    `yaml:"sources"`
	Defaults         trigger.Spec   `yaml:"defaults"`
	Triggers         []trigger.Spec `yaml:"triggers"`
	trigger.Settings `yaml:",inline"`
}

// updateColumns is the long form of on.update.
type updateColumns struct {
	Columns []string `yaml:"columns"`
}

// key describes one key of the file and its values, for the checks and for the JSON Schema. The
// defaults come from trigger.DefaultSpec and trigger.DefaultSettings.
type key struct {
	doc      string // description that editors show
	example  string // the key with a valid value, as YAML, for messages
	remedy   string // what to do about a wrong value; "": "write it like" the example
	noun     string // what a value with a pattern is, with its article
	required bool
	enum     []string
	// pattern is a regular expression with the same meaning in Go and JavaScript. rule says it in
	// words.
	pattern, rule string
	min, max      int64 // bounds of a number; both 0: none
	nonEmpty      bool  // a list or a text must not be empty
	unique        bool  // a list must not repeat an entry
	secret        bool  // messages do not show the value
	onOff         bool  // a text of enum on and off; true and false are these
	// check finds what a pattern can't. Its error says what is wrong and, after a semicolon, what
	// to do.
	check func(string) error
	// namePattern is the pattern for the names of a map whose names are free.
	namePattern string
}

const (
	sourceNamePattern  = `^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$`
	forPattern         = `^[A-Za-z0-9_*][A-Za-z0-9_*-]{0,62}$`
	triggerNamePattern = `^[A-Za-z_][A-Za-z0-9_-]{0,41}$`
	tablePattern       = `^(?:"(?:[^"]|"")+"|` + bareName + `)(?:\.(?:"(?:[^"]|"")+"|` + bareName + `))?$`
	// tablesPattern is tablePattern, and two parts that may hold *.
	tablesPattern     = `^(?:` + quotedOr + bareName + `)$|^(?:` + quotedOr + bareGlob + `)\.(?:` + quotedOr + bareGlob + `)$`
	quotedOr          = `"(?:[^"]|"")+"|`
	bareGlob          = `(?:[A-Za-z_*]|[^\x00-\x7F])(?:[A-Za-z0-9_$*]|[^\x00-\x7F])*`
	tablesRule        = `write schema.table, or a pattern with its schema, as in "billing.*" or tenant_*.orders; put a name with spaces, dots or dashes in double quotes within single quotes`
	bareName          = `(?:[A-Za-z_]|[^\x00-\x7F])(?:[A-Za-z0-9_$]|[^\x00-\x7F])*`
	durationPattern   = `^(?:0|(?:[0-9]+[wd])+(?:` + durationPart + `)*|(?:` + durationPart + `)+)$`
	durationPart      = `(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)`
	sizePattern       = `^(?:0|[0-9]{1,7}[KMGT]iB)$`
	batchBytesPattern = `^(?:[1-9][0-9]{0,4}KiB|(?:[1-9]|[1-5][0-9]|6[0-4])MiB)$`
	perTimePattern    = `^(?:[1-9][0-9]{0,5}|1000000)/[smh]$`
	headerNamePattern = "^[!#$%&'*+\\-.^_`|~0-9A-Za-z]+$"
)

// The paths in keys() of a trigger, of what triggers share, and of an alert.
const (
	triggerRule = "triggers[]"
	sharedRule  = "defaults"
	alertRule   = "alerts[]"
)

// isOwn reports whether each trigger has a key of its own, so that defaults can't give it.
func isOwn(name string) bool {
	switch name {
	case "name", "table", "tables", "tables[]", "except", "except[]", "follow":
		return true
	}
	return false
}

// keys returns every key of the file by its path. In a path [] stands for any entry of a list, and *
// for any name. The keys of a trigger are also those of defaults, where a trigger's required keys
// are not required.
func keys() map[string]key {
	all := triggerKeys()
	for rule, k := range triggerKeys() {
		name, ok := strings.CutPrefix(rule, triggerRule+".")
		if !ok || isOwn(name) {
			continue
		}
		k.required = k.required && strings.HasPrefix(name, "on.")
		all[sharedRule+"."+name] = k
	}
	return all
}

func triggerKeys() map[string]key {
	all := map[string]key{
		"": {doc: "The configuration of Rowhook: which changes of which Postgres tables are delivered to which webhooks."},
		"sources": {
			doc:         "The databases that one dispatcher process works on, by names. Without it there is one, which DATABASE_URL names. It is read by the program alone, and stored in no database.",
			example:     "sources: {eu: {url: \"${EU_DATABASE_URL}\"}}",
			namePattern: sourceNamePattern,
		},
		"sources.*": {
			doc:      "A database. Its name stands in bodies, logs, metrics and messages.",
			example:  "eu: {url: \"${EU_DATABASE_URL}\"}",
			required: true,
		},
		"sources.*.url": {
			doc: "The connection string: a URL, or keywords and values. ${NAME} is an environment variable of the dispatcher, also one such as DATABASE_URL, and ${file:/PATH} " +
				"a file. A variable that is named here is never given out to triggers.",
			example:  "url: ${EU_DATABASE_URL}",
			required: true, nonEmpty: true, secret: true,
			check: checkConnection,
		},
		"sources.*.listen_url": {
			doc:      "The connection string for LISTEN, if url leads through a pooler such as PgBouncer in transaction mode: straight to the same database.",
			example:  "listen_url: ${EU_LISTEN_URL}",
			nonEmpty: true, secret: true,
			check: checkConnection,
		},
		"sources.*.http_url": {
			doc:      "The connection string for requests over HTTP, if the dispatcher's role may not operate. Default: listen_url or url.",
			example:  "http_url: ${EU_HTTP_DATABASE_URL}",
			nonEmpty: true, secret: true,
			check: checkConnection,
		},
		"sources.*.env": {
			doc:     "The environment variables that triggers of this source may refer to, with * for any part. Default: those of --env, and without it none.",
			example: "env: [EU_*, STRIPE_KEY]",
			unique:  true,
		},
		"sources.*.env[]": {doc: "A name, or a pattern.", example: "EU_*", nonEmpty: true, check: checkSourceEnv},
		"sources.*.secrets_dir": {
			doc:      "The directory of the files that triggers of this source may refer to by ${file:PATH}. Default: those of --secrets-dir, and without it none.",
			example:  "secrets_dir: /run/secrets/eu",
			nonEmpty: true,
			check:    checkSecretsDir,
		},
		"sources.from": {
			doc:     "Further databases, which a query of one of the sources names: those of tenants that come and go without a restart. A tenant is a source as any other.",
			example: "from: {source: main, query: \"select name, host, database from tenants\", url: \"${TENANT_URL}\"}",
		},
		"sources.from.source": {
			doc:      "The name of the source that is asked.",
			example:  "source: main",
			required: true, nonEmpty: true,
		},
		"sources.from.query": {
			doc:      "A query with the columns name, host and database, all text. It runs as the role of that source, in a transaction that only reads, for ten seconds at most.",
			example:  "query: select name, host, database from tenants",
			required: true, nonEmpty: true,
		},
		"sources.from.url": {
			doc:      "The connection string of tenants. What the query says takes the place of host and database; user, password, port and all other parameters are those here.",
			example:  "url: ${TENANT_URL}",
			required: true, nonEmpty: true, secret: true,
			check: checkTemplateConnection,
		},
		"sources.from.every": {
			doc:     "How often the query runs.",
			example: "every: 30s",
			check:   checkAtLeast("every", leastTenantsEvery),
		},
		"sources.from.env":         {doc: "The environment variables that triggers of every tenant may refer to, as env of a source.", example: "env: [TENANT_*]", unique: true},
		"sources.from.env[]":       {doc: "A name, or a pattern.", example: "TENANT_*", nonEmpty: true, check: checkSourceEnv},
		"sources.from.secrets_dir": {doc: "The directory of the files that triggers of every tenant may refer to.", example: "secrets_dir: /run/secrets/tenants", nonEmpty: true, check: checkSecretsDir},
		"sources.allow": {
			doc:      "The hosts that from may name, with * for any part. A tenant on another host is refused.",
			example:  "allow: [\"*.db.internal\"]",
			nonEmpty: true,
			unique:   true,
		},
		"sources.allow[]": {doc: "A host or a pattern of hosts.", example: "\"*.db.internal\"", nonEmpty: true, check: checkHostPattern},
		"defaults": {
			doc: "What triggers share: every key of a trigger except name and what it watches (table, tables, except, follow). It holds for the triggers of all files of a directory. " +
				"A trigger's own key has precedence. Groups of keys are merged; a list or a single value is replaced.",
			example: "defaults: {retry: {limit: 10}}",
		},
		"triggers": {
			doc:      "Which changes of which tables go to which webhooks. [] means no triggers: applying it removes every trigger.",
			remedy:   "start each entry under it with a dash and a space, as in - name: order_placed, or write triggers: [] for none",
			required: true,
		},
		"triggers[]": {
			doc:     "A table, or several, the changes of it that are captured, and the webhook that they are sent to.",
			example: "- name: order_placed",
		},
		"triggers[].name": {
			doc:      "The name of the trigger in request bodies, logs and the database. With a new name it is a new trigger.",
			example:  "name: order_placed",
			required: true,
			noun:     "a name for a trigger",
			pattern:  triggerNamePattern,
			rule:     "use 1 to 42 letters, digits, _ and -, starting with a letter or _",
		},
		"triggers[].table": {
			doc: "The table to watch, as SQL names it: schema.table. A name with capitals, spaces or dots needs double quotes, " +
				"and single quotes around them for YAML: '\"Sales\".\"Order Items\"'.",
			example: "table: public.orders",
			noun:    "the name of a table",
			pattern: tablePattern,
			rule:    `write schema.table; put a name with spaces, dots or dashes in double quotes within single quotes, as in table: 'public."Order Items"'`,
			check:   checkTable,
		},
		"triggers[].tables": {
			doc: "The tables to watch with this one trigger, instead of table: names as in table, and patterns such as billing.*, audit.log_* or tenant_*.orders, " +
				"in which * stands for any characters. A request's body names the table of its row. Tables that are created later are watched from the next apply on.",
			example:  `tables: [public.orders, "billing.*"]`,
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].tables[]": {
			doc:     "A table, as table has it, or a pattern, as in billing.* and tenant_*.orders.",
			example: `"billing.*"`,
			noun:    "the name of a table or a pattern",
			pattern: tablesPattern,
			rule:    tablesRule,
			check:   checkTables,
		},
		"triggers[].except": {
			doc:      "Tables that are not watched although tables match them. They are written as in tables.",
			example:  `except: [billing.drafts, "billing.tmp_*"]`,
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].except[]": {
			doc:     "A table or a pattern, as in tables.",
			example: "billing.drafts",
			noun:    "the name of a table or a pattern",
			pattern: tablesPattern,
			rule:    tablesRule,
			check:   checkExcept,
		},
		"triggers[].follow": {
			doc: "Dispatchers look each minute for new tables that match tables. A dispatcher whose role may create triggers on them watches them; any other says what is not watched yet. " +
				"Without it, the next apply watches them.",
			example: "follow: true",
		},
		"triggers[].for": {
			doc:      "The sources that have this trigger, with * for any part of a name. Default: all.",
			example:  "for: [eu, us]",
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].for[]": {
			doc: "A name of sources, or a pattern.", example: "eu", nonEmpty: true,
			noun: "a name of a source", pattern: forPattern, rule: "use a name that sources has, or a pattern of names such as tenant_*",
		},
		"triggers[].on": {
			doc:      "Which operations are captured. At least one is needed.",
			example:  "on: {insert: true}",
			required: true,
		},
		"triggers[].on.insert": {doc: "Capture inserted rows.", example: "insert: true"},
		"triggers[].on.update": {
			doc: "Capture updated rows. true captures a change of any column; {columns: [...]} captures rows in which one of these columns changed. " +
				"An update that changes nothing is not captured.",
			example: "update: true, or update: {columns: [status]}",
		},
		"triggers[].on.update.columns": {
			doc:      "An update is captured only if the value of one of these columns changed.",
			example:  "columns: [status, amount]",
			required: true,
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].on.update.columns[]": {doc: "The exact name of a column, without SQL quotes.", example: "status", nonEmpty: true, check: checkColumn},
		"triggers[].on.delete":           {doc: "Capture deleted rows.", example: "delete: true"},
		"triggers[].on.truncate":         {doc: "Capture TRUNCATE, as one event without rows.", example: "truncate: true"},
		"triggers[].on.manual":           {doc: "Accept manual events, which rowhook invoke and rowhook.emit record.", example: "manual: true"},
		"triggers[].when": {
			doc:     "A boolean SQL expression over old and new. Postgres evaluates it for each row, and captures only rows for which it is true.",
			example: "when: new.amount > 100",
			check:   checkWhen, nonEmpty: true,
		},
		"triggers[].payload": {doc: "What old and new contain in the request body.", example: "payload: {columns: [id, status]}"},
		"triggers[].payload.columns": {
			doc:      "The columns in old and new, in this order. Without it they contain every column, including columns added later.",
			example:  "columns: [id, status]",
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].payload.columns[]": {doc: "The exact name of a column, without SQL quotes.", example: "id", nonEmpty: true, check: checkColumn},
		"triggers[].payload.mask": {
			doc: "Columns of old and new, and members of JSON columns, that are sent to the receiver and shown nowhere else: not by commands, HTTP and the dashboard, " +
				"nor in logs and traces. It also holds for events that were recorded before.",
			example:  `mask: [email, "address.*"]`,
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].payload.mask[]": {
			doc: "A column, or a member of it behind dots: email, address.city. * is every member of an object and every element of an array. " +
				"A name with a dot, a quote or a * in it is in double quotes.",
			example: "email", nonEmpty: true, check: checkMask,
		},
		"triggers[].payload.insert": {doc: "What new contains of an inserted row.", example: "insert: {columns: [id, status]}"},
		"triggers[].payload.update": {doc: "What old and new contain of an updated row.", example: "update: {columns: [id, status]}"},
		"triggers[].payload.delete": {doc: "What old contains of a deleted row.", example: "delete: {columns: [id]}"},
		"triggers[].payload.old": {
			doc: "What old contains in an update. all: every column of the payload. changed: the columns that the update changed. none: null. " +
				"In a delete, old is the row in any case.",
			example: "old: changed",
			enum:    []string{trigger.OldAll, trigger.OldChanged, trigger.OldNone},
		},
		"triggers[].payload.changed": {doc: "Add the names of the changed columns to the body of an update, as changed beside op.", example: "changed: true"},
		"triggers[].payload.numbers": {
			doc: "How bigint and numeric are written, also within arrays and composite types. json: as JSON numbers with every digit, of which JavaScript loses some. " +
				"text: as JSON strings. Values in columns of type json and jsonb stay as they are.",
			example: "numbers: text",
			enum:    []string{trigger.NumbersJSON, trigger.NumbersText},
		},
		"triggers[].webhook": {doc: "The receiver, to which events are sent.", example: "webhook: {url: \"https://example.com/hooks/orders\"}"},
		"triggers[].webhook.url": {
			doc: "The http:// or https:// URL that events are sent to. The dispatcher replaces ${NAME} by an environment variable, and ${file:/PATH} by a file's " +
				"content, when it sends; the database and the logs contain only the reference. Behind the host it may have data of the event, as in /orders/$new.id.",
			example:  "url: https://example.com/hooks/orders",
			required: true,
			nonEmpty: true,
			check:    checkTemplateURL,
		},
		"triggers[].webhook.method": {
			doc:     "The method of requests. A GET has no body, and a DELETE has one only if body or form is set.",
			example: "method: PUT",
			enum:    trigger.Methods(),
		},
		"triggers[].webhook.query": {
			doc: "Names and values to add to the query of the url. A value may have placeholders for data of the event, such as $new.id, " +
				"and ${NAME} for environment variables; both are escaped.",
			example: "query: {source: shop, order: $new.id}",
		},
		"triggers[].webhook.query.*": {doc: "The value.", example: "order: $new.id", check: checkTemplate},
		"triggers[].webhook.body": {
			doc: "What the body holds, instead of the usual body: keys and values, in which placeholders stand for data of the event. Alone, a placeholder is the JSON of its value; " +
				"in a text, strings stand without quotes. form: a form with the columns of the row. none: the usual body, although defaults have another one.",
			example: `body: {order: $new.id, text: "Order ${new.id} is ${new.status}"}`,
		},
		"triggers[].webhook.form": {
			doc:     "The fields of a body of the type application/x-www-form-urlencoded, instead of the usual body. Values may have placeholders, as in body.",
			example: "form: {order: $new.id}",
		},
		"triggers[].webhook.form.*": {doc: "The value of this field.", example: "order: $new.id", check: checkTemplate},
		"triggers[].webhook.headers": {
			doc: "Request headers to add. The dispatcher replaces ${NAME} in a value by an environment variable, and ${file:/PATH} by a file's content, when it sends, " +
				"and $new.id by data of the event.",
			example:     "headers: {X-Team: orders}",
			namePattern: headerNamePattern,
		},
		"triggers[].webhook.headers.*": {doc: "The value of this header.", example: `Authorization: "Bearer ${TOKEN}"`, secret: true, check: checkHeaderValue},
		"triggers[].webhook.format": {
			doc: "How an event is written. hasura: the JSON of Hasura's event triggers. cloudevents: CloudEvents 1.0 with everything in the body, and a batch as a batch of them. " +
				"cloudevents-binary: CloudEvents 1.0 with the attributes in headers ce-..., and the data in the body.",
			example: "format: cloudevents",
			enum:    []string{trigger.FormatHasura, trigger.FormatCloudEvents, trigger.FormatCloudEventsBinary},
		},
		"triggers[].webhook.compress": {
			doc: "gzip: bodies above 1 kB are compressed, with the header Content-Encoding: gzip. The receiver has to expect that. The signature is over the body before it is compressed. " +
				"none: bodies are sent as they are.",
			example: "compress: gzip",
			enum:    []string{trigger.CompressGzip, trigger.CompressNone},
		},
		"triggers[].webhook.timeout": {
			doc:     "The longest time for one attempt, from connecting to the last byte of the response.",
			example: "timeout: 10s",
			check:   checkTimeout,
		},
		"triggers[].webhook.secret": {
			doc: "The key that signs each request as Standard Webhooks describe, in the headers webhook-id, webhook-timestamp and webhook-signature: " +
				"whsec_ and base64 for an HMAC, whsk_ and base64 for Ed25519, or several, separated by spaces. " +
				"Write a reference such as ${ORDERS_SECRET} or ${file:/run/secrets/orders}: the text here is stored in the database.",
			example:  "secret: ${ORDERS_SECRET}",
			nonEmpty: true,
			secret:   true,
			check:    checkSecret,
		},
		"triggers[].webhook.tls": {
			doc:     "Files for TLS: other certificate authorities than the system's, and a client certificate.",
			example: "tls: {ca_file: /etc/rowhook/ca.pem}",
		},
		"triggers[].webhook.tls.ca_file": {
			doc: "PEM file of the certificate authorities that are trusted for the receiver's certificate, instead of the system's. " +
				"The file is on the dispatcher's machine, and is read again when it changes.",
			example:  "ca_file: /etc/rowhook/ca.pem",
			nonEmpty: true,
			check:    checkPath,
		},
		"triggers[].webhook.tls.cert_file": {
			doc:      "PEM file of the client certificate to send, with the chain to its authority. It is read again when it changes.",
			example:  "cert_file: /etc/rowhook/client.pem",
			nonEmpty: true,
			check:    checkPath,
		},
		"triggers[].webhook.tls.key_file": {
			doc:      "PEM file of the client certificate's private key. It may be the same file as cert_file.",
			example:  "key_file: /etc/rowhook/client-key.pem",
			nonEmpty: true,
			check:    checkPath,
		},
		"triggers[].webhook.oauth2": {
			doc:     "Each request carries a token in its header Authorization, by the grant of client credentials. Triggers with the same values share a token.",
			example: "oauth2: {token_url: https://auth.example.com/token, client_id: rowhook, client_secret: \"${CLIENT_SECRET}\"}",
		},
		"triggers[].webhook.oauth2.token_url": {
			doc:      "The http:// or https:// URL of the endpoint for tokens.",
			example:  "token_url: https://auth.example.com/oauth2/token",
			nonEmpty: true,
			check:    checkURL,
		},
		"triggers[].webhook.oauth2.client_id": {
			doc:      "What the endpoint for tokens knows this client by.",
			example:  "client_id: rowhook",
			nonEmpty: true,
			check:    checkPath,
		},
		"triggers[].webhook.oauth2.client_secret": {
			doc:      "The client's secret. Write a reference such as ${CLIENT_SECRET} or ${file:/run/secrets/client}: the text here is stored in the database.",
			example:  "client_secret: ${CLIENT_SECRET}",
			nonEmpty: true,
			secret:   true,
			check:    checkPath,
		},
		"triggers[].webhook.oauth2.scopes": {
			doc:      "The scopes to ask for. Default: those that the endpoint for tokens gives by itself.",
			example:  "scopes: [orders.write]",
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].webhook.oauth2.scopes[]": {doc: "A scope.", example: "orders.write", nonEmpty: true, check: checkScope},
		"triggers[].webhook.oauth2.audience": {
			doc:      "The parameter audience of a request for a token, which some endpoints want.",
			example:  "audience: https://api.example.com",
			nonEmpty: true,
			check:    checkPath,
		},
		"triggers[].retry": {doc: "How failed attempts are retried. An event gets 1 + limit attempts; then it becomes a dead letter.", example: "retry: {limit: 5}"},
		"triggers[].retry.limit": {
			doc:     "The number of retries after the first attempt. 0: none.",
			example: "limit: 12", min: 0, max: math.MaxInt32 - 1, // a Postgres integer counts attempts
		},
		"triggers[].retry.interval": {doc: "The wait before a retry. With backoff exponential it is the wait before the first retry.", example: "interval: 10s"},
		"triggers[].retry.backoff": {
			doc:     "exponential doubles the wait before each retry, with jitter. fixed waits the same interval each time.",
			example: "backoff: fixed",
			enum:    []string{trigger.BackoffFixed, trigger.BackoffExponential},
		},
		"triggers[].retry.max_interval": {doc: "The longest wait. It bounds exponential backoff and a receiver's Retry-After.", example: "max_interval: 1h"},
		"triggers[].retry.schedule": {
			doc: "The waits before the retries, one after another, in the place of interval and backoff. The number of retries is that of the waits, " +
				"or limit if that is more: then the last wait repeats.",
			example:  "schedule: [5s, 1m, 10m, 1h]",
			nonEmpty: true,
		},
		"triggers[].retry.schedule[]": {doc: "The wait before one retry.", example: "1m"},
		"triggers[].retry.statuses": {
			doc: "What becomes of an event when the receiver answers with a status, or with one of a range. A single status has precedence over a range. " +
				"dead: it is a dead letter at once. retry: it is retried, as without a rule. pause: the trigger is paused, and the event waits without counting the attempt. " +
				"none: no rules, although defaults have some.",
			example:     "statuses: {400-499: dead, 408: retry, 429: retry}",
			namePattern: trigger.StatusPattern,
		},
		"triggers[].retry.statuses.*": {doc: "What this status means: dead, retry or pause.", example: "404: dead", enum: trigger.Outcomes()},
		"triggers[].retry.max_age": {
			doc: "An event that has been due for so long becomes a dead letter without another attempt. It counts from the change and the trigger's delay, " +
				"or from the redelivery. Default: events do not expire.",
			example: "max_age: 24h",
			check:   checkAtLeast("max_age", leastAge),
		},
		"triggers[].delay": {
			doc:     "The time from a change to its first attempt. Events of a backfill and those that are sent again by hand are sent at once.",
			example: "delay: 30s",
			check:   checkDelay,
		},
		"triggers[].order": {
			doc: "Events of one key are sent one after another, in the order of their changes; keys do not wait for each other. row: the key is the primary key. " +
				"none: no order, although defaults ask for one.",
			example: "order: row, or order: {by: [customer_id]}",
		},
		"triggers[].order.by": {
			doc:      "The key: row for the primary key, or the columns whose values make the key.",
			example:  "by: row, or by: [customer_id]",
			required: true,
			nonEmpty: true,
			unique:   true,
		},
		"triggers[].order.by[]": {doc: "The exact name of a column, without SQL quotes.", example: "customer_id", nonEmpty: true, check: checkColumn},
		"triggers[].order.strict": {
			doc: "Also keeps the order between transactions that change different rows of one key. An event then waits until every transaction that was open " +
				"when it was recorded has ended. Rows of their own primary key never need it.",
			example: "strict: true",
		},
		"triggers[].order.on_dead": {
			doc:     "What becomes of a key when one of its events is a dead letter. skip: later events are sent. block: they wait until somebody redelivers or discards it.",
			example: "on_dead: block",
			enum:    []string{trigger.OnDeadSkip, trigger.OnDeadBlock},
		},
		"triggers[].order.latest": {
			doc:     "Of several waiting changes of a row, only the newest is sent, with the first old and the last new row. The key has to hold the primary key.",
			example: "latest: true",
		},
		"triggers[].batch": {
			doc:     "One request for several events of this trigger: a JSON array of their bodies. none: single requests, although defaults ask for batches.",
			example: "batch: {max: 100}",
		},
		"triggers[].batch.max": {
			doc:     "The greatest number of events in a request.",
			example: "max: 100", min: leastBatch, max: mostBatch, required: true,
		},
		"triggers[].batch.bytes": {
			doc:     "The greatest size of a request's body. An event that is larger by itself is sent alone.",
			example: "bytes: 1MiB", pattern: batchBytesPattern, rule: "from 1KiB to 64MiB, as in 256KiB or 1MiB", check: checkBatchBytes,
		},
		"triggers[].batch.wait": {
			doc:     "How long the first event of a batch may wait for others. 0: what is there is sent at once.",
			example: "wait: 200ms", check: checkBatchWait,
		},
		"triggers[].rate": {
			doc:     "The greatest rate of requests, over all dispatchers together. none: no bound, although defaults set one.",
			example: "rate: {limit: 50/s}",
		},
		"triggers[].rate.limit": {
			doc:      "How many requests are sent in a second (50/s), a minute (600/m) or an hour (1000/h), evenly spaced. A batch is one request, and so is a retry.",
			example:  "limit: 50/s",
			required: true,
		},
		"triggers[].rate.burst": {
			doc:     "How many requests may be sent at once after a pause. Default: 1, so that requests are always spaced evenly.",
			example: "burst: 100", min: 1, max: mostBurst,
		},
		"triggers[].rate.held_by": {
			doc: "The source whose database holds the rate for the triggers of this name of all sources together. The trigger is one of that source, too. " +
				"While it can't be reached, the events wait. Default: each source has the rate for itself.",
			example: "held_by: main",
		},
		"triggers[].concurrency": {
			doc: "The greatest number of attempts of this trigger in flight at once in one dispatcher, or {each, total}: that, and the greatest number in all dispatchers. " +
				"0: the dispatcher's default.",
			example: "concurrency: 20", min: 0, max: math.MaxInt32,
		},
		"triggers[].concurrency.each": {
			doc:     "The greatest number of attempts of this trigger in flight at once in one dispatcher. 0: the dispatcher's limit.",
			example: "each: 20", min: 0, max: math.MaxInt32,
		},
		"triggers[].concurrency.total": {
			doc:     "The greatest number of attempts of this trigger in flight at once, over all dispatchers together. 0: no bound.",
			example: "total: 50", min: 0, max: math.MaxInt32,
		},
		"triggers[].breaker": {
			doc: "on: while the endpoint fails, only single probes are sent, which count no attempt, until it answers again. " +
				"off: every event is attempted as its retries say, whatever the endpoint does.",
			example: "breaker: off",
			enum:    []string{trigger.BreakerOn, trigger.BreakerOff},
			onOff:   true,
		},
		"triggers[].notify": {
			doc: "auto wakes the dispatcher at once. never leaves this trigger's events to the poll interval. " +
				"Use never for tables that prepared transactions write (PREPARE TRANSACTION), because those can't notify.",
			example: "notify: auto",
			enum:    []string{trigger.NotifyAuto, trigger.NotifyNever},
		},
		"triggers[].at": {
			doc: "change captures each change of a row. commit captures what a transaction has done to a row as one change, when it commits: with the row as it was before the transaction as old, and as it was left as new. " +
				"The table needs a primary key.",
			example: "at: commit",
			enum:    []string{trigger.AtChange, trigger.AtCommit},
		},
		"triggers[].capture": {
			doc: "How changes are captured. auto captures inserts once per statement, which costs bulk inserts a quarter, if table and trigger allow it, and otherwise row by row, as it does updates and deletes. " +
				"rows always captures row by row: it needs no temporary files for transition tables, and the table may become a partition. " +
				"statement captures updates and deletes once per statement, too, which costs bulk updates a third and single ones more; if that is impossible for each of them, apply fails and says why.",
			example: "capture: auto",
			enum:    []string{trigger.CaptureAuto, trigger.CaptureRows, trigger.CaptureStatement},
		},
		"triggers[].retention":           {doc: "How long history of this trigger is kept, in the place of the general retention.", example: "retention: {delivered: 12h}"},
		"triggers[].retention.delivered": {doc: "How long its delivered events are kept. 0: they are not kept. Default: the general retention.", example: "delivered: 12h"},
		"triggers[].retention.attempts":  {doc: "How long its attempts are kept. 0: they are not logged. Default: the general retention.", example: "attempts: 1d"},
		"triggers[].on_replication":      {doc: "Also capture changes that logical replication applies.", example: "on_replication: true"},
		"alerts": {
			doc:     "Who is told of trouble: each entry is a URL for alerts, or a heartbeat.",
			example: "alerts: [{url: \"${SLACK_URL}\", format: slack}]",
		},
		"alerts[]": {
			doc:     "A URL that is told when a kind of trouble begins and when it ends, or a heartbeat that is called while no dispatcher has trouble of its own.",
			example: "- {url: \"${SLACK_URL}\", format: slack}",
		},
		"alerts[].on": {
			doc: "What is told. failing: an endpoint has begun to fail; recovered: it works again; dead: events became dead letters; paused: an answer of its receiver has paused a trigger; backlog: events wait for long; " +
				"uncaptured: changes of a watched table are not captured. Default: all of it.",
			example:  "on: [failing, recovered, dead]",
			nonEmpty: true,
			unique:   true,
		},
		"alerts[].on[]": {doc: "A kind of trouble.", example: "failing", enum: trigger.Alerts()},
		"alerts[].url": {
			doc:      "The URL that alerts are POSTed to. ${NAME} is read from the dispatcher's environment, and ${file:/PATH} from a file, when it sends.",
			example:  "url: ${SLACK_URL}",
			nonEmpty: true,
			check:    checkAlertURL,
		},
		"alerts[].format": {
			doc:     "json: the facts as a JSON object. slack: a text for Slack, Mattermost and what else takes {\"text\": ...}.",
			example: "format: slack",
			enum:    []string{trigger.AlertJSON, trigger.AlertSlack},
		},
		"alerts[].secret": {
			doc:      "The key that signs each alert as Standard Webhooks describe, as that of a webhook. Default: alerts are not signed.",
			example:  "secret: ${ALERT_SECRET}",
			nonEmpty: true,
			secret:   true,
			check:    checkSecret,
		},
		"alerts[].backlog": {doc: "When a backlog is told.", example: "backlog: {older_than: 5m}"},
		"alerts[].backlog.older_than": {
			doc:     "A backlog begins when an event of a trigger has been due for so long. It ends when none has been due for half of it.",
			example: "older_than: 5m",
			check:   checkAtLeast("older_than", leastBacklog),
		},
		"alerts[].heartbeat": {
			doc: "A URL that is called by GET while a dispatcher works, the database answers it, and alerts arrive. " +
				"A monitor that waits for it tells when none of that is so.",
			example:  "heartbeat: ${PING_URL}",
			nonEmpty: true,
			check:    checkAlertURL,
		},
		"alerts[].every": {
			doc:     "The longest time between two calls of the heartbeat.",
			example: "every: 1m",
			check:   checkAtLeast("every", leastHeartbeat),
		},
		"network": {
			doc: "The addresses that webhooks may have. Link-local addresses, the clouds' metadata services and reserved ranges are rejected " +
				"unless they are allowed here. All other addresses are allowed unless they are denied here.",
			example: "network: {deny: [private]}",
		},
		"network.deny": {
			doc: "Addresses that webhooks may not have: private, loopback, link-local, metadata, reserved, an address, or a prefix such as 10.1.0.0/16. " +
				"The longest prefix that contains an address decides; with equal length deny decides.",
			example: "deny: [private, loopback]",
			unique:  true,
		},
		"network.deny[]": {doc: "A word, an address or a prefix to deny.", example: "private", nonEmpty: true, check: checkRule},
		"network.allow": {
			doc:     "Addresses that webhooks may have although deny or the default rejects them, written as in deny.",
			example: "allow: [10.1.0.0/16]",
			unique:  true,
		},
		"network.allow[]":     {doc: "A word, an address or a prefix to allow.", example: "10.1.0.0/16", nonEmpty: true, check: checkRule},
		"retention":           {doc: "How long history is kept. Dead letters are kept until somebody redelivers or discards them.", example: "retention: {delivered: 7d}"},
		"retention.delivered": {doc: "How long delivered events are kept. 0: they are not kept.", example: "delivered: 7d"},
		"retention.attempts":  {doc: "How long the log of attempts is kept. 0: there is no log.", example: "attempts: 7d"},
		"retention.max_size": {
			doc:     "The greatest total size of delivered events and attempts, with their indexes. Above it the oldest days are dropped, even if they are within their retention. 0: no bound.",
			example: "max_size: 20GiB",
		},
	}
	addNATS(all)
	for _, operation := range [...]string{"insert", "update", "delete"} {
		columns := all["triggers[].payload.columns"]
		columns.doc = "The columns in the events of " + operation + "s, in this order, instead of those of payload.columns."
		all["triggers[].payload."+operation+".columns"] = columns
		all["triggers[].payload."+operation+".columns[]"] = all["triggers[].payload.columns[]"]
	}
	return all
}

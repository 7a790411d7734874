package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// natsKeys are the keys of nats, but for those that it shares with webhook.
func natsKeys() map[string]key {
	return map[string]key{
		"": {
			doc: "A stream of NATS JetStream, to which events are published in the place of webhook, with acknowledgement. " +
				"The program has to be rowhook-nats.",
			example: `nats: {url: "nats://nats:4222", subject: "orders.$new.id"}`,
		},
		".url": {
			doc: "The URL of a server, or several of one cluster, separated by commas: nats://, tls://, ws:// or wss://. " +
				"It may have references such as ${NATS_URL}, and no data of the event.",
			example:  "url: nats://nats:4222",
			required: true,
			nonEmpty: true,
			check:    checkNATSURL,
		},
		".subject": {
			doc: "The subject of messages. It may have data of the event, such as $new.id and ${new.customer_id}. Of these letters, digits, _ and - stay, " +
				"and each other byte becomes % and two digits, so that data can't add a token, a wildcard or a blank. A stream has to take the subject.",
			example:  "subject: orders.$new.id",
			required: true,
			nonEmpty: true,
			check:    checkSubject,
		},
		".stream": {
			doc:     "The stream that has to store the messages. If another one takes the subject, the attempt fails. Without it any stream will do.",
			example: "stream: ORDERS",
			noun:    "the name of a stream",
			pattern: `^[^\s.*>/\\]+$`,
			rule:    "write its name, without blanks, dots, slashes and wildcards",
		},
		".creds": {
			doc:      "The content of a credentials file, by a reference: ${file:/run/secrets/rowhook.creds}.",
			example:  `creds: "${file:/run/secrets/rowhook.creds}"`,
			nonEmpty: true,
			secret:   true,
			check:    checkPath,
		},
		".user":     {doc: "The name of a user, for servers that ask for one.", example: "user: rowhook", nonEmpty: true, check: checkPath},
		".password": {doc: "The password of user, by a reference such as ${NATS_PASSWORD}.", example: "password: ${NATS_PASSWORD}", nonEmpty: true, secret: true, check: checkPath},
		".token":    {doc: "The token of servers that ask for one, by a reference such as ${NATS_TOKEN}.", example: "token: ${NATS_TOKEN}", nonEmpty: true, secret: true, check: checkPath},
		".timeout": {
			doc:     "The longest time for one attempt, from connecting to the acknowledgement. Without it 10s.",
			example: "timeout: 5s",
			check:   checkTimeout,
		},
		".body": {
			doc: "What a message holds, instead of the usual body: keys and values, in which placeholders stand for data of the event, as in webhook.body. " +
				"none: the usual body, although defaults have another one.",
			example: "body: {order: $new.id}",
		},
	}
}

// addNATS adds the keys of nats.
func addNATS(all map[string]key) {
	const at, shared = triggerRule + ".nats", triggerRule + ".webhook"
	for name, k := range natsKeys() {
		all[at+name] = k
	}
	for name, doc := range map[string]string{ //nolint:gosec // descriptions, and no credentials
		"headers":       "Headers of messages to add, with references and placeholders as in webhook.headers. Their names keep their case, by which NATS tells them apart.",
		"headers.*":     "The value of this header of messages.",
		"format":        "How an event is written in a message: hasura, cloudevents or cloudevents-binary, as in webhook.format.",
		"secret":        "The key that signs each message, in the headers webhook-id, webhook-timestamp and webhook-signature, as webhook.secret does.",
		"tls":           "Files for connections with TLS: other certificate authorities than the system's, and a client certificate. TLS without them needs no key: write tls:// in url, or leave it to the server.",
		"tls.ca_file":   "Path of a PEM file with the certificate authorities of the servers of NATS, in the place of the system's. It may have references.",
		"tls.cert_file": "Path of a PEM file with the certificate that connections to NATS present, followed by its chain. It may have references.",
		"tls.key_file":  "Path of a PEM file with the private key of cert_file. The user of the dispatcher must be able to read it.",
	} {
		k := all[shared+"."+name]
		k.doc = doc
		all[at+"."+name] = k
	}
}

// destination decides which of webhook and nats a trigger has, since defaults may have parts of both.
// seen are the trigger's own keys. It returns false if it has reported that it has none, or both.
func (d *decoder) destination(spec *trigger.Spec, at place, seen map[string]bool, complete bool) bool {
	t := merged{d: d, spec: spec, at: at}
	shares := func(path ...string) bool {
		_, ok := d.positions.at(d.shared, sharedPath(path...))
		return ok
	}
	switch {
	case seen["webhook"] && seen["nats"]:
		t.conflict("is beside webhook, and a trigger has one of the two; remove one of the keys", []string{"nats"})
		return false
	case seen["webhook"]:
		spec.NATS = trigger.NATS{}
	case seen["nats"]:
		spec.Webhook = trigger.Webhook{}
	case !complete:
		return true
	default:
		hook, stream := shares("webhook", "url"), shares("nats", "url") && shares("nats", "subject")
		switch {
		case hook && stream:
			d.reportAt(at.pos, at.path, "has neither webhook nor nats, and defaults have both; write webhook: {...} or nats: {...} here, or take one of the two out of defaults")
			return false
		case stream:
			spec.Webhook = trigger.Webhook{}
		case shares("nats") && !shares("webhook"):
			spec.Webhook = trigger.Webhook{}
			for _, name := range []string{"url", "subject"} {
				if of := at.key("nats", at.pos).key(name, at.pos); !d.inherits(of.path) {
					d.missing(at.pos, of)
				}
			}
		default:
			spec.NATS = trigger.NATS{}
			if hook := at.key("webhook", at.pos); !d.inherits(hook.path) {
				d.missing(at.pos, hook)
			}
		}
	}
	return true
}

// checkNATS reports what does not go with nats, and ways to log in that exclude each other.
func (t merged) checkNATS() {
	n := &t.spec.NATS
	if n.IsZero() || !t.clean("nats") {
		return
	}
	of := func(name ...string) []string { return append([]string{"nats"}, name...) }
	switch {
	case n.Body == trigger.BodyForm:
		t.conflict("a message is no form; write keys, as in body: {order: $new.id}", of("body"))
	case n.Creds != "" && (n.User != "" || n.Password != "" || n.Token != ""):
		t.conflict("creds log in by themselves; remove user, password and token, or creds", of("creds"), of("user"), of("password"), of("token"))
	case n.Token != "" && (n.User != "" || n.Password != ""):
		t.conflict("a server asks for a token, or for user and password; remove one of the two", of("token"), of("user"), of("password"))
	case n.Password != "" && n.User == "":
		t.conflict("has no user; add the user whose password it is", of("password"))
	case n.User != "" && n.Password == "":
		t.conflict("has no password; add password: ${NAME}", of("user"))
	}
	for _, name := range sortedKeys(n.Headers) {
		if strings.HasPrefix(strings.ToLower(name), "nats-") {
			t.conflict(fmt.Sprintf("the header %s is for NATS itself; remove it", name), of("headers", name))
		}
	}
	if !t.spec.Batch.IsZero() && t.clean("batch") {
		t.conflict("with nats each event is a message of its own, so that the stream can tell duplicates, and many are under way at once without a batch; write batch: none",
			[]string{"batch"}, of())
	}
}

// eachReferringNATS is eachReferring for what is not a text for data.
func eachReferringNATS(n *trigger.NATS, visit func(value string, path ...string)) {
	for _, of := range [][2]string{{"url", n.URL}, {"creds", n.Creds}, {"user", n.User}, {"password", n.Password}, {"token", n.Token}, {"secret", n.Secret}} {
		visit(of[1], "nats", of[0])
	}
	visit(n.TLS.CAFile, "nats", "tls", "ca_file")
	visit(n.TLS.CertFile, "nats", "tls", "cert_file")
	visit(n.TLS.KeyFile, "nats", "tls", "key_file")
}

// isNATSSecret reports whether a key of nats is a secret, besides secret.
func isNATSSecret(name string) bool {
	return slices.Contains([]string{"creds", "password", "token"}, name)
}

// checkNATSURL checks URLs as far as that is possible without the environment.
func checkNATSURL(raw string) error {
	if template.HasData(raw) {
		return errors.New("has data of the event, and all events go to one cluster; write data into subject, or ${NAME} for the environment's")
	}
	sample, err := withoutEnvironment(raw)
	if err != nil {
		return err
	}
	if strings.HasPrefix(raw, "${") {
		if sample = "nats://" + sample; strings.Contains(strings.TrimPrefix(sample, "nats://"), "://") {
			return nil // it is known with the environment alone
		}
	}
	return checkExpandedNATS(sample)
}

// checkExpandedNATS checks URLs whose references are expanded. Its errors quote nothing of a URL but its
// scheme and its port, since it may have a password.
func checkExpandedNATS(all string) error {
	const remedy = "write it like nats://nats.example.com:4222"
	for raw := range strings.SplitSeq(all, ",") {
		raw = strings.TrimSpace(raw)
		if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return errors.New("contains white space; remove it, and separate several URLs by commas")
		}
		if m := dollarName.FindStringSubmatch(raw); m != nil {
			return fmt.Errorf("$%s is not read from the environment; write ${%s}", m[1], m[1])
		}
		scheme, _, ok := strings.Cut(raw, "://")
		if !ok {
			return errors.New("has no nats:// before the host; " + remedy)
		}
		if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, strings.ToLower(scheme)) {
			return fmt.Errorf("the scheme %s:// is not supported; use nats://, tls://, ws:// or wss://", strings.Trim(quote(scheme), `"`))
		}
		u, err := url.Parse(raw)
		if err != nil {
			return errors.New("is not a URL; " + remedy)
		}
		port, portErr := strconv.Atoi(u.Port())
		switch {
		case u.Hostname() == "":
			return errors.New("has no host; " + remedy)
		case u.Port() != "" && (portErr != nil || port < 1 || port > 65535):
			return fmt.Errorf("port %s does not exist; use one from 1 to 65535", u.Port())
		case strings.HasPrefix(scheme, "ws"):
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			return errors.New("has something behind the host and the port, which a server of NATS has not; remove it")
		}
	}
	return nil
}

// checkSubject checks a subject that may have data of the event.
func checkSubject(s string) error {
	parts, err := template.Parse(s, template.Always)
	if err != nil {
		return err
	}
	if err := checkParts(parts); err != nil {
		return err
	}
	if parts == nil {
		parts = []template.Part{{Text: s}}
	}
	sample := ""
	for _, part := range parts {
		switch {
		case part.Data != nil:
			if row, column, ok := part.Data.Column(); ok && column != "" && len(part.Data.Path) > 1 && !strings.HasPrefix(part.Data.Source, "${") {
				column := row + "." + column
				return &template.Error{At: part.At, Message: fmt.Sprintf("%s is a member within the column; write ${%s}.%s if the rest are tokens of the subject, or ${%s} if it is the member",
					part.Data.Source, column, strings.TrimPrefix(part.Data.Source, "$"+column+"."), strings.TrimPrefix(part.Data.Source, "$"))}
			}
			sample += "0"
		case part.Reference != "":
			sample += "0"
		default:
			sample += part.Text
		}
	}
	return trigger.CheckSubject(sample)
}

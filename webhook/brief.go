package webhook

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

// quotesNothing are the texts of Result.Err, or their beginnings, in which nothing comes from the
// receiver but a status. What follows them may.
var quotesNothing = []*regexp.Regexp{
	regexp.MustCompile(`^(?:the receiver )?answered \d{3}`),
	regexp.MustCompile(`^status \d{3} arrived, so the event is delivered`),
	regexp.MustCompile(`^no response within [0-9a-z.]+`),
	regexp.MustCompile(`^(?:through the proxy: )?(?:connection refused by|connection reset by|no route to|timed out talking to) [^\s,;]+$`),
	regexp.MustCompile(`^(?:through the proxy: )?connection closed by [^\s,;]+ before the response was complete$`),
	regexp.MustCompile(`^(?:through the proxy: )?no such host: [^\s,;]+$`),
	regexp.MustCompile(`^certificate signed by unknown authority$`),
	regexp.MustCompile(`^the response's headers are over the limit of 64 KiB$`),
	regexp.MustCompile(`^canceled: .*$`),
	regexp.MustCompile(`^(?:\$\{[^}]*\})+ makes a segment of the URL's path empty, .*$`),
	regexp.MustCompile(`^the URL has more than \d+ bytes with the data of this event$`),
	regexp.MustCompile(`^the event's body of \d+ bytes is over the limit of \d+`),
	regexp.MustCompile(`^an earlier event of its key has failed in the same batch$`),
	regexp.MustCompile(`^its attempts were interrupted before they had an outcome`),
	regexp.MustCompile(`^trigger removed$`),
	regexp.MustCompile(`^a dead letter holds the key "<masked>" since [0-9: UTC-]+$`),
	regexp.MustCompile(`^failed by [a-z_]+: why may repeat what is masked$`),
}

// BriefPattern is one regular expression for what Brief returns, with the same meaning in Postgres.
func BriefPattern() string {
	all := make([]string, len(quotesNothing))
	for i, r := range quotesNothing {
		all[i] = r.String()
	}
	return strings.Join(all, "|")
}

// Masked returns r without what may repeat the data that were sent, for a trigger that masks some:
// of Err only what Brief returns. The response itself stays.
func (r Result) Masked() Result {
	if r.Err == "" {
		return r
	}
	if brief := Brief(r.Err); brief != "" {
		r.Err = brief
	} else {
		r.Err = fmt.Sprintf("failed by %s: why may repeat what is masked", cmp.Or(string(r.Kind), "response"))
	}
	return r
}

// Brief returns what of a Result's Err may be shown to those who may not see responses: the part of
// it that is known not to come from the receiver, such as "answered 503". "": nothing is known to be.
func Brief(text string) string {
	for _, r := range quotesNothing {
		if found := r.FindString(text); found != "" {
			return found
		}
	}
	return ""
}

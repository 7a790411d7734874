package webhook

import "regexp"

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

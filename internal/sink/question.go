package sink

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/trigger"
)

// question is what GET /deliveries asks for.
type question struct {
	match Match
	count int           // 0: it lists what there is
	wait  time.Duration // for count
	last  int           // deliveries in the answer
}

// maxCount bounds what a request that waits must remember.
const maxCount = 100_000

// maxConditions bounds how long it takes to judge a delivery.
const maxConditions = 100

func tooManyConditions() error {
	return invalid(fmt.Sprintf("there are more than %d conditions", maxConditions), "leave some out, or ask for an object as a whole, as in where: {\"new.address\": {\"city\": \"Rome\"}}")
}

// readQuestion reads the parameters of a query. Those that the operation does not have were
// rejected before.
func readQuestion(r *http.Request) (question, error) {
	q := question{last: math.MaxInt}
	waits := false
	for name, text := range parameters(r.URL.RawQuery) {
		var err error
		switch name {
		case "count":
			q.count, err = readNumber(name, text, 1, maxCount)
		case "wait":
			q.wait, err = readWait(name, text)
			waits = true
		case "last":
			q.last, err = readNumber(name, text, 0, math.MaxInt)
		default:
			err = q.match.read(name, text)
		}
		if err != nil {
			return question{}, err
		}
	}
	if waits && q.count == 0 {
		q.count = 1
	}
	return q, nil
}

// parameters yields the parameters of a query in their order, which url.Values loses. The query was
// parsed before.
func parameters(query string) func(yield func(name, text string) bool) {
	return func(yield func(name, text string) bool) {
		for part := range strings.SplitSeq(query, "&") {
			if part == "" {
				continue
			}
			name, text, _ := strings.Cut(part, "=")
			name, errName := url.QueryUnescape(name)
			text, errText := url.QueryUnescape(text)
			if errName != nil || errText != nil || !yield(name, text) {
				return
			}
		}
	}
}

// read sets the part of a match that a parameter names.
func (m *Match) read(name, text string) (err error) {
	if text == "" && name != "value" {
		return invalid(name+" is empty", "give it a value, or leave it out")
	}
	switch name {
	case "trigger":
		m.Trigger = text
	case "table":
		m.Table, err = text, CheckTable(text)
	case "op":
		m.Op, err = readOp(text)
	case "id":
		m.ID, err = readID(text)
	case "path":
		if len(m.Where) == maxConditions {
			return tooManyConditions()
		}
		var c Condition
		c, err = Present(text)
		m.Where = append(m.Where, c)
	case "value":
		if len(m.Where) == 0 || m.Where[len(m.Where)-1].value != nil {
			return invalid("a value is without its path", "write path=new.id&value=7, each value behind its path")
		}
		m.Where[len(m.Where)-1], err = loosely(m.Where[len(m.Where)-1].path.text, text)
	case "attempt":
		m.Attempt, err = readNumber(name, text, 1, math.MaxInt32)
	case "attempts":
		m.AllAttempts, err = readAttempts(text)
	case "accepted":
		m.Accepted, err = readYesNo(name, text)
	case "test":
		m.Test, err = readYesNo(name, text)
	case "after":
		m.After, err = strconv.ParseUint(text, 10, 63)
		if err != nil {
			return invalid(fmt.Sprintf("after is %q, and no whole number from 0", text), "use the cursor of an answer, or the sequence of a delivery")
		}
	}
	if err != nil {
		return problem(err)
	}
	return nil
}

func readOp(text string) (string, error) {
	ops := []string{"INSERT", "UPDATE", "DELETE", "TRUNCATE", "MANUAL"}
	op := strings.ToUpper(text)
	for _, known := range ops {
		if op == known {
			return op, nil
		}
	}
	return "", invalid(fmt.Sprintf("op is %q, which is no operation%s", text, suggest.Hint(text, ops)), "the operations are "+strings.Join(ops, ", "))
}

func readID(text string) (string, error) {
	d := Delivery{ID: strings.ToLower(text)}
	if !d.readID() {
		return "", invalid(fmt.Sprintf("id is %q, which is no UUID", text), "use the id of an event; for a column write path=new.id&value=7")
	}
	return d.ID, nil
}

func readAttempts(text string) (bool, error) {
	if text != "all" {
		return false, invalid(fmt.Sprintf("attempts is %q", text), "write attempts=all to count each attempt, attempt=2 for the second one, or leave it out to count events that were accepted")
	}
	return true, nil
}

func readYesNo(name, text string) (*bool, error) {
	switch text {
	case "true":
		return new(true), nil
	case "false":
		return new(false), nil
	}
	return nil, invalid(fmt.Sprintf("%s is %q", name, text), fmt.Sprintf("write %s=true or %s=false", name, name))
}

func readNumber(name, text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && n >= least && n <= most {
		return n, nil
	}
	limits := fmt.Sprintf("from %d to %d", least, most)
	if most >= math.MaxInt32 {
		limits = fmt.Sprintf("of %d or more", least)
	}
	remedy := fmt.Sprintf("write %s=10", name)
	if name == "count" && err == nil && n == 0 {
		remedy = `to make sure that none comes, POST /verify with "never": true`
	}
	return 0, invalid(fmt.Sprintf("%s is %q, and no whole number %s", name, text, limits), remedy)
}

// readWait reads how long to wait.
func readWait(name, text string) (time.Duration, error) {
	d, err := trigger.ParseDuration(text)
	if err != nil {
		return 0, invalid(fmt.Sprintf("%s: %s", name, err), fmt.Sprintf("write %s=5s", name))
	}
	if d.Std() > maxWait {
		return 0, invalid(fmt.Sprintf("%s is %s, which is more than %s", name, d, trigger.Duration(maxWait)), "wait several times")
	}
	return d.Std(), nil
}

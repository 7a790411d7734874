package operate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// What a trigger masks is shown by no function of this package. Each one looks it up in the
// trigger's present spec, or the last one if it was removed, so a mask also holds for events that
// were recorded before it. What can't be masked by its place is not shown at all: the response of a
// receiver, which may repeat the request, and what an error says beyond webhook.Brief.

// readMask reads what the trigger masks. A mask that can't be understood masks everything.
func (t *knownTrigger) readMask() {
	if t.Masked == "" {
		return
	}
	var paths []string
	err := json.Unmarshal([]byte(t.Masked), &paths)
	if err == nil {
		t.mask, err = mask.New(paths)
	}
	if err != nil {
		t.mask = mask.All()
	}
	if t.mask == nil {
		return
	}
	var spec trigger.Spec
	if err := json.Unmarshal([]byte(t.Spec), &spec); err != nil {
		t.keyMasked = true
		return
	}
	key := spec.Order.By
	if spec.Order.ByRow() {
		key = t.RowKey
	}
	t.keyMasked = len(key) == 0 || slices.ContainsFunc(key, t.mask.Reaches)
}

// hush returns what may be shown of a text that may quote a row or a response.
func (t *knownTrigger) hush(text string) string {
	if t.mask == nil || text == "" {
		return text
	}
	return cmp.Or(webhook.Brief(text), mask.Text)
}

// showKey returns a key as it may be shown.
func (t *knownTrigger) showKey(key string) string {
	if key != "" && t.mask != nil && t.keyMasked {
		return mask.JSON
	}
	return key
}

// hushAttempt removes from an attempt what may repeat the data that were sent.
func (t *knownTrigger) hushAttempt(a *Attempt) {
	if t.mask == nil {
		return
	}
	a.Error, a.ResponseHeaders = t.hush(a.Error), nil
	if a.ResponseBody != "" {
		a.ResponseBody = mask.Text
	}
}

// maskPayload masks the data of an event.
func (t *knownTrigger) maskPayload(h *held) {
	h.Old, h.New = t.mask.Apply(h.Old), t.mask.Apply(h.New)
}

// checkMasks finds the triggers of the query that mask something. By whether events are found,
// somebody could guess what is masked: so a payload filter that reaches it is refused.
func (q *query) checkMasks(ts triggers, members []string) error {
	for i := range ts {
		t := &ts[i]
		if t.mask == nil || q.triggers != nil && !slices.Contains(q.triggers, t.ID) {
			continue
		}
		q.masked = append(q.masked, t.ID)
		const others = "the trigger %q masks it, so no events can be chosen by it"
		switch {
		case q.path == "":
		case len(members) == 0:
			return problem(ErrRefused, "write KEY=VALUE with a key that is not masked, or choose other triggers",
				"the trigger %q masks a part of its data, which a JSON path could reach", t.Name)
		case (members[0] == "old" || members[0] == "new") && t.mask.Overlaps(members[1:]):
			return problem(ErrRefused, "choose them by something else, or choose other triggers", strings.Join(members, ".")+": "+others, t.Name)
		}
	}
	return nil
}

// hushed returns SQL for what may be shown of the text of an event e, see knownTrigger.hush.
func (q *query) hushed(text string) string {
	if len(q.masked) == 0 {
		return text
	}
	return fmt.Sprintf("case when e.trigger_id in (%s) and %s <> '' then %s else %[2]s end", numbers(q.masked), text, brief(text))
}

// brief is SQL for what may be shown of a text if its trigger masks something.
func brief(text string) string {
	return "coalesce(substring(" + text + " from " + pg.StringLiteral(webhook.BriefPattern()) + "), " + pg.StringLiteral(mask.Text) + ")"
}

func numbers(ids []int32) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = fmt.Sprint(id)
	}
	return strings.Join(all, ", ")
}

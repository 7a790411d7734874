package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
)

// EndpointHealth says that the endpoint of a trigger fails, so that its events wait.
type EndpointHealth struct {
	State string `json:"state"` // failing: only probes are sent; probing: a probe has succeeded, and work grows back
	// Endpoint is the trigger's URL, or the host as scheme://host:port if that can't be reached.
	Endpoint string    `json:"endpoint"`
	Host     bool      `json:"host"`      // it concerns every trigger that goes to this host
	Since    time.Time `json:"since"`     // the first failure of the row, before the breaker opened
	Reason   string    `json:"reason"`    // the last failure
	ProbeAt  time.Time `json:"probe_at"`  // failing: when the next probe is made, or is over
	ProberID *int32    `json:"prober_id"` // failing: the dispatcher that makes a probe now; null: none does
	Probes   int       `json:"probes"`    // made so far
}

// Hangs says that attempts of a trigger have been in flight for more than a second.
type Hangs struct {
	Attempts   int       `json:"attempts"`
	Since      time.Time `json:"since"` // when the oldest was begun
	Endpoint   string    `json:"endpoint,omitempty"`
	InstanceID int32     `json:"instance_id"`
	// Unclaimed is how many events of an ordered trigger are in them: no claim says so.
	Unclaimed int `json:"unclaimed,omitempty"`

	retried int      // of those that are unclaimed, have failed before
	events  []string // ids of unclaimed ones, not all if there are many
}

// readHealth returns the health of the endpoints that are not ok, by trigger.
func readHealth(ctx context.Context, tx pgx.Tx, ts triggers) (map[int32]*EndpointHealth, error) {
	out := map[int32]*EndpointHealth{}
	type row struct {
		EndpointHealth
		Triggers []int32
	}
	// The host decides if both fail: while it does, the endpoint is not probed by itself.
	err := escaping(ctx, tx, func(write func(string) string) error {
		rows, err := pg.Collect[row](ctx, tx, `
select h.state, `+write("h.endpoint")+` as endpoint, h.trigger_id is null as host, h.since, `+write("h.reason")+` as reason, h.probe_at, h.probes, h.triggers,
       (select i.id from rowhook.instance i where i.id = h.prober and h.state = 'failing' and h.probe_at > statement_timestamp()) as prober_id
  from rowhook.health h where not (`+queue.VoidHealth()+`) order by h.state = 'failing', h.trigger_id is null`)
		for i := range rows {
			for _, id := range rows[i].Triggers {
				own := rows[i].EndpointHealth
				own.Reason = ts.byID(id).hush(own.Reason)
				out[id] = &own
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the health of endpoints: %w", err)
	}
	return out, nil
}

// readHanging returns the attempts that hang, by name of a trigger, those first that hang longest.
func readHanging(ctx context.Context, tx pgx.Tx) (map[string][]Hangs, error) {
	found, err := pg.Collect[troubled](ctx, tx, "select id, name, trouble::text as trouble from rowhook.instance where trouble->'hanging' is not null order by id")
	if err != nil {
		return nil, fmt.Errorf("read which attempts hang: %w", err)
	}
	out := map[string][]Hangs{}
	for _, in := range found {
		var t queue.Trouble
		if err := json.Unmarshal([]byte(in.Trouble), &t); err != nil {
			return nil, fmt.Errorf("read the trouble of dispatcher %d: %w", in.ID, err)
		}
		for trigger, h := range t.Hanging {
			out[trigger] = append(out[trigger], Hangs{Attempts: h.Attempts, Since: h.Since, Endpoint: h.Endpoint, InstanceID: in.ID, Unclaimed: h.Unclaimed, retried: h.Retried, events: h.Events})
		}
	}
	for _, all := range out {
		sorting.By(all, func(a, b Hangs) int { return a.Since.Compare(b.Since) })
	}
	return out, nil
}

// readPaced returns the claimed events that wait for their rate, by name of a trigger. Dispatchers
// have recorded them.
func readPaced(ctx context.Context, tx pgx.Tx) (map[string]queue.Paced, error) {
	found, err := pg.Collect[troubled](ctx, tx, "select id, name, trouble::text as trouble from rowhook.instance where trouble->'paced' is not null order by id")
	if err != nil {
		return nil, fmt.Errorf("read which events wait for their rate: %w", err)
	}
	out := map[string]queue.Paced{}
	for _, in := range found {
		var t queue.Trouble
		if err := json.Unmarshal([]byte(in.Trouble), &t); err != nil {
			return nil, fmt.Errorf("read the trouble of dispatcher %d: %w", in.ID, err)
		}
		for trigger, p := range t.Paced {
			sum := out[trigger]
			out[trigger] = queue.Paced{Events: sum.Events + p.Events, Retried: sum.Retried + p.Retried}
		}
	}
	return out, nil
}

// Explain says for people what the health means, and when the next probe is.
func (h *EndpointHealth) Explain(now time.Time) string {
	what := "its endpoint"
	if h.Host {
		what = "its host " + h.Endpoint
	}
	since := fmt.Sprintf("%s has been failing since %s (%s)", what, h.Since.UTC().Format("2006-01-02 15:04:05 MST"), h.Reason)
	if h.State != "failing" {
		return since + " and answers again: work grows back"
	}
	next := "next probe now"
	if in := h.ProbeAt.Sub(now).Round(time.Second); in > 0 {
		next = "next probe in " + in.String()
	}
	if h.ProberID != nil {
		next = "a probe is running"
	}
	return since + ": its events wait, " + next
}

package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
)

// A replay of an ordered trigger puts events back without their places, since their keys have gone
// on. It keeps their order itself: an event goes into the queue only when none of its key is there
// that has no place. The archive does not hold the key, so the values of its columns in the payload
// are compared. Events whose payload lacks them are taken for those of one key.
//
// Ids of the same millisecond are in no order. So the archive is read in parts that end with a
// millisecond, and each part is put back in the order of the sequence.

// keyColumns are the columns of the keys of an ordered trigger.
type keyColumns struct {
	// With order: row each table has its own. relations are rowhook.relation.id; 0: any.
	relations []int32
	names     []string
	apart     bool // keys of different tables are different ones
}

// readKey reads the columns of the key by the trigger's spec.
func (r *replay) readKey(ctx context.Context, tx pgx.Tx) error {
	spec := trigger.DefaultSpec()
	if err := json.Unmarshal([]byte(r.trigger.Spec), &spec); err != nil {
		return fmt.Errorf("read the spec of %s: %w", r.trigger.Name, err)
	}
	r.ordered = !spec.Order.IsZero()
	r.key = keyColumns{relations: []int32{}, names: []string{}, apart: spec.Order.ByRow() || spec.Order.Latest}
	if !r.ordered || !spec.Order.ByRow() {
		for _, name := range spec.Order.By {
			r.key.relations, r.key.names = append(r.key.relations, 0), append(r.key.names, name)
		}
		return nil
	}
	rows, err := tx.Query(ctx, `
select r.id, a.attname::text
  from rowhook.relation r
  join pg_catalog.pg_index x on x.indrelid = r.oid and x.indisprimary
  join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = any (x.indkey)
 order by r.id, a.attnum`)
	if err != nil {
		return fmt.Errorf("read the primary keys: %w", err)
	}
	var relation int32
	var name string
	_, err = pgx.ForEachRow(rows, []any{&relation, &name}, func() error {
		r.key.relations, r.key.names = append(r.key.relations, relation), append(r.key.names, name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the primary keys: %w", err)
	}
	return nil
}

// placeless is an event with a sequence, and the keys that it belongs to.
type placeless struct {
	ID   string
	Seq  int64    // 0: it has no order
	Keys []string // one or two
}

// keysSQL is the keys of an event e: of its new row, and of its old one. k.names are the columns.
var keysSQL = "array_remove(array[" + keySQL("e.new") + ", " + keySQL("e.old") + "], null)"

func keySQL(row string) string {
	return `case when ` + row + ` is not null then concat(case when $3 then k.relation end, ' ', (
    select string_agg(coalesce((` + row + `->c.name)::text, 'null'), ',' order by c.n) from unnest(k.names) with ordinality as c(name, n))) end`
}

// unknownKeys are those of events whose payload can't be read: of each key, for safety.
const unknownKeys = `'{*}'::text[]`

// readPlaceless reads the keys of the events that a statement returns. Its first argument is $5.
func (r *replay) readPlaceless(ctx context.Context, tx pgx.Tx, events string, args ...any) ([]placeless, error) {
	var out []placeless
	var err error
	for _, keys := range []string{keysSQL, unknownKeys} {
		err = apart(ctx, tx, func() (err error) {
			out, err = pg.Collect[placeless](ctx, tx, `
with e as materialized (`+events+`),
columns as materialized (
  select c.relation, array_agg(c.name order by c.n) as names from unnest($1::integer[], $2::text[]) with ordinality as c(relation, name, n) group by c.relation)
select e.id::text as id, coalesce(e.seq, 0) as seq, `+keys+` as keys
  from e cross join (select $3::boolean, $4::integer) as given (apart, origin)
 cross join lateral (
   select coalesce(e.relation_id, origin) as relation, (select c.names from columns c where c.relation in (0, coalesce(e.relation_id, origin))) as names) as k`,
				append([]any{r.key.relations, r.key.names, r.key.apart, r.trigger.OriginID}, args...)...)
			return err
		})
		if !pg.IsData(err) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of events: %w", err)
	}
	return out, nil
}

// stepInOrder puts the next events of an ordered trigger back.
func (r *replay) stepInOrder(ctx context.Context, tx pgx.Tx, at *replayPosition, size int) (ids []string, waits, end bool, err error) {
	part, end, err := r.part(ctx, tx, at)
	if err != nil || len(part) == 0 {
		return nil, false, end, err
	}
	wave, waits, err := r.wave(ctx, tx, part, r.bound(size))
	if err != nil {
		return nil, false, false, err
	}
	chosen := make([]string, len(wave))
	for i := range wave {
		chosen[i] = wave[i].ID
	}
	done, ids, err := r.putAll(ctx, tx, chosen)
	if err != nil {
		return nil, false, false, err
	}
	if done > 0 {
		at.seq, at.id = wave[done-1].Seq, wave[done-1].ID
	}
	r.there += len(ids)
	if done == len(part) {
		*at = replayPosition{position: at.partEnd}
	}
	return ids, waits && done == len(wave), false, nil
}

// part returns what is left of the part of the archive that is put back, in order. If there is none
// it begins the next one. Its events have no Keys yet, since those are in the payload. end says that no event follows. If it has looked for one for a while, the
// part is empty.
func (r *replay) part(ctx context.Context, tx pgx.Tx, at *replayPosition) (part []placeless, end bool, err error) {
	for {
		if at.partEnd == "" {
			w := r.walk()
			w.after, w.deadline = at.position, time.Now().Add(searching)
			events, reached, err := w.next(ctx, tx, bulkBatch)
			switch {
			case err != nil, len(events) == 0 && reached == "":
				return nil, true, err
			case len(events) == 0:
				at.position = reached
				return nil, false, nil
			}
			at.partEnd, at.seq, at.id = lastID(idTime(events[len(events)-1].ID)), 0, lowest
		}
		w, q := r.walk(), *r.query
		q.high = min(q.high, firstID(idTime(at.partEnd).Add(time.Millisecond)))
		w.query, w.after = &q, at.position
		part = nil
		for {
			events, reached, err := w.next(ctx, tx, lastStep)
			if err != nil {
				return nil, false, err
			}
			for i := range events {
				part = append(part, placeless{ID: events[i].ID, Seq: events[i].Seq})
			}
			if reached == "" {
				break
			}
			w.after = reached
		}
		sorting.By(part, func(a, b placeless) int { return cmp.Or(cmp.Compare(a.Seq, b.Seq), strings.Compare(a.ID, b.ID)) })
		part = slices.CompactFunc(part, func(a, b placeless) bool { return a.ID == b.ID })
		if part = slices.DeleteFunc(part, func(p placeless) bool {
			return cmp.Or(cmp.Compare(p.Seq, at.seq), strings.Compare(p.ID, at.id)) <= 0
		}); len(part) > 0 {
			return part, false, nil
		}
		*at = replayPosition{position: at.partEnd}
	}
}

// lastID returns the highest id of t's millisecond.
func lastID(t time.Time) string {
	u := uuid.MustParse(firstID(t))
	for i := 6; i < len(u); i++ {
		u[i] = 0xff
	}
	return u.String()
}

// addKeys sets the keys of events in the archive.
func (r *replay) addKeys(ctx context.Context, tx pgx.Tx, events []placeless) error {
	ids := make([]string, len(events))
	for i := range events {
		ids[i] = events[i].ID
	}
	found, err := r.readPlaceless(ctx, tx, "select * from rowhook.event_archive e where e.id = any($5::text[]::uuid[])", ids)
	if err != nil {
		return err
	}
	keys := map[string][]string{}
	for i := range found {
		keys[found[i].ID] = found[i].Keys
	}
	for i := range events {
		events[i].Keys = keys[events[i].ID]
	}
	return nil
}

// mostPlaceless bounds how many events without a place may be in the queue of an ordered trigger.
const mostPlaceless = 1000

// wave returns the first events of a part that may go into the queue together: no two of them, and
// none in the queue, are of the same key. waits says that the next one may not.
func (r *replay) wave(ctx context.Context, tx pgx.Tx, part []placeless, size int) (wave []placeless, waits bool, err error) {
	there, err := r.readPlaceless(ctx, tx, `
select * from rowhook.event_log q where q.trigger_id = $5 and q.due_at < `+queue.ParkedFrom+` and q.seq is not null and q.key is null limit $6`, r.trigger.ID, mostPlaceless+1)
	if err != nil {
		return nil, false, err
	}
	r.there = len(there)
	if len(there) >= mostPlaceless {
		return nil, true, nil
	}
	taken, every := map[string]bool{}, false
	take := func(p *placeless) {
		for _, k := range p.Keys {
			taken[k] = true
			every = every || k == "*"
		}
	}
	for i := range there {
		take(&there[i])
	}
	head := part[:min(size, len(part))]
	if err := r.addKeys(ctx, tx, head); err != nil {
		return nil, false, err
	}
	for i := range head {
		p := &head[i]
		inOrder := r.ordered && p.Seq > 0
		if inOrder && (every || len(taken) > 0 && slices.Contains(p.Keys, "*") || slices.ContainsFunc(p.Keys, func(k string) bool { return taken[k] })) {
			return wave, true, nil
		}
		if inOrder {
			take(p)
		}
		wave = append(wave, *p)
	}
	return wave, false, nil
}

// awaitSettled returns when an event without a place has left the queue, so that the next one of its
// key may go, or after throttleMost, so that the replay shows that it is alive. It bounds the next
// step as the throttle does: those in flight occupy half of the trigger's slots.
func (r *replay) awaitSettled(ctx context.Context, size *int) error {
	since := time.Now()
	for pause := throttlePause; ; pause = min(2*pause, throttleCap) {
		if err := Rest(ctx, pause); err != nil {
			return err
		}
		var n int
		query, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
		err := r.db.QueryRow(query, `
select count(*) from (select from rowhook.event_log q where q.trigger_id = $1 and q.due_at < `+queue.ParkedFrom+` and q.seq is not null and q.key is null limit $2) as e`, r.trigger.ID, mostPlaceless+1).Scan(&n)
		cancel()
		if err != nil {
			return fmt.Errorf("count events without a place: %w", err)
		}
		if n < r.there || time.Since(since) > throttleMost {
			if room := r.feed.slots[r.trigger.ID] - n; !r.opt.Unthrottled {
				*size = min(throttleSize, max(room, 1))
			}
			return nil
		}
	}
}

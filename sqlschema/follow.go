package sqlschema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// Joined is a table that a trigger has begun to watch.
type Joined struct {
	Trigger string // name of the trigger
	Table   string // schema.table
}

// Follow has the triggers with follow watch the tables that have come to match them since the last
// apply. It changes nothing else: neither their other tables nor other triggers. may is false if
// the role lacks the rights for that. A table that is busy, or on which the role may not create
// triggers, is left to a later call. log may be nil.
func (a Applier) Follow(ctx context.Context, conn *pgx.Conn, log *slog.Logger) (joined []Joined, may bool, err error) {
	if may, err = mayFollow(ctx, conn); err != nil || !may {
		return nil, may, err
	}
	log = orSilent(log)
	err = pinnedAndLocked(ctx, conn, func() (err error) {
		joined, err = a.follow(ctx, conn, log)
		return err
	})
	return joined, true, err
}

// mayFollow reports whether the role may record that a trigger watches another table.
func mayFollow(ctx context.Context, conn *pgx.Conn) (may bool, err error) {
	err = conn.QueryRow(ctx, `
select coalesce((select pg_catalog.bool_and(case when c.relname in ('trigger_table', 'relation') then pg_catalog.has_table_privilege(c.oid, 'INSERT') else true end
                                            and pg_catalog.has_table_privilege(c.oid, 'UPDATE'))
                   from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relname in ('trigger_table', 'relation', 'trigger', 'setting')), false)
       and coalesce((select pg_catalog.bool_and(pg_catalog.has_function_privilege(f.oid, 'EXECUTE'))
                       from pg_catalog.pg_proc f where f.pronamespace = n.oid and f.proname in ('watch_table', 'capture')), false)
  from (select) as one left join pg_catalog.pg_namespace n on n.nspname = 'rowhook'`).Scan(&may)
	if err != nil {
		return false, fmt.Errorf("read whether this role may watch further tables: %w", err)
	}
	return may, nil
}

func (a Applier) follow(ctx context.Context, conn *pgx.Conn, log *slog.Logger) ([]Joined, error) {
	in, err := readInstalled(ctx, conn)
	if err != nil || in.database != in.program || in.lack != nil {
		return nil, err // an apply or a migration comes first
	}
	p := &planner{conn: conn, in: in, plan: &Plan{}}
	var user string
	if err := conn.QueryRow(ctx, "select current_user").Scan(&user); err != nil {
		return nil, fmt.Errorf("read the current role: %w", err)
	}
	var joined []Joined
	for _, row := range in.triggers {
		spec := trigger.DefaultSpec()
		if err := json.Unmarshal(row.Spec, &spec); err != nil {
			return nil, fmt.Errorf("read the spec of %s: %w", row.Name, err)
		}
		if row.Removed || !spec.Many() || !spec.Follow {
			continue
		}
		rels, err := p.newTables(ctx, &spec, row, user, log)
		if err != nil {
			return nil, err
		}
		head := &installation{spec: &spec, rel: &relation{}, id: row.ID, definition: in.definition, owner: in.owner}
		if len(in.members[row.ID]) == 0 && len(rels) > 0 {
			// Its first table. rowhook.trigger names it, too.
			head.rel = rels[0]
			first := len(p.plan.steps)
			p.do(step{phase: writeRow, run: head.writeRow})
			p.own(head, first)
		}
		if err := p.tables(head, row, rels, captured{}); err != nil {
			return nil, err
		}
		for _, rel := range rels {
			joined = append(joined, Joined{Trigger: spec.Name, Table: rel.String()})
		}
	}
	if len(joined) == 0 {
		return nil, nil
	}
	if err := p.mayApply(ctx); err != nil {
		return nil, err
	}
	failed := a.runAll(ctx, conn, p.plan.units(), log)
	if failed != nil {
		// Of those that failed, nothing is recorded.
		now, err := readMembers(ctx, conn)
		if err != nil {
			return nil, errors.Join(failed, err)
		}
		joined = slices.DeleteFunc(joined, func(j Joined) bool {
			id := in.triggers[j.Trigger].ID
			return !slices.ContainsFunc(now[id], func(m member) bool { return m.name() == j.Table })
		})
	}
	recordFollow(ctx, conn, joined, log)
	return joined, failed
}

// newTables returns the tables that a trigger does not watch yet and that have no fault.
func (p *planner) newTables(ctx context.Context, spec *trigger.Spec, row *triggerRow, user string, log *slog.Logger) ([]*relation, error) {
	// What exact names have for faults is the apply's to say.
	rels, err := p.findTables(ctx, spec, user, &faults{spec: spec})
	if err != nil {
		return nil, err
	}
	var fresh []*relation
	for _, rel := range rels {
		if p.in.member(row.ID, rel.OID) != nil {
			continue
		}
		f := &faults{spec: spec}
		if err := p.checkTables(ctx, spec, []*relation{rel}, f); err != nil {
			return nil, err
		}
		if found := f.errors(); len(found) > 0 {
			log.Warn("a new table can't be watched", "trigger", spec.Name, "table", rel.String(), "problem", found[0].Message)
			continue
		}
		fresh = append(fresh, rel)
	}
	return fresh, nil
}

// recordFollow records in rowhook.audit which tables are watched now.
func recordFollow(ctx context.Context, conn *pgx.Conn, joined []Joined, log *slog.Logger) {
	byTrigger := map[string][]string{}
	for _, j := range joined {
		byTrigger[j.Trigger] = append(byTrigger[j.Trigger], "+ table "+j.Table+" of "+j.Trigger+": it matches tables, and follow is set")
	}
	for name, changes := range byTrigger {
		entry := queue.AuditEntry{Action: "apply", Targets: []string{name}, Detail: map[string]any{"changes": changes}}
		if _, err := queue.RecordAudit(ctx, conn, entry); err != nil {
			log.Warn("could not record in rowhook.audit which tables are watched now", "error", err)
		}
	}
}

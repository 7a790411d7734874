package sqlschema

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
)

// CheckApply returns an error if the role of the session may neither install the schema rowhook nor
// make triggers known to it. The rights on tables are checked by [MakePlan].
func CheckApply(ctx context.Context, db pg.Queryer) error {
	s, err := readStanding(ctx, db)
	if err != nil {
		return err
	}
	if err := s.refusal(false); err != nil {
		return err
	}
	if user := pg.PlainName(s.User); len(s.Languages) > 0 {
		return fmt.Errorf("the role %s may not create functions in the language %s: grant usage on language %[2]s to %[1]s", user, strings.Join(s.Languages, ", "))
	}
	return nil
}

// Publications returns the names of the publications that publish the schema rowhook, or would
// after an installation: those of all tables, and those of all tables in that schema.
func Publications(ctx context.Context, db pg.Queryer) ([]string, error) {
	return findPublications(ctx, db)
}

// WatchedTables returns the oids of the tables that the applied triggers watch.
func WatchedTables(ctx context.Context, db pg.Queryer) ([]uint32, error) {
	all, err := readWatched(ctx, db)
	if err != nil {
		return nil, err
	}
	var oids []uint32
	for i := range all.triggers {
		for _, t := range all.triggers[i].tables {
			if t.CalledNow != nil {
				oids = append(oids, t.Relation)
			}
		}
	}
	sorting.By(oids, cmp.Compare[uint32])
	return slices.Compact(oids), nil
}

// TablesOf returns the oids of the tables that specs would watch. It leaves out tables that do not
// exist, and those that can't be watched: [MakePlan] says so.
func TablesOf(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec) (oids []uint32, err error) {
	err = pg.Pinned(ctx, conn, func() error {
		p := &planner{conn: conn, in: &installed{}, plan: &Plan{}}
		var user string
		if err := conn.QueryRow(ctx, "select current_user").Scan(&user); err != nil {
			return fmt.Errorf("read the current role: %w", err)
		}
		for i := range specs {
			find := p.findTable
			if specs[i].Many() {
				find = p.findTables
			}
			rels, err := find(ctx, &specs[i], user, &faults{spec: &specs[i], index: i})
			if err != nil {
				return err
			}
			for _, rel := range rels {
				oids = append(oids, rel.OID)
			}
		}
		return nil
	})
	sorting.By(oids, cmp.Compare[uint32])
	return slices.Compact(oids), err
}

// BeginAsReplicas reports whether sessions of this database begin as replicas, so that capture
// triggers do not fire in them.
func BeginAsReplicas(ctx context.Context, db pg.Queryer) (bool, error) {
	return beginAsReplicas(ctx, db)
}

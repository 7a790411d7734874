package fleet_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/fleet"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// spread returns members of databases that several fleets share.
func spread(dbs []*pgtest.DB) (members []fleet.Member) {
	for i, db := range dbs {
		members = append(members, fleet.Member{
			Name: fmt.Sprintf("db%d", i), New: on(db.URL()),
			Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, db.URL()) },
		})
	}
	return members
}

// awaitEach waits until each member is served by one of the fleets, and the others stand by and know it.
// It returns how many each serves.
func awaitEach(t *testing.T, members []fleet.Member, fleets ...*fleet.Fleet) (served []int) {
	t.Helper()
	require.Eventually(t, func() bool {
		served = make([]int, len(fleets))
		for _, m := range members {
			n := 0
			for i, f := range fleets {
				s, ok := f.State(m.Name)
				if !ok || s.Problem != nil || !s.Tried || s.Stats.Processes != len(fleets) || s.Stats.Serving != 1 || s.Stats.Standby == s.Stats.Started {
					return false
				}
				if s.Stats.Started {
					n++
					served[i]++
				}
			}
			if n != 1 {
				return false
			}
		}
		return true
	}, 2*patience, tick) // who serves alone looks for others every half minute
	return served
}

func TestProcessesShareTheirDatabases(t *testing.T) {
	t.Parallel()
	dbs := make([]*pgtest.DB, 5)
	for i := range dbs {
		dbs[i] = pgtest.New(t)
	}
	members := spread(dbs)
	one, two := fleet.New(), fleet.New()
	one.Set(members)
	require.Equal(t, []int{5}, awaitEach(t, members, one))
	two.Set(members)
	served := awaitEach(t, members, one, two)
	require.Equal(t, 5, served[0]+served[1])
	for _, db := range dbs {
		require.Eventually(t, func() bool { return instances(t, db) == 1 }, patience, tick, "who does not serve any more has ended")
	}
	require.NoError(t, one.Stop())
	require.Equal(t, []int{5}, awaitEach(t, members, two), "the other one has them all")
	three := fleet.New()
	three.Set(members)
	awaitEach(t, members, two, three)
	require.NoError(t, two.Stop())
	require.NoError(t, three.Stop())
}

func TestWhoCannotServeLeavesADatabaseToOthers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	members := spread([]*pgtest.DB{db})
	blocked := spread([]*pgtest.DB{db})
	blocked[0].New = on(db.URL() + "&default_transaction_read_only=on")
	// Whichever of the two is the first, the one that can serve does.
	for range 3 {
		able, unable := fleet.New(), fleet.New()
		unable.Set(blocked)
		able.Set(members)
		started(t, able, "db0")
		require.NoError(t, able.Stop())
		require.NoError(t, unable.Stop())
	}
}

package sqlschema_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
)

// In a copy the owners of lanes are dispatchers of the database that was dumped.
func TestACopyOfAnOrderedTriggerHasLanesThatAreFree(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	spec := all("w", "t", orderBy())
	w := newWatched(t, "create table t (id int primary key, a int)", spec)
	w.do(t, "insert into rowhook.instance (id, name, version, listens, serves) values (5, 'a', 'b', true, '{1}')", "update rowhook.lane set owner = 5, epoch = 3", "insert into t values (1, 1)")
	for name, arguments := range map[string][]string{"all": nil, "the structure": {"--schema-only"}} {
		t.Run(name, func(t *testing.T) {
			dup := w.copied(t, arguments...)
			dup.apply(t, spec)
			require.Equal(t, "64", dup.scalar(t, "select count(*) from rowhook.lane"))
			me, err := queue.NewInstance(t.Context(), dup.conn)
			require.NoError(t, err)
			require.NotEqual(t, int32(5), me, "the number of an owner is not given out again")
			require.NoError(t, queue.Register(t.Context(), dup.conn, me, "n", "v", false))
			watch, err := queue.ReadWatch(t.Context(), dup.conn)
			require.NoError(t, err)
			if len(arguments) == 0 {
				require.Equal(t, []int32{5}, watch.Dead)
			}
			_, err = queue.Reclaim(t.Context(), dup.conn, watch.Dead)
			require.NoError(t, err)
			lanes, err := queue.ClaimLanes(t.Context(), dup.conn, me, []queue.LaneWant{{Trigger: 1, Most: 64}})
			require.NoError(t, err)
			require.Len(t, lanes, 64)
			dup.do(t, "insert into t values (2, 2)", "update t set id = 3 where id = 2")
			require.Contains(t, dup.places(t), "I [2], U [2] -> [3]")
		})
	}
}

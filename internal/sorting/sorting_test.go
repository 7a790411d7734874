package sorting_test

import (
	"cmp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/sorting"
)

func TestByGivesWhatSortStableFuncOfTheStandardLibraryDoes(t *testing.T) {
	t.Parallel()
	type element struct{ key, place int }
	compare := func(a, b element) int { return cmp.Compare(a.key, b.key) }
	rapid.Check(t, func(t *rapid.T) {
		var s []element
		for i, key := range rapid.SliceOfN(rapid.IntRange(0, 20), 0, 200).Draw(t, "keys") {
			s = append(s, element{key, i})
		}
		want := slices.Clone(s)
		slices.SortStableFunc(want, compare)
		require.Equal(t, want, sorting.By(s, compare))
		require.Equal(t, want, s)
	})
}

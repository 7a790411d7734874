package suggest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEditsAreCounted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "ac", 1}, {"ac", "abc", 1}, {"kitten", "sitting", 3},
		{"tabel", "table", 1}, {"größe", "grösse", 2},
	} {
		require.Equal(t, c.want, Distance(c.a, c.b), "%s %s", c.a, c.b)
		require.Equal(t, c.want, Distance(c.b, c.a), "%s %s", c.b, c.a)
	}
}

func TestWhatIsNearIsSuggestedNearestFirst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		candidates []string
		want       []string
	}{
		"max-interval":     {[]string{"interval", "max_interval"}, []string{"max_interval"}},
		"Tabel":            {[]string{"name", "table"}, []string{"table"}},
		"odrer":            {[]string{"border", "order", "status"}, []string{"order", "border"}},
		`public."Orders"`:  {[]string{"public.orders"}, []string{"public.orders"}},
		"id":               {[]string{"on", "i"}, []string{"i"}},
		"xyz":              {[]string{"table", "name"}, nil},
		"a_very_long_name": {[]string{"a_very_lane_name"}, []string{"a_very_lane_name"}},
		"a_very_long_word": {[]string{"a_very_lane_name"}, nil},
	} {
		require.Equal(t, c.want, Near(name, c.candidates, 3), name)
	}
	require.Equal(t, []string{"aa", "ab"}, Near("a", []string{"aa", "ab", "ac"}, 2), "no more than asked for")
	require.Equal(t, "; did you mean order or orders?", Hint("ordre", []string{"order", "orders"}))
	require.Empty(t, Hint("ordre", nil))
}

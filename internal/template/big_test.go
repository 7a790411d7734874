package template_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/template"
)

// TestLargeRowsCostTheirLength would take minutes if a text were read once for each of its escapes.
func TestLargeRowsCostTheirLength(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for name, value := range map[string]string{
		"backslashes": `"` + strings.Repeat(`\\`, size/2) + `"`, "quotes": `"` + strings.Repeat(`\"`, size/2) + `"`, "escapes": `"` + strings.Repeat(`\u0000`, size/6) + `"`,
		"digits": strings.Repeat("9", size), "depth": strings.Repeat("[", size/2) + strings.Repeat("]", size/2), "members": `{` + strings.Repeat(`"a":1,`, size/6) + `"a":2}`,
	} {
		out := render(t, `{"v":"$new.v","t":"<${new.v}>","a":"$new.v.a"}`, event{new: `{"v":` + value + `}`})
		require.True(t, strings.HasPrefix(out, `{"v":`+value+`,"t":"<`), name)
		if name != "depth" { // the decoder of encoding/json has a limit
			require.True(t, json.Valid([]byte(out)), name)
		}
		require.NotEmpty(t, template.AppendForm(nil, []byte(`{"v":`+value+`}`)))
	}
}

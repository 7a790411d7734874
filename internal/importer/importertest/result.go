// Package importertest is what the tests of imports share.
package importertest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/importer"
)

// Finish finishes an import that was begun without err. It requires that no secret is in its file or
// its report.
func Finish(t *testing.T, imp *importer.Import, err error, secrets ...string) *importer.Result {
	t.Helper()
	require.NoError(t, err)
	result, err := imp.Finish()
	require.NoError(t, err)
	report, err := json.Marshal(result.Report)
	require.NoError(t, err)
	for _, s := range secrets {
		require.NotContains(t, string(result.File), s)
		require.NotContains(t, string(report), s)
	}
	return result
}

// Told requires a finding of this kind with these words.
func Told(t *testing.T, r *importer.Result, kind importer.Kind, words ...string) {
	t.Helper()
	for _, f := range r.Report.Findings {
		all := f.Kind == kind
		for _, w := range words {
			all = all && strings.Contains(f.String(), w)
		}
		if all {
			return
		}
	}
	require.Fail(t, "nothing says so", "%s %q\n%+v", kind, words, r.Report.Findings)
}

package cli

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

func TestUsageIsWhatTheTemplateOfCobraPrints(t *testing.T) {
	t.Parallel()
	for _, width := range []int{leastHelp, 77, mostHelp} {
		a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, environ: []string{fmt.Sprint("COLUMNS=", width)}}
		root := a.root()
		template := strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", fmt.Sprintf("Flags.FlagUsagesWrapped %d ", width))
		var each func(cmd *cobra.Command)
		each = func(cmd *cobra.Command) {
			for _, sub := range cmd.Commands() {
				each(sub) // before it inherits what is set here
			}
			own := cmd.UsageString()
			cmd.SetUsageFunc((&cobra.Command{}).UsageFunc()) // Cobra's
			cmd.SetUsageTemplate(template)
			require.Equal(t, cmd.UsageString(), own, "%s at %d columns", cmd.CommandPath(), width)
		}
		each(root)
	}
}

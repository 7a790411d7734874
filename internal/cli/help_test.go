package cli_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHelpOfACommandThatDoesNotExistIsAMistake(t *testing.T) {
	t.Parallel()
	for command, says := range map[string]string{
		"nosuch --help":        `unknown command "rowhook nosuch"`,
		"--help nosuch":        `unknown command "rowhook nosuch"`,
		"statu -h":             `did you mean "rowhook status"?`,
		"events nosuch --help": `unknown command "rowhook events nosuch"`,
		"events lst --help":    `did you mean "rowhook events list"?`,
		"help nosuch":          `unknown command "rowhook nosuch"`,
		"help events lst":      `did you mean "rowhook events list"?`,
		"nosuch":               `unknown command "rowhook nosuch"`,
	} {
		code, stdout, stderr := rowhook(t, nil, strings.Fields(command)...)
		require.Equal(t, 2, code, command)
		require.Empty(t, stdout, command)
		require.Contains(t, stderr, says, command)
	}
	for command, says := range map[string]string{
		"--help": "Available Commands", "help": "Commands:", "run --help": "Deliver events", "help run": "Deliver events", "help events list": "--state", "events --help": "list",
	} {
		code, stdout, stderr := rowhook(t, nil, strings.Fields(command)...)
		require.Zero(t, code, command)
		require.Empty(t, stderr, command)
		if command != "--help" {
			require.Contains(t, stdout, says, command)
		}
	}
}

func TestTheVersionIsAFlagAsWell(t *testing.T) {
	t.Parallel()
	code, flag, _ := rowhook(t, nil, "--version")
	require.Zero(t, code)
	_, command, _ := rowhook(t, nil, "version")
	require.Equal(t, command, flag)
	require.True(t, strings.HasPrefix(flag, "rowhook "), flag)
}

func TestHealthcheckIsInTheHelp(t *testing.T) {
	t.Parallel()
	_, help, _ := rowhook(t, nil, "--help")
	require.Regexp(t, `(?m)^ +healthcheck +Report to a container engine`, help)
	_, help, _ = rowhook(t, nil, "healthcheck", "--help")
	require.Contains(t, help, "/readyz")
}

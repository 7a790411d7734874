package main

import (
	"flag"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPeersAreNamed(t *testing.T) {
	t.Parallel()
	var p peers
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Var(&p, "peer", "")
	require.NoError(t, f.Parse([]string{"--peer", "river=.cache/river", "--peer", "poller=/p=q"}))
	require.Equal(t, peers{{name: "river", path: ".cache/river", peer: true}, {name: "poller", path: "/p=q", peer: true}}, p)
	for _, wrong := range []string{"river", "=path", "river=", "this=path", "other=path"} {
		require.ErrorContains(t, f.Parse([]string{"--peer", wrong}), "want NAME=PROGRAM", wrong)
	}
}

func TestPeersHaveATableOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := &results{Builds: []string{"this: rowhook 1", "river: River 2"}}
	require.Empty(t, peerTable(r).rows)
	for build, drained := range map[string]float64{"this": 9000, "river": 4000} {
		s := newSample()
		s.set("drained", drained)
		s.set("lost", 0)
		r.add("peers", build, s)
	}
	text := render(r, false)
	require.Regexp(t, `peers +(rowhook +river|river +rowhook)\n`, text)
	require.Regexp(t, `drained +(9,000/s +4,000/s|4,000/s +9,000/s)\n`, text)
	require.NotContains(t, text, "this/other", "a peer is no other build of rowhook")
	require.NotContains(t, text, "build ", "nor has it a line among the costs")
}

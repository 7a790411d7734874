package console

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
)

func TestColumnsAreAlignedAndTheLastIsCutAtTheEdge(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &console{Env{Stdout: &out, Lookup: func(string) (string, bool) { return "", false }}}
	tab := c.table("NAME", "N>", "NOTE")
	tab.add(text("ä"), number(1234567), coloured("a\x1b[2Jb\nc", red))
	tab.add(text("longer"), number(-5), text(strings.Repeat("x", 40)))
	tab.width = 32
	tab.flush()
	require.Equal(t, ""+
		"NAME            N  NOTE\n"+
		"ä       1,234,567  a\\x1b[2Jb\\nc\n"+
		"longer         -5  xxxxxxxxxxxx…\n", out.String())

	tab = &table{out: &out, colour: true}
	out.Reset()
	tab.add(coloured("dead", red), cell{text: "2", colour: bold, right: true})
	tab.flush()
	require.Equal(t, "\x1b[31mdead\x1b[0m  \x1b[1m2\x1b[0m\n", out.String())
}

func TestTimesAndSizesAreWrittenAsPeopleDo(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		420 * time.Microsecond: "0.42ms", 42 * time.Millisecond: "42ms", 4200 * time.Millisecond: "4.2s", 42 * time.Second: "42s",
		62 * time.Second: "1m02s", 3*time.Hour + 4*time.Minute: "3h04m", 50 * time.Hour: "2d02h", -time.Second: "0.00ms",
	} {
		require.Equal(t, want, span(d))
	}
	now := time.Now()
	require.Equal(t, "now", ago(now.Add(-300*time.Millisecond), now))
	require.Equal(t, "5.0s ago", ago(now.Add(-5*time.Second), now))
	require.Equal(t, "in 42s", ago(now.Add(42*time.Second), now))
	require.Equal(t, "1,000", digits(1000))
	require.Equal(t, "-1,000,000", digits(-1_000_000))
	require.Equal(t, "1 event", plural(1, "event"))
	require.Equal(t, []string{"12 B", "1.5 KiB", "2.0 GiB"}, []string{size(12), size(1536), size(2 << 30)})
}

func TestTheBarShowsHowFarItIsAndHowLongItTakes(t *testing.T) {
	t.Parallel()
	p := &progress{what: "redelivering", total: 1000}
	require.Equal(t, "redelivering [###############---------------]  50% 500 of 1,000  100/s  5.0s left", p.line(500, "", 5*time.Second))
	require.Equal(t, "redelivering [##############################] 100% 2,000 of ≥1,000  note", (&progress{what: "redelivering", total: 1000, more: true}).line(2000, "note", 0))
	require.Equal(t, "draining 7", (&progress{what: "draining"}).line(7, "", 0))
	var out bytes.Buffer
	quiet := (&console{Env{Stderr: &out}}).progress("redelivering", 10, false)
	quiet.at(5, "")
	quiet.end()
	require.Empty(t, out.String(), "nothing where it is no terminal")
}

func TestMomentsAreReadAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 15, 4, 5, 0, time.FixedZone("X", 3600))
	f := &filterFlags{clock: func() time.Time { return now }}
	for s, want := range map[string]time.Time{
		"": {}, "1h": now.Add(-time.Hour), "7d": now.Add(-7 * 24 * time.Hour), "2026-11-20": time.Date(2026, 11, 20, 0, 0, 0, 0, now.Location()),
		"2026-11-20 12:30": time.Date(2026, 11, 20, 12, 30, 0, 0, now.Location()), "2026-11-20T12:30:00Z": time.Date(2026, 11, 20, 12, 30, 0, 0, time.UTC),
	} {
		got, err := f.moment("since", s)
		require.NoError(t, err)
		require.True(t, want.Equal(got), "%q: %s", s, got)
	}
	_, err := f.moment("since", "yesterday")
	require.ErrorContains(t, err, "--since")
}

func TestAStatusNamesEachDispatcherAndCutsNoRemedy(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &console{Env{Stdout: &out, Lookup: func(string) (string, bool) { return "", false }}}
	now := time.Now()
	c.showRest(&operate.Status{Now: now, Doorbell: operate.Doorbell{State: "silent", InstanceID: 7}, Instances: []operate.Instance{
		{ID: 3, Name: "a:1", Version: "1.0", StartedAt: now, Listens: true, Alive: true},
		{ID: 7, Name: "b:2", Version: "1.0", StartedAt: now, Listens: true, Alive: true},
	}})
	require.Contains(t, out.String(), "\ndispatcher 7  b:2  1.0  started now, listens\ndoorbell      silent: dispatcher 7 is awake")
	out.Reset()
	c.showRest(&operate.Status{Now: now, Doorbell: operate.Doorbell{State: "silent", InstanceID: 7}})
	require.Contains(t, out.String(), "dispatchers  none: nothing is delivered")
	require.Contains(t, out.String(), "doorbell     silent: no dispatcher runs that writers could notify")
}

func TestWhatDrainDidNotCountItDoesNotSplitUp(t *testing.T) {
	t.Parallel()
	c := &console{Env{Stdout: io.Discard}}
	err := c.showLeft(&common{}, []operate.Left{{Trigger: "a", Waiting: 9_999, Retrying: 1, More: true}, {Trigger: "b", InFlight: 2}}, 30*time.Second)
	require.EqualError(t, err, "after 30s something is left:\n  a: more than 10,000 events\n  b: 0 waiting, 2 in flight, 0 to be retried")
}

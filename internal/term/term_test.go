package term

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestColumnsAreAlignedAndTheLastIsCutAtTheEdge(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	page := NewPage(&out, nil)
	tab := page.Table("NAME", "N>", "NOTE")
	tab.Add(Text("ä"), Number(1234567), Coloured("a\x1b[2Jb\nc", Red))
	tab.Add(Text("longer"), Number(-5), Text(strings.Repeat("x", 40)))
	tab.Add(Text("日本"), Number(0), Text(strings.Repeat("日", 20)))
	tab.edge = 32
	tab.Flush()
	require.Equal(t, ""+
		"NAME            N  NOTE\n"+
		"ä       1,234,567  a\\x1b[2Jb\\nc\n"+
		"longer         -5  xxxxxxxxxxxx…\n"+
		"日本            0  日日日日日日…\n", out.String())

	page.colour = true
	tab = page.Table()
	out.Reset()
	tab.Add(Coloured("dead", Red), Cell{Text: "2", Colour: Bold, Right: true})
	tab.Flush()
	require.Equal(t, "\x1b[31mdead\x1b[0m  \x1b[1m2\x1b[0m\n", out.String())
}

func TestAFirstCellWithoutRoomHasALineOfItsOwn(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tab := NewPage(&out, nil).Table("NAME", "N>")
	tab.Stack, tab.edge = true, 20
	tab.Add(Text("a-name-of-17-runes"), Number(1_000))
	tab.Add(Text("short"), Number(6))
	require.False(t, tab.Fits())
	tab.Flush()
	require.Equal(t, "NAME               N\na-name-of-17-runes\n               1,000\nshort              6\n", out.String())
}

func TestTextIsCutByColumnsAndShortenedByBytes(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"abc", "ab…", "日…", "e\u0301e…"}, []string{Cut("abc", 3), Cut("abcd", 3), Cut("日本語", 4), Cut("e\u0301eee", 3)})
	require.Equal(t, []string{"abc", "ab… (2 bytes more)", "a… (4 bytes more)"}, []string{Shorten("abc", 3), Shorten("abcd", 2), Shorten("aéüü"[:5], 2)})
	require.Equal(t, []string{"one two three four", "five six seven eight nine", "ten"}, Wrap("one two three four five six seven eight nine ten", 25, 20))
}

func TestTimesAndSizesAreWrittenAsPeopleDo(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		420 * time.Microsecond: "0.42ms", 42 * time.Millisecond: "42ms", 4200 * time.Millisecond: "4.2s", 42 * time.Second: "42s",
		62 * time.Second: "1m02s", 3*time.Hour + 4*time.Minute: "3h04m", 50 * time.Hour: "2d02h", -time.Second: "0.00ms",
	} {
		require.Equal(t, want, Span(d))
	}
	now := time.Now()
	require.Equal(t, "now", Ago(now.Add(-300*time.Millisecond), now))
	require.Equal(t, "5.0s ago", Ago(now.Add(-5*time.Second), now))
	require.Equal(t, "in 42s", Ago(now.Add(42*time.Second), now))
	require.Equal(t, "1,000", Digits(1000))
	require.Equal(t, "-1,000,000", Digits(-1_000_000))
	require.Equal(t, "1 event", Plural(1, "event"))
	require.Equal(t, []string{"12 B", "1.5 KiB", "152.0 KiB", "2.0 GiB"}, []string{Bytes(12), Bytes(1536), Bytes(152 << 10), Bytes(2 << 30)})
}

func TestTheBarShowsHowFarItIsAndHowLongItTakes(t *testing.T) {
	t.Parallel()
	p := &Progress{what: "redelivering", total: 1000}
	require.Equal(t, "redelivering [###############---------------]  50% 500 of 1,000  100/s  5.0s left", p.line(500, "", 5*time.Second))
	require.Equal(t, "redelivering [##############################] 100% 2,000 of ≥1,000  note", (&Progress{what: "redelivering", total: 1000, more: true}).line(2000, "note", 0))
	require.Equal(t, "draining 7", (&Progress{what: "draining"}).line(7, "", 0))
	var out bytes.Buffer
	quiet := NewProgress(&out, "redelivering", 10, false)
	quiet.At(5, "")
	quiet.End()
	require.Empty(t, out.String(), "nothing where it is no terminal")
}

func TestAPictureIsDrawnOverTheOneBefore(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, NewPage(&out, nil).Redraw("a\nb\n", true))
	require.Equal(t, "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J", out.String())
}

func TestParagraphsKeepCommandsWhole(t *testing.T) {
	t.Parallel()
	const id = "0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90"
	var out strings.Builder
	NewPage(&out, nil).Paragraph(Text("orders  "), Text("the key [1] is held, with 2 events behind it: to send it again and go on: rowhook redeliver "+id+
		"; to go on without it: rowhook discard "+id))
	for _, command := range []string{"rowhook redeliver " + id + ";", "rowhook discard " + id + "\n"} {
		require.Contains(t, out.String(), command)
	}
	for line := range strings.SplitSeq(out.String(), "\n") {
		require.LessOrEqual(t, Columns(line), 80)
	}
	require.Equal(t, []string{"the", "schema", "rowhook", "is", "old:", `run`, `"rowhook migrate"`, "or", "(rowhook run)", "now"},
		unbroken(`the schema rowhook is old: run "rowhook migrate" or (rowhook run) now`))
}

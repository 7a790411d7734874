package cli

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

func FuzzByteSize(f *testing.F) {
	for _, seed := range []string{"64MiB", "1 B", " 512KiB ", "1024GiB", "1025GiB", "0B", "-1B", "1", "", "MiB", "9223372036854775807B", "1e3B", "0x10KiB", "１MiB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		size := byteSize()
		n, err := size.parse(s)
		if err != nil {
			require.Zero(t, n)
			return
		}
		require.Positive(t, n)
		require.LessOrEqual(t, n, int64(1)<<40)
		again, err := size.parse(size.format(n))
		require.NoError(t, err)
		require.Equal(t, n, again, "what is written reads back")
	})
}

// FuzzFlags sets a flag of each kind to any text: it is taken and reads back, or refused, and the
// value before stays.
func FuzzFlags(f *testing.F) {
	for _, seed := range []string{"1", "true", "YES", "10s", "7d", "-1", "", "debug", "10.0.0.0/8,private", ",", "a,b", "\x00", "9999999999999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		s := flagSet{flags}
		number, yes, wait, names := 7, false, time.Second, []string{"before"}
		s.number(&number, "number", "", 1, 10000)
		s.yesNo(&yes, "yes", "")
		s.duration(&wait, "wait", "", time.Millisecond)
		add(&s, &names, "names", "", listOf(&names))
		flags.VisitAll(func(f *pflag.Flag) {
			before := f.Value.String()
			if err := f.Value.Set(text); err != nil {
				require.NotEmpty(t, err.Error())
				require.Equal(t, before, f.Value.String(), f.Name)
				return
			}
			if after := f.Value.String(); f.Name != "names" {
				require.NoError(t, f.Value.Set(after), f.Name)
				require.Equal(t, after, f.Value.String(), f.Name)
			}
		})
	})
}

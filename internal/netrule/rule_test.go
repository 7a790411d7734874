package netrule_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/netrule"
)

func TestRulesAreWordsAddressesAndPrefixes(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]string{
		"10.1.2.3/16":          "[10.1.0.0/16]",
		"::ffff:10.1.2.3":      "[10.1.2.3/32]",
		"::ffff:10.1.2.3/104":  "[10.0.0.0/8]",
		" Loopback ":           "[127.0.0.0/8 ::1/128]",
		"2001:db8::1":          "[2001:db8::1/128]",
		"0.0.0.0/0":            "[0.0.0.0/0]",
		"::ffff:10.1.2.3/9":    "[::/9]",
		"link-local":           "[169.254.0.0/16 fe80::/10]",
		"\t2001:db8::f00/32\n": "[2001:db8::/32]",
	} {
		prefixes, err := netrule.Parse(rule)
		require.NoError(t, err, rule)
		require.Equal(t, want, fmt.Sprint(prefixes), rule)
	}
	for _, bad := range []string{"", "public", "10.1.2.3/33", "fe80::1%eth0", "example.com", "010.1.2.3", "2130706433", "10.1/16"} {
		_, err := netrule.Parse(bad)
		require.ErrorContains(t, err, "is not an address rule", bad)
	}
	all, err := netrule.ParseAll([]string{"10.0.0.1", "loopback"})
	require.NoError(t, err)
	require.Len(t, all, 3)
	_, err = netrule.ParseAll([]string{"10.0.0.1", "x"})
	require.Error(t, err)
}

func TestNumericHostsAreThoseThatSomeTakeForAnAddress(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"2852039166", "0xa9fea9fe", "0XA9.0xFE.0xa9.0xfe", "0251.0376.0251.0376", "169.254.43518", "127.1", "0x", "169.254.169.254.", "1.2.3.4.5", "256.1.1.1", "example.1"} {
		require.True(t, netrule.IsNumericHost(host), host)
	}
	for _, host := range []string{"127.0.0.1", "::1", "fe80::1%1", "example.com", "1.example.com.", "0xface.b00c", "xn--1", "1a", ""} {
		require.False(t, netrule.IsNumericHost(host), host)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range append(netrule.Words(), "", "10.1.0.0/16", "::1", "::ffff:1.2.3.4/100", "fe80::1%eth0", "1.2.3.4/-1", "0x7f.1", " Private\n") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rule string) {
		prefixes, err := netrule.Parse(rule)
		if err != nil {
			require.Empty(t, prefixes)
			return
		}
		require.NotEmpty(t, prefixes)
		for _, p := range prefixes {
			require.True(t, p.IsValid())
			require.Equal(t, p.Masked(), p)
			// Parse accepts what String writes.
			again, err := netrule.Parse(p.String())
			require.NoError(t, err)
			require.Equal(t, []netip.Prefix{p}, again)
		}
	})
}

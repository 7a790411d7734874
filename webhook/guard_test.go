package webhook

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/netrule"
)

func rules(t *testing.T, texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		prefixes, err := netrule.Parse(text)
		require.NoError(t, err)
		all = append(all, prefixes...)
	}
	return all
}

func TestGuardDecidesByTheLongestPrefix(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		allow, deny []string
		open, shut  []string
	}{
		"zero value": {
			open: []string{"127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "2606:4700::1111", "0.0.0.0", "::", "64:ff9b::808:808", "::ffff:10.0.0.1"},
			shut: []string{"169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16",
				"192.0.0.192", "fd00:ec2::23",
				"::ffff:169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::", "2002:a9fe:a9fe::1", "::a9fe:a9fe",
				"2001:0:a9fe:a9fe::1", "2001:0:808:808::5601:5601", "2606:4700::5efe:a9fe:a9fe", "2606:4700::200:5efe:a9fe:a9fe", "224.0.0.1", "ff02::1", "255.255.255.255", "0.1.2.3"},
		},
		"deny private and loopback": {
			deny: []string{"private", "loopback"},
			open: []string{"8.8.8.8"},
			shut: []string{"10.1.2.3", "172.31.0.1", "192.168.0.1", "fd12::1", "127.0.0.1", "::1", "0.0.0.0", "::", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "fec0::1", "100.64.0.1"},
		},
		"an exception to a denial": {
			deny: []string{"private"}, allow: []string{"10.1.0.0/16"},
			open: []string{"10.1.2.3"}, shut: []string{"10.2.2.3"},
		},
		"deny wins a tie": {
			deny: []string{"10.1.0.0/16"}, allow: []string{"10.1.0.0/16"},
			shut: []string{"10.1.2.3"},
		},
		"link-local allowed, metadata not": {
			allow: []string{"link-local"},
			open:  []string{"169.254.1.1", "fe80::1"}, shut: []string{"169.254.169.254"},
		},
		"metadata allowed": {
			allow: []string{"169.254.169.254"},
			open:  []string{"169.254.169.254", "::ffff:169.254.169.254"}, shut: []string{"169.254.1.1"},
		},
		"only one network": {
			deny: []string{"0.0.0.0/0", "::/0"}, allow: []string{"203.0.113.0/24"},
			open: []string{"203.0.113.9"}, shut: []string{"8.8.8.8", "127.0.0.1", "2606:4700::1111"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := Guard{Allow: rules(t, c.allow...), Deny: rules(t, c.deny...)}
			for _, a := range c.open {
				require.NoError(t, g.Check(netip.MustParseAddr(a)), a)
			}
			for _, a := range c.shut {
				var denied *DeniedError
				require.ErrorAs(t, g.Check(netip.MustParseAddr(a)), &denied, a)
			}
		})
	}
}

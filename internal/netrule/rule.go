// Package netrule reads rules about network addresses: a word for well-known ranges, an address, or a prefix.
package netrule

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Words lists the words that Parse takes, in the order in which people read them.
func Words() []string {
	return []string{"private", "loopback", "link-local", "metadata", "reserved"}
}

// Range is what a word stands for; nil if there is no such word. The ranges are those of IANA's registries of special-purpose
// addresses, and for metadata what the clouds document.
func Range(word string) []netip.Prefix {
	var text string
	switch word {
	case "private": // with the carriers' shared space, and the site-local addresses of old
		text = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7 fec0::/10"
	case "loopback":
		text = "127.0.0.0/8 ::1/128"
	case "link-local":
		text = "169.254.0.0/16 fe80::/10"
	case "metadata":
		text = "169.254.169.254/32 169.254.170.2/32 169.254.170.23/32 fd00:ec2::254/128 fd00:ec2::23/128 " + // AWS; ECS; EKS
			"fd20:ce::254/128 " + // Google Cloud
			"168.63.129.16/32 " + // Azure's wire server
			"100.100.100.200/32 192.0.0.192/32 fd00:42::42/128" // Alibaba; Oracle; Scaleway
	case "reserved": // "this network", protocol assignments, multicast, future use and broadcast, translation of a network's own choice
		text = "0.0.0.0/8 192.0.0.0/24 224.0.0.0/4 240.0.0.0/4 ff00::/8 64:ff9b:1::/48"
	default:
		return nil
	}
	var prefixes []netip.Prefix
	for _, s := range strings.Fields(text) {
		prefixes = append(prefixes, netip.MustParsePrefix(s))
	}
	return prefixes
}

// Parse reads one rule: a word, an address, or a prefix such as 10.1.0.0/16. White space around it and the case of words do not
// matter, and an IPv4 address may be written as IPv6 maps it. An address with a zone is no rule.
func Parse(rule string) ([]netip.Prefix, error) {
	rule = strings.TrimSpace(rule)
	if word := strings.ToLower(rule); slices.Contains(Words(), word) {
		return Range(word), nil
	}
	if addr, err := netip.ParseAddr(rule); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	prefix, err := netip.ParsePrefix(rule)
	if err != nil {
		return nil, fmt.Errorf("%q is no address rule: write %s, an address, or a prefix such as 10.1.0.0/16", rule, strings.Join(Words(), ", "))
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return []netip.Prefix{prefix.Masked()}, nil
}

// ParseAll reads a list of rules.
func ParseAll(rules []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, rule := range rules {
		prefixes, err := Parse(rule)
		if err != nil {
			return nil, err
		}
		all = append(all, prefixes...)
	}
	return all, nil
}

// IsNumericHost reports that a URL's host is an IPv4 address in one of the forms that some resolvers and proxies take and others do
// not: 2852039166, 0xa9fea9fe, 0251.254.169.254, 169.254.43518 or 169.254.169.254. with a dot at its end. As in the URL standard of
// browsers, a host whose last label is a number is an address or nothing.
func IsNumericHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	last := strings.TrimSuffix(host, ".")
	last = last[strings.LastIndexByte(last, '.')+1:]
	digits := "0123456789"
	if rest, hex := strings.CutPrefix(strings.ToLower(last), "0x"); hex {
		last, digits = rest+"0", "0123456789abcdef" // 0x alone is 0
	}
	return last != "" && strings.Trim(last, digits) == ""
}

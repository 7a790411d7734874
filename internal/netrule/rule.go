// Package netrule parses rules for network addresses. A rule is a word for well-known ranges, an
// address, or a prefix.
package netrule

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Words returns the words that Parse accepts, in the order for messages.
func Words() []string {
	return []string{"private", "loopback", "link-local", "metadata", "reserved"}
}

// Range returns the ranges of a word, and nil for an unknown word. They come from IANA's registries
// of special-purpose addresses, and for metadata from the documentation of the clouds.
func Range(word string) []netip.Prefix {
	var text string
	switch word {
	case "private": // includes the carriers' shared space, and the deprecated site-local addresses
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

// Parse parses a rule: a word, an address, or a prefix such as 10.1.0.0/16. It ignores surrounding
// white space and the case of words. It accepts IPv4 addresses in their IPv6-mapped form, and
// rejects addresses with a zone.
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
		return nil, fmt.Errorf("%q is not an address rule: write %s, an address, or a prefix such as 10.1.0.0/16", rule, strings.Join(Words(), ", "))
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return []netip.Prefix{prefix.Masked()}, nil
}

// ParseAll parses a list of rules, and returns the ranges of all.
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

// IsNumericHost reports whether a URL's host is an IPv4 address in a form that only some resolvers
// and proxies accept: 2852039166, 0xa9fea9fe, 0251.254.169.254, 169.254.43518, or 169.254.169.254.
// with a final dot. It follows the URL standard of browsers, where a host whose last label is a
// number can only be an address.
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

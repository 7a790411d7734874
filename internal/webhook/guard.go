package webhook

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

// Guard decides which addresses may be dialled. It looks at the resolved address at the moment of connecting, so a
// name that resolves to something else the second time gains nothing. Where a proxy is used, the proxy's address is
// what is dialled and checked.
//
// The zero value refuses what no webhook lives at: link-local addresses, the clouds' metadata services, multicast
// and reserved ranges. Allow and Deny add to that. The longest prefix that holds the address decides; among equally long
// ones Deny beats Allow, and Allow beats the built-in refusals. IPv6 forms that carry an IPv4 address (mapped, NAT64,
// 6to4) are judged by that address, too.
type Guard struct {
	Allow, Deny []netip.Prefix
}

// DeniedError says that the guard forbids an address.
type DeniedError struct{ Addr netip.Addr }

func (e *DeniedError) Error() string {
	return "the guard forbids connecting to " + e.Addr.String() + ": allow it there if the webhook really lives at that address"
}

// Check returns a *DeniedError if addr may not be dialled.
func (g Guard) Check(addr netip.Addr) error {
	addr = addr.WithZone("").Unmap()
	if !g.allows(addr) {
		return &DeniedError{Addr: addr}
	}
	if inner, ok := embedded(addr); ok && !g.allows(inner) {
		return &DeniedError{Addr: addr}
	}
	return nil
}

func (g Guard) allows(addr netip.Addr) bool {
	// The kernel connects an unspecified address to the loopback.
	switch addr {
	case netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	denied, allowed := longest(g.Deny, addr), longest(g.Allow, addr)
	if denied >= 0 && denied >= allowed {
		return false
	}
	return allowed >= 0 && allowed >= refusedLength(addr) || refusedLength(addr) < 0
}

// longest is the length in bits of the longest of prefixes that holds addr, -1 if none does.
func longest(prefixes []netip.Prefix, addr netip.Addr) int {
	bits := -1
	for _, p := range prefixes {
		if p.Contains(addr) {
			bits = max(bits, p.Bits())
		}
	}
	return bits
}

func refusedLength(addr netip.Addr) int {
	bits := -1
	for _, words := range []string{"link-local", "metadata", "reserved"} {
		bits = max(bits, longest(guardWord(words), addr))
	}
	return bits
}

// embedded is the IPv4 address that an IPv6 address carries for a translator or a tunnel to unpack.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	if !addr.Is6() {
		return netip.Addr{}, false
	}
	b := addr.As16()
	v4 := func(i int) (netip.Addr, bool) { return netip.AddrFrom4([4]byte(b[i : i+4])), true }
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr): // NAT64, RFC 6052
		return v4(12)
	case netip.MustParsePrefix("2002::/16").Contains(addr): // 6to4, RFC 3056
		return v4(2)
	case netip.MustParsePrefix("::/96").Contains(addr) && !addr.IsLoopback() && !addr.IsUnspecified(): // RFC 4291, 2.5.5.1
		return v4(12)
	}
	return netip.Addr{}, false
}

// guardWord is what a word of ParseGuardRule stands for; nil if there is no such word.
func guardWord(word string) []netip.Prefix {
	var text string
	switch word {
	case "private":
		text = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7"
	case "loopback":
		text = "127.0.0.0/8 ::1/128"
	case "link-local":
		text = "169.254.0.0/16 fe80::/10"
	case "metadata": // AWS, Google Cloud and Azure; ECS tasks; AWS and Google Cloud on IPv6; Alibaba; Azure's wire server
		text = "169.254.169.254/32 169.254.170.2/32 fd00:ec2::254/128 fd20:ce::254/128 100.100.100.200/32 168.63.129.16/32"
	case "reserved": // "this network", multicast, future use and broadcast
		text = "0.0.0.0/8 224.0.0.0/4 240.0.0.0/4 ff00::/8"
	default:
		return nil
	}
	var prefixes []netip.Prefix
	for _, s := range strings.Fields(text) {
		prefixes = append(prefixes, netip.MustParsePrefix(s))
	}
	return prefixes
}

// ParseGuardRule reads one rule of a Guard: a word (private, loopback, link-local, metadata, reserved), an address, or
// a prefix such as 10.1.0.0/16. Allowing link-local leaves the metadata services refused: they need their own rule.
func ParseGuardRule(rule string) ([]netip.Prefix, error) {
	rule = strings.TrimSpace(rule)
	if prefixes := guardWord(strings.ToLower(rule)); prefixes != nil {
		return prefixes, nil
	}
	if addr, err := netip.ParseAddr(rule); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	prefix, err := netip.ParsePrefix(rule)
	if err != nil {
		return nil, fmt.Errorf("%q is no address rule: write private, loopback, link-local, metadata, reserved, "+
			"an address, or a prefix such as 10.1.0.0/16", rule)
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return []netip.Prefix{prefix.Masked()}, nil
}

// control is a net.Dialer's ControlContext: it runs for each address that is tried, after resolving, before connecting.
func (g Guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read the address to connect to: %w", err)
	}
	return g.Check(at.Addr())
}

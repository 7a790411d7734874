package webhook

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/rowhook/rowhook/internal/netrule"
)

// Guard decides which addresses may be dialled. It looks at the resolved address at the moment of connecting, so a
// name that resolves to something else the second time gains nothing. Where a proxy is used, the proxy's address is what is
// dialled and checked; of what lies behind it, see Client.
//
// The zero value refuses what no webhook lives at: link-local addresses, the clouds' metadata services, multicast
// and reserved ranges. Allow and Deny add to that. The longest prefix that holds the address decides; among equally long
// ones Deny beats Allow, and Allow beats the built-in refusals. IPv6 forms that carry an IPv4 address (mapped, compatible, NAT64,
// 6to4, Teredo, ISATAP) are judged by that address, too. The rules are read by package netrule.
type Guard struct {
	Allow, Deny []netip.Prefix
}

// DeniedError says that the guard forbids an address.
type DeniedError struct{ Addr netip.Addr }

func (e *DeniedError) Error() string {
	return "connecting to " + e.Addr.String() + " is forbidden: allow it under network in rowhook.yaml if the webhook really lives at that address"
}

// With is the guard with the rules of another added.
func (g Guard) With(other Guard) Guard {
	return Guard{Allow: slices.Concat(g.Allow, other.Allow), Deny: slices.Concat(g.Deny, other.Deny)}
}

// Equal reports that two guards have the same rules, in the same order.
func (g Guard) Equal(other Guard) bool {
	return slices.Equal(g.Allow, other.Allow) && slices.Equal(g.Deny, other.Deny)
}

// Check returns a *DeniedError if addr may not be dialled.
func (g Guard) Check(addr netip.Addr) error {
	addr = addr.WithZone("").Unmap()
	if !g.allows(addr) {
		return &DeniedError{Addr: addr}
	}
	for _, inner := range embedded(addr) {
		if !g.allows(inner) {
			return &DeniedError{Addr: addr}
		}
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
	for _, word := range []string{"link-local", "metadata", "reserved"} {
		bits = max(bits, longest(netrule.Range(word), addr))
	}
	return bits
}

// embedded lists the IPv4 addresses that an IPv6 address may carry for a translator or a tunnel to unpack.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	v4 := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	within := func(prefix string) bool { return netip.MustParsePrefix(prefix).Contains(addr) }
	switch {
	case within("64:ff9b::/96"), within("64:ff9b:1::/48"): // NAT64, RFC 6052 and RFC 8215
		return []netip.Addr{v4(12)}
	case within("2002::/16"): // 6to4, RFC 3056
		return []netip.Addr{v4(2)}
	case within("2001::/32"): // Teredo, RFC 4380: the server, and the client with its bits turned around
		return []netip.Addr{v4(4), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	case within("::ffff:0:0:0/96"), within("::/96") && !addr.IsLoopback() && !addr.IsUnspecified(): // RFC 2765; RFC 4291, 2.5.5.1
		return []netip.Addr{v4(12)}
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214
		return []netip.Addr{v4(12)}
	}
	return nil
}

// control is a net.Dialer's ControlContext: it runs for each address that is tried, after resolving, before connecting.
func (g Guard) control(_ context.Context, _, to string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(to)
	if err != nil {
		return fmt.Errorf("read the address to connect to: %w", err)
	}
	return g.Check(at.Addr())
}

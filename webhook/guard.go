package webhook

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/rowhook/rowhook/internal/netrule"
)

// Guard decides which addresses may be dialled. It checks the resolved address at the moment of
// connecting, so a name that resolves to another address the second time can't evade it. If a proxy
// is used, the guard checks the proxy's address, and [ClientConfig].Proxy says how it checks the
// host behind.
//
// The zero value rejects addresses at which no webhook can be: link-local addresses, the metadata
// services of clouds, multicast and reserved ranges. Allow and Deny add rules. The longest prefix
// that contains the address decides. If prefixes are equally long, Deny beats Allow, and Allow
// beats the built-in rules. An IPv6 address that carries an IPv4 address (mapped, compatible,
// NAT64, 6to4, Teredo, ISATAP) must be allowed in both forms.
type Guard struct {
	Allow, Deny []netip.Prefix // addresses that may be dialled, and that may not
}

// DeniedError says that the guard forbids an address.
type DeniedError struct {
	Addr netip.Addr // the address; an IPv4-mapped one in its IPv4 form
}

// Error names the address and the key of rowhook.yaml that allows it.
func (e *DeniedError) Error() string {
	return "connecting to " + e.Addr.String() + " is forbidden: if the webhook really is at that address, allow it under network in rowhook.yaml"
}

// With returns a guard with the rules of both, those of other last.
func (g Guard) With(other Guard) Guard {
	return Guard{Allow: slices.Concat(g.Allow, other.Allow), Deny: slices.Concat(g.Deny, other.Deny)}
}

// Equal reports whether two guards have the same rules, in the same order.
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

// longest returns the length in bits of the longest prefix that contains addr, or -1.
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

// embedded returns the IPv4 addresses that an IPv6 address may carry for a translator or a tunnel.
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
	case within("2001::/32"): // Teredo, RFC 4380: the server, and the client with inverted bits
		return []netip.Addr{v4(4), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	// RFC 2765; RFC 4291, 2.5.5.1
	case within("::ffff:0:0:0/96"), within("::/96") && !addr.IsLoopback() && !addr.IsUnspecified():
		return []netip.Addr{v4(12)}
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214
		return []netip.Addr{v4(12)}
	}
	return nil
}

// control is a ControlContext for [net.Dialer]. The dialer calls it for each address that it tries,
// before it connects.
func (g Guard) control(_ context.Context, _, to string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(to)
	if err != nil {
		return fmt.Errorf("read the address to connect to: %w", err)
	}
	return g.Check(at.Addr())
}

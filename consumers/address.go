package consumers

import "net/netip"

// Public reports whether an address is one of the public network: neither
// private nor loopback nor any of the special-purpose registries', also in the
// disguise of another family's. What calls others on a stranger's word asks it
// for each address that is dialled.
func Public(a netip.Addr) bool { return public(a) }

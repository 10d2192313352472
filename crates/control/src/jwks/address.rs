//! Where keys may be fetched from: whoever writes a policy must not make the control plane call what only it can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Whether an address may be called: a public one, or one of those allowed.
pub(super) fn may_call(address: IpAddr, allowed: &[IpNet]) -> bool {
    let address = address.to_canonical();
    allowed.iter().any(|block| block.contains(&address)) || is_public(address)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let shared = first == 100 && (64..128).contains(&second);
    let benchmark = first == 198 && (18..20).contains(&second);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || first == 0
        || first >= 240
        || shared
        || benchmark)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // An IPv4 address behind 64:ff9b::/96 (NAT64) is judged as that one.
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast is 2000::/3; 2001:db8::/32 is for documentation.
    let [first, second, ..] = address.segments();
    first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0xdb8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_we_can_reach_is_not_called() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("2606:4700::1111", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("172.16.3.4", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::a00:1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(may_call(address.parse().unwrap(), &[]), public, "{address}");
        }
        let allowed = ["10.0.0.0/8".parse().unwrap()];
        assert!(may_call("10.1.2.3".parse().unwrap(), &allowed));
        assert!(may_call("::ffff:10.1.2.3".parse().unwrap(), &allowed));
        assert!(!may_call("169.254.169.254".parse().unwrap(), &allowed));
    }
}

//! The PROXY protocol towards endpoints: a header that tells of the client (HAProxy's proxy-protocol.txt).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use lateen_route::cluster::ProxyVersion;

/// What begins every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a client's address and where it connected to; without, it says that the connection is our own.
pub(crate) fn bytes(version: ProxyVersion, client: Option<(SocketAddr, SocketAddr)>) -> Bytes {
    let client =
        client.map(|(from, to)| (from.ip().to_canonical(), from.port(), to.ip().to_canonical(), to.port()));
    match version {
        ProxyVersion::One => one(client).into(),
        ProxyVersion::Two => two(client).into(),
    }
}

type Client = Option<(IpAddr, u16, IpAddr, u16)>;

fn one(client: Client) -> String {
    match client {
        Some((from @ IpAddr::V4(_), source, to @ IpAddr::V4(_), port)) => {
            format!("PROXY TCP4 {from} {to} {source} {port}\r\n")
        }
        Some((from, source, to, port)) => {
            format!("PROXY TCP6 {} {} {source} {port}\r\n", v6(from), v6(to))
        }
        None => "PROXY UNKNOWN\r\n".to_owned(),
    }
}

fn two(client: Client) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    let (family, addresses) = match client {
        // LOCAL, unspecified.
        None => {
            out.extend([0x20, 0x00, 0x00, 0x00]);
            return out;
        }
        Some((IpAddr::V4(from), _, IpAddr::V4(to), _)) => (0x11, [from.octets(), to.octets()].concat()),
        Some((from, _, to, _)) => (0x21, [v6(from).octets(), v6(to).octets()].concat()),
    };
    let ports = client.map_or([0; 4], |(_, source, _, port)| {
        let [a, b] = source.to_be_bytes();
        let [c, d] = port.to_be_bytes();
        [a, b, c, d]
    });
    out.extend([0x21, family]);
    // At most 36 bytes.
    out.extend(((addresses.len() + ports.len()) as u16).to_be_bytes());
    out.extend(addresses);
    out.extend(ports);
    out
}

fn v6(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_protocol_says() {
        let v4 = ("192.0.2.1:5000".parse().unwrap(), "192.0.2.9:80".parse().unwrap());
        let v6 = ("[2001:db8::1]:5000".parse().unwrap(), "[2001:db8::9]:80".parse().unwrap());
        assert_eq!(bytes(ProxyVersion::One, Some(v4)), "PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\r\n");
        assert_eq!(bytes(ProxyVersion::One, Some(v6)), "PROXY TCP6 2001:db8::1 2001:db8::9 5000 80\r\n");
        assert_eq!(bytes(ProxyVersion::One, None), "PROXY UNKNOWN\r\n");
        let two = bytes(ProxyVersion::Two, Some(v4));
        assert_eq!(two[..12], SIGNATURE);
        assert_eq!(two[12..], [0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 9, 0x13, 0x88, 0, 80]);
        assert_eq!(bytes(ProxyVersion::Two, Some(v6)).len(), 16 + 36);
        assert_eq!(bytes(ProxyVersion::Two, None)[12..], [0x20, 0, 0, 0]);
    }
}

//! Listener filters: what is learned of a connection before a filter chain takes it.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lateen_route::Listener;
use lateen_route::listener::ListenerFilterKind;
use rustls::server::Acceptor;

use crate::downstream::{Downstream, Inspected};
use crate::stream::ReadAhead;

/// The most bytes read to find out what a connection speaks.
const MOST: usize = 64 * 1024;

/// Why a connection goes no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// The client went away, or its socket broke.
    #[error("closed while being inspected: {0}")]
    Io(#[from] io::Error),
    /// The PROXY protocol header is missing or malformed.
    #[error("malformed PROXY protocol header")]
    ProxyProtocol,
}

/// Runs the listener filters in order, inside the listener's time limit.
///
/// # Errors
/// When the connection has to be closed.
pub(crate) async fn run(
    listener: &Listener,
    io: &mut ReadAhead,
    down: &mut Downstream,
) -> Result<(), InspectError> {
    if listener.listener_filters.is_empty() {
        return Ok(());
    }
    let Some(limit) = listener.listener_filters_timeout else { return filters(listener, io, down).await };
    match tokio::time::timeout(limit, filters(listener, io, down)).await {
        Ok(result) => result,
        Err(_) if listener.continue_on_timeout => Ok(()),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

async fn filters(listener: &Listener, io: &mut ReadAhead, down: &mut Downstream) -> Result<(), InspectError> {
    // The destination comes first: whether a later filter is on depends on its port.
    for filter in &listener.listener_filters {
        if !filter.enabled(down.local.port()) {
            continue;
        }
        match &filter.kind {
            ListenerFilterKind::OriginalDst => {
                // A transparent socket has the original destination for its own address.
                let transparent = listener.transparent.then_some(down.local);
                if let Some(original) = original_destination(io).or(transparent) {
                    down.restore_destination(original);
                }
            }
            ListenerFilterKind::OriginalSrc { .. } => {}
            ListenerFilterKind::TlsInspector => inspect_tls(io, &mut down.inspected).await?,
            ListenerFilterKind::HttpInspector => {
                if !down.inspected.tls {
                    inspect_http(io, &mut down.inspected).await?;
                }
            }
            ListenerFilterKind::ProxyProtocol { optional } => read_proxy_header(io, down, *optional).await?,
        }
    }
    Ok(())
}

/// Where a redirected connection was going, if it was redirected.
fn original_destination(io: &ReadAhead) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(io.tcp());
    let original = socket.original_dst_v4().or_else(|_| socket.original_dst_v6()).ok()?;
    original.as_socket()
}

/// Looks for a TLS client hello; anything else is plain text.
async fn inspect_tls(io: &mut ReadAhead, found: &mut Inspected) -> Result<(), InspectError> {
    let mut fed = 0;
    let mut acceptor = Acceptor::default();
    loop {
        if io.bytes().len() <= fed && io.more().await? == 0 {
            return Ok(());
        }
        // A handshake record of TLS; everything else is not.
        if io.bytes().first() != Some(&0x16) || io.bytes().get(1).is_some_and(|major| *major != 3) {
            return Ok(());
        }
        let mut new = &io.bytes()[fed..];
        while !new.is_empty() {
            let before = new.len();
            let Ok(_) = acceptor.read_tls(&mut (&mut new as &mut dyn Read)) else { return Ok(()) };
            if new.len() == before {
                break;
            }
        }
        fed = io.bytes().len();
        match acceptor.accept() {
            Ok(None) if fed < MOST => {}
            Ok(None) | Err(_) => return Ok(()),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                found.tls = true;
                found.server_name = hello.server_name().map(|name| name.to_ascii_lowercase().into());
                found.protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                return Ok(());
            }
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a plain connection say about its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// Not enough bytes.
    Unknown,
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// No HTTP.
    Other,
}

/// Guesses by the preface of HTTP/2 or the request line of HTTP/1.
pub(crate) fn guess(bytes: &[u8]) -> Guess {
    let head = bytes.len().min(PREFACE.len());
    if head > 0 && bytes[..head] == PREFACE[..head] {
        return if head == PREFACE.len() { Guess::Http2 } else { Guess::Unknown };
    }
    let line = match memchr::memchr(b'\n', bytes) {
        Some(end) => bytes[..end].trim_ascii_end(),
        None => return if looks_like_method(bytes) { Guess::Unknown } else { Guess::Other },
    };
    match line.rsplit(|b| *b == b' ').next() {
        _ if !looks_like_method(line) => Guess::Other,
        Some(b"HTTP/1.1") => Guess::Http11,
        Some(b"HTTP/1.0") => Guess::Http10,
        _ => Guess::Other,
    }
}

/// Whether the bytes can begin with a method: a short token and a blank.
fn looks_like_method(bytes: &[u8]) -> bool {
    let token = bytes.iter().position(|b| !(b.is_ascii_uppercase() || *b == b'-' || *b == b'_'));
    match token {
        Some(0) => false,
        Some(end) => bytes[end] == b' ' && end <= 32,
        None => bytes.len() <= 32,
    }
}

async fn inspect_http(io: &mut ReadAhead, found: &mut Inspected) -> Result<(), InspectError> {
    loop {
        let protocol: &[u8] = match guess(io.bytes()) {
            Guess::Unknown if io.bytes().len() < MOST => {
                if io.more().await? == 0 {
                    return Ok(());
                }
                continue;
            }
            Guess::Http10 => b"http/1.0",
            Guess::Http11 => b"http/1.1",
            Guess::Http2 => b"h2c",
            Guess::Unknown | Guess::Other => return Ok(()),
        };
        found.protocols = vec![protocol.to_vec()];
        return Ok(());
    }
}

const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads a PROXY protocol header, version 1 or 2.
async fn read_proxy_header(
    io: &mut ReadAhead,
    down: &mut Downstream,
    optional: bool,
) -> Result<(), InspectError> {
    loop {
        match parse_proxy_header(io.bytes()) {
            ProxyHeader::More if io.bytes().len() < 4096 => {
                if io.more().await? == 0 {
                    return Err(InspectError::ProxyProtocol);
                }
            }
            ProxyHeader::None if optional => return Ok(()),
            ProxyHeader::More | ProxyHeader::None => return Err(InspectError::ProxyProtocol),
            ProxyHeader::Found(length, addresses) => {
                io.advance(length);
                if let Some((source, destination)) = addresses {
                    down.restore_source(source);
                    down.restore_destination(destination);
                }
                return Ok(());
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum ProxyHeader {
    More,
    None,
    Found(usize, Option<(SocketAddr, SocketAddr)>),
}

fn parse_proxy_header(bytes: &[u8]) -> ProxyHeader {
    let head = bytes.len().min(PROXY_V2.len());
    if bytes[..head] == PROXY_V2[..head] {
        return parse_proxy_v2(bytes);
    }
    let head = bytes.len().min(6);
    if bytes[..head] != b"PROXY "[..head] {
        return ProxyHeader::None;
    }
    let Some(end) = memchr::memmem::find(bytes, b"\r\n") else {
        return if bytes.len() > 108 { ProxyHeader::None } else { ProxyHeader::More };
    };
    let line = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => ProxyHeader::Found(end + 2, None),
        ["PROXY", "TCP4" | "TCP6", source, destination, source_port, destination_port] => {
            let address =
                |ip: &str, port: &str| Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?));
            match (address(source, source_port), address(destination, destination_port)) {
                (Some(source), Some(destination)) => ProxyHeader::Found(end + 2, Some((source, destination))),
                _ => ProxyHeader::None,
            }
        }
        _ => ProxyHeader::None,
    }
}

fn parse_proxy_v2(bytes: &[u8]) -> ProxyHeader {
    let Some(header) = bytes.get(..16) else { return ProxyHeader::More };
    let length = 16 + usize::from(u16::from_be_bytes([header[14], header[15]]));
    let Some(body) = bytes.get(16..length) else { return ProxyHeader::More };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match (header[12], header[13]) {
        (0x20, _) => ProxyHeader::Found(length, None),
        (0x21, 0x11) if body.len() >= 12 => {
            let ip = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
            let source = SocketAddr::new(ip(0).into(), port(8));
            ProxyHeader::Found(length, Some((source, SocketAddr::new(ip(4).into(), port(10)))))
        }
        (0x21, 0x21) if body.len() >= 36 => {
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&body[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            let source = SocketAddr::new(ip(0).into(), port(32));
            ProxyHeader::Found(length, Some((source, SocketAddr::new(ip(16).into(), port(34)))))
        }
        (0x21, _) => ProxyHeader::Found(length, None),
        _ => ProxyHeader::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn guesses_by_first_bytes() {
        for (bytes, want) in [
            (&b""[..], Guess::Unknown),
            (b"GET", Guess::Unknown),
            (b"GET / HTTP/1.1\r\n", Guess::Http11),
            (b"PRI * HTTP", Guess::Unknown),
            (PREFACE, Guess::Http2),
            (b"GET / HTTP/1.0\n", Guess::Http10),
            (b"\x16\x03\x01", Guess::Other),
            (b"HELO there\r\n", Guess::Other),
            (b"*1\r\n$4\r\nPING", Guess::Other),
        ] {
            assert_eq!(guess(bytes), want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn reads_both_proxy_protocols() {
        let text = b"PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\nGET";
        let addresses = ("10.0.0.1:1234".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        assert_eq!(parse_proxy_header(text), ProxyHeader::Found(text.len() - 3, Some(addresses)));
        let mut binary = PROXY_V2.to_vec();
        binary.extend([0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 0x04, 0xd2, 0, 80]);
        assert_eq!(parse_proxy_header(&binary), ProxyHeader::Found(28, Some(addresses)));
        assert_eq!(parse_proxy_header(b"GET / HTTP/1.1"), ProxyHeader::None);
        assert_eq!(parse_proxy_header(b"PRO"), ProxyHeader::More);
    }

    proptest! {
        #[test]
        fn no_bytes_make_them_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            guess(&bytes);
            parse_proxy_header(&bytes);
            let mut v2 = PROXY_V2.to_vec();
            v2.extend(&bytes);
            parse_proxy_header(&v2);
        }
    }
}

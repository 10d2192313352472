//! From a call to the filter chain that takes its connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Answer, Call, CallMode, CallTls, Failure, Protocol, TlsAnswer, World};
use crate::http_manager::RouteSource;
use crate::listener::{Direction, FilterChain, ListenAddress, Listener, ListenerFilterKind};
use crate::network::NetworkFilter;
use crate::request::{ConnectionView, PeerCertificate, Transport};
use crate::tls::CertificateSource;
use crate::trail::Trail;

/// The route configuration of the listener that applications use as their HTTP proxy.
const HTTP_PROXY: &str = "http_proxy";

impl World {
    /// The listener that decides about a connection, and whether it is the applications' HTTP proxy.
    pub(super) fn listener(
        &self,
        call: &Call,
        mode: CallMode,
        destination: SocketAddr,
        why: &mut Vec<String>,
    ) -> Result<(Arc<Listener>, bool), Failure> {
        let direction = if mode == CallMode::Inbound { Direction::Inbound } else { Direction::Outbound };
        let capture = (mode != CallMode::Gateway)
            .then(|| self.listeners.iter().find(|l| l.direction == direction && captures(l)))
            .flatten();
        if let Some(capture) = capture {
            why.step(|| format!("the connection to {destination} is redirected to {}", capture.name));
            if !capture.use_original_dst {
                return Ok((capture.clone(), false));
            }
            let own = self.listening_on(destination, |l| !Arc::ptr_eq(l, capture));
            why.step(|| match own {
                Some(own) => format!("{} is for its original destination and takes it over", own.name),
                None => format!("no listener is for its original destination: {} keeps it", capture.name),
            });
            return Ok((own.unwrap_or(capture).clone(), false));
        }
        let bound = |l: &Arc<Listener>| {
            l.bind_to_port && (mode == CallMode::Gateway || l.direction != opposite(direction))
        };
        if let Some(listener) = self.listening_on(destination, bound) {
            why.step(|| format!("{} listens on {destination}", listener.name));
            return Ok((listener.clone(), false));
        }
        if mode == CallMode::Outbound
            && let Some(listener) = self.listeners.iter().find(|l| is_http_proxy(l))
        {
            why.step(|| {
                format!("nothing is redirected here: the application calls through {}", listener.name)
            });
            return Ok((listener.clone(), true));
        }
        let known: Vec<&str> = self.listeners.iter().map(|l| &*l.name).take(20).collect();
        why.step(|| {
            format!("nothing listens on {destination} (port {}); listeners: {}", call.port, known.join(", "))
        });
        Err(Failure::NoListener)
    }

    /// Exact address first, then the wildcard of the port, of either family.
    fn listening_on(&self, to: SocketAddr, fits: impl Fn(&Arc<Listener>) -> bool) -> Option<&Arc<Listener>> {
        let on = |ip: Option<IpAddr>| {
            self.listeners.iter().filter(|l| fits(l)).find(|l| {
                l.addresses.iter().any(|address| match address {
                    ListenAddress::Tcp(a) => {
                        a.port() == to.port() && ip.map_or(a.ip().is_unspecified(), |ip| a.ip() == ip)
                    }
                    ListenAddress::Pipe(_) => false,
                })
            })
        };
        on(Some(to.ip())).or_else(|| on(None))
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Inbound => Direction::Outbound,
        _ => Direction::Inbound,
    }
}

fn captures(listener: &Listener) -> bool {
    listener.bind_to_port
        && (listener.use_original_dst
            || listener.listener_filters.iter().any(|f| f.kind == ListenerFilterKind::OriginalDst))
}

fn is_http_proxy(listener: &Listener) -> bool {
    listener.chains.iter().flat_map(|chain| &chain.filters).any(|filter| match filter {
        NetworkFilter::Http(manager) => {
            matches!(&manager.routes, RouteSource::Rds(name) if &**name == HTTP_PROXY)
        }
        _ => false,
    })
}

/// What the listener filters find out, and the filter chain for it.
pub(super) fn chain(
    listener: &Listener,
    call: &Call,
    destination: SocketAddr,
    answer: &mut Answer,
) -> Result<Arc<FilterChain>, Failure> {
    let inspects =
        |kind: ListenerFilterKind| listener.listener_filters(destination.port()).any(|k| *k == kind);
    let speaks_tls = call.tls != CallTls::Plaintext;
    let mut seen = Seen::default();
    if speaks_tls && inspects(ListenerFilterKind::TlsInspector) {
        seen.transport = Transport::Tls;
        seen.server_name = server_name(call);
        seen.protocols = alpn(call);
    } else if speaks_tls {
        answer.why.step(|| "no TLS inspector looks at this port: TLS is taken for plain bytes".to_owned());
    } else if inspects(ListenerFilterKind::HttpInspector) {
        seen.protocols = match call.protocol {
            Protocol::Http => vec!["http/1.1".to_owned()],
            Protocol::Http2 => vec!["h2c".to_owned()],
            Protocol::Tcp => vec![],
        };
    }
    seen.tell(&mut answer.why);
    let protocols: Vec<&[u8]> = seen.protocols.iter().map(|name| name.as_bytes()).collect();
    let connection = ConnectionView {
        transport: seen.transport,
        server_name: seen.server_name.as_deref(),
        application_protocols: &protocols,
        ..view(call, destination, None)
    };
    let chain = listener.filter_chain(&connection, &mut answer.why).ok_or(Failure::NoFilterChain)?;
    answer.filter_chain_matched = Some(chain.name.to_string());
    answer.why.step(|| format!("filter chain {:?} takes it ({})", chain.name, chain.matches));
    Ok(chain.clone())
}

struct Seen {
    transport: Transport,
    server_name: Option<String>,
    protocols: Vec<String>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { transport: Transport::RawBuffer, server_name: None, protocols: Vec::new() }
    }
}

impl Seen {
    fn tell(&self, why: &mut Vec<String>) {
        let name =
            self.server_name.as_deref().map(|name| format!(", server name {name}")).unwrap_or_default();
        let protocols = match self.protocols.join(", ") {
            list if list.is_empty() => String::new(),
            list => format!(", application protocols {list}"),
        };
        why.step(|| format!("the inspectors see {}{name}{protocols}", self.transport.name()));
    }
}

/// A call's connection.
pub(super) fn view<'a>(
    call: &Call,
    destination: SocketAddr,
    peer: Option<PeerCertificate<'a>>,
) -> ConnectionView<'a> {
    let source = SocketAddr::new(call.source.unwrap_or(IpAddr::from([10, 255, 255, 254])), 40_000);
    ConnectionView { destination, source, direct_source: source, peer, ..ConnectionView::default() }
}

fn server_name(call: &Call) -> Option<String> {
    let host = crate::routes::without_port(&call.host_header);
    let name = match (call.sni.as_str(), call.tls) {
        ("", CallTls::Mtls) => format!("outbound_.{}_._.{host}", call.port),
        ("", _) => host.to_owned(),
        (sni, _) => sni.to_owned(),
    };
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// What a caller of this kind offers; a sidecar's list for mutual TLS.
fn alpn(call: &Call) -> Vec<String> {
    let usual: &[&str] = match (call.tls, call.protocol) {
        _ if !call.alpn.is_empty() => &[call.alpn.as_str()],
        (CallTls::Mtls, Protocol::Http) => &["istio-http/1.1", "istio", "http/1.1"],
        (CallTls::Mtls, Protocol::Http2) => &["istio-h2", "istio", "h2"],
        (CallTls::Mtls, Protocol::Tcp) => &["istio-peer-exchange", "istio"],
        (_, Protocol::Http) => &["http/1.1"],
        (_, Protocol::Http2) => &["h2"],
        (_, Protocol::Tcp) => &[],
    };
    usual.iter().map(|name| (*name).to_owned()).collect()
}

/// Ends TLS by the chain's rules; true when it was ended.
pub(super) fn terminate(chain: &FilterChain, call: &Call, answer: &mut Answer) -> Result<bool, Failure> {
    let Some(tls) = &chain.tls else {
        let downstream = if call.tls == CallTls::Plaintext { "plaintext" } else { "passthrough" };
        answer.tls = Some(TlsAnswer { downstream, upstream: None });
        return Ok(false);
    };
    if call.tls == CallTls::Plaintext {
        return Err(Failure::TlsError);
    }
    if tls.require_client_certificate {
        let wanted = match call.mtls_secret_config_name.as_str() {
            "" => "default",
            name => name,
        };
        let fits = tls.common.certificates.iter().any(|source| match source {
            CertificateSource::Sds(secret) => &*secret.name == wanted,
            CertificateSource::Inline(_) => true,
        });
        if call.tls != CallTls::Mtls || !fits {
            answer.why.step(|| {
                format!("the chain asks for a client certificate; the caller has one of {wanted:?}")
            });
            return Err(Failure::MtlsError);
        }
    }
    let downstream = if tls.require_client_certificate { "mtls" } else { "tls" };
    answer.tls = Some(TlsAnswer { downstream, upstream: None });
    Ok(true)
}

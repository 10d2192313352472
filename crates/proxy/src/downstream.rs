//! What is known of one connection of a client, from accept to close.

use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use lateen_ca::tls::PeerCertificate;
use lateen_route::ConnectionView;
use lateen_route::rate_limit::{Buckets, LocalRateLimit};
use lateen_route::request::Transport;

/// One connection.
#[derive(Debug)]
pub(crate) struct Downstream {
    /// Distinct over the life of the process.
    pub id: u64,
    /// Where the client was going: the original destination where it was restored.
    pub local: SocketAddr,
    /// Whether `local` was restored: the client was going there when it was redirected here.
    pub restored: bool,
    /// The client.
    pub remote: SocketAddr,
    /// The socket's peer.
    pub direct_remote: SocketAddr,
    /// `local` as logs write it.
    pub local_text: Box<str>,
    /// `remote` as logs write it.
    pub remote_text: Box<str>,
    /// What the inspectors found.
    pub inspected: Inspected,
    /// The TLS session, once it is up.
    pub tls: Option<Session>,
    /// The name of the filter chain that took it.
    pub chain: std::sync::Arc<str>,
    /// The `x-forwarded-client-cert` element for this connection.
    pub client_cert: OnceCell<Option<HeaderValue>>,
    /// Its own buckets, where rate limits are per connection.
    pub buckets: RefCell<Vec<OwnBuckets>>,
}

/// A connection's buckets for one filter.
type OwnBuckets = (std::sync::Arc<LocalRateLimit>, std::rc::Rc<Buckets>);

/// What the inspectors found in the first bytes.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// A TLS client hello.
    pub tls: bool,
    /// The server name asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// ALPN, or the HTTP version found.
    pub protocols: Vec<Vec<u8>>,
}

/// A TLS session with a client.
#[derive(Debug)]
pub(crate) struct Session {
    /// `TLSv1.3`
    pub version: &'static str,
    /// OpenSSL's name of the cipher.
    pub cipher: Box<str>,
    /// The client's certificate.
    pub peer: Option<PeerCertificate>,
    /// The URI names of our own certificate.
    pub local_uris: Arc<[String]>,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Downstream {
    /// A connection just accepted.
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            local,
            restored: false,
            remote,
            direct_remote: remote,
            local_text: local.to_string().into(),
            remote_text: remote.to_string().into(),
            inspected: Inspected::default(),
            tls: None,
            chain: "".into(),
            client_cert: OnceCell::new(),
            buckets: RefCell::default(),
        }
    }

    /// Takes the destination that the client meant.
    pub(crate) fn restore_destination(&mut self, original: SocketAddr) {
        self.local = original;
        self.restored = true;
        self.local_text = original.to_string().into();
    }

    /// Where the client was going, as ORIGINAL_DST clusters ask: the address of our own listener is no such place.
    pub(crate) fn original(&self) -> Option<SocketAddr> {
        self.restored.then_some(self.local)
    }

    /// Takes the client that a proxy in front speaks for.
    pub(crate) fn restore_source(&mut self, source: SocketAddr) {
        self.remote = source;
        self.remote_text = source.to_string().into();
    }

    /// Calls `with` with the connection as decisions see it.
    pub(crate) fn with_view<R>(&self, with: impl FnOnce(&ConnectionView<'_>) -> R) -> R {
        let protocols: smallvec::SmallVec<[&[u8]; 4]> =
            self.inspected.protocols.iter().map(Vec::as_slice).collect();
        let peer = self.tls.as_ref().and_then(|session| session.peer.as_ref());
        let uris: smallvec::SmallVec<[&str; 2]> =
            peer.iter().flat_map(|peer| peer.uris.iter().map(String::as_str)).collect();
        let dns_names: smallvec::SmallVec<[&str; 2]> =
            peer.iter().flat_map(|peer| peer.dns_names.iter().map(String::as_str)).collect();
        with(&ConnectionView {
            destination: self.local,
            source: self.remote,
            direct_source: self.direct_remote,
            transport: if self.inspected.tls { Transport::Tls } else { Transport::RawBuffer },
            server_name: self.inspected.server_name.as_deref(),
            application_protocols: &protocols,
            peer: peer.map(|peer| lateen_route::request::PeerCertificate {
                validated: true,
                uris: &uris,
                dns_names: &dns_names,
                subject: &peer.subject,
            }),
        })
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// The machine's own address, as a peer would see it: what requests of the proxy's own come from. Nothing is sent to find
/// out: a datagram socket with a peer knows its route.
pub(crate) fn host_address() -> std::net::IpAddr {
    static OWN: std::sync::LazyLock<std::net::IpAddr> = std::sync::LazyLock::new(|| {
        let any = std::net::Ipv4Addr::UNSPECIFIED;
        let documentation = std::net::Ipv4Addr::new(192, 0, 2, 1);
        let socket = std::net::UdpSocket::bind((any, 0));
        let found = socket.and_then(|socket| {
            socket.connect((documentation, 9))?;
            socket.local_addr()
        });
        found.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |address| address.ip())
    });
    *OWN
}

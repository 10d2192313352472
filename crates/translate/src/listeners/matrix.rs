//! Which filter chains an inbound port gets, by protocol and mutual TLS mode (XDS facts, "Inbound chain matrix").

use crate::snapshot::MtlsMode;

/// What a chain makes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Speaks {
    /// Requests.
    Http,
    /// Bytes.
    Tcp,
}

/// What is known of a port's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PortSpeaks {
    /// Requests.
    Http,
    /// Bytes.
    Tcp,
    /// Found out per connection.
    Auto,
}

/// One chain: what it matches and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainShape {
    /// The transport that it matches: `tls`, or `raw_buffer`.
    pub(crate) transport: &'static str,
    /// The application protocols that it matches; none matches all.
    pub(crate) alpn: &'static [&'static str],
    /// Whether it terminates mutual TLS.
    pub(crate) terminates: bool,
    /// What it makes of the bytes.
    pub(crate) speaks: Speaks,
}

/// Protocols that mesh peers offer for requests.
pub(crate) const MESH_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Protocols that mesh peers offer for bytes.
pub(crate) const MESH_TCP: &[&str] = &["istio-peer-exchange", "istio"];
/// All protocols that mesh peers offer.
pub(crate) const MESH_ALL: &[&str] =
    &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Plain HTTP, as the HTTP inspector names it.
pub(crate) const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];

const fn tls(alpn: &'static [&'static str], speaks: Speaks) -> ChainShape {
    ChainShape { transport: "tls", alpn, terminates: true, speaks }
}

const fn plain(alpn: &'static [&'static str], speaks: Speaks) -> ChainShape {
    ChainShape { transport: "raw_buffer", alpn, terminates: false, speaks }
}

const TLS_UNTOUCHED: ChainShape =
    ChainShape { transport: "tls", alpn: &[], terminates: false, speaks: Speaks::Tcp };

/// The chains of a port, in order.
pub(crate) fn chains(port: PortSpeaks, mode: MtlsMode) -> &'static [ChainShape] {
    use Speaks::{Http, Tcp};
    match (port, mode) {
        (PortSpeaks::Auto, MtlsMode::Permissive) => {
            const {
                &[
                    tls(MESH_HTTP, Http),
                    plain(PLAIN_HTTP, Http),
                    tls(MESH_TCP, Tcp),
                    plain(&[], Tcp),
                    TLS_UNTOUCHED,
                ]
            }
        }
        (PortSpeaks::Auto, MtlsMode::Strict) => const { &[tls(MESH_HTTP, Http), tls(&[], Tcp)] },
        (PortSpeaks::Auto, MtlsMode::Disable) => const { &[plain(PLAIN_HTTP, Http), plain(&[], Tcp)] },
        (PortSpeaks::Http, MtlsMode::Permissive) => const { &[tls(MESH_ALL, Http), plain(&[], Http)] },
        (PortSpeaks::Http, MtlsMode::Strict) => const { &[tls(&[], Http)] },
        (PortSpeaks::Http, MtlsMode::Disable) => const { &[plain(&[], Http)] },
        (PortSpeaks::Tcp, MtlsMode::Permissive) => {
            const { &[tls(MESH_ALL, Tcp), TLS_UNTOUCHED, plain(&[], Tcp)] }
        }
        (PortSpeaks::Tcp, MtlsMode::Strict) => const { &[tls(&[], Tcp)] },
        (PortSpeaks::Tcp, MtlsMode::Disable) => const { &[plain(&[], Tcp)] },
    }
}

/// Which inspectors the chains of a port depend on: of TLS, of HTTP.
pub(crate) fn inspectors(port: PortSpeaks, mode: MtlsMode) -> (bool, bool) {
    (mode != MtlsMode::Disable, port == PortSpeaks::Auto)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_chains() {
        let count = |port, mode| chains(port, mode).len();
        for (port, permissive, strict, disable) in
            [(PortSpeaks::Auto, 5, 2, 2), (PortSpeaks::Http, 2, 1, 1), (PortSpeaks::Tcp, 3, 1, 1)]
        {
            assert_eq!(count(port, MtlsMode::Permissive), permissive);
            assert_eq!(count(port, MtlsMode::Strict), strict);
            assert_eq!(count(port, MtlsMode::Disable), disable);
        }
    }

    #[test]
    fn strict_never_takes_plain_text() {
        for port in [PortSpeaks::Auto, PortSpeaks::Http, PortSpeaks::Tcp] {
            assert!(chains(port, MtlsMode::Strict).iter().all(|chain| chain.terminates));
        }
    }
}

//! Listener filters: what is learnt of a connection before a filter chain is chosen.

use lateen_proto::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use lateen_proto::envoy::config::listener::v3::{
    ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter,
};
use lateen_proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use lateen_proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use lateen_proto::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use lateen_proto::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use lateen_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use lateen_proto::envoy::r#type::v3::Int32Range;
use lateen_proto::{Any, Message, Name};

/// Bytes that the TLS inspector begins with; a client hello rarely needs more.
const TLS_INSPECTOR_BUFFER: u32 = 512;

/// Reads SNI and ALPN of a client hello.
pub(crate) fn tls_inspector() -> ListenerFilter {
    let config = TlsInspector { initial_read_buffer_size: Some(TLS_INSPECTOR_BUFFER), ..Default::default() };
    filter("envoy.filters.listener.tls_inspector", &config)
}

/// Tells HTTP/1.x and HTTP/2 from anything else.
pub(crate) fn http_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.http_inspector", &HttpInspector::default())
}

/// Restores the address that a redirected connection was made to.
pub(crate) fn original_dst() -> ListenerFilter {
    filter("envoy.filters.listener.original_dst", &OriginalDst::default())
}

/// Keeps the client's address upstream (TPROXY).
pub(crate) fn original_src() -> ListenerFilter {
    filter("envoy.filters.listener.original_src", &OriginalSrc { mark: 1337, ..Default::default() })
}

/// Reads the PROXY protocol of a load balancer.
pub(crate) fn proxy_protocol(optional: bool) -> ListenerFilter {
    let config = ProxyProtocol { allow_requests_without_proxy_protocol: optional, ..Default::default() };
    filter("envoy.filters.listener.proxy_protocol", &config)
}

/// Turns an inspector off for the ports that do not need it.
pub(crate) fn disabled_for(mut filter: ListenerFilter, ports: &[u16]) -> ListenerFilter {
    filter.filter_disabled = any_of(ports);
    filter
}

/// Turns an inspector off for all ports but those that need it.
pub(crate) fn enabled_for(mut filter: ListenerFilter, ports: &[u16]) -> ListenerFilter {
    filter.filter_disabled = any_of(ports)
        .map(|rule| ListenerFilterChainMatchPredicate { rule: Some(Rule::NotMatch(Box::new(rule))) });
    filter
}

fn any_of(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let mut rules: Vec<_> = ports.iter().map(|port| port_is(*port)).collect();
    match rules.len() {
        0 => None,
        1 => rules.pop(),
        _ => Some(ListenerFilterChainMatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }),
    }
}

fn port_is(port: u16) -> ListenerFilterChainMatchPredicate {
    let range = Int32Range { start: port.into(), end: i32::from(port) + 1 };
    ListenerFilterChainMatchPredicate { rule: Some(Rule::DestinationPortRange(range)) }
}

fn filter<M: Message + Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(listener_filter::ConfigType::TypedConfig(Any::pack(config))),
    }
}

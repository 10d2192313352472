//! Where a call goes and why, in words: the decisions of the proxy, asked without a proxy.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lateen_proto::envoy::config::{cluster, endpoint, listener as listener_proto, route as route_proto};
use serde::{Deserialize, Serialize};

use crate::balance::{AllHealthy, HostView, Plan};
use crate::cluster::{Cluster, Discovery};
use crate::endpoints::Assignment;
use crate::error::CompileError;
use crate::listener::Listener;
use crate::routes::RouteTable;
use crate::trail::Trail;

mod connection;
mod request;
mod tokens;
mod upstream;

/// Everything that one proxy was given, compiled.
#[derive(Clone, Debug, Default)]
pub struct World {
    listeners: Vec<Arc<Listener>>,
    routes: HashMap<Arc<str>, Arc<RouteTable>>,
    clusters: HashMap<Arc<str>, Arc<Cluster>>,
    endpoints: HashMap<Arc<str>, Arc<Assignment>>,
    /// What the proxy would reject, and so not have.
    pub refused: Vec<CompileError>,
}

/// A call to explain. Empty fields are filled in with what is usual.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Call {
    /// The port called.
    pub port: u16,
    /// The address called.
    pub address: Option<IpAddr>,
    /// The path; `/` unless set.
    pub path: String,
    /// The method; GET unless set.
    pub method: String,
    /// The host header.
    pub host_header: String,
    /// More headers: one value or a list each.
    pub headers: HashMap<String, HeaderValues>,
    /// The protocol.
    pub protocol: Protocol,
    /// Which way it goes; by the proxy's type unless set.
    pub call_mode: Option<CallMode>,
    /// TLS of the caller.
    pub tls: CallTls,
    /// The server name that the caller asks for.
    pub sni: String,
    /// The application protocol that the caller offers.
    pub alpn: String,
    /// Which secret the caller's certificate fits; `default` is the mesh's.
    pub mtls_secret_config_name: String,
    /// Who calls, as `spiffe://cluster.local/ns/NS/sa/SA`.
    pub principal: String,
    /// The caller's address.
    pub source: Option<IpAddr>,
    /// When, in seconds since 1970, for the times of tokens.
    pub now: u64,
}

/// Values of a header.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum HeaderValues {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for HeaderValues {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl HeaderValues {
    /// One more.
    pub fn push(&mut self, value: String) {
        match self {
            Self::Many(values) => values.push(value),
            Self::One(first) => *self = Self::Many(vec![std::mem::take(first), value]),
        }
    }
}

/// The protocol of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1
    Http,
    /// HTTP/2, gRPC
    Http2,
    /// Anything else
    #[default]
    Tcp,
}

/// Which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallMode {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
    /// To a gateway.
    Gateway,
}

/// TLS of a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallTls {
    /// None.
    #[default]
    Plaintext,
    /// Without a client certificate.
    Tls,
    /// With the mesh's certificate.
    Mtls,
}

/// What a call meets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_matched: Option<String>,
    /// The filter chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_chain_matched: Option<String>,
    /// The route configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_config_matched: Option<String>,
    /// The virtual host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_host_matched: Option<String>,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_matched: Option<String>,
    /// The cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_matched: Option<String>,
    /// The answer, where the proxy gives it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// TLS on both sides of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsAnswer>,
    /// Why it gets nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The steps of the decision.
    pub why: Vec<String>,
}

/// An answer of the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Where it sends the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// TLS on both sides of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsAnswer {
    /// What the proxy terminates: `plaintext`, `tls`, `mtls`, or `passthrough`.
    pub downstream: &'static str,
    /// What it speaks to the endpoint: `plaintext`, `tls`, `mtls`, or `by endpoint` when these differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'static str>,
}

/// Why a call gets nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// Nothing listens there.
    #[error("no listener takes the connection")]
    NoListener,
    /// No filter chain takes the connection.
    #[error("no filter chain takes the connection")]
    NoFilterChain,
    /// No virtual host takes the host.
    #[error("no virtual host takes the host")]
    NoVirtualHost,
    /// No route takes the request.
    #[error("no route takes the request")]
    NoRoute,
    /// The client is sent to HTTPS.
    #[error("the client is redirected to HTTPS")]
    TlsRedirect,
    /// TLS is expected and none is spoken.
    #[error("the filter chain expects TLS")]
    TlsError,
    /// A client certificate is expected and none fits.
    #[error("the filter chain expects another client certificate")]
    MtlsError,
    /// HTTP is expected and something else is spoken.
    #[error("the filter chain expects HTTP")]
    ProtocolError,
}

impl World {
    /// Compiles what a proxy was given. A resource that the proxy would reject is left out and told in `refused`.
    pub fn compile(
        listeners: &[listener_proto::v3::Listener],
        routes: &[route_proto::v3::RouteConfiguration],
        clusters: &[cluster::v3::Cluster],
        endpoints: &[endpoint::v3::ClusterLoadAssignment],
    ) -> Self {
        let mut world = Self::default();
        let mut refused = Vec::new();
        fn keep<T>(
            result: Result<crate::Compiled<T>, CompileError>,
            refused: &mut Vec<CompileError>,
        ) -> Option<Arc<T>> {
            result.map_err(|error| refused.push(error)).ok().map(|compiled| Arc::new(compiled.value))
        }
        for message in listeners {
            world.listeners.extend(keep(crate::compile_listener(message), &mut refused));
        }
        for message in routes {
            if let Some(table) = keep(crate::compile_routes(message), &mut refused) {
                world.routes.insert(table.name.clone(), table);
            }
        }
        for message in clusters {
            if let Some(cluster) = keep(crate::compile_cluster(message), &mut refused) {
                world.clusters.insert(cluster.name.clone(), cluster);
            }
        }
        for message in endpoints {
            if let Some(assignment) = keep(crate::compile_endpoints(message), &mut refused) {
                world.endpoints.insert(assignment.name.clone(), assignment);
            }
        }
        world.refused = refused;
        world
    }

    /// Where a call goes. `proxy` is the proxy's own address, `gateway` whether it is a gateway.
    pub fn explain(&self, call: &Call, proxy: IpAddr, gateway: bool) -> Answer {
        let mode = call.call_mode.unwrap_or(if gateway { CallMode::Gateway } else { CallMode::Outbound });
        let mut answer = Answer::default();
        if let Err(failure) = self.follow(call, mode, proxy, &mut answer) {
            answer.why.step(|| failure.to_string());
            answer.error = Some(failure);
        }
        answer
    }

    fn follow(&self, call: &Call, mode: CallMode, proxy: IpAddr, answer: &mut Answer) -> Result<(), Failure> {
        let target = call.address.unwrap_or(match mode {
            CallMode::Inbound | CallMode::Gateway => proxy,
            CallMode::Outbound => UNKNOWN,
        });
        let destination = SocketAddr::new(target, call.port);
        let (listener, proxied) = self.listener(call, mode, destination, &mut answer.why)?;
        answer.listener_matched = Some(listener.name.to_string());
        let chain = connection::chain(&listener, call, destination, answer)?;
        let terminated = connection::terminate(&chain, call, answer)?;
        self.filters(&chain, call, destination, terminated, proxied, answer)
    }

    /// The cluster by name, and what would happen there.
    fn arrive(&self, name: &str, answer: &mut Answer) {
        answer.cluster_matched = Some(name.to_owned());
        let Some(cluster) = self.clusters.get(name) else {
            answer.why.step(|| format!("the proxy has no cluster {name:?}: 503 (flag NC)"));
            return;
        };
        let upstream = upstream::describe(cluster, self.assignment(cluster), &AllHealthy, &mut answer.why);
        if let Some(tls) = &mut answer.tls {
            tls.upstream = upstream;
        }
    }

    fn assignment<'w>(&'w self, cluster: &'w Cluster) -> Option<&'w Assignment> {
        match &cluster.discovery {
            Discovery::Static(assignment) => Some(assignment),
            Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => Some(&dns.assignment),
            Discovery::Eds(name) => self.endpoints.get(name).map(|assignment| &**assignment),
            Discovery::OriginalDst { .. } | Discovery::DynamicForwardProxy(_) => None,
        }
    }
}

/// Where a call goes whose address is not told: an address that no service has.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 3, 3, 7));

fn plan(cluster: &Cluster, assignment: &Assignment, view: &impl HostView) -> Plan {
    Plan::new(assignment, &cluster.balancing, view)
}

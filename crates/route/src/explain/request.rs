//! From the filter chain to the cluster.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_proto::envoy::config::core::v3::Metadata;

use super::{Answer, Call, CallTls, Failure, HeaderValues, Protocol, Response, World, tokens};
use crate::entropy::Entropy;
use crate::ext_authz::Service;
use crate::http_manager::{HttpFilterKind, HttpManager, RouteSource};
use crate::listener::FilterChain;
use crate::metadata_match::MetadataMatcher;
use crate::network::NetworkFilter;
use crate::rbac::{self, RbacFilter, Subject, Verdict};
use crate::request::{ConnectionView, PeerCertificate, RequestView, Transport};
use crate::routes::{Action, Destination, Route, RouteTable, without_port};
use crate::trail::Trail;

impl World {
    /// Walks the network filters of a chain.
    pub(super) fn filters(
        &self,
        chain: &FilterChain,
        call: &Call,
        destination: SocketAddr,
        terminated: bool,
        proxied: bool,
        answer: &mut Answer,
    ) -> Result<(), Failure> {
        let uris = [call.principal.as_str()];
        let peer = (call.tls == CallTls::Mtls && terminated).then(|| PeerCertificate {
            validated: true,
            uris: if call.principal.is_empty() { &[] } else { &uris },
            ..PeerCertificate::default()
        });
        let mut connection = super::connection::view(call, destination, peer);
        if terminated {
            connection.transport = Transport::Tls;
        }
        let mut by_server_name = false;
        let mut metadata = Metadata::default();
        for filter in &chain.filters {
            match filter {
                NetworkFilter::Rbac(rbac) => {
                    let subject = Subject { connection: &connection, request: None };
                    keep(&mut metadata, rbac::NETWORK_METADATA, tried(rbac, subject, &mut answer.why));
                    if !permitted(rbac, subject, &mut answer.why) {
                        return Ok(());
                    }
                }
                NetworkFilter::ExtAuthz(check) => {
                    if let Some(step) = asks(check.enabled.as_ref(), &metadata, &check.service.cluster) {
                        answer.why.step(|| step);
                    }
                }
                NetworkFilter::SniCluster => by_server_name = true,
                NetworkFilter::Tcp(proxy) => {
                    let clusters: Vec<&str> = proxy.clusters().map(|name| &**name).collect();
                    let name = match by_server_name {
                        true => call.sni.as_str(),
                        false => proxy.cluster(Entropy::default()),
                    };
                    answer.why.step(|| format!("the bytes go to {name} (of {})", clusters.join(", ")));
                    self.arrive(name, answer);
                    return Ok(());
                }
                NetworkFilter::DirectResponse(_) => {
                    answer.why.step(|| "the connection is answered and closed".to_owned());
                    return Ok(());
                }
                NetworkFilter::Http(manager) => {
                    let encrypted = call.tls != CallTls::Plaintext && !terminated;
                    if encrypted || (call.protocol == Protocol::Tcp && !proxied) {
                        return Err(Failure::ProtocolError);
                    }
                    return self.http(manager, call, &connection, terminated, proxied, answer);
                }
                NetworkFilter::SetFilterState(_)
                | NetworkFilter::LocalRateLimit(_)
                | NetworkFilter::MetadataExchange(_)
                | NetworkFilter::IstioStats(_) => {}
            }
        }
        answer.why.step(|| "the filter chain has no filters: the connection is closed".to_owned());
        Ok(())
    }

    fn http(
        &self,
        manager: &HttpManager,
        call: &Call,
        connection: &ConnectionView<'_>,
        terminated: bool,
        proxied: bool,
        answer: &mut Answer,
    ) -> Result<(), Failure> {
        let table = match &manager.routes {
            RouteSource::Inline(table) => table,
            RouteSource::Rds(name) => {
                answer.route_config_matched = Some(name.to_string());
                let Some(table) = self.routes.get(name) else {
                    answer
                        .why
                        .step(|| format!("the proxy has no route configuration {name:?}: 404 (flag NR)"));
                    return Err(Failure::NoRoute);
                };
                table
            }
        };
        answer.route_config_matched = Some(table.name.to_string());
        let mut head = Head::of(call, connection.destination, proxied);
        let scheme = if terminated { "https" } else { "http" };
        let mut metadata = Metadata::default();
        for filter in &manager.filters {
            let request = head.view(scheme, connection, Some(&metadata));
            let subject = Subject { connection, request: Some(&request) };
            let facts = match &filter.kind {
                HttpFilterKind::Jwt(filter) => {
                    match tokens::judge(filter, &request, call.now, &mut answer.why) {
                        Ok(accepted) => tokens::apply(accepted, &mut head, &mut metadata),
                        Err(status) => {
                            answer.response = Some(Response { status, location: None });
                            return Ok(());
                        }
                    }
                    continue;
                }
                HttpFilterKind::Rbac(rbac) => {
                    let facts = tried(rbac, subject, &mut answer.why);
                    if !permitted(rbac, subject, &mut answer.why) {
                        answer.response = Some(Response { status: 403, location: None });
                        return Ok(());
                    }
                    facts
                }
                HttpFilterKind::ExtAuthz(check) => {
                    let cluster = match &check.service {
                        Service::Grpc(grpc) => &grpc.cluster,
                        Service::Http(http) => &http.cluster,
                    };
                    if let Some(step) = asks(check.enabled.metadata.as_ref(), &metadata, cluster) {
                        answer.why.step(|| step);
                    }
                    continue;
                }
                _ => continue,
            };
            keep(&mut metadata, rbac::HTTP_METADATA, facts);
        }
        self.route(table, &head.view(scheme, connection, Some(&metadata)), answer)
    }

    fn route(
        &self,
        table: &RouteTable,
        request: &RequestView<'_>,
        answer: &mut Answer,
    ) -> Result<(), Failure> {
        let entropy = Entropy::default();
        let selected = table.route(request, false, entropy, &mut answer.why).ok_or(Failure::NoVirtualHost)?;
        answer.virtual_host_matched = Some(selected.virtual_host.name.to_string());
        tell_config("virtual host", selected.virtual_host.config.as_deref(), &mut answer.why);
        if selected.redirect_to_tls {
            let location = format!("https://{}{}", request.authority, request.path);
            answer.response = Some(Response { status: 301, location: Some(location) });
            return Err(Failure::TlsRedirect);
        }
        let route = selected.route.ok_or(Failure::NoRoute)?;
        answer.route_matched = Some(route.name.to_string());
        tell_config("route", route.config.as_deref(), &mut answer.why);
        self.act(route, request, entropy, answer);
        Ok(())
    }

    fn act(&self, route: &Route, request: &RequestView<'_>, entropy: Entropy, answer: &mut Answer) {
        match &route.action {
            Action::Redirect(redirect) => {
                let location = redirect.location(request);
                answer.why.step(|| format!("the client is redirected to {location}"));
                answer.response = Some(Response { status: redirect.status, location: Some(location) });
            }
            Action::Direct(direct) => {
                answer.why.step(|| format!("the proxy itself answers {}", direct.status));
                answer.response = Some(Response { status: direct.status, location: None });
                // Refusing what nobody registered is, for requests, what the cluster without endpoints is for bytes.
                if answer.virtual_host_matched.as_deref() == Some("block_all") {
                    answer.cluster_matched = Some("BlackHoleCluster".to_owned());
                }
            }
            Action::NonForwarding => {
                answer.response = Some(Response { status: 404, location: None });
            }
            Action::Forward(forward) => {
                if let Destination::Weighted { clusters, total, .. } = &forward.destination {
                    for cluster in clusters {
                        let (name, weight) = (&cluster.name, cluster.weight);
                        answer.why.step(|| format!("{weight} of {total} requests go to {name}"));
                    }
                }
                if let Some(rewrite) = &forward.path_rewrite {
                    answer.why.step(|| format!("the path becomes {}", rewrite.apply(request)));
                }
                match forward.destination.pick(request, entropy) {
                    Some(pick) => self.arrive(pick.name, answer),
                    None => answer.why.step(|| "no request header names a cluster: 503 (flag NC)".to_owned()),
                }
            }
        }
    }
}

fn tell_config(what: &str, config: Option<&str>, why: &mut Vec<String>) {
    if let Some(config) = config {
        why.step(|| format!("the {what} comes from {config}"));
    }
}

/// What rules on trial say, which later filters may look at.
fn tried(rbac: &RbacFilter, subject: Subject<'_>, why: &mut Vec<String>) -> Facts {
    let Some(verdict) = rbac.judge_shadow(subject) else { return Vec::new() };
    why.step(|| match verdict {
        Verdict::Allowed(Some(policy)) => format!("on trial: policy {policy} would let it pass"),
        Verdict::Allowed(None) => "on trial: no policy would object".to_owned(),
        Verdict::Denied(Some(policy)) => format!("on trial: policy {policy} matches"),
        Verdict::Denied(None) => "on trial: no policy would allow it".to_owned(),
    });
    rbac.shadow_facts(verdict)
}

type Facts = Vec<(String, lateen_proto::Value)>;

fn keep(metadata: &mut Metadata, filter: &str, facts: Facts) {
    if !facts.is_empty() {
        metadata.filter_metadata.entry(filter.to_owned()).or_default().fields.extend(facts);
    }
}

/// Whether a service is asked, in words: what it answers is not known here.
fn asks(enabled: Option<&MetadataMatcher>, metadata: &Metadata, cluster: &str) -> Option<String> {
    let asked = enabled.is_none_or(|matcher| matcher.matches(Some(metadata)));
    asked.then(|| format!("{cluster} is asked whether it may pass: what follows holds if it says yes"))
}

fn permitted(rbac: &RbacFilter, subject: Subject<'_>, why: &mut Vec<String>) -> bool {
    let verdict = rbac.judge(subject);
    if let Some(rules) = &rbac.rules {
        why.step(|| match verdict {
            Verdict::Allowed(Some(policy)) => format!("policy {policy} lets it pass"),
            Verdict::Allowed(None) => "no policy objects".to_owned(),
            Verdict::Denied(Some(policy)) => format!("policy {policy} denies it"),
            Verdict::Denied(None) => "no policy allows it: it is denied".to_owned(),
        });
        if let (Verdict::Denied(None), Some(miss)) = (verdict, rules.nearest_miss(subject)) {
            why.step(|| format!("nearest is policy {}, which wants {}", miss.policy, miss.unmet.join("; ")));
        }
    }
    if let Some(detail) = verdict.denial() {
        why.step(|| format!("the log says {detail}"));
    }
    verdict.is_allowed()
}

/// The head of a call's request.
pub(super) struct Head {
    method: String,
    authority: String,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

impl Head {
    fn view<'v>(
        &'v self,
        scheme: &'v str,
        connection: &'v ConnectionView<'v>,
        metadata: Option<&'v Metadata>,
    ) -> RequestView<'v> {
        RequestView {
            method: &self.method,
            scheme,
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
            connection,
            metadata,
            remote: None,
        }
    }

    fn of(call: &Call, destination: SocketAddr, proxied: bool) -> Self {
        let usual =
            |text: &str, unset: &str| if text.is_empty() { unset.to_owned() } else { text.to_owned() };
        let host = usual(&call.host_header, &destination.ip().to_string());
        let connect = proxied && call.protocol == Protocol::Tcp;
        let has_port = without_port(&host) != host;
        let authority = match (proxied, connect || call.port != 80) {
            (true, true) if !has_port => format!("{host}:{}", call.port),
            _ => host,
        };
        let mut headers = HeaderMap::new();
        for (name, values) in &call.headers {
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
            let values = match values {
                HeaderValues::One(value) => std::slice::from_ref(value),
                HeaderValues::Many(values) => values,
            };
            for value in values.iter().filter_map(|value| HeaderValue::from_str(value).ok()) {
                headers.append(name.clone(), value);
            }
        }
        Self {
            method: usual(&call.method, if connect { "CONNECT" } else { "GET" }),
            authority,
            path: usual(&call.path, "/"),
            headers,
        }
    }
}

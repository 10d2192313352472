//! What happens behind the cluster.

use crate::balance::HostView;
use crate::cluster::{Cluster, Discovery, Transport};
use crate::endpoints::Assignment;
use crate::trail::Trail;

/// Tells endpoints and transport; returns the transport in one word.
pub(super) fn describe(
    cluster: &Cluster,
    assignment: Option<&Assignment>,
    view: &impl HostView,
    why: &mut Vec<String>,
) -> Option<&'static str> {
    if let Some(config) = &cluster.istio.config {
        why.step(|| format!("cluster {} comes from {config}", cluster.name));
    }
    let Some(assignment) = assignment else {
        why.step(|| match &cluster.discovery {
            Discovery::OriginalDst { .. } => "the endpoint is where the connection was going".to_owned(),
            Discovery::DynamicForwardProxy(_) => "the endpoint is what DNS says of the host".to_owned(),
            _ => format!("the proxy has no endpoints of {}: 503 (flag UH)", cluster.name),
        });
        return Some(word(cluster.transport(None)));
    };
    let plan = super::plan(cluster, assignment, view);
    if plan.is_empty() {
        why.step(|| format!("{} has no endpoint to use: 503 (flag UH)", cluster.name));
        return None;
    }
    plan.describe(assignment, why);
    let mut words: Vec<&'static str> = Vec::new();
    for host in plan.hosts() {
        let host = &assignment.hosts[host];
        let transport = word(cluster.transport(host.metadata.as_deref()));
        why.step(|| format!("endpoint {} ({transport})", host.address));
        if !words.contains(&transport) {
            words.push(transport);
        }
    }
    match words[..] {
        [one] => Some(one),
        _ => Some("by endpoint"),
    }
}

fn word(transport: &Transport) -> &'static str {
    match transport.tls() {
        None => "plaintext",
        Some(tls) if tls.common.certificates.is_empty() => "tls",
        Some(_) => "mtls",
    }
}

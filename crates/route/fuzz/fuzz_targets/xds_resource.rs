//! Whatever a control plane sends as a resource: it compiles or is refused, and what compiled decides, without a panic.
//!
//! The first byte chooses the type, the rest is the message on the wire.
#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use lateen_proto::Message;
use lateen_proto::envoy::config::{cluster, endpoint, listener, route};
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_route::balance::{AllHealthy, Draw};
use lateen_route::explain::{Call, CallMode, CallTls, Protocol, World};
use lateen_route::routes::Action;
use lateen_route::{ConnectionView, Entropy, Plan, RequestView};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => drive_listener(bytes),
        1 => drive_routes(bytes),
        2 => drive_cluster(bytes),
        3 => drive_endpoints(bytes),
        _ => {
            let _ = Secret::decode(bytes).map(|message| lateen_route::compile_secret(&message).is_ok());
        }
    }
});

fn drive_listener(bytes: &[u8]) {
    let Ok(message) = listener::v3::Listener::decode(bytes) else { return };
    let Ok(compiled) = lateen_route::compile_listener(&message) else { return };
    let protocols: [&[u8]; 2] = [b"h2c", b"http/1.1"];
    let connection = ConnectionView {
        server_name: Some("a.example.com"),
        application_protocols: &protocols,
        ..ConnectionView::default()
    };
    let _ = compiled.value.filter_chain(&connection, &mut Vec::new());
    let world = World::compile(&[message], &[], &[], &[]);
    for mode in [CallMode::Inbound, CallMode::Outbound, CallMode::Gateway] {
        let call = Call {
            port: 80,
            host_header: "a".into(),
            protocol: Protocol::Http,
            call_mode: Some(mode),
            tls: CallTls::Mtls,
            ..Call::default()
        };
        let _ = world.explain(&call, IpAddr::from([10, 0, 0, 1]), false);
    }
}

fn drive_routes(bytes: &[u8]) {
    let Ok(message) = route::v3::RouteConfiguration::decode(bytes) else { return };
    let Ok(compiled) = lateen_route::compile_routes(&message) else { return };
    let connection = ConnectionView::default();
    let mut headers = HeaderMap::new();
    headers.insert("cookie", HeaderValue::from_static("a=b; c"));
    for (authority, path) in [("a.example.com:80", "/a/b?c=d#e"), ("[::1]:80", "/"), ("", "")] {
        let request = RequestView {
            method: "GET",
            scheme: "http",
            authority,
            path,
            headers: &headers,
            connection: &connection,
            metadata: None,
            remote: None,
        };
        let selected = compiled.value.route(&request, false, Entropy(7), &mut Vec::new());
        let Some(found) = selected.and_then(|selected| selected.route) else { continue };
        match &found.action {
            Action::Forward(forward) => {
                let _ = forward.destination.pick(&request, Entropy(9));
                let _ = forward.hash(&request);
                let _ = forward.path_rewrite.as_ref().map(|rewrite| rewrite.apply(&request));
            }
            Action::Redirect(redirect) => {
                let _ = redirect.location(&request);
            }
            Action::Direct(_) | Action::NonForwarding => {}
        }
    }
}

fn drive_cluster(bytes: &[u8]) {
    let Ok(message) = cluster::v3::Cluster::decode(bytes) else { return };
    let Ok(compiled) = lateen_route::compile_cluster(&message) else { return };
    if let lateen_route::cluster::Discovery::Static(assignment) = &compiled.value.discovery {
        let plan = Plan::new(assignment, &compiled.value.balancing, &AllHealthy);
        let _ = plan.pick(Draw { entropy: Entropy(3), turn: 5, hash: Some(1), attempt: 0 }, &AllHealthy);
        for host in &assignment.hosts {
            let _ = compiled.value.transport(host.metadata.as_deref());
        }
    }
}

fn drive_endpoints(bytes: &[u8]) {
    use lateen_route::cluster::{Balancing, LeastRequest, Policy};
    let Ok(message) = endpoint::v3::ClusterLoadAssignment::decode(bytes) else { return };
    let Ok(compiled) = lateen_route::compile_endpoints(&message) else { return };
    for (policy, locality_weighted) in [(Policy::RoundRobin, false), (Policy::LeastRequest(LeastRequest { choices: 2, bias: 1.0 }), true)] {
        let balancing = Balancing { policy, panic_threshold: 50.0, locality_weighted, slow_start: None, by_load: None };
        let plan = Plan::new(&compiled.value, &balancing, &AllHealthy);
        let _ = plan.pick(Draw { entropy: Entropy(3), turn: 5, hash: None, attempt: 0 }, &AllHealthy);
        plan.describe(&compiled.value, &mut Vec::new());
    }
}

//! The way to a control plane that runs elsewhere: a service without selector, and its endpoints.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::Installation;
use crate::object::{Maker, Part};

/// The service under which proxies find it.
const NAME: &str = "istiod-remote";

/// The service and endpoints of `values.global.remotePilotAddress`; nothing where there is none. Without a control
/// plane of its own, the cluster's webhooks are served from there, too.
pub(crate) fn objects(installation: &Installation, own_control_plane: bool) -> Vec<Value> {
    let address = installation.text("global.remotePilotAddress");
    if address.is_empty() {
        return Vec::new();
    }
    let make = Maker { installation, part: Part::IstiodRemote, app: NAME };
    let namespace = installation.control_namespace();
    let mut ports = vec![json!({ "name": "tcp-istiod", "port": 15012, "protocol": "TCP" })];
    let mut targets = ports.clone();
    if !own_control_plane {
        let webhook = json!({ "name": "tcp-webhook", "port": 443, "targetPort": 15017, "protocol": "TCP" });
        ports.push(webhook);
        targets.push(json!({ "name": "tcp-webhook", "port": 15017, "protocol": "TCP" }));
    }
    let mut service = make.namespaced("v1", "Service", NAME, namespace);
    // An address with a port, as some write it, is one of Istio's own ports anyway.
    let host = match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.contains(':') => host,
        _ => address.as_str(),
    };
    if host.parse::<IpAddr>().is_err() {
        service["spec"] = json!({ "type": "ExternalName", "externalName": host, "ports": ports });
        return vec![service];
    }
    // With a virtual address the API server can be told to call another port than the one it asks for.
    service["spec"] = json!({ "ports": ports });
    if own_control_plane {
        service["spec"]["clusterIP"] = json!("None");
    }
    let mut endpoints = make.namespaced("v1", "Endpoints", NAME, namespace);
    endpoints["subsets"] = json!([{ "addresses": [{ "ip": host }], "ports": targets }]);
    vec![service, endpoints]
}

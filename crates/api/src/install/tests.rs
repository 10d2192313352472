//! The operator files and flags of the labs, read.

use serde_json::{Value, json};

use super::*;

fn read(spec: Value) -> Result<IstioOperator, String> {
    let object = json!({
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "metadata": { "name": "eastwest" },
        "spec": spec,
    });
    IstioOperator::read(&object).map_err(|errors| errors.to_string())
}

#[test]
fn an_east_west_gateway_is_read() {
    let operator = read(json!({
        "revision": "",
        "profile": "empty",
        "components": { "ingressGateways": [{
            "name": "istio-eastwestgateway",
            "label": { "istio": "eastwestgateway", "topology.istio.io/network": "network1" },
            "enabled": true,
            "k8s": {
                "env": [{ "name": "ISTIO_META_REQUESTED_NETWORK_VIEW", "value": "network1" }],
                "service": { "ports": [{ "name": "tls", "port": 15443, "targetPort": 15443 }] },
            },
        }] },
        "values": {
            "gateways": { "istio-ingressgateway": { "injectionTemplate": "gateway" } },
            "global": { "network": "network1", "logging": { "level": "default:debug" }, "configValidation": true },
        },
    }))
    .unwrap();
    assert_eq!(operator.name, "eastwest");
    let gateway = &operator.spec.components.ingress_gateways[0];
    assert_eq!(gateway.enabled, Some(true));
    assert_eq!(gateway.k8s.as_ref().unwrap().service["ports"][0]["port"], 15443);
}

#[test]
fn errors_name_the_path_and_what_was_meant() {
    for (spec, want) in [
        (json!({ "profil": "demo" }), "spec.profil: unknown field \"profil\"; did you mean \"profile\"?"),
        (
            json!({ "components": { "pilot": { "k8s": { "resorces": {} } } } }),
            "spec.components.pilot.k8s.resorces: unknown field \"resorces\"; did you mean \"resources\"?",
        ),
        (
            json!({ "meshConfig": { "accessLogFiel": "/dev/stdout" } }),
            "spec.meshConfig.accessLogFiel: unknown field \"accessLogFiel\"; did you mean \"accessLogFile\"?",
        ),
        (
            json!({ "meshConfig": { "outboundTrafficPolicy": { "mode": "NEVER" } } }),
            "spec.meshConfig.outboundTrafficPolicy.mode: expected one of REGISTRY_ONLY, ALLOW_ANY, ALLOW_ANY_DYNAMIC_DNS, got the string \"NEVER\"",
        ),
        (
            json!({ "components": { "ingressGateways": [{ "enabled": "yes" }] } }),
            "spec.components.ingressGateways[0].enabled: expected true or false, got the string \"yes\"",
        ),
    ] {
        assert_eq!(read(spec).unwrap_err(), want);
    }
    let unvalidated = read(json!({ "unvalidatedValues": { "anything": { "goes": 1 } } }));
    assert!(unvalidated.is_ok());
    assert!(IstioOperator::read(&json!({ "kind": "Deployment" })).is_err());
}

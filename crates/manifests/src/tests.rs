//! What an installation consists of.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

fn built(files: &[Value], sets: &[&str]) -> Vec<Value> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let installation = Installation::build(files, &sets).unwrap();
    render(&installation).unwrap().into_iter().flat_map(|part| part.objects).collect()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
}

fn ports(service: &Value) -> Vec<(&str, u64)> {
    let ports = service["spec"]["ports"].as_array().unwrap();
    ports.iter().map(|port| (port["name"].as_str().unwrap(), port["port"].as_u64().unwrap())).collect()
}

fn operator(spec: Value) -> Value {
    json!({ "apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": spec })
}

#[test]
fn the_demo_profile_has_what_the_labs_look_for() {
    let objects = built(&[], &["profile=demo"]);
    assert_eq!(
        ports(find(&objects, "Service", "istio-ingressgateway").unwrap()),
        [("status-port", 15021), ("http2", 80), ("https", 443), ("tcp", 31400), ("tls", 15443)]
    );
    assert_eq!(
        ports(find(&objects, "Service", "istio-egressgateway").unwrap()),
        [("http2", 80), ("https", 443)]
    );
    let mesh = find(&objects, "ConfigMap", "istio").unwrap()["data"]["mesh"].as_str().unwrap();
    assert!(mesh.contains("accessLogFile: /dev/stdout"), "{mesh}");
    assert!(mesh.contains("discoveryAddress: istiod.istio-system.svc:15012"), "{mesh}");
    for (kind, name) in [
        ("Deployment", "istiod"),
        ("Deployment", "istio-egressgateway"),
        ("PodDisruptionBudget", "istio-egressgateway"),
        ("ServiceAccount", "istio-egressgateway-service-account"),
        ("Role", "istio-egressgateway-sds"),
        ("MutatingWebhookConfiguration", "istio-sidecar-injector"),
        ("ValidatingWebhookConfiguration", "istiod-default-validator"),
        ("ServiceAccount", "istio-reader-service-account"),
        ("CustomResourceDefinition", "virtualservices.networking.istio.io"),
    ] {
        assert!(find(&objects, kind, name).is_some(), "{kind} {name}");
    }
    assert!(find(&objects, "HorizontalPodAutoscaler", "istiod").is_none());
    assert!(find(&built(&[], &[]), "HorizontalPodAutoscaler", "istiod").is_some());
}

#[test]
fn no_object_is_rendered_twice_and_each_is_owned() {
    let mut seen = BTreeSet::new();
    for object in built(&[], &["profile=demo"]) {
        let key = ["kind", "namespace", "name"].map(|field| {
            let place = if field == "kind" { &object } else { &object["metadata"] };
            place[field].as_str().unwrap_or_default().to_owned()
        });
        assert_eq!(object["metadata"]["labels"][OWNER_LABEL], "installed-state", "{key:?}");
        assert!(seen.insert(key.clone()), "{key:?}");
    }
}

#[test]
fn a_revision_names_its_own_objects() {
    let objects = built(&[], &["profile=minimal", "revision=1-11-4"]);
    for (kind, name) in [
        ("Deployment", "istiod-1-11-4"),
        ("Service", "istiod-1-11-4"),
        ("ConfigMap", "istio-1-11-4"),
        ("ConfigMap", "istio-sidecar-injector-1-11-4"),
        ("MutatingWebhookConfiguration", "istio-sidecar-injector-1-11-4"),
        ("ValidatingWebhookConfiguration", "istio-validator-1-11-4-istio-system"),
        ("HorizontalPodAutoscaler", "istiod-1-11-4"),
    ] {
        assert!(find(&objects, kind, name).is_some(), "{kind} {name}");
    }
    assert!(find(&objects, "ValidatingWebhookConfiguration", "istiod-default-validator").is_none());
    let deployment = find(&objects, "Deployment", "istiod-1-11-4").unwrap();
    assert_eq!(
        deployment["spec"]["selector"]["matchLabels"],
        json!({ "app": "istiod", "istio.io/rev": "1-11-4" })
    );
}

#[test]
fn an_east_west_gateway_adds_itself_and_nothing_else() {
    let eastwest = operator(json!({
        "profile": "empty",
        "components": { "ingressGateways": [{
            "name": "istio-eastwestgateway",
            "label": { "istio": "eastwestgateway", "app": "istio-eastwestgateway", "topology.istio.io/network": "network1" },
            "enabled": true,
            "k8s": {
                "env": [{ "name": "ISTIO_META_REQUESTED_NETWORK_VIEW", "value": "network1" }],
                "service": { "ports": [
                    { "name": "status-port", "port": 15021, "targetPort": 15021 },
                    { "name": "tls", "port": 15443, "targetPort": 15443 },
                ] },
            },
        }] },
        "values": { "global": { "network": "network1" } },
    }));
    let objects = built(&[eastwest], &[]);
    assert!(
        objects
            .iter()
            .all(|object| object["metadata"]["name"].as_str().unwrap().starts_with("istio-eastwestgateway"))
    );
    let service = find(&objects, "Service", "istio-eastwestgateway").unwrap();
    assert_eq!(ports(service), [("status-port", 15021), ("tls", 15443)]);
    assert_eq!(service["spec"]["selector"]["istio"], "eastwestgateway");
    let deployment = find(&objects, "Deployment", "istio-eastwestgateway").unwrap();
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    assert!(
        env.iter()
            .any(|env| env["name"] == "ISTIO_META_REQUESTED_NETWORK_VIEW" && env["value"] == "network1")
    );
}

#[test]
fn a_remote_control_plane_is_reached_by_a_service() {
    let own = built(&[], &["values.global.remotePilotAddress=192.168.229.100"]);
    let endpoints = find(&own, "Endpoints", "istiod-remote").unwrap();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.168.229.100");
    assert_eq!(find(&own, "Service", "istiod-remote").unwrap()["spec"]["clusterIP"], "None");
    assert!(find(&own, "Deployment", "istiod").is_some(), "it injects and signs");
    let mesh = find(&own, "ConfigMap", "istio").unwrap()["data"]["mesh"].as_str().unwrap();
    assert!(mesh.contains("istiod-remote.istio-system.svc:15012"));

    let remote = built(&[], &["profile=remote", "values.global.remotePilotAddress=192.168.229.100"]);
    assert!(find(&remote, "Deployment", "istiod").is_none());
    let injector = find(&remote, "MutatingWebhookConfiguration", "istio-sidecar-injector").unwrap();
    assert_eq!(injector["webhooks"][0]["clientConfig"]["service"]["name"], "istiod-remote");
}

#[test]
fn a_components_own_settings_reach_its_objects() {
    let objects = built(
        &[],
        &[
            "profile=minimal",
            "components.pilot.k8s.resources.requests.cpu=50m",
            "components.pilot.k8s.replicaCount=2",
            "components.pilot.k8s.env[0].name=A",
            "components.pilot.k8s.env[0].value=b",
            "components.pilot.k8s.overlays[0].kind=Deployment",
            "components.pilot.k8s.overlays[0].name=istiod",
            "components.pilot.k8s.overlays[0].patches[0].path=spec.template.spec.containers.[name:discovery].args.[30m]",
            "components.pilot.k8s.overlays[0].patches[0].value=60m",
        ],
    );
    let spec = &find(&objects, "Deployment", "istiod").unwrap()["spec"];
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"], json!({ "cpu": "50m", "memory": "2048Mi" }));
    assert_eq!(spec["replicas"], 2);
    assert!(container["env"].as_array().unwrap().contains(&json!({ "name": "A", "value": "b" })));
    assert!(container["args"].as_array().unwrap().contains(&json!("60m")));
    assert!(find(&objects, "HorizontalPodAutoscaler", "istiod").is_none());
}

#[test]
fn manifests_are_compared_by_field() {
    let text = |sets: &[&str]| {
        let documents: Vec<String> =
            built(&[], sets).iter().map(|object| serde_saphyr::to_string(object).unwrap()).collect();
        documents.join("---\n")
    };
    let base = ["profile=minimal", "revision=1-11-4"];
    let (a, b) = (text(&base), text(&[base[0], base[1], "values.global.meshID=mesh1"]));
    assert_eq!(
        diff(("a", &a), ("b", &b)).unwrap(),
        "\nObject ConfigMap:istio-system:istio-1-11-4 has diffs:\n\n\
         data:\n  mesh:\n    defaultConfig:\n      meshId: <empty> -> mesh1 (ADDED)\n\n\
         \nObject ConfigMap:istio-system:istio-sidecar-injector-1-11-4 has diffs:\n\n\
         data:\n  values:\n    global:\n      meshID: <empty> -> mesh1 (ADDED)\n\n"
    );
    assert_eq!(diff(("a", &a), ("a", &a)).unwrap(), "");
}

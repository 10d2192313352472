//! Kubernetes' `AdmissionReview` in, its answer out.

use serde_json::{Value, json};

use crate::{Decision, Settings, Workload, decide, inject};

/// Answers an `AdmissionReview` of a pod's creation: allowed, with the sidecar as a JSON patch where the pod gets one.
/// A pod that should get a sidecar and cannot is refused, with the reason.
pub fn review(review: &Value, settings: &Settings) -> Value {
    let request = &review["request"];
    let answer = |mut response: Value| {
        response["uid"] = request["uid"].clone();
        json!({
            "apiVersion": review["apiVersion"].as_str().unwrap_or("admission.k8s.io/v1"),
            "kind": "AdmissionReview",
            "response": response,
        })
    };
    let pod = &request["object"];
    let namespace = request["namespace"].as_str().unwrap_or("default");
    if !pod.is_object() {
        let message = "request.object is missing: the injector answers reviews of pods";
        return answer(json!({ "allowed": false, "status": { "code": 400, "message": message } }));
    }
    if let Decision::Skip(_) = decide(pod, namespace, settings) {
        return answer(json!({ "allowed": true }));
    }
    let workload = Workload::of_pod(pod, namespace);
    match inject(pod, &workload, settings) {
        Ok(injected) => answer(json!({
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": base64(json_patch::diff(pod, &injected)),
        })),
        Err(error) => {
            answer(json!({ "allowed": false, "status": { "code": 400, "message": error.to_string() } }))
        }
    }
}

fn base64(patch: json_patch::Patch) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(json!(patch).to_string())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn ask(pod: Value) -> Value {
        let asked = json!({ "request": { "uid": "7", "namespace": "default", "object": pod } });
        review(&asked, &Settings::default())["response"].clone()
    }

    fn patched(pod: &Value, response: &Value) -> Value {
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        patched
    }

    #[test]
    fn the_patch_makes_the_injected_pod() {
        let pod = json!({
            "metadata": {
                "generateName": "reviews-v1-6f9b55c5db-",
                "labels": { "app": "reviews", "version": "v1", "pod-template-hash": "6f9b55c5db" },
                "ownerReferences": [
                    { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "reviews-v1-6f9b55c5db", "controller": true },
                ],
            },
            "spec": { "containers": [{ "name": "reviews", "ports": [{ "containerPort": 9080 }] }] },
        });
        let response = ask(pod.clone());
        assert_eq!(response["uid"], "7");
        assert_eq!(response["allowed"], true);
        let injected = patched(&pod, &response);
        let proxy = &injected["spec"]["initContainers"][1];
        assert_eq!(proxy["name"], "istio-proxy");
        let env = |name: &str| {
            let all = proxy["env"].as_array().unwrap();
            all.iter().find(|env| env["name"] == name).map(|env| env["value"].as_str().unwrap().to_owned())
        };
        assert_eq!(env("ISTIO_META_WORKLOAD_NAME").as_deref(), Some("reviews-v1"));
        assert_eq!(
            env("ISTIO_META_OWNER").as_deref(),
            Some("kubernetes://apis/apps/v1/namespaces/default/deployments/reviews-v1")
        );
        assert!(env("ISTIO_META_POD_PORTS").unwrap().contains("9080"));
        assert_eq!(injected["spec"]["initContainers"][0]["name"], "istio-init");
        assert_eq!(injected["metadata"]["labels"]["security.istio.io/tlsMode"], "istio");
        assert_eq!(injected["metadata"]["labels"]["service.istio.io/canonical-revision"], "v1");
        // Asked again, the pod stays as it is.
        assert!(ask(injected).get("patch").is_none());
    }

    #[test]
    fn a_bad_annotation_refuses_the_pod_and_says_which() {
        let response = ask(json!({
            "metadata": { "annotations": { "sidecar.istio.io/nativeSidecar": "maybe" } },
            "spec": { "containers": [] },
        }));
        assert_eq!(response["allowed"], false);
        assert!(response["status"]["message"].as_str().unwrap().contains("nativeSidecar"));
        assert_eq!(ask(json!({ "spec": {} }))["allowed"], false);
    }
}

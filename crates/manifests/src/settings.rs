//! What the values and `k8s` of a component do to its deployment and service.

use lateen_api::install::KubernetesResources;
use serde_json::{Map, Value, json};

use crate::installation::plain;
use crate::object::extend;

/// A deployment's settings: the values of its chart, and the component's own in Kubernetes' terms, which win.
pub(crate) struct Workload<'a> {
    pub(crate) settings: &'a Value,
    pub(crate) k8s: Option<&'a KubernetesResources>,
}

impl Workload<'_> {
    /// Brings the settings into the deployment and its service.
    pub(crate) fn shape(&self, deployment: &mut Value, service: &mut Value) {
        self.values(deployment, service);
        let Some(k8s) = self.k8s else { return };
        let set = |parent: &mut Value, key: &str, value: &Value| {
            if !value.is_null() {
                extend(&mut parent[key], value);
            }
        };
        set(&mut deployment["spec"], "strategy", &k8s.strategy);
        let template = &mut deployment["spec"]["template"];
        set(&mut template["metadata"], "annotations", &k8s.pod_annotations);
        let pod = &mut template["spec"];
        set(pod, "affinity", &k8s.affinity);
        set(pod, "nodeSelector", &k8s.node_selector);
        set(pod, "securityContext", &k8s.security_context);
        set(pod, "hostNetwork", &k8s.host_network);
        if !k8s.priority_class_name.is_empty() {
            pod["priorityClassName"] = json!(k8s.priority_class_name);
        }
        append(pod, "tolerations", &k8s.tolerations);
        append(pod, "volumes", &k8s.volumes);
        let container = &mut pod["containers"][0];
        if !k8s.image_pull_policy.is_empty() {
            container["imagePullPolicy"] = json!(k8s.image_pull_policy);
        }
        set(container, "resources", &k8s.resources);
        set(container, "readinessProbe", &k8s.readiness_probe);
        append(container, "volumeMounts", &k8s.volume_mounts);
        k8s.env.iter().for_each(|variable| set_env(container, variable));
        if let Some(replicas) = k8s.replica_count {
            deployment["spec"]["replicas"] = json!(replicas);
        }
        set(&mut service["metadata"], "annotations", &k8s.service_annotations);
        set(service, "spec", &k8s.service);
    }

    fn values(&self, deployment: &mut Value, service: &mut Value) {
        let settings = self.settings;
        let given = |key: &str| {
            let empty = |value: &Value| match value {
                Value::Null => true,
                Value::Object(map) => map.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::String(text) => text.is_empty(),
                _ => false,
            };
            settings.get(key).filter(|value| !empty(value)).cloned()
        };
        let scaled = crate::installation::is_true(settings.get("autoscaleEnabled"));
        if let Some(replicas) = given("replicaCount").filter(|_| !scaled) {
            deployment["spec"]["replicas"] = replicas;
        }
        deployment["spec"]["strategy"] = json!({ "rollingUpdate": {
            "maxSurge": settings["rollingMaxSurge"],
            "maxUnavailable": settings["rollingMaxUnavailable"],
        }});
        let places = [
            ("deploymentLabels", "/metadata", "labels"),
            ("deploymentAnnotations", "/metadata", "annotations"),
            ("podLabels", "/spec/template/metadata", "labels"),
            ("podAnnotations", "/spec/template/metadata", "annotations"),
            ("nodeSelector", "/spec/template/spec", "nodeSelector"),
            ("affinity", "/spec/template/spec", "affinity"),
            ("topologySpreadConstraints", "/spec/template/spec", "topologySpreadConstraints"),
            ("initContainers", "/spec/template/spec", "initContainers"),
        ];
        for (key, parent, name) in places {
            if let (Some(value), Some(parent)) = (given(key), deployment.pointer_mut(parent)) {
                extend(&mut parent[name], &value);
            }
        }
        let pod = &mut deployment["spec"]["template"]["spec"];
        for key in ["tolerations", "volumes"] {
            if let Some(Value::Array(items)) = given(key) {
                append(pod, key, &items);
            }
        }
        if let Some(Value::Array(mounts)) = given("volumeMounts") {
            append(&mut pod["containers"][0], "volumeMounts", &mounts);
        }
        if let Some(annotations) = given("serviceAnnotations") {
            service["metadata"]["annotations"] = annotations;
        }
        for key in ["ipFamilyPolicy", "ipFamilies"] {
            if let Some(value) = given(key) {
                service["spec"][key] = value;
            }
        }
    }

    /// The autoscaler, given the component's own spec of it; none where the number of pods is fixed.
    pub(crate) fn scaler(&self, make: impl FnOnce(Option<&Value>) -> Option<Value>) -> Option<Value> {
        let k8s = self.k8s;
        if k8s.is_some_and(|k8s| k8s.replica_count.is_some() && k8s.hpa_spec.is_null()) {
            return None;
        }
        make(k8s.map(|k8s| &k8s.hpa_spec).filter(|spec| !spec.is_null()))
    }

    /// The disruption budget, given the component's own spec of it.
    pub(crate) fn budget(&self, make: impl FnOnce(Option<&Value>) -> Option<Value>) -> Option<Value> {
        make(self.k8s.map(|k8s| &k8s.pod_disruption_budget).filter(|spec| !spec.is_null()))
    }
}

fn append(at: &mut Value, key: &str, items: &[Value]) {
    if items.is_empty() {
        return;
    }
    match at.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.extend(items.iter().cloned()),
        None => at[key] = json!(items),
    }
}

/// Sets a variable, in the place of the one of its name where there is one.
fn set_env(container: &mut Value, variable: &Value) {
    let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) else {
        container["env"] = json!([variable]);
        return;
    };
    match env.iter_mut().find(|known| known["name"] == variable["name"]) {
        Some(known) => *known = variable.clone(),
        None => env.push(variable.clone()),
    }
}

/// A variable of a fixed value.
pub(crate) fn value(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// A variable that is a field of the pod.
pub(crate) fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } })
}

/// `env` of a chart's values: an object of names and values.
pub(crate) fn env_values(env: &Value) -> Vec<Value> {
    let none = Map::new();
    env.as_object().unwrap_or(&none).iter().map(|(name, text)| value(name, &plain(text))).collect()
}

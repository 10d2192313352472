//! The types of `IstioOperator`.

use lateen_base::Labels;
use serde_json::{Map, Value};

use super::values;
use crate::field::{Field, FieldError, FieldErrors, Reader, message};
use crate::mesh::MeshConfig;

/// An installation, typed: see [`IstioOperator::read`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IstioOperator {
    /// Its name, by which it owns what it installs; often empty.
    pub name: String,
    /// What is to be installed.
    pub spec: IstioOperatorSpec,
}

impl IstioOperator {
    /// Reads an object of the kind `IstioOperator`.
    ///
    /// # Errors
    /// Every field that does not exist (with the likeliest meant one) or has the wrong type, by its path.
    pub fn read(object: &Value) -> Result<Self, FieldErrors> {
        let mut reader = Reader::default();
        let mut errors = Vec::new();
        for (field, wanted) in [("kind", "IstioOperator"), ("apiVersion", "install.istio.io/v1alpha1")] {
            match object.get(field).and_then(Value::as_str) {
                Some(found) if found != wanted => {
                    let message = format!("{found:?} is not {wanted}");
                    errors.push(FieldError { path: field.to_owned(), message });
                }
                _ => {}
            }
        }
        let empty = Value::Object(Map::new());
        let spec = object.get("spec").filter(|spec| !spec.is_null()).unwrap_or(&empty);
        let spec = reader.field("spec", |reader| IstioOperatorSpec::read(spec, reader)).unwrap_or_default();
        let (wrong, broken) = reader.finish();
        errors.extend(wrong.into_iter().chain(broken));
        errors.extend(values::check(&spec.values, "spec.values"));
        errors.extend(mesh_errors(&spec.mesh_config));
        if !errors.is_empty() {
            return Err(FieldErrors(errors));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Ok(Self { name, spec })
    }
}

fn mesh_errors(mesh: &Map<String, Value>) -> Vec<FieldError> {
    let mut reader = Reader::at("spec.meshConfig");
    MeshConfig::read(&Value::Object(mesh.clone()), &mut reader);
    reader.finish().0
}

message! {
    /// What is to be installed.
    pub struct IstioOperatorSpec {
        /// The profile it starts from: a name, or the path of a file.
        profile: String,
        /// Not in use: the manifests are built in.
        install_package_path: String,
        /// The registry and folder of images.
        hub: String,
        /// The tag of images.
        tag: Value,
        /// A suffix of images' tags, such as `distroless`.
        variant: String,
        /// The namespace of everything that names no other.
        namespace: String,
        /// The revision; it becomes part of names.
        revision: String,
        /// The version whose defaults hold.
        compatibility_version: Value,
        /// What holds for the whole mesh; see `MeshConfig`.
        mesh_config: Map<String, Value>,
        /// What consists of objects: on, off, and how each runs.
        components: Components,
        /// Values of the charts.
        values: Map<String, Value>,
        /// Values that nobody checks.
        unvalidated_values: Map<String, Value>,
    }
}

message! {
    /// The parts of an installation.
    pub struct Components {
        /// The definitions of the kinds.
        base: Option<ComponentSpec>,
        /// The control plane.
        pilot: Option<ComponentSpec>,
        /// The network plug-in of nodes.
        cni: Option<ComponentSpec>,
        /// The node proxies of ambient mode.
        ztunnel: Option<ComponentSpec>,
        /// The address of a control plane elsewhere.
        istiod_remote: Option<ComponentSpec>,
        /// Gateways by which traffic enters.
        ingress_gateways: Vec<GatewaySpec>,
        /// Gateways by which traffic leaves.
        egress_gateways: Vec<GatewaySpec>,
    }
}

message! {
    /// A part of an installation.
    pub struct ComponentSpec {
        /// Whether it is installed.
        enabled: Option<bool>,
        /// Its namespace, where it is not the installation's.
        namespace: String,
        /// The registry and folder of its image.
        hub: String,
        /// The tag of its image.
        tag: Value,
        /// Not in use.
        spec: Value,
        /// How it runs.
        k8s: Option<KubernetesResources>,
    }
}

message! {
    /// A gateway.
    pub struct GatewaySpec {
        /// Whether it is installed.
        enabled: Option<bool>,
        /// Its namespace, where it is not the installation's.
        namespace: String,
        /// The name of its deployment and service.
        name: String,
        /// Labels of its pods, by which Gateway objects select them.
        label: Labels,
        /// The registry and folder of its image.
        hub: String,
        /// The tag of its image.
        tag: Value,
        /// How it runs.
        k8s: Option<KubernetesResources>,
    }
}

message! {
    /// How a part runs, in Kubernetes' own terms.
    pub struct KubernetesResources {
        /// `affinity` of its pods.
        affinity: Value,
        /// `env` of its container; a name that exists gets the new value.
        env: Vec<Value>,
        /// The spec of its autoscaler.
        hpa_spec: Value,
        /// `imagePullPolicy` of its container.
        image_pull_policy: String,
        /// `nodeSelector` of its pods.
        node_selector: Value,
        /// The spec of its disruption budget.
        pod_disruption_budget: Value,
        /// Annotations of its pods.
        pod_annotations: Value,
        /// Annotations of its service.
        service_annotations: Value,
        /// `priorityClassName` of its pods.
        priority_class_name: String,
        /// `readinessProbe` of its container.
        readiness_probe: Value,
        /// How many pods there are; beats an autoscaler, which is then left out.
        replica_count: Option<u32>,
        /// `resources` of its container.
        resources: Value,
        /// The spec of its service.
        service: Value,
        /// `strategy` of its deployment.
        strategy: Value,
        /// `tolerations` of its pods.
        tolerations: Vec<Value>,
        /// `securityContext` of its pods.
        security_context: Value,
        /// `hostNetwork` of its pods.
        host_network: Value,
        /// `volumes` of its pods, beside its own.
        volumes: Vec<Value>,
        /// `volumeMounts` of its container, beside its own.
        volume_mounts: Vec<Value>,
        /// Changes of finished objects.
        overlays: Vec<K8sObjectOverlay>,
    }
}

message! {
    /// Changes of a finished object.
    pub struct K8sObjectOverlay {
        /// Its version.
        api_version: String,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// The changes, in their order.
        patches: Vec<PathValue>,
    }
}

message! {
    /// A change: a path as `--set` has it, and the value; null deletes.
    pub struct PathValue {
        /// The path, such as `spec.template.spec.containers.[name:discovery].args`.
        path: String,
        /// The value.
        value: Value,
    }
}

//! The resources that both proxies run: what our control plane makes for a sidecar from manifests and mesh configuration.
//!
//! The world is one namespace with a service `echo` and as many idle ones as asked for. Sidecars are those of loopback
//! isolation, since only their listeners can be reached without a kernel that redirects: the outbound side is the HTTP-proxy
//! listener with all virtual hosts, the inbound side the listener of the pod's port. Route configurations, endpoints and
//! certificates are put in place, so that the same resources are a static bootstrap for Envoy and a file for ours.

use std::net::Ipv4Addr;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_proto::json::{Names, any_to_value};
use lateen_registry::manifests::Manifests;
use lateen_translate::{Proxy, Resources, generate, offline};
use serde_json::{Value, json};

use crate::BenchError;

/// The host that requests are for.
pub(crate) const HOST: &str = "echo.default.svc.cluster.local:8000";

/// Where the origin listens, and the application of the pod `echo`.
pub(crate) const ORIGIN: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The pod that calls.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The pod `echo`, where it has a sidecar.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Services beside `echo` in the cases of traffic, so that a request has virtual hosts to be chosen from.
const OTHERS: usize = 20;

/// PEM texts of one identity and the anchor of both.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) chain: String,
    /// Its key.
    pub(crate) key: String,
    /// The anchor.
    pub(crate) root: String,
}

/// How `echo` is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Plain HTTP/1.1, without a sidecar.
    Http1,
    /// Plain HTTP/2, without a sidecar.
    Http2,
    /// Mutual TLS to its sidecar, with HTTP/2 between the two.
    Mtls,
    /// Bytes to its sidecar.
    Tcp,
    /// Bytes over mutual TLS to its sidecar.
    TcpMtls,
}

/// A mesh with `echo`, the port of its origin, and the file of the access log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World<'a> {
    /// How `echo` is reached.
    pub(crate) protocol: Protocol,
    /// The origin's port, which is `echo`'s target port.
    pub(crate) origin: u16,
    /// The access log.
    pub(crate) log: &'a str,
    /// The identity of both sidecars.
    pub(crate) identity: &'a Identity,
}

impl World<'_> {
    /// The client's sidecar; its applications' HTTP proxy is at `port` of [`CLIENT`].
    pub(crate) fn client(&self, port: u16) -> Result<Value, BenchError> {
        self.resources(&sidecar("client", CLIENT, &json!({"HTTP_PROXY_PORT": port.to_string()})), OTHERS)
    }

    /// The sidecar of `echo`: mutual TLS at the origin's port of [`SERVER`], which it forwards to [`ORIGIN`].
    pub(crate) fn server(&self) -> Result<Value, BenchError> {
        self.resources(&sidecar("echo", SERVER, &json!({"LATEEN_APP_ADDRESS": ORIGIN.to_string()})), OTHERS)
    }

    /// The client's sidecar in a mesh of that many services.
    pub(crate) fn idle(&self, port: u16, services: usize) -> Result<Value, BenchError> {
        self.resources(&sidecar("client", CLIENT, &json!({"HTTP_PROXY_PORT": port.to_string()})), services)
    }

    /// What the control plane gives to the client's sidecar at its start, in a mesh of that many services.
    pub(crate) fn scoped(&self, port: u16, services: usize, scoped: bool) -> Result<Resources, BenchError> {
        let annotations = json!({"lateen.dev/scoping": if scoped { "automatic" } else { "off" }});
        let metadata = json!({"HTTP_PROXY_PORT": port.to_string(), "ANNOTATIONS": annotations});
        Ok(self.generated(&sidecar("client", CLIENT, &metadata), services)?.at_start())
    }

    fn resources(&self, proxy: &Value, others: usize) -> Result<Value, BenchError> {
        self.frozen(&self.generated(proxy, others)?)
    }

    fn generated(&self, proxy: &Value, others: usize) -> Result<Resources, BenchError> {
        let text = |error: &dyn std::fmt::Display| BenchError::Text(error.to_string());
        let mesh = json!({
            "accessLogFile": self.log,
            "h2UpgradePolicy": if self.protocol == Protocol::Mtls { "UPGRADE" } else { "DO_NOT_UPGRADE" },
        });
        let mesh = MeshConfig::istio_default().overlaid(&mesh).map_err(|error| text(&error))?;
        let mut manifests = Manifests::default();
        manifests.read("bench", &self.manifests(others));
        let clusters = vec![(offline::CONFIG_CLUSTER.into(), manifests)];
        let (snapshot, warnings) =
            offline::snapshot(mesh, MeshNetworks::default(), "cluster.local", clusters);
        if let Some(warning) = warnings.first() {
            return Err(text(warning));
        }
        let proxy = Proxy::from_json(proxy).map_err(|error| text(&error))?;
        Ok(generate(&snapshot, &proxy))
    }

    /// Resources with everything in its place that would come by name.
    pub(crate) fn frozen(&self, resources: &Resources) -> Result<Value, BenchError> {
        let text = |error: &dyn std::fmt::Display| BenchError::Text(error.to_string());
        let mut dump = json!({"secrets": self.secrets()});
        for (name, list) in [
            ("listeners", &resources.listeners),
            ("clusters", &resources.clusters),
            ("routes", &resources.routes),
            ("endpoints", &resources.endpoints),
        ] {
            let values = list.iter().map(|resource| {
                let mut value = any_to_value(&resource.any, Names::Camel).map_err(|error| text(&error))?;
                // A list says the type of its members.
                value.as_object_mut().map(|fields| fields.remove("@type"));
                Ok(value)
            });
            dump[name] = values.collect::<Result<Vec<Value>, BenchError>>()?.into();
        }
        Ok(testkit::envoy::freeze(&dump)["staticResources"].take())
    }

    fn secrets(&self) -> Value {
        let inline = |text: &str| json!({"inlineString": text});
        json!([
            {"name": "default", "tlsCertificate": {
                "certificateChain": inline(&self.identity.chain), "privateKey": inline(&self.identity.key)}},
            {"name": "ROOTCA", "validationContext": {"trustedCa": inline(&self.identity.root)}},
        ])
    }

    fn manifests(&self, others: usize) -> String {
        let port = match self.protocol {
            Protocol::Http2 => "http2",
            Protocol::Http1 | Protocol::Mtls => "http",
            Protocol::Tcp | Protocol::TcpMtls => "tcp",
        };
        let (address, labels) = match self.protocol {
            Protocol::Mtls | Protocol::Tcp | Protocol::TcpMtls => {
                (SERVER, "app: echo, security.istio.io/tlsMode: istio")
            }
            Protocol::Http1 | Protocol::Http2 => (ORIGIN, "app: echo"),
        };
        let origin = self.origin;
        let mut text = format!(
            "{}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: echo, namespace: default, labels: {{{labels}}}}}\n\
             spec: {{serviceAccountName: bench}}\nstatus: {{phase: Running, podIP: {address}}}\n\
             ---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: default, namespace: default}}\nspec: {{mtls: {{mode: {}}}}}\n",
            service("echo", port, origin, &address.to_string()),
            if matches!(self.protocol, Protocol::Mtls | Protocol::TcpMtls) { "STRICT" } else { "PERMISSIVE" },
        );
        for index in 0..others {
            let address = format!("10.1.{}.{}", index / 250, index % 250 + 1);
            text.push_str(&service(&format!("service-{index}"), "http", 8080, &address));
        }
        text
    }
}

/// A service with one endpoint.
fn service(name: &str, port: &str, target: u16, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{clusterIP: 10.96.0.1, selector: {{app: {name}}}, ports: [{{name: {port}, port: 8000, targetPort: {target}}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{name: {port}, port: {target}, protocol: TCP}}]\n\
         endpoints: [{{addresses: [\"{address}\"], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}, namespace: default}}}}]\n"
    )
}

/// A sidecar in loopback isolation, which says this about itself.
fn sidecar(name: &str, address: Ipv4Addr, metadata: &Value) -> Value {
    let mut proxy = json!({
        "type": "sidecar",
        "id": format!("{name}.default"),
        "ipAddresses": [address.to_string()],
        "configNamespace": "default",
        "dnsDomain": "default.svc.cluster.local",
        "labels": {"app": name},
        "metadata": {
            "NAMESPACE": "default",
            "CLUSTER_ID": offline::CONFIG_CLUSTER,
            "SERVICE_ACCOUNT": "bench",
            "INTERCEPTION_MODE": "NONE",
            "LABELS": {"app": name},
        },
    });
    for (key, value) in metadata.as_object().into_iter().flatten() {
        proxy["metadata"][key] = value.clone();
    }
    proxy
}

/// The resources as a bootstrap for Envoy.
pub(crate) fn bootstrap(resources: &Value, admin: u16) -> Value {
    json!({
        "node": {"id": "bench", "cluster": "bench"},
        "admin": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": admin}}},
        "staticResources": resources,
    })
}

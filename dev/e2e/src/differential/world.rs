//! The small worlds that scenarios play in, as manifests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::Problem;
use super::names::Book;
use super::scenario::{Kind, Node};
use super::workload::{Speaks, Workloads};

/// The services that a scenario has when it does not bring its own.
const USUAL: &str = "
services:
  a: {pods: {a-v1: {version: v1}, a-v2: {version: v2}}}
  b: {pods: {b-v1: {version: v1}}}
  c: {pods: {c-v1: {version: v1}}}
  d: {pods: {d-1: {version: v1}, d-2: {version: v1}, d-3: {version: v1}}}
  e.other: {pods: {e-v1: {version: v1}}}
outside: {out-1: ['http:8000', 'https:9443', 'tcp:9000'], out-2: ['http:8000', 'https:9443', 'tcp:9000']}
names: {out.test: [out-1], two.test: [out-1, out-2]}
";

/// The ports of a service that does not say.
const PORTS: &[&str] = &["http:8000", "http2:8002", "tcp:9000", "https:9443"];

/// The ports of the gateways' service, each with the one that the gateway binds.
const GATEWAY_PORTS: &[(&str, u16, u16)] = &[
    ("http2", 80, 8080),
    ("http-b", 8081, 8081),
    ("https", 443, 8443),
    ("https-b", 8444, 8444),
    ("tcp", 31400, 31400),
    ("tls", 15443, 15443),
];

/// Services, pods and names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// By `NAME` (in `default`) or `NAME.NAMESPACE`.
    #[serde(default)]
    services: BTreeMap<String, Service>,
    /// Servers that the mesh knows nothing of: name and ports.
    #[serde(default)]
    outside: BTreeMap<String, Vec<String>>,
    /// What the resolver answers: name and pods.
    #[serde(default)]
    names: BTreeMap<String, Vec<String>>,
    /// What another resolver answers, at `${resolver}`, port 5353.
    #[serde(default)]
    elsewhere: BTreeMap<String, Vec<String>>,
    /// How long answers hold, in seconds.
    #[serde(default)]
    ttl: u32,
}

/// A service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    /// `NAME:NUMBER`; the name says what the pods speak there, unless a third part does.
    #[serde(default)]
    ports: Vec<String>,
    /// Its pods and their labels; `locality` is no label but where the pod is (`region/zone/subzone`).
    pods: BTreeMap<String, BTreeMap<String, String>>,
    /// Without an address of its own.
    #[serde(default)]
    headless: bool,
}

/// A world in which every pod has an address and runs.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The addresses of pods.
    pub(crate) pods: BTreeMap<String, Ipv4Addr>,
    /// The addresses of services, as they are in configuration.
    pub(crate) services: BTreeMap<String, Ipv4Addr>,
    /// What the resolver answers.
    pub(crate) names: Book,
    /// What the other one does.
    pub(crate) elsewhere: Book,
    /// Where that one is.
    resolver: Option<Ipv4Addr>,
    world: Option<World>,
}

impl Place {
    /// Gives every pod an address, and a server for each of its ports.
    pub(crate) async fn of(
        world: Option<&World>,
        workloads: &Workloads,
        resolver: Ipv4Addr,
    ) -> Result<Self, Problem> {
        let world = match world {
            Some(world) => world.clone(),
            None => serde_saphyr::from_str(USUAL).map_err(|error| format!("the usual world: {error}"))?,
        };
        let mut out = Self::default();
        for (index, (name, service)) in world.services.iter().enumerate() {
            out.services.insert(name.clone(), Ipv4Addr::new(10, 96, 0, 10 + index as u8));
            let ports = speaks(&service.ports())?;
            for pod in service.pods.keys() {
                out.pods.insert(pod.clone(), workloads.run(pod, &ports).await?);
            }
        }
        for (pod, ports) in &world.outside {
            out.pods.insert(pod.clone(), workloads.run(pod, &speaks(ports)?).await?);
        }
        out.names = out.book(&world.names, world.ttl)?;
        out.elsewhere = out.book(&world.elsewhere, world.ttl)?;
        out.resolver = Some(resolver);
        out.world = Some(world);
        Ok(out)
    }

    fn book(&self, names: &BTreeMap<String, Vec<String>>, ttl: u32) -> Result<Book, Problem> {
        let one = |(name, pods): (&String, &Vec<String>)| Ok((name.clone(), self.addresses(pods)?));
        Ok(Book { addresses: names.iter().map(one).collect::<Result<_, Problem>>()?, ttl })
    }

    fn addresses(&self, pods: &[String]) -> Result<Vec<Ipv4Addr>, Problem> {
        let address =
            |pod: &String| self.pods.get(pod).copied().ok_or_else(|| format!("names: no pod {pod:?}"));
        pods.iter().map(address).collect()
    }

    /// Changes what a resolver answers.
    pub(crate) fn rename(
        &self,
        book: &mut Book,
        names: &BTreeMap<String, Option<Vec<String>>>,
    ) -> Result<(), Problem> {
        for (name, pods) in names {
            match pods {
                Some(pods) => drop(book.addresses.insert(name.clone(), self.addresses(pods)?)),
                None => drop(book.addresses.remove(name)),
            }
        }
        Ok(())
    }

    /// A text with addresses in the place of pods.
    pub(crate) fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (pod, address) in &self.pods {
            text = text.replace(&format!("${{{pod}}}"), &address.to_string());
        }
        if let Some(resolver) = self.resolver {
            text = text.replace("${resolver}", &resolver.to_string());
        }
        text
    }

    /// Services, endpoints and pods as one proxy at `own` is to see them; in an inbound scenario the only pod of the first
    /// service is at the proxy's own address.
    pub(crate) fn manifests(&self, kind: Kind, own: Ipv4Addr) -> String {
        let mut text = String::new();
        for (index, (name, service)) in self.world.iter().flat_map(|world| world.services.iter()).enumerate()
        {
            let (name, namespace) = name.split_once('.').unwrap_or((name, "default"));
            let address = self.services.values().nth(index).filter(|_| !service.headless);
            let ports = service.ports();
            let address = address.map_or("None".to_owned(), ToString::to_string);
            let ports: Vec<(String, u16, u16)> = ports
                .iter()
                .filter_map(|port| {
                    let mut parts = port.split(':');
                    let (name, number) = (parts.next()?, parts.next()?.parse().ok()?);
                    Some((name.to_owned(), number, number))
                })
                .collect();
            let mine = kind == Kind::Inbound && index == 0;
            let pods: Vec<Pod<'_>> = service
                .pods
                .iter()
                .map(|(pod, labels)| Pod {
                    name: pod,
                    labels,
                    address: if mine { own } else { self.pods[pod] },
                })
                .collect();
            write_service(&mut text, (name, namespace), &address, &ports, &pods);
        }
        if kind == Kind::Gateway {
            let ports: Vec<(String, u16, u16)> = GATEWAY_PORTS
                .iter()
                .map(|(name, port, target)| ((*name).to_owned(), *port, *target))
                .collect();
            let labels = BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]);
            let pod = Pod { name: "gateway", labels: &labels, address: own };
            write_service(&mut text, ("istio-ingressgateway", "istio-system"), "10.96.0.250", &ports, &[pod]);
        }
        text
    }

    /// How the proxy describes itself.
    pub(crate) fn proxy(&self, kind: Kind, node: &Node, own: Ipv4Addr) -> serde_json::Value {
        let gateway = kind == Kind::Gateway;
        let mut labels = node.labels.clone();
        let mut metadata = serde_json::json!({"CLUSTER_ID": "Kubernetes", "SERVICE_ACCOUNT": "client"});
        let first = self.world.iter().flat_map(|world| world.services.values()).next();
        match kind {
            Kind::Gateway => drop(labels.insert("istio".into(), "ingressgateway".into())),
            Kind::Inbound => {
                let pod = first.and_then(|service| service.pods.iter().next());
                let app = pod.and_then(|(pod, _)| self.pods.get(pod)).map(ToString::to_string);
                labels.extend(pod.into_iter().flat_map(|(_, labels)| labels.clone()));
                labels.insert("app".into(), self.services.keys().next().cloned().unwrap_or_default());
                metadata["LATEEN_APP_ADDRESS"] = app.into();
                metadata["HTTP_PROXY_PORT"] = "15007".into();
                metadata["INTERCEPTION_MODE"] = "NONE".into();
            }
            Kind::Loopback => {
                metadata["HTTP_PROXY_PORT"] = "15007".into();
                metadata["INTERCEPTION_MODE"] = "NONE".into();
            }
            Kind::Sidecar => {}
        }
        if !gateway {
            labels.entry("app".into()).or_insert_with(|| "client".into());
        }
        let usual = if gateway { "istio-system" } else { "default" };
        let namespace = if node.namespace.is_empty() { usual } else { &node.namespace };
        metadata["NAMESPACE"] = namespace.into();
        for (key, value) in &node.metadata {
            metadata[key] = value.clone();
        }
        let mut place = node.locality.split('/').map(str::to_owned);
        serde_json::json!({
            "type": if gateway { "router" } else { "sidecar" },
            "id": format!("{}.{namespace}", if gateway { "gateway" } else { "client" }),
            "ipAddresses": [own.to_string()],
            "configNamespace": namespace,
            "dnsDomain": format!("{namespace}.svc.cluster.local"),
            "labels": labels,
            "locality": {"region": place.next(), "zone": place.next(), "subzone": place.next()},
            "metadata": metadata,
        })
    }
}

impl Service {
    fn ports(&self) -> Vec<String> {
        match self.ports.is_empty() {
            true => PORTS.iter().map(|port| (*port).to_owned()).collect(),
            false => self.ports.clone(),
        }
    }
}

struct Pod<'a> {
    name: &'a str,
    labels: &'a BTreeMap<String, String>,
    address: Ipv4Addr,
}

fn speaks(ports: &[String]) -> Result<Vec<(u16, Speaks)>, Problem> {
    let read = |port: &String| {
        let (name, number) = port.split_once(':')?;
        let (number, name) = number.split_once(':').unwrap_or((number, name));
        let speaks = match name.split('-').next()? {
            "http" | "http2" | "grpc" => Speaks::Http,
            "https" | "tls" => Speaks::Https,
            "tcp" => Speaks::Bytes,
            "checks" => Speaks::Checks,
            _ => return None,
        };
        Some((number.parse().ok()?, speaks))
    };
    let read = |port: &String| {
        read(port).ok_or_else(|| {
            format!("port {port:?}: expected NAME:NUMBER, or NAME:NUMBER:WHAT-IS-SPOKEN, with http, http2, grpc, https, tls, tcp or checks")
        })
    };
    ports.iter().map(read).collect()
}

fn write_service(
    text: &mut String,
    (name, namespace): (&str, &str),
    address: &str,
    ports: &[(String, u16, u16)],
    pods: &[Pod<'_>],
) {
    let list = |target: bool| {
        let port = |(name, number, to): &(String, u16, u16)| match target {
            true => format!("{{name: {name}, port: {to}, protocol: TCP}}"),
            false => format!("{{name: {name}, port: {number}, targetPort: {to}}}"),
        };
        ports.iter().map(port).collect::<Vec<_>>().join(", ")
    };
    let meta = |name: &str, labels: &str| {
        format!("metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}")
    };
    let endpoints: Vec<String> = pods
        .iter()
        .map(|pod| {
            let target = format!("{{kind: Pod, name: {}, namespace: {namespace}}}", pod.name);
            format!("{{addresses: [{}], conditions: {{ready: true}}, targetRef: {target}}}", pod.address)
        })
        .collect();
    // A String takes everything.
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Service\n{}\nspec: {{clusterIP: {address}, selector: {{app: {name}}}, ports: [{}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{}\naddressType: IPv4\nports: [{}]\nendpoints: [{}]\n",
        meta(name, ""),
        list(false),
        meta(&format!("{name}-1"), &format!("kubernetes.io/service-name: {name}")),
        list(true),
        endpoints.join(", "),
    );
    for pod in pods {
        let labels = pod.labels.iter().map(|(key, value)| match key.as_str() {
            "locality" => format!("istio-locality: {}", value.replace('/', ".")),
            key => format!("{key}: \"{value}\""),
        });
        let labels: Vec<String> = labels.chain([format!("app: {name}")]).collect();
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\n{}\nspec: {{serviceAccountName: {name}}}\nstatus: {{phase: Running, podIP: {}}}\n",
            meta(pod.name, &labels.join(", ")),
            pod.address,
        );
    }
}

//! Virtual services: hosts completed, delegates told from roots, oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_api::kinds::VirtualService;
use lateen_api::kinds::virtual_service::Destination;
use lateen_api::mesh::MeshConfig;
use lateen_api::{Object, Spec};
use lateen_base::{Host, Namespace, ObjectRef};
use lateen_registry::{ExportTo, Settings};

use crate::hosts;

/// The word for all sidecars in lists of gateways.
pub const MESH_GATEWAY: &str = "mesh";

/// The annotation of VirtualServices made from other kinds, whose rules they keep.
pub(super) const ROUTE_SEMANTICS: &str = "internal.istio.io/route-semantics";
/// Its value for those made from Ingress objects.
pub(super) const SEMANTICS_INGRESS: &str = "ingress";

/// A virtual service with its names completed.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualServiceConfig {
    /// The object.
    pub object: ObjectRef,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Its spec; hosts of destinations and mirrors are completed.
    pub spec: Arc<VirtualService>,
    /// Its hosts, completed.
    pub hosts: Vec<Host>,
    /// Its gateways: `mesh`, or `NAMESPACE/NAME`.
    pub gateways: BTreeSet<String>,
    /// Whom it is shown to, the mesh's default filled in.
    pub export_to: ExportTo,
    /// Whether prefixes of paths end where segments do, as Ingress objects have it.
    pub by_segments: bool,
}

impl VirtualServiceConfig {
    /// Whether it has routes of bytes, TLS among them.
    pub(crate) fn carries_bytes(&self) -> bool {
        !(self.spec.tcp.is_empty() && self.spec.tls.is_empty())
    }

    /// The hosts that its routes lead clients of a namespace to, each with the ports asked for; the empty set means
    /// any port.
    pub fn destinations(&self, client: &Namespace) -> BTreeMap<Host, BTreeSet<u16>> {
        let mut all: BTreeMap<Host, Option<BTreeSet<u16>>> = BTreeMap::new();
        for_each_destination(&self.spec, client, |destination| {
            let port = destination.port.as_ref().map_or(0, |port| port.number as u16);
            let ports = all.entry(Host::new(&destination.host)).or_insert_with(|| Some(BTreeSet::new()));
            match (port, ports.as_mut()) {
                (0, _) => *ports = None,
                (port, Some(set)) => {
                    set.insert(port);
                }
                (_, None) => {}
            }
        });
        all.into_iter().map(|(host, ports)| (host, ports.unwrap_or_default())).collect()
    }
}

/// The virtual services of the mesh.
#[derive(Debug, Default)]
pub struct VirtualServices {
    /// Those with hosts, oldest first.
    pub roots: Vec<Arc<VirtualServiceConfig>>,
    /// Those without, which others delegate to.
    pub delegates: BTreeMap<(Namespace, String), Arc<VirtualServiceConfig>>,
}

impl VirtualServices {
    pub(super) fn of(objects: &[Arc<Object>], mesh: &MeshConfig, settings: &Settings) -> Self {
        let mut all = Self::default();
        for object in objects {
            let Spec::VirtualService(spec) = &object.spec else { continue };
            let config = Arc::new(completed(object, spec, mesh, settings));
            if config.hosts.is_empty() {
                all.delegates.insert((config.namespace.clone(), config.name.clone()), config);
            } else {
                all.roots.push(config);
            }
        }
        all
    }

    /// Those that apply at a gateway (`mesh`, or `NAMESPACE/NAME`) for proxies of a namespace, oldest first.
    pub fn at<'a>(
        &'a self,
        gateway: &'a str,
        viewer: &'a Namespace,
    ) -> impl Iterator<Item = &'a Arc<VirtualServiceConfig>> + 'a {
        self.roots.iter().filter(move |config| {
            config.gateways.contains(gateway) && config.export_to.shows(&config.namespace, viewer)
        })
    }
}

fn completed(
    object: &Object,
    spec: &VirtualService,
    mesh: &MeshConfig,
    settings: &Settings,
) -> VirtualServiceConfig {
    let namespace = &object.namespace;
    let resolve = |name: &str| hosts::resolve(name, namespace, &settings.domain);
    let mut spec = spec.clone();
    for_each_destination_mut(&mut spec, |destination| {
        destination.host = resolve(&destination.host).to_string();
    });
    for list in spec.http.iter_mut().flat_map(|route| &mut route.r#match).map(|m| &mut m.gateways) {
        complete_gateways(list, namespace);
    }
    for list in spec.tls.iter_mut().flat_map(|route| &mut route.r#match).map(|m| &mut m.gateways) {
        complete_gateways(list, namespace);
    }
    for list in spec.tcp.iter_mut().flat_map(|route| &mut route.r#match).map(|m| &mut m.gateways) {
        complete_gateways(list, namespace);
    }
    let mut gateways = spec.gateways.clone();
    complete_gateways(&mut gateways, namespace);
    if gateways.is_empty() {
        gateways.push(MESH_GATEWAY.to_owned());
    }
    let export: &[String] =
        match (spec.export_to.is_empty(), mesh.default_virtual_service_export_to.is_empty()) {
            (false, _) => &spec.export_to,
            (true, false) => &mesh.default_virtual_service_export_to,
            (true, true) => &["*".to_owned()],
        };
    VirtualServiceConfig {
        object: object.reference(),
        namespace: namespace.clone(),
        name: object.name.clone(),
        created: lateen_registry::created(object),
        hosts: spec.hosts.iter().map(|host| resolve(host)).collect(),
        gateways: gateways.into_iter().collect(),
        export_to: ExportTo::parse(export.iter().map(String::as_str)),
        by_segments: object.annotations.get(ROUTE_SEMANTICS).is_some_and(|kind| kind == SEMANTICS_INGRESS),
        spec: Arc::new(spec),
    }
}

/// Gateways are named `NAME`, `NAMESPACE/NAME`, `NAME.NAMESPACE.svc.DOMAIN` (of old), or `mesh`.
fn complete_gateways(list: &mut [String], namespace: &Namespace) {
    for name in list.iter_mut() {
        if *name == MESH_GATEWAY || name.is_empty() {
            continue;
        }
        *name = match name.split_once('/') {
            Some((".", name)) => format!("{namespace}/{name}"),
            Some(_) => continue,
            None => match name.split_once('.') {
                Some((name, rest)) => format!("{}/{name}", rest.split('.').next().unwrap_or_default()),
                None => format!("{namespace}/{name}"),
            },
        };
    }
}

/// Visits the destinations of all routes that some client of the namespace may take.
fn for_each_destination<'a>(
    spec: &'a VirtualService,
    client: &Namespace,
    mut visit: impl FnMut(&'a Destination),
) {
    let takes = |namespace: &str| namespace.is_empty() || namespace == client.as_str();
    for route in &spec.http {
        if !route.r#match.is_empty() && !route.r#match.iter().any(|m| takes(&m.source_namespace)) {
            continue;
        }
        route.route.iter().for_each(|split| visit(&split.destination));
        route.mirror.iter().for_each(&mut visit);
        route.mirrors.iter().map(|mirror| &mirror.destination).for_each(&mut visit);
    }
    let tcp = spec
        .tcp
        .iter()
        .filter(|route| route.r#match.is_empty() || route.r#match.iter().any(|m| takes(&m.source_namespace)));
    let tls = spec
        .tls
        .iter()
        .filter(|route| route.r#match.is_empty() || route.r#match.iter().any(|m| takes(&m.source_namespace)));
    let splits = tcp.flat_map(|route| &route.route).chain(tls.flat_map(|route| &route.route));
    splits.for_each(|split| visit(&split.destination));
}

fn for_each_destination_mut(spec: &mut VirtualService, mut visit: impl FnMut(&mut Destination)) {
    for route in &mut spec.http {
        route.route.iter_mut().for_each(|split| visit(&mut split.destination));
        route.mirror.iter_mut().for_each(&mut visit);
        route.mirrors.iter_mut().map(|mirror| &mut mirror.destination).for_each(&mut visit);
    }
    let tcp = spec.tcp.iter_mut().flat_map(|route| &mut route.route);
    let tls = spec.tls.iter_mut().flat_map(|route| &mut route.route);
    tcp.chain(tls).for_each(|split| visit(&mut split.destination));
}

//! What listeners and routes of one gateway proxy share: its servers and the VirtualServices bound to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::{Kind, Object};
use lateen_base::ObjectRef;

use crate::gateways::{self, Merged};
use crate::routes::rules;
use crate::routes::virtual_service::Rule;
use crate::snapshot::{ServiceTarget, VirtualServiceConfig};
use crate::{Note, Proxy, Snapshot};

/// The objects that a gateway proxy is configured by, found once.
pub(crate) struct EdgeObjects {
    gateways: Vec<(ObjectRef, Arc<Object>)>,
    targets: Vec<ServiceTarget>,
    /// The VirtualServices by Gateway.
    configs: BTreeMap<String, Vec<Arc<VirtualServiceConfig>>>,
}

impl EdgeObjects {
    /// Finds them.
    pub(crate) fn of(snapshot: &Snapshot, proxy: &Proxy, targets: &[ServiceTarget]) -> Self {
        let objects = snapshot.objects(Kind::Gateway);
        let gateways: Vec<_> = objects.iter().map(|object| (object.reference(), object.clone())).collect();
        let configs = gateways
            .iter()
            .map(|(reference, _)| {
                let name = format!("{}/{}", reference.namespace, reference.name);
                let bound = snapshot.virtual_services.at(&name, &proxy.namespace).cloned().collect();
                (name, bound)
            })
            .collect();
        Self { gateways, targets: targets.to_vec(), configs }
    }

    /// The servers that the proxy runs.
    pub(crate) fn merged(&self, proxy: &Proxy) -> Merged<'_> {
        let exposed = gateways::exposed(&self.targets);
        let selected = gateways::selected(&self.gateways, proxy, &exposed);
        gateways::merge(&selected, &exposed, proxy.metadata.unprivileged)
    }

    /// The VirtualServices of each Gateway, ready to be translated.
    pub(crate) fn rules(
        &self,
        snapshot: &Snapshot,
        notes: &mut Vec<Note>,
    ) -> BTreeMap<String, Vec<Rule<'_>>> {
        let ready = |configs| rules::rules(&snapshot.virtual_services, configs, notes);
        let mut ready = ready;
        self.configs.iter().map(|(name, configs)| (name.clone(), ready(configs))).collect()
    }
}

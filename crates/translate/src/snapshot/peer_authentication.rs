//! What workloads accept: plain text, mTLS, or both.

use std::collections::BTreeMap;

use lateen_api::kinds::PeerAuthentication;
use lateen_api::kinds::peer_authentication::MutualTlsMode;
use lateen_api::{Kind, Spec};
use lateen_base::{Labels, Namespace};

use super::Snapshot;

/// What a port accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Plain text only.
    Disable,
    /// Both.
    #[default]
    Permissive,
    /// mTLS only.
    Strict,
}

/// What a workload accepts, after inheritance.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerPolicy {
    /// On ports that are not named.
    pub mode: MtlsMode,
    /// On ports that are, by the port of the workload.
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl PeerPolicy {
    /// What a port of the workload accepts.
    pub fn of_port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

impl Snapshot {
    /// What the workloads of these labels in a namespace accept: the workload's policy over the namespace's over the
    /// root namespace's; of equals the oldest; UNSET inherits; nothing at all means both.
    pub fn peer_policy(&self, namespace: &Namespace, labels: &Labels) -> PeerPolicy {
        let mut mode = self.namespace_wide(self.root_namespace()).unwrap_or_default();
        if namespace != self.root_namespace() {
            mode = self.namespace_wide(namespace).unwrap_or(mode);
        }
        let mut ports = BTreeMap::new();
        if let Some(spec) = self.workload_policy(namespace, labels) {
            mode = spec.mtls.as_ref().and_then(|mtls| known(mtls.mode)).unwrap_or(mode);
            for (port, mtls) in &spec.port_level_mtls {
                // UNSET at a port means what holds for the workload, and is said so.
                ports.insert(*port as u16, known(mtls.mode).unwrap_or(mode));
            }
        }
        PeerPolicy { mode, ports }
    }

    /// Whether any policy says what workloads accept.
    pub fn has_peer_policies(&self) -> bool {
        !self.objects(Kind::PeerAuthentication).is_empty()
    }

    /// The mode of a namespace's policy without selector.
    fn namespace_wide(&self, namespace: &Namespace) -> Option<MtlsMode> {
        let oldest = self.peer_authentications(namespace).find(|spec| selector(spec).is_none())?;
        oldest.mtls.as_ref().and_then(|mtls| known(mtls.mode))
    }

    fn workload_policy<'a>(
        &'a self,
        namespace: &'a Namespace,
        labels: &Labels,
    ) -> Option<&'a PeerAuthentication> {
        self.peer_authentications(namespace)
            .find(|spec| selector(spec).is_some_and(|selector| selector.selects(labels)))
    }

    fn peer_authentications<'a>(
        &'a self,
        namespace: &'a Namespace,
    ) -> impl Iterator<Item = &'a PeerAuthentication> + 'a {
        self.objects_in(Kind::PeerAuthentication, namespace).filter_map(|object| match &object.spec {
            Spec::PeerAuthentication(spec) => Some(spec.as_ref()),
            _ => None,
        })
    }
}

fn selector(spec: &PeerAuthentication) -> Option<&Labels> {
    spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}

fn known(mode: MutualTlsMode) -> Option<MtlsMode> {
    match mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(MtlsMode::Disable),
        MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}

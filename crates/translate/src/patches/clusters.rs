//! Patches of clusters.

use lateen_api::kinds::envoy_filter::{ApplyTo, PatchContext, PatchOperation};
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::core::v3::TransportSocket;
use lateen_proto::merge::Lists;

use super::edit::{self, Edited};
use super::sound::Sound;
use super::{Patch, Patching, matches};
use crate::Built;

impl Patching<'_> {
    /// Merges into clusters and removes them, in the order of the patches.
    pub(crate) fn clusters(&mut self, is_router: bool, clusters: Vec<Built<Cluster>>) -> Vec<Built<Cluster>> {
        if self.patches.is_empty() {
            return clusters;
        }
        clusters.into_iter().filter_map(|cluster| self.cluster(is_router, cluster)).collect()
    }

    fn cluster(&mut self, is_router: bool, mut built: Built<Cluster>) -> Option<Built<Cluster>> {
        let side = matches::side_of_cluster(is_router, &built.message);
        let set = self.patches;
        for patch in set.of(ApplyTo::Cluster).filter(|patch| patch.is_for(side)) {
            if patch.operation == PatchOperation::Add || !matches::cluster(patch, &built.message) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                self.effects.changed(patch, &built.name);
                return None;
            }
            self.attempt(patch, &mut built, |cluster| merge(patch, cluster));
        }
        Some(built)
    }

    /// The clusters that patches add; those that say nothing of the side are of the one that leads outwards.
    pub(crate) fn added_clusters(
        &mut self,
        is_router: bool,
        taken: &[Built<Cluster>],
    ) -> Vec<Built<Cluster>> {
        let side = matches::outward(is_router);
        let set = self.patches;
        let mut added: Vec<Built<Cluster>> = Vec::new();
        for patch in set.of(ApplyTo::Cluster).filter(|patch| patch.operation == PatchOperation::Add) {
            let inbound = patch.condition.context == PatchContext::SidecarInbound && !is_router;
            if !patch.is_for(side) && !inbound {
                continue;
            }
            let made = patch.message::<Cluster>().and_then(|cluster| {
                cluster.sound()?;
                let known = |built: &Built<Cluster>| built.name == cluster.name;
                match taken.iter().chain(&added).any(known) {
                    true => Err(format!("there is a cluster {} already", cluster.name)),
                    false => Ok(cluster),
                }
            });
            match made {
                Ok(cluster) => {
                    self.effects.changed(patch, &cluster.name);
                    let mut built = Built::new(cluster.name.clone(), cluster);
                    built
                        .notes
                        .push(crate::Note::on(&patch.filter, format!("patch {} added it", patch.index)));
                    added.push(built);
                }
                Err(reason) => self.effects.refused(patch, "", &reason),
            }
        }
        added
    }
}

fn merge(patch: &Patch, cluster: &mut Cluster) -> Edited {
    let lists = edit::lists(patch.operation);
    let merged = patch.message::<Cluster>().and_then(|mut value| {
        if let Some(socket) = value.transport_socket.take() {
            merge_socket(cluster, socket, lists)?;
        }
        let name = cluster.name.clone();
        edit::plain(cluster, &value, lists)?;
        // Another name would be another resource, which nothing asks for.
        cluster.name = name;
        Ok(1)
    });
    merged.into()
}

/// Where endpoints say which socket is theirs, a patch of the socket means the one of its name.
fn merge_socket(cluster: &mut Cluster, socket: TransportSocket, lists: Lists) -> Result<(), String> {
    if cluster.transport_socket_matches.is_empty() {
        return match &mut cluster.transport_socket {
            Some(known) if known.name == socket.name => edit::plain(known, &socket, lists),
            other => {
                *other = Some(socket);
                Ok(())
            }
        };
    }
    let sockets = cluster.transport_socket_matches.iter_mut().filter_map(|one| one.transport_socket.as_mut());
    let mut sockets = sockets;
    match sockets.find(|known| known.name == socket.name) {
        Some(known) => edit::plain(known, &socket, lists),
        None => Err(format!("transport_socket: no transport_socket_matches has the socket {}", socket.name)),
    }
}

//! Ingress objects and their classes: kept as they are, those of the configuration cluster only, as Istio does.

use std::sync::Arc;

use lateen_base::{ClusterId, Namespace};

use super::Registry;
use crate::kube_objects::{Ingress, IngressClass};
use crate::{Change, Changes, Key};

impl Registry {
    pub(super) fn put_ingress(&mut self, cluster: &ClusterId, object: Arc<Ingress>, changes: &mut Changes) {
        let id = (Namespace::new(&object.metadata.namespace), object.metadata.name.clone());
        let counts = *cluster == self.settings.config_cluster;
        if counts && self.view.ingresses.get(&id) != Some(&object) {
            self.view.ingresses.insert(id, object);
            self.ingresses_changed(changes);
        }
    }

    pub(super) fn put_ingress_class(
        &mut self,
        cluster: &ClusterId,
        object: Arc<IngressClass>,
        changes: &mut Changes,
    ) {
        let name = object.metadata.name.clone();
        let counts = *cluster == self.settings.config_cluster;
        if counts && self.view.ingress_classes.get(&name) != Some(&object) {
            self.view.ingress_classes.insert(name, object);
            self.ingresses_changed(changes);
        }
    }

    pub(super) fn remove_ingress(&mut self, cluster: &ClusterId, key: &Key, changes: &mut Changes) {
        let removed = match key {
            _ if *cluster != self.settings.config_cluster => false,
            Key::Ingress(namespace, name) => {
                self.view.ingresses.remove(&(namespace.clone(), name.clone())).is_some()
            }
            Key::IngressClass(name) => self.view.ingress_classes.remove(name).is_some(),
            _ => false,
        };
        if removed {
            self.ingresses_changed(changes);
        }
    }

    pub(super) fn ingress_keys(&self, cluster: &ClusterId, kind: &Key) -> Vec<Key> {
        match kind {
            _ if *cluster != self.settings.config_cluster => Vec::new(),
            Key::Ingress(..) => {
                let all = self.view.ingresses.keys();
                all.map(|(namespace, name)| Key::Ingress(namespace.clone(), name.clone())).collect()
            }
            Key::IngressClass(_) => {
                self.view.ingress_classes.keys().cloned().map(Key::IngressClass).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What is derived from them is Istio's configuration, so that its generation grows, too.
    fn ingresses_changed(&mut self, changes: &mut Changes) {
        self.view.generations.ingresses += 1;
        self.view.generations.configs += 1;
        changes.insert(Change::Ingress);
    }
}

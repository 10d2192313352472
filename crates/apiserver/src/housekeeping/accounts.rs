//! Every namespace has a service account `default`.

use serde_json::json;

use super::Housekeeper;
use crate::resource::ResourceName;

const NAME: &str = "default";

impl Housekeeper<'_> {
    /// Makes those that are missing; true when one could not be made.
    pub(super) async fn give_accounts(&self) -> bool {
        let accounts = ResourceName::from("serviceaccounts");
        let Some(resource) = self.api.catalog().by_name(&accounts, None) else { return false };
        let mut left = false;
        for namespace in self.api.store.list(&"namespaces".into(), None).objects {
            if namespace.ties.deleted || self.api.store.get(&accounts, &namespace.name, NAME).is_some() {
                continue;
            }
            let account = json!({"metadata": {"name": NAME, "namespace": &*namespace.name}});
            match self.api.create(self.call(&resource, &namespace.name), account).await {
                Err(status) if !status.is_already_exists() => {
                    tracing::warn!(%status, namespace = &*namespace.name, "cannot make the service account default");
                    left = true;
                }
                _ => {}
            }
        }
        left
    }
}

//! Configurations of extensions that filters ask for by name.

use std::sync::Arc;

use lateen_api::kinds::envoy_filter::ApplyTo;
use lateen_proto::envoy::config::core::v3::TypedExtensionConfig;
use lateen_proto::rules;

use super::Patching;
use crate::{Built, Resource};

impl Patching<'_> {
    /// What patches of the kind EXTENSION_CONFIG add; of two with one name the first counts.
    pub(crate) fn extensions(&mut self) -> Vec<Arc<Resource>> {
        let set = self.patches;
        let mut made: Vec<Arc<Resource>> = Vec::new();
        for patch in set.of(ApplyTo::ExtensionConfig) {
            let config = patch.message::<TypedExtensionConfig>().and_then(|config| {
                rules::check(&config).map_err(|violation| violation.to_string())?;
                match made.iter().any(|known| *known.name == *config.name) {
                    true => Err(format!("there is an extension configuration {} already", config.name)),
                    false => Ok(config),
                }
            });
            match config {
                Ok(config) => {
                    self.effects.changed(patch, &config.name);
                    made.push(Built::new(config.name.clone(), config).pack());
                }
                Err(reason) => self.effects.refused(patch, "", &reason),
            }
        }
        made
    }
}

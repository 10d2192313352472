//! One response, in either form of the protocol.

use std::sync::Arc;

use lateen_proto::envoy::service::discovery::v3 as wire;

use crate::Resource;

/// What one response carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The type.
    pub type_url: Arc<str>,
    /// Names this response in the client's answer.
    pub nonce: String,
    /// New or changed resources; in state-of-the-world, all that are subscribed.
    pub resources: Vec<Resource>,
    /// Names that are gone or never were; empty in state-of-the-world.
    pub removed: Vec<Arc<str>>,
}

impl Push {
    /// As a delta response.
    pub fn into_delta(self) -> wire::DeltaDiscoveryResponse {
        wire::DeltaDiscoveryResponse {
            system_version_info: self.nonce.clone(),
            resources: self
                .resources
                .into_iter()
                .map(|resource| wire::Resource {
                    name: resource.name.to_string(),
                    version: resource.version.to_string(),
                    resource: Some(resource.any),
                    ..Default::default()
                })
                .collect(),
            type_url: self.type_url.to_string(),
            removed_resources: self.removed.iter().map(ToString::to_string).collect(),
            nonce: self.nonce,
            ..Default::default()
        }
    }

    /// As a state-of-the-world response.
    pub fn into_state_of_the_world(self) -> wire::DiscoveryResponse {
        wire::DiscoveryResponse {
            version_info: self.nonce.clone(),
            resources: self.resources.into_iter().map(|resource| resource.any).collect(),
            type_url: self.type_url.to_string(),
            nonce: self.nonce,
            ..Default::default()
        }
    }
}

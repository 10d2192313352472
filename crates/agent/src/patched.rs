//! Patches of the bootstrap, as the control plane has them for this proxy: asked for once, before the proxy starts.

use std::sync::Arc;

use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proto::json::{self, Names};
use lateen_proto::merge::{Lists, merge};
use lateen_proto::rules;
use lateen_xds::client::{self, Event};
use lateen_xds::types;
use serde_json::{Value, json};

use crate::settings::Settings;
use crate::{bootstrap, typed_bootstrap, upstream};

/// The resource's name.
const NAME: &str = "bootstrap";
/// The node's metadata that tells the control plane which patches the proxy runs with.
const STATE: &str = "LATEEN_BOOTSTRAP";
/// What of a bootstrap our proxy acts on: a top-level field, and its members where not all of them count.
const UNDERSTOOD: &[(&str, &[&str])] = &[
    ("static_resources", &[]),
    ("typed_dns_resolver_config", &[]),
    ("cluster_manager", &["upstream_bind_config"]),
];

/// What the control plane answered.
pub(crate) enum Patches {
    /// It was not asked.
    NotAsked,
    /// There are none.
    None,
    /// What is to be merged into the bootstrap, and its version.
    Some(Box<Bootstrap>, String),
}

impl Patches {
    /// Asks for them, where the settings say so, and waits for the answer: no proxy starts without what guards it.
    pub(crate) async fn ask(settings: &Arc<Settings>) -> Self {
        if !settings.patched_bootstrap {
            return Self::NotAsked;
        }
        let target = upstream::target(settings, &settings.config.discovery_address, None);
        let own = settings.clone();
        let config = client::Config {
            token: Some(Arc::new(move || upstream::token_or_certificate(&own).ok().flatten())),
            ..client::Config::new(target, typed_bootstrap::build(settings).node.unwrap_or_default())
        };
        let (handle, mut events) = client::connect(config);
        handle.subscribe(types::BOOTSTRAP, [NAME]);
        while let Some(event) = events.recv().await {
            match event {
                Event::Update(update) if *update.type_url == *types::BOOTSTRAP => {
                    let first = update.resources.first();
                    return match first.map(|resource| (resource.any.unpack(), resource.version.to_string())) {
                        Some((Ok(patch), version)) => Self::Some(Box::new(patch), version),
                        Some((Err(error), _)) => {
                            tracing::error!("the bootstrap's patches are unreadable: {error}");
                            Self::None
                        }
                        None => Self::None,
                    };
                }
                Event::Disconnected { reason, .. } => {
                    tracing::warn!(target: "xdsproxy", "waiting for the bootstrap's patches: {reason}");
                }
                Event::Update(_) | Event::Connected => {}
            }
        }
        Self::None
    }

    /// Whether there is anything to merge.
    pub(crate) fn is_some(&self) -> bool {
        matches!(self, Self::Some(..))
    }

    /// The file for stock Envoy; where the patches cannot be merged, without them.
    pub(crate) fn file(&self, settings: &Settings) -> Value {
        let Self::Some(patch, _) = self else { return self.plain_file(settings, "") };
        let merged = json::from_value(&self.plain_file(settings, ""))
            .map_err(|error| error.to_string())
            .and_then(|bootstrap| merged(bootstrap, patch))
            .and_then(|bootstrap| {
                json::to_value(&bootstrap, Names::Proto).map_err(|error| error.to_string())
            });
        merged.unwrap_or_else(|reason| {
            tracing::error!("the bootstrap's patches are not applied: {reason}");
            self.plain_file(settings, &reason)
        })
    }

    /// The file without the patches, which tells why.
    pub(crate) fn plain_file(&self, settings: &Settings, refused: &str) -> Value {
        let mut file = bootstrap::render(settings);
        file["node"]["metadata"][STATE] = self.state(refused);
        file
    }

    /// The bootstrap for the proxy in this process; where it does not understand the patches, without them.
    pub(crate) fn typed(&self, settings: &Settings) -> Bootstrap {
        let Self::Some(patch, _) = self else { return self.plain_typed(settings, "") };
        let merged = understood(patch).and_then(|()| merged(self.plain_typed(settings, ""), patch));
        merged.unwrap_or_else(|reason| {
            tracing::error!("the bootstrap's patches are not applied: {reason}");
            self.plain_typed(settings, &reason)
        })
    }

    /// The same without the patches, which tells why.
    pub(crate) fn plain_typed(&self, settings: &Settings, refused: &str) -> Bootstrap {
        let mut bootstrap = typed_bootstrap::build(settings);
        typed_bootstrap::tell(&mut bootstrap, STATE, &self.state(refused));
        bootstrap
    }

    fn state(&self, refused: &str) -> Value {
        match self {
            Self::NotAsked => json!({ "asks": false }),
            Self::None => json!({ "version": "" }),
            Self::Some(_, version) if refused.is_empty() => json!({ "version": version }),
            Self::Some(_, version) => json!({ "version": version, "refused": refused }),
        }
    }
}

fn merged(mut bootstrap: Bootstrap, patch: &Bootstrap) -> Result<Bootstrap, String> {
    merge(&mut bootstrap, patch, Lists::Append).map_err(|error| error.to_string())?;
    rules::check(&bootstrap).map_err(|violation| violation.to_string())?;
    Ok(bootstrap)
}

/// Whether our proxy acts on everything that a patch sets.
fn understood(patch: &Bootstrap) -> Result<(), String> {
    let value = json::to_value(patch, Names::Proto).map_err(|error| error.to_string())?;
    for (field, value) in value.as_object().into_iter().flatten() {
        let refuse = |field: &str| {
            let known: Vec<&str> = UNDERSTOOD.iter().map(|(field, _)| *field).collect();
            Err(format!("{field}: Lateen's proxy does not act on it; it takes {}", known.join(", ")))
        };
        match UNDERSTOOD.iter().find(|(known, _)| known == field) {
            None => return refuse(field),
            Some((_, [])) => {}
            Some((_, members)) => {
                let other = value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .find(|(name, _)| !members.contains(&name.as_str()));
                if let Some((member, _)) = other {
                    return refuse(&format!("{field}.{member}"));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(value: Value) -> Bootstrap {
        json::from_value(&value).unwrap()
    }

    #[test]
    fn what_our_proxy_does_not_act_on_is_refused_by_name() {
        let cluster = json!({ "name": "x", "connect_timeout": "1s" });
        assert_eq!(understood(&patch(json!({ "static_resources": { "clusters": [cluster] } }))), Ok(()));
        let refused =
            understood(&patch(json!({ "stats_config": { "use_all_default_tags": true } }))).unwrap_err();
        assert!(refused.starts_with("stats_config: "), "{refused}");
        let local = json!({ "cluster_manager": { "local_cluster_name": "x" } });
        let refused = understood(&patch(local)).unwrap_err();
        assert!(refused.starts_with("cluster_manager.local_cluster_name: "), "{refused}");
    }
}

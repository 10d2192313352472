//! Patches of the bootstrap. Agents ask for them before they start their proxy, and the node tells what became of them.

use std::sync::Arc;

use lateen_api::kinds::envoy_filter::{ApplyTo, PatchContext};
use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proto::merge::Lists;
use serde_json::Value;

use super::{Effects, Patch, PatchSet, edit};
use crate::{Proxy, Resource};

/// The name of the resource.
pub(crate) const NAME: &str = "bootstrap";
/// The node's metadata that tells which patches a proxy was started with: `asks` false where its agent does not ask for
/// any, else the resource's `version`, and why it was `refused`.
const STATE: &str = "LATEEN_BOOTSTRAP";

/// What the patches of a set come to together.
#[derive(Debug)]
pub(crate) struct BootstrapPatch {
    /// What agents are to merge into their bootstrap; none where there is nothing.
    pub(crate) resource: Option<Arc<Resource>>,
    taken: Vec<Arc<Patch>>,
    refused: Vec<(Arc<Patch>, String)>,
}

impl BootstrapPatch {
    /// Merges the patches for gateways or sidecars, in their order.
    pub(crate) fn of(patches: &PatchSet, is_router: bool) -> Self {
        let (mut merged, mut taken, mut refused) = (Bootstrap::default(), Vec::new(), Vec::new());
        for patch in patches.of(ApplyTo::Bootstrap).filter(|patch| is_meant(patch, is_router)) {
            let merge = |value: Bootstrap| edit::plain(&mut merged, &value, Lists::Append);
            match patch.message::<Bootstrap>().and_then(merge) {
                Ok(()) => taken.push(patch.clone()),
                Err(reason) => refused.push((patch.clone(), reason)),
            }
        }
        let resource = || Arc::new(Resource::pack(NAME, &merged, Vec::new()));
        Self { resource: (!taken.is_empty()).then(resource), taken, refused }
    }

    /// What they did to a proxy, as it tells itself.
    pub(crate) fn effects(&self, proxy: &Proxy) -> Effects {
        let mut effects = Effects::default();
        for (patch, reason) in &self.refused {
            effects.refused(patch, "", reason);
        }
        let version = self.resource.as_ref().map_or("", |resource| &resource.version);
        let objection = objection(proxy.metadata.raw.get(STATE), version);
        for patch in &self.taken {
            match &objection {
                None => effects.changed(patch, NAME),
                Some(reason) => effects.refused(patch, "", reason),
            }
        }
        effects
    }
}

fn is_meant(patch: &Patch, is_router: bool) -> bool {
    match is_router {
        true => patch.is_for(PatchContext::Gateway),
        false => patch.is_for(PatchContext::SidecarInbound) || patch.is_for(PatchContext::SidecarOutbound),
    }
}

/// Why a proxy runs without this version of the patches. Of one that says nothing it is not known.
fn objection(state: Option<&Value>, version: &str) -> Option<String> {
    let state = state?;
    if state.get("asks") == Some(&Value::Bool(false)) {
        let text = "the agent does not ask for its bootstrap: set BOOTSTRAP_XDS_AGENT to \"true\" in proxyMetadata, and restart the pod";
        return Some(text.to_owned());
    }
    let text = |key: &str| state.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("version") == version, text("refused")) {
        (false, _) => Some("the proxy was started before: restart the pod for it to take effect".to_owned()),
        (true, "") => None,
        (true, reason) => Some(reason.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_proxy_tells_which_patches_it_runs_with() {
        let objection = |state: Value| objection(Some(&state), "7");
        assert_eq!(super::objection(None, "7"), None);
        assert_eq!(objection(json!({"version": "7"})), None);
        assert_eq!(objection(json!({"version": "7", "refused": "no"})).unwrap(), "no");
        assert!(objection(json!({"version": "6", "refused": "no"})).unwrap().contains("restart"));
        assert!(objection(json!({"asks": false})).unwrap().contains("BOOTSTRAP_XDS_AGENT"));
    }
}

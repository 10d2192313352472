//! The templates: what each adds to a pod.

mod gateway;
mod grpc_agent;
mod sidecar;

use serde_json::Value;

use crate::container::Proxy;
use crate::{InjectError, custom};

/// The built-in templates.
const BUILT_IN: &[&str] = &["gateway", "grpc-agent", "sidecar"];

/// What the template of this name makes of the proxy: a pod to lay over the one that is there.
pub(crate) fn render(name: &str, proxy: &Proxy<'_>) -> Result<Value, InjectError> {
    // What Istio's own charts write under these names is what is built in here.
    let replaced = |text: &&String| !(BUILT_IN.contains(&name) && text.contains("{{"));
    if let Some(text) = proxy.settings.templates.get(name).filter(replaced) {
        return custom::render(name, text, proxy);
    }
    match name {
        "sidecar" => sidecar::pod(proxy),
        "gateway" => Ok(gateway::pod(proxy)),
        "grpc-agent" => Ok(grpc_agent::pod(proxy)),
        other => {
            let own = proxy.settings.templates.keys().map(String::as_str);
            let known: Vec<&str> = BUILT_IN.iter().copied().chain(own).collect();
            Err(InjectError::NoTemplate { name: other.to_owned(), known: known.join(", ") })
        }
    }
}

//! The bootstrap.

use serde_json::Value;

use super::dump::{Dump, without_type};
use super::text;
use crate::commands::CliError;

/// The section of the bootstrap, as the proxy dumps it.
///
/// # Errors
/// When the dump has none.
pub(crate) fn select(dump: &Dump) -> Result<Value, CliError> {
    let sections = dump.sections("BootstrapConfigDump")?;
    Ok(sections.first().map(|section| without_type(section)).unwrap_or_default())
}

/// Which versions run there.
pub(crate) fn summary(section: &Value) -> String {
    let node = &section["bootstrap"]["node"];
    let build = &node["userAgentBuildVersion"];
    let number = |part: &str| build["version"].get(part).and_then(Value::as_u64).unwrap_or(0);
    let metadata = |key: &str| build["metadata"].get(key).and_then(Value::as_str).unwrap_or_default();
    let sha = text(node, "/metadata/ISTIO_PROXY_SHA");
    format!(
        "Istio Version:       {}\nIstio Proxy Version: {}\n{:<20} {}.{}.{}/{}/{}/{}\n",
        text(node, "/metadata/ISTIO_VERSION"),
        sha.split_once(':').map_or(sha, |(_, sha)| sha),
        if text(node, "/userAgentName") == "lateen" { "Lateen Version:" } else { "Envoy Version:" },
        number("majorNumber"),
        number("minorNumber"),
        number("patch"),
        metadata("revision.status"),
        metadata("build.type"),
        metadata("ssl.version"),
    )
}

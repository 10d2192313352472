//! What istioctl has and this binary has not yet: said by name, so that nobody looks for a slip of the pen.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The first words of istioctl's commands that are not built yet, those under `x` among them.
const VERBS: &[&str] = &[
    "admin",
    "analyze",
    "authz",
    "bug-report",
    "check-inject",
    "completion",
    "config",
    "create-remote-secret",
    "dashboard",
    "describe",
    "envoy-stats",
    "injector",
    "internal-debug",
    "kube-uninject",
    "metrics",
    "operator",
    "options",
    "proxy-status",
    "remote-clusters",
    "remove-from-mesh",
    "add-to-mesh",
    "revision",
    "verify-install",
    "version",
    "wait",
    "waypoint",
    "workload",
    "ztunnel-config",
];

/// The verb of istioctl's that was not recognised, if that is what is wrong.
pub(crate) fn verb(error: &clap::Error) -> Option<&str> {
    match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::String(verb))) => {
            VERBS.contains(&verb.as_str()).then_some(verb)
        }
        _ => None,
    }
}

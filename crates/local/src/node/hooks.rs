//! A container's lifecycle hooks.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::node::launch::Launch;
use crate::node::probe::Runner;
use crate::node::{Node, exec};

/// What a hook asks for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Sleep(Duration),
    Command(Vec<String>),
}

/// Runs the hook after the start; false when it failed, which ends the container.
pub(super) async fn post_start(node: &Node, pod: &Pod, container: &Container, launch: &Launch) -> bool {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    let Some(hook) = hook else { return true };
    let done = run(node, pod, container, hook, launch).await;
    if let Err(reason) = &done {
        node.events.warning(pod, "FailedPostStartHook", format!("{}: {reason}", container.name));
    }
    done.is_ok()
}

/// Runs the hook before the end.
pub(super) async fn pre_stop(node: &Node, pod: &Pod, container: &Container, launch: &Launch) {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let Some(hook) = hook else { return };
    if let Err(reason) = run(node, pod, container, hook, launch).await {
        node.events.warning(pod, "FailedPreStopHook", format!("{}: {reason}", container.name));
    }
}

async fn run(
    node: &Node,
    pod: &Pod,
    container: &Container,
    hook: &LifecycleHandler,
    launch: &Launch,
) -> Result<(), String> {
    match step(hook)? {
        Step::Sleep(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Step::Command(words) => exec::Commands { node, pod, container, launch }.run(&words).await,
    }
}

fn step(hook: &LifecycleHandler) -> Result<Step, String> {
    if let Some(sleep) = &hook.sleep {
        return Ok(Step::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))));
    }
    let words = hook.exec.as_ref().and_then(|exec| exec.command.clone());
    words.map(Step::Command).ok_or_else(|| "only exec and sleep hooks are supported".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hooks_are_sleep_and_commands() {
        let of = |hook: serde_json::Value| step(&serde_json::from_value(hook).unwrap());
        assert_eq!(of(json!({"sleep": {"seconds": 2}})), Ok(Step::Sleep(Duration::from_secs(2))));
        let words = vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()];
        assert_eq!(of(json!({"exec": {"command": words}})), Ok(Step::Command(words)));
        assert!(of(json!({"httpGet": {"port": 1}})).is_err());
    }
}

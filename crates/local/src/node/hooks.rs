//! A container's lifecycle hooks. There is no shell: `pilot-agent` and `sleep` are the commands there are.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::node::Node;
use crate::node::launch::Launch;

/// What a hook asks for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Sleep(Duration),
    Agent(Vec<String>),
}

/// Runs the hook after the start; false when it failed, which ends the container.
pub(super) async fn post_start(node: &Node, pod: &Pod, container: &Container, launch: &Launch) -> bool {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    let Some(hook) = hook else { return true };
    let done = run(node, hook, launch).await;
    if let Err(reason) = &done {
        node.events.warning(pod, "FailedPostStartHook", format!("{}: {reason}", container.name));
    }
    done.is_ok()
}

/// Runs the hook before the end.
pub(super) async fn pre_stop(node: &Node, pod: &Pod, container: &Container, launch: &Launch) {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let Some(hook) = hook else { return };
    if let Err(reason) = run(node, hook, launch).await {
        node.events.warning(pod, "FailedPreStopHook", format!("{}: {reason}", container.name));
    }
}

async fn run(node: &Node, hook: &LifecycleHandler, launch: &Launch) -> Result<(), String> {
    match step(hook)? {
        Step::Sleep(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Step::Agent(args) => {
            let mut command = Launch { args, ..launch.clone() }.command();
            command
                .arg0("pilot-agent")
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            let mut child = node.spawner.spawn(command).await.map_err(|error| error.to_string())?;
            let status = child.wait().await.map_err(|error| error.to_string())?;
            if status.success() { Ok(()) } else { Err(format!("pilot-agent ended with {status}")) }
        }
    }
}

fn step(hook: &LifecycleHandler) -> Result<Step, String> {
    if let Some(sleep) = &hook.sleep {
        return Ok(Step::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))));
    }
    let Some(words) = hook.exec.as_ref().and_then(|exec| exec.command.as_ref()) else {
        return Err("only exec and sleep hooks are supported".to_owned());
    };
    let name = words.first().and_then(|word| Path::new(word).file_name()?.to_str());
    match (name, words.get(1..).unwrap_or_default()) {
        (Some("pilot-agent"), rest) => Ok(Step::Agent(rest.to_vec())),
        (Some("sleep"), [seconds]) => {
            let seconds: f64 =
                seconds.trim_end_matches('s').parse().map_err(|_| format!("{seconds:?} is no number"))?;
            Duration::try_from_secs_f64(seconds).map(Step::Sleep).map_err(|error| error.to_string())
        }
        _ => Err(format!(
            "{words:?}: there is no shell in loopback isolation; the commands are pilot-agent and sleep"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hooks_are_sleep_and_the_agent() {
        let of = |hook: serde_json::Value| step(&serde_json::from_value(hook).unwrap());
        let exec = |words: &[&str]| of(json!({"exec": {"command": words}}));
        assert_eq!(of(json!({"sleep": {"seconds": 2}})), Ok(Step::Sleep(Duration::from_secs(2))));
        assert_eq!(exec(&["/bin/sleep", "0.5"]), Ok(Step::Sleep(Duration::from_millis(500))));
        assert_eq!(exec(&["pilot-agent", "wait"]), Ok(Step::Agent(vec!["wait".into()])));
        assert!(exec(&["sh", "-c", "true"]).unwrap_err().contains("no shell"));
        assert!(exec(&["sleep", "-1"]).is_err());
        assert!(of(json!({"httpGet": {"port": 1}})).is_err());
    }
}

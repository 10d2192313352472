//! Commands in the containers of pods, over WebSockets.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess, TerminalSize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Client, KubeError};

/// What to run, and what of it is connected.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// The container; none: the pod's only or default one.
    pub container: Option<String>,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether it gets standard input.
    pub stdin: bool,
    /// Whether it gets a terminal, which joins its standard error to its standard output.
    pub tty: bool,
}

/// A command that runs in a container. Dropping it ends the connection, and the command with it.
pub struct RunningCommand {
    process: AttachedProcess,
}

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Exited(i32),
    /// It could not be run, or nobody knows how it ended; the server's words.
    Failed(String),
}

impl Client {
    /// Runs a command in a container.
    ///
    /// # Errors
    /// When there is no such pod, or the connection is refused.
    pub async fn exec(&self, namespace: &str, pod: &str, exec: &Exec) -> Result<RunningCommand, KubeError> {
        let api: Api<Pod> = Api::namespaced(self.inner().clone(), namespace);
        let params = AttachParams {
            container: exec.container.clone(),
            stdin: exec.stdin,
            stdout: true,
            stderr: !exec.tty,
            tty: exec.tty,
            ..AttachParams::default()
        };
        Ok(RunningCommand { process: api.exec(pod, exec.command.iter(), &params).await? })
    }
}

impl RunningCommand {
    /// What writes to its standard input, once; dropping that ends the input.
    pub fn stdin(&mut self) -> Option<impl AsyncWrite + Unpin + use<>> {
        self.process.stdin()
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<impl AsyncRead + Unpin + use<>> {
        self.process.stdout()
    }

    /// Its standard error, once; none with a terminal.
    pub fn stderr(&mut self) -> Option<impl AsyncRead + Unpin + use<>> {
        self.process.stderr()
    }

    /// What tells it the size of its terminal, once; none without a terminal.
    pub fn resize(&mut self) -> Option<Resize> {
        self.process.terminal_size().map(Resize)
    }

    /// Waits for its end. What it printed has to be read meanwhile.
    pub async fn ended(mut self) -> Ended {
        let status = self.process.take_status();
        let said = match status {
            Some(status) => status.await,
            None => None,
        };
        // The connection ends with the command; why it broke, if it did, is in its own words.
        match (self.process.join().await, said) {
            (_, Some(status)) => ended(&status),
            (Err(error), None) => Ended::Failed(error.to_string()),
            (Ok(()), None) => Ended::Failed("the connection ended before the command did".to_owned()),
        }
    }
}

/// Tells a command the size of its terminal.
pub struct Resize(futures::channel::mpsc::Sender<TerminalSize>);

impl Resize {
    /// The terminal has this size now, in characters.
    pub fn send(&mut self, columns: u16, rows: u16) {
        // A size that finds the queue full is followed by a later one, or of no use.
        let _ = self.0.try_send(TerminalSize { width: columns, height: rows });
    }
}

fn ended(status: &Status) -> Ended {
    if status.status.as_deref() == Some("Success") {
        return Ended::Exited(0);
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let code = causes
        .into_iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_ref()?.parse().ok());
    match code {
        Some(code) => Ended::Exited(code),
        None => Ended::Failed(status.message.clone().unwrap_or_else(|| "the command failed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_among_the_causes() {
        let status = |text: &str| ended(&serde_json::from_str(text).unwrap_or_default());
        assert_eq!(status(r#"{"status": "Success"}"#), Ended::Exited(0));
        let failed = r#"{"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated",
            "details": {"causes": [{"reason": "ExitCode", "message": "56"}]}}"#;
        assert_eq!(status(failed), Ended::Exited(56));
        let refused = r#"{"status": "Failure", "message": "no such file"}"#;
        assert_eq!(status(refused), Ended::Failed("no such file".to_owned()));
    }
}

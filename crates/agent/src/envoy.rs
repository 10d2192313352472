//! Stock Envoy as a child process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::{Child, Command};

use crate::files;
use crate::health::Admin;
use crate::settings::Settings;

/// A running Envoy.
pub struct Envoy {
    child: Child,
    admin: Admin,
    settings: Arc<Settings>,
}

/// Why Envoy does not run.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// The binary cannot be started.
    #[error("cannot start {binary}: {source}; set binaryPath in PROXY_CONFIG, or unset LATEEN_DATA_PLANE")]
    Start {
        /// The binary.
        binary: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its bootstrap cannot be written.
    #[error("the bootstrap: {0}")]
    Bootstrap(String),
    /// It ended by itself.
    #[error("Envoy ended with {0}")]
    Ended(std::process::ExitStatus),
    /// Its end cannot be waited for.
    #[error("cannot wait for Envoy: {0}")]
    Wait(std::io::Error),
}

impl Envoy {
    /// Starts Envoy on a bootstrap.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub(crate) fn start(settings: Arc<Settings>, admin: Admin, bootstrap: &Path) -> Result<Self, EnvoyError> {
        let binary = binary(&settings);
        let mut command = Command::new(&binary);
        command
            .arg("-c")
            .arg(files::text(bootstrap))
            .args(["--disable-hot-restart", "--drain-strategy", "immediate"])
            .args(["--drain-time-s", &settings.config.drain_duration.as_secs().to_string()])
            .args(["--log-level", &settings.log_level])
            .args(["--component-log-level", &settings.component_log_level]);
        if settings.concurrency > 0 {
            command.args(["--concurrency", &settings.concurrency.to_string()]);
        }
        let child = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| EnvoyError::Start { binary: binary.display().to_string(), source })?;
        Ok(Self { child, admin, settings })
    }

    /// Asks Envoy whether it would take a bootstrap; its own words where it would not.
    pub(crate) fn validate(settings: &Settings, bootstrap: &Path) -> Result<(), String> {
        let mut command = std::process::Command::new(binary(settings));
        command.args(["--mode", "validate", "--disable-hot-restart", "-c"]).arg(files::text(bootstrap));
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let words = text.lines().rev().find(|line| line.contains("error"));
        Err(words.or(text.lines().last()).unwrap_or("it gives no reason").trim().to_owned())
    }

    /// Waits until Envoy ends by itself, which is an error.
    pub async fn ended(&mut self) -> EnvoyError {
        match self.child.wait().await {
            Ok(status) => EnvoyError::Ended(status),
            Err(error) => EnvoyError::Wait(error),
        }
    }

    /// Drains the listeners, goes on serving for the termination drain duration, and ends Envoy.
    pub async fn drain(mut self) {
        for path in ["/healthcheck/fail", "/drain_listeners?graceful"] {
            if let Err(reason) = self.admin.post(path).await {
                tracing::warn!("draining Envoy: {reason}");
            }
        }
        let wait = self.settings.config.termination_drain_duration;
        if tokio::time::timeout(wait, self.child.wait()).await.is_ok() {
            return;
        }
        // An answer may not come: the process is ending.
        let _ = self.admin.post("/quitquitquit").await;
        let grace = std::time::Duration::from_secs(2);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            tracing::warn!("Envoy does not end; killing it");
            if let Err(error) = self.child.kill().await {
                tracing::warn!("killing Envoy: {error}");
            }
        }
    }
}

/// Istio's default path names a binary that exists in its images only; elsewhere `envoy` is looked for.
fn binary(settings: &Settings) -> PathBuf {
    let path = PathBuf::from(&settings.config.binary_path);
    match path.is_absolute() && !path.exists() {
        true => PathBuf::from("envoy"),
        false => path,
    }
}

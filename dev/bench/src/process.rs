//! Processes that are measured: what they cost, and that they end with the measurement.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::BenchError;

/// A running process; it is ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a program; its output goes to a file beside its configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &str, command: &mut Command, output: &Path) -> Result<Self, BenchError> {
        let file = std::fs::File::create(output)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| BenchError::Text(format!("{name} cannot be started: {error}")))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Waits until it accepts connections.
    ///
    /// # Errors
    /// When it ends before, or takes more than 60 seconds.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> Result<(), BenchError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(BenchError::Text(format!("{} ended at its start: {status}", self.name)));
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(BenchError::Text(format!("{} does not listen on {address}", self.name)))
    }

    /// The processor time that it has used.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name is in parentheses and may hold anything; what follows is numbers.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        // User and system time are fields 14 and 15; the kernel counts 100 ticks a second for user space.
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }

    /// Its resident memory, in MB.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub(crate) fn resident_mb(&self) -> Result<f64, BenchError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kb.map(|kb| kb / 1024.0).ok_or_else(|| BenchError::Text(format!("{} has no VmRSS", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port of the loopback interface. Another process may take it before it is used; a run then fails by name.
///
/// # Errors
/// When there is none.
pub(crate) fn free_port() -> Result<u16, BenchError> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

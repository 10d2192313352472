//! Which process is which, after the process that started it is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lateen_sys::process::{Signal, signal, signal_group};
use serde::{Deserialize, Serialize};

/// A process id with the time it was started, so that a later process with the same id is not mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// When it was started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

impl ProcessId {
    /// This process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The process that has this id now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: field_after_name(&stat, 22)?.parse().ok()? })
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        let started = field_after_name(&stat, 22).and_then(|field| field.parse().ok());
        started == Some(self.started) && !matches!(field_after_name(&stat, 3), Some("Z" | "X"))
    }

    /// Asks it to end, waits, then makes it end. True when it was alive.
    ///
    /// # Errors
    /// A signal that may not be sent.
    pub fn end(self, patience: Duration) -> io::Result<bool> {
        if !self.is_alive() {
            return Ok(false);
        }
        signal(self.pid, Signal::Terminate)?;
        if !self.wait(patience) {
            signal(self.pid, Signal::Kill)?;
            self.wait(Duration::from_secs(10));
        }
        Ok(true)
    }

    /// Waits until it is gone; false when it is still there.
    pub fn wait(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// A field of a stat file, counted from 1; the second one (the name) may hold blanks and brackets.
fn field_after_name(stat: &str, number: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// The child processes of this run, remembered on disk for the next one.
#[derive(Clone, Debug)]
pub struct ProcessBook {
    folder: PathBuf,
}

impl ProcessBook {
    /// The book in `folder`.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Notes a process that was just started.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn note(&self, pid: u32) -> io::Result<()> {
        match ProcessId::of(pid) {
            Some(process) => fs::write(self.file(pid), process.started.to_string()),
            None => Ok(()),
        }
    }

    /// Strikes out a process that has ended.
    pub fn strike(&self, pid: u32) {
        let _ = fs::remove_file(self.file(pid));
    }

    /// Ends what an earlier run has left behind; returns how many processes that were.
    ///
    /// # Errors
    /// A process that may not be signalled.
    pub fn reap(&self) -> io::Result<usize> {
        let mut reaped = 0;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if let Some(process) = noted(&path)
                && process.is_alive()
            {
                signal_group(process.pid, Signal::Kill)?;
                signal(process.pid, Signal::Kill)?;
                process.wait(Duration::from_secs(10));
                reaped += 1;
            }
            fs::remove_file(&path)?;
        }
        Ok(reaped)
    }

    fn file(&self, pid: u32) -> PathBuf {
        self.folder.join(pid.to_string())
    }
}

fn noted(path: &Path) -> Option<ProcessId> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    let started = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    Some(ProcessId { pid, started })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn fields_are_found_behind_a_strange_name() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(field_after_name(stat, 3), Some("S"));
        assert_eq!(field_after_name(stat, 22), Some("777"));
    }

    #[test]
    fn the_next_run_ends_what_is_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let book = ProcessBook::open(dir.path().join("processes")).unwrap();
        let mut command = Command::new("sleep");
        let mut left = lateen_sys::process::contain(command.arg("60")).spawn().unwrap();
        book.note(left.id()).unwrap();
        // The id of this very process, with another start time: a later owner of a recycled id.
        fs::write(dir.path().join("processes").join(std::process::id().to_string()), "1").unwrap();
        let waiter = std::thread::spawn(move || left.wait());
        assert_eq!(book.reap().unwrap(), 1);
        assert!(!waiter.join().unwrap().unwrap().success());
        assert_eq!(book.reap().unwrap(), 0);
    }

    #[test]
    fn this_process_is_alive() {
        assert!(ProcessId::own().unwrap().is_alive());
        assert!(!ProcessId { pid: std::process::id(), started: 1 }.is_alive());
    }
}

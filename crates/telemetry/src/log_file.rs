//! Files that access logs go to: written off the hot path, in batches.
//!
//! Each worker owns a [`Batch`] per file and hands it over when it is full or when its timer says so; one thread per
//! process does the writing. A slow reader of standard output stops that thread, never a worker: what does not fit
//! the queue is dropped and counted.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A batch is handed over once it has this many bytes.
pub const FLUSH_BYTES: usize = 64 * 1024;
/// A batch that is not full is handed over after this time.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// Batches that wait for the writing thread.
const QUEUE: usize = 256;

/// Why a log file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogFileError {
    /// It cannot be opened for appending.
    #[error("access log {path:?} cannot be opened for appending: {source}")]
    Open {
        /// The path, as configured.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The writing thread did not start.
    #[error("the thread that writes access logs did not start: {0}")]
    Thread(io::Error),
}

enum Job {
    Write(Arc<File>, Vec<u8>),
    Flushed(SyncSender<()>),
}

/// The open log files of the process, by path, and the thread that writes them.
#[derive(Debug)]
pub struct LogFiles {
    jobs: SyncSender<Job>,
    open: Mutex<HashMap<String, LogFile>>,
    dropped: Arc<AtomicU64>,
}

impl LogFiles {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> Result<Self, LogFileError> {
        let (jobs, inbox) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("access-log".into())
            .stack_size(64 * 1024)
            .spawn(move || write_all(&inbox))
            .map_err(LogFileError::Thread)?;
        Ok(Self { jobs, open: Mutex::default(), dropped: Arc::default() })
    }

    /// The file at `path`, opened once; `/dev/stdout` and `/dev/stderr` are the process's own streams.
    ///
    /// # Errors
    /// When it cannot be opened for appending.
    pub fn open(&self, path: &str) -> Result<LogFile, LogFileError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(path) {
            return Ok(file.clone());
        }
        let target =
            open_target(path).map_err(|source| LogFileError::Open { path: path.to_owned(), source })?;
        let file =
            LogFile { target: Arc::new(target), jobs: self.jobs.clone(), dropped: self.dropped.clone() };
        open.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    /// Batches dropped because the writing thread was too far behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything handed over so far is written. Blocks: not for workers.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.jobs.send(Job::Flushed(done)).is_ok() {
            // The thread drops its side when it ends; either way nothing is left to wait for.
            let _ = wait.recv();
        }
    }
}

fn open_target(path: &str) -> io::Result<File> {
    use std::os::fd::AsFd;
    match path {
        // Opening /dev/stdout anew fails when it is a socket, and truncates positions when it is a file.
        "/dev/stdout" => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        "/dev/stderr" => Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
        path => OpenOptions::new().create(true).append(true).open(path),
    }
}

fn write_all(inbox: &Receiver<Job>) {
    while let Ok(job) = inbox.recv() {
        match job {
            // A log that cannot be written has nowhere to say so.
            Job::Write(file, bytes) => drop((&*file).write_all(&bytes)),
            Job::Flushed(done) => drop(done.send(())),
        }
    }
}

/// One log file, shared by all who write to it.
#[derive(Clone, Debug)]
pub struct LogFile {
    target: Arc<File>,
    jobs: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

impl LogFile {
    /// Distinct among the open files.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.target) as usize
    }

    /// An empty batch for this file; one per worker.
    pub fn batch(&self) -> Batch {
        Batch { file: self.clone(), bytes: Vec::new() }
    }
}

/// What one worker has to say to one file, until it is handed over.
#[derive(Debug)]
pub struct Batch {
    file: LogFile,
    bytes: Vec<u8>,
}

impl Batch {
    /// Lets `write` append a line; hands the batch over when it is full.
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(4096);
        }
        write(&mut self.bytes);
        if self.bytes.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        match self.file.jobs.try_send(Job::Write(self.file.target.clone(), bytes)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.file.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_arrive_in_order_and_whole() {
        let path = std::env::temp_dir().join(format!("lateen-log-{}", std::process::id()));
        let files = LogFiles::start().unwrap();
        let file = files.open(path.to_str().unwrap()).unwrap();
        let mut batch = file.batch();
        for n in 0..20_000 {
            batch.append(|out| out.extend_from_slice(format!("line {n}\n").as_bytes()));
        }
        drop(batch);
        files.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 20_000);
        assert!(text.ends_with("line 19999\n"));
        assert_eq!(files.dropped(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = LogFiles::start().unwrap().open("/nonexistent/folder/log").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/folder/log"), "{error}");
    }
}

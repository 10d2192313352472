//! Clusters that run in a process of their own: started, followed, ended.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{ProcessBook, ProcessId};
use crate::progress::Progress;
use crate::state::{Phase, RunRecord, StateError, StateFolder};

/// How often the start of another process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What went wrong with a cluster in another process.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The process.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It gave up; its log has said why.
    #[error("the cluster did not start ({ended}); its log is {log}")]
    Ended {
        /// How it ended.
        ended: String,
        /// The log.
        log: PathBuf,
    },
    /// It is not ready yet.
    #[error("the cluster is not ready after {seconds} s; it goes on starting, its log is {log}")]
    Slow {
        /// How long was waited.
        seconds: u64,
        /// The log.
        log: PathBuf,
    },
    /// It does not end.
    #[error("cannot end process {pid}: {source}")]
    Stop {
        /// The process.
        pid: u32,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// How long a cluster's own process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Until it is told to end.
    Own,
    /// Not longer than the process that starts it, however that one ends.
    OfStarter,
}

/// Starts `program args` as the cluster's own process and waits until it is ready. Its progress is told on.
///
/// # Errors
/// When it cannot be started, gives up, or takes longer than `patience`.
pub fn start(
    state: &StateFolder,
    program: PathBuf,
    args: &[String],
    life: Life,
    patience: Duration,
    progress: &Progress,
) -> Result<RunRecord, BackgroundError> {
    state.open()?;
    let path = state.log();
    let failed = |action, source| StateError::Io { action, path: path.clone(), source };
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| failed("write", source))?;
    let errors = log.try_clone().map_err(|source| failed("write", source))?;
    let mut command = Command::new(&program);
    command.args(args).stdin(Stdio::null()).stdout(log).stderr(errors);
    match life {
        Life::Own => lateen_sys::process::detach(&mut command),
        Life::OfStarter => lateen_sys::process::contain(&mut command),
    };
    let mut child = command.spawn().map_err(|source| BackgroundError::Start { program, source })?;
    let mut tail = Tail::open(state);
    let deadline = Instant::now() + patience;
    loop {
        // The state first: what it says came after all that the log has by then.
        let run = state.run()?.filter(|run| run.process.pid == child.id());
        let ended = child.try_wait().ok().flatten();
        tail.tell(progress);
        if let Some(status) = ended {
            return Err(BackgroundError::Ended { ended: status.to_string(), log: path });
        }
        if let Some(run) = run.filter(|run| run.phase == Phase::Ready) {
            return Ok(run);
        }
        if Instant::now() >= deadline {
            return Err(BackgroundError::Slow { seconds: patience.as_secs(), log: path });
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits until a cluster that somebody else has started is ready.
///
/// # Errors
/// When it ends before, or takes longer than `patience`.
pub fn wait(state: &StateFolder, patience: Duration) -> Result<RunRecord, BackgroundError> {
    let deadline = Instant::now() + patience;
    loop {
        match state.live_run()? {
            Some(run) if run.phase == Phase::Ready => return Ok(run),
            Some(_) => {}
            None => return Err(BackgroundError::Ended { ended: "it has ended".into(), log: state.log() }),
        }
        if Instant::now() >= deadline {
            return Err(BackgroundError::Slow { seconds: patience.as_secs(), log: state.log() });
        }
        std::thread::sleep(LOOK);
    }
}

/// What [`stop`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The cluster's process was running.
    pub ran: bool,
    /// Processes that an earlier run had left behind.
    pub reaped: usize,
}

/// Ends the cluster and all its processes. One that does not run is no error.
///
/// # Errors
/// A process that may not be ended, a damaged state folder.
pub fn stop(state: &StateFolder, patience: Duration) -> Result<Stopped, BackgroundError> {
    let mut ran = false;
    // A damaged record does not keep what is remembered elsewhere alive.
    if let Some(run) = state.run()? {
        let ProcessId { pid, .. } = run.process;
        ran = run.process.end(patience).map_err(|source| BackgroundError::Stop { pid, source })?;
        state.forget_run();
    }
    let mut reaped = 0;
    if state.processes().is_dir() {
        let book = ProcessBook::open(state.processes()).and_then(|book| book.reap());
        reaped = book.map_err(|source| StateError::Io {
            action: "end the processes remembered in",
            path: state.processes(),
            source,
        })?;
    }
    Ok(Stopped { ran, reaped })
}

/// The lines of a growing log.
struct Tail {
    reader: Option<BufReader<File>>,
    partial: String,
}

impl Tail {
    fn open(state: &StateFolder) -> Self {
        Self { reader: File::open(state.log()).ok().map(BufReader::new), partial: String::new() }
    }

    fn tell(&mut self, progress: &Progress) {
        let Some(reader) = &mut self.reader else { return };
        // What is no text is not told; it stays in the log.
        while reader.read_line(&mut self.partial).is_ok_and(|count| count > 0) {
            if self.partial.ends_with('\n') {
                progress.say(self.partial.trim_end());
                self.partial.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_gives_up_is_told_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::at(dir.path().join("mesh"), "mesh");
        let said = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let lines = said.clone();
        let progress = Progress::new(move |line| lines.lock().push(line.to_owned()));
        let args = ["no/such/folder".to_owned()];
        let error =
            start(&state, "/bin/ls".into(), &args, Life::OfStarter, Duration::from_secs(60), &progress)
                .unwrap_err();
        assert!(error.to_string().contains("did not start"), "{error}");
        assert!(said.lock()[0].contains("no/such/folder"), "{said:?}");
    }

    #[test]
    fn what_does_not_run_is_stopped_already() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::at(dir.path().join("mesh"), "mesh");
        let nothing = Stopped { ran: false, reaped: 0 };
        assert_eq!(stop(&state, Duration::ZERO).unwrap(), nothing);
        assert!(!state.exists());
        state.open().unwrap();
        assert_eq!(stop(&state, Duration::ZERO).unwrap(), nothing);
    }
}

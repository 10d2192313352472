//! Starting child processes that the kernel ends with this one.

use std::io;
use std::process::Command;
use std::sync::mpsc;

use tokio::process::Child;
use tokio::sync::oneshot;

/// The thread that starts all children: the kernel's parent-death signal follows the starting *thread*, and
/// tokio's threads may end before the process does.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    requests: mpsc::Sender<Request>,
}

struct Request {
    command: Command,
    terminal: bool,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    /// Starts the thread; it ends with the last clone of the spawner. Call it within a tokio runtime.
    pub(crate) fn start() -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            let _guard = runtime.enter();
            for Request { mut command, terminal, answer } in inbox {
                lateen_sys::process::contain(&mut command);
                if terminal {
                    lateen_sys::terminal::adopt(&mut command);
                }
                let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
                // Nobody waits any more: the child is dropped, and killed by that.
                let _ = answer.send(child);
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts a child that leads its own session and dies with this process.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        self.ask(command, false).await
    }

    /// As [`Spawner::spawn`]; the child's standard input becomes its controlling terminal.
    pub(crate) async fn spawn_on_terminal(&self, command: Command) -> io::Result<Child> {
        self.ask(command, true).await
    }

    async fn ask(&self, command: Command, terminal: bool) -> io::Result<Child> {
        let (answer, child) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts processes is gone");
        self.requests.send(Request { command, terminal, answer }).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}

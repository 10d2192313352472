//! `lateen exec`: a command in a container, as `kubectl exec` runs it.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use lateen_kube::{Ended, Exec, Resize, RunningCommand};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, Outcome};
use crate::cluster::Cluster;
use crate::containers;
use crate::globals::Globals;

/// Arguments of `lateen exec`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// The pod, or TYPE/NAME of what it belongs to (deployment/NAME)
    target: String,
    /// The container; the pod's default or first one when not given
    #[arg(long, short, value_name = "CONTAINER")]
    container: Option<String>,
    /// Pass standard input on (also -i, and -it with a terminal)
    #[arg(long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(long, short)]
    tty: bool,
    /// Say nothing of the container that was chosen
    #[arg(long, short)]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `-i` is kubectl's standard input here, where it is the control plane's namespace for other commands.
pub(crate) fn arguments(args: Vec<OsString>) -> Vec<OsString> {
    let mut ours = args.get(1).is_some_and(|command| command == "exec");
    let words = args.into_iter().flat_map(|word| {
        ours &= word != "--";
        let flags: &[&str] = match word.to_str() {
            Some("-i") if ours => &["--stdin"],
            Some("-it" | "-ti") if ours => &["--stdin", "--tty"],
            _ => return vec![word],
        };
        flags.iter().map(Into::into).collect()
    });
    words.collect()
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::new)?;
        let outcome = runtime.block_on(self.exec(globals));
        // A read of standard input that nobody waits for any more does not keep the process.
        runtime.shutdown_background();
        outcome
    }

    async fn exec(self, globals: &Globals) -> Outcome {
        let cluster = Cluster::connect(globals).await?;
        let pod = containers::pod(&cluster, &self.target).await?;
        let container = containers::choose(&pod, self.container.as_deref(), self.quiet)?;
        let terminal = self.tty && self.stdin && std::io::stdin().is_terminal();
        if self.tty && !terminal {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        let asked =
            Exec { container: Some(container), command: self.command, stdin: self.stdin, tty: terminal };
        let name = containers::name(&pod);
        let running = cluster.client.exec(containers::namespace(&pod), name, &asked).await?;
        let raw = match terminal {
            true => Some(lateen_sys::terminal::raw(&std::io::stdin()).map_err(CliError::new)?),
            false => None,
        };
        let ended = follow(running).await;
        drop(raw);
        match ended {
            Ended::Exited(0) => Ok(ExitCode::SUCCESS),
            Ended::Exited(code) => {
                eprintln!("command terminated with exit code {code}");
                Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
            }
            Ended::Failed(why) => Err(CliError(why)),
        }
    }
}

/// Connects the command with this process until it has ended.
async fn follow(mut running: RunningCommand) -> Ended {
    let (input, output, errors) = (running.stdin(), running.stdout(), running.stderr());
    let input = tokio::spawn(copy_in(input));
    let size = running.resize().map(|resize| tokio::spawn(follow_size(resize)));
    let printed =
        async { tokio::join!(copy_out(output, std::io::stdout()), copy_out(errors, std::io::stderr())) };
    let (ended, _) = tokio::join!(running.ended(), printed);
    input.abort();
    if let Some(size) = size {
        size.abort();
    }
    ended
}

/// Standard input, whose end is the command's, too.
async fn copy_in(to: Option<impl AsyncWrite + Unpin>) {
    let Some(mut to) = to else { return };
    // The command may end before its input does.
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut to).await;
    let _ = to.shutdown().await;
}

/// What the command prints, as soon as it comes.
async fn copy_out(from: Option<impl AsyncRead + Unpin>, mut to: impl std::io::Write) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 16 * 1024];
    let mut reader_is_there = true;
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            // What nobody reads any more is still taken, so that the command comes to its end.
            Ok(count) if reader_is_there => {
                reader_is_there = to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_ok();
            }
            Ok(_) => {}
        }
    }
}

/// Tells the size of the terminal, now and when it changes.
async fn follow_size(mut resize: Resize) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok((columns, rows)) = lateen_sys::terminal::size(&std::io::stdin()) {
            resize.send(columns, rows);
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_meant_by_i_only_before_the_command() {
        let translated = |line: &str| {
            let words = arguments(line.split(' ').map(OsString::from).collect());
            words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let asked = "lateen exec -it p -- sh -i";
        assert_eq!(translated(asked), "lateen exec --stdin --tty p -- sh -i");
        assert_eq!(translated("lateen exec -i p -- x"), "lateen exec --stdin p -- x");
        assert_eq!(translated("lateen ps -i mesh"), "lateen ps -i mesh");
    }
}

//! Starting and ending child processes so that none outlives the process that is responsible for it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What a child process is asked or made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in good order (SIGTERM).
    Terminate,
    /// End as from a terminal (SIGINT).
    Interrupt,
    /// End now (SIGKILL).
    Kill,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Self::Terminate => libc::SIGTERM,
            Self::Interrupt => libc::SIGINT,
            Self::Kill => libc::SIGKILL,
        }
    }
}

/// Makes the child the leader of its own session (a terminal's Ctrl-C does not reach it, and it can be
/// signalled with all it starts) and has the kernel kill it when its parent dies.
///
/// The kernel ties the second part to the *thread* that starts the child, so start it from a thread that lives
/// as long as the process should ([`prctl(2)`, PR_SET_PDEATHSIG]).
///
/// [`prctl(2)`, PR_SET_PDEATHSIG]: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
pub fn contain(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    // SAFETY: the closure runs in the forked child before exec. It only makes the system calls setsid, prctl
    // and getppid, which are async-signal-safe, and it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || die_with(parent)) }
}

/// Makes the child the leader of its own session, to go on when its parent has ended.
pub fn detach(command: &mut Command) -> &mut Command {
    // SAFETY: as in `contain`: one async-signal-safe system call between fork and exec.
    unsafe { command.pre_exec(new_session) }
}

fn new_session() -> io::Result<()> {
    // SAFETY: setsid takes no argument and touches no memory of ours.
    if unsafe { libc::setsid() } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn die_with(parent: u32) -> io::Result<()> {
    new_session()?;
    let signal = libc::SIGKILL as libc::c_ulong;
    // SAFETY: PR_SET_PDEATHSIG takes a signal number by value.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // The parent may have died between fork and prctl: then nobody would ever send the signal.
    // SAFETY: getppid takes no argument and cannot fail.
    let now = unsafe { libc::getppid() };
    if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ECHILD)) }
}

/// Sends a signal to one process. A process that is gone already is no error.
///
/// # Errors
/// The kernel's answer, `EPERM` above all.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    send(pid_of(pid)?, signal)
}

/// Sends a signal to a process group, here: to a process started with [`contain`] and all it started.
///
/// # Errors
/// The kernel's answer, `EPERM` above all.
pub fn signal_group(leader: u32, signal: Signal) -> io::Result<()> {
    send(-pid_of(leader)?, signal)
}

/// Has this process end quietly when what reads its output is gone (`| head`), as programs do that only print. Rust has
/// a write fail instead, which is right for whatever holds connections.
pub fn end_with_reader() {
    // SAFETY: SIG_DFL is no function of ours; signal(2) with it only drops what Rust set at start.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

fn pid_of(pid: u32) -> io::Result<libc::pid_t> {
    // 0 and -1 address groups of processes: never what a caller of these functions means.
    match libc::pid_t::try_from(pid) {
        Ok(pid) if pid > 1 => Ok(pid),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is no process id"))),
    }
}

fn send(target: libc::pid_t, signal: Signal) -> io::Result<()> {
    // SAFETY: kill takes two integers by value; the target is checked above to be one process or one group.
    if unsafe { libc::kill(target, signal.number()) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_contained_child_leads_its_group_and_dies_by_signal() {
        let mut child = contain(Command::new("sleep").arg("60")).spawn().unwrap();
        signal_group(child.id(), Signal::Kill).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        signal(child.id(), Signal::Terminate).unwrap();
    }

    #[test]
    fn no_signal_goes_to_everybody() {
        assert!(signal(0, Signal::Kill).is_err());
        assert!(signal(1, Signal::Kill).is_err());
        assert!(signal_group(u32::MAX, Signal::Kill).is_err());
    }
}

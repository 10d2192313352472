//! Pseudo-terminals, for commands whose user sits at a terminal elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A pseudo-terminal ([`pty(7)`]).
///
/// [`pty(7)`]: https://man7.org/linux/man-pages/man7/pty.7.html
#[derive(Debug)]
pub struct Terminal {
    /// The user's end; reading and writing do not block. Reading fails with `EIO` once every process has closed the other.
    pub controller: File,
    /// The end that is a process's standard input, output and error.
    pub end: File,
}

/// Opens a pseudo-terminal.
///
/// # Errors
/// The kernel's answer: no file descriptors or no terminals left.
pub fn open() -> io::Result<Terminal> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: posix_openpt takes flags by value; what it returns is checked and then owned by nobody else.
    let controller = unsafe { owned(libc::posix_openpt(flags | libc::O_NONBLOCK))? };
    let fd = controller.as_raw_fd();
    // SAFETY: both take a descriptor that is open for the whole call.
    check(unsafe { libc::grantpt(fd) })?;
    // SAFETY: as above.
    check(unsafe { libc::unlockpt(fd) })?;
    // SAFETY: TIOCGPTPEER takes flags by value and opens the other end as a new descriptor.
    let end = unsafe { owned(libc::ioctl(fd, libc::TIOCGPTPEER, flags))? };
    Ok(Terminal { controller: controller.into(), end: end.into() })
}

/// Sets the size, in characters; the processes at the other end get SIGWINCH.
///
/// # Errors
/// The kernel's answer: `ENOTTY` for what is no terminal.
pub fn resize(controller: &impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize, which lives until the call returns; the descriptor is borrowed for it.
    check(unsafe { libc::ioctl(controller.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}

/// The size, in columns and rows.
///
/// # Errors
/// The kernel's answer: `ENOTTY` for what is no terminal.
pub fn size(terminal: &impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize, which lives until the call returns; the descriptor is borrowed for it.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_col, size.ws_row))
}

/// A terminal that hands on every key as it is typed, until this is dropped.
pub struct Raw {
    terminal: OwnedFd,
    before: libc::termios,
}

/// Switches a terminal over to handing on every key: nothing is echoed, nothing is a signal.
///
/// # Errors
/// The kernel's answer: `ENOTTY` for what is no terminal.
pub fn raw(terminal: &impl AsFd) -> io::Result<Raw> {
    let terminal = terminal.as_fd().try_clone_to_owned()?;
    let mut before = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr writes a whole termios when it succeeds; the descriptor is open for the call.
    check(unsafe { libc::tcgetattr(terminal.as_raw_fd(), before.as_mut_ptr()) })?;
    // SAFETY: it has succeeded.
    let before = unsafe { before.assume_init() };
    let mut now = before;
    // SAFETY: cfmakeraw changes the termios it is given, which lives here.
    unsafe { libc::cfmakeraw(&raw mut now) };
    set(&terminal, &now)?;
    Ok(Raw { terminal, before })
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no mode any more.
        let _ = set(&self.terminal, &self.before);
    }
}

fn set(terminal: &OwnedFd, mode: &libc::termios) -> io::Result<()> {
    // SAFETY: tcsetattr reads a termios, which lives until the call returns; the descriptor is open for it.
    check(unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSADRAIN, &raw const *mode) })
}

/// Makes the child's standard input its controlling terminal. The child has to lead a session by then: call it after
/// [`crate::process::contain`].
pub fn adopt(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs in the forked child before exec and makes one system call, which is async-signal-safe.
    unsafe { command.pre_exec(control_stdin) }
}

fn control_stdin() -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer by value.
    check(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) })
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// `fd` is -1, with errno set, or a new descriptor that nobody else owns.
unsafe fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: the caller's promise, and it is not -1.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_child_has_a_terminal_of_the_size_that_was_set() {
        let mut terminal = open().unwrap();
        resize(&terminal.controller, 91, 17).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "stty size </dev/tty"]).stdin(terminal.end.try_clone().unwrap());
        command.stdout(terminal.end.try_clone().unwrap());
        crate::process::contain(&mut command);
        let mut child = adopt(&mut command).spawn().unwrap();
        drop((command, terminal.end));
        assert!(child.wait().unwrap().success());
        let mut text = [0; 64];
        let count = terminal.controller.read(&mut text).unwrap();
        assert_eq!(&text[..count], b"17 91\r\n");
    }

    #[test]
    fn a_raw_terminal_does_not_echo_until_it_is_let_go() {
        let terminal = open().unwrap();
        resize(&terminal.controller, 91, 17).unwrap();
        assert_eq!(size(&terminal.end).unwrap(), (91, 17));
        let echoes = || {
            let mut command = Command::new("stty");
            let output = command.arg("-a").stdin(terminal.end.try_clone().unwrap()).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_whitespace().any(|word| word == "echo")
        };
        assert!(echoes());
        let raw = raw(&terminal.end).unwrap();
        assert!(!echoes());
        drop(raw);
        assert!(echoes());
    }

    #[test]
    fn what_is_no_terminal_has_no_size() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(size(&file).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert!(raw(&file).is_err());
        assert_eq!(resize(&file, 1, 1).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}

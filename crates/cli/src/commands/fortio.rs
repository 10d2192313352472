//! `lateen fortio`, also called as `fortio`: its commands `load`, `curl`, `server` and `version`.

use std::process::ExitCode;

use super::{CliError, Outcome, load};
use crate::globals::Globals;

/// What `fortio version` says; its user agent has the same.
const VERSION: &str = concat!("1.60.0-lateen-", env!("CARGO_PKG_VERSION"));

/// Arguments of `lateen fortio`. They are fortio's own, which start with one dash, so they are read by hand.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Cmd {
    /// load [FLAGS] URL, curl [FLAGS] URL, server [FLAGS] or version
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    args: Vec<String>,
}

impl Cmd {
    /// The command of a container: its words, with or without the program's own.
    pub(super) fn of_container(words: &[String]) -> Self {
        let program = |word: &&String| word.rsplit('/').next() == Some("fortio");
        let skipped = usize::from(words.first().filter(program).is_some());
        Self { args: words[skipped..].to_vec() }
    }

    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let (command, rest) = match self.args.split_first() {
            Some((command, rest)) => (command.as_str(), rest),
            // The image's own default.
            None => ("server", &[][..]),
        };
        match command {
            "load" => load::Cmd::of(rest).run(globals),
            "curl" => {
                let args: Vec<String> =
                    std::iter::once("-curl".to_owned()).chain(rest.iter().cloned()).collect();
                load::Cmd::of(&args).run(globals)
            }
            "server" => {
                lateen_samples::run("fortio", "v1", None, rest).map_err(CliError::new)?;
                Ok(ExitCode::SUCCESS)
            }
            "version" => {
                println!("{VERSION}");
                Ok(ExitCode::SUCCESS)
            }
            other => Err(CliError::new(format!(
                "fortio has no command {other:?} here; there are load, curl, server and version"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_may_name_the_program_or_not() {
        let of = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Cmd::of_container(&words).args.join(" ")
        };
        assert_eq!(of("/usr/bin/fortio load http://a/"), "load http://a/");
        assert_eq!(of("server -http-port 80"), "server -http-port 80");
        assert_eq!(of("fortio"), "");
    }
}

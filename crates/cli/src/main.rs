//! The `lateen` binary: control plane, data-plane proxy, operator's command line and local cluster in one.
//!
//! This file parses and dispatches; each command is a module of its own under `commands`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cluster;
mod commands;
mod containers;
mod globals;
mod install;
mod load;
mod manifest;
mod pods;
mod proxy_config;
mod table;
mod world;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::commands::Command;
use crate::globals::Globals;

/// The allocator that `bench` measures the proxy with. Without huge pages: with them an idle proxy's heap took 13 MB
/// instead of 3.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the binary is called when it runs; users' scripts call it by the names they know.
const ALIASES: &[&str] = &["lateen", "istioctl", "pilot-agent"];

#[derive(clap::Parser)]
#[command(name = "lateen", version, about = "A service mesh in one binary, speaking Istio's API.")]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    let called = args.first().and_then(|path| std::path::Path::new(path).file_name()?.to_str());
    let name = called.and_then(|name| ALIASES.iter().find(|alias| **alias == name)).unwrap_or(&ALIASES[0]);
    if called == Some("fortio") {
        args.insert(1, "fortio".into());
    }
    // fortio's flags are not ours: `-n` is calls there and the namespace here.
    if args.get(1).is_some_and(|command| command == "load" || command == "fortio") {
        args.insert(2, "--".into());
    }
    let args = commands::exec::arguments(args);
    let matches = match Cli::command().name(*name).bin_name(*name).try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return refused(name, &args, &error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if cli.command.only_prints() {
        lateen_sys::process::end_with_reader();
    }
    match cli.command.run(&cli.globals) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends with what the parser says, or, for a verb of istioctl's that we do not have, with that.
fn refused(name: &str, args: &[std::ffi::OsString], error: &clap::Error) -> ExitCode {
    let words: Vec<&str> = args.iter().skip(1).filter_map(|word| word.to_str()).collect();
    if error.kind() == clap::error::ErrorKind::InvalidSubcommand
        && let Some(text) = commands::unsupported::explain(name, &words)
    {
        eprintln!("Error: {text}");
        return ExitCode::FAILURE;
    }
    error.exit()
}

//! `lateen load`: sends requests and reports, with fortio's flags and closing lines.

use std::process::ExitCode;

use super::{CliError, Outcome};
use crate::globals::Globals;
use crate::load::{Options, report, run};

/// Arguments of `lateen load`. They are fortio's own, which start with one dash, so they are read by hand.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Cmd {
    /// -c CONNECTIONS, -qps RATE (0: as fast as it goes), -n CALLS or -t DURATION, -H "Name: value", -curl, -quiet,
    /// -loglevel LEVEL, -o json, URL
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS URL")]
    args: Vec<String>,
}

impl Cmd {
    /// The command with these flags.
    pub(super) fn of(args: &[String]) -> Self {
        Self { args: args.to_vec() }
    }

    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let options = Options::parse(&self.args).map_err(CliError::new)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(CliError::new)?;
        if options.curl {
            let answer = runtime.block_on(run::once(&options)).map_err(CliError::new)?;
            print!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        let result = runtime.block_on(run::all(&options)).map_err(CliError::new)?;
        match options.json {
            true => println!("{:#}", report::json(&options, &result)),
            false => print!("{}", report::text(&options, &result)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

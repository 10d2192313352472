//! `lateen load`: sends requests and reports, with fortio's flags and closing lines.

use std::process::ExitCode;

use super::{CliError, Outcome};
use crate::globals::Globals;
use crate::load::{Options, report, run};

/// Arguments of `lateen load`. They are fortio's own, which start with one dash, so they are read by hand.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Cmd {
    /// `lateen load -help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS URL")]
    args: Vec<String>,
}

/// The flags that have an effect, and those that are only taken.
const HELP: &str = "\
Send requests and report, with fortio's flags.

Usage: lateen load [FLAGS] URL

URL is http://HOST:PORT/PATH; http:// may be left out.

Flags, with one dash or two, `-flag value` or `-flag=value`:
  -c NUMBER           connections that send at the same time (4)
  -qps RATE           requests per second over all connections; 0 is as fast as it goes (8)
  -n NUMBER           how many requests, in the place of a time
  -t DURATION         how long, such as 30s or 2m (5s)
  -H 'NAME: VALUE'    a header of every request (can be given several times)
  -X METHOD           the method (GET; POST with -payload)
  -payload TEXT       the body of every request
  -timeout DURATION   how long one request may take (30s)
  -curl               send one request, and print its answer
  -o json             print the report as JSON
  -help               print this

Taken without effect: -quiet -a -nocatchup -uniform -jitter -loglevel -p -r -labels
";

impl Cmd {
    /// The command with these flags.
    pub(super) fn of(args: &[String]) -> Self {
        Self { args: args.to_vec() }
    }

    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let asks =
            |word: &String| matches!(word.trim_start_matches('-'), "h" | "help") && word.starts_with('-');
        if self.args.iter().any(asks) || self.args == ["help"] {
            print!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
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

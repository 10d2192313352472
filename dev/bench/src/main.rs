//! Speed and memory of the proxy against stock Envoy, in one run.

mod authority;
mod bytes;
mod ca;
mod handshakes;
mod load;
mod origin;
mod process;
mod proxies;
mod report;
mod resources;
mod scoping;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// The allocator of the `lateen` binary, so that what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Measures the proxy against stock Envoy")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Our proxy and stock Envoy on the same resources, in alternating rounds
    Proxy(proxies::Bench),
    /// What a sidecar is given and holds, all of it and scoped automatically
    Scoping(scoping::Bench),
    /// Certificates issued, and handshakes against stock Envoy's
    Ca(ca::Bench),
    /// A control plane without a cluster
    #[command(hide = true)]
    Authority {
        /// The port of its certificate service
        port: u16,
        /// The file that its root is written into
        root: PathBuf,
    },
    /// Our proxy, from a file of resources
    #[command(hide = true)]
    Serve {
        /// The file
        xds_file: PathBuf,
        /// Workers
        #[arg(long, default_value_t = 2)]
        concurrency: usize,
    },
    /// The server behind the proxies
    #[command(hide = true)]
    Origin {
        /// The port
        port: u16,
        /// Bytes instead of HTTP
        #[arg(long)]
        bytes: bool,
    },
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For pages.
    Markdown,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Proxy(bench) => bench.run(),
        Command::Scoping(bench) => bench.run(),
        Command::Ca(bench) => bench.run(),
        Command::Authority { port, root } => {
            runtime().and_then(|runtime| runtime.block_on(authority::serve(port, &root)))
        }
        Command::Serve { xds_file, concurrency } => serve(xds_file, concurrency),
        Command::Origin { port, bytes } => runtime().and_then(|runtime| {
            let served = match bytes {
                true => runtime.block_on(bytes::serve(port)),
                false => runtime.block_on(origin::serve(port)),
            };
            Ok(served?)
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What goes wrong with a measurement.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    /// The system says so.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Words.
    #[error("{0}")]
    Text(String),
}

fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Runs the proxy in this process until it is told to stop.
fn serve(xds_file: PathBuf, concurrency: usize) -> Result<(), BenchError> {
    // As in service, where somebody listens to what is logged: libraries ask at every step whether that is so.
    lateen_runtime::logs::init(&lateen_runtime::logs::Config::default())
        .map_err(|error| BenchError::Text(error.to_string()))?;
    let config = lateen_proxy::Config {
        xds_file: Some(xds_file),
        concurrency,
        drain_time: Duration::from_millis(100),
        ..lateen_proxy::Config::default()
    };
    runtime()?.block_on(async {
        let proxy = config.build().map_err(|error| BenchError::Text(error.to_string()))?;
        lateen_runtime::signals::terminated().await?;
        proxy.drain().await;
        Ok(())
    })
}

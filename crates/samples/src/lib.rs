//! The built-in sample applications: Bookinfo, httpbin, helloworld, fortio's server, nginx, tcp-echo,
//! ext-authz and sleep.
//!
//! They behave as the images of the same names do where Istio's labs look at it, speak HTTP/1.1 and cleartext HTTP/2,
//! print one line per request, pass trace headers on, and send their calls through `http_proxy` where it is set.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bookinfo;
mod client;
mod ext_authz;
mod fortio;
mod helloworld;
mod httpbin;
mod nginx;
mod outside;
mod propagation;
mod server;
mod settings;
mod sleep;
mod tcp_echo;

use std::io;
use std::net::SocketAddr;

pub use settings::Settings;

/// Why an application did not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no application of that name.
    #[error("unknown application {0:?}; there are: {names}", names = NAMES.join(", "))]
    Unknown(String),
    /// A setting is not understood.
    #[error("{0}")]
    Setting(String),
    /// The port is taken, or not allowed.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Serving failed.
    #[error("serving: {0}")]
    Serve(io::Error),
}

/// The applications.
pub const NAMES: &[&str] = &[
    "productpage",
    "details",
    "reviews",
    "ratings",
    "httpbin",
    "helloworld",
    "fortio",
    "nginx",
    "tcp-echo",
    "ext-authz",
    "sleep",
    "outside",
];

/// Runs an application until SIGTERM or SIGINT.
///
/// # Errors
/// When there is none of that name, a setting is not understood, or its port cannot be bound.
pub fn run(name: &str, version: &str, port: Option<u16>, args: &[String]) -> Result<(), AppError> {
    let settings = Settings::from_env(version, port, args)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Serve)?;
    runtime.block_on(async {
        match name {
            "productpage" => server::serve(&settings, 9080, bookinfo::productpage(&settings)).await,
            "details" => server::serve(&settings, 9080, bookinfo::details()).await,
            "reviews" => server::serve(&settings, 9080, bookinfo::reviews(&settings)).await,
            "ratings" => server::serve(&settings, 9080, bookinfo::ratings()).await,
            "helloworld" => server::serve(&settings, 5000, helloworld::app(&settings)).await,
            "httpbin" => {
                httpbin::announce(settings.address(80)?);
                server::serve(&settings, 80, httpbin::app()).await
            }
            "fortio" => fortio::serve(&settings).await,
            "nginx" => nginx::serve(&settings).await,
            "ext-authz" => ext_authz::serve(&settings).await,
            "tcp-echo" => tcp_echo::serve(&settings).await,
            "outside" => outside::serve(&settings).await,
            "sleep" => sleep::run(&settings.args).await,
            other => Err(AppError::Unknown(other.to_owned())),
        }
    })
}

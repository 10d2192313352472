//! `pilot-agent wait`: until the proxy is ready. A pod whose application waits for its proxy runs it after the proxy's
//! start.

use std::process::ExitCode;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{sleep, timeout};

use super::{CliError, Outcome};
use crate::cluster::block_on;
use crate::globals::Globals;

/// Arguments of `pilot-agent wait`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Where readiness is asked
    #[arg(long, default_value = "http://localhost:15021/healthz/ready")]
    url: String,
    /// How long to wait in all, in seconds
    #[arg(long = "timeoutSeconds", default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// How long one request may take, in milliseconds
    #[arg(long = "requestTimeoutMillis", default_value_t = 500, value_name = "MILLISECONDS")]
    request_timeout: u64,
    /// The time between requests, in milliseconds
    #[arg(long = "periodMillis", default_value_t = 500, value_name = "MILLISECONDS")]
    period: u64,
    /// In loopback isolation, the pod's own address: what is `localhost` elsewhere
    #[arg(long, env = "LATEEN_BIND_ADDRESS", hide = true)]
    pod_address: Option<String>,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let url = match &self.pod_address {
            Some(address) => self.url.replacen("//localhost", &format!("//{address}"), 1),
            None => self.url.clone(),
        };
        let url: http::Uri = url.parse().map_err(|error| CliError(format!("--url {url}: {error}")))?;
        let whole = Duration::from_secs(self.timeout);
        block_on(async {
            match timeout(whole, self.until_ready(&url)).await {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(_) => Err(CliError(format!("{url} is not ready after {} s", self.timeout))),
            }
        })
    }

    async fn until_ready(&self, url: &http::Uri) {
        let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        loop {
            let asked = timeout(Duration::from_millis(self.request_timeout), client.get(url.clone())).await;
            if asked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status().is_success())) {
                return;
            }
            sleep(Duration::from_millis(self.period)).await;
        }
    }
}

//! `pilot-agent request`: asks the admin interface of the pod's own proxy. It runs inside of a pod, by `kubectl exec`.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;

use super::{CliError, Outcome};
use crate::cluster::block_on;
use crate::globals::Globals;

/// As long as an answer may take: `/config_dump` of a large mesh is work.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `pilot-agent request`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// The method, GET or POST
    method: http::Method,
    /// The path, with or without its first slash
    path: String,
    /// The body
    body: Option<String>,
    /// The port of the admin interface
    #[arg(long, default_value_t = 15000)]
    debug_port: u16,
}

impl Cmd {
    pub(crate) fn run(self, _: &Globals) -> Outcome {
        let (status, body) = block_on(async {
            tokio::time::timeout(PATIENCE, self.ask())
                .await
                .map_err(|_| CliError(format!("the proxy does not answer within {} s", PATIENCE.as_secs())))?
        })?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(CliError(format!("received {status} status from the proxy: {}", text.trim_end())));
        }
        // A reader that has gone (`| head`) is the end, and no error.
        let _ = std::io::stdout().write_all(&body);
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(self) -> Result<(http::StatusCode, Bytes), CliError> {
        let address = std::net::SocketAddr::from((own_address(), self.debug_port));
        let unreachable =
            |error: &dyn std::fmt::Display| CliError(format!("the proxy at {address}: {error}"));
        let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        // It ends with the exchange, and its end shows there.
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(self.method)
            .uri(format!("/{}", self.path.trim_start_matches('/')))
            .header(http::header::HOST, address.to_string())
            .body(Full::new(Bytes::from(self.body.unwrap_or_default())))
            .map_err(CliError::new)?;
        let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| unreachable(&error))?.to_bytes();
        Ok((status, body))
    }
}

/// The address of the pod: in loopback isolation it is not the host's `localhost`.
fn own_address() -> IpAddr {
    let said = |name: &str| std::env::var(name).ok()?.parse().ok();
    said("LATEEN_POD_IP").unwrap_or_else(|| IpAddr::from([127, 0, 0, 1]))
}

//! The client of bytes: says a line and reads what comes.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use super::call::Call;
use super::client::Connection;
use super::observe::Answer;

/// How long a client waits for anything more from its peer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends what the call says and reads one line, or (`fin`, which also ends the client's side, and `hold`) all there is.
pub(crate) async fn talk(call: &Call, connection: &mut Connection) -> Answer {
    let mut answer = Answer::over(connection);
    let talking = async {
        let said = call.body.clone().unwrap_or_default();
        connection.stream.write_all(said.as_bytes()).await.map_err(|_| "closed")?;
        if call.is("fin") {
            connection.stream.shutdown().await.map_err(|_| "closed")?;
        }
        let mut bytes = Vec::new();
        let read = match call.is("fin") || call.is("hold") {
            true => connection.stream.read_to_end(&mut bytes).await,
            false => connection.stream.read_until(b'\n', &mut bytes).await,
        };
        answer.body = match bytes.len() {
            0..200 => String::from_utf8_lossy(&bytes).into_owned(),
            size => format!("{size} bytes"),
        };
        match read {
            // A server that refuses a client may have read what it said meanwhile, or not.
            Err(_) if bytes.is_empty() && call.tls.is_some() => Err("closed"),
            Err(_) => Err("reset"),
            Ok(0) => Err("closed"),
            Ok(_) => Ok(()),
        }
    };
    if let Err(end) = tokio::time::timeout(PATIENCE, talking).await.unwrap_or(Err("silent")) {
        answer.end = end.to_owned();
    }
    answer
}

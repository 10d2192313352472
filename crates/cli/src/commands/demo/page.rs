//! Bookinfo's page, as a visitor gets it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::LOOK;
use crate::commands::CliError;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// What a visitor sees of the reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stars {
    /// reviews v1
    None,
    /// reviews v2
    Black,
    /// reviews v3
    Red,
}

/// Waits for the first good answer.
pub(super) async fn first(url: &str, patience: Duration) -> Result<StatusCode, CliError> {
    let deadline = Instant::now() + patience;
    loop {
        let last = match get(url).await {
            Ok((StatusCode::OK, _)) => return Ok(StatusCode::OK),
            Ok((status, _)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(CliError(format!("{url} does not answer after {} s: {last}", patience.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The status and body of a page.
pub(super) async fn get(url: &str) -> Result<(StatusCode, String), CliError> {
    tokio::time::timeout(ANSWER, fetch(url))
        .await
        .unwrap_or_else(|_| Err(CliError(format!("{url}: no answer in {} s", ANSWER.as_secs()))))
}

async fn fetch(url: &str) -> Result<(StatusCode, String), CliError> {
    let uri: http::Uri = url.parse().map_err(CliError::new)?;
    let authority = uri.authority().ok_or_else(|| CliError(format!("{url} has no host")))?.to_string();
    let stream =
        TcpStream::connect(&authority).await.map_err(|error| CliError(format!("{authority}: {error}")))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(CliError::new)?;
    let driver = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(http::header::HOST, &authority)
        .header(http::header::USER_AGENT, "lateen-demo")
        .body(Empty::<Bytes>::new())
        .map_err(CliError::new)?;
    let response = sender.send_request(request).await.map_err(CliError::new)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(CliError::new)?.to_bytes();
    driver.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Which version of reviews the page shows; none when it shows no reviews.
pub(super) fn stars(page: &str) -> Option<Stars> {
    if !page.contains("<blockquote>") {
        None
    } else if page.contains("color=\"red\"") {
        Some(Stars::Red)
    } else if page.contains("color=\"black\"") {
        Some(Stars::Black)
    } else {
        Some(Stars::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stars_tell_the_version() {
        assert_eq!(stars("<blockquote>fine</blockquote>"), Some(Stars::None));
        assert_eq!(stars("<blockquote><font color=\"black\"></blockquote>"), Some(Stars::Black));
        assert_eq!(stars("<blockquote><font color=\"red\"></blockquote>"), Some(Stars::Red));
        assert_eq!(stars("Sorry, product reviews are currently unavailable for this book."), None);
    }
}

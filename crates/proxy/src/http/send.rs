//! One request on one connection.

use http::{Request, Response};

use super::body::{RequestBody, UpstreamBody};
use crate::failure::Reset;
use crate::upstream::http1::RequestHead;
use crate::upstream::pool::Lease;

/// How sending fails.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Before the first byte was written.
    Unsent(Reset),
    /// Later: the upstream may have acted.
    Sent(Reset),
}

/// Sends a request and waits for the response's head.
///
/// # Errors
/// Says whether the upstream may have seen the request.
pub(crate) async fn send(
    lease: &mut Lease,
    request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, SendError> {
    let stream = match lease {
        Lease::Http1(lease) => {
            let (parts, body) = request.into_parts();
            // CONNECT has an authority only, everything else here a path.
            let target = match (parts.uri.path_and_query(), parts.uri.authority()) {
                (Some(path), _) => path.as_str(),
                (None, Some(authority)) => authority.as_str(),
                (None, None) => "/",
            };
            let head = RequestHead { method: &parts.method, target, headers: &parts.headers, more: &[] };
            lease.connection.begin(&head, body);
            let response = lease.connection.response().await?;
            return Ok(response.map(UpstreamBody::Http1));
        }
        Lease::Http2(stream) => stream,
    };
    let result = stream.sender.try_send_request(request).await;
    result.map(|response| response.map(UpstreamBody::Http2)).map_err(|mut error| {
        let unsent = error.take_message().is_some();
        let reset = reset(error.error());
        if unsent { SendError::Unsent(reset) } else { SendError::Sent(reset) }
    })
}

fn reset(error: &hyper::Error) -> Reset {
    if let Some(http2) =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>())
    {
        return match http2.reason() {
            Some(h2::Reason::REFUSED_STREAM) => Reset::Refused,
            Some(
                h2::Reason::PROTOCOL_ERROR | h2::Reason::COMPRESSION_ERROR | h2::Reason::FRAME_SIZE_ERROR,
            ) => Reset::Protocol,
            Some(_) if http2.is_reset() => Reset::Remote,
            _ => Reset::Termination,
        };
    }
    if error.is_parse() { Reset::Protocol } else { Reset::Termination }
}

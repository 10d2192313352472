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
    match lease {
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
            Ok(lease.connection.response().await?.map(UpstreamBody::Http1))
        }
        Lease::Http2(stream) => Ok(stream.send(request).await?.map(UpstreamBody::Http2)),
    }
}

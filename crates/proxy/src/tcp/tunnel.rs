//! TCP through HTTP: a connection's bytes travel in a CONNECT or a POST (Envoy's `tunneling_config`).

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;
use lateen_route::network::Tunneling;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::downstream::Downstream;
use crate::failure::Reset;
use crate::http::body::{RequestBody, UpstreamBody};
use crate::http::send::{self, SendError};
use crate::log::Record;
use crate::stream::frames::Unread;
use crate::upstream::cluster::{Caller, Cluster, Picked};
use crate::upstream::pool::Lease;
use crate::upstream::{http1, http2};
use crate::worker::Worker;

/// The far side of a connection, inside of HTTP.
pub(super) enum Tunnel {
    /// After a CONNECT by HTTP/1.1.
    Connected(http1::Upgraded, Lease),
    /// After a CONNECT by HTTP/2.
    Streamed(http2::Tunnel, Lease),
    /// Bodies of a POST.
    Posted(Box<Posted>),
}

/// The bodies of a POST as one stream of bytes.
pub(super) struct Posted {
    send: Option<PollSender<Bytes>>,
    receive: UpstreamBody,
    unread: Unread,
    _lease: Lease,
}

/// What a request for a tunnel says.
struct Ask {
    host: String,
    headers: Vec<(http::HeaderName, HeaderValue)>,
}

/// Opens a tunnel through a host.
///
/// # Errors
/// When there is no connection to it, or it does not take the tunnel.
pub(super) async fn open(
    worker: &Rc<Worker>,
    rules: &Tunneling,
    cluster: &Cluster,
    picked: &Picked,
    down: &Downstream,
) -> Result<Tunnel, Reset> {
    let failed = |text: &str| Reset::ConnectFailure(text.into());
    let ask = ask(worker, rules, down);
    let protocol = cluster.protocol(Version::HTTP_11, &picked.way);
    let caller = Caller { authority: &ask.host, alpn: None, addresses: (down.remote, down.local) };
    let pool = cluster.pool(worker, picked, protocol, 0, caller);
    let pool = pool.ok_or_else(|| failed("TLS_error: the secrets of the cluster have not come"))?;
    let mut lease = pool.lease().await?;
    let http2 = matches!(lease, Lease::Http2(_));
    let (body, sender) = match &rules.post {
        None => (RequestBody::empty(), None),
        Some(_) => {
            let (sender, receiver) = mpsc::channel(1);
            (RequestBody::channel(receiver), Some(PollSender::new(sender)))
        }
    };
    let request =
        head(&ask, rules, http2).ok_or_else(|| failed("the tunnel's host is no host"))?.map(|()| body);
    let response = send::send(&mut lease, request).await.map_err(|error| match error {
        SendError::Unsent(reset) | SendError::Sent(reset) => reset,
    })?;
    if !response.status().is_success() {
        return Err(failed(&format!("the tunnel was answered with {}", response.status().as_u16())));
    }
    match sender {
        Some(sender) => Ok(Tunnel::Posted(Box::new(Posted {
            send: Some(sender),
            receive: response.into_body(),
            unread: Unread::default(),
            _lease: lease,
        }))),
        None => match (&mut lease, response.into_body()) {
            (Lease::Http1(http1), _) => {
                let bytes = http1.connection.bytes();
                Ok(Tunnel::Connected(bytes, lease))
            }
            (Lease::Http2(stream), UpstreamBody::Http2(body)) => {
                let bytes = stream.bytes(body).ok_or(Reset::Termination)?;
                Ok(Tunnel::Streamed(bytes, lease))
            }
            (Lease::Http2(_), UpstreamBody::Http1(_)) => Err(Reset::Termination),
        },
    }
}

fn ask(worker: &Rc<Worker>, rules: &Tunneling, down: &Downstream) -> Ask {
    let record = Record::of_connection(worker, down);
    let render = |format: &lateen_route::format::Format| {
        let mut text = Vec::new();
        format.write(&mut text, true, |variable, out| record.write(variable, out));
        text
    };
    let headers = rules
        .headers
        .iter()
        .filter_map(|(name, format)| Some((name.clone(), HeaderValue::from_bytes(&render(format)).ok()?)));
    Ask { host: String::from_utf8_lossy(&render(&rules.hostname)).into_owned(), headers: headers.collect() }
}

/// The request's head; `None` when the host is none.
fn head(ask: &Ask, rules: &Tunneling, http2: bool) -> Option<Request<()>> {
    let authority: Authority = ask.host.parse().ok()?;
    let mut request = Request::new(());
    let mut parts = http::uri::Parts::default();
    match &rules.post {
        None => {
            *request.method_mut() = Method::CONNECT;
            parts.authority = Some(authority.clone());
        }
        Some(path) => {
            *request.method_mut() = Method::POST;
            parts.path_and_query = Some(PathAndQuery::try_from(&**path).ok()?);
            if http2 {
                parts.scheme = Some(Scheme::HTTP);
                parts.authority = Some(authority.clone());
            }
        }
    }
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    if http2 {
        *request.version_mut() = Version::HTTP_2;
    } else {
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str()).ok()?);
    }
    for (name, value) in &ask.headers {
        request.headers_mut().append(name, value.clone());
    }
    Some(request)
}

impl AsyncRead for Posted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { receive, unread, .. } = &mut *self;
        unread.poll_read(cx, buf, |cx| Pin::new(&mut *receive).poll_frame(cx))
    }
}

impl AsyncWrite for Posted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        match std::task::ready!(send.poll_reserve(cx)) {
            Ok(()) => {
                let sent = send.send_item(Bytes::copy_from_slice(buf));
                Poll::Ready(sent.map(|()| buf.len()).map_err(|_| io::ErrorKind::BrokenPipe.into()))
            }
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send = None;
        Poll::Ready(Ok(()))
    }
}

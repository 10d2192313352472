//! fortio's server: an echo over HTTP and one over TCP (`fortio server`).

use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use lateen_base::parse_duration;
use tokio::net::TcpListener;

use crate::{AppError, Settings, server, tcp_echo};

/// The largest answer that `size` makes.
const MAX_SIZE: usize = 1 << 20;
/// The largest body that is echoed.
const MAX_ECHO: usize = 1 << 20;
/// The longest that `delay` waits.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Serves until SIGTERM.
pub(crate) async fn serve(settings: &Settings) -> Result<(), AppError> {
    let ports = Ports::of(&settings.args)?;
    if let Some(port) = ports.tcp {
        let address = (settings.bind, port).into();
        let listener =
            TcpListener::bind(address).await.map_err(|source| AppError::Bind { address, source })?;
        println!("Fortio TCP Echo server listening on {address}");
        tokio::spawn(tcp_echo::accept(listener, String::new()));
    }
    let Some(port) = ports.http else { return server::until_terminated().await };
    let at = Settings { port: Some(port), ..settings.clone() };
    println!("Fortio HTTP echo server listening on {}", at.address(port)?);
    server::serve(&at, port, app()).await
}

pub(crate) fn app() -> Router {
    Router::new()
        .route("/fortio/", get(|| async { "fortio: this server has the echo and /debug only\n" }))
        .route("/debug", any(debug))
        .fallback(echo)
}

/// The ports; none where the flag says `disabled`.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    http: Option<u16>,
    tcp: Option<u16>,
}

impl Ports {
    /// Reads the flags of `fortio server`.
    fn of(args: &[String]) -> Result<Self, AppError> {
        let mut ports = Self { http: Some(8080), tcp: Some(8078) };
        let mut args = args.iter().map(String::as_str).peekable();
        args.next_if(|word| word.ends_with("fortio"));
        args.next_if_eq(&"server");
        while let Some(arg) = args.next() {
            let (flag, inline) = arg.split_once('=').map_or((arg, None), |(flag, value)| (flag, Some(value)));
            let mut value = || {
                inline
                    .or_else(|| args.next())
                    .ok_or_else(|| AppError::Setting(format!("{flag} needs a value")))
            };
            match flag.trim_start_matches('-') {
                "http-port" => ports.http = port(value()?)?,
                "tcp-port" => ports.tcp = port(value()?)?,
                // What it does not have is not missed when it is told where to have it.
                "grpc-port" | "redirect-port" | "udp-port" | "ui-path" | "data-dir" | "loglevel" => {
                    value()?;
                }
                _ => {
                    let what =
                        format!("fortio server: {arg} is not supported; there are -http-port and -tcp-port");
                    return Err(AppError::Setting(what));
                }
            }
        }
        Ok(ports)
    }
}

/// `PORT`, `HOST:PORT` or `disabled`.
fn port(text: &str) -> Result<Option<u16>, AppError> {
    if text == "disabled" {
        return Ok(None);
    }
    let number = text.rsplit(':').next().unwrap_or(text);
    number.parse().map(Some).map_err(|_| AppError::Setting(format!("{text:?} is no port")))
}

/// Gives the body back, changed as the query asks: `status`, `delay` and `size` may each be a list with percentages
/// (`status=503:20`), `header=Name:value` may be repeated.
async fn echo(Query(query): Query<Vec<(String, String)>>, request: Request) -> Response {
    let drawn = |name: &str| {
        let list = query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        list.and_then(|list| draw(list, rand::random::<f64>() * 100.0))
    };
    if let Some(delay) = drawn("delay").and_then(|text| parse_duration(text).ok()) {
        tokio::time::sleep(delay.min(MAX_DELAY)).await;
    }
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let size = drawn("size").and_then(|text| text.parse::<usize>().ok());
    let body = match size {
        Some(size) => vec![b'x'; size.min(MAX_SIZE)].into(),
        None => match axum::body::to_bytes(request.into_body(), MAX_ECHO).await {
            Ok(body) => body,
            Err(error) => return (StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")).into_response(),
        },
    };
    let status = drawn("status").and_then(|text| StatusCode::from_bytes(text.as_bytes()).ok());
    let status = status.filter(|status| status.as_u16() >= 200).unwrap_or(StatusCode::OK);
    let mut response = (status, body).into_response();
    let kind = kind.unwrap_or(HeaderValue::from_static("text/plain; charset=UTF-8"));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    for (name, value) in
        query.iter().filter(|(key, _)| key == "header").filter_map(|(_, v)| v.split_once(':'))
    {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name.trim()), HeaderValue::try_from(value.trim()))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// One of `VALUE:PERCENT,VALUE:PERCENT...` by a number from 0 to 100; a value without percentage is all.
fn draw(list: &str, mut at: f64) -> Option<&str> {
    for choice in list.split(',') {
        let Some((value, percent)) = choice.split_once(':') else { return Some(choice) };
        let percent: f64 = percent.trim_end_matches('%').parse().ok()?;
        if at < percent {
            return Some(value);
        }
        at -= percent;
    }
    None
}

async fn debug(method: Method, uri: http::Uri, headers: HeaderMap) -> String {
    let mut text =
        format!("Φορτίο version lateen-{}\n{method} {uri}\n\nheaders:\n\n", env!("CARGO_PKG_VERSION"));
    for (name, value) in &headers {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn ports_are_fortios_flags() {
        let of = |text: &str| Ports::of(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("").unwrap(), Ports { http: Some(8080), tcp: Some(8078) });
        let said =
            of("/usr/bin/fortio server -http-port 0.0.0.0:90 --tcp-port=disabled -grpc-port 1").unwrap();
        assert_eq!(said, Ports { http: Some(90), tcp: None });
        assert!(of("server -bogus").is_err() && of("server -http-port").is_err());
    }

    #[test]
    fn shares_are_drawn_in_their_order() {
        assert_eq!(draw("503:20,404:30", 10.0), Some("503"));
        assert_eq!(draw("503:20,404:30", 49.0), Some("404"));
        assert_eq!(draw("503:20,404:30", 60.0), None);
        assert_eq!((draw("503", 99.0), draw("503:x", 1.0)), (Some("503"), None));
    }

    #[tokio::test]
    async fn the_query_changes_the_echo() {
        let ask = |uri: &str| Request::post(uri).body(Body::from("hello")).unwrap();
        let answer = app().oneshot(ask("/echo?status=418&header=X-A:b")).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["x-a"]), (418, &"b".parse().unwrap()));
        let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
        assert_eq!(body, "hello");
        let sized = app().oneshot(ask("/?size=7&status=99")).await.unwrap();
        assert_eq!(sized.status(), StatusCode::OK);
        assert_eq!(axum::body::to_bytes(sized.into_body(), 100).await.unwrap().len(), 7);
    }
}

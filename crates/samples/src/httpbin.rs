//! httpbin: answers with what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Path, Query};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use rand::RngCore as _;
use serde_json::{Map, Value, json};

use crate::server::clf_time;

/// The most that /bytes and /stream give.
const MAX_BYTES: usize = 100 * 1024;
const MAX_LINES: usize = 100;
/// The longest that /delay waits, in seconds.
const MAX_DELAY: f64 = 10.0;

/// The lines with which gunicorn announces itself; users look for them in the log.
pub(crate) fn announce(address: SocketAddr) {
    let time = clf_time();
    println!("[{time}] [1] [INFO] Listening at: http://{address} (1)");
}

pub(crate) fn app() -> Router {
    Router::new()
        .route(
            "/",
            get(|| async { axum::response::Html("<html><title>httpbin</title><body>httpbin</body></html>") }),
        )
        .route("/headers", get(headers))
        .route("/ip", get(ip))
        .route("/user-agent", get(user_agent))
        .route("/get", get(echo_query))
        .route("/post", post(echo))
        .route("/put", axum::routing::put(echo))
        .route("/patch", axum::routing::patch(echo))
        .route("/delete", axum::routing::delete(echo))
        .route("/anything", any(echo))
        .route("/anything/{*rest}", any(echo))
        .route("/status/{codes}", any(status))
        .route("/delay/{seconds}", any(delay))
        .route("/response-headers", get(response_headers).post(response_headers))
        .route("/bytes/{n}", get(bytes))
        .route("/stream/{n}", get(stream))
        .route("/redirect-to", any(redirect_to))
        .route("/cookies", get(cookies))
        .route("/health", get(|| async { "OK" }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") })
        .layer(axum::middleware::map_response(cors))
}

/// httpbin lets every origin in.
async fn cors(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers
        .entry(HeaderName::from_static("access-control-allow-origin"))
        .or_insert(HeaderValue::from_static("*"));
    headers.insert(
        HeaderName::from_static("access-control-allow-credentials"),
        HeaderValue::from_static("true"),
    );
    response
}

/// Pretty JSON with a closing line break, as httpbin prints.
struct Pretty(Value);

impl IntoResponse for Pretty {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], format!("{:#}\n", self.0)).into_response()
    }
}

async fn headers(headers: HeaderMap) -> Pretty {
    Pretty(json!({ "headers": titled(&headers) }))
}

async fn ip(ConnectInfo(peer): ConnectInfo<SocketAddr>, headers: HeaderMap) -> Pretty {
    Pretty(json!({ "origin": origin(peer, &headers) }))
}

async fn user_agent(headers: HeaderMap) -> Pretty {
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    Pretty(json!({ "user-agent": agent }))
}

async fn echo_query(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    uri: http::Uri,
    headers: HeaderMap,
    Query(args): Query<BTreeMap<String, String>>,
) -> Pretty {
    let url = url(&uri, &headers);
    Pretty(json!({ "args": args, "headers": titled(&headers), "origin": origin(peer, &headers), "url": url }))
}

async fn echo(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
    Query(args): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Pretty {
    let data = String::from_utf8_lossy(&body);
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form = kind.starts_with("application/x-www-form-urlencoded");
    let form = if is_form { form(&data) } else { Map::new() };
    Pretty(json!({
        "args": args,
        "data": if is_form { "" } else { data.as_ref() },
        "files": {},
        "form": form,
        "headers": titled(&headers),
        "json": serde_json::from_slice::<Value>(&body).ok(),
        "method": method.as_str(),
        "origin": origin(peer, &headers),
        "url": url(&uri, &headers),
    }))
}

/// One code, or several separated by commas, each with an optional `:weight`; one is drawn.
async fn status(Path(codes): Path<String>) -> Response {
    let Some(code) = draw(&codes) else {
        return (StatusCode::BAD_REQUEST, "Invalid status code").into_response();
    };
    match code {
        StatusCode::IM_A_TEAPOT => {
            (code, [("x-more-info", "http://tools.ietf.org/html/rfc2324")], TEAPOT).into_response()
        }
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT => (code, [(LOCATION, "/redirect/1")]).into_response(),
        StatusCode::UNAUTHORIZED => {
            (code, [("www-authenticate", "Basic realm=\"Fake Realm\"")]).into_response()
        }
        code => (code, [(CONTENT_TYPE, "text/html; charset=utf-8")]).into_response(),
    }
}

fn draw(codes: &str) -> Option<StatusCode> {
    let mut choices = Vec::new();
    for choice in codes.split(',') {
        let (code, weight) = choice.split_once(':').unwrap_or((choice, "1"));
        let code = StatusCode::from_bytes(code.trim().as_bytes()).ok().filter(|code| code.as_u16() >= 200)?;
        let weight: f64 = weight.parse().ok().filter(|weight: &f64| weight.is_finite() && *weight >= 0.0)?;
        choices.push((code, weight));
    }
    let total: f64 = choices.iter().map(|(_, weight)| weight).sum();
    let mut at = rand::random::<f64>() * total;
    for (code, weight) in &choices {
        if at < *weight {
            return Some(*code);
        }
        at -= weight;
    }
    choices.last().map(|(code, _)| *code)
}

const TEAPOT: &str = "
    -=[ teapot ]=-

       _...._
     .'  _ _ `.
    | .\"` ^ `\". _,
    \\_;`\"---\"`|//
      |       ;/
      \\_     _/
        `\"\"\"`
";

async fn delay(
    Path(seconds): Path<f64>,
    peer: ConnectInfo<SocketAddr>,
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
    args: Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Pretty {
    let seconds = if seconds.is_finite() { seconds.clamp(0.0, MAX_DELAY) } else { 0.0 };
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    echo(peer, method, uri, headers, args, body).await
}

async fn response_headers(Query(args): Query<Vec<(String, String)>>) -> Response {
    let mut response = Json(json!(args.iter().cloned().collect::<BTreeMap<_, _>>())).into_response();
    for (name, value) in &args {
        match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
            (Ok(name), Ok(value)) => {
                response.headers_mut().append(name, value);
            }
            _ => return (StatusCode::BAD_REQUEST, format!("{name:?}: no header\n")).into_response(),
        }
    }
    response
}

async fn bytes(Path(n): Path<usize>) -> Response {
    let mut body = vec![0; n.min(MAX_BYTES)];
    rand::rng().fill_bytes(&mut body);
    ([(CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

async fn stream(
    Path(n): Path<usize>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    uri: http::Uri,
    headers: HeaderMap,
) -> Response {
    let line =
        json!({ "url": url(&uri, &headers), "headers": titled(&headers), "origin": origin(peer, &headers) });
    let lines = futures::stream::iter((0..n.min(MAX_LINES)).map(move |id| {
        let mut line = line.clone();
        line["id"] = json!(id);
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{line}\n")))
    }));
    ([(CONTENT_TYPE, "application/json")], axum::body::Body::from_stream(lines)).into_response()
}

async fn redirect_to(Query(args): Query<BTreeMap<String, String>>) -> Response {
    let code = args.get("status_code").and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok());
    match args.get("url").and_then(|url| HeaderValue::try_from(url.as_str()).ok()) {
        Some(url) => (code.unwrap_or(StatusCode::FOUND), [(LOCATION, url)]).into_response(),
        None => (StatusCode::BAD_REQUEST, "url is missing\n").into_response(),
    }
}

async fn cookies(headers: HeaderMap) -> Pretty {
    let pairs: Map<String, Value> = headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    Pretty(json!({ "cookies": pairs }))
}

/// `x-b3-traceid` as `X-B3-Traceid`; several values joined by commas.
fn titled(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut titled = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let name = title(name.as_str());
        let value = String::from_utf8_lossy(value.as_bytes());
        titled
            .entry(name)
            .and_modify(|all| *all = format!("{all},{value}"))
            .or_insert_with(|| value.into_owned());
    }
    titled
}

/// A name as HTTP/1 usually writes it: `X-Request-Id`.
pub(crate) fn title(name: &str) -> String {
    let part = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    name.split('-').map(|p| if p.is_empty() { String::new() } else { part(p) }).collect::<Vec<_>>().join("-")
}

/// `X-Forwarded-For` and the peer, as httpbin.org tells who called.
fn origin(peer: SocketAddr, headers: &HeaderMap) -> String {
    match headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()) {
        Some(forwarded) => format!("{forwarded}, {}", peer.ip()),
        None => peer.ip().to_string(),
    }
}

fn url(uri: &http::Uri, headers: &HeaderMap) -> String {
    let scheme = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()).unwrap_or("http");
    let host = headers
        .get(http::header::HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| uri.authority().map(http::uri::Authority::as_str))
        .unwrap_or_default();
    format!("{scheme}://{host}{}", uri.path_and_query().map_or("/", |path| path.as_str()))
}

fn form(text: &str) -> Map<String, Value> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), json!(decode(value))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_drawn_by_weight() {
        assert_eq!(draw("418"), Some(StatusCode::IM_A_TEAPOT));
        assert_eq!(draw("200:0,503:1"), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(draw("100"), None);
        assert_eq!(draw("abc"), None);
        assert_eq!(draw("200:NaN"), None);
    }

    #[test]
    fn header_names_are_titled() {
        assert_eq!(title("x-b3-traceid"), "X-B3-Traceid");
        assert_eq!(title("x--a"), "X--A");
    }
}

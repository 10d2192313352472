//! The application's probes, which kubelet asks the agent for: kubelet has no certificate of the mesh
//! (`ISTIO_KUBE_APP_PROBERS`, written by the injector; `/app-health/CONTAINER/livez|readyz|startupz`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use tonic::codegen::http::uri::PathAndQuery;

use crate::application::{Question, ask, reach};

/// How long an answer may take when the probe does not say.
const DEFAULT_TIMEOUT: u64 = 1;
/// How long a probe's answer may be, in bytes; kubelet reads no more than 10 KiB of it.
const LONGEST_ANSWER: usize = 1 << 20;
/// Headers that are of one connection.
const OF_CONNECTION: &[&str] =
    &["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host"];

/// The probes by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes(BTreeMap<String, Probe>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    timeout_seconds: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HttpGet {
    path: String,
    port: u16,
    scheme: String,
    http_headers: Vec<Header>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct TcpSocket {
    port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

impl Probes {
    /// Reads the variable's text.
    ///
    /// # Errors
    /// Broken JSON, a path that is none of ours, a probe that asks nothing.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let probes: BTreeMap<String, Probe> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (path, probe) in &probes {
            let mut parts = path.strip_prefix("/app-health/").into_iter().flat_map(|rest| rest.split('/'));
            let known = matches!(
                (parts.next(), parts.next(), parts.next()),
                (Some(name), Some("livez" | "readyz" | "startupz"), None) if !name.is_empty()
            );
            if !known {
                return Err(format!("{path}: expected /app-health/CONTAINER/livez, readyz or startupz"));
            }
            if probe.http_get.is_none() && probe.tcp_socket.is_none() && probe.grpc.is_none() {
                return Err(format!("{path}: expected httpGet, tcpSocket or grpc"));
            }
        }
        Ok(Self(probes))
    }

    /// What the application at this address answers to a probe: the status and the text to pass on.
    pub(crate) async fn run(
        &self,
        path: &str,
        asked: &HeaderMap,
        application: IpAddr,
    ) -> (StatusCode, Vec<u8>) {
        let Some(probe) = self.0.get(path) else {
            return (StatusCode::NOT_FOUND, format!("no probe {path}\n").into_bytes());
        };
        let within = Duration::from_secs(match probe.timeout_seconds {
            0 => DEFAULT_TIMEOUT,
            seconds => seconds,
        });
        let at = |port| SocketAddr::new(application, port);
        let result = if let Some(get) = &probe.http_get {
            get.run(at(get.port), asked, within).await
        } else if let Some(tcp) = &probe.tcp_socket {
            reach(at(tcp.port), within).await.map(|()| (StatusCode::OK, Vec::new()))
        } else if let Some(grpc) = &probe.grpc {
            let asked = health::check(at(grpc.port), grpc.service.as_deref().unwrap_or_default());
            let answer = tokio::time::timeout(within, asked).await;
            answer
                .unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
                .map(|()| (StatusCode::OK, Vec::new()))
        } else {
            Err("the probe asks nothing".to_owned())
        };
        result.unwrap_or_else(|reason| {
            tracing::debug!("probe {path}: {reason}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n").into_bytes())
        })
    }
}

impl HttpGet {
    async fn run(
        &self,
        address: SocketAddr,
        asked: &HeaderMap,
        within: Duration,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let mut headers = asked.clone();
        for name in OF_CONNECTION {
            headers.remove(*name);
        }
        for Header { name, value } in &self.http_headers {
            let name: HeaderName = name.parse().map_err(|_| format!("header {name:?}: no header name"))?;
            let value: HeaderValue = value.parse().map_err(|_| format!("header {name}: no header value"))?;
            headers.insert(name, value);
        }
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{}", self.path);
        let answer = ask(Question {
            address,
            tls: self.scheme.eq_ignore_ascii_case("https"),
            path: &path,
            headers,
            within,
            longest: LONGEST_ANSWER,
        });
        answer.await.map(|answer| (answer.status, answer.body.to_vec()))
    }
}

/// The health protocol of gRPC (grpc/grpc/doc/health-checking.md).
mod health {
    use super::{PathAndQuery, SocketAddr};

    const SERVING: i32 = 1;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Request {
        #[prost(string, tag = "1")]
        service: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Response {
        #[prost(int32, tag = "1")]
        status: i32,
    }

    pub(super) async fn check(address: SocketAddr, service: &str) -> Result<(), String> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| format!("{address}: {error}"))?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| error.to_string())?;
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = tonic_prost::ProstCodec::<Request, Response>::default();
        let request = tonic::Request::new(Request { service: service.to_owned() });
        let response = client.unary(request, path, codec).await.map_err(|status| status.to_string())?;
        match response.into_inner().status {
            SERVING => Ok(()),
            other => Err(format!("{address}: health status {other}, not SERVING")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;

    use super::*;

    #[test]
    fn paths_and_kinds_are_checked() {
        assert!(Probes::parse(r#"{"/app-health/web/livez":{"httpGet":{"port":80}}}"#).is_ok());
        for bad in [
            "[",
            r#"{"/other/web/livez":{"httpGet":{"port":80}}}"#,
            r#"{"/app-health/web/x":{"httpGet":{"port":80}}}"#,
            r#"{"/app-health/web/livez":{}}"#,
            r#"{"/app-health/web/livez":{"tcpSocket":{"port":70000}}}"#,
        ] {
            assert!(Probes::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_application_is_asked_in_kubelets_place() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = |headers: HeaderMap| async move {
            let text =
                |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
            (StatusCode::IM_A_TEAPOT, format!("{}|{}|{}", text("host"), text("x-probe"), text("user-agent")))
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/ok", get(told))).await });
        let probes = Probes::parse(&format!(
            r#"{{"/app-health/a/livez":{{"httpGet":{{"path":"ok","port":{port},"httpHeaders":[
                 {{"name":"Host","value":"shop.example"}},{{"name":"X-Probe","value":"1"}}]}}}},
               "/app-health/a/readyz":{{"tcpSocket":{{"port":{port}}},"timeoutSeconds":5}},
               "/app-health/a/startupz":{{"grpc":{{"port":{port}}}}},
               "/app-health/b/readyz":{{"tcpSocket":{{"port":1}}}}}}"#
        ))
        .unwrap();
        let own = IpAddr::from([127, 0, 0, 1]);
        let mut asked = HeaderMap::new();
        asked.insert("user-agent", HeaderValue::from_static("kube-probe/1.32"));
        asked.insert("host", HeaderValue::from_static("10.0.0.1:15020"));
        let run = |path: &'static str| probes.run(path, &asked, own);
        let (status, body) = run("/app-health/a/livez").await;
        assert_eq!(status, StatusCode::IM_A_TEAPOT);
        assert_eq!(String::from_utf8(body).unwrap(), "shop.example|1|kube-probe/1.32");
        assert_eq!(run("/app-health/a/readyz").await.0, StatusCode::OK);
        assert_eq!(run("/app-health/a/startupz").await.0, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(run("/app-health/b/readyz").await.0, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(run("/app-health/c/readyz").await.0, StatusCode::NOT_FOUND);
    }
}

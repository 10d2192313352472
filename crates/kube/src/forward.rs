//! Requests to a pod over a forwarded port: the pod hears them from its own loopback.

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::Value;

use crate::{Client, KubeError};

/// The largest answer, in bytes.
const LARGEST: usize = 256 << 20;

impl Client {
    /// What `GET path` on a port of a pod answers, as JSON, over a forwarded port as `kubectl port-forward` makes one.
    ///
    /// # Errors
    /// When there is no such pod, the port is not forwarded, or the answer is not 200 or no JSON.
    pub async fn forwarded_get(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> Result<Value, KubeError> {
        let failed = |why: &dyn std::fmt::Display| {
            KubeError::Transport(format!("GET {path} on port {port} of pod {pod}.{namespace}: {why}"))
        };
        let api: Api<Pod> = Api::namespaced(self.inner().clone(), namespace);
        let mut forwarded = api.portforward(pod, &[port]).await?;
        let error = forwarded.take_error(port);
        let stream = forwarded.take_stream(port).ok_or_else(|| failed(&"the port is not forwarded"))?;
        let request = http::Request::get(path)
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
            // It ends with the exchange, and its end shows there.
            tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), LARGEST).collect().await.map_err(|e| e.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let told = async {
            match error {
                Some(error) => error.await,
                None => None,
            }
        };
        let answered = exchange.await;
        let (status, body) = match answered {
            Ok(answered) => answered,
            // What the server knows of it says more than that the connection ended.
            Err(why) => {
                forwarded.abort();
                return Err(failed(&told.await.unwrap_or(why)));
            }
        };
        if status != http::StatusCode::OK {
            return Err(failed(&format!("{status}: {}", String::from_utf8_lossy(&body).trim())));
        }
        serde_json::from_slice(&body).map_err(|error| failed(&error))
    }
}

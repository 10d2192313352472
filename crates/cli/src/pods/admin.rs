//! The roads to a proxy's admin interface.
//!
//! Where pods share the host's loopback (loopback isolation), the interface is bound to the pod's address, and the API server's
//! pod proxy reaches it. On any other cluster it is bound to the pod's own loopback, and `pilot-agent request` in the proxy's
//! container asks it, which needs the right to create `pods/exec`.

use std::net::IpAddr;
use std::time::Duration;

use lateen_kube::{Client, Ended, Exec, KubeError, ResourceKind};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::PodName;
use crate::commands::CliError;

/// Where a proxy answers administrators.
const PORT: u16 = 15000;
/// The container of a proxy, in sidecars and gateways alike.
const CONTAINER: &str = "istio-proxy";
/// How long an answer may take: more than `pilot-agent request` waits itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a request to `path` answers, as text.
///
/// # Errors
/// When there is no such pod, or its proxy does not answer.
pub(super) async fn ask(
    client: &Client,
    pod: &PodName,
    method: &str,
    path: &str,
) -> Result<String, CliError> {
    let object = client.get(&ResourceKind::core("Pod", "pods"), &pod.namespace, &pod.name).await?;
    let failed = |road: &str, why: &dyn std::fmt::Display| {
        CliError(format!("the proxy of {}.{} cannot be asked {road}: {why}", pod.name, pod.namespace))
    };
    match shares_loopback(&object) {
        true => through_api_server(client, pod, method, path)
            .await
            .map_err(|why| failed("through the API server's pod proxy", &why)),
        false => in_container(client, pod, method, path)
            .await
            .map_err(|why| failed(&format!("by `pilot-agent request` in its container {CONTAINER}"), &why)),
    }
}

/// Whether the pod's address is one of the host's loopback, where the interface is then bound.
fn shares_loopback(pod: &Value) -> bool {
    let address = pod["status"]["podIP"].as_str().and_then(|text| text.parse::<IpAddr>().ok());
    address.is_some_and(|address| address.is_loopback())
}

async fn through_api_server(
    client: &Client,
    pod: &PodName,
    method: &str,
    path: &str,
) -> Result<String, KubeError> {
    let PodName { namespace, name } = pod;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{PORT}/proxy{path}");
    client.raw_text(method, &path).await
}

async fn in_container(client: &Client, pod: &PodName, method: &str, path: &str) -> Result<String, String> {
    let command = ["pilot-agent", "request", method, path].map(str::to_owned).to_vec();
    let exec = Exec { container: Some(CONTAINER.to_owned()), command, ..Exec::default() };
    let asked = async {
        let running = client.exec(&pod.namespace, &pod.name, &exec).await;
        let mut running = running.map_err(|error| error.to_string())?;
        let (output, errors) = (running.stdout(), running.stderr());
        let (ended, output, errors) = tokio::join!(running.ended(), all(output), all(errors));
        match ended {
            Ended::Exited(0) => output.map_err(|error| format!("its output: {error}")),
            Ended::Exited(code) => {
                let said = errors.unwrap_or_default();
                Err(format!("it exited with {code}: {}", said.trim()))
            }
            Ended::Failed(why) => Err(why),
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

async fn all(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut text = String::new();
    if let Some(mut from) = from {
        from.read_to_string(&mut text).await?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lateen_apiserver::{
        BoxWrite, CommandRequest, Config, Connection, PodStreams, RunningCommand, Status,
    };
    use lateen_kube::{Access, ResourceKind};
    use serde_json::json;

    use super::*;

    /// Pods whose admin interface is on their own loopback.
    struct Pods;

    #[async_trait::async_trait]
    impl PodStreams for Pods {
        async fn exec(&self, request: CommandRequest) -> Result<RunningCommand, Status> {
            let (out, err, code) = match request.command[3].as_str() {
                "/config_dump" => (format!("{}: {}", request.container, request.command.join(" ")), "", 0),
                _ => (String::new(), "received 404 Not Found status from the proxy", 1),
            };
            Ok(RunningCommand {
                stdin: None,
                stdout: Some(Box::pin(std::io::Cursor::new(out))),
                stderr: Some(Box::pin(err.as_bytes())),
                resize: None,
                exit: Box::pin(async move { Ok(code) }),
            })
        }

        async fn input(&self, _: &str, _: &str, _: &str) -> Result<BoxWrite, Status> {
            Err(Status::internal("nobody reads"))
        }

        async fn connect(&self, _: &str, _: &str, _: u16) -> Result<Box<dyn Connection>, Status> {
            Err(Status::internal("nobody listens"))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_proxy_that_listens_on_its_own_loopback_is_asked_in_its_container() {
        let folder = tempfile::tempdir().unwrap();
        let server = Config::new(folder.path(), ([127, 0, 0, 1], 0).into()).build().await.unwrap();
        server.serve_streams(Arc::new(Pods));
        let access = Access::Kubeconfig { path: Some(server.kubeconfig_path().to_owned()), context: None };
        let client = Client::connect(&access).await.unwrap();
        let kind = ResourceKind::core("Pod", "pods");
        let containers = json!([{"name": "app", "image": "x"}, {"name": CONTAINER, "image": "x"}]);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}});
        client.create(&kind, "default", pod).await.unwrap();
        let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.7"}});
        client.patch_status(&kind, "default", "p", &lateen_kube::Patch::Merge(status)).await.unwrap();

        let pod = PodName { namespace: "default".into(), name: "p".into() };
        let answer = ask(&client, &pod, "GET", "/config_dump").await.unwrap();
        assert_eq!(answer, "istio-proxy: pilot-agent request GET /config_dump");
        let refused = ask(&client, &pod, "GET", "/nothing").await.unwrap_err().to_string();
        for words in ["p.default", "pilot-agent request", "404 Not Found"] {
            assert!(refused.contains(words), "{words:?} is not in: {refused}");
        }
        server.shutdown().await;
    }
}

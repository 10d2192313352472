//! Requests to an API server.

use std::path::PathBuf;
use std::time::Duration;

use futures::{AsyncBufRead, TryFutureExt};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, LogParams, Patch as KubePatch, PatchParams, PostParams,
};
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use serde_json::Value;

use crate::{ResourceKind, overload};

/// Where the server is, and who asks.
#[derive(Clone, Debug)]
pub enum Access {
    /// By a kubeconfig file (or several, as `KUBECONFIG` lists them), and one of its contexts.
    Kubeconfig {
        /// The file; none: `KUBECONFIG`, else `~/.kube/config`.
        path: Option<PathBuf>,
        /// The context; none: the current one.
        context: Option<String>,
    },
    /// By the service account that is mounted into the pod, below this root (`/` on a cluster).
    Pod {
        /// The root of the pod's files.
        root: PathBuf,
    },
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// There is no usable configuration.
    #[error("Kubernetes configuration: {0}")]
    Config(String),
    /// The server refused, with the reason and code of its `Status`.
    #[error("{message}")]
    Status {
        /// The HTTP code.
        code: u16,
        /// `NotFound`, `Conflict`, `AlreadyExists`, ...
        reason: String,
        /// The server's words.
        message: String,
        /// When the server wants to be asked again, where it said so.
        retry_after: Option<Duration>,
    },
    /// The server could not be reached, or did not speak its protocol.
    #[error("Kubernetes API server: {0}")]
    Transport(String),
}

impl KubeError {
    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { code: 404, .. })
    }

    /// Whether trying again later can help: the server is overloaded, restarting, or out of reach.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Status { code: 429 | 500 | 502..=504, .. } | Self::Transport(_))
    }

    /// When the server wants to be asked again, where it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The words, with the code and the reason before those of a server.
    pub fn in_full(&self) -> String {
        match self {
            Self::Status { code, reason, message, .. } => {
                format!("the server answered {code} {reason}: {message}")
            }
            other => other.to_string(),
        }
    }

    /// Whether somebody else wrote it meanwhile, or it exists already.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Status { code: 409, .. })
    }
}

impl From<kube::Error> for KubeError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Status {
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.clone(),
                retry_after: status
                    .details
                    .as_ref()
                    .map(|details| Duration::from_secs(details.retry_after_seconds.into()))
                    .filter(|wait| !wait.is_zero()),
            },
            other => Self::Transport(chain(&other)),
        }
    }
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// How a patch is written.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, by the merge keys of the kind.
    Strategic(Value),
    /// RFC 6902.
    Json(Value),
}

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIdentity {
    /// The namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The pod that the token is bound to, where it is bound.
    pub pod: Option<String>,
}

/// Which part of a log.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// The container; none: the pod's only or default one.
    pub container: Option<String>,
    /// Whether to stay for what is written later.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<i64>,
    /// Only what is not older than these seconds.
    pub since_seconds: Option<i64>,
    /// Only what is not older than this moment, in RFC 3339.
    pub since_time: Option<String>,
    /// Each line with the time at which it was written.
    pub timestamps: bool,
    /// Not more than these bytes.
    pub limit_bytes: Option<i64>,
    /// The log of the container's former run.
    pub previous: bool,
}

/// A client of one API server. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    inner: kube::Client,
}

impl Client {
    /// Connects; nothing is asked yet.
    ///
    /// # Errors
    /// When the configuration is missing or malformed.
    pub async fn connect(access: &Access) -> Result<Self, KubeError> {
        let config = config(access).await?;
        let inner = kube::Client::try_from(config).map_err(|error| KubeError::Config(chain(&error)))?;
        Ok(Self { inner })
    }

    /// Connects for a caller that decides by itself when to ask again: every failure is told at once, with when the
    /// server wants to be asked again. (Else kube-rs asks again by itself where a server is overloaded.)
    ///
    /// # Errors
    /// When the configuration is missing or malformed.
    pub async fn connect_frankly(access: &Access) -> Result<Self, KubeError> {
        let mut config = config(access).await?;
        config.default_retry = false;
        let bad = |error: kube::Error| KubeError::Config(chain(&error));
        let builder = kube::client::ClientBuilder::try_from(config).map_err(bad)?;
        let inner = builder.with_layer(&tower::util::AndThenLayer::new(overload::explained)).build();
        Ok(Self { inner })
    }

    /// The namespace that the configuration names.
    pub fn default_namespace(&self) -> &str {
        self.inner.default_namespace()
    }

    /// One object.
    ///
    /// # Errors
    /// When there is none, or the request fails.
    pub async fn get(&self, kind: &ResourceKind, namespace: &str, name: &str) -> Result<Value, KubeError> {
        self.api(kind, Some(namespace)).get(name).map_err(KubeError::from).await.and_then(to_value)
    }

    /// Objects of a namespace (none: of all), by a label selector.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn list(
        &self,
        kind: &ResourceKind,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<Value>, KubeError> {
        let mut params = ListParams::default();
        if let Some(labels) = labels {
            params = params.labels(labels);
        }
        let list = self.api(kind, namespace).list(&params).await?;
        list.items.into_iter().map(to_value).collect()
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When it exists, or the request fails.
    pub async fn create(
        &self,
        kind: &ResourceKind,
        namespace: &str,
        object: Value,
    ) -> Result<Value, KubeError> {
        let object = from_value(object)?;
        self.api(kind, Some(namespace))
            .create(&PostParams::default(), &object)
            .await
            .map_err(Into::into)
            .and_then(to_value)
    }

    /// Replaces an object; its `metadata.resourceVersion`, where given, has to be the current one.
    ///
    /// # Errors
    /// On a conflict, or when the request fails.
    pub async fn replace(
        &self,
        kind: &ResourceKind,
        namespace: &str,
        name: &str,
        object: Value,
    ) -> Result<Value, KubeError> {
        let object = from_value(object)?;
        let api = self.api(kind, Some(namespace));
        api.replace(name, &PostParams::default(), &object).await.map_err(Into::into).and_then(to_value)
    }

    /// Creates the object, or merges it into the one that exists.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn apply(
        &self,
        kind: &ResourceKind,
        namespace: &str,
        object: Value,
    ) -> Result<Value, KubeError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match self.create(kind, namespace, object.clone()).await {
            Err(KubeError::Status { code: 409, .. }) => {
                self.patch(kind, namespace, &name, &Patch::Merge(object)).await
            }
            done => done,
        }
    }

    /// Creates the object, or changes it to what it says, keeping fields that others own: server-side apply. Fields
    /// that `manager` set before and no longer sets are removed; a conflict is decided for `manager`.
    ///
    /// # Errors
    /// With code 405, 415 or 501 from a server that does not know it, or when the request fails.
    pub async fn apply_owned(
        &self,
        kind: &ResourceKind,
        namespace: &str,
        manager: &str,
        object: &Value,
    ) -> Result<Value, KubeError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let params = PatchParams::apply(manager).force();
        to_value(self.api(kind, Some(namespace)).patch(name, &params, &KubePatch::Apply(object)).await?)
    }

    /// Patches an object.
    ///
    /// # Errors
    /// When there is none, or the request fails.
    pub async fn patch(
        &self,
        kind: &ResourceKind,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<Value, KubeError> {
        let api = self.api(kind, Some(namespace));
        let done = api.patch(name, &PatchParams::default(), &kube_patch(patch)?).await?;
        to_value(done)
    }

    /// Patches the status of an object.
    ///
    /// # Errors
    /// When there is none, or the request fails.
    pub async fn patch_status(
        &self,
        kind: &ResourceKind,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<Value, KubeError> {
        let api = self.api(kind, Some(namespace));
        let done = api.patch_status(name, &PatchParams::default(), &kube_patch(patch)?).await?;
        to_value(done)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When there is none, or the request fails.
    pub async fn delete(&self, kind: &ResourceKind, namespace: &str, name: &str) -> Result<(), KubeError> {
        self.api(kind, Some(namespace)).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Asks whether a token is good for one of the audiences, and whose it is; none when it is not good.
    ///
    /// # Errors
    /// When the request fails, or the token is not one of a service account.
    pub async fn review_token(
        &self,
        token: &str,
        audiences: &[&str],
    ) -> Result<Option<TokenIdentity>, KubeError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(audiences.iter().map(|audience| (*audience).to_owned()).collect()),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.inner.clone());
        let status = api.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Ok(None);
        }
        let user = status.user.unwrap_or_default();
        let pod = user.extra.as_ref().and_then(|extra| extra.get("authentication.kubernetes.io/pod-name"));
        let name = user.username.unwrap_or_default();
        match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
            Some((namespace, service_account)) => Ok(Some(TokenIdentity {
                namespace: namespace.to_owned(),
                service_account: service_account.to_owned(),
                pod: pod.and_then(|names| names.first().cloned()),
            })),
            None => Err(KubeError::Transport(format!("token review: {name:?} is no service account"))),
        }
    }

    /// Whether a service account may list the secrets of its namespace, by the server's own rules.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn may_list_secrets(&self, namespace: &str, service_account: &str) -> Result<bool, KubeError> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{service_account}")),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("list".to_owned()),
                    resource: Some("secrets".to_owned()),
                    namespace: Some(namespace.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.inner.clone());
        let status = api.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }

    /// The log of a pod's container.
    ///
    /// # Errors
    /// When there is no such pod or container, the moment is no time, or the request fails.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: &LogOptions,
    ) -> Result<impl AsyncBufRead + use<>, KubeError> {
        let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.inner.clone(), namespace);
        let since_time = options.since_time.as_deref().map(|text| {
            let moment = text.parse::<k8s_openapi::jiff::Timestamp>();
            moment.map_err(|error| KubeError::Config(format!("{text:?} is no time in RFC 3339: {error}")))
        });
        let params = LogParams {
            container: options.container.clone(),
            follow: options.follow,
            tail_lines: options.tail,
            since_seconds: options.since_seconds,
            since_time: since_time.transpose()?,
            timestamps: options.timestamps,
            limit_bytes: options.limit_bytes,
            previous: options.previous,
            ..LogParams::default()
        };
        Ok(api.log_stream(pod, &params).await?)
    }

    /// The answer to a `GET` of any path, with this `Accept` header, as JSON.
    ///
    /// # Errors
    /// When the request fails, or the answer is no JSON.
    pub async fn raw_get(&self, path: &str, accept: &str) -> Result<Value, KubeError> {
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, accept)
            .body(Vec::new())
            .map_err(|error| KubeError::Config(format!("{path}: {error}")))?;
        Ok(self.inner.request(request).await?)
    }

    /// The answer to a request without a body, as text.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn raw_text(&self, method: &str, path: &str) -> Result<String, KubeError> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .body(Vec::new())
            .map_err(|error| KubeError::Config(format!("{method} {path}: {error}")))?;
        Ok(self.inner.request_text(request).await?)
    }

    pub(crate) fn inner(&self) -> &kube::Client {
        &self.inner
    }

    pub(crate) fn api(&self, kind: &ResourceKind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = kind.api_resource();
        match namespace {
            Some(namespace) if kind.namespaced => {
                Api::namespaced_with(self.inner.clone(), namespace, &resource)
            }
            _ => Api::all_with(self.inner.clone(), &resource),
        }
    }
}

async fn config(access: &Access) -> Result<kube::Config, KubeError> {
    let bad = |error: &dyn std::error::Error| KubeError::Config(chain(error));
    match access {
        Access::Kubeconfig { path, context } => {
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            match path {
                Some(path) => {
                    let file = Kubeconfig::read_from(path).map_err(|error| bad(&error))?;
                    kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| bad(&error))
                }
                None => kube::Config::from_kubeconfig(&options).await.map_err(|error| bad(&error)),
            }
        }
        Access::Pod { root } => {
            let kubeconfig = pod_kubeconfig(root)?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| bad(&error))
        }
    }
}

/// The configuration that a pod's environment and mounted service account stand for.
fn pod_kubeconfig(root: &std::path::Path) -> Result<Kubeconfig, KubeError> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| KubeError::Config(format!("{name} is not set, so this is no pod")))
    };
    let account = root.join("var/run/secrets/kubernetes.io/serviceaccount");
    let file = |name: &str| account.join(name).to_string_lossy().into_owned();
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let namespace =
        std::fs::read_to_string(account.join("namespace")).ok().map(|text| text.trim().to_owned());
    Ok(Kubeconfig {
        clusters: vec![NamedCluster {
            name: "pod".into(),
            other: Default::default(),
            cluster: Some(Cluster {
                server: Some(format!("https://{host}:{port}")),
                certificate_authority: Some(file("ca.crt")),
                ..Cluster::default()
            }),
        }],
        auth_infos: vec![NamedAuthInfo {
            name: "pod".into(),
            other: Default::default(),
            auth_info: Some(AuthInfo { token_file: Some(file("token")), ..AuthInfo::default() }),
        }],
        contexts: vec![NamedContext {
            name: "pod".into(),
            other: Default::default(),
            context: Some(Context {
                cluster: "pod".into(),
                user: Some("pod".into()),
                namespace,
                ..Context::default()
            }),
        }],
        current_context: Some("pod".into()),
        ..Kubeconfig::default()
    })
}

fn kube_patch(patch: &Patch) -> Result<KubePatch<Value>, KubeError> {
    Ok(match patch {
        Patch::Merge(value) => KubePatch::Merge(value.clone()),
        Patch::Strategic(value) => KubePatch::Strategic(value.clone()),
        Patch::Json(value) => KubePatch::Json(
            serde_json::from_value(value.clone())
                .map_err(|error| KubeError::Config(format!("JSON patch: {error}")))?,
        ),
    })
}

pub(crate) fn to_value(object: DynamicObject) -> Result<Value, KubeError> {
    serde_json::to_value(object).map_err(|error| KubeError::Transport(error.to_string()))
}

fn from_value(object: Value) -> Result<DynamicObject, KubeError> {
    serde_json::from_value(object).map_err(|error| KubeError::Transport(error.to_string()))
}

//! Network filters: what a filter chain does with a connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lateen_proto::Any;
use lateen_proto::envoy::config::listener::v3 as listener;
use lateen_proto::envoy::extensions::filters::common::set_filter_state::v3 as state;
use lateen_proto::envoy::extensions::filters::network as filters;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

use crate::access_log::AccessLog;
use crate::entropy::Entropy;
use crate::error::{Cx, Result};
use crate::ext_authz::NetworkExtAuthz;
use crate::format::Format;
use crate::http_manager::HttpManager;
use crate::istio::{Extension, MetadataExchange};
use crate::rate_limit::TokenBucket;
use crate::rbac::RbacFilter;
use crate::routes::WeightedNames;

/// A compiled network filter.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    /// Speaks HTTP.
    Http(Arc<HttpManager>),
    /// Forwards bytes.
    Tcp(Arc<TcpProxy>),
    /// Answers and closes.
    DirectResponse(Bytes),
    /// Decides who may connect.
    Rbac(Arc<RbacFilter>),
    /// Asks a service who may connect.
    ExtAuthz(Arc<NetworkExtAuthz>),
    /// Lets so many connections through.
    LocalRateLimit(Arc<ConnectionRate>),
    /// Takes the server name as cluster name for the TCP proxy after it.
    SniCluster,
    /// Puts values into the connection's filter state.
    SetFilterState(Arc<[FilterStateValue]>),
    /// Istio's exchange of workload metadata over the `istio-peer-exchange` protocol.
    MetadataExchange(MetadataExchange),
    /// Istio's metrics of connections.
    IstioStats(Any),
}

/// A compiled `LocalRateLimit` of connections.
#[derive(Debug)]
pub struct ConnectionRate {
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// A token for each connection; `None` is no limit.
    pub bucket: Option<TokenBucket>,
}

impl ConnectionRate {
    fn compile(cx: &mut Cx<'_>, message: &filters::local_ratelimit::v3::LocalRateLimit) -> Result<Self> {
        cx.check(message)?;
        let bucket = cx.required("token_bucket", &message.token_bucket)?;
        let bucket = cx.field("token_bucket", |cx| TokenBucket::compile(cx, bucket))?;
        let enabled = message.runtime_enabled.as_ref().and_then(|flag| flag.default_value).unwrap_or(true);
        Ok(Self { stat_prefix: message.stat_prefix.as_str().into(), bucket: enabled.then_some(bucket) })
    }
}

/// The object of the filter state that upstream connections see: the application protocols that TLS offers.
pub const APPLICATION_PROTOCOLS: &str = "envoy.network.application_protocols";

/// A value for the filter state.
#[derive(Clone, Debug)]
pub struct FilterStateValue {
    /// The object's name.
    pub key: Arc<str>,
    /// The factory that reads the value, as `envoy.network.application_protocols`; the key itself unless given.
    pub factory: Arc<str>,
    /// The value.
    pub format: Format,
    /// The value, where it is the same for all.
    fixed: Option<Arc<str>>,
    /// Whether upstream connections see it.
    pub shared_with_upstream: bool,
    /// Whether an empty value is left out.
    pub skip_if_empty: bool,
}

/// A compiled TCP proxy.
#[derive(Clone, Debug)]
pub struct TcpProxy {
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
    clusters: WeightedNames,
    /// How long a connection may be silent; `None` is for ever. One hour unless set.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may live.
    pub max_duration: Option<Duration>,
    /// How often connecting is tried.
    pub max_connect_attempts: u32,
    /// Whether the load balancer's hash is of the client's address.
    pub hash_by_source: bool,
    /// How its bytes travel in HTTP; `None` is as they are.
    pub tunneling: Option<Tunneling>,
    /// Its logs.
    pub access_logs: Vec<AccessLog>,
}

/// How a connection's bytes travel in HTTP.
#[derive(Clone, Debug)]
pub struct Tunneling {
    /// The host that is asked for.
    pub hostname: Format,
    /// The path of a POST; `None` is a CONNECT.
    pub post: Option<Arc<str>>,
    /// More headers.
    pub headers: Vec<(http::HeaderName, Format)>,
}

impl Tunneling {
    fn compile(
        cx: &mut Cx<'_>,
        message: &filters::tcp_proxy::v3::tcp_proxy::TunnelingConfig,
    ) -> Result<Self> {
        cx.check(message)?;
        if message.hostname.is_empty() {
            return Err(cx.refuse_at("hostname", "must not be empty"));
        }
        if !message.use_post && !message.post_path.is_empty() {
            return Err(cx.refuse_at("post_path", "needs use_post"));
        }
        let path = if message.post_path.is_empty() { "/" } else { &message.post_path };
        let hostname = Format::parse(&message.hostname);
        Ok(Self {
            hostname: hostname.map_err(|reason| cx.refuse_at("hostname", reason))?,
            post: message.use_post.then(|| path.into()),
            headers: cx.each("headers_to_add", &message.headers_to_add, |cx, option| {
                let header = cx.required("header", &option.header)?;
                let value =
                    Format::parse(&header.value).map_err(|reason| cx.refuse_at("header.value", reason))?;
                Ok((cx.header_name("header.key", &header.key)?, value))
            })?,
        })
    }
}

impl TcpProxy {
    /// The cluster for a connection.
    pub fn cluster(&self, entropy: Entropy) -> &Arc<str> {
        self.clusters.pick(entropy)
    }

    /// Every cluster it may choose.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.clusters.names()
    }

    fn compile(cx: &mut Cx<'_>, message: &filters::tcp_proxy::v3::TcpProxy) -> Result<Self> {
        use filters::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
        cx.check(message)?;
        let clusters = match cx.required("cluster", &message.cluster_specifier)? {
            ClusterSpecifier::Cluster(name) => WeightedNames::single(name),
            ClusterSpecifier::WeightedClusters(weighted) => {
                let pairs = weighted.clusters.iter().map(|c| (c.name.as_str(), c.weight));
                WeightedNames::of(pairs).map_err(|reason| cx.refuse_at("weighted_clusters", reason))?
            }
        };
        let idle = cx.duration("idle_timeout", &message.idle_timeout)?;
        let mut hash_by_source = false;
        for policy in &message.hash_policy {
            use lateen_proto::envoy::r#type::v3::hash_policy::PolicySpecifier;
            hash_by_source = match &policy.policy_specifier {
                Some(PolicySpecifier::SourceIp(_)) => true,
                _ => return Err(cx.refuse_at("hash_policy", "only source_ip is supported")),
            };
        }
        Ok(Self {
            stat_prefix: message.stat_prefix.as_str().into(),
            clusters,
            idle_timeout: idle.or(Some(Duration::from_secs(3600))).filter(|d| !d.is_zero()),
            max_duration: cx.duration(
                "max_downstream_connection_duration",
                &message.max_downstream_connection_duration,
            )?,
            max_connect_attempts: message.max_connect_attempts.unwrap_or(1).max(1),
            hash_by_source,
            tunneling: match &message.tunneling_config {
                None => None,
                Some(config) => Some(cx.field("tunneling_config", |cx| Tunneling::compile(cx, config))?),
            },
            access_logs: cx.each("access_log", &message.access_log, AccessLog::compile)?,
        })
    }
}

impl NetworkFilter {
    /// Whether it ends a chain.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Tcp(_) | Self::DirectResponse(_))
    }

    /// Envoy's usual name of such a filter.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "envoy.filters.network.http_connection_manager",
            Self::Tcp(_) => "envoy.filters.network.tcp_proxy",
            Self::DirectResponse(_) => "envoy.filters.network.direct_response",
            Self::Rbac(_) => "envoy.filters.network.rbac",
            Self::ExtAuthz(_) => "envoy.filters.network.ext_authz",
            Self::LocalRateLimit(_) => "envoy.filters.network.local_ratelimit",
            Self::SniCluster => "envoy.filters.network.sni_cluster",
            Self::SetFilterState(_) => "envoy.filters.network.set_filter_state",
            Self::MetadataExchange(_) => "istio.metadata_exchange",
            Self::IstioStats(_) => "istio.stats",
        }
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &listener::Filter) -> Result<Self> {
        let any = match &message.config_type {
            Some(listener::filter::ConfigType::TypedConfig(any)) => any,
            Some(listener::filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(cx.refuse_at("config_discovery", "is not supported: give typed_config"));
            }
            None if message.name == "envoy.filters.network.sni_cluster" => return Ok(Self::SniCluster),
            None => return Err(cx.refuse_at("typed_config", "is required")),
        };
        cx.field("typed_config", |cx| Self::compile_typed(cx, any))
    }

    fn compile_typed(cx: &mut Cx<'_>, any: &Any) -> Result<Self> {
        if any.is::<HttpConnectionManager>() {
            let message = cx.unpack(any)?;
            return Ok(Self::Http(Arc::new(HttpManager::compile(cx, &message)?)));
        }
        if any.is::<filters::tcp_proxy::v3::TcpProxy>() {
            let message = cx.unpack(any)?;
            return Ok(Self::Tcp(Arc::new(TcpProxy::compile(cx, &message)?)));
        }
        if any.is::<filters::rbac::v3::Rbac>() {
            let message: filters::rbac::v3::Rbac = cx.unpack(any)?;
            return Ok(Self::Rbac(Arc::new(RbacFilter::compile_network(cx, &message)?)));
        }
        if any.is::<filters::ext_authz::v3::ExtAuthz>() {
            let message = cx.unpack(any)?;
            return Ok(Self::ExtAuthz(Arc::new(NetworkExtAuthz::compile(cx, &message)?)));
        }
        if any.is::<filters::local_ratelimit::v3::LocalRateLimit>() {
            let message = cx.unpack(any)?;
            return Ok(Self::LocalRateLimit(Arc::new(ConnectionRate::compile(cx, &message)?)));
        }
        if any.is::<filters::sni_cluster::v3::SniCluster>() {
            return Ok(Self::SniCluster);
        }
        if any.is::<filters::set_filter_state::v3::Config>() {
            let message: filters::set_filter_state::v3::Config = cx.unpack(any)?;
            cx.check(&message)?;
            let values =
                cx.each("on_new_connection", &message.on_new_connection, FilterStateValue::compile)?;
            return Ok(Self::SetFilterState(values.into()));
        }
        if any.is::<filters::direct_response::v3::Config>() {
            let message: filters::direct_response::v3::Config = cx.unpack(any)?;
            let body = message.response.as_ref().map(|r| cx.inline("response", r)).transpose()?;
            return Ok(Self::DirectResponse(body.unwrap_or_default()));
        }
        let extension = Extension::open(cx, any)?;
        match extension.kind.as_str() {
            "envoy.tcp.metadataexchange.config.MetadataExchange" => {
                Ok(Self::MetadataExchange(MetadataExchange::compile(cx, &extension)?))
            }
            "stats.PluginConfig" => Ok(Self::IstioStats(any.clone())),
            other => Err(cx.refuse(format!("network filter {other} is not supported"))),
        }
    }
}

impl FilterStateValue {
    /// The application protocols that it has TLS to endpoints offer, joined by commas; `None` when it sets none.
    pub fn protocols(&self, render: impl FnOnce(&Format) -> Vec<u8>) -> Option<Arc<str>> {
        if &*self.factory != APPLICATION_PROTOCOLS || !self.shared_with_upstream {
            return None;
        }
        let text = match &self.fixed {
            Some(text) => text.clone(),
            None => String::from_utf8(render(&self.format)).ok()?.into(),
        };
        (!text.is_empty() || !self.skip_if_empty).then_some(text)
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &state::FilterStateValue) -> Result<Self> {
        use lateen_proto::envoy::config::core::v3::substitution_format_string::Format as F;
        cx.check(message)?;
        let Some(state::filter_state_value::Key::ObjectKey(key)) = &message.key else {
            return Err(cx.refuse_at("object_key", "is required"));
        };
        let Some(state::filter_state_value::Value::FormatString(format)) = &message.value else {
            return Err(cx.refuse_at("format_string", "is required"));
        };
        let text = match &format.format {
            Some(F::TextFormat(text)) => text.clone(),
            Some(F::TextFormatSource(source)) => {
                let bytes = cx.inline("format_string.text_format_source", source)?;
                String::from_utf8(bytes.to_vec())
                    .map_err(|_| cx.refuse_at("format_string.text_format_source", "is not UTF-8"))?
            }
            _ => return Err(cx.refuse_at("format_string", "needs text_format or text_format_source")),
        };
        let factory = if message.factory_key.is_empty() { key } else { &message.factory_key };
        match factory.as_str() {
            APPLICATION_PROTOCOLS => {}
            "envoy.string" => cx.note_at("factory_key", "nothing reads texts of the filter state"),
            other => return Err(cx.refuse_at("factory_key", format!("{other} is not supported"))),
        }
        let format = Format::parse(&text).map_err(|reason| cx.refuse_at("format_string", reason))?;
        Ok(Self {
            key: key.as_str().into(),
            factory: factory.as_str().into(),
            fixed: format.as_text().map(Into::into),
            format,
            shared_with_upstream: message.shared_with_upstream != 0,
            skip_if_empty: message.skip_if_empty,
        })
    }
}

//! How an endpoint is picked.

use std::time::Duration;

use lateen_proto::envoy::config::cluster::v3 as proto;
use lateen_proto::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use lateen_proto::envoy::config::cluster::v3::cluster::{LbConfig, LbPolicy};

use crate::error::{Cx, Result};

/// How an endpoint is picked.
#[derive(Clone, Debug, PartialEq)]
pub struct Balancing {
    /// The policy.
    pub policy: Policy,
    /// Share of healthy endpoints (0 to 100) below which health is not looked at; 50 unless set.
    pub panic_threshold: f64,
    /// Whether localities are chosen by their weights.
    pub locality_weighted: bool,
    /// How new endpoints come to their full share; `None` is at once.
    pub slow_start: Option<SlowStart>,
}

/// A load balancing policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// One after the other, by weight.
    RoundRobin,
    /// The least busy.
    LeastRequest(LeastRequest),
    /// By chance, whatever the weights.
    Random,
    /// Ketama.
    RingHash {
        /// The fewest points on the ring.
        min_size: u64,
        /// The most points on the ring.
        max_size: u64,
        /// Whether host names are hashed rather than addresses.
        by_hostname: bool,
        /// Whether points are by MurmurHash 2 rather than by XXH64.
        murmur: bool,
    },
    /// Google's consistent hash.
    Maglev {
        /// The table's size, a prime.
        size: u64,
        /// Whether host names are hashed rather than addresses.
        by_hostname: bool,
    },
    /// As the discovery says: there is one address.
    ClusterProvided,
}

/// How the least busy is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeastRequest {
    /// How many are drawn; 2 unless set.
    pub choices: u32,
    /// The power of active requests by which weights are divided, where endpoints have different ones; 1 unless set.
    pub bias: f64,
}

/// How new endpoints come to their full share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long that takes.
    pub window: Duration,
    /// 1 is at an even pace; more is faster at the beginning.
    pub aggression: f64,
    /// The smallest share of its weight that an endpoint has, 0 to 1.
    pub min_share: f64,
}

impl SlowStart {
    /// The share of its weight that an endpoint has after `age`; 1 once the window is over.
    pub fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let time = age.max(Duration::from_millis(1)).as_secs_f64() / self.window.as_secs_f64();
        time.powf(1.0 / self.aggression).max(self.min_share)
    }
}

impl Policy {
    /// Whether it goes by the request's hash.
    pub fn hashes(&self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }

    /// Whether host names are hashed rather than addresses.
    pub(crate) fn by_hostname(&self) -> bool {
        matches!(self, Self::RingHash { by_hostname: true, .. } | Self::Maglev { by_hostname: true, .. })
    }
}

impl Balancing {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::Cluster) -> Result<Self> {
        let common = message.common_lb_config.clone().unwrap_or_default();
        cx.field("common_lb_config", |cx| cx.check(&common))?;
        let hashing = common.consistent_hashing_lb_config.unwrap_or_default();
        if hashing.hash_balance_factor.is_some() {
            cx.note_at(
                "common_lb_config.consistent_hashing_lb_config.hash_balance_factor",
                "the hash alone decides",
            );
        }
        let locality_weighted = match &common.locality_config_specifier {
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
                cx.note_at(
                    "common_lb_config.zone_aware_lb_config",
                    "needs a local cluster, which there is not",
                );
                false
            }
            None => false,
        };
        Ok(Self {
            policy: policy(cx, message, hashing.use_hostname_for_hashing)?,
            panic_threshold: common.healthy_panic_threshold.as_ref().map_or(50.0, |p| p.value),
            locality_weighted,
            slow_start: slow_start(cx, message)?,
        })
    }
}

fn policy(cx: &Cx<'_>, message: &proto::Cluster, by_hostname: bool) -> Result<Policy> {
    Ok(match message.lb_policy() {
        LbPolicy::RoundRobin => Policy::RoundRobin,
        LbPolicy::LeastRequest => Policy::LeastRequest(least_request(cx, message)?),
        LbPolicy::Random => Policy::Random,
        LbPolicy::RingHash => ring_hash(cx, message, by_hostname)?,
        LbPolicy::Maglev => {
            let size = match &message.lb_config {
                Some(LbConfig::MaglevLbConfig(config)) => config.table_size.unwrap_or(65537),
                _ => 65537,
            };
            if !(2..=5_000_011).contains(&size) {
                return Err(cx.refuse_at("maglev_lb_config.table_size", "has to be a prime up to 5000011"));
            }
            Policy::Maglev { size, by_hostname }
        }
        LbPolicy::ClusterProvided => Policy::ClusterProvided,
        LbPolicy::LoadBalancingPolicyConfig => {
            return Err(
                cx.refuse_at("lb_policy", "LOAD_BALANCING_POLICY_CONFIG is not supported: name a policy")
            );
        }
    })
}

fn ring_hash(cx: &Cx<'_>, message: &proto::Cluster, by_hostname: bool) -> Result<Policy> {
    let config = match &message.lb_config {
        Some(LbConfig::RingHashLbConfig(config)) => *config,
        _ => proto::cluster::RingHashLbConfig::default(),
    };
    let min_size = config.minimum_ring_size.unwrap_or(1024);
    let max_size = config.maximum_ring_size.unwrap_or(8 << 20);
    if min_size > max_size || max_size > 8 << 20 {
        return Err(cx.refuse_at("ring_hash_lb_config", "needs minimum <= maximum <= 8388608"));
    }
    let murmur = config.hash_function() == proto::cluster::ring_hash_lb_config::HashFunction::MurmurHash2;
    Ok(Policy::RingHash { min_size, max_size, by_hostname, murmur })
}

fn least_request(cx: &Cx<'_>, message: &proto::Cluster) -> Result<LeastRequest> {
    let config = match &message.lb_config {
        Some(LbConfig::LeastRequestLbConfig(config)) => config.clone(),
        _ => proto::cluster::LeastRequestLbConfig::default(),
    };
    let choices = config.choice_count.unwrap_or(2);
    if choices < 2 {
        return Err(cx.refuse_at("least_request_lb_config.choice_count", "has to be at least 2"));
    }
    let bias = config.active_request_bias.as_ref().map_or(1.0, |bias| bias.default_value);
    if !(bias >= 0.0 && bias.is_finite()) {
        return Err(cx.refuse_at("least_request_lb_config.active_request_bias", "has to be 0 or more"));
    }
    Ok(LeastRequest { choices, bias })
}

fn slow_start(cx: &Cx<'_>, message: &proto::Cluster) -> Result<Option<SlowStart>> {
    let (field, config) = match &message.lb_config {
        Some(LbConfig::LeastRequestLbConfig(config)) => {
            ("least_request_lb_config", &config.slow_start_config)
        }
        Some(LbConfig::RoundRobinLbConfig(config)) => ("round_robin_lb_config", &config.slow_start_config),
        _ => return Ok(None),
    };
    let Some(config) = config else { return Ok(None) };
    let at = |name: &str| format!("{field}.slow_start_config.{name}");
    let window = cx.duration(&at("slow_start_window"), &config.slow_start_window)?.unwrap_or_default();
    let aggression = config.aggression.as_ref().map_or(1.0, |aggression| aggression.default_value);
    if !(aggression > 0.0 && aggression.is_finite()) {
        return Err(cx.refuse_at(&at("aggression"), "has to be above 0"));
    }
    let min_share = config.min_weight_percent.as_ref().map_or(10.0, |percent| percent.value) / 100.0;
    Ok((!window.is_zero()).then_some(SlowStart { window, aggression, min_share }))
}

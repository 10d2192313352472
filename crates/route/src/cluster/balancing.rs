//! How an endpoint is picked.

use std::time::Duration;

use lateen_proto::envoy::config::cluster::v3 as proto;
use lateen_proto::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use lateen_proto::envoy::config::cluster::v3::cluster::{LbConfig, LbPolicy};

use super::{ByLoad, policies};
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
    /// How weights follow from what hosts report; `None` takes those of the assignment.
    pub by_load: Option<ByLoad>,
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

/// Points on a ring, at least, unless set.
pub(super) const RING_MIN: u64 = 1024;
/// Points on a ring, at most.
pub(super) const RING_MAX: u64 = 8 << 20;
/// The size of Maglev's table unless set.
pub(super) const MAGLEV_SIZE: u64 = 65537;

/// What either form of configuration says of balancing.
pub(super) struct Chosen {
    pub(super) policy: Policy,
    pub(super) locality_weighted: bool,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) by_load: Option<ByLoad>,
}

impl LeastRequest {
    pub(super) fn checked(cx: &Cx<'_>, choices: Option<u32>, bias: Option<f64>) -> Result<Self> {
        let (choices, bias) = (choices.unwrap_or(2), bias.unwrap_or(1.0));
        if choices < 2 {
            return Err(cx.refuse_at("choice_count", "has to be at least 2"));
        }
        if !(bias >= 0.0 && bias.is_finite()) {
            return Err(cx.refuse_at("active_request_bias", "has to be 0 or more"));
        }
        Ok(Self { choices, bias })
    }
}

impl SlowStart {
    /// `None` without a window.
    pub(super) fn checked(
        cx: &Cx<'_>,
        field: &str,
        window: Duration,
        aggression: Option<f64>,
        percent: Option<f64>,
    ) -> Result<Option<Self>> {
        let aggression = aggression.unwrap_or(1.0);
        if !(aggression > 0.0 && aggression.is_finite()) {
            return Err(cx.refuse_at(&format!("{field}.aggression"), "has to be above 0"));
        }
        let min_share = percent.unwrap_or(10.0) / 100.0;
        Ok((!window.is_zero()).then_some(Self { window, aggression, min_share }))
    }

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
    pub(super) fn maglev(cx: &Cx<'_>, field: &str, size: u64, by_hostname: bool) -> Result<Self> {
        if !(2..=5_000_011).contains(&size) {
            return Err(cx.refuse_at(field, "has to be a prime up to 5000011"));
        }
        Ok(Self::Maglev { size, by_hostname })
    }

    pub(super) fn ring_hash(
        cx: &Cx<'_>,
        field: &str,
        (min_size, max_size): (u64, u64),
        by_hostname: bool,
        murmur: bool,
    ) -> Result<Self> {
        if min_size > max_size || max_size > RING_MAX {
            return Err(cx.refuse_at(field, "needs minimum <= maximum <= 8388608"));
        }
        Ok(Self::RingHash { min_size, max_size, by_hostname, murmur })
    }

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
        let chosen = match &message.load_balancing_policy {
            Some(list) => cx.field("load_balancing_policy", |cx| policies::choose(cx, list))?,
            None => Chosen {
                policy: policy(cx, message, hashing.use_hostname_for_hashing)?,
                locality_weighted,
                slow_start: slow_start(cx, message)?,
                by_load: None,
            },
        };
        let Chosen { policy, locality_weighted, slow_start, by_load } = chosen;
        let panic_threshold = common.healthy_panic_threshold.as_ref().map_or(50.0, |p| p.value);
        Ok(Self { policy, panic_threshold, locality_weighted, slow_start, by_load })
    }
}

fn policy(cx: &mut Cx<'_>, message: &proto::Cluster, by_hostname: bool) -> Result<Policy> {
    Ok(match message.lb_policy() {
        LbPolicy::RoundRobin => Policy::RoundRobin,
        LbPolicy::LeastRequest => {
            let config = match &message.lb_config {
                Some(LbConfig::LeastRequestLbConfig(config)) => config.clone(),
                _ => proto::cluster::LeastRequestLbConfig::default(),
            };
            let bias = config.active_request_bias.as_ref().map(|bias| bias.default_value);
            let read = |cx: &mut Cx<'_>| LeastRequest::checked(cx, config.choice_count, bias);
            Policy::LeastRequest(cx.field("least_request_lb_config", read)?)
        }
        LbPolicy::Random => Policy::Random,
        LbPolicy::RingHash => {
            use proto::cluster::ring_hash_lb_config::HashFunction;
            let config = match &message.lb_config {
                Some(LbConfig::RingHashLbConfig(config)) => *config,
                _ => proto::cluster::RingHashLbConfig::default(),
            };
            let sizes =
                (config.minimum_ring_size.unwrap_or(RING_MIN), config.maximum_ring_size.unwrap_or(RING_MAX));
            let murmur = config.hash_function() == HashFunction::MurmurHash2;
            Policy::ring_hash(cx, "ring_hash_lb_config", sizes, by_hostname, murmur)?
        }
        LbPolicy::Maglev => {
            let size = match &message.lb_config {
                Some(LbConfig::MaglevLbConfig(config)) => config.table_size.unwrap_or(MAGLEV_SIZE),
                _ => MAGLEV_SIZE,
            };
            Policy::maglev(cx, "maglev_lb_config.table_size", size, by_hostname)?
        }
        LbPolicy::ClusterProvided => Policy::ClusterProvided,
        LbPolicy::LoadBalancingPolicyConfig => {
            return Err(cx.refuse_at("load_balancing_policy", "is required by lb_policy"));
        }
    })
}

fn slow_start(cx: &Cx<'_>, message: &proto::Cluster) -> Result<Option<SlowStart>> {
    let (field, config) = match &message.lb_config {
        Some(LbConfig::LeastRequestLbConfig(config)) => {
            ("least_request_lb_config.slow_start_config", &config.slow_start_config)
        }
        Some(LbConfig::RoundRobinLbConfig(config)) => {
            ("round_robin_lb_config.slow_start_config", &config.slow_start_config)
        }
        _ => return Ok(None),
    };
    let Some(config) = config else { return Ok(None) };
    let window = cx.duration(&format!("{field}.slow_start_window"), &config.slow_start_window)?;
    let aggression = config.aggression.as_ref().map(|aggression| aggression.default_value);
    let percent = config.min_weight_percent.as_ref().map(|percent| percent.value);
    SlowStart::checked(cx, field, window.unwrap_or_default(), aggression, percent)
}

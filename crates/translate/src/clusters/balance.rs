//! How a cluster chooses among its endpoints.

use lateen_api::kinds::destination_rule::{
    BackendUtilizationLb, ConsistentHashLb, LoadBalancerSettings, SimpleLb, WarmupConfiguration,
};
use lateen_proto::Any;
use lateen_proto::envoy::config::cluster::v3 as cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use lateen_proto::envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
    SlowStartConfig,
};
use lateen_proto::envoy::config::cluster::v3::{LoadBalancingPolicy, load_balancing_policy};
use lateen_proto::envoy::config::core::v3::{RuntimeDouble, TypedExtensionConfig};
use lateen_proto::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use lateen_proto::envoy::r#type::v3::Percent;

use crate::filters::wire::duration;

/// The smallest ring of a rule that says nothing.
const MINIMUM_RING: u64 = 1024;

/// Whether the rule sends requests where the client wanted them.
pub(crate) fn passes_through(settings: Option<&LoadBalancerSettings>) -> bool {
    settings.is_some_and(|settings| settings.simple == Some(SimpleLb::Passthrough))
}

/// Writes the balancer into a cluster whose endpoints are not the client's choice.
pub(crate) fn apply(to: &mut cluster::Cluster, settings: Option<&LoadBalancerSettings>) {
    let warmup = settings.and_then(slow_start);
    if let Some(hash) = settings.and_then(|settings| settings.consistent_hash.as_ref()) {
        return apply_hash(to, hash);
    }
    if let Some(utilization) = settings.and_then(|settings| settings.backend_utilization.as_ref()) {
        to.load_balancing_policy = Some(by_utilization(utilization));
        return;
    }
    match settings.and_then(|settings| settings.simple).unwrap_or_default() {
        SimpleLb::Random => to.lb_policy = LbPolicy::Random.into(),
        SimpleLb::RoundRobin => {
            to.lb_policy = LbPolicy::RoundRobin.into();
            to.lb_config = warmup.map(|warmup| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(warmup) })
            });
        }
        SimpleLb::Passthrough => to.lb_policy = LbPolicy::ClusterProvided.into(),
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            to.lb_policy = LbPolicy::LeastRequest.into();
            to.lb_config = warmup.map(|warmup| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(warmup),
                    ..Default::default()
                })
            });
        }
    }
}

/// Round robin with weights from what endpoints report of their load.
fn by_utilization(settings: &BackendUtilizationLb) -> LoadBalancingPolicy {
    let penalty = settings.error_utilization_penalty_percent;
    let policy = ClientSideWeightedRoundRobin {
        blackout_period: settings.weight_stabilization_period.map(duration),
        weight_expiration_period: settings.weight_expiration_period.map(duration),
        weight_update_period: settings.weight_update_period.map(duration),
        error_utilization_penalty: (penalty > 0).then_some(penalty as f32 / 100.0),
        metric_names_for_computing_utilization: settings.metric_names_for_computing_utilization.clone(),
        ..Default::default()
    };
    let config = TypedExtensionConfig {
        name: "envoy.load_balancing_policies.client_side_weighted_round_robin".into(),
        typed_config: Some(Any::pack(&policy)),
    };
    let policy = load_balancing_policy::Policy { typed_extension_config: Some(config) };
    LoadBalancingPolicy { policies: vec![policy] }
}

fn apply_hash(to: &mut cluster::Cluster, hash: &ConsistentHashLb) {
    if let Some(maglev) = &hash.maglev {
        to.lb_policy = LbPolicy::Maglev.into();
        let table_size = Some(maglev.table_size).filter(|size| *size > 0);
        to.lb_config =
            table_size.map(|size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(size) }));
        return;
    }
    to.lb_policy = LbPolicy::RingHash.into();
    let own = hash.ring_hash.as_ref().map(|ring| ring.minimum_ring_size);
    let size = own.unwrap_or(hash.minimum_ring_size);
    to.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: Some(if size == 0 { MINIMUM_RING } else { size }),
        ..Default::default()
    }));
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    let old = settings
        .warmup_duration_secs
        .map(|window| WarmupConfiguration { duration: Some(window), ..WarmupConfiguration::default() });
    let warmup = settings.warmup.clone().or(old)?;
    Some(SlowStartConfig {
        slow_start_window: warmup.duration.map(duration),
        aggression: warmup
            .aggression
            .map(|value| RuntimeDouble { default_value: value, runtime_key: String::new() }),
        min_weight_percent: Some(Percent { value: warmup.minimum_percent.unwrap_or(10.0) }),
    })
}

/// Lets the cluster weigh localities, where endpoints come with weights or priorities by locality.
pub(crate) fn weigh_localities(to: &mut cluster::Cluster, weighs: bool) {
    if !weighs {
        return;
    }
    let common = to.common_lb_config.get_or_insert_default();
    common.locality_config_specifier =
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}));
}

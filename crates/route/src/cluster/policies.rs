//! Load balancing policies in the form of extensions (`load_balancing_policy`), which goes before `lb_policy`.

use std::time::Duration;

use lateen_proto::Any;
use lateen_proto::envoy::config::cluster::v3::LoadBalancingPolicy;
use lateen_proto::envoy::config::core::v3::TypedExtensionConfig;
use lateen_proto::envoy::extensions::load_balancing_policies as policies;
use lateen_proto::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use lateen_proto::envoy::extensions::load_balancing_policies::common::v3 as common;

use super::ByLoad;
use super::balancing::{Chosen, LeastRequest, MAGLEV_SIZE, Policy, RING_MAX, RING_MIN, SlowStart};
use crate::error::{Cx, Result};

/// The first policy of a list that is known here, as Envoy takes it.
pub(super) fn choose(cx: &mut Cx<'_>, list: &LoadBalancingPolicy) -> Result<Chosen> {
    let mut unknown = Vec::new();
    for (index, policy) in list.policies.iter().enumerate() {
        let Some(extension) = &policy.typed_extension_config else { continue };
        let chosen =
            cx.field(format_args!("policies[{index}].typed_extension_config"), |cx| read(cx, extension))?;
        match chosen {
            Some(chosen) => return Ok(chosen),
            None => unknown.push(extension.name.as_str()),
        }
    }
    let known = "round_robin, client_side_weighted_round_robin, least_request, random, ring_hash, maglev, wrr_locality or cluster_provided";
    Err(cx.refuse_at("policies", format!("[{}] is not supported: give {known}", unknown.join(", "))))
}

/// `None` when the policy is not known.
fn read(cx: &mut Cx<'_>, extension: &TypedExtensionConfig) -> Result<Option<Chosen>> {
    let any = cx.required("typed_config", &extension.typed_config)?;
    cx.field("typed_config", |cx| read_any(cx, any))
}

fn read_any(cx: &mut Cx<'_>, any: &Any) -> Result<Option<Chosen>> {
    if any.is::<policies::round_robin::v3::RoundRobin>() {
        let message: policies::round_robin::v3::RoundRobin = cx.unpack(any)?;
        cx.check(&message)?;
        return Ok(Some(Chosen {
            policy: Policy::RoundRobin,
            locality_weighted: locality(cx, &message.locality_lb_config)?,
            slow_start: slow_start(cx, &message.slow_start_config)?,
            by_load: None,
        }));
    }
    if any.is::<policies::least_request::v3::LeastRequest>() {
        let message: policies::least_request::v3::LeastRequest = cx.unpack(any)?;
        cx.check(&message)?;
        let bias = message.active_request_bias.as_ref().map(|bias| bias.default_value);
        return Ok(Some(Chosen {
            policy: Policy::LeastRequest(LeastRequest::checked(cx, message.choice_count, bias)?),
            locality_weighted: locality(cx, &message.locality_lb_config)?,
            slow_start: slow_start(cx, &message.slow_start_config)?,
            by_load: None,
        }));
    }
    if any.is::<policies::random::v3::Random>() {
        let message: policies::random::v3::Random = cx.unpack(any)?;
        cx.check(&message)?;
        let locality_weighted = locality(cx, &message.locality_lb_config)?;
        return Ok(Some(Chosen {
            policy: Policy::Random,
            locality_weighted,
            slow_start: None,
            by_load: None,
        }));
    }
    if any.is::<policies::ring_hash::v3::RingHash>() {
        let message: policies::ring_hash::v3::RingHash = cx.unpack(any)?;
        return Ok(Some(ring_hash(cx, &message)?));
    }
    if any.is::<policies::maglev::v3::Maglev>() {
        let message: policies::maglev::v3::Maglev = cx.unpack(any)?;
        cx.check(&message)?;
        let by_hostname = hashing(cx, &message.consistent_hashing_lb_config)?;
        let size = message.table_size.unwrap_or(MAGLEV_SIZE);
        let policy = Policy::maglev(cx, "table_size", size, by_hostname)?;
        let locality_weighted = message.locality_weighted_lb_config.is_some();
        return Ok(Some(Chosen { policy, locality_weighted, slow_start: None, by_load: None }));
    }
    if any.is::<ClientSideWeightedRoundRobin>() {
        let message: ClientSideWeightedRoundRobin = cx.unpack(any)?;
        return Ok(Some(by_load(cx, &message)?));
    }
    if any.is::<policies::wrr_locality::v3::WrrLocality>() {
        let message: policies::wrr_locality::v3::WrrLocality = cx.unpack(any)?;
        cx.check(&message)?;
        let inner = cx.required("endpoint_picking_policy", &message.endpoint_picking_policy)?;
        let chosen = cx.field("endpoint_picking_policy", |cx| choose(cx, inner))?;
        return Ok(Some(Chosen { locality_weighted: true, ..chosen }));
    }
    if any.is::<policies::cluster_provided::v3::ClusterProvided>() {
        return Ok(Some(Chosen {
            policy: Policy::ClusterProvided,
            locality_weighted: false,
            slow_start: None,
            by_load: None,
        }));
    }
    Ok(None)
}

fn ring_hash(cx: &mut Cx<'_>, message: &policies::ring_hash::v3::RingHash) -> Result<Chosen> {
    use policies::ring_hash::v3::ring_hash::HashFunction;
    cx.check(message)?;
    let by_hostname = hashing(cx, &message.consistent_hashing_lb_config)?;
    let sizes =
        (message.minimum_ring_size.unwrap_or(RING_MIN), message.maximum_ring_size.unwrap_or(RING_MAX));
    let murmur = message.hash_function() == HashFunction::MurmurHash2;
    let policy = Policy::ring_hash(cx, "minimum_ring_size", sizes, by_hostname, murmur)?;
    let locality_weighted = message.locality_weighted_lb_config.is_some();
    Ok(Chosen { policy, locality_weighted, slow_start: None, by_load: None })
}

/// Turns by weights that follow from what hosts report.
fn by_load(cx: &mut Cx<'_>, message: &ClientSideWeightedRoundRobin) -> Result<Chosen> {
    cx.check(message)?;
    if message.enable_oob_load_report == Some(true) {
        return Err(cx.refuse_at("enable_oob_load_report", "is not supported: reports come with responses"));
    }
    let penalty = message.error_utilization_penalty.unwrap_or(1.0);
    if !(penalty >= 0.0 && penalty.is_finite()) {
        return Err(cx.refuse_at("error_utilization_penalty", "has to be 0 or more"));
    }
    let period = |field: &str, value, unset| Ok(cx.duration(field, value)?.unwrap_or(unset));
    let rules = ByLoad {
        blackout: period("blackout_period", &message.blackout_period, Duration::from_secs(10))?,
        expiration: period(
            "weight_expiration_period",
            &message.weight_expiration_period,
            Duration::from_secs(180),
        )?,
        update: period("weight_update_period", &message.weight_update_period, Duration::from_secs(1))?
            .max(Duration::from_millis(100)),
        error_penalty: penalty.into(),
        metrics: message.metric_names_for_computing_utilization.iter().map(|name| (&**name).into()).collect(),
    };
    Ok(Chosen {
        policy: Policy::RoundRobin,
        locality_weighted: false,
        slow_start: slow_start(cx, &message.slow_start_config)?,
        by_load: Some(rules),
    })
}

/// Whether host names are hashed.
fn hashing(cx: &mut Cx<'_>, message: &Option<common::ConsistentHashingLbConfig>) -> Result<bool> {
    let Some(message) = message else { return Ok(false) };
    cx.field("consistent_hashing_lb_config", |cx| cx.check(message))?;
    Ok(message.use_hostname_for_hashing)
}

/// Whether localities are chosen by their weights.
fn locality(cx: &mut Cx<'_>, message: &Option<common::LocalityLbConfig>) -> Result<bool> {
    use common::locality_lb_config::LocalityConfigSpecifier;
    Ok(match message.as_ref().and_then(|message| message.locality_config_specifier.as_ref()) {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            cx.note_at(
                "locality_lb_config.zone_aware_lb_config",
                "needs a local cluster, which there is not",
            );
            false
        }
        None => false,
    })
}

fn slow_start(cx: &Cx<'_>, message: &Option<common::SlowStartConfig>) -> Result<Option<SlowStart>> {
    let Some(message) = message else { return Ok(None) };
    let window = cx.duration("slow_start_config.slow_start_window", &message.slow_start_window)?;
    let aggression = message.aggression.as_ref().map(|aggression| aggression.default_value);
    let percent = message.min_weight_percent.as_ref().map(|percent| percent.value);
    SlowStart::checked(cx, "slow_start_config", window.unwrap_or_default(), aggression, percent)
}

//! Shares of many picks.

use std::collections::BTreeMap;

use super::*;
use crate::cluster::{LeastRequest, Policy, SlowStart};
use crate::endpoints::compile_endpoints;
use lateen_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_proto::json;
use serde_json::json;

struct View {
    sick: Vec<usize>,
    active: Vec<u32>,
    warm: Vec<f64>,
    weights: Vec<u32>,
}

impl HostView for View {
    fn healthy(&self, host: usize) -> bool {
        !self.sick.contains(&host)
    }

    fn active_requests(&self, host: usize) -> u32 {
        self.active.get(host).copied().unwrap_or(0)
    }

    fn weight(&self, host: usize) -> Option<u32> {
        self.weights.get(host).copied()
    }

    fn warmth(&self, host: usize, _: &SlowStart) -> Option<f64> {
        self.warm.get(host).copied()
    }
}

fn balancing(policy: Policy) -> Balancing {
    Balancing { policy, panic_threshold: 50.0, locality_weighted: false, slow_start: None, by_load: None }
}

/// Groups of (priority, locality weight, host weights).
fn assignment(groups: &[(u32, u32, &[u32])]) -> Assignment {
    let mut next = 0;
    let groups: Vec<_> = groups
        .iter()
        .map(|(priority, weight, hosts)| {
            let hosts: Vec<_> = hosts
                .iter()
                .map(|weight| {
                    next += 1;
                    let socket = json!({"address": "10.0.0.1", "portValue": next});
                    json!({"endpoint": {"address": {"socketAddress": socket}}, "loadBalancingWeight": weight})
                })
                .collect();
            json!({"priority": priority, "loadBalancingWeight": weight, "lbEndpoints": hosts})
        })
        .collect();
    let message: ClusterLoadAssignment =
        json::from_value(&json!({"clusterName": "c", "endpoints": groups})).unwrap();
    compile_endpoints(&message).unwrap().value
}

fn shares(plan: &Plan, view: &View, hash: bool) -> BTreeMap<usize, u32> {
    let mut out = BTreeMap::new();
    for turn in 0..10_000 {
        let entropy = Entropy(turn * 7919);
        let draw = Draw { entropy, turn, hash: hash.then(|| entropy.draw(99)), attempt: 0 };
        if let Some(host) = plan.pick(draw, view) {
            *out.entry(host).or_default() += 1;
        }
    }
    out
}

fn near(shares: &BTreeMap<usize, u32>, wanted: &[(usize, u32)]) {
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), wanted.iter().map(|w| w.0).collect::<Vec<_>>());
    for (host, share) in wanted {
        assert!(shares[host].abs_diff(*share) < 500, "{shares:?} {wanted:?}");
    }
}

const LEAST: Policy = Policy::LeastRequest(LeastRequest { choices: 2, bias: 1.0 });

const IDLE: View = View { sick: vec![], active: vec![], warm: vec![], weights: vec![] };

#[test]
fn weights_are_obeyed_by_every_policy() {
    let hosts = assignment(&[(0, 1, &[1, 3])]);
    for policy in [
        Policy::RoundRobin,
        LEAST,
        Policy::RingHash { min_size: 1024, max_size: 8 << 20, by_hostname: false, murmur: false },
        Policy::Maglev { size: 65537, by_hostname: false },
    ] {
        let plan = Plan::new(&hosts, &balancing(policy), &IDLE);
        let hashed = matches!(policy, Policy::RingHash { .. } | Policy::Maglev { .. });
        near(&shares(&plan, &IDLE, hashed), &[(0, 2500), (1, 7500)]);
    }
}

#[test]
fn round_robin_takes_turns() {
    let plan = Plan::new(&assignment(&[(0, 1, &[1, 1, 1])]), &balancing(Policy::RoundRobin), &IDLE);
    let turns: Vec<_> =
        (0..4).map(|turn| plan.pick(Draw { turn, ..Draw::default() }, &IDLE).unwrap()).collect();
    assert_eq!(turns, [0, 1, 2, 0]);
}

#[test]
fn the_least_busy_is_preferred() {
    let busy = View { sick: vec![], active: vec![100, 0], ..IDLE };
    let plan = Plan::new(&assignment(&[(0, 1, &[1, 1])]), &balancing(LEAST), &busy);
    near(&shares(&plan, &busy, false), &[(0, 2500), (1, 7500)]);
}

#[test]
fn a_priority_that_loses_hosts_shares_with_the_next() {
    let hosts = assignment(&[(0, 1, &[1, 1]), (1, 1, &[1, 1])]);
    let mut view = View { sick: vec![0], active: vec![], ..IDLE };
    // Half of the hosts, times 1.4, is 70 %.
    let plan = Plan::new(&hosts, &balancing(Policy::RoundRobin), &view);
    near(&shares(&plan, &view, false), &[(1, 7000), (2, 1500), (3, 1500)]);
    view.sick = vec![0, 1];
    let plan = Plan::new(&hosts, &balancing(Policy::RoundRobin), &view);
    near(&shares(&plan, &view, false), &[(2, 5000), (3, 5000)]);
}

#[test]
fn panic_uses_everybody_unless_it_is_off() {
    let hosts = assignment(&[(0, 1, &[1, 1, 1, 1])]);
    let view = View { sick: vec![0, 1, 2], active: vec![], ..IDLE };
    let mut settings = balancing(Policy::RoundRobin);
    let plan = Plan::new(&hosts, &settings, &view);
    assert!(plan.in_panic());
    near(&shares(&plan, &view, false), &[(0, 2500), (1, 2500), (2, 2500), (3, 2500)]);
    settings.panic_threshold = 0.0;
    near(&shares(&Plan::new(&hosts, &settings, &view), &view, false), &[(3, 10_000)]);
    let dead = View { sick: vec![0, 1, 2, 3], active: vec![], ..IDLE };
    assert!(Plan::new(&hosts, &settings, &dead).is_empty());
}

#[test]
fn localities_are_weighted_when_asked() {
    let hosts = assignment(&[(0, 80, &[1, 1]), (0, 20, &[1])]);
    let settings = Balancing { locality_weighted: true, ..balancing(Policy::RoundRobin) };
    let plan = Plan::new(&hosts, &settings, &IDLE);
    near(&shares(&plan, &IDLE, false), &[(0, 4000), (1, 4000), (2, 2000)]);
}

#[test]
fn nothing_to_pick_is_no_panic() {
    let plan = Plan::new(&Assignment::empty("c"), &balancing(Policy::RoundRobin), &IDLE);
    assert!(plan.is_empty() && plan.pick(Draw::default(), &IDLE).is_none());
}

#[test]
fn chance_alone_takes_no_account_of_weights() {
    let plan = Plan::new(&assignment(&[(0, 1, &[1, 3])]), &balancing(Policy::Random), &IDLE);
    near(&shares(&plan, &IDLE, false), &[(0, 5000), (1, 5000)]);
}

#[test]
fn weights_that_are_found_at_run_time_go_before_the_assignments() {
    let view = View { weights: vec![1, 3], ..IDLE };
    let plan = Plan::new(&assignment(&[(0, 1, &[5, 1])]), &balancing(Policy::RoundRobin), &view);
    near(&shares(&plan, &view, false), &[(0, 2500), (1, 7500)]);
}

#[test]
fn a_new_host_gets_its_share_by_and_by() {
    let slow = SlowStart { window: std::time::Duration::from_secs(60), aggression: 1.0, min_share: 0.1 };
    let view = View { warm: vec![1.0, 0.25], ..IDLE };
    for policy in [Policy::RoundRobin, LEAST] {
        let settings = Balancing { slow_start: Some(slow), ..balancing(policy) };
        let plan = Plan::new(&assignment(&[(0, 1, &[1, 1])]), &settings, &view);
        near(&shares(&plan, &view, false), &[(0, 8000), (1, 2000)]);
    }
    let second = std::time::Duration::from_secs(1);
    assert!((slow.factor(second * 30) - 0.5).abs() < 1e-9 && (slow.factor(second) - 0.1).abs() < 1e-9);
    let keen = SlowStart { aggression: 2.0, ..slow };
    assert!((keen.factor(second * 15) - 0.5).abs() < 1e-9);
}

#[test]
fn priorities_that_were_tried_are_left_out() {
    let hosts = assignment(&[(0, 1, &[1]), (1, 1, &[1]), (2, 1, &[1])]);
    let settings = balancing(Policy::RoundRobin);
    let without = |priorities: &[usize]| Plan::without(&hosts, &settings, &IDLE, priorities);
    near(&shares(&without(&[]), &IDLE, false), &[(0, 10_000)]);
    near(&shares(&without(&[0]), &IDLE, false), &[(1, 10_000)]);
    near(&shares(&without(&[0, 1]), &IDLE, false), &[(2, 10_000)]);
    near(&shares(&without(&[0, 1, 2]), &IDLE, false), &[(0, 10_000)]);
}

#[test]
fn localities_of_a_ring_share_one_ring() {
    let hosts = assignment(&[(0, 75, &[1, 1]), (0, 25, &[1])]);
    let policy = Policy::RingHash { min_size: 1024, max_size: 8 << 20, by_hostname: false, murmur: true };
    let settings = Balancing { locality_weighted: true, ..balancing(policy) };
    near(&shares(&Plan::new(&hosts, &settings, &IDLE), &IDLE, true), &[(0, 3750), (1, 3750), (2, 2500)]);
}

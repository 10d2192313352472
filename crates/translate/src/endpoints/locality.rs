//! Which localities a client prefers: weights by `distribute`, priorities by failover.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lateen_api::kinds::destination_rule::{LoadBalancerSettings, LocalityDistribute, LocalityLbSetting};
use lateen_api::mesh::MeshConfig;
use lateen_base::{Labels, Locality};
use lateen_proto::envoy::config::endpoint::v3::LocalityLbEndpoints;

use super::group::{Group, Member, into_message};

const NETWORK: &str = "topology.istio.io/network";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const NODE: &str = "kubernetes.io/hostname";

/// The client, as far as localities go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    /// Where it runs.
    pub(crate) locality: Locality,
    /// Its labels, with where it is among them.
    pub(crate) labels: Labels,
}

/// What holds for a cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules<'a> {
    /// The setting.
    setting: Cow<'a, LocalityLbSetting>,
    /// Whether endpoints of lower priority take over when those of higher fail.
    failover: bool,
}

impl<'a> Rules<'a> {
    /// The rules that hold: the destination rule's, the service's wish, the mesh's. Without outlier detection nothing
    /// would ever be found failing, so there is no failover then, but for what a service wishes.
    pub(crate) fn of(
        balancer: Option<&'a LoadBalancerSettings>,
        distribution: Option<&str>,
        mesh: &'a MeshConfig,
        outlier: bool,
    ) -> Option<Self> {
        let own = balancer.and_then(|settings| settings.locality_lb_setting.as_ref());
        if let Some(own) = own {
            let on = own.enabled.unwrap_or(true);
            return on.then_some(Self { setting: Cow::Borrowed(own), failover: outlier });
        }
        if let Some(failover_priority) = distribution.and_then(wished) {
            let setting = LocalityLbSetting { failover_priority, ..LocalityLbSetting::default() };
            return Some(Self { setting: Cow::Owned(setting), failover: true });
        }
        let mesh = mesh.locality_lb_setting.as_ref()?;
        let on = mesh.enabled.unwrap_or(true);
        on.then_some(Self { setting: Cow::Borrowed(mesh), failover: outlier })
    }

    /// Whether localities have weights or priorities at all.
    pub(crate) fn weighs(&self) -> bool {
        self.failover || !self.setting.distribute.is_empty()
    }
}

/// The labels that a service's wish compares, most telling last.
fn wished(distribution: &str) -> Option<Vec<String>> {
    let labels: &[&str] = match distribution.to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => &[NETWORK, REGION, ZONE],
        "prefersamenode" => &[NETWORK, REGION, ZONE, SUBZONE, NODE],
        _ => return None,
    };
    Some(labels.iter().map(|label| (*label).to_owned()).collect())
}

/// Gives localities weights or priorities for a client.
pub(crate) fn arrange(
    groups: Vec<Group>,
    client: &Client,
    rules: Option<&Rules<'_>>,
) -> Vec<LocalityLbEndpoints> {
    let Some(rules) = rules else { return plain(groups) };
    let setting = &rules.setting;
    let from = |entry: &&LocalityDistribute| covers(&entry.from, &client.locality);
    if let Some(distribute) = setting.distribute.iter().find(from) {
        return distributed(groups, distribute);
    }
    if !rules.failover || !setting.distribute.is_empty() {
        return plain(groups);
    }
    if !setting.failover_priority.is_empty() {
        return by_labels(groups, client, &setting.failover_priority);
    }
    if client.locality.is_empty() {
        return plain(groups);
    }
    let ranked = groups.into_iter().map(|group| (rank(&client.locality, &group.locality, setting), group));
    compacted(ranked.collect())
}

fn plain(groups: Vec<Group>) -> Vec<LocalityLbEndpoints> {
    groups.into_iter().map(|group| into_message(group, 0)).collect()
}

/// Whether a rule such as `region/zone/*` covers a locality; parts that are not said are any.
fn covers(rule: &str, locality: &Locality) -> bool {
    if rule == "*" {
        return true;
    }
    let own = [locality.region.as_str(), &locality.zone, &locality.subzone];
    for (wanted, own) in rule.split('/').zip(own) {
        match wanted {
            "*" => return true,
            wanted if wanted == own => {}
            _ => return false,
        }
    }
    true
}

/// Localities weighted as the rule says; those that it does not name get nothing.
fn distributed(groups: Vec<Group>, rule: &LocalityDistribute) -> Vec<LocalityLbEndpoints> {
    let mut messages: BTreeMap<usize, LocalityLbEndpoints> = BTreeMap::new();
    // The most telling destinations first, so that a wildcard takes what they leave.
    let mut targets: Vec<(&String, &u32)> = rule.to.iter().collect();
    targets.sort_by_key(|(to, _)| (to.contains('*'), std::cmp::Reverse(to.matches('/').count())));
    for (to, share) in targets {
        let matched: Vec<usize> = (0..groups.len())
            .filter(|at| !messages.contains_key(at) && covers(to, &groups[*at].locality))
            .collect();
        let weight = |at: usize| groups[at].members.iter().map(|m| u64::from(m.weight)).sum::<u64>();
        let total: u64 = matched.iter().map(|at| weight(*at)).sum();
        for at in matched {
            let mut message = into_message(groups[at].clone(), 0);
            let share = (weight(at) * u64::from(*share)).div_ceil(total.max(1));
            message.load_balancing_weight = Some(u32::try_from(share).unwrap_or(u32::MAX).max(1));
            messages.insert(at, message);
        }
    }
    messages.into_values().collect()
}

/// How far a locality is from the client: 0 the same, 1 the zone, 2 the region, 3 others or the region that is to
/// take over, 4 regions that are not to.
fn rank(client: &Locality, other: &Locality, setting: &LocalityLbSetting) -> u32 {
    if client.region == other.region {
        return match (client.zone == other.zone, client.subzone == other.subzone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    let takeover = setting.failover.iter().find(|entry| entry.from == client.region);
    match takeover {
        Some(entry) if entry.to != other.region => 4,
        _ => 3,
    }
}

/// Endpoints ranked by the first label in which they differ from the client.
fn by_labels(groups: Vec<Group>, client: &Client, labels: &[String]) -> Vec<LocalityLbEndpoints> {
    let mut ranked: Vec<(u32, Group)> = Vec::new();
    for group in groups {
        let mut split: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
        for member in group.members {
            split.entry(label_rank(&member.labels, client, labels)).or_default().push(member);
        }
        let locality = group.locality;
        ranked.extend(
            split.into_iter().map(|(rank, members)| (rank, Group { locality: locality.clone(), members })),
        );
    }
    compacted(ranked)
}

/// 0 when all labels agree, the number of labels when the first one differs already. `label=value` gives the value to
/// compare with in the place of the client's own.
fn label_rank(own: &Labels, client: &Client, labels: &[String]) -> u32 {
    let differs = |label: &String| {
        let (key, wanted) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (label.as_str(), client.labels.value(label)),
        };
        // A client that does not know its own network is in any.
        (key != NETWORK || wanted.is_some()) && own.value(key).unwrap_or("") != wanted.unwrap_or("")
    };
    let agreeing = labels.iter().position(differs).unwrap_or(labels.len());
    (labels.len() - agreeing) as u32
}

/// Ranks as priorities without gaps, in the order of priority.
fn compacted(ranked: Vec<(u32, Group)>) -> Vec<LocalityLbEndpoints> {
    let distinct: std::collections::BTreeSet<u32> = ranked.iter().map(|(rank, _)| *rank).collect();
    let priorities: BTreeMap<u32, u32> = distinct.into_iter().zip(0..).collect();
    let mut messages: Vec<LocalityLbEndpoints> =
        ranked.into_iter().map(|(rank, group)| into_message(group, priorities[&rank])).collect();
    messages.sort_by_key(|message| message.priority);
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_api::kinds::destination_rule::LocalityFailover;

    fn group(locality: &str, weights: &[u32]) -> Group {
        let member =
            |weight: &u32| Member { labels: Labels::default(), weight: *weight, message: Default::default() };
        Group { locality: locality.parse().unwrap(), members: weights.iter().map(member).collect() }
    }

    fn client(locality: &str) -> Client {
        Client { locality: locality.parse().unwrap(), labels: Labels::default() }
    }

    fn summary(messages: &[LocalityLbEndpoints]) -> Vec<(String, u32, u32)> {
        let name = |m: &LocalityLbEndpoints| {
            let l = m.locality.clone().unwrap_or_default();
            format!("{}/{}/{}", l.region, l.zone, l.sub_zone)
        };
        messages.iter().map(|m| (name(m), m.priority, m.load_balancing_weight.unwrap_or(0))).collect()
    }

    #[test]
    fn failover_ranks_by_distance_and_leaves_no_gaps() {
        let groups =
            vec![group("a/x/1", &[1]), group("a/y/1", &[1]), group("b/x/1", &[1]), group("c/x/1", &[1])];
        let failover = vec![LocalityFailover { from: "a".into(), to: "c".into() }];
        let setting = LocalityLbSetting { failover, ..Default::default() };
        let rules = Rules { setting: Cow::Owned(setting), failover: true };
        let messages = arrange(groups, &client("a/x/1"), Some(&rules));
        let order: Vec<(String, u32)> = summary(&messages).into_iter().map(|(l, p, _)| (l, p)).collect();
        let want = [("a/x/1", 0), ("a/y/1", 1), ("c/x/1", 2), ("b/x/1", 3)];
        assert_eq!(order, want.map(|(l, p)| (l.to_owned(), p)));
    }

    #[test]
    fn distribution_weighs_and_drops() {
        let groups = vec![group("a/x/1", &[1, 1]), group("a/y/1", &[2]), group("b/x/1", &[1])];
        let to = BTreeMap::from([("a/x/*".to_owned(), 80), ("a/*".to_owned(), 20)]);
        let distribute = vec![LocalityDistribute { from: "a/x/*".into(), to }];
        let setting = LocalityLbSetting { distribute, ..Default::default() };
        let rules = Rules { setting: Cow::Owned(setting), failover: false };
        let messages = arrange(groups, &client("a/x/9"), Some(&rules));
        assert_eq!(
            summary(&messages),
            [("a/x/1/".trim_end_matches('/').to_owned(), 0, 80), ("a/y/1".to_owned(), 0, 20)]
        );
    }

    #[test]
    fn labels_rank_by_the_first_difference() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Labels>();
        let client = Client { locality: Locality::default(), labels: labels(&[("a", "1"), ("b", "2")]) };
        let order = ["a".to_owned(), "b".to_owned()];
        let rank = |pairs: &[(&str, &str)]| label_rank(&labels(pairs), &client, &order);
        assert_eq!(rank(&[("a", "1"), ("b", "2")]), 0);
        assert_eq!(rank(&[("a", "1")]), 1);
        assert_eq!(rank(&[("b", "2")]), 2);
        assert_eq!(label_rank(&labels(&[("a", "9")]), &client, &["a=9".to_owned()]), 0);
    }
}

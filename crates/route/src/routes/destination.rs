//! Which cluster a request goes to.

use std::sync::Arc;

use lateen_proto::envoy::config::route::v3 as proto;
use lateen_proto::envoy::config::route::v3::route_action::ClusterSpecifier;

use super::changes::{Changes, changes};
use crate::entropy::Entropy;
use crate::error::{Cx, Result};
use crate::request::RequestView;

/// Where a route forwards to.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A cluster.
    Cluster(Arc<str>),
    /// One of several clusters, by chance.
    Weighted {
        /// The clusters; those of weight 0 are never picked.
        clusters: Box<[WeightedCluster]>,
        /// The sum of the weights, at least 1.
        total: u64,
        /// A header whose number decides instead of chance.
        header: Option<http::HeaderName>,
    },
    /// The cluster that a request header names.
    Header(http::HeaderName),
}

/// One of several clusters.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    /// Its name.
    pub name: Arc<str>,
    /// Its weight.
    pub weight: u32,
    /// What it changes.
    pub changes: Changes,
    /// A host header in place of the request's.
    pub host_rewrite: Option<Arc<str>>,
}

/// A cluster that was picked.
#[derive(Clone, Copy, Debug)]
pub struct ClusterPick<'t> {
    /// Its name.
    pub name: &'t str,
    /// What holds for it alone.
    pub weighted: Option<&'t WeightedCluster>,
}

const SALT: u64 = 0x77_6569_6768;

impl Destination {
    /// The cluster for a request; `None` when a header has to name it and does not.
    #[inline]
    pub fn pick<'t>(&'t self, request: &RequestView<'t>, entropy: Entropy) -> Option<ClusterPick<'t>> {
        match self {
            Self::Cluster(name) => Some(ClusterPick { name, weighted: None }),
            Self::Header(name) => {
                let value = request.headers.get(name)?.to_str().ok()?;
                (!value.is_empty()).then_some(ClusterPick { name: value, weighted: None })
            }
            Self::Weighted { clusters, total, header } => {
                let given = header.as_ref().and_then(|name| request.headers.get(name));
                let given = given.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
                let mut left = given.unwrap_or_else(|| entropy.draw(SALT)) % total;
                for cluster in clusters {
                    let weight = u64::from(cluster.weight);
                    if left < weight {
                        return Some(ClusterPick { name: &cluster.name, weighted: Some(cluster) });
                    }
                    left -= weight;
                }
                None
            }
        }
    }

    /// Every cluster it may pick, where configuration names them.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let (one, many) = match self {
            Self::Cluster(name) => (Some(name), &[][..]),
            Self::Weighted { clusters, .. } => (None, &clusters[..]),
            Self::Header(_) => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().map(|cluster| &cluster.name))
    }

    pub(super) fn compile(cx: &mut Cx<'_>, specifier: &ClusterSpecifier) -> Result<Self> {
        Ok(match specifier {
            ClusterSpecifier::Cluster(name) if name.is_empty() => {
                return Err(cx.refuse_at("cluster", "must not be empty"));
            }
            ClusterSpecifier::Cluster(name) => Self::Cluster(name.as_str().into()),
            ClusterSpecifier::ClusterHeader(name) => Self::Header(cx.header_name("cluster_header", name)?),
            ClusterSpecifier::WeightedClusters(weighted) => {
                cx.field("weighted_clusters", |cx| Self::compile_weighted(cx, weighted))?
            }
            ClusterSpecifier::ClusterSpecifierPlugin(_)
            | ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
                return Err(cx.refuse("cluster specifier plugins are not supported"));
            }
        })
    }

    fn compile_weighted(cx: &mut Cx<'_>, message: &proto::WeightedCluster) -> Result<Self> {
        use proto::weighted_cluster::RandomValueSpecifier;
        cx.check(message)?;
        let clusters = cx.each("clusters", &message.clusters, WeightedCluster::compile)?;
        let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
        if total == 0 || total > u64::from(u32::MAX) {
            return Err(cx.refuse_at(
                "clusters",
                format!("the weights add up to {total}: 1 to 4294967295 is allowed"),
            ));
        }
        let header = match &message.random_value_specifier {
            None => None,
            Some(RandomValueSpecifier::HeaderName(name)) => Some(cx.header_name("header_name", name)?),
            Some(RandomValueSpecifier::UseHashPolicy(false)) => None,
            Some(RandomValueSpecifier::UseHashPolicy(true)) => {
                return Err(cx.refuse_at("use_hash_policy", "is not supported"));
            }
        };
        Ok(Self::Weighted { clusters: clusters.into(), total, header })
    }
}

impl WeightedCluster {
    fn compile(cx: &mut Cx<'_>, message: &proto::weighted_cluster::ClusterWeight) -> Result<Self> {
        use proto::weighted_cluster::cluster_weight::HostRewriteSpecifier;
        cx.check(message)?;
        if message.name.is_empty() {
            return Err(cx.refuse_at("name", "must not be empty"));
        }
        Ok(Self {
            name: message.name.as_str().into(),
            weight: message.weight.unwrap_or(0),
            changes: changes!(cx, message)?,
            host_rewrite: message
                .host_rewrite_specifier
                .as_ref()
                .map(|HostRewriteSpecifier::HostRewriteLiteral(host)| host.as_str().into()),
        })
    }
}

/// Names with weights, as a TCP proxy has them.
#[derive(Clone, Debug)]
pub struct WeightedNames {
    names: Box<[(Arc<str>, u64)]>,
    total: u64,
}

impl WeightedNames {
    /// One name by chance.
    pub fn pick(&self, entropy: Entropy) -> &Arc<str> {
        let mut left = if self.names.len() == 1 { 0 } else { entropy.draw(SALT) % self.total };
        for (name, weight) in &self.names {
            if left < *weight {
                return name;
            }
            left -= weight;
        }
        // The weights add up to the total, so one of them was taken above.
        &self.names[0].0
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter().map(|(name, _)| name)
    }

    pub(crate) fn single(name: &str) -> Self {
        Self { names: Box::new([(name.into(), 1)]), total: 1 }
    }

    pub(crate) fn of<'n>(pairs: impl Iterator<Item = (&'n str, u32)>) -> Result<Self, String> {
        let names: Box<[(Arc<str>, u64)]> =
            pairs.map(|(name, weight)| (name.into(), u64::from(weight))).collect();
        let total = names.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return Err("the weights add up to 0".to_owned());
        }
        Ok(Self { names, total })
    }
}

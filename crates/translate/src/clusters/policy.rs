//! The traffic policy that holds at a port: the mesh's under the rule's under the subset's.

use lateen_api::kinds::destination_rule::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, ProxyProtocol,
    RetryBudget, TrafficPolicy,
};
use lateen_api::mesh::MeshConfig;

/// The settings that hold at one port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// How endpoints are chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// How many connections and requests.
    pub pool: Option<ConnectionPoolSettings>,
    /// When endpoints are given a rest.
    pub outlier: Option<OutlierDetection>,
    /// How connections are secured.
    pub tls: Option<ClientTlsSettings>,
    /// Whether endpoints are told of the client by the PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many requests may be retries.
    pub retry_budget: Option<RetryBudget>,
}

impl Policy {
    /// What a rule and a subset of it say for a port.
    pub fn at(rule: Option<&TrafficPolicy>, subset: Option<&TrafficPolicy>, port: u16) -> Self {
        let mut policy = Self::default();
        for layer in rule.into_iter().chain(subset) {
            policy.overlay(layer, port);
        }
        policy
    }

    /// Fills in what the mesh says for all that say nothing.
    #[must_use]
    pub fn or_mesh(mut self, mesh: &MeshConfig) -> Self {
        if let Some(default) = &mesh.default_traffic_policy {
            self.pool = self.pool.or_else(|| default.connection_pool.clone());
            self.outlier = self.outlier.or_else(|| default.outlier_detection.clone());
        }
        self
    }

    /// What a layer sets takes the place of what is below; settings of a port take the place of all settings, so
    /// that what they leave out is unset.
    fn overlay(&mut self, layer: &TrafficPolicy, port: u16) {
        fn take<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        take(&mut self.load_balancer, &layer.load_balancer);
        take(&mut self.pool, &layer.connection_pool);
        take(&mut self.outlier, &layer.outlier_detection);
        take(&mut self.tls, &layer.tls);
        take(&mut self.proxy_protocol, &layer.proxy_protocol);
        take(&mut self.retry_budget, &layer.retry_budget);
        let of_port = layer
            .port_level_settings
            .iter()
            .find(|settings| settings.port.as_ref().is_some_and(|p| p.number == u32::from(port)));
        if let Some(settings) = of_port {
            self.load_balancer.clone_from(&settings.load_balancer);
            self.pool.clone_from(&settings.connection_pool);
            self.outlier.clone_from(&settings.outlier_detection);
            self.tls.clone_from(&settings.tls);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: serde_json::Value) -> TrafficPolicy {
        lateen_api::field::read(&json).unwrap()
    }

    #[test]
    fn settings_of_a_port_inherit_nothing() {
        let rule = policy(serde_json::json!({
            "loadBalancer": {"simple": "ROUND_ROBIN"}, "outlierDetection": {"consecutive5xxErrors": 20},
        }));
        let subset = policy(serde_json::json!({
            "connectionPool": {"http": {"maxRetries": 10}},
            "portLevelSettings": [{"port": {"number": 8080}, "outlierDetection": {"consecutive5xxErrors": 13}}],
        }));
        let at_8080 = Policy::at(Some(&rule), Some(&subset), 8080);
        assert!(at_8080.load_balancer.is_none() && at_8080.pool.is_none());
        assert_eq!(at_8080.outlier.unwrap().consecutive_5xx_errors, Some(13));
        let at_80 = Policy::at(Some(&rule), Some(&subset), 80);
        assert!(at_80.load_balancer.is_some() && at_80.pool.is_some());
        assert_eq!(at_80.outlier.unwrap().consecutive_5xx_errors, Some(20));
    }
}

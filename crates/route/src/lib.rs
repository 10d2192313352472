//! Envoy v3 resources compiled to decision tables: filter chain, virtual host, route, policy, endpoint.

//! `EnvoyFilter`: patches of what is generated for Envoy.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::rules::{PORT, count, part, text};
use super::selector::{PolicyTargetReference, WorkloadSelector};
use crate::field::{enumeration, message};

message! {
    /// Patches of what is generated for Envoy. See https://istio.io/docs/reference/config/networking/envoy-filter/.
    pub struct EnvoyFilter [Cel {
        rule: "(has(self.workloadSelector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
        message: "only one of targetRefs or workloadSelector can be set",
        holds: |value| count(value, &["workload_selector", "target_refs"]) <= 1,
    }] {
        /// The workloads it is for; all of the namespace when absent.
        workload_selector: Option<WorkloadSelector>,
        /// The objects it is attached to.
        target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// The patches, in order.
        config_patches: Vec<EnvoyConfigObjectPatch>,
        /// Its place among the filters of a namespace: lower comes first.
        priority: i32,
    }
}

message! {
    /// A patch with its place.
    pub struct EnvoyConfigObjectPatch {
        /// What is patched.
        apply_to: ApplyTo,
        /// Which of them.
        r#match: Option<EnvoyConfigObjectMatch>,
        /// The patch.
        patch: Option<Patch>,
    }
}

enumeration! {
    /// What is patched.
    pub enum ApplyTo {
        /// Nothing was said.
        Invalid = "INVALID" 0,
        /// A listener.
        Listener = "LISTENER" 1,
        /// A filter chain.
        FilterChain = "FILTER_CHAIN" 2,
        /// A network filter.
        NetworkFilter = "NETWORK_FILTER" 3,
        /// An HTTP filter.
        HttpFilter = "HTTP_FILTER" 4,
        /// A route configuration.
        RouteConfiguration = "ROUTE_CONFIGURATION" 5,
        /// A virtual host.
        VirtualHost = "VIRTUAL_HOST" 6,
        /// A route.
        HttpRoute = "HTTP_ROUTE" 7,
        /// A cluster.
        Cluster = "CLUSTER" 8,
        /// An extension configuration.
        ExtensionConfig = "EXTENSION_CONFIG" 9,
        /// The bootstrap.
        Bootstrap = "BOOTSTRAP" 10,
        /// A listener filter.
        ListenerFilter = "LISTENER_FILTER" 11,
    }
}

enumeration! {
    /// Where a patch applies.
    pub enum PatchContext {
        /// Everywhere.
        Any = "ANY" 0,
        /// To a sidecar's inbound side.
        SidecarInbound = "SIDECAR_INBOUND" 1,
        /// To a sidecar's outbound side.
        SidecarOutbound = "SIDECAR_OUTBOUND" 2,
        /// To gateways.
        Gateway = "GATEWAY" 3,
        /// To waypoints.
        Waypoint = "WAYPOINT" 4,
    }
}

message! {
    /// Which objects are patched.
    pub struct EnvoyConfigObjectMatch [
        OneOf(&["listener", "route_configuration", "cluster", "waypoint"]),
        Cel {
            rule: "has(self.context) ? ((self.context == \"WAYPOINT\") ? has(self.waypoint) : !has(self.waypoint)) : !has(self.waypoint)",
            message: "only support waypointMatch when context is WAYPOINT",
            holds: |value| (text(value, "context") == "WAYPOINT") == part(value, "waypoint").is_some(),
        },
    ] {
        /// Where.
        context: PatchContext,
        /// Of which proxies.
        proxy: Option<ProxyMatch>,
        /// Which listeners.
        listener: Option<ListenerMatch>,
        /// Which route configurations.
        route_configuration: Option<RouteConfigurationMatch>,
        /// Which clusters.
        cluster: Option<ClusterMatch>,
        /// Which parts of a waypoint.
        waypoint: Option<WaypointMatch>,
    }
}

message! {
    /// Which proxies.
    pub struct ProxyMatch {
        /// A regular expression of the proxy's version.
        proxy_version: String,
        /// Node metadata, exactly.
        metadata: BTreeMap<String, String>,
    }
}

message! {
    /// Which clusters; all conditions have to hold.
    pub struct ClusterMatch {
        /// The service's port.
        port_number: u32,
        /// The service's full name.
        service: String,
        /// The subset.
        subset: String,
        /// The cluster's name.
        name: String,
    }
}

message! {
    /// Which route configurations; all conditions have to hold.
    pub struct RouteConfigurationMatch {
        /// The port.
        port_number: u32,
        /// The port's name, of gateways.
        port_name: String,
        /// The gateway, as namespace/name.
        gateway: String,
        /// Which virtual hosts.
        vhost: Option<VirtualHostMatch>,
        /// The route configuration's name.
        name: String,
    }
}

message! {
    /// Which virtual hosts.
    pub struct VirtualHostMatch {
        /// The name, such as `host:80`.
        name: String,
        /// One of the domains.
        domain_name: String,
        /// Which routes.
        route: Option<RouteMatch>,
    }
}

message! {
    /// Which routes.
    pub struct RouteMatch {
        /// The name.
        name: String,
        /// What they do.
        action: RouteAction,
    }
}

enumeration! {
    /// What a route does.
    pub enum RouteAction {
        /// Anything.
        Any = "ANY" 0,
        /// It forwards.
        Route = "ROUTE" 1,
        /// It redirects.
        Redirect = "REDIRECT" 2,
        /// It answers.
        DirectResponse = "DIRECT_RESPONSE" 3,
    }
}

message! {
    /// Which listeners; all conditions have to hold.
    pub struct ListenerMatch {
        /// The port.
        port_number: u32,
        /// Not in use.
        port_name: String,
        /// Which filter chains.
        filter_chain: Option<FilterChainMatch>,
        /// Which listener filters.
        listener_filter: String,
        /// The name.
        name: String,
    }
}

message! {
    /// Which filter chains; all conditions have to hold.
    pub struct FilterChainMatch {
        /// The name.
        name: String,
        /// The SNI of its match.
        sni: String,
        /// The transport protocol of its match.
        transport_protocol: String,
        /// The application protocols of its match, separated by commas.
        application_protocols: String,
        /// Which network filters.
        filter: Option<FilterMatch>,
        /// The destination port of its match.
        destination_port: u32,
        /// The name of its transport socket.
        transport_socket: String,
    }
}

message! {
    /// Which network filters.
    pub struct FilterMatch {
        /// The name.
        name: String,
        /// Which filter inside.
        sub_filter: Option<SubFilterMatch>,
    }
}

message! {
    /// Which filter inside a network filter.
    pub struct SubFilterMatch {
        /// The name.
        name: String,
    }
}

message! {
    /// Which parts of a waypoint.
    pub struct WaypointMatch {
        /// Which network filters.
        filter: Option<FilterMatch>,
        /// The service's port.
        port_number: u32 [PORT],
        /// Which routes.
        route: Option<WaypointRouteMatch>,
    }
}

message! {
    /// Which routes of a waypoint.
    pub struct WaypointRouteMatch {
        /// The name.
        name: String,
    }
}

message! {
    /// A patch.
    pub struct Patch {
        /// What is done.
        operation: PatchOperation,
        /// The JSON of the Envoy object.
        value: Option<Map<String, Value>>,
        /// Where an added HTTP filter goes.
        filter_class: FilterClass,
    }
}

enumeration! {
    /// What a patch does.
    pub enum PatchOperation {
        /// Nothing was said.
        Invalid = "INVALID" 0,
        /// Merges the value, as protobuf does.
        Merge = "MERGE" 1,
        /// Adds the value to the list.
        Add = "ADD" 2,
        /// Removes the object.
        Remove = "REMOVE" 3,
        /// Inserts the value before the object.
        InsertBefore = "INSERT_BEFORE" 4,
        /// Inserts the value after the object.
        InsertAfter = "INSERT_AFTER" 5,
        /// Inserts the value at the beginning of the list.
        InsertFirst = "INSERT_FIRST" 6,
        /// Puts the value in the place of the object.
        Replace = "REPLACE" 7,
        /// Merges the value, and replaces its lists.
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST" 8,
    }
}

enumeration! {
    /// The place of an HTTP filter.
    pub enum FilterClass {
        /// As the operation says.
        Unspecified = "UNSPECIFIED" 0,
        /// After authentication.
        Authn = "AUTHN" 1,
        /// After authorization.
        Authz = "AUTHZ" 2,
        /// Before statistics.
        Stats = "STATS" 3,
    }
}

//! `VirtualService`: how requests for a host are routed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rules::DURATION;
use crate::field::{Base64, enumeration, message, oneof};

message! {
    /// How requests for hosts are routed. See https://istio.io/docs/reference/config/networking/virtual-service/.
    pub struct VirtualService {
        /// The hosts that traffic is sent to: names, short names, or with a leading wildcard.
        hosts: Vec<String>,
        /// The gateways and sidecars (`mesh`) that apply the routes; without any, the sidecars.
        gateways: Vec<String>,
        /// Ordered routes of HTTP traffic; the first that matches is taken.
        http: Vec<HttpRoute>,
        /// Ordered routes of TLS traffic that is passed through, by SNI.
        tls: Vec<TlsRoute>,
        /// Ordered routes of opaque TCP traffic.
        tcp: Vec<TcpRoute>,
        /// The namespaces the service is visible to: names, `.` for its own, `*` for all.
        export_to: Vec<String>,
    }
}

message! {
    /// A route of HTTP traffic.
    pub struct HttpRoute {
        /// A name, for logs and for debugging.
        name: String,
        /// Conditions, of which one suffices.
        r#match: Vec<HttpMatchRequest>,
        /// Where requests go, by weight.
        route: Vec<HttpRouteDestination>,
        /// An HTTP redirect in the place of a destination.
        redirect: Option<HttpRedirect>,
        /// A fixed response in the place of a destination.
        direct_response: Option<HttpDirectResponse>,
        /// Another virtual service that refines the route.
        delegate: Option<Delegate>,
        /// Changes of path and authority before forwarding.
        rewrite: Option<HttpRewrite>,
        /// How long the whole request may take; absent or zero means without limit.
        timeout: Option<Duration> [DURATION],
        /// How failed requests are tried again.
        retries: Option<HttpRetry>,
        /// Faults to inject on the way.
        fault: Option<HttpFaultInjection>,
        /// A destination that gets a copy of the requests.
        mirror: Option<Destination>,
        /// Destinations that get copies of the requests.
        mirrors: Vec<HttpMirrorPolicy>,
        /// Old form of mirrorPercentage.
        mirror_percent: Option<u32> [SnakeCaseToo, Nullable],
        /// How many of the requests are mirrored; all when absent.
        mirror_percentage: Option<Percent>,
        /// Cross-origin resource sharing.
        cors_policy: Option<CorsPolicy>,
        /// Changes of headers.
        headers: Option<Headers>,
    }
}

message! {
    /// Refers to a virtual service whose routes take this one's place.
    pub struct Delegate {
        /// Its name.
        name: String,
        /// Its namespace; the root's when empty.
        namespace: String,
    }
}

message! {
    /// Changes of headers on the way to the destination and on the way back.
    pub struct Headers {
        /// Of the request.
        request: Option<HeaderOperations>,
        /// Of the response.
        response: Option<HeaderOperations>,
    }
}

message! {
    /// Changes of headers.
    pub struct HeaderOperations {
        /// Headers that are overwritten.
        set: BTreeMap<String, String>,
        /// Headers that are appended.
        add: BTreeMap<String, String>,
        /// Headers that are removed.
        remove: Vec<String>,
    }
}

oneof! {
    /// How a text is matched. Unset: whatever is there.
    pub enum StringMatch {
        /// The whole text.
        exact => Exact(String),
        /// Its beginning.
        prefix => Prefix(String),
        /// An RE2 regular expression that the whole text has to match.
        regex => Regex(String),
    }
}

message! {
    /// Conditions of a request, all of which have to hold.
    pub struct HttpMatchRequest {
        /// A name, for logs.
        name: String,
        /// The path.
        uri: Option<StringMatch>,
        /// The scheme.
        scheme: Option<StringMatch>,
        /// The method.
        method: Option<StringMatch>,
        /// The authority.
        authority: Option<StringMatch>,
        /// Headers by name, in lower case.
        headers: BTreeMap<String, StringMatch>,
        /// The port on the host that is addressed.
        port: u32,
        /// Labels of the workloads the rule is for.
        source_labels: BTreeMap<String, String>,
        /// The gateways the rule is for; overrides those of the virtual service.
        gateways: Vec<String>,
        /// Query parameters by name.
        query_params: BTreeMap<String, StringMatch>,
        /// Whether the path is matched without regard to case.
        ignore_uri_case: bool,
        /// Headers that must not match.
        without_headers: BTreeMap<String, StringMatch>,
        /// The namespace of the workloads the rule is for.
        source_namespace: String,
        /// The prefix of statistics of this route.
        stat_prefix: String,
    }
}

message! {
    /// A destination with its share of the requests.
    pub struct HttpRouteDestination {
        /// The destination.
        destination: Destination [Required],
        /// Its share, in proportion to the sum of all weights.
        weight: i32,
        /// Changes of headers.
        headers: Option<Headers>,
    }
}

message! {
    /// A service, or a subset of one.
    pub struct Destination {
        /// The name of a service in the registry.
        host: String [Required],
        /// The name of a subset that a destination rule defines.
        subset: String,
        /// The port; needless when the service has only one.
        port: Option<PortSelector>,
    }
}

message! {
    /// A port by its number.
    pub struct PortSelector {
        /// The number.
        number: u32,
    }
}

message! {
    /// A route of TLS traffic.
    pub struct TlsRoute {
        /// Conditions, of which one suffices.
        r#match: Vec<TlsMatchAttributes> [Required],
        /// Where connections go, by weight.
        route: Vec<RouteDestination>,
    }
}

message! {
    /// A route of TCP traffic.
    pub struct TcpRoute {
        /// Conditions, of which one suffices.
        r#match: Vec<L4MatchAttributes>,
        /// Where connections go, by weight.
        route: Vec<RouteDestination>,
    }
}

message! {
    /// Conditions of a TLS connection, all of which have to hold.
    pub struct TlsMatchAttributes {
        /// Names of the SNI, perhaps with a leading wildcard; subsets of the virtual service's hosts.
        sni_hosts: Vec<String> [Required],
        /// Addresses of the destination, perhaps with a prefix length.
        destination_subnets: Vec<String>,
        /// The port on the host that is addressed.
        port: u32,
        /// Labels of the workloads the rule is for.
        source_labels: BTreeMap<String, String>,
        /// The gateways the rule is for; overrides those of the virtual service.
        gateways: Vec<String>,
        /// The namespace of the workloads the rule is for.
        source_namespace: String,
    }
}

message! {
    /// Conditions of a connection, all of which have to hold.
    pub struct L4MatchAttributes {
        /// Addresses of the destination, perhaps with a prefix length.
        destination_subnets: Vec<String>,
        /// The port on the host that is addressed.
        port: u32,
        /// Address of the source.
        source_subnet: String,
        /// Labels of the workloads the rule is for.
        source_labels: BTreeMap<String, String>,
        /// The gateways the rule is for; overrides those of the virtual service.
        gateways: Vec<String>,
        /// The namespace of the workloads the rule is for.
        source_namespace: String,
    }
}

message! {
    /// A destination of connections with its share.
    pub struct RouteDestination {
        /// The destination.
        destination: Destination [Required],
        /// Its share, in proportion to the sum of all weights.
        weight: i32,
    }
}

message! {
    /// A redirect.
    pub struct HttpRedirect [OneOf(&["port", "derive_port"])] {
        /// The new path.
        uri: String,
        /// The new authority.
        authority: String,
        /// The new port.
        port: Option<u32>,
        /// How the new port is derived.
        derive_port: Option<RedirectPortSelection>,
        /// The new scheme.
        scheme: String,
        /// The status; 301 when absent.
        redirect_code: u32,
        /// What takes the place of the matched prefix of the path.
        prefix_rewrite: String,
    }
}

enumeration! {
    /// How a redirect derives its port.
    pub enum RedirectPortSelection {
        /// 80 for HTTP, 443 for HTTPS.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT" 0,
        /// The request's.
        FromRequestPort = "FROM_REQUEST_PORT" 1,
    }
}

message! {
    /// A fixed response.
    pub struct HttpDirectResponse {
        /// The status.
        status: u32 [Required],
        /// The body.
        body: Option<HttpBody>,
    }
}

oneof! {
    /// A body.
    pub enum HttpBody {
        /// As text.
        string => String(String),
        /// As bytes.
        bytes => Bytes(Base64),
    }
}

message! {
    /// Changes of path and authority.
    pub struct HttpRewrite {
        /// What takes the place of the path, or of its matched prefix.
        uri: String,
        /// What takes the place of the authority.
        authority: String,
        /// A substitution of the path by regular expression.
        uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// A substitution by regular expression.
    pub struct RegexRewrite {
        /// An RE2 regular expression.
        r#match: String,
        /// What takes the place of what matched; `\1` refers to the first group.
        rewrite: String,
    }
}

message! {
    /// How failed requests are tried again.
    pub struct HttpRetry {
        /// How often; zero means never.
        attempts: i32,
        /// How long each try may take; absent: as long as the route.
        per_try_timeout: Option<Duration> [DURATION],
        /// Conditions, separated by commas, as Envoy's x-envoy-retry-on and x-envoy-retry-grpc-on, and statuses.
        retry_on: String,
        /// Whether other localities are tried.
        retry_remote_localities: Option<bool> [Nullable],
        /// Whether hosts that were tried before are left out.
        retry_ignore_previous_hosts: Option<bool> [Nullable],
        /// The least pause between tries.
        backoff: Option<Duration> [DURATION],
    }
}

message! {
    /// Cross-origin resource sharing.
    pub struct CorsPolicy {
        /// Old form of allowOrigins.
        allow_origin: Vec<String>,
        /// Origins that are allowed.
        allow_origins: Vec<StringMatch>,
        /// Methods that are allowed.
        allow_methods: Vec<String>,
        /// Request headers that are allowed.
        allow_headers: Vec<String>,
        /// Response headers that scripts may read.
        expose_headers: Vec<String>,
        /// How long a preflight's answer may be kept.
        max_age: Option<Duration> [DURATION],
        /// Whether credentials are allowed.
        allow_credentials: Option<bool> [Nullable],
        /// What becomes of preflights that match no origin.
        unmatched_preflights: UnmatchedPreflights,
    }
}

enumeration! {
    /// What becomes of preflights that match no origin.
    pub enum UnmatchedPreflights {
        /// As FORWARD.
        Unspecified = "UNSPECIFIED" 0,
        /// They are forwarded.
        Forward = "FORWARD" 1,
        /// They are answered without forwarding.
        Ignore = "IGNORE" 2,
    }
}

message! {
    /// Faults that are injected.
    pub struct HttpFaultInjection {
        /// Requests that are held up.
        delay: Option<FaultDelay>,
        /// Requests that are aborted.
        abort: Option<FaultAbort>,
    }
}

message! {
    /// A delay before forwarding.
    pub struct FaultDelay [OneOf(&["fixed_delay", "exponential_delay"])] {
        /// Old form of percentage.
        percent: i32,
        /// How long.
        fixed_delay: Option<Duration> [DURATION],
        /// Not in use.
        exponential_delay: Option<Duration> [DURATION],
        /// How many of the requests.
        percentage: Option<Percent>,
    }
}

message! {
    /// An answer in the place of forwarding.
    pub struct FaultAbort [OneOf(&["http_status", "grpc_status", "http2_error"])] {
        /// The HTTP status.
        http_status: Option<i32>,
        /// The gRPC status, by name or number.
        grpc_status: Option<String>,
        /// Not in use.
        http2_error: Option<String>,
        /// How many of the requests; all when absent.
        percentage: Option<Percent>,
    }
}

message! {
    /// Part of a hundred.
    pub struct Percent {
        /// From 0 to 100.
        value: f64,
    }
}

message! {
    /// A destination that gets copies.
    pub struct HttpMirrorPolicy {
        /// The destination.
        destination: Destination [Required],
        /// How many of the requests; all when absent.
        percentage: Option<Percent>,
    }
}

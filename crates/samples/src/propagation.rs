//! Headers that a service passes from the request it serves to the calls it makes, so that a trace holds together.

use http::{HeaderMap, HeaderName};

/// What Bookinfo passes on: trace context of every usual kind, the user, and what policies look at.
const PASSED_ON: &[&str] = &[
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// The headers of `incoming` that go along.
pub(crate) fn passed_on(incoming: &HeaderMap) -> HeaderMap {
    PASSED_ON
        .iter()
        .map(|name| HeaderName::from_static(name))
        .filter_map(|name| incoming.get(&name).map(|value| (name, value.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_and_user_go_along_and_the_rest_stays() {
        let mut incoming = HeaderMap::new();
        for name in ["x-b3-traceid", "end-user", "host", "content-length", "connection"] {
            incoming.insert(HeaderName::from_static(name), "x".parse().unwrap());
        }
        let passed: Vec<_> = passed_on(&incoming).keys().map(ToString::to_string).collect();
        assert_eq!(passed, ["x-b3-traceid", "end-user"]);
    }
}
